//! Limpet OS from the builder to a Ready node on an emulated 64-bit ARM board, through power cuts and updates.
//!
//! In: `limpet image build`, `limpet flash`, QEMU; the board's static binaries of `cargo xtask dist`. Out: what kubectl and the
//! serial console show. Without those binaries it says so: building them takes minutes (`cargo xtask test` has them made).

use limpet_device::os;
use limpet_e2e::process::run;
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Hub, Kubectl, Machine, Result, Slot, binaries, images, machine, net, until, wait};
use limpet_oci::Platform;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BOARD: &str = "qemu-arm64";
const TARGET: &str = "aarch64-unknown-linux-musl";
const NODE: &str = "rock";
/// An emulated board on a busy machine.
const LONG: Duration = Duration::from_secs(600);

struct World {
    machine: Machine,
    kubectl: Kubectl,
    hub: Hub,
    limpet: PathBuf,
    slot: Slot,
}

fn limpet(world: &World, words: &[&str]) -> Result<String> {
    let dist = binaries::target_dir().join("dist");
    let mut command = Command::new(&world.limpet);
    command.args(words).env("LIMPET_AGENT_DIR", dist).env_remove("LIMPET_DATA_DIR");
    run(&mut command)?.ok(&format!("limpet {}", words.join(" ")))
}

impl World {
    fn new() -> Result<World> {
        let limpet = Binaries::build("dev")?.hub;
        let slot = Slot::take()?;
        let address = net::bridge(&slot)?;
        let mut hub = Hub::new(&slot, limpet.clone(), &address);
        hub.start()?;
        let kubectl = Kubectl::new(&hub.kubeconfig())?;
        let machine = Machine::new(&slot, "arm64", &slot.dir().join("card"), 256)?;
        Ok(World { machine, kubectl, hub, limpet, slot })
    }

    fn path(&self, name: &str) -> String {
        self.slot.dir().join(name).display().to_string()
    }

    /// Image, card with a token of its own, machine.
    fn card(&self) -> Result<()> {
        let (key, image, card) = (self.path("key"), self.path("image"), self.path("card"));
        limpet(self, &["image", "key", "--out", &key])?;
        let build = |out: &str| {
            limpet(self, &["image", "build", "--board", BOARD, "--out", out, "--update-key", &key, "--os-version", "1.0"])
        };
        let (first, again) = (build(&image)?, build(&self.path("again"))?);
        let sum = |said: &str| said.split_whitespace().next().map(str::to_string);
        wait::yes(sum(&first) == sum(&again), || format!("two builds differ:\n{first}{again}"))?;
        let dir = self.hub.dir.display().to_string();
        limpet(self, &["flash", BOARD, "--image", &image, "--out", &card, "--name", NODE, "--data-dir", &dir])?;
        for file in [&image, &self.path("again")] {
            std::fs::remove_file(file).map_err(|e| e.to_string())?;
        }
        // The card is larger than the image.
        let file = std::fs::OpenOptions::new().write(true).open(&card).map_err(|e| e.to_string())?;
        file.set_len(2 << 30).map_err(|e| e.to_string())
    }

    fn push(&self, name: &str, extra: &[(&str, &[u8])]) -> Result<()> {
        let cache = binaries::target_dir().join("tools/debian-arm64");
        let mirror = "http://deb.debian.org/debian";
        let debs = os::fetch_named(mirror, "bookworm", "arm64", &["busybox-static"], &cache).map_err(|e| e.to_string())?;
        let deb = std::fs::read_dir(debs).map_err(|e| e.to_string())?.flatten().map(|e| e.path()).next();
        let files = os::package_files(&deb.ok_or("no package")?, |p| p.ends_with("bin/busybox"))?;
        let program = files.into_values().next().ok_or("the package has no busybox")?;
        let mut layer = images::base();
        for (path, content) in extra {
            layer = layer.file(path, 0o644, content);
        }
        let platform: Platform =
            serde_json::from_value(json!({"os": "linux", "architecture": "arm64"})).map_err(|e| e.to_string())?;
        let image = images::busybox_of(&platform, &program, layer)?;
        images::Target::hub(&self.hub, &self.slot.dir())?.push(name, "1", &image)
    }

    fn node_ready(&self) -> Result<()> {
        until("the board is Ready", LONG, || {
            let node = self.kubectl.json(&format!("get node {NODE}"))?;
            wait::yes(is_ready(&node), || format!("it is not Ready: {}", node["status"]["conditions"]))
        })
    }

    fn os_is(&self, version: &str) -> Result<()> {
        until(&format!("Limpet OS {version}"), LONG, || {
            let node = self.kubectl.json(&format!("get node {NODE}"))?;
            let os = node["status"]["nodeInfo"]["osImage"].as_str().unwrap_or_default().to_string();
            wait::yes(os == format!("Limpet OS {version}") && is_ready(&node), || format!("it runs {os:?}"))
        })
    }

    /// A pod that copies an update to where the board looks for it: what a DaemonSet does in a fleet.
    fn send_update(&self, name: &str, content: &[u8]) -> Result<()> {
        self.push(name, &[("x.update", content)])?;
        let script = "cp /x.update /incoming/x.part && mv /incoming/x.part /incoming/x.update";
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [{
                "name": "main", "image": format!("hub.limpet/{name}:1"), "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "incoming", "mountPath": "/incoming"}]}],
                "volumes": [{"name": "incoming", "hostPath": {"path": "/data/os/incoming"}}]},
        });
        self.kubectl.apply(&pod.to_string()).map(drop)
    }
}

