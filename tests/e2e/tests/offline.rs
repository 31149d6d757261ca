//! A board without its hub: it carries on, and what changed meanwhile arrives when the hub returns.
//!
//! In: a world with one or two boards. Out: processes on the boards, files in containers.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, until, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A pod with one busybox container; `spec` fields are added to the container.
fn pod(name: &str, script: &str, container: &Value, spec: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]}]},
    });
    extend(&mut pod["spec"]["containers"][0], container);
    extend(&mut pod["spec"], spec);
    pod.to_string()
}

fn extend(target: &mut Value, more: &Value) {
    if let (Some(target), Some(more)) = (target.as_object_mut(), more.as_object()) {
        target.extend(more.clone());
    }
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ()).map_err(|why| {
        let more = world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default();
        format!("{why}\n{more}")
    })
}

fn restarts(world: &World, name: &str) -> Result<u64> {
    let pod = world.kubectl.json(&format!("get pod {name}"))?;
    Ok(pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0))
}

/// The one process of this name on the first board.
fn process_now(world: &World, name: &str) -> Result<limpet_e2e::process::Process> {
    let all = world.agents[0].named(name);
    match all.as_slice() {
        [one] => Ok(one.clone()),
        other => Err(format!("{} processes called {name}: {other:?}", other.len())),
    }
}

/// The same, as soon as it is there: a container whose shell has not become it yet is running all the same.
fn process(world: &World, name: &str) -> Result<limpet_e2e::process::Process> {
    until("the process of a container", SOON, || process_now(world, name))
}

#[test]
fn crashed_containers_restart_and_probes_keep_acting() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(&pod("crashing", "exec tail -f /dev/null", &json!({}), &json!({})))?;
        let probe = json!({"livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/alive"]},
            "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1, "initialDelaySeconds": 1}});
        let script = "touch /tmp/alive; exec sleep 100000";
        world.kubectl.apply(&pod("probed", script, &probe, &json!({})))?;
        ready(world, "crashing")?;
        ready(world, "probed")?;
        world.hub.kill();
        let (tail, sleep) = (process(world, "tail")?, process(world, "sleep")?);
        kill(Pid::from_raw(tail.pid), Signal::SIGKILL).map_err(|e| e.to_string())?;
        // The file is what the probe looks for; taken away from outside, the container is restarted.
        let file = format!("/proc/{}/root/tmp/alive", sleep.pid);
        std::fs::remove_file(&file).map_err(|e| format!("{file}: {e}"))?;
        for (name, old) in [("tail", &tail), ("sleep", &sleep)] {
            until("a restart without the hub", SOON, || {
                let new = process_now(world, name)?;
                wait::yes(new != *old, || format!("{name} has not been restarted"))
            })?;
        }
        world.hub.start()?;
        for name in ["crashing", "probed"] {
            until("the restart in the status", SOON, || {
                let count = restarts(world, name)?;
                wait::yes(count == 1, || format!("{name}: {count} restarts"))
            })?;
        }
        Ok(())
    });
}

