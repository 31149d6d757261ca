//! Limpet OS on emulated boards without UEFI: U-Boot, its script, the sector that counts tries, what is left after power cuts.
//!
//! In: Debian's packages, the first process for ARM of `cargo xtask dist`, QEMU. Out: what the serial console says, what is on
//! the card afterwards. The agent is a program of 29 instructions that stays up: what is looked at here is everything around it.
//! One test has the real one, where it is built, up to a Ready node; pods are for os.rs. What no emulator has: the first steps
//! of a Raspberry Pi's own processor, loaders in raw sectors.

use limpet_device::board::{self, Board};
use limpet_device::inject::{self, System};
use limpet_device::os::{self, Inputs, Key, MIRROR, Origin, Package, SUITE};
use limpet_device::provision::{self, Network, Place, Put, Traits, What, Wish};
use limpet_device::table::{self, Area};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Hub, Kubectl, Machine, Result, Slot, binaries, machine, net, until, wait};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TARGET: &str = "aarch64-unknown-linux-musl";
/// An emulated board on a busy machine.
const LONG: Duration = Duration::from_secs(600);

/// AArch64: with `agent` as its first word it waits for ever; otherwise it starts itself so, and waits for ever.
const AGENT: [u32; 35] = [
    // Is the first letter of the first word an a?
    0xf9400be1, 0xb4000081, 0x39400022, 0x7101845f, 0x54000240,
    // clone: the parent goes on to wait
    0xd2800220, 0xaa1f03e1, 0xaa1f03e2, 0xaa1f03e3, 0xaa1f03e4, 0xd2801b88, 0xd4000001, 0xb5000140,
    // execve
    0x10000200, 0xd10083ff, 0x70000221, 0xa90007e0, 0xf9000bff, 0x910003e1, 0xaa1f03e2, 0xd2801ba8, 0xd4000001,
    // ppoll, and again
    0xaa1f03e0, 0xaa1f03e1, 0xaa1f03e2, 0xaa1f03e3, 0xd2800928, 0xd4000001, 0x17fffffa,
    // "/proc/self/exe", "agent"
    0x6f72702f, 0x65732f63, 0x652f666c, 0x61006578, 0x746e6567, 0,
];

