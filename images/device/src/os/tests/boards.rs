//! An image for every board there is, from packages that are made here: what is in Debian's under the same names, but small.
//!
//! In: board files. Out: partition tables and file systems that other programs like and that read back; the same bytes twice.
//! What real packages hold is for `tests/e2e/tests/os_boards.rs`.

use super::super::{Inputs, Key, Package, deb, elf, fdt, image, mbr, radio, update};
use crate::board::{self, Board, Method};
use crate::inject::{self, System};
use crate::plan::{Scheme, limpet_os};
use crate::provision::{self, Wish};
use crate::table;
use limpet_oci::builder::{Layer, gzip};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

fn package(dir: &Path, name: &str, files: &[(String, Vec<u8>)]) -> Package {
    // A link is a file whose content is an arrow and a path.
    let layer = files.iter().fold(Layer::new(), |layer, (path, content)| match content.strip_prefix(b"-> ") {
        Some(to) => layer.symlink(path, std::str::from_utf8(to).unwrap()),
        None => layer.file(path, 0o644, content),
    });
    let data = gzip(&layer.tar());
    let mut deb = b"!<arch>\n".to_vec();
    for (member, content) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar.gz", data)] {
        deb.extend(format!("{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        deb.extend(&content);
        if content.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    let path = dir.join(format!("{name}.deb"));
    fs::write(&path, deb).unwrap();
    Package { name: name.into(), version: "1-1".into(), architecture: "all".into(), sha256: "0".repeat(64), path }
}

fn module(depends: &str, aliases: &[&str]) -> Vec<u8> {
    let mut text = format!("\0license=GPL\0depends={depends}\0");
    aliases.iter().for_each(|alias| text.push_str(&format!("alias={alias}\0")));
    text.into_bytes()
}

/// A kernel with a device tree for the board, and with drivers that the tree, the board's file or nobody names.
fn kernel(dir: &Path, board: &Board) -> Package {
    let name = board.kernel().replace("linux-image-", "linux-image-6.1.0-50-");
    let modules = format!("lib/modules/{name}/kernel/drivers");
    let mut files = vec![
        (format!("boot/vmlinuz-{name}"), b"kernel".repeat(5000)),
        (format!("{modules}/mmc/host/made-mmc.ko"), module("made_core", &["of:N*T*Cmade,mmc", "of:N*T*Cmade,mmcC*"])),
        (format!("{modules}/mmc/core/made-core.ko"), module("", &[])),
        (format!("{modules}/gpu/drm/made-gpu.ko"), module("", &["of:N*T*Cmade,mmc"])),
        (format!("{modules}/net/made-off.ko"), module("", &["of:N*T*Cmade,off"])),
        (format!("{modules}/net/ethernet/realtek/r8169.ko"), module("", &["pci:v*"])),
        (format!("{modules}/net/wireless/brcmfmac.ko"), module("cfg80211", &["of:N*T*Cmade,mmc"])),
        (format!("{modules}/net/wireless/mac80211-hwsim.ko"), module("cfg80211,made_core", &[])),
        (format!("{modules}/net/wireless/cfg80211.ko"), module("", &[])),
        (format!("{modules}/block/loop.ko"), module("", &[])),
        (format!("{modules}/fs/squashfs.ko"), module("", &[])),
    ];
    let tree = fdt::tests::made(&[(0, "made,board", ""), (1, "made,mmc", "okay"), (1, "made,off", "disabled")]);
    let other = if board.architecture == "arm64" { "broadcom/" } else { "" };
    for path in &board.boot.device_trees {
        let folder = if path.contains('/') { "" } else { other };
        files.push((format!("usr/lib/{name}/{folder}{path}"), tree.clone()));
    }
    package(dir, &name, &files)
}

/// A supplicant that needs two libraries, one of them by way of the other; a third that nobody needs; rules and firmware.
fn of_radio(dir: &Path, board: &Board) -> Vec<Package> {
    let Some(radio) = &board.limpet_os.radio else { return Vec::new() };
    let file = |path: &str, content: &[u8]| (path.to_string(), content.to_vec());
    let wide = board.architecture != "arm";
    let supplicant = elf::tests::made(wide, Some("/lib/ld-made.so.1"), &["libone.so.1"]);
    let one = elf::tests::made(wide, None, &["libtwo.so.2", "ld-made.so.1"]);
    let two = elf::tests::made(wide, None, &[]);
    let rules = ["regulatory.db-debian", "regulatory.db.p7s-debian", "regulatory.db-upstream", "regulatory.db.p7s-upstream"];
    let rules = rules.map(|name| (format!("lib/firmware/{name}"), name.as_bytes().to_vec()));
    let mut all = vec![
        package(dir, "wpasupplicant", &[file("sbin/wpa_supplicant", &supplicant), file("sbin/wpa_cli", b"x")]),
        package(dir, "libone1", &[file("lib/made/libone.so.1", b"-> libone.so.1.5"), file("lib/made/libone.so.1.5", &one)]),
        package(dir, "libtwo2", &[file("usr/lib/made/libtwo.so.2", &two), file("lib/ld-made.so.1", &two)]),
        package(dir, "libthree3", &[file("usr/lib/made/libthree.so.3", &two)]),
        package(dir, "wireless-regdb", &rules),
    ];
    if let Some(name) = &radio.package {
        let wanted = radio.firmware.iter().chain(radio.firmware_as.values());
        let mut files: Vec<_> = wanted.map(|f| (format!("lib/firmware/{f}"), b"-> ../cypress/made.bin".to_vec())).collect();
        files.push(file("lib/firmware/cypress/made.bin", b"firmware"));
        files.push(file("lib/firmware/brcm/other-sdio.bin", b"another radio's"));
        files.push((format!("usr/share/doc/{name}/copyright"), b"may be passed on".to_vec()));
        all.push(package(dir, name, &files));
    }
    all
}

/// What `unsquashfs` finds in the radio's file system.
fn unsquashed(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (file, to) = (dir.path().join("f"), dir.path().join("to"));
    fs::write(&file, bytes).unwrap();
    let out = Command::new("unsquashfs").arg("-quiet").arg("-no-progress").arg("-d").arg(&to).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut found = BTreeMap::new();
    let mut folders = vec![to.clone()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.strip_prefix(&to).unwrap().display().to_string(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

#[test]
fn a_radio_gets_what_it_needs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["raspberry-pi-4", "raspberry-pi-cm4", "raspberry-pi-zero-w", "qemu-x86_64-wifi", "qemu-arm64-wifi"] {
        let board = board::find(name).unwrap();
        let packages = packages(dir.path(), &board);
        let wanted = board.limpet_os.radio.as_ref().unwrap();
        let kernel = packages.iter().find(|p| p.name.starts_with("linux-image-")).unwrap();
        let drivers = deb::files(&kernel.path, super::super::modules::is_module).unwrap();
        let core = drivers.keys().find(|p| p.ends_with("made-core.ko")).unwrap().clone();
        let made = radio::file_system(&packages, wanted, &drivers, &[core]).unwrap();
        let files = unsquashed(&made.bytes);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let driver = if wanted.drivers[0] == "brcmfmac" { "modules/001-brcmfmac.ko" } else { "modules/001-mac80211-hwsim.ko" };
        for file in ["bin/wpa_supplicant", "lib/ld.so", "lib/libone.so.1", "lib/libtwo.so.2", "modules/000-cfg80211.ko", driver] {
            assert!(names.contains(&file), "{name}: no {file} in {names:?}");
        }
        let unwanted = ["three", "wpa_cli", "other-sdio", "core"];
        assert!(!names.iter().any(|name| unwanted.iter().any(|u| name.contains(u))), "{names:?}");
        assert_eq!(files["firmware/regulatory.db"], b"regulatory.db-debian");
        let firmware = wanted.firmware.iter().chain(wanted.firmware_as.keys());
        firmware.for_each(|f| assert_eq!(files[&format!("firmware/{f}")], b"firmware", "{name}: {f}"));
        assert!(made.packages.contains("libtwo2") && !made.packages.contains("libthree3"), "{:?}", made.packages);
    }
}

#[test]
fn what_a_radio_lacks_is_said_and_licences_go_along() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    let pi = board::find("raspberry-pi-4").unwrap();
    let all = packages(dir.path(), &pi);
    for (without, says) in [
        ("wpasupplicant", "not among the packages"),
        ("libtwo2", "which it needs"),
        ("wireless-regdb", "not among the packages"),
        ("firmware-brcm80211", "not among the packages"),
    ] {
        let fewer: Vec<Package> = all.iter().filter(|p| p.name != without).cloned().collect();
        let said = image(&inputs(&pi, &fewer), &out).err().unwrap().to_string();
        assert!(said.contains(says), "{without}: {said}");
    }
    let made = image(&inputs(&pi, &all), &out).unwrap();
    let bill: serde_json::Value = serde_json::from_str(&made.sbom).unwrap();
    assert_eq!(bill["hasExtractedLicensingInfos"][0]["extractedText"], "may be passed on");
    let names: Vec<&str> = bill["packages"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&"libone1") && names.contains(&"firmware-brcm80211") && !names.contains(&"libthree3"), "{names:?}");
    let firmware = bill["packages"].as_array().unwrap().iter().find(|p| p["name"] == "firmware-brcm80211").unwrap();
    assert_eq!(firmware["licenseDeclared"], bill["hasExtractedLicensingInfos"][0]["licenseId"]);
    let mut head = vec![0; 1 << 20];
    let card = File::open(&out).unwrap();
    card.read_exact_at(&mut head, 0).unwrap();
    let part = dir.path().join("part");
    cut_out(&card, &table::read(&head, card.metadata().unwrap().len()).unwrap()[0], &part);
    assert_eq!(system_files(&part)["licences/firmware-brcm80211.txt"], b"may be passed on");
}

fn packages(dir: &Path, board: &Board) -> Vec<Package> {
    let efi = ["usr/lib/systemd/boot/efi/systemd-bootx64.efi", "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"];
    let firmware = super::super::uboot::FIRMWARE.map(|name| (format!("usr/lib/raspi-firmware/{name}"), name.as_bytes().to_vec()));
    let mut all = vec![
        kernel(dir, board),
        package(dir, "systemd-boot-efi", &efi.map(|path| (path.to_string(), b"loader".to_vec()))),
        package(dir, "raspi-firmware", &firmware),
    ];
    let mut loaders: BTreeMap<&str, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    for loader in &board.boot.loaders {
        let Some(name) = loader.package.as_deref() else { continue };
        loaders.entry(name).or_default().push((format!("usr/lib/u-boot/{}", loader.file), loader.file.repeat(100).into_bytes()));
    }
    all.extend(of_radio(dir, board));
    all.extend(loaders.iter().map(|(name, files)| package(dir, name, files)));
    all
}

fn inputs<'a>(board: &'a Board, packages: &'a [Package]) -> Inputs<'a> {
    let own = board.own_loaders().into_iter().map(|file| (file.to_string(), file.repeat(100).into_bytes())).collect();
    Inputs { board, version: "1.0", packages, agent: b"agent", init: b"init", loaders: own, update_key: None, extra: &[] }
}

fn fsck(program: &str, words: &[&str], part: &Path) {
    match Command::new(program).args(words).arg(part).output() {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{said}");
        }
        Err(_) => eprintln!("skipped in part: no {program}"),
    }
}

/// Every file of the system's partition, read by a program that is not ours.
fn system_files(part: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &fatfs::Dir<'_, File>, below: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in folder.iter().map(Result::unwrap).filter(|e| !e.file_name().starts_with('.')) {
            let path = format!("{below}{}", entry.file_name());
            if entry.is_dir() {
                walk(&entry.to_dir(), &format!("{path}/"), found);
            } else {
                let mut content = Vec::new();
                entry.to_file().read_to_end(&mut content).unwrap();
                found.insert(path, content);
            }
        }
    }
    let volume = fatfs::FileSystem::new(File::open(part).unwrap(), fatfs::FsOptions::new()).unwrap();
    let mut found = BTreeMap::new();
    walk(&volume.root_dir(), "", &mut found);
    found
}

