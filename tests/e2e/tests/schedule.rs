//! A board that keeps its own appointments and its own data: a CronJob fires while the hub is out of reach, once, and the hub
//! takes the run over when it is back; a claim is a directory of the board.
//!
//! In: a world with one board. Out: files on the board, Jobs and claims as kubectl shows them.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, until, wait};
use serde_json::{Value, json};
use std::path::Path;
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

fn claim(class: &str) -> String {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}})
    .to_string()
}

fn runs(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn claims_are_directories(world: &World, directory: &Path) -> Result<()> {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "here"},
        "provisioner": "limpet.dev/local", "volumeBindingMode": "WaitForFirstConsumer", "parameters": {"path": directory}});
    world.kubectl.apply(&class.to_string())?;
    world.kubectl.apply(&claim("here"))?;
    let writer = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": {
        "nodeName": "board-1", "terminationGracePeriodSeconds": 0,
        "containers": [container("echo kept > /out/file; exec sleep 100000")],
        "volumes": [{"name": "out", "persistentVolumeClaim": {"claimName": "data"}}]}});
    world.kubectl.apply(&writer.to_string())?;
    world.kubectl.say("annotate pvc data volume.kubernetes.io/selected-node=board-1 --overwrite")?;
    world.kubectl.say("wait --for=jsonpath={.status.phase}=Bound pvc/data --timeout=60s")?;
    world.kubectl.say("wait --for=condition=Ready pod/writer --timeout=120s")?;
    let volume = world.kubectl.say("get pvc data -o jsonpath={.spec.volumeName}")?;
    let file = directory.join(format!("{volume}_default_data/file"));
    until("the file in the volume's directory", SOON, || {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        wait::yes(text == "kept\n", || text)
    })?;
    world.kubectl.say("delete pvc data --wait=false")?;
    let phase = world.kubectl.say("get pvc data -o jsonpath={.metadata.finalizers[0]}")?;
    wait::yes(phase == "kubernetes.io/pvc-protection", || format!("not protected: {phase}"))?;
    world.kubectl.say("delete pod writer")?;
    until("the claim and its volume are gone", SOON, || {
        let left = world.kubectl.say("get pvc,pv -A --no-headers --ignore-not-found")?;
        wait::yes(left.is_empty(), || left)
    })
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
    claims_are_directories(world, directory)?;
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
