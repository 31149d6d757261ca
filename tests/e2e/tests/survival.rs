//! What containers outlive: their agent, its upgrade, and their keeper.
//!
//! In: a board whose keeper is started again by somebody, as systemd does. Out: the same processes, the right counts, whole logs.

use limpet_e2e::process::Process;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn apply(world: &World, name: &str, line: &str) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line]}]}});
    world.kubectl.apply(&pod.to_string()).map(|_| ())
}

fn status(world: &World, name: &str) -> Result<Value> {
    Ok(world.kubectl.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0].clone())
}

fn runs(world: &World, name: &str, restarts: i64) -> Result<Value> {
    until(&format!("{name} running after {restarts} restarts"), SOON, || {
        let status = status(world, name)?;
        let good = status["restartCount"] == restarts && status["state"]["running"].is_object();
        wait::yes(good, || status.to_string())?;
        Ok(status)
    })
}

fn send(process: &Process, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(process.pid), signal).map_err(|e| format!("{signal} to {}: {e}", process.pid))
}

fn one(world: &World, name: &str) -> Result<Process> {
    world.named(name).into_iter().next().ok_or_else(|| format!("{name} does not run"))
}

/// An agent other than this one is at work, and the hub hears of it.
fn another_agent(world: &mut World, old: &Process) -> Result<()> {
    until("another agent", SOON, || {
        let new = world.agents[0].agent_process()?;
        wait::yes((new.pid, new.started) != (old.pid, old.started), || "the same agent".into())
    })?;
    world.nodes_ready(SOON)
}

/// A line that was written after now is in the log, and none is missing before it.
fn log_goes_on(world: &World) -> Result<()> {
    let lines = || world.kubectl.say("logs counter");
    let before = lines()?.lines().count();
    until("more of the log", SOON, || {
        let text = lines()?;
        let numbers: Vec<usize> = text.lines().filter_map(|l| l.parse().ok()).collect();
        wait::yes(numbers.len() > before + 3, || format!("{} lines", numbers.len()))?;
        let whole = numbers.iter().enumerate().all(|(at, number)| at == *number);
        wait::yes(whole, || format!("lines are missing or double: {numbers:?}"))
    })
}

#[test]
fn containers_outlive_agent_and_keeper() {
    test(1, &json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 2}), |world| {
        world.agents[0].power_cut()?;
        world.agents[0].supervise();
        world.agents[0].start(None)?;
        world.nodes_ready(SOON)?;
        // Programs of their own names, to be found among the board's processes.
        apply(world, "counter", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done")?;
        apply(world, "lasting", "exec sleep 1000001")?;
        apply(world, "doomed", "exec sleep 1000002")?;
        let diary = prepared(world)?;
        let started: Vec<Value> = ["counter", "lasting", "doomed"].iter().map(|n| runs(world, n, 0)).collect::<Result<_>>()?;
        let of = |world: &World, word: &str| -> Result<Process> {
            let line = |p: &Process| std::fs::read_to_string(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
            let has = |p: &Process| line(p).contains(word);
            world.named("sleep").into_iter().find(has).ok_or_else(|| format!("no sleep {word}"))
        };
        let lasting = of(world, "1000001")?;
        log_goes_on(world)?;

        // The agent alone: killed, and told to begin anew (which is how another version takes over).
        let agent = world.agents[0].agent_process()?;
        send(&agent, Signal::SIGKILL)?;
        another_agent(world, &agent)?;
        let agent = world.agents[0].agent_process()?;
        send(&world.agents[0].keeper_process()?, Signal::SIGHUP)?;
        another_agent(world, &agent)?;
        log_goes_on(world)?;

        // The keeper, with a container that dies while nobody is there.
        let (agent, keeper) = (world.agents[0].agent_process()?, world.agents[0].keeper_process()?);
        let doomed = of(world, "1000002")?;
        send(&keeper, Signal::SIGKILL)?;
        send(&doomed, Signal::SIGKILL)?;
        another_agent(world, &agent)?;
        runs(world, "doomed", 1)?;
        log_goes_on(world)?;
        for (at, name) in ["counter", "lasting"].iter().enumerate() {
            let now = runs(world, name, 0)?;
            wait::yes(now["containerID"] == started[at]["containerID"] && now["state"] == started[at]["state"], || {
                format!("{name} is another: {now} and not {}", started[at])
            })?;
        }
        wait::yes(of(world, "1000001")?.started == lasting.started, || "lasting is another process".into())?;
        let said = world.kubectl.say("exec lasting -- echo here")?;
        wait::yes(said.trim() == "here", || said)?;

        // What init containers have done stays done, whoever watches.
        let same = runs(world, "prepared", 0)?;
        wait::yes(written(&diary) == "init", || format!("{}: {same}", written(&diary)))?;

        // What was adopted from a dead keeper is under the rules as before: its end is seen, it begins again, its log too.
        send(&one(world, "sleep").and_then(|_| of(world, "1000001"))?, Signal::SIGKILL)?;
        let ended = runs(world, "lasting", 1)?;
        let code = &ended["lastState"]["terminated"]["exitCode"];
        // Kernels before 6.15 do not tell strangers how a process ended.
        wait::yes(*code == 137 || *code == 255, || ended.to_string())?;
        world.kubectl.say("delete pod counter lasting doomed --timeout=60s")?;
        until("an empty board", SOON, || {
            let left = world.named("sleep");
            wait::yes(left.is_empty(), || format!("{left:?}"))
        })?;

        // A sandbox that is gone takes that with it: everything begins anew, once.
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        runs(world, "prepared", 1)?;
        wait::yes(written(&diary) == "init init", || written(&diary))
    });
}

/// A pod whose init container writes down that it ran.
fn prepared(world: &World) -> Result<PathBuf> {
    let diary = world.slot.dir().join("diary");
    let write = json!({"name": "i", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", "echo init >> /d/diary"],
        "volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prepared"}, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": [{"name": "d", "hostPath": {"path": world.slot.dir()}}],
        "initContainers": [write],
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["tail", "-f", "/dev/null"]}]}});
    world.kubectl.apply(&pod.to_string())?;
    runs(world, "prepared", 0)?;
    Ok(diary)
}

fn written(diary: &Path) -> String {
    std::fs::read_to_string(diary).unwrap_or_default().replace('\n', " ").trim().to_string()
}
