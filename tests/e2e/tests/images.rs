//! Images from registries that are not ours, and images that are wrong.
//!
//! In: Debian's docker-registry, the hub's registry. Out: running containers, or Kubernetes' own reasons why not.

use limpet_e2e::disk::Disk;
use limpet_e2e::images::{self, Target, application, layered, noise};
use limpet_e2e::registry::Registry;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, process, until, wait};
use limpet_oci::builder::{self, Layer};
use limpet_oci::config::Execution;
use limpet_oci::{Digest, Platform};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// More than a layer may become of its few megabytes.
const ZEROS_BYTES: usize = 640 << 20;
/// All that is wrong with an image that stayed inside of itself.
const INSIDE: &str = "executable file not found in $PATH";

fn pod(name: &str, image: &str, policy: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": image, "imagePullPolicy": policy, "command": ["sleep", "100000"]}]},
    })
    .to_string()
}

fn status(world: &World, name: &str) -> Result<Value> {
    Ok(world.kubectl.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0].clone())
}

/// Waits until the container waits for this reason, with these words in its message.
fn waits(world: &World, name: &str, reasons: &[&str], words: &str) -> Result<()> {
    until("the reason", SOON, || {
        let status = status(world, name)?;
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default();
        let message = waiting["message"].as_str().unwrap_or_default();
        wait::yes(reasons.contains(&reason) && message.contains(words), || status.to_string())
    })
    .map_err(|why| format!("{name}: {why}"))
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ())
}

#[test]
fn another_registry_and_what_is_wrong_with_images() {
    test(1, &json!({}), |world| {
        let settings = |world: &World| format!("{}:5001", world.hub.address);
        // Whether a registry may be asked over http is the board's decision: this one was not told, so it refuses first.
        let registry = Registry::start(&world.slot, &world.hub.address, 5001)?;
        let target = Target::plain(&registry.url(), &world.slot.dir());
        target.push("busybox", "1", &images::busybox()?)?;
        let name = format!("{}/busybox:1", settings(world));
        world.kubectl.apply(&pod("plain", &name, "IfNotPresent"))?;
        waits(world, "plain", &["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"], "")?;
        world.kubectl.say("delete pod plain")?;

        for (name, image, policy, reasons, words) in [
            ("badname", "Not A Name", "IfNotPresent", &["InvalidImageName"][..], "couldn't parse image name"),
            ("never", "hub.limpet/busybox:absent", "Never", &["ErrImageNeverPull"][..], "Never"),
            ("missing", "hub.limpet/nothing:1", "IfNotPresent", &["ErrImagePull", "ImagePullBackOff"][..], ""),
            ("nowhere", "127.0.0.1:9/x:1", "IfNotPresent", &["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"][..], ""),
        ] {
            world.kubectl.apply(&pod(name, image, policy))?;
            waits(world, name, reasons, words)?;
        }
        until("the event", SOON, || {
            let events = world.kubectl.say("get events --field-selector involvedObject.name=missing")?;
            wait::yes(events.contains("Failed to pull image"), || events)
        })?;
        // Pushed later, it starts by itself.
        Target::hub(&world.hub, &world.slot.dir())?.push("nothing", "1", &images::busybox()?)?;
        ready(world, "missing")?;
        world.kubectl.say("delete pods --all")?;
        hostile(world)?;
        before_a_pod(world)
    });
}

