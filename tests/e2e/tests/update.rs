//! New versions of the agent over the air: taken, left when they are no good, refused when they are forged.
//!
//! In: a world with one board, releases that `limpet update publish` signed. Out: the node as kubectl shows it, processes.

use limpet_e2e::process::{Process, run, tail};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn told(e: std::io::Error) -> String {
    e.to_string()
}

/// A program that the hub will sign: another file than the installed one, and yet the same agent.
fn another_agent(world: &World) -> Result<PathBuf> {
    agent_of_its_own(world, "another")
}

fn agent_of_its_own(world: &World, name: &str) -> Result<PathBuf> {
    let path = world.slot.dir().join(format!("agent-{name}"));
    let mut bytes = fs::read(&world.binaries.agent).map_err(told)?;
    bytes.extend(name.as_bytes());
    fs::write(&path, bytes).map_err(told)?;
    Ok(path)
}

fn publish(world: &World, version: &str, program: &Path) -> Result<()> {
    let program = program.to_string_lossy();
    world.hub.operate(&["update", "publish", &program, "--version", version]).map(|_| ())
}

/// Signed with a key that the board has never heard of; the registry cannot know.
fn publish_forged(world: &World, version: &str, program: &Path) -> Result<()> {
    let pki = world.hub.dir.join("pki");
    let (public, private, own) = (pki.join("update.pub"), pki.join("update.key"), world.slot.dir().join("own"));
    fs::create_dir_all(&own).map_err(told)?;
    for file in [&public, &private] {
        fs::rename(file, own.join(file.file_name().unwrap_or_default())).map_err(told)?;
    }
    let mut key = Command::new(&world.binaries.hub);
    key.args(["image", "key", "--out"]).arg(&private);
    run(&mut key)?.ok("limpet image key")?;
    // The last half of its public key, as `limpet update publish` says when it does not fit.
    fs::write(&public, "00").map_err(told)?;
    let program = program.to_string_lossy().into_owned();
    let refused = world.hub.operate(&["update", "publish", &program, "--version", version]).err().unwrap_or_default();
    wait::yes(refused.contains("they would refuse what it signs"), || refused.clone())?;
    let der = fs::read(&private).map_err(told)?;
    let half: String = der[der.len() - 32..].iter().map(|b| format!("{b:02x}")).collect();
    fs::write(&public, half).map_err(told)?;
    publish(world, version, Path::new(&program))?;
    for file in [&public, &private] {
        fs::rename(own.join(file.file_name().unwrap_or_default()), file).map_err(told)?;
    }
    Ok(())
}

fn wanted(world: &World, version: &str) -> Result<()> {
    world.kubectl.say(&format!("annotate --overwrite node board-1 limpet.dev/agent-version={version}")).map(|_| ())
}

/// The node's version and why.
fn state(world: &World) -> Result<(String, String)> {
    let node = world.kubectl.json("get node board-1")?;
    let info = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
    let version = info.rsplit_once("limpet-").map(|(_, v)| v.to_string()).unwrap_or_default();
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let own = all.iter().find(|c| c["type"] == "AgentUpToDate").cloned().unwrap_or(Value::Null);
    Ok((version, format!("{} {} {}", own["status"], own["reason"], own["message"])))
}

fn comes_to(world: &World, version: &str, words: &[&str]) -> Result<()> {
    let log = world.agents[0].log.clone();
    until(&format!("agent {version}, {words:?}"), SOON, || {
        let (runs, why) = state(world)?;
        let good = runs == version && words.iter().all(|w| why.contains(w));
        wait::yes(good, || format!("{runs}: {why}\n{}", tail(&log, 3000)))
    })
}

fn sleepers(world: &World) -> Vec<Process> {
    world.agents[0].named("sleep")
}

/// A container that counts, and its status.
fn talker(world: &World) -> Result<Value> {
    let line = "i=0; while true; do echo $i; i=$((i+1)); usleep 100000; done";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talks"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line]}]}});
    world.kubectl.apply(&pod.to_string())?;
    world.kubectl.say("wait --for=condition=Ready pod/talks --timeout=90s")?;
    talks(world)
}

fn talks(world: &World) -> Result<Value> {
    Ok(world.kubectl.json("get pod talks")?["status"]["containerStatuses"].take())
}

/// It is the same container since the same time, and each number that it ever said is in its log once, also those of now.
fn goes_on(world: &World, before: &Value) -> Result<()> {
    let now = talks(world)?;
    wait::yes(now == *before, || format!("{now} instead of {before}"))?;
    let mut first = None;
    until("more of the log", SOON, || {
        let text = world.kubectl.say("logs talks")?;
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap_or(usize::MAX)).collect();
        let whole = numbers.iter().enumerate().all(|(at, number)| at == *number);
        wait::yes(whole, || format!("lines are missing or double: {numbers:?}"))?;
        let first = *first.get_or_insert(numbers.len());
        wait::yes(numbers.len() > first + 3, || format!("{} lines", numbers.len()))
    })
}

