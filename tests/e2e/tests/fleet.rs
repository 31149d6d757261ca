//! A new template goes through real boards in waves: the canary first, then who is let; the device's own lock holds; a bad
//! version goes back by itself.
//!
//! In: a world of two boards. Out: which version runs where, as processes. Never: a clock; conditions are waited for.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, process, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);

fn daemon_set(command: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "till"}, "spec": {
            "selector": {"matchLabels": {"app": "till"}}, "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {"app": "till"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", command]}]}}},
    })
    .to_string()
}

fn rollout(name: &str, deadline: &str) -> String {
    json!({
        "apiVersion": "limpet.dev/v1", "kind": "FleetRollout", "metadata": {"name": name}, "spec": {
            "target": {"kind": "DaemonSet", "name": "till"},
            "waves": [{"name": "canary", "selector": {"matchLabels": {"ring": "canary"}}, "soak": "2s"}],
            "budget": {"maxUnavailable": 1}, "success": {"deadline": deadline}},
    })
    .to_string()
}

/// The seconds that a board's `sleep` was asked for: which version runs there.
fn runs(world: &World, board: usize) -> Vec<String> {
    let words = |p: &process::Process| {
        let line = std::fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
        line.split(|b| *b == 0).nth(1).map(|w| String::from_utf8_lossy(w).into_owned()).unwrap_or_default()
    };
    world.agents[board].named("sleep").iter().map(words).collect()
}

fn status(world: &World, name: &str) -> Result<Value> {
    Ok(world.kubectl.json(&format!("get fleetrollout {name}"))?["status"].take())
}

fn phase_is(world: &World, name: &str, phase: &str) -> Result<()> {
    until(&format!("phase {phase}"), LONG, || {
        let now = status(world, name)?;
        wait::yes(now["phase"] == phase, || now.to_string())
    })
}

fn run_everywhere(world: &World, version: &str) -> Result<()> {
    until(&format!("version {version} on both boards"), LONG, || {
        let all = [runs(world, 0), runs(world, 1)];
        wait::yes(all.iter().all(|r| *r == [version]), || format!("{all:?}"))
    })
}

/// A word of the agent's own command line, on the board.
fn on_board(world: &World, words: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new(&world.binaries.agent);
    command.args(words).arg("--data-dir").arg(&world.agents[1].data);
    process::run(&mut command)?.ok("limpet-agent").map(|_| ())
}

#[test]
fn a_template_goes_through_boards_in_waves_and_a_bad_one_comes_back() {
    test(2, &json!({}), |world| {
        world.kubectl.say("label node board-1 ring=canary")?;
        world.kubectl.apply(&daemon_set("exec sleep 100001"))?;
        run_everywhere(world, "100001")?;

        on_board(world, &["lock", "till", "--reason", "card payment"])?;
        until("the lock", LONG, || {
            let node = world.kubectl.say("describe node board-2")?;
            wait::yes(node.contains("card payment"), || node.clone())
        })?;
        world.kubectl.apply(&daemon_set("exec sleep 100002"))?;
        world.kubectl.apply(&rollout("good", "5m"))?;
        phase_is(world, "good", "Waiting")?;
        let held = status(world, "good")?;
        wait::yes(held["heldUnits"].to_string().contains("board-2: on the board: till: card payment"), || held.to_string())?;
        // Its pod is ready from its shell's start on; what the shell becomes comes later.
        until("the canary alone has it", LONG, || {
            let (canary, other) = (runs(world, 0), runs(world, 1));
            wait::yes(canary == ["100002"] && other == ["100001"], || format!("{canary:?} {other:?}"))
        })?;
        on_board(world, &["unlock", "till"])?;
        phase_is(world, "good", "Complete")?;
        run_everywhere(world, "100002")?;

        // It ends at once, again and again: five restarts are a failure.
        world.kubectl.apply(&daemon_set("exit 3"))?;
        world.kubectl.apply(&rollout("bad", "20s"))?;
        phase_is(world, "bad", "RolledBack")?;
        run_everywhere(world, "100002")?;
        let end = status(world, "bad")?;
        let why = end["failure"].as_str().unwrap_or_default();
        wait::yes(why.starts_with("board-1 "), || format!("only the canary had it: {end}"))?;
        let events = world.kubectl.say("describe fleetrollout bad")?;
        wait::yes(events.contains("RollingBack") && events.contains("RolledBack"), || events.clone())
    });
}