/// An ELF file of one piece that holds the headers and the instructions.
fn agent() -> Vec<u8> {
    let code: Vec<u8> = AGENT.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (at, head) = (0x1_0000u64, 64 + 56);
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for number in [at + head, 64, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let all = head + code.len() as u64;
    for number in [0, at, at, all, all, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    [elf, code].concat()
}

fn cache() -> PathBuf {
    binaries::target_dir().join("tools/debian-boards")
}

/// One file of one of Debian's packages.
fn of_package(name: &str, file: &str) -> Result<Vec<u8>> {
    let debs = os::fetch_named(MIRROR, SUITE, "arm64", &[name], &cache().join(name)).map_err(|e| e.to_string())?;
    let deb = fs::read_dir(debs).map_err(|e| e.to_string())?.flatten().map(|e| e.path()).next();
    let files = os::package_files(&deb.ok_or("no package")?, |p| p == file)?;
    files.into_values().next().ok_or_else(|| format!("{name} has no {file}"))
}

struct Card {
    board: Board,
    packages: Vec<Package>,
    init: Vec<u8>,
    agent: Vec<u8>,
    key: Key,
    path: PathBuf,
}

impl Card {
    fn new(slot: &Slot, name: &str, agent: Vec<u8>) -> Result<Card> {
        let board = board::find(name).map_err(|e| e.to_string())?;
        let origin = Origin::Mirror { url: MIRROR.into(), suite: SUITE.into() };
        let packages = os::fetch(&origin, &board, &cache()).map_err(|e| e.to_string())?;
        let init = fs::read(init()).map_err(|e| e.to_string())?;
        let key = Key::generate().and_then(|key| Key::parse(&key)).map_err(|e| e.to_string())?;
        let card = Card { board, packages, init, agent, key, path: slot.dir().join("card") };
        os::image(&card.inputs("1.0", &card.init), &card.path).map_err(|e| e.to_string())?;
        // The card is larger than the image.
        let file = OpenOptions::new().write(true).open(&card.path).map_err(|e| e.to_string())?;
        file.set_len(1 << 30).map_err(|e| e.to_string())?;
        Ok(card)
    }

    fn inputs<'a>(&'a self, version: &'a str, init: &'a [u8]) -> Inputs<'a> {
        let (board, packages, update_key) = (&self.board, &self.packages, Some(os::public_key(&self.key)));
        Inputs { board, version, packages, agent: &self.agent, init, loaders: BTreeMap::new(), update_key, extra: &[] }
    }

    fn areas(&self) -> Result<Vec<Area>> {
        let mut head = vec![0; 1 << 20];
        let file = fs::File::open(&self.path).map_err(|e| e.to_string())?;
        file.read_exact_at(&mut head, 0).map_err(|e| e.to_string())?;
        table::read(&head, 1 << 30).map_err(|e| e.to_string())
    }

    fn system(&self) -> Result<System> {
        Ok(System::Limpet { system: self.areas()?.remove(0) })
    }

    /// A file of the system's partition, as the firmware would read it.
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        inject::read(&self.path, &self.system()?, path).map_err(|e| format!("{path}: {e}"))
    }

    fn put(&self, path: &str, content: Vec<u8>) -> Result<()> {
        let put = Put { place: Place::Boot, path: path.into(), mode: 0o600, what: What::File(content) };
        inject::put_all(&self.path, &self.system()?, &[put]).map_err(|e| e.to_string())
    }

    /// Lays an update where the board looks for it; the board is off.
    fn send(&self, version: &str, init: &[u8]) -> Result<()> {
        let made = os::update(&self.inputs(version, init), &self.key).map_err(|e| e.to_string())?;
        let root = self.areas()?.pop().ok_or("no data partition")?;
        let traits = Traits { network: Network::Ifupdown, raspberry_pi: false, cloud_init: false, modem_manager: false };
        let put = Put { place: Place::Root, path: "/os/incoming/x.update".into(), mode: 0o600, what: What::File(made) };
        inject::put_all(&self.path, &System::Other { root, boot: None, traits }, &[put]).map_err(|e| e.to_string())
    }

    fn counter(&self) -> Result<String> {
        let sector = self.read("/limpet/slots")?;
        wait::yes(sector.len() == 512, || format!("the counter has {} bytes", sector.len()))?;
        Ok(String::from_utf8_lossy(&sector).trim_end_matches('\0').trim().replace('\n', " "))
    }
}

fn init() -> PathBuf {
    binaries::target_dir().join("dist").join(TARGET).join("limpet-init")
}

/// Its entry point is nowhere: the kernel panics.
fn broken(init: &[u8]) -> Vec<u8> {
    let mut broken = init.to_vec();
    broken[24..32].fill(0xff);
    broken
}

fn skipped() -> bool {
    let no_init = !init().is_file();
    let no_init = no_init.then(|| format!("limpet-init is not built: cargo xtask dist --program limpet-init --target {TARGET}"));
    let why = machine::missing("arm64").or(no_init);
    if let Some(why) = &why {
        println!("skipped: {why}");
    }
    why.is_some()
}

