//! The parts of an image that need no packages.

#![allow(clippy::unwrap_used)]

mod boards;

use super::{cpio, fat32, gpt, modules};
use crate::{board, plan, table};
use std::{collections::BTreeMap, io::Read, os::unix::fs::FileExt, process::Command};

#[test]
fn the_gpt_is_read_back_and_liked_by_others() {
    let plan = plan::limpet_os(&board::find("qemu-arm64").unwrap());
    let (first, last) = gpt::tables(&plan.partitions, plan.image_bytes(), "seed");
    assert_eq!((first.len(), last.len()), (34 * 512, 33 * 512));
    let areas = table::read(&first, plan.image_bytes()).unwrap();
    let got: Vec<_> = areas.iter().map(|a| (a.name.as_str(), a.start, a.bytes, a.is_efi)).collect();
    let want: Vec<_> = plan.partitions.iter().map(|p| (p.name, p.start, p.bytes, p.name == "limpet-system")).collect();
    assert_eq!(got, want);
    assert_eq!(gpt::tables(&plan.partitions, plan.image_bytes(), "seed"), (first.clone(), last.clone()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    let mut image = vec![0; plan.image_bytes() as usize];
    image[..first.len()].copy_from_slice(&first);
    let at = image.len() - last.len();
    image[at..].copy_from_slice(&last);
    std::fs::write(&path, image).unwrap();
    match Command::new("/usr/sbin/sfdisk").arg("--verify").arg(&path).output() {
        Ok(out) => assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr)),
        Err(_) => eprintln!("skipped in part: no sfdisk"),
    }
}

#[test]
fn drivers_come_after_what_they_need() {
    let module = |needs: &str| format!("\0license=GPL\0depends={needs}\0softdep=pre: soft post: late\0").into_bytes();
    let all: BTreeMap<String, Vec<u8>> = [
        ("k/fs/ext4/ext4.ko", module("jbd2,mbcache")),
        ("k/fs/jbd2/jbd2.ko", module("crc16")),
        ("k/lib/crc16.ko", b"\0depends=\0".to_vec()),
        ("k/mbcache.ko", b"\0".to_vec()),
        ("k/soft.ko", module("ext4")), // a circle
        ("k/virtio-x.ko", module("")),
    ]
    .into_iter()
    .map(|(p, c)| (p.to_string(), c))
    .collect();
    let order = modules::in_order(&all, ["ext4", "virtio_x", "built_in"]);
    let place = |name: &str| order.iter().position(|p| p.contains(name)).unwrap();
    assert_eq!(order.len(), 6);
    assert!(place("crc16") < place("jbd2") && place("jbd2") < place("ext4.ko") && place("mbcache") < place("ext4.ko"));
    assert!(place("virtio-x") > 0);
}

#[test]
fn the_archive_is_what_cpio_reads() {
    let mut tree = cpio::Tree::default();
    tree.put("bin/x", cpio::Node::File(0o755, b"hello".to_vec()));
    tree.put("dev/console", cpio::Node::Device(0o600, 5, 1));
    let bytes = tree.archive();
    assert_eq!(bytes, tree.archive());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a");
    std::fs::write(&file, &bytes).unwrap();
    let out = Command::new("busybox").args(["cpio", "-t", "-F"]).arg(&file).output();
    match out {
        Ok(out) if out.status.success() => {
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert_eq!(said.lines().collect::<Vec<_>>(), ["bin", "bin/x", "dev", "dev/console"]);
        }
        _ => eprintln!("skipped in part: no busybox cpio"),
    }
}

#[test]
fn the_fat_volume_is_liked_by_fsck_and_read_back_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(256 << 20).unwrap();
    let large: Vec<u8> = (0..3_000_001u32).map(|i| (i >> 5) as u8).collect();
    let files: [(&str, &[u8]); 6] = [
        ("EFI/BOOT/BOOTAA64.EFI", b"loader"),
        ("loader/loader.conf", b"timeout 0"),
        ("loader/entries/limpet-a.conf", b"title"),
        ("loader/entries/limpet-a-name-that-is-long-enough-for-three.conf", b"x"),
        ("limpet/a/linux", &large),
        ("limpet/empty", b""),
    ];
    let pieces = fat32::volume(256 << 20, 7, b"LIMPET     ", &files).unwrap();
    for (offset, bytes) in &pieces {
        file.write_all_at(bytes, *offset).unwrap();
    }
    let volume = fatfs::FileSystem::new(std::fs::File::open(&path).unwrap(), fatfs::FsOptions::new()).unwrap();
    for (name, content) in files {
        let mut back = Vec::new();
        volume.root_dir().open_file(name).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == content, "{name}");
    }
    match Command::new("/usr/sbin/fsck.fat").arg("-n").arg(&path).output() {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success() && said.lines().count() == 2, "{said}");
        }
        Err(_) => eprintln!("skipped in part: no fsck.fat (dosfstools)"),
    }
    assert!(fat32::volume(32 << 20, 7, b"LIMPET     ", &files).is_none(), "too small for FAT32");
    assert!(fat32::volume(256 << 20, 7, b"LIMPET     ", &[("a", b""), ("a/b", b"")]).is_none());
}
