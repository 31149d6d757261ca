//! A board that keeps its own appointments and its own data: a CronJob fires while the hub is out of reach, once, and the hub
//! takes the run over when it is back; a claim is a directory of the board.
//!
//! In: a world with one board. Out: files on the board, Jobs and claims as kubectl shows them.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, until, wait};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// A minute until it is due, the moment that the hub is waited for, and a busy machine.
const NEXT_MINUTE: Duration = Duration::from_secs(180);

fn container(script: &str) -> Value {
    json!({"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "out", "mountPath": "/out"}]})
}

fn cron(directory: &Path) -> String {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "nodeName": "board-1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [container("echo $HOSTNAME >> /out/runs")],
            "volumes": [{"name": "out", "hostPath": {"path": directory}}],
        }}}}},
    })
    .to_string()
}

/// A pod with one volume, which the scheduler places.
fn user(name: &str, script: &str, volume: Value) -> String {
    let mut volume = volume;
    volume["name"] = json!("out");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [container(script)], "volumes": [volume]}})
    .to_string()
}

fn runs(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The directory of the board that a claim is, as its volume says.
fn directory_of(world: &World, claim: &str) -> Result<PathBuf> {
    let volume = world.kubectl.say(&format!("get pvc {claim} -o jsonpath={{.spec.volumeName}}"))?;
    Ok(world.kubectl.say(&format!("get pv {volume} -o jsonpath={{.spec.hostPath.path}}"))?.into())
}

fn nothing_left(world: &World, directory: &Path) -> Result<()> {
    until("the claim, its volume and its directory are gone", SOON, || {
        let left = world.kubectl.say("get pvc,pv -A --no-headers --ignore-not-found")?;
        wait::yes(left.is_empty() && !directory.exists(), || format!("{left} {}", directory.display()))
    })
}

/// Nothing is done by hand: the default class, the scheduler's choice, the board's directory.
fn claims_are_directories(world: &World) -> Result<()> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let source = json!({"persistentVolumeClaim": {"claimName": "data"}});
    world.kubectl.apply(&claim.to_string())?;
    world.kubectl.apply(&user("writer", "echo kept > /out/file; exec sleep 100000", source.clone()))?;
    world.kubectl.say("wait --for=condition=Ready pod/writer --timeout=120s")?;
    let bound = world.kubectl.json("get pvc data")?;
    wait::yes(bound["spec"]["storageClassName"] == "limpet-local" && bound["status"]["phase"] == "Bound", || bound.to_string())?;
    let node = &bound["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
    wait::yes(node == "board-1", || format!("selected: {node}"))?;
    let directory = directory_of(world, "data")?;
    let file = directory.join("file");
    until("the file in the volume's directory", SOON, || {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        wait::yes(text == "kept\n", || text)
    })?;
    world.kubectl.say("delete pod writer")?;
    let reads = "grep kept /out/file && exec sleep 100000";
    world.kubectl.apply(&user("reader", reads, source))?;
    world.kubectl.say("wait --for=condition=Ready pod/reader --timeout=120s")?;
    world.kubectl.say("delete pvc data --wait=false")?;
    let finalizer = world.kubectl.say("get pvc data -o jsonpath={.metadata.finalizers[0]}")?;
    wait::yes(finalizer == "kubernetes.io/pvc-protection", || format!("not protected: {finalizer}"))?;
    wait::yes(file.exists(), || "removed while a pod uses it".into())?;
    world.kubectl.say("delete pod reader")?;
    nothing_left(world, &directory)
}

/// An ephemeral volume's claim comes and goes with its pod. The board is away while it goes: its directory waits for it.
fn ephemeral_volumes_go_with_their_pods(world: &World) -> Result<()> {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let script = "echo mine > /out/file; exec sleep 100000";
    world.kubectl.apply(&user("own", script, json!({"ephemeral": {"volumeClaimTemplate": template}})))?;
    world.kubectl.say("wait --for=condition=Ready pod/own --timeout=120s")?;
    let directory = directory_of(world, "own-out")?;
    until("the file in the pod's own volume", SOON, || wait::yes(directory.join("file").exists(), || "none".into()))?;
    net::cable(&world.slot, 1, false)?;
    world.kubectl.say("delete pod own --force --grace-period=0")?;
    until("the claim is gone, the volume waits", SOON, || {
        let left = world.kubectl.say("get pvc,pv -A --no-headers --ignore-not-found -o name")?;
        wait::yes(left.starts_with("persistentvolume/pvc-") && left.lines().count() == 1, || left)
    })?;
    wait::yes(directory.join("file").exists(), || "removed by nobody".into())?;
    net::cable(&world.slot, 1, true)?;
    nothing_left(world, &directory)
}

#[test]
fn fires_offline_once_and_is_taken_over() {
    test(1, &json!({}), |world| {
        let directory = std::env::temp_dir().join(format!("limpet-schedule-{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
        let result = story(world, &directory);
        let _ = std::fs::remove_dir_all(&directory);
        result
    });
}

fn story(world: &mut World, directory: &Path) -> Result<()> {
    let result = claims_are_directories(world).and_then(|()| ephemeral_volumes_go_with_their_pods(world));
    // The default class keeps its volumes there; what is not empty stays.
    let _ = std::fs::remove_dir("/var/lib/limpet/volumes").and_then(|()| std::fs::remove_dir("/var/lib/limpet"));
    result?;
    world.kubectl.apply(&cron(directory))?;
    until("the first run, by the hub", NEXT_MINUTE, || wait::yes(!runs(directory).is_empty(), || "none".into()))?;
    net::cable(&world.slot, 1, false)?;
    let before = runs(directory).len();
    until("a run without the hub", NEXT_MINUTE + NEXT_MINUTE, || {
        wait::yes(runs(directory).len() > before, || format!("{:?}", runs(directory)))
    })?;
    let alone = runs(directory).last().cloned().unwrap_or_default();
    net::cable(&world.slot, 1, true)?;
    until("the hub knows the run", NEXT_MINUTE, || {
        let pod = world.kubectl.json(&format!("get pod {alone}"))?;
        wait::yes(pod["status"]["phase"] == "Succeeded", || pod["status"].to_string())
    })?;
    let job = alone.rsplit_once('-').map_or("", |(job, _)| job);
    world.kubectl.say(&format!("wait --for=condition=Complete job/{job} --timeout=60s"))?;
    let mut all = runs(directory);
    let count = all.len();
    all.sort();
    all.dedup();
    wait::yes(all.len() == count, || format!("a run came twice: {all:?}"))
}