/// What the initial file system holds, by the names in its archive.
fn archived(initrd: &[u8]) -> String {
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(initrd).read_to_end(&mut archive).unwrap();
    String::from_utf8_lossy(&archive).into_owned()
}

/// One partition as a file, in which nothing is written where nothing is.
fn cut_out(image: &File, area: &table::Area, to: &Path) {
    let part = File::create(to).unwrap();
    part.set_len(area.bytes).unwrap();
    let mut piece = vec![0; 1 << 20];
    for at in (0..area.bytes).step_by(1 << 20) {
        image.read_exact_at(&mut piece, area.start + at).unwrap();
        if piece.iter().any(|b| *b != 0) {
            part.write_all_at(&piece, at).unwrap();
        }
    }
}

fn sum(path: &Path) -> [u8; 32] {
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut file, mut piece) = (File::open(path).unwrap(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return sum.finish().as_ref().try_into().unwrap(),
            n => sum.update(&piece[..n]),
        }
    }
}

fn look_at(board: &Board, dir: &Path, built: &Path) {
    let plan = limpet_os(board);
    let file = File::open(built).unwrap();
    let mut head = vec![0; 1 << 20];
    file.read_exact_at(&mut head, 0).unwrap();
    let areas = table::read(&head, plan.image_bytes()).unwrap();
    let got: Vec<_> = areas.iter().map(|a| (a.start, a.bytes)).collect();
    assert_eq!(got, plan.partitions.iter().map(|p| (p.start, p.bytes)).collect::<Vec<_>>(), "{}", board.name);
    assert_eq!(plan.scheme == Scheme::Mbr, &head[440..444] == mbr::MARK, "{}", board.name);
    fsck("/usr/sbin/sfdisk", &["--verify"], built);
    for loader in &board.boot.loaders {
        let Some(sector) = loader.sector else { continue };
        let mut there = vec![0; loader.file.len() * 100];
        file.read_exact_at(&mut there, u64::from(sector) * 512).unwrap();
        assert!(there == loader.file.repeat(100).into_bytes(), "{}: {}", board.name, loader.file);
    }
    for (area, words) in areas.iter().zip([("/usr/sbin/fsck.fat", &["-n"][..]), ("/usr/sbin/e2fsck", &["-fn"])]) {
        let part = dir.join("part");
        cut_out(&file, area, &part);
        fsck(words.0, words.1, &part);
        if area.number == 1 {
            look_at_files(board, &system_files(&part));
        }
    }
}