/// Images that the node's annotation names are there before a pod wants them; what cannot be had is told once.
fn before_a_pod(world: &World) -> Result<()> {
    let target = Target::hub(&world.hub, &world.slot.dir())?;
    let layer = || images::base().file("early", 0o644, b"x");
    let image = builder::image(&Platform::host(), Execution::default(), vec![layer()]).map_err(|e| e.to_string())?;
    target.push("early", "1", &image)?;
    world.kubectl.say("annotate node board-1 limpet.dev/pull-images=hub.limpet/early:1,hub.limpet/never-pushed:1")?;
    let said = |reason: &str, words: &str| {
        until(&format!("the node's Event {reason}"), SOON, || {
            let events = world.kubectl.items("get events --field-selector involvedObject.kind=Node")?;
            let found = events.iter().any(|e| e["reason"] == reason && e["message"].as_str().unwrap_or_default().contains(words));
            wait::yes(found, || format!("{events:?}"))
        })
    };
    said("Pulled", "hub.limpet/early:1")?;
    said("Failed", "hub.limpet/never-pushed:1")?;
    until("the image in the node's status", SOON, || {
        let node = world.kubectl.json("get node board-1")?;
        let text = node["status"]["images"].to_string();
        wait::yes(text.contains("hub.limpet/early:1"), || text)
    })?;
    world.kubectl.apply(&pod("early", "hub.limpet/early:1", "Never"))?;
    until("its use without another pull", SOON, || {
        let events = world.kubectl.say("get events --field-selector involvedObject.name=early")?;
        wait::yes(events.contains("already present on machine"), || events)
    })?;
    world.kubectl.say("delete pod early --timeout=60s").map(|_| ())
}

/// Layers that would leave the container's root are refused with the reason, and nothing on the board changes.
fn hostile(world: &World) -> Result<()> {
    let target = Target::hub(&world.hub, &world.slot.dir())?;
    let run = || Execution { cmd: vec!["/x".to_string()], ..Execution::default() };
    let evil = builder::image(&Platform::host(), run(), vec![Layer::new().file("../../../../../../escape", 0o644, b"x")]);
    target.push("evil", "path", &evil.map_err(|e| e.to_string())?)?;
    let dev = builder::image(&Platform::host(), run(), vec![Layer::new().symlink("dev", "/host")]);
    target.push("evil", "dev", &dev.map_err(|e| e.to_string())?)?;
    world.kubectl.apply(&pod("path", "hub.limpet/evil:path", "Always"))?;
    world.kubectl.apply(&pod("dev", "hub.limpet/evil:dev", "Always"))?;
    let failed = ["ErrImagePull", "ImagePullBackOff"];
    waits(world, "path", &failed, "the path has .. in it")?;
    waits(world, "dev", &failed, "must be a real directory")?;
    wait::yes(!std::path::Path::new("/escape").exists(), || "a layer wrote outside".to_string())?;
    crafted(world, &target)?;
    let missing = Digest::of(b"nothing");
    let name = format!("hub.limpet/busybox@{missing}");
    world.kubectl.apply(&pod("digest", &name, "Always"))?;
    waits(world, "digest", &failed, "")?;
    world.kubectl.say("delete pods --all").map(|_| ())
}