#[test]
fn changes_made_while_a_board_is_away() {
    test(2, &json!({}), |world| {
        let pinned = |name: &str| json!({"nodeName": name});
        let config = |text: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": text}}).to_string()
        };
        let mount = json!({"volumeMounts": [{"name": "c", "mountPath": "/c"}]});
        let mut spec = pinned("board-1");
        extend(&mut spec, &json!({"volumes": [{"name": "c", "configMap": {"name": "c"}}]}));
        world.kubectl.apply(&config("before"))?;
        world.kubectl.apply(&pod("reader", "exec tail -f /dev/null", &mount, &spec))?;
        // Without a grace period Kubernetes forgets a pod at once; with one it waits for the board.
        let mut graceful = pinned("board-1");
        extend(&mut graceful, &json!({"terminationGracePeriodSeconds": 1}));
        world.kubectl.apply(&pod("leaver", "exec sleep 100000", &json!({}), &graceful))?;
        ready(world, "reader")?;
        ready(world, "leaver")?;
        let before = process(world, "tail")?;

        net::cable(&world.slot, 1, false)?;
        world.kubectl.apply(&config("after"))?;
        world.kubectl.say("delete pod leaver --wait=false")?;
        world.kubectl.apply(&pod("newcomer", "exec sleep 200000", &json!({}), &pinned("board-1")))?;
        // The other board does not care, and the hub keeps what it has promised until the board says so.
        world.kubectl.apply(&pod("elsewhere", "exec sleep 300000", &json!({}), &pinned("board-2")))?;
        ready(world, "elsewhere")?;
        let leaver = world.kubectl.json("get pod leaver")?;
        wait::yes(leaver["metadata"]["deletionTimestamp"].is_string(), || "leaver is gone too early".to_string())?;

        net::cable(&world.slot, 1, true)?;
        ready(world, "newcomer")?;
        until("the deletion", SOON, || {
            let gone = world.kubectl.output(&["get", "pod", "leaver"])?;
            wait::yes(gone.stderr.contains("NotFound"), || gone.stdout)
        })?;
        until("the new message", SOON, || {
            let text = world.kubectl.say("exec reader -- cat /c/k")?;
            wait::yes(text == "after", || format!("{text:?}"))
        })?;
        // Only the newcomer's is wanted.
        process(world, "sleep")?;
        wait::yes(process(world, "tail")? == before, || "the reader was restarted".to_string())
    });
}

#[test]
fn a_board_that_reboots_twice_without_a_hub() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(limpet_e2e::tour::WORKLOAD)?;
        limpet_e2e::tour::running(world, 3)?;
        let token = bearer(world)?;
        world.hub.kill();
        for _ in 0..2 {
            world.agents[0].power_cut()?;
            world.agents[0].start(None)?;
            until("three servers without the hub", SOON, || {
                world.agents[0].check()?;
                let count = world.agents[0].named("demo-web").len();
                wait::yes(count == 3, || format!("{count} run"))
            })?;
        }
        outlives(world, &token)?;
        // Four fifths of the token's life are over when the hub is there again.
        let library = limpet_e2e::hub::faketime();
        match library {
            Some(library) => world.hub.ahead(library, "50m"),
            None => println!("not shown here: the token's renewal (libfaketime is missing: `cargo xtask setup`)"),
        }
        world.hub.start()?;
        world.nodes_ready(SOON)?;
        limpet_e2e::tour::running(world, 3)?;
        match library {
            Some(_) => renewed(world, &token),
            None => Ok(()),
        }
    });
}

/// A pod with a token that is good for an hour.
fn bearer(world: &World) -> Result<String> {
    let source = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}});
    let spec = json!({"volumes": [{"name": "t", "projected": {"sources": [source]}}]});
    let mount = json!({"volumeMounts": [{"name": "t", "mountPath": "/t"}]});
    world.kubectl.apply(&pod("bearer", "exec tail -f /t/token", &mount, &spec))?;
    ready(world, "bearer")?;
    world.kubectl.say("exec bearer -- cat /t/token")
}

fn token_of(process: &limpet_e2e::process::Process) -> Result<String> {
    let file = format!("/proc/{}/root/t/token", process.pid);
    std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))
}

/// A board that has been away for longer than a token lives: its pods start with it all the same, after a power cut and after
/// their own end.
fn outlives(world: &mut World, token: &str) -> Result<()> {
    world.agents[0].power_cut()?;
    world.agents[0].start_with(None, &[("LIMPET_FAKE_WALL_OFFSET_S", "90000")])?;
    let with_token = |old: Option<&limpet_e2e::process::Process>| {
        until("the pod with its token", SOON, || {
            let now = process_now(world, "tail")?;
            wait::yes(old != Some(&now) && token_of(&now)? == token, || "the same process, or another token".into())?;
            Ok(now)
        })
    };
    let first = with_token(None)?;
    kill(Pid::from_raw(first.pid), Signal::SIGKILL).map_err(|e| e.to_string())?;
    with_token(Some(&first)).map(|_| ())
}

