//! Images that lie and disks that are full: told clearly, nothing harmed, well again when the cause is gone.
//!
//! In: a world with one board. Out: what the pod and the node say; what is on the host.

use limpet_e2e::images::{Target, noise};
use limpet_e2e::process::sh;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use limpet_oci::Platform;
use limpet_oci::builder::{Image, Layer, image};
use limpet_oci::config::Execution;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// Larger than busybox, smaller than the large image.
const DISK: &str = "size=40m";

fn pod(name: &str, image: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": image, "command": ["/bin/sh", "-c", "exec sleep 1000000"]}]}})
    .to_string()
}

fn runs(world: &World, name: &str) -> Result<()> {
    until(&format!("pod {name} running"), SOON, || {
        let pod = world.kubectl.json(&format!("get pod {name}"))?;
        wait::yes(pod["status"]["phase"] == "Running", || pod["status"].to_string())
    })
}

/// The pod's container waits with a reason, and the pod says why.
fn fails(world: &World, name: &str, why: &str) -> Result<()> {
    until(&format!("pod {name} failing"), SOON, || {
        let pod = world.kubectl.json(&format!("get pod {name}"))?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default();
        wait::yes(!reason.is_empty() && reason != "ContainerCreating", || pod["status"].to_string())?;
        let told = world.kubectl.say(&format!("describe pod {name}"))?;
        wait::yes(told.contains(why), || format!("{why:?} is not in:\n{told}"))
    })
}

fn made(layer: Layer) -> Result<Image> {
    image(&Platform::host(), Execution::default(), vec![layer]).map_err(|e| e.to_string())
}

#[test]
fn images_that_lie() {
    test(1, &json!({}), |world| {
        let registry = Target::hub(&world.hub, &world.slot.dir())?;
        let escaped = world.slot.dir().join("escaped");
        for (number, (layer, why)) in hostile_layers(&escaped).into_iter().enumerate() {
            let name = format!("hostile-{number}");
            registry.push(&name, "1", &made(layer)?)?;
            world.kubectl.apply(&pod(&name, &format!("hub.limpet/{name}:1")))?;
            fails(world, &name, why)?;
            wait::yes(!escaped.exists(), || format!("{name} wrote {}", escaped.display()))?;
        }
        wrong_digest(world, &registry)?;
        let left = fs::read_dir(world.agents[0].data.join("images/layers")).into_iter().flatten().count();
        wait::yes(left == 1, || format!("{left} layers are there, and not only the one that stayed inside"))?;
        // The board is as good as before.
        world.kubectl.apply(&pod("good", "hub.limpet/busybox:1"))?;
        runs(world, "good")
    });
}

fn hostile_layers(escaped: &Path) -> Vec<(Layer, &'static str)> {
    let target = escaped.to_string_lossy().into_owned();
    let up = format!("{}{target}", "../".repeat(20).trim_end_matches('/'));
    let dir = escaped.parent().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let file = |layer: Layer, path: &str| layer.file(path, 0o644, b"x");
    vec![
        (file(Layer::new(), &up), "refused"),
        // Kept inside the image: it has no shell, and that is all that is wrong with it.
        (file(Layer::new().symlink("out", &dir), "out/escaped"), "stat /bin/sh: no such file"),
        (Layer::new().hard_link("shadow", "../../../../../../../../etc/shadow"), "refused"),
        (Layer::new().raw(&[b'x'; 512], b""), "malformed"),
    ]
}

/// The registry's disk has other bytes than the manifest names.
fn wrong_digest(world: &World, registry: &Target) -> Result<()> {
    let image = made(Layer::new().file("a", 0o644, b"what was pushed"))?;
    registry.push("forged", "1", &image)?;
    let digest = image.layers[0].descriptor.digest.to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let blob = find(&world.hub.dir.join("registry/blobs"), hex).ok_or("the registry's blob is not there")?;
    let mut bytes = fs::read(&blob).map_err(|e| e.to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).map_err(|e| format!("{}: {e}", blob.display()))?;
    world.kubectl.apply(&pod("forged", "hub.limpet/forged:1"))?;
    fails(world, "forged", "digest")
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => find(&path, name),
        false => path.to_string_lossy().contains(name).then_some(path),
    })
}