/// One of each kind: links as ways out, what deletes, what the runtime needs, what grows without end. Each pod says why it has no
/// image, or has one that reaches no further than itself; the board's files stay, and nothing half stays on its disk.
fn crafted(world: &World, target: &Target) -> Result<()> {
    let outside = world.slot.dir().join("outside");
    std::fs::create_dir_all(&outside).and_then(|()| std::fs::write(outside.join("witness"), "own")).map_err(|e| e.to_string())?;
    let there = outside.display().to_string();
    // Zeros by the gigabyte from a layer of a few megabytes.
    let zeros = vec![0; ZEROS_BYTES];
    let all = [
        ("absolute", Layer::new().hard_link("w", &format!("{there}/witness")), "a hard link to a file that is not in this layer"),
        ("above", Layer::new().hard_link("w", "../../../../../../etc/passwd"), "the path has .. in it"),
        ("dots", Layer::new().file(".wh...", 0o644, b""), "a whiteout of nothing"),
        ("proc", Layer::new().symlink("proc", &there), "it must be a real directory: the runtime mounts there"),
        ("bomb", Layer::new().file("zeros", 0o644, &zeros), "it unpacks to more than 250 times its size"),
        ("cut", Layer::new().raw(&[b'x'; 512], b""), "the archive is malformed at byte 512"),
        ("whiteout", Layer::new().symlink("d", &there).file("d/.wh.witness", 0o644, b""), INSIDE),
        ("opaque", Layer::new().symlink("d", &there).file("d/.wh..wh..opq", 0o644, b""), INSIDE),
    ];
    let names: Vec<(&str, &str)> = all.iter().map(|(name, _, words)| (*name, *words)).collect();
    let layers = || std::fs::read_dir(world.agents[0].data.join("images/layers")).map_or(0, |all| all.flatten().count());
    let before = layers();
    for (name, layer, _) in all {
        let run = Execution { cmd: vec!["/x".to_string()], ..Execution::default() };
        let made = builder::image(&Platform::host(), run, vec![layer]).map_err(|e| e.to_string())?;
        target.push("crafted", name, &made)?;
        world.kubectl.apply(&pod(name, &format!("hub.limpet/crafted:{name}"), "Always"))?;
    }
    for (name, words) in &names {
        if *words == INSIDE {
            until(INSIDE, SOON, || {
                let last = status(world, name)?;
                wait::yes(last["lastState"].to_string().contains(INSIDE), || format!("{name}: {last}"))
            })?;
        } else {
            waits(world, name, &["ErrImagePull", "ImagePullBackOff"], words)?;
        }
    }
    let left = std::fs::read_dir(&outside).map_err(|e| e.to_string())?.count();
    let kept = std::fs::read_to_string(outside.join("witness")).map_err(|e| e.to_string())?;
    wait::yes(left == 1 && kept == "own", || format!("{left} files outside, the witness says {kept:?}"))?;
    world.kubectl.say("delete pods --all")?;
    // Those whose containers were refused are whole images. One that was let go of may be on its way out.
    let inside = names.iter().filter(|(_, words)| *words == INSIDE).count();
    until("the layers of what was unpacked", SOON, || {
        wait::yes(layers() <= before + inside, || format!("{} layers, {before} before", layers()))
    })?;
    // A pull that was under way ends, and takes along what it had.
    until("no half layer", SOON, || {
        let half = std::fs::read_dir(world.agents[0].data.join("images/tmp")).map_err(|e| e.to_string())?.count();
        wait::yes(half == 0, || format!("{half} files"))
    })
}

#[test]
fn an_insecure_registry_that_the_board_was_told_of() {
    // The slot's number is in the address, so the setting names every possible one.
    let all: Vec<String> = (1..=200).map(|n| format!("10.213.{n}.1:5001")).collect();
    test(1, &json!({"insecureRegistries": all}), |world| {
        let registry = Registry::start(&world.slot, &world.hub.address, 5001)?;
        let target = Target::plain(&registry.url(), &world.slot.dir());
        target.push("busybox", "1", &images::busybox()?)?;
        world.kubectl.apply(&pod("plain", &format!("{}/busybox:1", registry.host), "Always"))?;
        ready(world, "plain")?;
        let status = status(world, "plain")?;
        let id = status["imageID"].as_str().unwrap_or_default();
        wait::yes(id.starts_with(&format!("{}/busybox@sha256:", registry.host)), || status.to_string())?;
        // Without the registry and with Always, a board that reboots still starts what it has.
        drop(registry);
        world.hub.kill();
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        until("the pod without its registry", SOON, || {
            world.agents[0].check()?;
            wait::yes(world.agents[0].named("sleep").len() == 1, || process::tail(&world.agents[0].log, 2000))
        })
    });
}

fn received(world: &World) -> Result<u64> {
    let namespace = world.slot.namespace(1);
    let words = ["netns", "exec", &namespace, "cat", "/sys/class/net/eth0/statistics/rx_bytes"];
    process::sh("ip", words)?.trim().parse().map_err(|e| format!("{e}"))
}

