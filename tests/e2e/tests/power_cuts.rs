//! The power goes while a board pulls, unpacks, changes volumes and writes its journal; what was not on the disk is lost.
//!
//! In: a board whose data is on a file system of its own, which stops at once, as for file systems' own tests;
//! `LIMPET_POWER_CUTS`, how often (6); `LIMPET_SEED`.
//! Out: the board comes back each time, its pods run, every byte of their images and volumes is right.

use limpet_e2e::disk::{self, Disk};
use limpet_e2e::images::{Target, layered, noise};
use limpet_e2e::process::sh;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use limpet_oci::Digest;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
/// Files of a megabyte in an image, four in a layer.
const FILES: u64 = 16;
/// From the first word to the cut: about as long as all of it takes, and a little longer.
const WAIT_MS_MAX: u64 = 3000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seeds(round: u64) -> Vec<u64> {
    (0..FILES).map(|file| 1 + round * FILES + file).collect()
}

fn pod(name: &str, image: &str, spec: Value) -> String {
    let mut container = json!({"name": "c", "image": image, "command": ["sh", "-c", "exec sleep 1000000"]});
    container["volumeMounts"] = spec["volumeMounts"].clone();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [container], "volumes": spec["volumes"]}})
    .to_string()
}

fn settings(value: u64) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"a": format!("value {value}"), "b": format!("value {value}")}})
    .to_string()
}

/// All that was asked for is there, down to the last byte.
fn is_whole(world: &mut World, round: u64) -> Result<()> {
    let name = format!("p{round}");
    world.nodes_ready(SOON)?;
    for pod in ["reader", &name] {
        let words = format!("wait --for=condition=Ready pod/{pod} --timeout=120s");
        let described = || world.kubectl.say(&format!("describe pod {pod}")).unwrap_or_default();
        world.kubectl.say(&words).map_err(|why| format!("{why}\n{}", described()))?;
    }
    // `wait` may have believed what was said before the cut.
    let line = "cat $(ls -v /app/*) | sha256sum | cut -c1-64";
    let want = Digest::of(&seeds(round).into_iter().map(|seed| noise(seed, 1 << 20)).collect::<Vec<_>>().concat());
    until(&format!("the files of {name}"), SOON, || {
        let got = world.kubectl.run(&["exec", &name, "--", "sh", "-c", line])?;
        wait::yes(got.trim() == want.hex(), || format!("{got} instead of {}", want.hex()))
    })?;
    until("the settings", SOON, || {
        let got = world.kubectl.say("exec reader -- cat /settings/a /settings/b")?;
        wait::yes(got == format!("value {round}value {round}"), || got)
    })
}

/// The moment of the cut is random.
#[allow(clippy::disallowed_methods)]
fn pass(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn cuts(world: &mut World, count: u64) -> Result<()> {
    let mut state = number("LIMPET_SEED", 1) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let hub = Target::hub(&world.hub, &world.slot.dir())?;
    for round in 0..=count {
        hub.push("app", &round.to_string(), &layered(&seeds(round), 4)?)?;
    }
    // Everything that the board has, onto a disk of its own.
    world.agents[0].power_cut()?;
    let data = world.agents[0].data.clone();
    let place = data.to_str().ok_or("a path that is no text")?;
    let aside = format!("{place}.aside");
    sh("mv", [place, &aside])?;
    let disk = Disk::under(&data)?;
    sh("cp", ["-a", &format!("{aside}/."), place])?;
    world.agents[0].start(None)?;
    world.kubectl.apply(&settings(0))?;
    let volumes = json!({"volumes": [{"name": "s", "configMap": {"name": "settings"}}],
        "volumeMounts": [{"name": "s", "mountPath": "/settings"}]});
    world.kubectl.apply(&pod("reader", "hub.limpet/busybox:1", volumes))?;
    world.kubectl.apply(&pod("p0", "hub.limpet/app:0", json!({})))?;
    is_whole(world, 0)?;
    for round in 1..=count {
        let wait_ms = random() % WAIT_MS_MAX;
        world.kubectl.apply(&settings(round))?;
        world.kubectl.apply(&pod(&format!("p{round}"), &format!("hub.limpet/app:{round}"), json!({})))?;
        world.kubectl.say(&format!("delete pod p{} --wait=false", round - 1))?;
        // Somebody else on the board forces all there is to the disk on the way.
        let sync_ms = random() % WAIT_MS_MAX;
        if sync_ms < wait_ms {
            pass(sync_ms);
            disk.sync()?;
        }
        pass(if sync_ms < wait_ms { wait_ms - sync_ms } else { wait_ms });
        world.agents[0].power_cut()?;
        disk.cut()?;
        let found = |what: &str| std::fs::read_dir(data.join("images").join(what)).map_or(0, Iterator::count);
        let (layers, partial, half) = (found("layers"), found("partial"), found("tmp"));
        println!("cut {round} after {wait_ms} ms: {layers} layers, {partial} downloads, {half} half layers on the disk");
        world.agents[0].start(None)?;
        is_whole(world, round).map_err(|why| format!("after cut {round}, {wait_ms} ms: {why}"))?;
    }
    Ok(())
}

#[test]
fn a_board_comes_back_whole() {
    if limpet_e2e::missing().is_none() {
        disk::apart().unwrap();
    }
    test(1, &json!({}), |world| cuts(world, number("LIMPET_POWER_CUTS", 6)));
}