/// The pod's file has a new token, while the old one is still good.
fn renewed(world: &World, old: &str) -> Result<()> {
    let before = process(world, "tail")?;
    let new = until("a new token", SOON, || {
        let new = token_of(&before)?;
        wait::yes(new != old, || "the old token".into())?;
        Ok(new)
    })?;
    for token in [old, &new] {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let said = world.kubectl.with_input(&["create", "-o", "json", "-f", "-"], &review.to_string())?.ok("TokenReview")?;
        let said: Value = serde_json::from_str(&said).map_err(|e| e.to_string())?;
        wait::yes(said["status"]["authenticated"] == true, || said["status"].to_string())?;
    }
    wait::yes(process(world, "tail")? == before, || "the pod was restarted for it".into())
}

#[test]
fn a_killed_agent_loses_no_log_line_and_no_exit_code() {
    test(1, &json!({}), |world| {
        let script = "n=0; while test $n -lt 4000; do n=$((n+1)); echo line $n; test $((n%10)) -ne 0 || sleep 0.01; done; exit 42";
        let spec = json!({"restartPolicy": "Never"});
        world.kubectl.apply(&pod("counter", script, &json!({}), &spec))?;
        until("the first lines", SOON, || {
            let text = world.kubectl.say("logs counter")?;
            wait::yes(text.contains("line 20"), || text)
        })?;
        for _ in 0..4 {
            let agent = world.agents[0].agent_process()?;
            kill(Pid::from_raw(agent.pid), Signal::SIGKILL).map_err(|e| e.to_string())?;
            until("a new agent", SOON, || {
                let new = world.agents[0].agent_process()?;
                wait::yes(new != agent, || "the old one".to_string())
            })?;
        }
        until("the exit code", SOON, || {
            let pod = world.kubectl.json("get pod counter")?;
            let code = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
            wait::yes(*code == 42, || pod["status"].to_string())
        })?;
        let text = world.kubectl.say("logs counter")?;
        let want: String = (1..=4000).map(|n| format!("line {n}\n")).collect();
        wait::yes(text == want, || format!("lines are missing, doubled or out of order: {} of 4000", text.lines().count()))
    });
}

/// Nobody waits for an answer that cannot come, and everybody sees what will happen when the board is back.
#[test]
fn absence_is_said_at_once_and_what_waits_is_shown() {
    test(1, &json!({}), |world| {
        let meta = json!({"name": "prices"});
        let map = |price: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"tea": price}});
        world.kubectl.apply(&map("2").to_string())?;
        let volumes = json!({"volumes": [{"name": "v", "configMap": {"name": "prices"}}]});
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/prices"}]});
        world.kubectl.apply(&pod("till", "sleep 100000", &mounts, &volumes))?;
        ready(world, "till")?;
        world.agents[0].power_cut()?;
        world.kubectl.say("wait --for=condition=Ready=Unknown node/board-1 --timeout=120s")?;
        for words in ["logs till", "exec till -- true", "port-forward pod/till :80"] {
            let why = world.kubectl.say(words).err().unwrap_or_default();
            wait::yes(why.contains("node board-1 is offline since 20"), || format!("{words}: {why:?}"))?;
        }
        world.kubectl.apply(&map("3").to_string())?;
        until("the annotation", SOON, || {
            let node = world.kubectl.json("get node board-1")?;
            let queued = node["metadata"]["annotations"]["limpet.dev/queued-changes"].to_string();
            wait::yes(queued.contains("ConfigMap default/prices (changed)"), || queued.clone())
        })?;
        let sentences =
            [("node/board-1", "it will be told when it is back"), ("pod/till", "it applies when the board is back")];
        for (about, words) in sentences {
            let said = world.hub.operate(&["why", about])?;
            let sentence = format!("{words}: ConfigMap default/prices (changed)");
            wait::yes(said.contains(&sentence), || said.clone())?;
        }
        world.agents[0].start(None)?;
        world.nodes_ready(SOON)?;
        until("nothing waits", SOON, || {
            let node = world.kubectl.json("get node board-1")?;
            let left = &node["metadata"]["annotations"]["limpet.dev/queued-changes"];
            wait::yes(left.is_null(), || left.to_string())
        })?;
        until("the new price", SOON, || {
            let price = world.kubectl.say("exec till -- cat /prices/tea")?;
            wait::yes(price.trim() == "3", || price.clone())
        })
    });
}