/// A small disk for a board; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Disk> {
        Disk::mount_with(at, DISK)
    }

    fn mount_with(at: &Path, options: &str) -> Result<Disk> {
        fs::create_dir_all(at).map_err(|e| e.to_string())?;
        let path = at.to_string_lossy();
        sh("mount", ["-t", "tmpfs", "-o", options, "limpet-e2e", &path])?;
        Ok(Disk(at.to_path_buf()))
    }

    fn fill(&self) -> Result<()> {
        // dd ends with an error when nothing more fits; that is the point.
        let file = format!("of={}", self.0.join("filler").display());
        let _ = sh("dd", ["if=/dev/zero", &file, "bs=4096"]);
        Ok(())
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(self.0.join("filler")).map_err(|e| e.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = sh("umount", ["--lazy", &self.0.to_string_lossy()]);
    }
}

fn pressure(world: &World, status: &str) -> Result<()> {
    until(&format!("DiskPressure {status}"), SOON, || {
        let node = world.kubectl.json("get node board-1")?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == "DiskPressure").cloned().unwrap_or(Value::Null);
        let tainted = node["spec"]["taints"].to_string().contains("node.kubernetes.io/disk-pressure");
        let right = found["status"] == status && tainted == (status == "True");
        wait::yes(right, || format!("{found} {}", node["spec"]))
    })
}

#[test]
fn a_full_disk_on_a_board() {
    test(0, &json!({}), |world| {
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"evictionPressureTransitionSeconds": 1});
        let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?;
        let disk = Disk::mount(&agent.data)?;
        world.agents.push(agent);
        world.join()?;
        world.kubectl.apply(&pod("before", "hub.limpet/busybox:1"))?;
        runs(world, "before")?;
        // It runs from its shell's start on; the shell becomes what is looked for.
        let before = until("the container's process", SOON, || {
            let found = world.agents[0].named("sleep");
            wait::yes(found.len() == 1, || format!("{found:?}"))?;
            Ok(found)
        })?;

        // An image that does not fit.
        let large = made(Layer::new().file("large", 0o644, &noise(1, 64 << 20)))?;
        Target::hub(&world.hub, &world.slot.dir())?.push("large", "1", &large)?;
        world.kubectl.apply(&pod("large", "hub.limpet/large:1"))?;
        fails(world, "large", "No space left on device")?;
        world.kubectl.say("delete pod large")?;
        // One more try may have begun; what it gives back when it ends would make room on a disk that is to be full.
        until("the end of every try", SOON, || {
            let log = fs::read_to_string(&world.agents[0].log).map_err(|e| e.to_string())?;
            let (begun, ended) = (log.matches("pulling hub.limpet/large").count(), log.matches("storing blob").count());
            wait::yes(begun == ended, || format!("{begun} pulls began, {ended} ended"))
        })?;

        // No byte is free: what is wanted cannot be remembered, so it is not begun; what runs goes on.
        disk.fill()?;
        // Others than critical ones are not let in while the disk is full.
        world.kubectl.apply(&bound(&pod("while", "hub.limpet/busybox:1"))?)?;
        until("the agent's word", SOON, || {
            let log = world.agents[0].log_tail();
            wait::yes(log.contains("journal") && log.contains("No space left on device"), || log)
        })?;
        pressure(world, "True")?;
        wait::yes(world.agents[0].named("sleep") == before, || "a running container was touched".to_string())?;
        disk.free()?;
        runs(world, "while")?;
        pressure(world, "False")?;
        // Nothing was lost: after a reboot without the hub everything is there.
        world.agents[0].power_cut()?;
        world.hub.kill();
        world.agents[0].start(None)?;
        until("both pods", SOON, || {
            let found = world.agents[0].named("sleep");
            wait::yes(found.len() == 2, || format!("{found:?}"))
        })?;
        drop(disk);
        Ok(())
    });
}

