//! Fifty machines as trees of /sys and /proc: which drives are offered, and the reason where one is not.
//!
//! In: one line a drive. Out: files as the kernel lays them out. Never: a look at this machine's own drives.

use crate::flash::{Inventory, Refusal, allow, guard::offered, scan, still_the_same};
use std::{fs, os::unix::fs::symlink, path::Path};

/// `name bus=usb|ata|nvme|mmc:SD|mmc:MMC|loop bytes=N [removable] [ro] [part=N] [mount=PART:PLACE] [swap=PART]
/// [holder=PART:NAME] [model=X] [serial=X] [seq=N] [btrfs=PART:PLACE]`
fn machine(dir: &Path, lines: &str) -> Inventory {
    let _ = fs::remove_dir_all(dir);
    let (sys, proc) = (dir.join("sys"), dir.join("proc"));
    fs::create_dir_all(sys.join("block")).unwrap();
    fs::create_dir_all(proc.join("self")).unwrap();
    let mut mounts = String::from("22 1 0:21 / /proc rw - proc proc rw\n");
    let mut swaps = String::from("Filename\tType\tSize\tUsed\tPriority\n");
    for (minor, line) in lines.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let values = |key: &str| -> Vec<String> {
            words.iter().filter_map(|w| w.strip_prefix(key)?.strip_prefix('=')).map(str::to_string).collect()
        };
        let way = match value("bus").unwrap_or("ata") {
            "usb" => "devices/pci0000:00/usb1/1-2/host3/block",
            "loop" => "devices/virtual/block",
            bus if bus.starts_with("mmc") => "devices/platform/mmc0/block",
            _ => "devices/pci0000:00/ata1/host0/block",
        };
        let real = sys.join(way).join(name);
        fs::create_dir_all(real.join("device")).unwrap();
        fs::create_dir_all(real.join("holders")).unwrap();
        symlink(&real, sys.join("block").join(name)).unwrap();
        let put = |file: &str, text: String| fs::write(real.join(file), text).unwrap();
        put("dev", format!("8:{}\n", minor * 16));
        put("size", format!("{}\n", value("bytes").map_or(32_000_000_000, |b| b.parse::<u64>().unwrap()) / 512));
        put("removable", if words.contains(&"removable") { "1\n".into() } else { "0\n".into() });
        put("ro", if words.contains(&"ro") { "1\n".into() } else { "0\n".into() });
        put("device/model", format!("{}  \n", value("model").unwrap_or("Card Reader")));
        put("device/serial", format!("{}\n", value("serial").unwrap_or("s1")));
        if let Some(kind) = value("bus").and_then(|b| b.strip_prefix("mmc:")) {
            put("device/type", format!("{kind}\n"));
        }
        if let Some(seq) = value("seq") {
            put("diskseq", format!("{seq}\n"));
        }
        let part_name = |n: &str| match name.ends_with(|c: char| c.is_ascii_digit()) {
            _ if n == "0" => name.to_string(),
            true => format!("{name}p{n}"),
            false => format!("{name}{n}"),
        };
        let part_number = |n: &str| format!("8:{}", minor * 16 + n.parse::<usize>().unwrap());
        for n in values("part") {
            let at = real.join(part_name(&n));
            fs::create_dir_all(at.join("holders")).unwrap();
            fs::write(at.join("partition"), &n).unwrap();
            fs::write(at.join("dev"), part_number(&n)).unwrap();
        }
        for m in values("mount") {
            let (n, place) = m.split_once(':').unwrap();
            mounts.push_str(&format!("30 1 {} / {place} rw shared:1 - ext4 /dev/{} rw\n", part_number(n), part_name(n)));
        }
        for m in values("btrfs") {
            let (n, place) = m.split_once(':').unwrap();
            mounts.push_str(&format!("31 1 0:40 /@ {place} rw - btrfs /dev/{} rw\n", part_name(n)));
        }
        for n in values("swap") {
            swaps.push_str(&format!("/dev/{} partition 100 0 -2\n", part_name(&n)));
        }
        for h in values("holder") {
            let (n, above) = h.split_once(':').unwrap();
            let at = if n == "0" { real.clone() } else { real.join(part_name(n)) };
            fs::create_dir_all(at.join("holders").join(above)).unwrap();
        }
    }
    fs::write(proc.join("self/mountinfo"), mounts).unwrap();
    fs::write(proc.join("swaps"), swaps).unwrap();
    Inventory { sys, proc }
}

const DISK: &str = "sda bus=ata bytes=500000000000 part=1 part=2 mount=1:/ swap=2";

