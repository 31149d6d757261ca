//! Logs that are kept: the hub shows what a board delivered while the board is away, and gets the rest when it returns.
//!
//! In: a world with two boards. Out: what `kubectl logs` prints, on both of its streams.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, until, wait};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// A pod on the first board that says as many lines as the file `count` in `dir` asks for.
fn talker(name: &str, keep: &str, dir: &std::path::Path) -> String {
    let script = "n=0; while true; do w=$(cat /say/count 2>/dev/null || echo 5); while [ $n -lt $w ]; do n=$((n+1)); \
                  echo line $n; done; sleep 0.2; done";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"limpet.dev/keep-logs": keep}},
        "spec": {"nodeName": "board-1", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "say", "mountPath": "/say"}]}],
            "volumes": [{"name": "say", "hostPath": {"path": dir, "type": "Directory"}}]}})
    .to_string()
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ())
}

/// How many lines the pod is to have said by now; the board reads it from the directory that is its volume.
fn say(dir: &std::path::Path, count: u32) -> Result<()> {
    std::fs::write(dir.join("count"), count.to_string()).map_err(|e| e.to_string())
}

/// Waits until the hub has a line of this attempt of the pod. Attempts arrive one after the other, each when it has begun.
fn delivered(world: &World, name: &str, attempt: u32, line: &str) -> Result<()> {
    let uid = world.kubectl.say(&format!("get pod {name} -o jsonpath={{.metadata.uid}}"))?;
    let log = format!("{uid}/main.{attempt}.log");
    until("the hub to have the lines", SOON, || {
        let mut grep = std::process::Command::new("grep");
        let found = grep.args(["-rls", line]).arg(world.hub.dir.join("logs")).output().map_err(|e| e.to_string())?;
        let names = String::from_utf8_lossy(&found.stdout).into_owned();
        wait::yes(names.contains(&log), || format!("{name}, {log}: {names:?}"))
    })
}

#[test]
fn the_last_lines_of_a_board_that_is_away_and_all_of_them_when_it_is_back() {
    test(2, &json!({}), |world| {
        let dir = world.slot.dir().join("say");
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        say(&dir, 5)?;
        for (name, keep) in [("kept", "64Ki"), ("small", "4Ki"), ("other", "0")] {
            world.kubectl.apply(&talker(name, keep, &dir))?;
            ready(world, name)?;
        }
        // Delivered while the board is there.
        delivered(world, "kept", 0, "line 5$")?;
        delivered(world, "small", 0, "line 5$")?;
        net::cable(&world.slot, 1, false)?;
        until("the board away", SOON, || {
            let out = world.kubectl.output(&["logs", "other"])?;
            wait::yes(out.stderr.contains("offline since"), || out.stderr)
        })?;
        let out = world.kubectl.output(&["logs", "kept"])?;
        wait::yes(out.stdout == "line 1\nline 2\nline 3\nline 4\nline 5\n", || format!("{:?}", out.stdout))?;
        wait::yes(out.stderr.contains("Warning: node board-1 is away since 20"), || out.stderr.clone())?;
        let tail = world.kubectl.output(&["logs", "kept", "--tail=1"])?;
        wait::yes(tail.stdout == "line 5\n", || tail.stdout)?;

        // Spoken while nobody hears it; a reboot does not matter, and one pod goes meanwhile.
        say(&dir, 400)?;
        until("the board to have said it", SOON, || {
            let said = std::process::Command::new("grep").args(["-rlsw", "line 400"]).arg(world.slot.dir()).output();
            let said = said.map_err(|e| e.to_string())?.stdout;
            let files = String::from_utf8_lossy(&said).lines().filter(|l| l.ends_with(".log")).count();
            wait::yes(files >= 3, || format!("{files} logs"))
        })?;
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        net::cable(&world.slot, 1, true)?;
        // The reboot began a second attempt. Its lines come after those of the first: perhaps much later, on a slow board.
        delivered(world, "kept", 1, "line 400$")?;
        delivered(world, "small", 1, "line 400$")?;

        net::cable(&world.slot, 1, false)?;
        until("the board away", SOON, || {
            let out = world.kubectl.output(&["logs", "kept", "--previous"])?;
            wait::yes(out.stderr.contains("is away since"), || out.stderr)
        })?;
        // The first attempt is `--previous`, whole and in order.
        let all = world.kubectl.output(&["logs", "kept", "--previous"])?.stdout;
        let want: String = (1..=400).map(|n| format!("line {n}\n")).collect();
        wait::yes(all == want, || format!("{} lines, the last {:?}", all.lines().count(), all.lines().last()))?;
        let small = world.kubectl.output(&["logs", "small", "--previous"])?.stdout
            + &world.kubectl.output(&["logs", "small"])?.stdout;
        wait::yes(small.contains("lines are missing here"), || small.clone())?;
        // Pods that are gone: by their name, from the API.
        world.kubectl.say("delete pod kept --force --grace-period=0 --wait=false")?;
        until("the pod's end", SOON, || {
            let out = world.kubectl.output(&["get", "pod", "kept"])?;
            wait::yes(out.stderr.contains("NotFound"), || out.stdout)
        })?;
        let raw = world.kubectl.output(&["get", "--raw", "/api/v1/namespaces/default/pods/kept/log?previous=true"])?;
        wait::yes(raw.stdout == want, || format!("{} {}", raw.stdout.len(), raw.stderr))?;
        wait::yes(raw.stderr.contains("Warning: pod kept is gone"), || raw.stderr)
    });
}
