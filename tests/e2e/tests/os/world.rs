//! A hub on this machine, an emulated board that reaches it, and the card in between.
//!
//! In: a kind of board. Out: image, card, machine, kubectl; waits that leave the processor to the emulator.
//! Never: binaries of another architecture than the board's.

use limpet_device::os;
use limpet_e2e::process::run as run_command;
use limpet_e2e::wait::until_every;
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Hub, Kubectl, Machine, Result, Slot, binaries, images, machine, net, wait};
use limpet_oci::Platform;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub const NODE: &str = "rock";
/// An emulated board on a busy machine.
pub const LONG: Duration = Duration::from_secs(600);
/// Each question is a kubectl, and takes from the emulator what it needs.
const PAUSE: Duration = Duration::from_millis(700);

static APT: Mutex<()> = Mutex::new(());
/// Boards whose packages are here.
static ASKED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// What differs between boards.
pub struct Kind {
    pub board: &'static str,
    pub target: &'static str,
    /// In Debian's words.
    pub architecture: &'static str,
    /// In the kernel's.
    pub machine: &'static str,
}

pub const ARM64: Kind =
    Kind { board: "qemu-arm64", target: "aarch64-unknown-linux-musl", architecture: "arm64", machine: "aarch64" };
pub const AMD64: Kind =
    Kind { board: "qemu-x86_64", target: "x86_64-unknown-linux-musl", architecture: "amd64", machine: "x86_64" };

pub struct World {
    pub kind: &'static Kind,
    pub machine: Machine,
    pub kubectl: Kubectl,
    pub hub: Hub,
    limpet: PathBuf,
    /// Folder of the board's binaries, one folder a target.
    pub programs: PathBuf,
    pub slot: Slot,
}

/// Builds a world and takes the steps; says why it cannot, where it cannot.
pub fn run(kind: &'static Kind, steps: fn(&mut World) -> Result<()>) {
    let why = limpet_e2e::missing().or_else(|| machine::missing(kind.architecture));
    if let Some(why) = why {
        println!("skipped: {why}");
        return;
    }
    let Some(programs) = binaries::for_board(kind.target).unwrap_or_else(|why| panic!("{why}")) else {
        let target = kind.target;
        println!("skipped: the board's binaries are not built: cargo xtask dist --agent-only --target {target}");
        return;
    };
    let mut world = World::new(kind, programs).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = steps(&mut world) {
        let nodes = world.kubectl.say("get nodes,pods -A -o wide").unwrap_or_default();
        if std::env::var_os("LIMPET_E2E_HOLD").is_some() {
            eprintln!("{why}\nheld: {}", world.slot.dir().display());
            std::thread::sleep(Duration::from_secs(3600));
        }
        panic!("{why}\n{nodes}\n{}", world.machine.last_words());
    }
}

impl World {
    fn new(kind: &'static Kind, programs: PathBuf) -> Result<World> {
        let limpet = Binaries::build("dev")?.hub;
        let slot = Slot::take()?;
        let address = net::bridge(&slot)?;
        let mut hub = Hub::new(&slot, limpet.clone(), &address);
        hub.start()?;
        let kubectl = Kubectl::new(&hub.kubeconfig())?;
        let machine = Machine::new(&slot, kind.architecture, &slot.dir().join("card"), 256)?;
        Ok(World { kind, machine, kubectl, hub, limpet, programs, slot })
    }

    pub fn path(&self, name: &str) -> String {
        self.slot.dir().join(name).display().to_string()
    }