fn look_at_files(board: &Board, files: &BTreeMap<String, Vec<u8>>) {
    let content = |path: &str| files.get(path).unwrap_or_else(|| panic!("{}: no {path}", board.name));
    let text = |path: &str| String::from_utf8_lossy(content(path)).into_owned();
    assert_eq!(text("limpet/board"), board.name);
    assert_eq!(text("limpet/a/linux"), "kernel".repeat(5000));
    let drivers = archived(&files["limpet/a/initrd"]);
    let named = !board.boot.device_trees.is_empty();
    assert_eq!(drivers.contains("made-mmc.ko"), named, "{}", board.name);
    assert_eq!(drivers.find("made-core.ko") < drivers.find("made-mmc.ko"), named, "{}: the core comes first", board.name);
    assert!(!drivers.contains("made-gpu.ko") && !drivers.contains("made-off.ko"), "{}", board.name);
    assert_eq!(drivers.contains("r8169.ko"), board.limpet_os.drivers.iter().any(|d| d == "r8169"), "{}", board.name);
    if board.boot.method == Method::Uefi {
        assert!(files.keys().any(|path| path.starts_with("EFI/BOOT/")) && files.contains_key("loader/entries/limpet-a.conf"));
        return;
    }
    assert_eq!(files["limpet/slots"].len(), 512, "{}", board.name);
    let console = format!("limpet_options=console={} ", board.boot.console);
    assert!(text("limpet/a/options").starts_with(&console), "{}", board.name);
    assert!(text("boot.scr").contains(if board.architecture == "arm64" { "booti " } else { "bootz " }));
    match board.boot.method {
        Method::RaspberryPi => {
            assert!(text("config.txt").contains("kernel=u-boot.bin\n") && files.contains_key("u-boot.bin"));
            assert_eq!(text("config.txt").contains("arm_64bit=1"), board.architecture == "arm64");
            assert!(board.boot.device_trees.iter().all(|tree| files.contains_key(tree)), "{}", board.name);
            assert_eq!(text("start4cd.elf"), "start4cd.elf");
        }
        _ => assert_eq!(files.contains_key("limpet/a/tree"), named, "{}", board.name),
    }
}