fn through_updates(card: &Card, board: &mut Machine) -> Result<()> {
    board.switch_on()?;
    board.says("Limpet OS 1.0, slot a", 1, LONG)?;
    board.says("the data partition has", 1, LONG)?;
    board.says("address 10.0.2.15", 1, LONG)?;
    board.power_cut();
    wait::yes(card.areas()?[1].bytes > 700 << 20, || format!("the table was not written: {:?}", card.areas()))?;

    card.send("2.0", &card.init)?;
    board.switch_on()?;
    board.says("update to 2.0 is in place", 1, LONG)?;
    board.says("Limpet OS: slot b, tries left: 2", 1, LONG)?;
    board.says("Limpet OS 2.0, slot b", 1, LONG)?;
    // Cut before it was called good: it has one try less, and gets it.
    board.power_cut();
    wait::yes(card.counter()? == "limpet_good=a limpet_left=2", || format!("the counter: {:?}", card.counter()))?;
    board.switch_on()?;
    board.says("Limpet OS: slot b, tries left: 1", 1, LONG)?;
    board.says("slot b is good now", 1, LONG)?;
    board.power_cut();
    wait::yes(card.counter()? == "limpet_good=b limpet_left=0", || format!("the counter: {:?}", card.counter()))?;

    // Three tries of a system whose first process is none, then what was there before.
    card.send("3.0", &broken(&card.init))?;
    board.switch_on()?;
    board.says("update to 3.0 is in place", 1, LONG)?;
    board.says("Limpet OS: slot a, tries left: 2", 1, LONG)?;
    board.says("Limpet OS: slot a, tries left: 1", 1, LONG)?;
    // The two boots before the first update had slot a and no tries, too.
    board.says("Limpet OS: slot a, tries left: 0", 3, LONG)?;
    board.says("Limpet OS 2.0, slot b", 4, LONG)?;
    board.power_cut();
    wait::yes(card.counter()? == "limpet_good=b limpet_left=0", || format!("the counter: {:?}", card.counter()))
}

/// QEMU's virt with Debian's U-Boot in its memory.
fn u_boot(slot: &Slot, card: &Card) -> Result<Machine> {
    let firmware = slot.dir().join("u-boot.bin");
    let content = of_package("u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin")?;
    fs::write(&firmware, content).map_err(|e| e.to_string())?;
    Machine::with_firmware(slot, "arm64", &firmware, &card.path, 256)
}

#[test]
fn a_board_with_u_boot_takes_updates_and_leaves_broken_ones() {
    if skipped() {
        return;
    }
    let done = (|| {
        let slot = Slot::take()?;
        let card = Card::new(&slot, "qemu-arm64-u-boot", agent())?;
        let mut board = u_boot(&slot, &card)?;
        through_updates(&card, &mut board).map_err(|why| format!("{why}\n{}", board.last_words()))
    })();
    done.unwrap_or_else(|why| panic!("{why}"));
}

/// As a Pi's firmware does: config.txt names the loader; the tree is the one of the board's model.
fn loader_of_config(card: &Card, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let config = String::from_utf8_lossy(&card.read("/config.txt")?).into_owned();
    let kernel = config.lines().find_map(|l| l.strip_prefix("kernel=")).ok_or("config.txt names no kernel")?;
    wait::yes(config.contains("upstream_kernel=1\n"), || "the firmware would look for trees of other names".into())?;
    let (loader, tree) = (dir.join("loader"), dir.join("tree"));
    fs::write(&loader, card.read(&format!("/{kernel}"))?).map_err(|e| e.to_string())?;
    fs::write(&tree, card.read("/bcm2837-rpi-3-b.dtb")?).map_err(|e| e.to_string())?;
    Ok((loader, tree))
}

