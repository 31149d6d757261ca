//! Limpet OS over the air: published, fetched, left for the board's first process, reported; in waves over a fleet.
//!
//! In: boards whose command line and folders are those of a pretended Limpet OS (`LIMPET_FAKE_OS`); this test is their first
//! process. Out: the node as kubectl shows it, files in the folder. The real first process: `--test os`.

use limpet_device::{fetch::sum_of_bytes, os::Key};
use limpet_e2e::process::tail;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn told(e: std::io::Error) -> String {
    e.to_string()
}

/// One board's system, as its first process would have it.
struct System {
    root: PathBuf,
    board: usize,
    boots: u32,
    running: String,
}

impl System {
    fn new(world: &mut World, board: usize) -> Result<System> {
        let root = world.slot.dir().join(format!("os-{board}"));
        fs::create_dir_all(root.join("data/os/incoming")).map_err(told)?;
        fs::create_dir_all(root.join("proc/sys/kernel/random")).map_err(told)?;
        let mut system = System { root, board, boots: 0, running: String::new() };
        system.starts(world, "0.1.0", &json!({"running": "0.1.0", "good": true}))?;
        Ok(system)
    }

    /// The board restarts with this version.
    fn starts(&mut self, world: &mut World, version: &str, said: &Value) -> Result<()> {
        (self.boots, self.running) = (self.boots + 1, version.into());
        world.agents[self.board].power_cut()?;
        let line = format!("quiet limpet.board=rock-5 limpet.slot=a limpet.version={version}\n");
        fs::write(self.root.join("proc/cmdline"), line).map_err(told)?;
        fs::write(self.root.join("proc/sys/kernel/random/boot_id"), self.boots.to_string()).map_err(told)?;
        self.says(said)?;
        let root = self.root.display().to_string();
        world.agents[self.board].start_with(None, &[("LIMPET_FAKE_OS", &root)])
    }

    fn says(&self, said: &Value) -> Result<()> {
        fs::write(self.root.join("data/os/said.new"), said.to_string()).map_err(told)?;
        fs::rename(self.root.join("data/os/said.new"), self.root.join("data/os/said.json")).map_err(told)
    }

    /// The files that the first process would take.
    fn waiting(&self) -> Vec<String> {
        let all = fs::read_dir(self.root.join("data/os/incoming")).into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.ends_with(".update")).collect()
    }

    /// Takes it, as the first process does.
    fn take(&self, world: &World, version: &str) -> Result<Vec<u8>> {
        let name = format!("limpet-{version}.update");
        until(&format!("the file {name}"), SOON, || {
            let log = || tail(&world.agents[self.board].log, 3000);
            wait::yes(self.waiting() == [name.as_str()], || format!("{:?}\n{}", self.waiting(), log()))
        })?;
        let path = self.root.join("data/os/incoming").join(name);
        let bytes = fs::read(&path).map_err(told)?;
        fs::remove_file(&path).map_err(told)?;
        Ok(bytes)
    }
}

fn hubs_key(world: &World) -> Result<Key> {
    Key::parse(&fs::read(world.hub.dir.join("pki/update.key")).map_err(told)?).map_err(|e| e.to_string())
}

fn update(key: &Key, board: &str, version: &str) -> Vec<u8> {
    // Large enough to come in several pieces.
    let (linux, initrd) = (vec![7; 3 << 20], version.repeat(1 << 16).into_bytes());
    let part = |bytes: &[u8]| json!({"bytes": bytes.len(), "sha256": sum_of_bytes(bytes)});
    let (kernel, files) = (part(&linux), part(&initrd));
    let manifest = json!({"board": board, "version": version, "options": "quiet", "linux": kernel, "initrd": files}).to_string();
    let length = u32::try_from(manifest.len()).unwrap_or_default().to_le_bytes();
    let signature = key.sign(manifest.as_bytes());
    [b"LIMPETU1", length.as_slice(), manifest.as_bytes(), &signature, &linux, &initrd].concat()
}

fn publish(world: &World, bytes: &[u8]) -> Result<String> {
    let file = world.slot.dir().join("os.update");
    fs::write(&file, bytes).map_err(told)?;
    world.hub.operate(&["update", "publish", &file.to_string_lossy()])
}

fn publish_good(world: &World, version: &str) -> Result<Vec<u8>> {
    let bytes = update(&hubs_key(world)?, "rock-5", version);
    publish(world, &bytes).map(|_| bytes)
}

fn wanted(world: &World, version: &str) -> Result<()> {
    world.kubectl.say(&format!("annotate --overwrite node board-1 limpet.dev/os-version={version}")).map(|_| ())
}

fn comes_to(world: &World, system: &str, words: &[&str]) -> Result<()> {
    let log = world.agents[0].log.clone();
    until(&format!("{system}, {words:?}"), SOON, || {
        let node = world.kubectl.json("get node board-1")?;
        let runs = node["status"]["nodeInfo"]["osImage"].as_str().unwrap_or_default().to_string();
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let own = all.iter().find(|c| c["type"] == "OsUpToDate").cloned().unwrap_or(Value::Null);
        let why = format!("{} {} {}", own["status"], own["reason"], own["message"]);
        let good = (system.is_empty() || runs == format!("Limpet OS {system}")) && words.iter().all(|w| why.contains(w));
        wait::yes(good, || format!("{runs}: {why}\n{}", tail(&log, 3000)))
    })
}