#[test]
fn every_board_has_an_image_that_others_like_or_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    for board in board::all().unwrap() {
        let packages = packages(dir.path(), &board);
        let inputs = inputs(&board, &packages);
        if let Some(why) = &board.limpet_os.refused {
            let said = image(&inputs, &first).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(why) && said.contains("limpet flash"), "{said}");
            continue;
        }
        let made = image(&inputs, &first).unwrap_or_else(|e| panic!("{}: {e}", board.name));
        image(&inputs, &second).unwrap();
        assert_eq!(sum(&first), sum(&second), "{}: two builds differ", board.name);
        for file in board.own_loaders() {
            assert!(made.sbom.contains(file), "{}: the bill of materials does not name {file}", board.name);
        }
        look_at(&board, dir.path(), &first);
    }
}

#[test]
fn a_nodes_file_goes_to_where_limpet_os_looks_for_it_on_every_board() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("card");
    for name in ["raspberry-pi-4", "beaglebone-black", "qemu-arm64-u-boot"] {
        let board = board::find(name).unwrap();
        let packages = packages(dir.path(), &board);
        image(&inputs(&board, &packages), &path).unwrap();
        let mut head = vec![0; 1 << 20];
        let card = File::open(&path).unwrap();
        card.read_exact_at(&mut head, 0).unwrap();
        let areas = table::read(&head, card.metadata().unwrap().len()).unwrap();
        let system = inject::find(&path, &areas).unwrap();
        assert!(matches!(&system, System::Limpet { system } if system.number == 1), "{name}: {system:?}");
        let wish = Wish { node_name: "shed".into(), token: Some("secret".into()), ..Wish::default() };
        inject::put_all(&path, &system, &[provision::limpet_os(&wish).unwrap()]).unwrap();
        let part = dir.path().join("part");
        cut_out(&File::open(&path).unwrap(), &areas[0], &part);
        fsck("/usr/sbin/fsck.fat", &["-n"], &part);
        let files = system_files(&part);
        assert!(String::from_utf8_lossy(&files["limpet/node.json"]).contains("\"shed\""), "{name}");
        assert_eq!(files["limpet/slots"].len(), 512, "{name}");
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    let c4 = board::find("odroid-c4").unwrap();
    let all = packages(dir.path(), &c4);
    let said = image(&Inputs { loaders: BTreeMap::new(), ..inputs(&c4, &all) }, &out).err().unwrap().to_string();
    assert!(said.contains("ODROID-C4") && said.contains("odroid-c4/u-boot.bin") && said.contains("--loaders"), "{said}");
    // A loader that would reach into the first partition.
    let large = BTreeMap::from([("odroid-c4/u-boot.bin".to_string(), vec![1; 17 << 20])]);
    let said = image(&Inputs { loaders: large, ..inputs(&c4, &all) }, &out).err().unwrap().to_string();
    assert!(said.contains("first partition"), "{said}");
    let pi = board::find("raspberry-pi-4").unwrap();
    let all = packages(dir.path(), &pi);
    for name in ["raspi-firmware", "u-boot-rpi", "linux-image-6.1.0-50-arm64"] {
        let fewer: Vec<Package> = all.iter().filter(|p| p.name != name).cloned().collect();
        let said = image(&inputs(&pi, &fewer), &out).err().unwrap().to_string();
        assert!(said.contains("not among the packages"), "{name}: {said}");
    }
    let odd = package(dir.path(), "linux-image-6.1.0-50-arm64", &[("boot/vmlinuz-1".into(), b"k".to_vec())]);
    let fewer: Vec<Package> = all.into_iter().filter(|p| !p.name.starts_with("linux-")).chain([odd]).collect();
    let said = image(&inputs(&pi, &fewer), &out).err().unwrap().to_string();
    assert!(said.contains("it has no bcm2711-rpi-4-b.dtb"), "{said}");
}

#[test]
fn an_update_has_a_device_tree_where_the_slot_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::parse(&Key::generate().unwrap()).unwrap();
    for (name, has) in [("beaglebone-black", true), ("raspberry-pi-4", false), ("qemu-arm64", false)] {
        let board = board::find(name).unwrap();
        let packages = packages(dir.path(), &board);
        let made = update(&inputs(&board, &packages), &key).unwrap();
        assert_eq!(String::from_utf8_lossy(&made).contains("\"deviceTree\""), has, "{name}");
    }
}