#[test]
fn a_raspberry_pi_3_starts_from_its_card() {
    if skipped() {
        return;
    }
    let done = (|| {
        let slot = Slot::take()?;
        let card = Card::new(&slot, "raspberry-pi-3", agent())?;
        // QEMU's watchdog of this board bites when it is armed.
        let options = String::from_utf8_lossy(&card.read("/limpet/a/options")?).into_owned();
        card.put("/limpet/a/options", options.replace("limpet.watchdog=15", "limpet.watchdog=0").into_bytes())?;
        let (loader, tree) = loader_of_config(&card, &slot.dir())?;
        let mut board = Machine::raspberry_pi_3(&slot, &["-kernel".as_ref(), loader.as_os_str()], &tree, &card.path);
        let mut steps = || {
            board.switch_on()?;
            board.says("Limpet OS: slot a, tries left: 0", 1, LONG)?;
            board.says("Limpet OS 1.0, slot a", 1, LONG)?;
            board.says("the data partition has", 1, LONG)?;
            board.power_cut();
            // After U-Boot looked for drives there, nothing hangs on QEMU's USB any more: the network is for a start without it.
            let (linux, initrd) = (slot.dir().join("linux"), slot.dir().join("initrd"));
            fs::write(&linux, card.read("/limpet/a/linux")?).map_err(|e| e.to_string())?;
            fs::write(&initrd, card.read("/limpet/a/initrd")?).map_err(|e| e.to_string())?;
            let options = String::from_utf8_lossy(&card.read("/limpet/a/options")?).trim().to_string();
            let line = format!("{} limpet.slot=a", options.strip_prefix("limpet_options=").ok_or("the options have no name")?);
            let words = ["-kernel".as_ref(), linux.as_os_str(), "-initrd".as_ref(), initrd.as_os_str()];
            let loaded = [&words[..], &["-append".as_ref(), line.as_ref()]].concat();
            board = Machine::raspberry_pi_3(&slot, &loaded, &tree, &card.path);
            board.switch_on()?;
            board.says("Limpet OS 1.0, slot a", 2, LONG)?;
            board.says("address 10.0.2.15", 1, LONG)
        };
        steps().map_err(|why| format!("{why}\n{}", board.last_words()))
    })();
    done.unwrap_or_else(|why| panic!("{why}"));
}

/// Ready, and Ready again after a power cut with what it keeps itself: the token is gone from its card.
fn to_ready(hub: &Hub, card: &Card, board: &mut Machine) -> Result<()> {
    let wish = Wish { node_name: "shed".into(), token: Some(hub.token(&["--node", "shed"])?), ..Wish::default() };
    inject::put_all(&card.path, &card.system()?, &[provision::limpet_os(&wish)?]).map_err(|e| e.to_string())?;
    let kubectl = Kubectl::new(&hub.kubeconfig())?;
    let ready = |since: &str| {
        until("the board is Ready", LONG, || {
            let node = kubectl.json("get node shed")?;
            let boot = node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_string();
            let os = &node["status"]["nodeInfo"]["osImage"];
            wait::yes(is_ready(&node) && boot != since && os == "Limpet OS 1.0", || format!("{}", node["status"]))?;
            Ok(boot)
        })
    };
    board.switch_on()?;
    let boot = ready("")?;
    until("the token is taken from the card", LONG, || {
        let file = card.read("/limpet/node.json")?;
        wait::yes(!String::from_utf8_lossy(&file).contains("token"), || "it is still there".to_string())
    })?;
    board.power_cut();
    board.switch_on()?;
    ready(&boot).map(drop)
}

#[test]
fn a_board_with_u_boot_becomes_a_node() {
    let agent = init().with_file_name("limpet-agent");
    let no_agent = !agent.is_file();
    let no_agent = no_agent.then(|| format!("limpet-agent is not built: cargo xtask dist --agent-only --target {TARGET}"));
    if let Some(why) = limpet_e2e::missing().or(no_agent) {
        println!("skipped: {why}");
        return;
    }
    if skipped() {
        return;
    }
    let done = (|| {
        let slot = Slot::take()?;
        let mut hub = Hub::new(&slot, Binaries::build("dev")?.hub, &net::bridge(&slot)?);
        hub.start()?;
        let card = Card::new(&slot, "qemu-arm64-u-boot", fs::read(agent).map_err(|e| e.to_string())?)?;
        let mut board = u_boot(&slot, &card)?;
        to_ready(&hub, &card, &mut board).map_err(|why| format!("{why}\n{}", board.last_words()))
    })();
    done.unwrap_or_else(|why| panic!("{why}"));
}
