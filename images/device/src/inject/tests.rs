//! An image as people publish them, made here: a partition table, FAT with cmdline.txt, ext4 with a system's folders.
//!
//! In: mke2fs and debugfs of e2fsprogs. Out: files that are really there, and a file system that e2fsck likes.

#![allow(clippy::unwrap_used)]

mod layouts;

use super::*;
use crate::provision::{What, Wish, recipe};
use crate::table;
use std::{fs, io::Write, path::PathBuf, process::Command};

const MIB: u64 = 1 << 20;

fn tool(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).output().is_ok_and(|o| o.status.success())
}

/// `root_mib`: size of the root file system; `folders`: what is in it.
fn card(dir: &Path, root_mib: u64, folders: &[&str]) -> Option<PathBuf> {
    let tree = dir.join("tree");
    for folder in folders {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::create_dir_all(&tree).unwrap();
    let path = dir.join("card.img");
    fs::File::create(&path).unwrap().set_len((34 + root_mib) * MIB).unwrap();
    let (boot, root) = (MIB / 512, 33 * MIB / 512);
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut table = [0u8; 512];
    for (i, (kind, start, sectors)) in [(0x0c, boot, 32 * MIB / 512), (0x83u8, root, root_mib * MIB / 512)].iter().enumerate() {
        let at = 446 + i * 16;
        table[at + 4] = *kind;
        table[at + 8..at + 12].copy_from_slice(&(*start as u32).to_le_bytes());
        table[at + 12..at + 16].copy_from_slice(&(*sectors as u32).to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all(&table).unwrap();
    let area = Area { number: 1, start: MIB, bytes: 32 * MIB, name: String::new(), is_efi: false };
    let mut window = fat::Window::open(&path, &area, true).unwrap();
    fatfs::format_volume(&mut window, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(window, fatfs::FsOptions::new()).unwrap();
    let text = b"console=serial0,115200 root=PARTUUID=1-02 cgroup_enable=cpuset quiet\nsecond line";
    volume.root_dir().create_file("cmdline.txt").unwrap().write_all(text).unwrap();
    volume.unmount().unwrap();
    let (path_text, offset) = (path.to_str().unwrap(), format!("offset={}", 33 * MIB));
    let blocks = format!("{}k", root_mib * 1024);
    let made = tool(&["mke2fs", "-q", "-F", "-t", "ext4", "-E", &offset, "-d", tree.to_str().unwrap(), path_text, &blocks]);
    if !made {
        eprintln!("skipped: mke2fs (e2fsprogs) cannot make the image");
    }
    made.then_some(path)
}

/// Root, boot and traits of a system that is not ours.
fn other(path: &Path) -> (System, Area, Option<Area>, Traits) {
    let system = find(path, &areas(path)).unwrap();
    match &system {
        System::Other { root, boot, traits } => (system.clone(), root.clone(), boot.clone(), *traits),
        System::Limpet { .. } => panic!("{system:?}"),
    }
}

fn areas(path: &Path) -> Vec<Area> {
    let head = fs::read(path).unwrap();
    table::read(&head[..1 << 20], head.len() as u64).unwrap()
}

fn fsck(path: &Path, area: &Area) {
    let part = path.with_extension("ext4");
    let all = fs::read(path).unwrap();
    fs::write(&part, &all[area.start as usize..(area.start + area.bytes) as usize]).unwrap();
    let out = Command::new("e2fsck").args(["-f", "-n"]).arg(&part).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_published_image_becomes_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["etc/NetworkManager/system-connections", "etc/systemd/system", "usr/local/bin", "root"];
    let Some(path) = card(dir.path(), 48, &folders) else { return };
    let areas = areas(&path);
    let (system, root, boot, traits) = other(&path);
    assert_eq!((root.number, boot.map(|b| b.number)), (2, Some(1)));
    assert_eq!(traits, Traits { network: Network::NetworkManager, raspberry_pi: true, cloud_init: false, modem_manager: false });
    let agent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7) as u8).collect();
    let key = "ssh-ed25519 AAAAC3Nz me".to_string();
    let wish = Wish { node_name: "pi".into(), ssh_keys: vec![key], time_zone: Some("Etc/UTC".into()), ..Wish::default() };
    let files = recipe(&traits, &wish, agent, &["cgroup_enable=memory".into()], Some("ACT"));
    put_all(&path, &system, &files).unwrap();
    // Again: nothing changes, nothing fails.
    put_all(&path, &system, &files).unwrap();
    fsck(&path, &root);
    let line = String::from_utf8(fat::read(&path, &areas[0], "/cmdline.txt").unwrap()).unwrap();
    assert_eq!(line, "console=serial0,115200 root=PARTUUID=1-02 quiet cgroup_enable=memory\n");
    let there: Vec<&str> = files.iter().filter(|f| f.place == Place::Root).map(|f| f.path.as_str()).collect();
    assert!(ext4::paths(&path, &root, &there).unwrap().iter().all(|found| *found));
    let said = ext4::paths(&path, &root, &["/root/.ssh/authorized_keys", "/nowhere"]).unwrap();
    assert_eq!(said, [true, false]);
}

/// As people type them.
#[test]
fn relative_paths_lead_to_the_same_card() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = card(dir.path(), 32, &["etc"]) else { return };
    let up = "../".repeat(std::env::current_dir().unwrap().components().count() - 1);
    let relative = PathBuf::from(up + path.to_str().unwrap().trim_start_matches('/'));
    assert!(relative.is_relative());
    let (system, root, ..) = other(&relative);
    put_all(&relative, &system, &[Put::root("/etc/limpet/agent.env", 0o600, "LIMPET_JOIN=x")]).unwrap();
    assert_eq!(ext4::paths(&path, &root, &["/etc/limpet/agent.env"]).unwrap(), [true]);
}

#[test]
fn modes_and_owners_are_what_the_recipe_says() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = card(dir.path(), 32, &["etc"]) else { return };
    let (system, root, _, traits) = other(&path);
    assert_eq!(traits.network, Network::Ifupdown);
    let put = |path: &str, mode| Put { place: Place::Root, path: path.into(), mode, what: What::File(b"x".to_vec()) };
    put_all(&path, &system, &[put("/etc/limpet/agent.env", 0o600), put("/usr/local/bin/a", 0o755)]).unwrap();
    let image = format!("{}?offset={}", path.display(), root.start);
    for (file, mode) in [("/etc/limpet/agent.env", "0600"), ("/usr/local/bin/a", "0755")] {
        let out = Command::new("debugfs").args(["-R", &format!("stat {file}"), &image]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains(&format!("Mode:  {mode}")) && said.contains("User:     0   Group:     0"), "{said}");
    }
}

