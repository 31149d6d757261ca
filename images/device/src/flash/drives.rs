//! What block devices there are, from the kernel's own files.
//!
//! In: a /sys and a /proc (a test's or the real ones). Out: facts about every drive, in the order of their names.
//! Never: opens a drive; judges (guard.rs does).

use crate::limits::SYS_FILE_BYTES_MAX;
use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Usb,
    /// A card in a slot of its own.
    Sd,
    /// Soldered flash memory.
    Emmc,
    Loop,
    Other,
}

/// What is known of one whole drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// As in /dev.
    pub name: String,
    pub bytes: u64,
    pub bus: Bus,
    pub removable: bool,
    pub read_only: bool,
    /// Vendor and model as the drive says them.
    pub model: String,
    pub serial: String,
    /// `major:minor`.
    pub number: String,
    /// Grows each time the kernel sees another medium; `None` on old kernels.
    pub sequence: Option<u64>,
    /// Where it or a part of it is mounted.
    pub mounted: Vec<String>,
    /// Why something else of the kernel sits on it: swap, dm-…, md…
    pub held: Vec<String>,
    /// The running system stands on it.
    pub system: bool,
}

impl Drive {
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let model = if self.model.is_empty() { "no name" } else { &self.model };
        format!("/dev/{}  {}  {model}", self.name, size(self.bytes))
    }
}

/// In the units that are printed on cards.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1_000_000_000 => format!("{:.1} GB", b as f64 / 1e9),
        b => format!("{:.1} MB", b as f64 / 1e6),
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub sys: PathBuf,
    pub proc: PathBuf,
}

impl Default for Inventory {
    fn default() -> Inventory {
        Inventory { sys: "/sys".into(), proc: "/proc".into() }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(SYS_FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars().filter(|c| !c.is_control()).collect()
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).map(|d| d.flatten().filter_map(|e| e.file_name().into_string().ok()).collect());
    let mut names: Vec<String> = entries.unwrap_or_default();
    names.sort();
    names
}

struct Mount {
    /// major:minor; not a drive's for file systems that span drives, such as btrfs.
    number: String,
    place: String,
    /// Name in /dev, where the source is one.
    source: String,
}

/// Mounts and swap, once for all drives.
struct Uses {
    mounts: Vec<Mount>,
    swaps: BTreeSet<String>,
}

const SYSTEM_MOUNTS: [&str; 7] = ["/", "/boot", "/boot/firmware", "/boot/efi", "/usr", "/var", "/home"];

pub fn scan(at: &Inventory) -> Vec<Drive> {
    let uses = Uses::read(at);
    names(at.sys.join("block")).iter().filter_map(|name| drive(at, name, &uses)).collect()
}

impl Uses {
    fn read(at: &Inventory) -> Uses {
        let file = |name: &str| {
            let mut text = String::new();
            if let Ok(file) = fs::File::open(at.proc.join(name)) {
                let _ = file.take(16 * SYS_FILE_BYTES_MAX).read_to_string(&mut text);
            }
            text
        };
        let (mounts, swaps) = (file("self/mountinfo"), file("swaps"));
        let mounts = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (number, place) = (words.nth(2)?.to_string(), words.nth(1)?.replace("\\040", " "));
            let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1)?.strip_prefix("/dev/"));
            Some(Mount { number, place, source: source.unwrap_or_default().into() })
        });
        let swaps = swaps.lines().skip(1).filter_map(|l| Some(l.split_whitespace().next()?.strip_prefix("/dev/")?.to_string()));
        Uses { mounts: mounts.collect(), swaps: swaps.collect() }
    }
}

impl Uses {
    fn places(&self, name: &str, number: &str) -> Vec<String> {
        let here = |m: &&Mount| (m.number == number && !number.is_empty()) || m.source == name;
        self.mounts.iter().filter(here).map(|m| m.place.clone()).collect()
    }
}

fn drive(at: &Inventory, name: &str, uses: &Uses) -> Option<Drive> {
    let dir = at.sys.join("block").join(name);
    // Partitions of eMMC that are not for people, and devices without a medium of their own.
    let virtual_names = ["ram", "zram", "dm-", "md", "nbd", "sr", "fd", "mtdblock", "drbd", "rbd"];
    let hardware_part = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    if hardware_part || virtual_names.iter().any(|v| name.starts_with(v)) {
        return None;
    }
    let number = read(dir.join("dev"));
    let parts: Vec<PathBuf> = names(dir.clone()).iter().map(|n| dir.join(n)).filter(|p| p.join("partition").is_file()).collect();
    let mut held: Vec<String> = Vec::new();
    let mut mounted: Vec<String> = Vec::new();
    for part in std::iter::once(&dir).chain(&parts) {
        let part_name = part.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        let part_number = read(part.join("dev"));
        mounted.extend(uses.places(&part_name, &part_number));
        held.extend(names(part.join("holders")));
        if uses.swaps.contains(&part_name) {
            held.push(format!("swap on {part_name}"));
        }
        // A mounted file system or swap on what stands upon the drive: LVM, encryption, RAID.
        for above in holders_of(at, part) {
            let above_number = read(at.sys.join("block").join(&above).join("dev"));
            mounted.extend(uses.places(&above, &above_number));
        }
    }
    let bus = bus(&dir, name);
    let model = format!("{} {}", read(dir.join("device/vendor")), model_name(&dir));
    let system = mounted.iter().any(|m| SYSTEM_MOUNTS.contains(&m.as_str()));
    Some(Drive {
        name: name.into(),
        bytes: read(dir.join("size")).parse::<u64>().unwrap_or(0).saturating_mul(512),
        bus,
        removable: read(dir.join("removable")) == "1" || bus == Bus::Sd,
        read_only: read(dir.join("ro")) == "1",
        model: model.split_whitespace().collect::<Vec<_>>().join(" "),
        serial: first_of(&dir, &["device/serial", "device/cid", "device/wwid", "wwid"]),
        number,
        sequence: read(dir.join("diskseq")).parse().ok(),
        mounted,
        held,
        system,
    })
}

fn first_of(dir: &Path, files: &[&str]) -> String {
    files.iter().map(|f| read(dir.join(f))).find(|t| !t.is_empty()).unwrap_or_default()
}

fn model_name(dir: &Path) -> String {
    first_of(dir, &["device/model", "device/name"])
}

/// Everything above a partition, through layers.
fn holders_of(at: &Inventory, part: &Path) -> Vec<String> {
    let mut found: Vec<String> = names(part.join("holders"));
    let mut next = 0;
    while next < found.len() && found.len() < 64 {
        let more = names(at.sys.join("block").join(&found[next]).join("holders"));
        found.extend(more);
        next += 1;
    }
    found
}

fn bus(dir: &Path, name: &str) -> Bus {
    if name.starts_with("loop") {
        return Bus::Loop;
    }
    if name.starts_with("mmcblk") {
        return if read(dir.join("device/type")) == "SD" { Bus::Sd } else { Bus::Emmc };
    }
    // The link of the device tells its way through the machine.
    let way = fs::canonicalize(dir).unwrap_or_else(|_| dir.into());
    match way.components().any(|c| c.as_os_str().to_str().is_some_and(|c| c.starts_with("usb"))) {
        true => Bus::Usb,
        false => Bus::Other,
    }
}
