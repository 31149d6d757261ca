//! What each feature costs on the wire, once.
//!
//! In: a world with one board, the capture. Out: bytes for a new pod, an image, logs, an exec, kept lines, messages; and how
//! near the agent's own count is.
//! Never: a ping among them: the board's keep-alive is as long as it can be.

// It waits for what boards do by themselves.
#![allow(clippy::disallowed_methods)]

use super::{super::Figure, Capture};
use limpet_e2e::{World, process, until, wait};
use serde_json::json;
use std::{process::Command, time::Duration};

const SOON: Duration = Duration::from_secs(90);
const QUIET: Duration = Duration::from_millis(1500);

/// What passes until `done` says that it is over, and all that follows from it.
fn cost(capture: &Capture, done: impl FnOnce() -> Result<(), String>) -> Result<u64, String> {
    capture.settle(QUIET);
    let (before, _) = capture.now();
    done()?;
    capture.settle(QUIET);
    Ok(capture.now().0 - before)
}

fn talker(name: &str, image: &str) -> String {
    let script = "trap 'for n in 1 2 3 4 5 6 7 8 9 10; do echo \"a line of a log with the number $n\"; done' USR1; \
                  for n in $(seq 100); do echo \"a line of a log with the number $n\"; done; while true; do sleep 0.2; done";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {
        "limpet.dev/keep-logs": "64Ki", "limpet.dev/broker": "true"}},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [{
            "name": "c", "image": image, "command": ["sh", "-c", script]}]}})
    .to_string()
}

pub fn all(world: &World, capture: &Capture) -> Result<Vec<Figure>, String> {
    world.push_busybox()?;
    let mut figures = Vec::new();
    let mut row = |what: &'static str, bytes: u64| figures.push(super::told(Figure::new(what, format!("{bytes} B"), "report")));
    let ready = |name: &str| world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=120s")).map(|_| ());
    let pod = |name: &str| {
        world.kubectl.apply(&talker(name, "hub.limpet/busybox:1"))?;
        ready(name)
    };
    // The first lines of a kept log follow some seconds later.
    let with_lines = |name: &str| {
        pod(name)?;
        std::thread::sleep(Duration::from_secs(8));
        Ok(())
    };
    row("a pod with an image that is not here (one program, busybox)", cost(capture, || with_lines("first"))?);
    row("a pod with an image that is here, its status, its Events, a hundred kept lines", cost(capture, || with_lines("second"))?);
    let say = |words: &'static [&'static str]| move || world.kubectl.output(words)?.ok("kubectl").map(|_| ());
    row("kubectl logs, a hundred lines of 36 B", cost(capture, say(&["logs", "second"]))?);
    row("kubectl exec true", cost(capture, say(&["exec", "second", "--", "true"]))?);
    let shell = world.agents[0].named("sh");
    let signal = || {
        let shell = shell.first().ok_or("no shell on the board")?;
        process::sh("kill", ["-USR1".to_string(), shell.pid.to_string()])?;
        std::thread::sleep(Duration::from_secs(8));
        Ok(())
    };
    row("ten lines of 36 B of a kept log, five seconds later", cost(capture, signal)?);
    let uid = world.kubectl.say("get pod second -o jsonpath={.metadata.uid}")?;
    let socket = world.agents[0].run.join("broker").join(uid).join("mqtt.sock");
    let publish = |lines: &'static str| {
        let socket = socket.clone();
        move || {
            let mut command = Command::new("mosquitto_pub");
            command.arg("--unix").arg(&socket).args(["-q", "1", "-t", "up/temperature", "-l"]);
            process::run_with(&mut command, lines.as_bytes())?.ok("mosquitto_pub").map(|_| ())
        }
    };
    row("a message of 20 B to the hub", cost(capture, publish("a message of 20 bytes\n"))?);
    row("ten of them together", cost(capture, publish("a message of 20 bytes\n\
        a message of 20 bytes\na message of 20 bytes\na message of 20 bytes\na message of 20 bytes\na message of 20 bytes\n\
        a message of 20 bytes\na message of 20 bytes\na message of 20 bytes\na message of 20 bytes\n"))?);
    let body = world.slot.dir().join("body");
    std::fs::write(&body, "on").map_err(|e| e.to_string())?;
    let path = "/limpet/v1/messages/default?topic=down/lamp";
    let body = body.display().to_string();
    row("a message of 2 B from the hub", cost(capture, || {
        world.kubectl.output(&["create", "--raw", path, "-f", &body])?.ok("create --raw").map(|_| ())
    })?);
    row("the deletion of a pod", cost(capture, || {
        world.kubectl.say("delete pod first --wait=false")?;
        until("the pod's end", SOON, || {
            let out = world.kubectl.output(&["get", "pod", "first"])?;
            wait::yes(out.stderr.contains("NotFound"), || out.stdout)
        })
    })?);
    figures.push(super::told(own_count(world, capture)?));
    Ok(figures)
}

/// The agent's own figure and the capture's, over the same packets (but for the join before the capture began).
fn own_count(world: &World, capture: &Capture) -> Result<Figure, String> {
    let read = || -> Result<f64, String> {
        let text = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?;
        let values = text.lines().filter(|l| l.starts_with("limpet_node_link_bytes_total{"));
        Ok(values.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    read()?;
    capture.settle(QUIET);
    let (counted, (seen, _)) = (read()?, capture.now());
    world.kubectl.output(&["exec", "second", "--", "head", "-c", "2000000", "/dev/zero"])?.ok("exec")?;
    for _ in 0..20 {
        world.kubectl.output(&["exec", "second", "--", "true"])?.ok("exec")?;
    }
    capture.settle(QUIET);
    let (counted, seen) = (read()? - counted, (capture.now().0 - seen) as f64);
    let text = format!("{counted:.0} B of {seen:.0} B: {:.1} %", counted / seen * 100.0);
    Ok(Figure::new("the agent's own count of what the capture sees", text, "report"))
}