/// What fills the disk goes, with its reasons; what is within its request stays, and what lies on the board; nobody comes in.
#[test]
fn a_pod_that_fills_the_disk() {
    let manifests = std::env::temp_dir().join(format!("limpet-e2e-full-{}", std::process::id()));
    let _ = fs::remove_dir_all(&manifests);
    fs::create_dir_all(&manifests).unwrap();
    test(0, &json!({}), |world| {
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"evictionHard": {"nodefs.available": "15Mi"}, "staticPodDir": manifests});
        let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?;
        let disk = Disk::mount(&agent.data)?;
        world.agents.push(agent);
        world.join()?;
        let writes = |name: &str, mib: u32, asks: &str| {
            let line = format!("head -c {} /dev/zero > /file; exec sleep 1000000", mib << 20);
            let size = json!({"requests": {"ephemeral-storage": asks}});
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
                "nodeName": "board-1", "containers": [{"name": "main", "image": "hub.limpet/busybox:1",
                "command": ["/bin/sh", "-c", line], "resources": size}]}})
        };
        fs::write(manifests.join("own.json"), writes("own", 4, "0").to_string()).map_err(|e| e.to_string())?;
        world.kubectl.apply(&writes("modest", 3, "6Mi").to_string())?;
        runs(world, "modest")?;
        runs(world, "own-board-1")?;
        world.kubectl.apply(&writes("greedy", 20, "1Mi").to_string())?;
        let said = evicted(world, "greedy")?;
        for words in [
            "The node was low on resource: ephemeral-storage. Threshold quantity: 15",
            "Container main was using ",
            "request is 1Mi, has larger consumption of ephemeral-storage. ",
        ] {
            wait::yes(said.contains(words), || format!("{words:?} is not in {said:?}"))?;
        }
        pressure(world, "True")?;
        world.kubectl.apply(&writes("guest", 1, "1Mi").to_string())?;
        until("guest is turned away", SOON, || {
            let status = world.kubectl.json("get pod guest")?["status"].take();
            let words = "Pod was rejected: The node had condition: [DiskPressure]. ";
            wait::yes(status["phase"] == "Failed" && status["reason"] == "Evicted" && status["message"] == words, || {
                status.to_string()
            })
        })?;
        runs(world, "modest")?;
        runs(world, "own-board-1")?;
        drop(disk);
        Ok(())
    });
    let _ = fs::remove_dir_all(&manifests);
}

/// Files without a byte in them: bytes are left and inodes are not. Who has most of them goes, and the disk is as before.
#[test]
fn a_pod_that_makes_too_many_files() {
    test(0, &json!({}), |world| {
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"evictionHard": {"nodefs.inodesFree": "20%"}, "evictionPressureTransitionSeconds": 1});
        let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?;
        let disk = Disk::mount_with(&agent.data, "size=200m,nr_inodes=5000")?;
        world.agents.push(agent);
        world.join()?;
        let makes = |name: &str, files: u32| {
            let line = format!("mkdir /d; cd /d; seq {files} | xargs touch; exec sleep 1000000");
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "command": ["/bin/sh", "-c", line]}]}})
        };
        world.kubectl.apply(&makes("modest", 300).to_string())?;
        runs(world, "modest")?;
        pressure(world, "False")?;
        world.kubectl.apply(&makes("greedy", 4000).to_string())?;
        let said = evicted(world, "greedy")?;
        let words = "The node was low on resource: inodes. Threshold quantity: 1000, available: ";
        wait::yes(said.starts_with(words), || format!("{words:?} is not in {said:?}"))?;
        pressure(world, "False")?;
        runs(world, "modest")?;
        drop(disk);
        Ok(())
    });
}

/// What is said of its eviction.
fn evicted(world: &World, name: &str) -> Result<String> {
    until(&format!("{name} is evicted"), SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        wait::yes(status["phase"] == "Failed" && status["reason"] == "Evicted", || status.to_string())?;
        Ok(status["message"].as_str().unwrap_or_default().to_string())
    })
}

/// Bound by hand: the scheduler would rightly choose no node whose disk is full.
fn bound(pod: &str) -> Result<String> {
    let mut pod: Value = serde_json::from_str(pod).map_err(|e| e.to_string())?;
    pod["spec"]["nodeName"] = json!("board-1");
    pod["spec"]["priorityClassName"] = json!("system-node-critical");
    pod["metadata"]["annotations"] = json!({"note": "n".repeat(50_000)});
    Ok(pod.to_string())
}