#[test]
fn only_updates_that_boards_would_take_are_published() {
    test(1, &json!({}), |world| {
        let bytes = publish_good(world, "0.2.0")?;
        let refused = |bytes: &[u8], says: &str| {
            let why = publish(world, bytes).err().unwrap_or_default();
            wait::yes(why.contains(says), || format!("wanted {says:?}, got {why:?}"))
        };
        refused(&bytes, "published already")?;
        refused(&bytes[..bytes.len() - 1], "cut off")?;
        let mut damaged = bytes.clone();
        *damaged.last_mut().ok_or("empty")? ^= 1;
        refused(&damaged, "damaged")?;
        let own = Key::parse(&Key::generate().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        refused(&update(&own, "rock-5", "0.3.0"), "not signed with the key of this hub")?;
        refused(b"no program either", "")?;
        // One version has one name.
        refused(&update(&hubs_key(world)?, "rock-5", "0.2"), "published already")?;
        publish(world, &update(&hubs_key(world)?, "rock-5", "0.10.0"))?;
        publish(world, &update(&hubs_key(world)?, "qemu-x86_64", "0.2.0"))?;
        let list = world.hub.operate(&["update", "list"])?;
        let lines = ["Limpet OS 0.2.0 for qemu-x86_64", "Limpet OS 0.2.0 for rock-5", "Limpet OS 0.10.0 for rock-5"];
        wait::yes(list.lines().eq(lines), || list.clone())
    });
}

#[test]
fn a_board_gets_its_system_over_the_air_and_tells_how_that_went() {
    test(1, &json!({}), |world| {
        let published = publish_good(world, "0.2.0")?;
        wanted(world, "0.2.0")?;
        comes_to(world, "", &["False", "Refused", "0.2.0: this board does not run Limpet OS"])?;
        world.has_event("OsUpdateRefused")?;
        world.at_the_board(&["lock", "till", "--reason", "a payment"])?;
        let mut system = System::new(world, 0)?;
        world.kubectl.say("annotate node board-1 limpet.dev/os-version-")?;
        comes_to(world, "0.1.0", &[])?;
        wanted(world, "0.2.0")?;
        comes_to(world, "0.1.0", &["False", "Locked", "0.2.0: held back by till: a payment"])?;
        wait::yes(system.waiting().is_empty(), || "it was handed over in spite of the lock".into())?;
        world.at_the_board(&["unlock", "till"])?;
        comes_to(world, "0.1.0", &["False", "Updating", "0.2.0: waits for the board to install it"])?;
        let got = system.take(world, "0.2.0")?;
        wait::yes(got == published, || format!("{} bytes came of {}", got.len(), published.len()))?;
        system.starts(world, "0.2.0", &json!({"running": "0.2.0", "good": false}))?;
        comes_to(world, "0.2.0", &["False", "Updating", "0.2.0: runs, and is on trial"])?;
        system.says(&json!({"running": "0.2.0", "good": true}))?;
        comes_to(world, "0.2.0", &["True", "AsWanted"])?;
        world.has_event("OsUpdated")?;

        for (version, says) in [("0.1.5", "older than 0.2.0"), ("0.3.x", "is not a version of Limpet OS"), ("0.9.0", "")] {
            if version == "0.1.5" {
                publish_good(world, version)?;
            }
            wanted(world, version)?;
            comes_to(world, "0.2.0", &["False", "Refused", version, says])?;
        }
        publish_good(world, "0.3.0")?;
        wanted(world, "0.3.0")?;
        let name = "limpet-0.3.0.update";
        until("the file", SOON, || wait::yes(system.waiting() == [name], || format!("{:?}", system.waiting())))?;
        system.says(&json!({"running": "0.2.0", "good": true, "failed": {"file": name, "why": "no room for it"}}))?;
        system.take(world, "0.3.0")?;
        comes_to(world, "0.2.0", &["False", "Refused", "0.3.0: no room for it"])?;

        publish_good(world, "0.4.0")?;
        wanted(world, "0.4.0")?;
        system.take(world, "0.4.0")?;
        let failed = json!({"version": "0.4.0", "why": "it did not stay up"});
        system.starts(world, "0.2.0", &json!({"running": "0.2.0", "good": true, "failed": failed}))?;
        comes_to(world, "0.2.0", &["False", "RolledBack", "0.4.0: it did not stay up"])?;
        world.has_event("OsRolledBack")?;
        wait::yes(system.waiting().is_empty(), || "it was handed over again".into())?;

        // Power fails at any time on the way: all of it comes, under its name alone.
        let published = publish_good(world, "0.5.0")?;
        wanted(world, "0.5.0")?;
        for ms in [0, 300, 600, 900, 1200, 1500, 1800] {
            std::thread::sleep(Duration::from_millis(ms));
            system.starts(world, "0.2.0", &json!({"running": "0.2.0", "good": true}))?;
        }
        let got = system.take(world, "0.5.0")?;
        wait::yes(got == published, || format!("{} bytes came of {}", got.len(), published.len()))?;
        let left = fs::read_dir(system.root.join("data/os/incoming")).map_err(told)?.count();
        wait::yes(left == 0, || format!("{left} files are left of what was cut off"))
    });
}

fn rollout(name: &str, version: &str, on_failure: &str) -> String {
    let metadata = json!({"name": name, "namespace": "kube-system"});
    json!({"apiVersion": "limpet.dev/v1", "kind": "FleetRollout", "metadata": metadata, "spec": {
        "target": {"kind": "Node", "selector": {"matchLabels": {"kubernetes.io/os": "linux"}}},
        "change": {"metadata": {"annotations": {"limpet.dev/os-version": version}}},
        "success": {"deadline": "5m", "maxFailed": 0}, "onFailure": on_failure}})
    .to_string()
}

/// Who has a file is restarted with it; the other one has none yet.
fn next_board(systems: &[System]) -> Result<usize> {
    until("a board that was given the update", SOON, || {
        let having: Vec<usize> = systems.iter().filter(|s| !s.waiting().is_empty()).map(|s| s.board).collect();
        wait::yes(having.len() == 1, || format!("boards {having:?} have one"))
    })?;
    systems.iter().position(|s| !s.waiting().is_empty()).ok_or_else(|| "nobody".into())
}

#[test]
fn a_fleet_gets_its_system_board_by_board_and_stops_or_goes_back_where_one_came_back() {
    test(2, &json!({}), |world| {
        let mut systems = vec![System::new(world, 0)?, System::new(world, 1)?];
        world.nodes_ready(SOON)?;
        publish_good(world, "0.2.0")?;
        publish_good(world, "0.3.0")?;
        world.kubectl.apply(&rollout("good", "0.2.0", "Halt"))?;
        for _ in 0..2 {
            let board = next_board(&systems)?;
            systems[board].take(world, "0.2.0")?;
            systems[board].starts(world, "0.2.0", &json!({"running": "0.2.0", "good": true}))?;
        }
        world.kubectl.say("-n kube-system wait fleetrollout/good --for=condition=Complete --timeout=180s")?;
        let all = world.kubectl.say("get nodes -o jsonpath={.items[*].status.nodeInfo.osImage}")?;
        wait::yes(all.matches("Limpet OS 0.2.0").count() == 2, || all.clone())?;

        world.kubectl.apply(&rollout("bad", "0.3.0", "Halt"))?;
        let board = next_board(&systems)?;
        systems[board].take(world, "0.3.0")?;
        let failed = json!({"version": "0.3.0", "why": "it did not stay up"});
        systems[board].starts(world, "0.2.0", &json!({"running": "0.2.0", "good": true, "failed": failed}))?;
        world.kubectl.say("-n kube-system wait fleetrollout/bad --for=jsonpath={.status.phase}=Failed --timeout=180s")?;
        let status = world.kubectl.json("-n kube-system get fleetrollout bad")?["status"].to_string();
        wait::yes(status.contains("Limpet OS 0.3.0: it did not stay up"), || status.clone())?;
        let other = &systems[1 - board];
        wait::yes(other.waiting().is_empty() && other.running == "0.2.0", || "the other board was updated, too".into())?;
        world.kubectl.say("-n kube-system delete fleetrollout bad")?;

        // The way back: who runs the new system keeps it, the one that left it has again what it was asked for before.
        publish_good(world, "0.4.0")?;
        let asked = |world: &World, board: usize| {
            let node = world.kubectl.json(&format!("get node board-{}", board + 1))?;
            Ok::<_, String>(node["metadata"]["annotations"]["limpet.dev/os-version"].as_str().unwrap_or_default().to_string())
        };
        let before = [asked(world, 0)?, asked(world, 1)?];
        world.kubectl.apply(&rollout("back", "0.4.0", "Rollback"))?;
        let good = next_board(&systems)?;
        systems[good].take(world, "0.4.0")?;
        systems[good].starts(world, "0.4.0", &json!({"running": "0.4.0", "good": true}))?;
        let left = next_board(&systems)?;
        systems[left].take(world, "0.4.0")?;
        let failed = json!({"version": "0.4.0", "why": "it did not stay up"});
        systems[left].starts(world, "0.2.0", &json!({"running": "0.2.0", "good": true, "failed": failed}))?;
        world.kubectl.say("-n kube-system wait fleetrollout/back --for=jsonpath={.status.phase}=RolledBack --timeout=180s")?;
        let status = world.kubectl.json("-n kube-system get fleetrollout back")?["status"].to_string();
        let says = "1 of 2 run the new Limpet OS and keep it: no board takes an older one";
        wait::yes(status.contains(says), || status.clone())?;
        let now = [asked(world, good)?, asked(world, left)?];
        wait::yes(good != left && now == ["0.4.0".to_string(), before[left].clone()], || format!("{before:?}, then {now:?}"))?;
        world.kubectl.say(&format!("wait node/board-{} --for=condition=OsUpToDate --timeout=120s", good + 1)).map(drop)
    });
}
