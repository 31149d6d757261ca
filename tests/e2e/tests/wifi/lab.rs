//! The image with an access point in front of it, its card, a hub.
//!
//! In: networks. Out: a machine that is switched on and off, a card that is written anew. Never: a change to what the card holds
//! besides the first program, which starts the real one.

use limpet_device::board::{self, Board};
use limpet_device::inject::{self, System};
use limpet_device::os::{self, Inputs, MIRROR, Origin, Package, SUITE};
use limpet_device::plan;
use limpet_device::provision::{self, Wish};
use limpet_device::table;
use limpet_e2e::process::run as run_command;
use limpet_e2e::{Binaries, Hub, Kubectl, Machine, Result, Slot, binaries, machine, net, wait};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

pub const NODE: &str = "rock";
/// Another board than this machine's own, where its binaries are built.
const OTHER_BOARD: &str = "LIMPET_WIFI_BOARD";
const OWN_BOARD: &str = "qemu-x86_64-wifi";
const CARD_BYTES: u64 = 1 << 30;
/// apt has one state.
static APT: Mutex<()> = Mutex::new(());

fn board() -> Result<Board> {
    board::find(std::env::var(OTHER_BOARD).as_deref().unwrap_or(OWN_BOARD)).map_err(text)
}

pub struct Lab {
    pub machine: Machine,
    board: Board,
    pub kubectl: Kubectl,
    hub: Hub,
    limpet: PathBuf,
    programs: PathBuf,
    /// Files that lie in the board's memory for this test alone.
    own_bytes: u64,
    heavier_bytes: u64,
    /// A slot as it lies on the card, such files among it.
    packed_bytes: u64,
    slot: Slot,
}

