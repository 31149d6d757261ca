//! What a board says of itself: its Node object to kubectl, its containers, logs and health to somebody who stands at it.
//!
//! In: one board with labels of its own and a pod; then no hub at all. Out: every part of the node object; `limpet-agent ps`,
//! `logs`, `exec`, `images` and `doctor` in the board's own namespaces.

use limpet_e2e::process::{Output, run};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// In this order one thing needs another.
const AREAS: [&str; 7] = ["kernel", "control groups", "clock", "disk", "network", "hub", "certificates"];

/// A command of the agent's program where somebody at the board would type it.
fn at_the_board(world: &World, words: &[&str]) -> Result<Output> {
    let board = &world.agents[0];
    let target = board.agent_process()?.pid.to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &target, "--mount", "--net", "--pid", "--uts", "--ipc", "--"]).arg(&world.binaries.agent);
    let (before, after) = words.split_at(1);
    command.args(before).arg("--data-dir").arg(&board.data).arg("--run-dir").arg(&board.run).args(after);
    run(&mut command)
}

fn says(world: &World, words: &[&str]) -> Result<String> {
    at_the_board(world, words)?.ok(&words.join(" "))
}

#[test]
fn a_board_speaks_for_itself() {
    let labels = json!({"labels": {"topology.kubernetes.io/zone": "greenhouse", "limpet.dev/room": "7", "secure": "yes"}});
    test(1, &labels, |world| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "here"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "hub.limpet/busybox:1",
                "command": ["sh", "-c", "echo begun; exec sleep 100000"]}]}});
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/here --timeout=60s")?;
        the_node(world)?;
        world.hub.kill();
        without_a_hub(world)
    });
}

fn the_node(world: &World) -> Result<()> {
    let node = world.kubectl.json("get node board-1")?;
    let labels = &node["metadata"]["labels"];
    for (key, value) in [
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", "board-1"),
        ("topology.kubernetes.io/zone", "greenhouse"),
        ("limpet.dev/room", "7"),
    ] {
        wait::yes(labels[key] == value, || format!("label {key}: {labels}"))?;
    }
    wait::yes(labels["secure"].is_null(), || format!("a board gave itself what operators give: {labels}"))?;
    let known = |v: &Value| v.as_str().is_some_and(|text| !text.is_empty());
    wait::yes(known(&labels["kubernetes.io/arch"]) && known(&labels["limpet.dev/rtc"]), || labels.to_string())?;
    let status = &node["status"];
    for key in ["architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeletVersion", "osImage"] {
        wait::yes(known(&status["nodeInfo"][key]), || format!("nodeInfo.{key}: {}", status["nodeInfo"]))?;
    }
    for key in ["cpu", "memory", "ephemeral-storage", "pods"] {
        wait::yes(known(&status["capacity"][key]) && known(&status["allocatable"][key]), || format!("{key}: {status}"))?;
    }
    wait::yes(status["capacity"]["pods"] == "110", || status["capacity"].to_string())?;
    let conditions: Vec<(&str, &str)> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| Some((c["type"].as_str()?, c["status"].as_str()?)))
        .collect();
    for wanted in [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")] {
        wait::yes(conditions.contains(&wanted), || format!("{wanted:?}: {conditions:?}"))?;
    }
    let address = json!({"type": "InternalIP", "address": world.agents[0].address});
    wait::yes(status["addresses"].as_array().is_some_and(|all| all.contains(&address)), || status["addresses"].to_string())?;
    let handlers = status["runtimeHandlers"].as_array().cloned().unwrap_or_default();
    wait::yes(handlers.iter().any(|h| h["name"] == ""), || format!("handlers: {handlers:?}"))?;
    let declared = json!(["GuaranteedQoSPodCPUResize", "RestartAllContainersOnContainerExits"]);
    wait::yes(status["declaredFeatures"] == declared, || format!("declared: {}", status["declaredFeatures"]))?;
    // Said with the next look around, not with the pull.
    until("the image among the node's", Duration::from_secs(90), || {
        let images = world.kubectl.json("get node board-1")?["status"]["images"].to_string();
        wait::yes(images.contains("hub.limpet/busybox:1"), || images)
    })?;
    let described = world.kubectl.say("describe node board-1")?;
    for words in ["Allocated resources:", "greenhouse", "here", "KubeletReady"] {
        wait::yes(described.contains(words), || format!("no {words} in {described}"))?;
    }
    Ok(())
}

fn without_a_hub(world: &World) -> Result<()> {
    let listed = says(world, &["ps"])?;
    let row = listed.lines().find(|line| line.contains(" here ")).ok_or_else(|| format!("no pod in\n{listed}"))?;
    wait::yes(row.contains("running (pid"), || row.to_string())?;
    let id = row.split_whitespace().next().unwrap_or_default();
    let log = says(world, &["logs", id])?;
    wait::yes(log == "begun\n", || log)?;
    let inside = says(world, &["exec", id, "--", "hostname"])?;
    wait::yes(inside == "here\n", || inside)?;
    let failed = at_the_board(world, &["exec", id, "--", "sh", "-c", "exit 7"])?;
    wait::yes(failed.code == 7, || format!("{failed:?}"))?;
    let images = says(world, &["images"])?;
    wait::yes(images.contains("hub.limpet/busybox:1") && images.contains(" MiB"), || images)?;
    let unknown = at_the_board(world, &["logs", "nothing"])?;
    wait::yes(unknown.code != 0 && unknown.stderr.contains("nothing"), || format!("{unknown:?}"))?;
    // The hub does not answer, which a board can live with; the doctor says so, and what to do.
    let report = until("the doctor's words", SOON, || {
        let text = at_the_board(world, &["doctor", "--json"])?.stdout;
        serde_json::from_str::<Value>(&text).map_err(|e| format!("{e}: {text}"))
    })?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let mut areas: Vec<&str> = findings.iter().filter_map(|f| f["area"].as_str()).collect();
    areas.dedup();
    wait::yes(areas == AREAS, || format!("areas: {areas:?}"))?;
    let silent = |f: &&Value| f["verdict"] != "ok" && f["remedy"].as_str().is_none_or(str::is_empty);
    wait::yes(!findings.iter().any(|f| silent(&f)), || format!("a finding without a remedy: {report}"))?;
    let hub = findings.iter().find(|f| f["area"] == "hub").cloned().unwrap_or_default();
    wait::yes(hub["verdict"] == "note" && hub["what"].as_str().is_some_and(|w| w.contains("does not answer")), || hub.to_string())
}