/// (what it is, drives besides or instead of the system's, offered names)
const MACHINES: &[(&str, &str, &[&str])] = &[
    ("a card in a USB reader", "sdb bus=usb removable", &["sdb"]),
    ("a card with old partitions", "sdb bus=usb removable part=1 part=2", &["sdb"]),
    ("a card in a slot of its own", "mmcblk0 bus=mmc:SD part=1", &["mmcblk0"]),
    ("two readers", "sdb bus=usb removable\nsdc bus=usb removable", &["sdb", "sdc"]),
    ("a reader with four slots, one full", "sdb bus=usb removable bytes=0\nsdc bus=usb removable\nsdd bus=usb removable bytes=0\nsde bus=usb removable bytes=0", &["sdc"]),
    ("no card", "", &[]),
    ("an empty slot", "sdb bus=usb removable bytes=0", &[]),
    ("a second built-in disk", "sdb bus=ata bytes=2000000000000", &[]),
    ("a disk in a hot-plug bay", "sdb bus=ata bytes=2000000000000 part=1 mount=1:/data", &[]),
    ("an external USB disk that is not removable", "sdb bus=usb bytes=1000000000000", &[]),
    ("a USB backup disk that says removable", "sdb bus=usb removable bytes=4000000000000", &[]),
    ("an NVMe disk", "nvme0n1 bus=nvme bytes=1000000000000 part=1", &[]),
    ("an NVMe disk with the system", "nvme0n1 bus=nvme bytes=1000000000000 part=1 mount=1:/usr", &[]),
    ("an eMMC", "mmcblk0 bus=mmc:MMC part=1", &[]),
    ("an eMMC that says removable", "mmcblk0 bus=mmc:MMC removable", &[]),
    ("an eMMC's boot areas", "mmcblk0boot0 bus=mmc:SD bytes=4194304\nmmcblk0boot1 bus=mmc:SD bytes=4194304\nmmcblk0rpmb bus=mmc:SD", &[]),
    ("eMMC and card", "mmcblk0 bus=mmc:MMC part=1\nmmcblk1 bus=mmc:SD", &["mmcblk1"]),
    ("a locked card", "sdb bus=usb removable ro", &[]),
    ("a locked card in a slot", "mmcblk0 bus=mmc:SD ro", &[]),
    ("a mounted card", "sdb bus=usb removable part=1 mount=1:/media/me/boot", &[]),
    ("a card whose second partition is mounted", "sdb bus=usb removable part=1 part=2 mount=2:/media/me/rootfs", &[]),
    ("a card mounted as a whole", "sdb bus=usb removable mount=0:/mnt", &[]),
    ("a card mounted at a place with a blank", "sdb bus=usb removable part=1 mount=1:/media/my\\040card", &[]),
    ("a card that is swap", "sdb bus=usb removable part=1 swap=1", &[]),
    ("a card that is swap as a whole", "sdb bus=usb removable swap=0", &[]),
    ("a card under LVM", "sdb bus=usb removable part=1 holder=1:dm-0", &[]),
    ("a card under encryption as a whole", "sdb bus=usb removable holder=0:dm-0", &[]),
    ("a card in a RAID", "sdb bus=usb removable part=1 holder=1:md127", &[]),
    ("btrfs on a card, mounted under a number of its own", "sdb bus=usb removable part=1 btrfs=1:/mnt", &[]),
    ("btrfs of the system on a stick", "sdb bus=usb removable part=2 btrfs=2:/", &[]),
    ("the system itself on a USB stick", "sdb bus=usb removable part=1 part=2 mount=2:/usr", &[]),
    ("a stick with /boot", "sdb bus=usb removable part=1 mount=1:/boot", &[]),
    ("a stick with /home", "sdb bus=usb removable part=1 mount=1:/home", &[]),
    ("a card of 32 MB", "sdb bus=usb removable bytes=32000000", &[]),
    ("a card of one sector", "sdb bus=usb removable bytes=512", &[]),
    ("a card of 64 MiB", "sdb bus=usb removable bytes=67108864", &["sdb"]),
    ("a card of 2 TB", "sdb bus=usb removable bytes=2000000000000", &["sdb"]),
    ("an absurd size", "sdb bus=usb removable bytes=9223372036854775296", &[]),
    ("a loop device", "loop0 bus=loop bytes=1000000000", &[]),
    ("a loop device that says removable", "loop0 bus=loop bytes=1000000000 removable", &[]),
    ("a DVD drive", "sr0 bus=usb removable", &[]),
    ("a floppy", "fd0 bus=ata removable bytes=1474560", &[]),
    ("zram and ram", "zram0 bytes=4000000000 removable\nram0 removable", &[]),
    ("device mapper and RAID themselves", "dm-0 removable\nmd0 removable", &[]),
    ("a network block device", "nbd0 removable", &[]),
    ("a SATA disk that says removable and holds nothing", "sdb bus=ata removable bytes=64000000000", &["sdb"]),
    ("more than 26 drives", "sdaa bus=usb removable\nsdab bus=usb removable part=1 mount=1:/mnt", &["sdaa"]),
    ("a mounted card beside a free one", "sdb bus=usb removable part=1 mount=1:/mnt\nsdc bus=usb removable", &["sdc"]),
    ("a name with control characters", "sdb bus=usb removable model=Bad\u{1b}[2JName", &["sdb"]),
    ("a drive called sdb and a partition number like sdb1's of another", "sdb bus=usb removable part=1\nsdc bus=usb removable part=1 mount=1:/mnt", &["sdb"]),
    ("a card that carries the journal of another file system", "mmcblk0 bus=mmc:SD part=1 holder=1:loop0", &[]),
];