/// An update from an image that is here takes what changed.
#[test]
fn updates_take_what_changed() {
    test(1, &json!({}), |world| {
        let first: Vec<u64> = (1..=24).collect();
        let mut second = first.clone();
        second[11] = 99;
        let hub = Target::hub(&world.hub, &world.slot.dir())?;
        hub.push("app", "1", &application(&first)?)?;
        hub.push("app", "2", &application(&second)?)?;
        let begun = received(world)?;
        world.kubectl.apply(&pod("one", "hub.limpet/app:1", "IfNotPresent"))?;
        ready(world, "one")?;
        let whole = received(world)? - begun;
        wait::yes(whole > 24 << 20, || format!("only {whole} bytes came for the first image: what was measured?"))?;
        let begun = received(world)?;
        world.kubectl.apply(&pod("two", "hub.limpet/app:2", "IfNotPresent"))?;
        ready(world, "two")?;
        let changed = received(world)? - begun;
        println!("{whole} bytes for the first image, {changed} for the second");
        wait::yes(changed < 2 << 20, || format!("{changed} bytes came for a change of one megabyte"))?;
        let line = "cat /app/0 /app/11 /app/23 | sha256sum | cut -c1-64";
        let got = world.kubectl.run(&["exec", "two", "--", "sh", "-c", line])?;
        let want = Digest::of(&[noise(1, 1 << 20), noise(99, 1 << 20), noise(24, 1 << 20)].concat());
        wait::yes(got.trim() == want.hex(), || format!("{got} instead of {}", want.hex()))?;

        // Nothing in common: the whole comes, by the ordinary way.
        let other: Vec<u64> = (1001..=1024).collect();
        hub.push("app", "3", &application(&other)?)?;
        world.kubectl.apply(&pod("three", "hub.limpet/app:3", "IfNotPresent"))?;
        ready(world, "three")
    });
}

/// Cards live for so many writes: what layers were packed in does not reach the card when they come fast enough.
#[test]
fn layers_reach_the_card_once() {
    const MEBIBYTES: u64 = 96;
    test(1, &json!({}), |world| {
        world.agents[0].power_cut()?;
        let disk = Disk::under(&world.agents[0].data.join("images"))?;
        world.agents[0].start(None)?;
        let hub = Target::hub(&world.hub, &world.slot.dir())?;
        let seeds: Vec<u64> = (1..=MEBIBYTES).collect();
        hub.push("once", "1", &layered(&seeds, 16)?)?;
        let (written, begun) = (disk.written()?, received(world)?);
        world.kubectl.apply(&pod("once", "hub.limpet/once:1", "IfNotPresent"))?;
        ready(world, "once")?;
        let (written, came) = (disk.written()? - written, received(world)? - begun);
        println!("{came} bytes came, {written} reached the disk, for {MEBIBYTES} MiB of files");
        wait::yes(came > MEBIBYTES << 20, || format!("only {came} bytes came: what was measured?"))?;
        wait::yes(written >= MEBIBYTES << 20, || format!("only {written} bytes were written: what was measured?"))?;
        wait::yes(written < (MEBIBYTES << 20) * 3 / 2, || format!("{written} bytes were written for {came}"))
    });
}

/// The promise's own size: one file of a megabyte is other in a layer of 200 MiB.
#[test]
fn a_megabyte_of_two_hundred() {
    test(1, &json!({}), |world| {
        let first: Vec<u64> = (1..=200).collect();
        let mut second = first.clone();
        second[111] = 999;
        let hub = Target::hub(&world.hub, &world.slot.dir())?;
        let mut took = Vec::new();
        for (tag, seeds) in [("1", &first), ("2", &second)] {
            hub.push("large", tag, &application(seeds)?)?;
            let begun = received(world)?;
            world.kubectl.apply(&pod(&format!("v{tag}"), &format!("hub.limpet/large:{tag}"), "IfNotPresent"))?;
            world.kubectl.say(&format!("wait --for=condition=Ready pod/v{tag} --timeout=600s"))?;
            took.push(received(world)? - begun);
        }
        println!("{} bytes for the first image, {} for a changed megabyte in it", took[0], took[1]);
        wait::yes(took[0] > 200 << 20, || format!("only {} bytes came for the first image: what was measured?", took[0]))?;
        wait::yes(took[1] <= 2_000_000, || format!("{} bytes came for a change of one megabyte", took[1]))?;
        let got = world.kubectl.run(&["exec", "v2", "--", "sh", "-c", "cat /app/0 /app/111 /app/199 | sha256sum | cut -c1-64"])?;
        let want = Digest::of(&[noise(1, 1 << 20), noise(999, 1 << 20), noise(200, 1 << 20)].concat());
        wait::yes(got.trim() == want.hex(), || format!("{got} instead of {}", want.hex()))
    });
}