#[test]
fn an_agent_is_updated_over_the_air_and_containers_never_notice() {
    test(1, &json!({}), |world| {
        let installed = state(world)?.0;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "till"}, "spec": {
            "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sleep", "100000"]}]}});
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/till --timeout=90s")?;
        let talks = talker(world)?;
        let before = sleepers(world);
        let untouched = |world: &World, when: &str| {
            goes_on(world, &talks).map_err(|why| format!("{when}: {why}"))?;
            let now = sleepers(world);
            let same = !now.is_empty() && now.iter().map(|p| p.pid).eq(before.iter().map(|p| p.pid));
            wait::yes(same, || format!("{when}: {} containers were, {} are", before.len(), now.len()))
        };
        let another = another_agent(world)?;
        publish(world, "7.2.0", &another)?;
        publish(world, "7.3.0", Path::new("/bin/false"))?;
        publish_forged(world, "7.4.0", &another)?;
        publish(world, "7.1.0", &another)?;
        let list = world.hub.operate(&["update", "list"])?;
        wait::yes(list.split_whitespace().eq(["7.1.0", "7.2.0", "7.3.0", "7.4.0"]), || list.clone())?;
        let twice = publish(world, "7.2.0", &another).err().unwrap_or_default();
        wait::yes(twice.contains("published already"), || twice.clone())?;

        world.at_the_board(&["lock", "till", "--reason", "a payment"])?;
        wanted(world, "7.2.0")?;
        comes_to(world, &installed, &["False", "Locked", "7.2.0: held back by till: a payment"])?;
        world.at_the_board(&["unlock", "till"])?;
        comes_to(world, "7.2.0", &["True", "AsWanted"])?;
        world.has_event("AgentUpdated")?;
        untouched(world, "after the update")?;
        wait::yes(world.kubectl.say("exec till -- echo here")?.contains("here"), || "exec does not work".into())?;

        wanted(world, "7.3.0")?;
        comes_to(world, "7.2.0", &["False", "RolledBack", "7.3.0: it was started 3 times"])?;
        world.has_event("AgentRolledBack")?;
        untouched(world, "after the broken update")?;

        wanted(world, "7.4.0")?;
        comes_to(world, "7.2.0", &["False", "Refused", "its signature is not by the key"])?;
        world.has_event("AgentUpdateRefused")?;
        wanted(world, "7.1.0")?;
        comes_to(world, "7.2.0", &["False", "Refused", "older than 7.2.0"])?;
        untouched(world, "after refusals")?;

        // The next boot is the updated program, too; and there is a way back to the installed one.
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        world.nodes_ready(SOON)?;
        comes_to(world, "7.2.0", &["Refused"])?;
        wanted(world, &installed)?;
        comes_to(world, &installed, &["True", "AsWanted"])
    });
}