    pub fn limpet(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.limpet);
        command.args(words).env("LIMPET_AGENT_DIR", &self.programs).env_remove("LIMPET_DATA_DIR");
        run_command(&mut command)?.ok(&format!("limpet {}", words.join(" ")))
    }

    /// Builds the image and tells its SHA-256.
    pub fn image(&self, name: &str) -> Result<String> {
        let (key, out) = (self.path("key"), self.path(name));
        if !Path::new(&key).exists() {
            self.limpet(&["image", "key", "--out", &key])?;
        }
        let said = self.built(&["image", "build", "--out", &out, "--update-key", &key, "--os-version", "1.0"])?;
        said.split_whitespace().next().map(str::to_string).ok_or_else(|| format!("no checksum in {said:?}"))
    }

    /// As `limpet flash` builds one: no key of its own.
    pub fn image_of_no_key(&self, name: &str) -> Result<()> {
        self.built(&["image", "build", "--out", &self.path(name)]).map(drop)
    }

    /// Debian is asked for its packages once; one at a time, since apt has one state.
    fn built(&self, words: &[&str]) -> Result<String> {
        let _turn = APT.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap_or_default();
        let packages = os::debs(&cache.join("limpet/packages"), os::SUITE, self.kind.architecture);
        let packages = packages.display().to_string();
        let mut all = [&words[..2], &["--board", self.kind.board], &words[2..]].concat();
        if ASKED.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.kind.board) {
            all.extend(["--packages", &packages]);
        }
        let said = self.limpet(&all)?;
        ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(self.kind.board);
        Ok(said)
    }

    /// A card with a token of its own.
    pub fn card(&self, image: &str) -> Result<()> {
        let (image, card) = (self.path(image), self.path("card"));
        let dir = self.hub.dir.display().to_string();
        self.limpet(&["flash", self.kind.board, "--image", &image, "--out", &card, "--name", NODE, "--data-dir", &dir])?;
        // The card is larger than the image.
        let file = std::fs::OpenOptions::new().write(true).open(&card).map_err(|e| e.to_string())?;
        file.set_len(2 << 30).map_err(|e| e.to_string())
    }

    /// busybox for the board, and whatever else is to be in the image.
    pub fn push(&self, name: &str, extra: &[(&str, &[u8])]) -> Result<()> {
        let architecture = self.kind.architecture;
        let turn = APT.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = binaries::target_dir().join(format!("tools/debian-{architecture}"));
        if !cache.join("debs").read_dir().is_ok_and(|mut all| all.next().is_some()) {
            os::fetch_named(os::MIRROR, os::SUITE, architecture, &["busybox-static"], &cache).map_err(|e| e.to_string())?;
        }
        let deb = cache.join("debs").read_dir().map_err(|e| e.to_string())?.flatten().map(|e| e.path()).next();
        let files = os::package_files(&deb.ok_or("no package")?, |p| p.ends_with("bin/busybox"))?;
        let program = files.into_values().next().ok_or("the package has no busybox")?;
        drop(turn);
        let mut layer = images::base();
        for (path, content) in extra {
            layer = layer.file(path, 0o644, content);
        }
        let platform: Platform =
            serde_json::from_value(json!({"os": "linux", "architecture": architecture})).map_err(|e| e.to_string())?;
        let image = images::busybox_of(&platform, &program, layer)?;
        images::Target::hub(&self.hub, &self.slot.dir())?.push(name, "1", &image)
    }

    pub fn node(&self) -> Result<Value> {
        self.kubectl.json(&format!("get node {NODE}"))
    }

    pub fn node_ready(&mut self) -> Result<()> {
        self.wait("the board is Ready", |world| {
            let node = world.node()?;
            wait::yes(is_ready(&node), || format!("it is not Ready: {}", node["status"]["conditions"]))
        })
    }

    pub fn os_is(&mut self, version: &str) -> Result<()> {
        let wanted = format!("Limpet OS {version}");
        self.wait(&wanted, |world| {
            let node = world.node()?;
            let os = node["status"]["nodeInfo"]["osImage"].as_str().unwrap_or_default().to_string();
            wait::yes(os == wanted && is_ready(&node), || format!("it runs {os:?}"))
        })
    }

    /// Asks now and then, and not at all once the machine has ended.
    pub fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&World) -> Result<T>) -> Result<T> {
        let answer = until_every(PAUSE, what, LONG, || match self.machine.check() {
            Ok(()) => ask(self).map(Ok),
            Err(why) => Ok(Err(why)),
        });
        answer?
    }

    /// `ask` is about the console, which costs nothing.
    pub fn console(&mut self, words: &str, times: usize) -> Result<()> {
        self.machine.says(words, times, LONG)
    }

    /// A pod that runs for ever.
    pub fn pod(&self, name: &str, script: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]}]},
        });
        self.kubectl.apply(&pod.to_string()).map(drop)
    }

    pub fn pod_ready(&mut self, name: &str) -> Result<()> {
        self.wait(&format!("the pod {name} is Ready"), |world| {
            let pod = world.kubectl.json(&format!("get pod {name}"))?;
            wait::yes(is_ready(&pod), || format!("its status is {}", pod["status"]))
        })
    }

    /// An update of the system, signed.
    pub fn made_update(&self, version: &str, init: Option<&str>) -> Result<Vec<u8>> {
        let (key, out) = (self.path("key"), self.path("update"));
        let mut words = vec!["image", "update", "--out", &out, "--update-key", &key, "--os-version", version];
        words.extend(init.iter().flat_map(|file| ["--init", file]));
        self.built(&words)?;
        std::fs::read(&out).map_err(|e| e.to_string())
    }

    /// An update that the hub signed.
    pub fn made_by_hub(&self, version: &str) -> Result<Vec<u8>> {
        let (hub, out) = (self.hub.dir.display().to_string(), self.path("update"));
        self.built(&["image", "update", "--out", &out, "--data-dir", &hub, "--os-version", version])?;
        std::fs::read(&out).map_err(|e| e.to_string())
    }

    /// A pod that copies an update to where the board looks for it: what a DaemonSet does in a fleet.
    pub fn send_update(&self, name: &str, content: &[u8]) -> Result<()> {
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

    /// The board's own binary, for tests that spoil it.
    pub fn program(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.programs.join(self.kind.target).join(name);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// From the switch to Ready, told stage by stage: for people, not judged.
    pub fn first_start(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut told = String::new();
        self.machine.switch_on()?;
        for (words, stage) in [
            ("Limpet OS 1.0", "first process"),
            ("limpet: the data partition has", "partition grown"),
            ("limpet: address ", "address"),
        ] {
            self.console(words, 1)?;
            told.push_str(&format!("{stage} {:.1} s, ", begun.elapsed().as_secs_f64()));
        }
        self.node_ready()?;
        let board = self.kind.board;
        println!("figure: {board}, power-on to: {told}Ready {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }
}