#[test]
fn no_wrong_drive_is_ever_offered() {
    assert!(MACHINES.len() >= 50, "{}", MACHINES.len());
    let dir = tempfile::tempdir().unwrap();
    for (what, drives, wanted) in MACHINES {
        let at = machine(dir.path(), &format!("{DISK}\n{drives}"));
        let found = scan(&at);
        let names: Vec<String> = offered(&found).into_iter().map(|d| d.name).collect();
        assert_eq!(&names, wanted, "{what}: {found:#?}");
        assert_eq!(allow(&found, "sda", None), Err(Refusal::System("sda".into())), "{what}");
        for drive in &found {
            assert!(!drive.model.chars().any(char::is_control), "{what}");
            let want = wanted.contains(&drive.name.as_str()) || drive.bus == crate::flash::Bus::Loop;
            assert_eq!(allow(&found, &drive.name, None).is_ok(), want, "{what}: {}", drive.name);
        }
    }
}

#[test]
fn a_system_through_layers_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    // sdb1 -> dm-0 (encryption) -> dm-1 (LVM), mounted as root by dm-1's number.
    let at = machine(dir.path(), "sdb bus=usb removable part=1 holder=1:dm-0\ndm-0 holder=0:dm-1\ndm-1 mount=0:/");
    let found = scan(&at);
    assert_eq!(found.len(), 1);
    assert!(found[0].system, "{found:#?}");
}

#[test]
fn every_refusal_says_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let at = machine(
        dir.path(),
        &format!("{DISK}\nsdb bus=usb removable part=1 mount=1:/media/card\nsdc bus=usb removable bytes=0\nmmcblk0 bus=mmc:SD ro part=1\nsdd bus=usb removable"),
    );
    let found = scan(&at);
    for (name, needs, says) in [
        ("sda", None, "carries the running system"),
        ("sda1", None, "name the whole drive, /dev/sda"),
        ("mmcblk0p1", None, "name the whole drive, /dev/mmcblk0"),
        ("sdb", None, "umount /media/card"),
        ("sdc", None, "put a card in"),
        ("mmcblk0", None, "switch"),
        ("sdx", None, "limpet flash --drives"),
        ("../sda", None, "not a drive"),
        ("sdd", Some(64_000_000_000), "take a larger card"),
    ] {
        let said = allow(&found, name, needs).unwrap_err().to_string();
        assert!(said.contains(says), "{name}: {said}");
    }
}

#[test]
fn a_drive_that_was_swapped_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let first = scan(&machine(dir.path(), "sdb bus=usb removable seq=5"));
    let confirmed = allow(&first, "sdb", None).unwrap();
    assert_eq!(still_the_same(&confirmed, &first, None), Ok(()));
    for other in ["seq=6", "seq=5 serial=s2", "seq=5 model=Other", "seq=5 bytes=16000000000"] {
        let now = scan(&machine(dir.path(), &format!("sdb bus=usb removable {other}")));
        assert_eq!(still_the_same(&confirmed, &now, None), Err(Refusal::Changed("sdb".into())), "{other}");
    }
    let gone = scan(&machine(dir.path(), DISK));
    assert!(matches!(still_the_same(&confirmed, &gone, None), Err(Refusal::Unknown(_))));
    let mounted = scan(&machine(dir.path(), "sdb bus=usb removable seq=5 part=1 mount=1:/mnt"));
    assert!(matches!(still_the_same(&confirmed, &mounted, None), Err(Refusal::Mounted { .. })));
}