/// How far an update is, as the board's disk and log show it.
type Step = (&'static str, fn(&World, &str) -> bool);

fn updates(world: &World) -> PathBuf {
    world.agents[0].data.join("update")
}

fn kept_state(world: &World) -> Value {
    fs::read(updates(world).join("state")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

const STEPS: [Step; 6] = [
    ("it is wanted", |_, _| true),
    ("it is being fetched", |world, version| {
        tail(&world.agents[0].log, 1 << 20).contains(&format!("fetching version {version} of the agent"))
    }),
    ("a file of it is there", |world, _| {
        let files = fs::read_dir(updates(world)).into_iter().flatten().flatten();
        let programs = files.filter(|f| !f.file_name().to_string_lossy().starts_with("state")).count();
        programs > 2
    }),
    ("it is staged", |world, version| kept_state(world)["trial"]["program"]["version"] == version),
    ("it was started", |world, version| {
        let trial = &kept_state(world)["trial"];
        trial["program"]["version"] == version && trial["starts"].as_u64().unwrap_or(0) > 0
    }),
    ("it has proved itself", |world, version| kept_state(world)["current"]["version"] == version),
];

/// Death at each step of an update, of the whole board or of the agent alone: what starts is the old program or the new one,
/// and in the end the new one.
#[test]
fn death_at_any_step_of_an_update_leads_to_one_program_or_the_other() {
    test(1, &json!({}), |world| {
        let mut number = 0;
        for (what, reached) in STEPS {
            for whole in [true, false] {
                number += 1;
                let version = format!("7.{number}.0");
                let program = agent_of_its_own(world, &version)?;
                publish(world, &version, &program)?;
                fs::remove_file(program).map_err(told)?;
                wanted(world, &version)?;
                // Steps are short; who is late meets a later one.
                let later = |world: &World| kept_state(world)["current"]["version"] == *version;
                let begin = std::time::Instant::now();
                while !reached(world, &version) && !later(world) {
                    wait::yes(begin.elapsed() < SOON, || format!("{what} ({version}) did not come\n{}", world.logs()))?;
                    std::thread::sleep(Duration::from_micros(500));
                }
                if whole {
                    world.agents[0].power_cut()?;
                    world.agents[0].start(None)?;
                } else {
                    let agent = world.agents[0].agent_process();
                    // Between two lives there is none to kill.
                    let _ = agent.map(|agent| run(Command::new("kill").args(["-9", &agent.pid.to_string()])));
                }
                comes_to(world, &version, &["True", "AsWanted"]).map_err(|e| format!("death when {what}, {version}: {e}"))?;
            }
        }
        world.nodes_ready(SOON)
    });
}

/// A program that runs and of which the hub does not hear; its time is shortened here.
#[test]
fn a_program_that_the_hub_does_not_hear_is_left() {
    if limpet_e2e::process::which("rustc").is_none() {
        println!("skipped: a program that is never heard: no rustc here to make it");
        return;
    }
    test(1, &json!({}), |world| {
        let installed = state(world)?.0;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "till"}, "spec": {
            "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sleep", "100000"]}]}});
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/till --timeout=90s")?;
        world.agents[0].power_cut()?;
        world.agents[0].start_with(None, &[("LIMPET_FAKE_TRIAL_MS", "8000")])?;
        let pids = |world: &World| sleepers(world).iter().map(|p| p.pid).collect::<Vec<_>>();
        until("the pod again", SOON, || wait::yes(pids(world).len() == 1, || "not there".into()))?;
        let before = pids(world);
        let (source, mute) = (world.slot.dir().join("mute.rs"), world.slot.dir().join("mute-agent"));
        fs::write(&source, "fn main() { loop { std::thread::park() } }").map_err(told)?;
        run(Command::new("rustc").arg("-o").arg(&mute).arg(&source))?.ok("rustc")?;
        publish(world, "7.9.0", &mute)?;
        wanted(world, "7.9.0")?;
        let runs = || {
            let programs = updates(world).display().to_string();
            world.agents[0].processes().iter().any(|p| {
                fs::read_link(format!("/proc/{}/exe", p.pid)).is_ok_and(|exe| exe.display().to_string().starts_with(&programs))
            })
        };
        until("the mute program", SOON, || wait::yes(runs(), || "it does not run".into()))?;
        comes_to(world, &installed, &["False", "RolledBack", "7.9.0: the hub did not hear from it"])?;
        wait::yes(!runs(), || "it still runs".into())?;
        wait::yes(pids(world) == before, || "the container was touched".into())
    });
}

fn rollout(name: &str, version: &str) -> String {
    let metadata = json!({"name": name, "namespace": "kube-system"});
    json!({"apiVersion": "limpet.dev/v1", "kind": "FleetRollout", "metadata": metadata, "spec": {
        "target": {"kind": "Node", "selector": {"matchLabels": {"kubernetes.io/os": "linux"}}},
        "change": {"metadata": {"annotations": {"limpet.dev/agent-version": version}}},
        "success": {"deadline": "5m", "maxFailed": 0}, "onFailure": "Rollback"}})
    .to_string()
}

/// One after the other; a bad version is taken back from everybody, also from those that nobody had given a version before.
#[test]
fn a_fleet_is_updated_in_waves_and_goes_back_as_one() {
    test(2, &json!({}), |world| {
        let installed = state(world)?.0;
        let another = another_agent(world)?;
        publish(world, "7.2.0", &another)?;
        publish(world, "7.3.0", Path::new("/bin/false"))?;
        let versions = |world: &World| world.kubectl.say("get nodes -o jsonpath={.items[*].status.nodeInfo.kubeletVersion}");
        world.kubectl.apply(&rollout("bad", "7.3.0"))?;
        world.kubectl.say("-n kube-system wait fleetrollout/bad --for=jsonpath={.status.phase}=RolledBack --timeout=180s")?;
        let all = versions(world)?;
        wait::yes(all.matches(&format!("limpet-{installed}")).count() == 2, || all.clone())?;
        world.kubectl.apply(&rollout("good", "7.2.0"))?;
        world.kubectl.say("-n kube-system wait fleetrollout/good --for=condition=Complete --timeout=240s")?;
        let all = versions(world)?;
        wait::yes(all.matches("limpet-7.2.0").count() == 2, || all.clone())
    });
}