#[test]
fn images_that_cannot_be_prepared_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = card(dir.path(), 16, &["data"]) else { return };
    assert!(matches!(find(&path, &areas(&path)), Err(InjectError::NoRoot)));
    let dir = tempfile::tempdir().unwrap();
    let path = card(dir.path(), 16, &["etc"]).unwrap();
    let (system, root, ..) = other(&path);
    let put = |path: &str, bytes| Put::root(path, 0o644, vec![0; bytes]);
    assert!(matches!(put_all(&path, &system, &[put("/a", 15_000_000)]), Err(InjectError::NoRoom(..))));
    for bad in ["etc/x", "/etc/../x", "/etc/a b", "/etc/x\nrm /etc/passwd", "/etc/\"x\""] {
        assert!(matches!(put_all(&path, &system, &[put(bad, 1)]), Err(InjectError::Path(_))), "{bad}");
    }
    fsck(&path, &root);
}

/// An image for another machine would be a card that never starts: told, and not finished.
#[test]
fn a_system_for_another_machine_is_told() {
    let elf = |machine: u16| {
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(18, 0);
        program.extend(machine.to_le_bytes());
        program.resize(5000, 7);
        program
    };
    let board = |name: &str| crate::board::find(name).unwrap();
    for (program, place, machine, arm, arm64) in [
        ("bash", "usr/bin", 183, false, true),
        ("bash", "bin", 40, true, false),
        ("busybox", "bin", 62, false, false),
        // Nothing that can be known is no reason to refuse.
        ("unknown", "bin", 62, true, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree").join(place)).unwrap();
        fs::write(dir.path().join("tree").join(place).join(program), elf(machine)).unwrap();
        let Some(path) = card(dir.path(), 16, &["etc"]) else { return };
        let (system, ..) = other(&path);
        for (name, fits_it) in [("raspberry-pi-zero-w", arm), ("raspberry-pi-4", arm64)] {
            let said = fits(&path, &system, &board(name));
            assert_eq!(said.is_ok(), fits_it, "{program} of {machine}: {said:?}");
            let said = said.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(fits_it || (said.contains(name) && said.contains("take the system's edition for")), "{said}");
        }
    }
}

#[test]
fn limpet_os_of_another_board_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = card(dir.path(), 16, &[]) else { return };
    let area = areas(&path)[0].clone();
    let mark = |name: &[u8]| Put { place: Place::Boot, path: LIMPET_MARK.into(), mode: 0o644, what: What::File(name.to_vec()) };
    fat::put(&path, &area, &[mark(b"qemu-arm64")]).unwrap();
    let system = find(&path, &areas(&path)).unwrap();
    let board = |name: &str| crate::board::find(name).unwrap();
    fits(&path, &system, &board("qemu-arm64")).unwrap();
    let said = fits(&path, &system, &board("raspberry-pi-4")).unwrap_err().to_string();
    assert!(said.contains("for the board qemu-arm64") && said.contains("--board raspberry-pi-4"), "{said}");
}

/// A copy of a running system's card: the journal's next replay would undo what is put there.
#[test]
fn a_file_system_with_a_journal_to_replay_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = card(dir.path(), 16, &["etc"]) else { return };
    let (system, root, ..) = other(&path);
    let board = crate::board::find("raspberry-pi-4").unwrap();
    fits(&path, &system, &board).unwrap();
    let image = format!("{}?offset={}", path.display(), root.start);
    assert!(tool(&["debugfs", "-w", "-R", "feature needs_recovery", &image]));
    let said = fits(&path, &system, &board).unwrap_err();
    assert!(matches!(said, InjectError::Journal), "{said}");
}

#[test]
fn words_stand_on_the_line_once() {
    let words = ["a=1".to_string(), "b".to_string()];
    for (before, after) in [
        ("x y\n", "x y a=1 b\n"),
        ("x a=2 b", "x b a=1\n"),
        ("a=1 b x", "a=1 b x\n"),
        ("\n\nx\n", "x a=1 b\n"),
        ("", "a=1 b\n"),
        ("console=a console=b", "console=a console=b a=1 b\n"),
    ] {
        assert_eq!(fat::add_words(before, &words), after);
    }
}