fn steps(world: &mut World) -> Result<()> {
    world.card()?;
    world.machine.switch_on()?;
    world.push("busybox", &[])?;
    world.node_ready()?;
    grown(world)?;
    pod_logs_exec(world)?;
    power_cut(world)?;
    refused(world)?;
    update(world)?;
    broken_update(world)
}

fn grown(world: &World) -> Result<()> {
    let node = world.kubectl.json(&format!("get node {NODE}"))?;
    let disk = node["status"]["capacity"]["ephemeral-storage"].as_str().unwrap_or_default().to_string();
    let kib = disk.strip_suffix("Ki").and_then(|n| n.parse::<u64>().ok()).map(|n| n * 1024);
    let bytes = kib.or_else(|| disk.parse().ok()).unwrap_or(0);
    wait::yes(bytes > 1 << 30, || format!("the data partition has not grown: {disk}"))
}

fn pod_logs_exec(world: &World) -> Result<()> {
    let script = "echo hello from $(uname -m); exec tail -f /dev/null";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]}]},
    });
    world.kubectl.apply(&pod.to_string())?;
    world.kubectl.say("wait --for=condition=Ready pod/web --timeout=300s")?;
    let logs = world.kubectl.say("logs web")?;
    wait::yes(logs.trim() == "hello from aarch64", || format!("the log says {logs:?}"))?;
    let said = world.kubectl.say("exec web -- cat /proc/1/comm")?;
    wait::yes(said.trim() == "tail", || format!("exec says {said:?}"))
}

fn power_cut(world: &mut World) -> Result<()> {
    let boots = world.machine.said("slot a");
    let before = started(world)?;
    world.machine.power_cut();
    // The hub is away, too: the pod comes back from the board's own journal.
    world.hub.kill();
    world.machine.switch_on()?;
    world.machine.says("slot a", boots + 1, LONG)?;
    world.hub.start()?;
    until("the pod after a power cut", LONG, || {
        let pod = world.kubectl.json("get pod web")?;
        let now = started(world)?;
        wait::yes(is_ready(&pod) && now != before, || format!("its status is {}", pod["status"]))
    })?;
    let said = world.kubectl.say("exec web -- cat /proc/1/comm")?;
    wait::yes(said.trim() == "tail", || format!("exec says {said:?}"))
}

/// When the pod's container was started.
fn started(world: &World) -> Result<String> {
    let pod = world.kubectl.json("get pod web")?;
    let at = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    at.as_str().map(str::to_string).ok_or_else(|| format!("the pod does not run: {}", pod["status"]))
}

/// Updates that a board must not take.
fn refused(world: &mut World) -> Result<()> {
    world.send_update("forged", b"LIMPETU1\x02\0\0\0{}and so on, long enough for a signature that nobody has ever made with any key at all")?;
    world.machine.says("was refused: its signature does not fit", 1, LONG)
}

fn made_update(world: &World, version: &str, init: Option<&str>) -> Result<Vec<u8>> {
    let (key, out) = (world.path("key"), world.path("update"));
    let mut words = vec!["image", "update", "--board", BOARD, "--out", &out, "--update-key", &key, "--os-version", version];
    words.extend(init.iter().flat_map(|file| ["--init", file]));
    limpet(world, &words)?;
    std::fs::read(&out).map_err(|e| e.to_string())
}

fn update(world: &mut World) -> Result<()> {
    let content = made_update(world, "2.0", None)?;
    world.send_update("update-two", &content)?;
    world.os_is("2.0")?;
    world.machine.says("slot b", 1, LONG)
}

/// Its first process is not one: the kernel panics, the boot loader counts, the board comes back with what it had.
fn broken_update(world: &mut World) -> Result<()> {
    let init = binaries::target_dir().join("dist").join(TARGET).join("limpet-init");
    let mut broken = std::fs::read(init).map_err(|e| e.to_string())?;
    // The entry point of the ELF file points nowhere.
    broken[24..32].fill(0xff);
    let file = world.path("broken-init");
    std::fs::write(&file, broken).map_err(|e| e.to_string())?;
    let content = made_update(world, "3.0", Some(&file))?;
    let boots = world.machine.said("slot b");
    world.send_update("update-broken", &content)?;
    world.machine.says("update to 3.0 is in place", 1, LONG)?;
    world.machine.says("slot b", boots + 1, LONG)?;
    world.os_is("2.0")
}

#[test]
fn from_an_image_to_a_node_through_power_cuts_and_updates() {
    let dist = binaries::target_dir().join("dist").join(TARGET);
    let absent = ["limpet-agent", "limpet-init"].into_iter().find(|name| !Path::new(&dist.join(name)).is_file());
    let why = limpet_e2e::missing().or_else(|| machine::missing("arm64")).or_else(|| {
        absent.map(|name| format!("{name} for the board is not built: cargo xtask dist --agent-only --target {TARGET}"))
    });
    if let Some(why) = why {
        println!("skipped: {why}");
        return;
    }
    let mut world = World::new().unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = steps(&mut world) {
        let nodes = world.kubectl.say("get nodes,pods -A -o wide").unwrap_or_default();
        if std::env::var_os("LIMPET_E2E_HOLD").is_some() {
            eprintln!("{why}\nheld: {}", world.slot.dir().display());
            std::thread::sleep(Duration::from_secs(3600));
        }
        panic!("{why}\n{nodes}\n{}", world.machine.last_words());
    }
}
