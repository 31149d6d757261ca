//! A whole emulated board: QEMU with firmware, a card and a serial console.
//!
//! In: an architecture, an image file as its card. Out: a machine that is switched on and off like one with a plug.
//! Its network is QEMU's own: it reaches this machine's addresses, nothing reaches it. Never: KVM, which not every machine has.

use crate::process::{Daemon, tail, which};
use crate::{Result, Slot, until};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Without `mwait`, by which Linux would have idle processors wait: of more than one, QEMU lets each spin there. Four levels of
/// page tables and narrow vectors are quicker to emulate.
pub const AMD64: &str = "max,monitor=off,la57=off,avx=off,avx2=off";

/// (architecture, program, firmware, everything else)
const KINDS: [(&str, &str, &str, &[&str]); 2] = [
    (
        "arm64",
        "qemu-system-aarch64",
        "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
        &["-machine", "virt", "-cpu", "cortex-a72"],
    ),
    ("amd64", "qemu-system-x86_64", "/usr/share/ovmf/OVMF.fd", &["-machine", "q35", "-cpu", AMD64]),
];

pub struct Machine {
    words: Vec<OsString>,
    mark: (&'static str, String),
    pub console: PathBuf,
    log: PathBuf,
    process: Option<Daemon>,
}

/// None when machines of this architecture can run here; otherwise why not.
pub fn missing(architecture: &str) -> Option<String> {
    let kind = KINDS.iter().find(|(name, ..)| *name == architecture)?;
    if which(kind.1).is_none() || !Path::new(kind.2).is_file() {
        return Some(format!("needs {} and {}: run `cargo xtask setup`", kind.1, kind.2));
    }
    None
}

impl Machine {
    pub fn new(slot: &Slot, architecture: &str, card: &Path, memory_mib: u32) -> Result<Machine> {
        let kind = KINDS.iter().find(|(name, ..)| *name == architecture).ok_or_else(|| format!("no machine for {architecture}"))?;
        Machine::with_firmware(slot, architecture, Path::new(kind.2), card, memory_mib)
    }

    /// Another firmware than UEFI's.
    pub fn with_firmware(slot: &Slot, architecture: &str, firmware: &Path, card: &Path, memory_mib: u32) -> Result<Machine> {
        let loaded = ["-bios".as_ref(), firmware.as_os_str()];
        Machine::with_loaded(slot, architecture, &loaded, card, memory_mib)
    }

    /// Something in memory, by QEMU's words for it: a firmware, or a kernel without one.
    pub fn with_loaded(slot: &Slot, architecture: &str, loaded: &[&OsStr], card: &Path, memory_mib: u32) -> Result<Machine> {
        let kind = KINDS.iter().find(|(name, ..)| *name == architecture);
        let (_, program, _, more) = kind.ok_or_else(|| format!("no machine for {architecture}"))?;
        let console = slot.dir().join("console");
        let mut words: Vec<OsString> = vec![(*program).into()];
        words.extend(more.iter().map(OsString::from));
        words.extend(loaded.iter().map(OsString::from));
        let mut add = |all: &[&str]| words.extend(all.iter().map(OsString::from));
        add(&["-m", &memory_mib.to_string(), "-smp", "2", "-accel", "tcg,thread=multi", "-nodefaults", "-display", "none"]);
        add(&["-drive", &format!("if=none,id=card,format=raw,file={}", card.display()), "-device", "virtio-blk-pci,drive=card"]);
        add(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        add(&["-device", "virtio-rng-pci", "-chardev", &format!("file,id=console,append=on,path={}", console.display())]);
        add(&["-serial", "chardev:console"]);
        Ok(Machine { words, mark: slot.mark(), console, log: slot.dir().join("qemu.log"), process: None })
    }

    /// A Raspberry Pi 3 after its firmware's work: something in memory, by QEMU's words for it, and the device tree beside it.
    pub fn raspberry_pi_3(slot: &Slot, loaded: &[&OsStr], tree: &Path, card: &Path) -> Machine {
        let console = slot.dir().join("console");
        let mut words: Vec<OsString> = vec!["qemu-system-aarch64".into()];
        words.extend(loaded.iter().map(OsString::from));
        let mut add = |all: &[&str]| words.extend(all.iter().map(OsString::from));
        add(&["-machine", "raspi3b", "-display", "none"]);
        add(&["-dtb", &tree.display().to_string(), "-drive", &format!("if=sd,format=raw,file={}", card.display())]);
        add(&["-netdev", "user,id=net", "-device", "usb-net,netdev=net"]);
        add(&["-chardev", &format!("file,id=console,append=on,path={}", console.display())]);
        // The second serial line is the one on the pins.
        add(&["-serial", "null", "-serial", "chardev:console"]);
        Machine { words, mark: slot.mark(), console, log: slot.dir().join("qemu.log"), process: None }
    }

    pub fn switch_on(&mut self) -> Result<()> {
        let words: Vec<&OsStr> = self.words.iter().map(OsString::as_os_str).collect();
        let mark = (self.mark.0, self.mark.1.as_str());
        self.process = Some(Daemon::start(&words, &[mark], &self.log)?);
        Ok(())
    }

    /// The plug: no goodbye to anything.
    pub fn power_cut(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// An error once it has ended by itself; a machine that is off is as it should be.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Daemon::check)
    }

    /// How often the console has said it.
    pub fn said(&self, words: &str) -> usize {
        let text = std::fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&text).matches(words).count()
    }

    /// Waits until the console has said it so often.
    pub fn says(&mut self, words: &str, times: usize, limit: Duration) -> Result<()> {
        until(&format!("the console: {words:?}"), limit, || {
            // Once it has ended, waiting is pointless: that is an answer, too.
            if let Err(why) = self.check() {
                return Ok(Err(why));
            }
            let text = std::fs::read(&self.console).unwrap_or_default();
            let count = String::from_utf8_lossy(&text).matches(words).count();
            let told = || format!("said {count} times; the last words:\n{}", tail(&self.console, 3000));
            crate::wait::yes(count >= times, told).map(Ok)
        })?
    }

    pub fn last_words(&self) -> String {
        format!("--- console\n{}\n--- qemu\n{}", tail(&self.console, 6000), tail(&self.log, 1000))
    }
}