pub fn missing() -> Option<String> {
    limpet_e2e::missing().or_else(|| board().map_or_else(Some, |board| machine::missing(&board.architecture)))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Packages of the board, and the programs of the other side.
fn packages(board: &Board) -> Result<(Vec<Package>, Vec<Package>)> {
    let _turn = APT.lock().map_err(text)?;
    let cache = binaries::target_dir().join("tools");
    let origin = Origin::Mirror { url: MIRROR.into(), suite: SUITE.into() };
    let own = os::fetch(&origin, board, &cache.join("debian-boards")).map_err(text)?;
    let architecture = &board.architecture;
    let lab = if board.name == OWN_BOARD { "debian-radio-lab".into() } else { format!("debian-radio-lab-{architecture}") };
    let wanted = ["hostapd", "iw", "iproute2", "busybox-static"];
    let folder = os::fetch_with_libraries(MIRROR, SUITE, architecture, &wanted, &cache.join(lab)).map_err(text)?;
    Ok((own, os::described(&folder).map_err(text)?))
}

/// hostapd's file: one radio, several networks.
fn access_points(networks: &[(&str, &str)], password: &str) -> String {
    let mut text = "driver=nl80211\nhw_mode=g\nchannel=1\ncountry_code=DE\nlogger_stdout=-1\nlogger_stdout_level=2\n".to_string();
    for (number, (name, more)) in networks.iter().enumerate() {
        match number {
            0 => text.push_str("interface=wlan1\n"),
            n => text.push_str(&format!("bss=wlan1_{n}\n")),
        }
        text.push_str(&format!("ssid={name}\nbridge=br0\nwpa=2\nrsn_pairwise=CCMP\nsae_require_mfp=1\n{more}"));
        text.push_str(&format!("wpa_passphrase={password}\n"));
    }
    text
}

impl Lab {
    /// `None` where the board's binaries cannot be had.
    pub fn new(networks: &[(&str, &str)], password: &str) -> Result<Option<Lab>> {
        let board = board()?;
        let Some(programs) = binaries::for_board(&board.target)? else { return Ok(None) };
        let limpet = Binaries::build("dev")?.hub;
        let slot = Slot::take()?;
        let mut hub = Hub::new(&slot, limpet.clone(), &net::bridge(&slot)?);
        hub.start()?;
        let kubectl = Kubectl::new(&hub.kubeconfig())?;
        let program = |name: &str| fs::read(programs.join(&board.target).join(name)).map_err(|e| format!("{name}: {e}"));
        let (own, others) = packages(&board)?;
        let (agent, init) = (program("limpet-agent")?, program("limpet-init")?);
        let mut tools = BTreeMap::new();
        for (package, path) in [("hostapd", "usr/sbin/hostapd"), ("iw", "sbin/iw"), ("iproute2", "bin/ip")] {
            tools.extend(os::programs(&others, package, &[path]).map_err(text)?.0);
        }
        let busybox = others.iter().find(|p| p.name == "busybox-static").ok_or("no busybox")?;
        let busybox = os::package_files(&busybox.path, |p| p.ends_with("bin/busybox"))?.into_values().next().ok_or("no busybox")?;
        let extra = [
            ("lab/limpet-init".to_string(), 0o755, init),
            ("lab/busybox".into(), 0o755, busybox),
            ("lab/tools.squashfs".into(), 0o644, os::squash(&tools).map_err(text)?),
            ("lab/hostapd.conf".into(), 0o644, access_points(networks, password).into_bytes()),
        ];
        let init = include_bytes!("lab.sh");
        let heavier_bytes = binaries::heavier(&programs.join(&board.target))?;
        let own_bytes = extra.iter().skip(1).map(|(.., content)| content.len() as u64).sum();
        let inputs = Inputs {
            board: &board,
            version: "1.0",
            packages: &own,
            agent: &agent,
            init,
            loaders: BTreeMap::new(),
            update_key: None,
            extra: &extra,
        };
        let image = slot.dir().join("image");
        os::image(&inputs, &image).map_err(text)?;
        // A kernel in memory: what the firmware does is for tests/os.
        let (linux, initrd) = (slot.dir().join("linux"), slot.dir().join("initrd"));
        let mut packed_bytes = 0;
        for (name, to) in [("linux", &linux), ("initrd", &initrd)] {
            let content = inject::read(&image, &system(&image)?, &format!("/limpet/a/{name}")).map_err(text)?;
            packed_bytes += content.len() as u64;
            fs::write(to, content).map_err(text)?;
        }
        let line = format!("{} limpet.slot=a limpet.version=1.0", plan::limpet_os(&board).kernel_command_line);
        let kernel = ["-kernel".as_ref(), linux.as_os_str(), "-initrd".as_ref(), initrd.as_os_str()];
        let words = [&kernel[..], &["-append".as_ref(), line.as_ref()]].concat();
        let card = slot.dir().join("card");
        let machine = Machine::with_loaded(&slot, &board.architecture, &words, &card, board.memory_mib)?;
        fs::copy(&image, &card).map_err(text)?;
        grow(&card)?;
        Ok(Some(Lab { machine, board, kubectl, hub, limpet, programs, own_bytes, heavier_bytes, packed_bytes, slot }))
    }

    pub fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.slot.dir().join(name);
        fs::write(&path, content).map_err(text)?;
        Ok(path.display().to_string())
    }

    /// As a person does it, but for the drive.
    pub fn flash(&self, more: &[&str]) -> Result<()> {
        let at = |name: &str| self.slot.dir().join(name).display().to_string();
        let (image, card, dir) = (at("image"), at("card"), self.hub.dir.display().to_string());
        fs::remove_file(&card).map_err(text)?;
        let mut command = Command::new(&self.limpet);
        command.args(["flash", &self.board.name, "--image", &image, "--out", &card, "--name", NODE]);
        command.args(["--data-dir", &dir]).args(more);
        command.env("LIMPET_AGENT_DIR", &self.programs).env_remove("LIMPET_WIFI_PASSWORD");
        run_command(&mut command)?.ok("limpet flash")?;
        grow(Path::new(&card))
    }

    /// The node's file anew; everything else on the card stays.
    pub fn put(&self, wish: &Wish) -> Result<()> {
        let card = self.slot.dir().join("card");
        inject::put_all(&card, &system(&card)?, &[provision::limpet_os(wish)?]).map_err(text)
    }

    /// What people download is a slot and its boot loader; kernel and initial file system are packed as they are.
    pub fn packed(&self) -> Result<()> {
        const MIB_MAX: u64 = 64;
        let mib = self.packed_bytes >> 20;
        println!("figure: {}, kernel and system, packed, with what the test adds: {mib} MiB", self.board.name);
        wait::yes(mib <= MIB_MAX, || format!("they have {mib} MiB, more than {MIB_MAX}"))
    }

    /// What everything outside pods holds with the radio on, by what the kernel says through the hub's connection. The other side
    /// of the air is in the same machine: its files, and what its processes hold.
    pub fn memory(&self) -> Result<()> {
        // The promise, on the processor of the boards that have radios. No PC's radio is driven: there the mark is what holds,
        // and would not if the radio's file stayed in memory (docs/PROMISES.md).
        let mib_max = if self.board.architecture == "amd64" { 56 } else { 48 };
        /// hostapd, three shells, the access point's cards and stations in the kernel: with them a board holds so much more
        /// (3,436 KiB, x86-64).
        const OTHER_SIDE_BYTES: u64 = 3 << 20;
        let text = self.kubectl.say(&format!("get --raw /api/v1/nodes/{NODE}/proxy/stats/summary"))?;
        let summary: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        let available = summary["node"]["memory"]["availableBytes"].as_u64().ok_or_else(|| format!("none in {summary}"))?;
        let node = self.kubectl.json(&format!("get node {NODE}"))?;
        let total = node["status"]["capacity"]["memory"].as_str().and_then(|m| m.strip_suffix("Ki")?.parse::<u64>().ok());
        let total = total.ok_or_else(|| format!("no memory in {}", node["status"]["capacity"]))? << 10;
        let held = total.saturating_sub(available) >> 20;
        let others = (self.heavier_bytes + self.own_bytes + OTHER_SIDE_BYTES) >> 20;
        println!(
            "figure: {}, memory held with Wi-Fi: {held} MiB of the {} that the kernel has to give; {others} MiB of them are \
             for the other side of the air ({} of files) and for programs built for tests",
            self.board.name,
            total >> 20,
            self.own_bytes >> 20
        );
        wait::yes(held <= mib_max + others, || format!("{held} MiB are held, more than {mib_max} and {others}"))
    }
}

fn grow(card: &Path) -> Result<()> {
    OpenOptions::new().write(true).open(card).and_then(|file| file.set_len(CARD_BYTES)).map_err(text)
}

fn system(card: &Path) -> Result<System> {
    let mut head = vec![0; 1 << 20];
    let file = fs::File::open(card).map_err(text)?;
    file.read_exact_at(&mut head, 0).map_err(text)?;
    let areas = table::read(&head, file.metadata().map_err(text)?.len()).map_err(text)?;
    inject::find(card, &areas).map_err(text)
}
