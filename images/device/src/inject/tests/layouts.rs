//! Four systems as they are published, small: their tables, file systems, folders, links and first-boot services.
//!
//! In: what Raspberry Pi OS, Armbian, Debian's cloud images and Ubuntu have that matters to who prepares them. Out: a card whose
//! file systems are whole, whose own first boot is not in our way, and where our words win.

use super::{fsck, other, tool};
use crate::inject::{ext4, fat, fits, put_all};
use crate::os::tables_of;
use crate::plan::{Format, Partition};
use crate::provision::{Address, Network, Security, Traits, What, Wifi, Wish, recipe};
use crate::table::Area;
use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const MIB: u64 = 1 << 20;
const ROOT_MIB: u64 = 48;

struct Layout {
    name: &'static str,
    board: &'static str,
    gpt: bool,
    /// MiB where the root file system begins, and its number in the table.
    root: (u64, usize),
    /// The FAT partition before it: number and files.
    boot: Option<(usize, &'static [(&'static str, &'static str)])>,
    files: &'static [(&'static str, &'static str)],
    traits: Traits,
}

const NETPLAN_ALL: &str = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    all-eth-interfaces:\n      match:\n        \
    name: \"e*\"\n      dhcp4: yes\n      dhcp6: yes\n";
const NETPLAN_CLOUD: &str = "network:\n  version: 2\n  ethernets:\n    all-en:\n      match: {name: en*}\n      dhcp4: true\n    \
    all-eth:\n      match: {name: eth*}\n      dhcp4: true\n";

const LAYOUTS: [Layout; 4] = [
    Layout {
        name: "Raspberry Pi OS",
        board: "raspberry-pi-4",
        gpt: false,
        root: (36, 2),
        boot: Some((
            1,
            &[
                (
                    "cmdline.txt",
                    "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait \
                     quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n",
                ),
                ("config.txt", "dtparam=audio=on\narm_64bit=1\n"),
                ("kernel8.img", "kernel"),
            ],
        )),
        files: &[
            ("etc/NetworkManager/NetworkManager.conf", "[main]\nplugins=ifupdown,keyfile\n"),
            ("etc/NetworkManager/system-connections/.keep", ""),
            ("usr/lib/systemd/system/userconfig.service", "[Service]\nType=oneshot\n"),
            ("etc/hostname", "raspberrypi\n"),
        ],
        traits: Traits { network: Network::NetworkManager, raspberry_pi: true, cloud_init: false, modem_manager: false },
    },
    Layout {
        name: "Armbian",
        board: "orange-pi-zero-3",
        gpt: false,
        root: (4, 1),
        boot: None,
        files: &[
            ("boot/armbianEnv.txt", "verbosity=1\nrootfstype=ext4\n"),
            ("root/.not_logged_in_yet", ""),
            ("etc/netplan/10-dhcp-all-interfaces.yaml", NETPLAN_ALL),
            ("etc/hostname", "orangepizero3\n"),
        ],
        traits: Traits { network: Network::Netplan, raspberry_pi: false, cloud_init: false, modem_manager: false },
    },
    Layout {
        name: "Debian",
        board: "arm64-uefi",
        gpt: true,
        root: (36, 1),
        boot: Some((15, &[("EFI/BOOT/BOOTAA64.EFI", "loader")])),
        files: &[
            ("etc/netplan/90-default.yaml", NETPLAN_CLOUD),
            ("etc/cloud/cloud.cfg.d/01_debian_cloud.cfg", "apt_preserve_sources_list: false\n"),
        ],
        traits: Traits { network: Network::Netplan, raspberry_pi: false, cloud_init: true, modem_manager: false },
    },
    Layout {
        name: "Ubuntu",
        board: "raspberry-pi-4",
        gpt: false,
        root: (36, 2),
        boot: Some((
            1,
            &[
                (
                    "cmdline.txt",
                    "console=serial0,115200 multipath=off dwc_otg.lpm_enable=0 console=tty1 root=LABEL=writable rootfstype=ext4 \
                     rootwait fixrtc\n",
                ),
                ("config.txt", "[all]\narm_64bit=1\nkernel=vmlinuz\ncmdline=cmdline.txt\n"),
                ("user-data", "#cloud-config\nchpasswd:\n  expire: true\n"),
                ("network-config", "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n"),
                ("meta-data", "instance_id: cloud-image\n"),
            ],
        )),
        files: &[
            ("etc/netplan/.keep", ""),
            ("etc/cloud/cloud.cfg.d/99-fake_cloud.cfg", "datasource_list: [NoCloud, None]\n"),
        ],
        traits: Traits { network: Network::Netplan, raspberry_pi: true, cloud_init: true, modem_manager: false },
    },
];

/// Everything that a system of today has alike: merged folders, a shell for 64-bit ARM.
fn tree(dir: &Path, layout: &Layout) {
    let put = |path: &str, content: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mut shell = b"\x7fELF\x02\x01\x01".to_vec();
    shell.resize(18, 0);
    shell.extend(183u16.to_le_bytes());
    shell.resize(6000, 1);
    put("usr/bin/bash", &shell);
    symlink("usr/bin", dir.join("bin")).unwrap();
    put("usr/lib/systemd/systemd", b"x");
    symlink("usr/lib", dir.join("lib")).unwrap();
    put("etc/systemd/system/multi-user.target.wants/.keep", b"");
    put("root/.bashrc", b"");
    for (path, content) in layout.files {
        put(path, content.as_bytes());
    }
}

fn image(dir: &Path, layout: &Layout) -> Option<PathBuf> {
    tree(&dir.join("tree"), layout);
    let path = dir.join("card.img");
    let bytes = (layout.root.0 + ROOT_MIB + 1) * MIB;
    let mut file = fs::File::create(&path).unwrap();
    file.set_len(bytes).unwrap();
    let mut parts: Vec<(usize, u64, u64, bool)> = vec![(layout.root.1, layout.root.0 * MIB, ROOT_MIB * MIB, false)];
    parts.extend(layout.boot.map(|(number, _)| (number, MIB, 34 * MIB, true)));
    if layout.gpt {
        // Debian's numbers are not in the order of the disk.
        let part = |start, bytes, format| Partition { name: "p", start, bytes, format, why: "" };
        let mut all: Vec<Partition> = (0..15).map(|_| part(0, 512, Format::Fat32)).collect();
        for (number, start, bytes, is_fat) in parts {
            let format = if is_fat { Format::Fat32 } else { Format::Ext4 };
            all[number - 1] = part(start, bytes, format);
        }
        let mut first = tables_of(&all, bytes, "test").0;
        for (number, entry) in first[1024..].chunks_exact_mut(128).enumerate() {
            if !matches!(number + 1, 1 | 15) {
                entry.fill(0);
            }
        }
        let sum = crate::table::crc32(&first[1024..1024 + 128 * 128]);
        first[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
        file.write_all(&first).unwrap();
    } else {
        let mut table = [0u8; 512];
        for (number, start, bytes, is_fat) in parts {
            let at = 446 + (number - 1) * 16;
            table[at + 4] = if is_fat { 0x0c } else { 0x83 };
            table[at + 8..at + 12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
            table[at + 12..at + 16].copy_from_slice(&((bytes / 512) as u32).to_le_bytes());
        }
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all(&table).unwrap();
    }
    drop(file);
    if let Some((number, files)) = layout.boot {
        let area = Area { number, start: MIB, bytes: 34 * MIB, name: String::new(), is_efi: false };
        let mut window = fat::Window::open(&path, &area, true).unwrap();
        fatfs::format_volume(&mut window, fatfs::FormatVolumeOptions::new()).unwrap();
        let volume = fatfs::FileSystem::new(window, fatfs::FsOptions::new()).unwrap();
        for (name, content) in files {
            let mut at = String::new();
            for part in name.split('/').collect::<Vec<_>>().split_last().unwrap().1 {
                at = format!("{at}{part}");
                volume.root_dir().create_dir(&at).unwrap();
                at.push('/');
            }
            volume.root_dir().create_file(name).unwrap().write_all(content.as_bytes()).unwrap();
        }
        volume.unmount().unwrap();
    }
    let (text, offset) = (path.to_str().unwrap(), format!("offset={}", layout.root.0 * MIB));
    let (source, blocks) = (dir.join("tree").display().to_string(), format!("{}k", ROOT_MIB * 1024));
    let made = tool(&["mke2fs", "-q", "-F", "-t", "ext4", "-E", &offset, "-d", &source, text, &blocks]);
    if !made {
        eprintln!("skipped: mke2fs (e2fsprogs) cannot make the image");
    }
    made.then_some(path)
}

fn cat(card: &Path, root: &Area, path: &str) -> String {
    let image = format!("{}?offset={}", card.display(), root.start);
    let out = Command::new("debugfs").args(["-R", &format!("cat {path}"), &image]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn wish() -> Wish {
    Wish {
        node_name: "greenhouse".into(),
        token: Some("limpet1.abcdefghijklmnopqrstuvw".into()),
        ssh_keys: vec!["ssh-ed25519 AAAAC3Nz me".into()],
        time_zone: Some("Europe/Berlin".into()),
        ..Wish::default()
    }
}

fn wifi() -> Wifi {
    Wifi { ssid: "home".into(), password: Some("12345678".into()), security: Security::Wpa2, country: "DE".into(), hidden: false }
}

#[test]
fn four_published_systems_become_nodes() {
    for layout in &LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let Some(card) = image(dir.path(), layout) else { return };
        let (system, root, boot, traits) = other(&card);
        assert_eq!((traits, root.number), (layout.traits, layout.root.1), "{}", layout.name);
        let board = crate::board::find(layout.board).unwrap();
        fits(&card, &system, &board).unwrap();
        let wish = Wish { wifi: Some(wifi()), ..wish() };
        let agent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7) as u8).collect();
        let files = recipe(&traits, &wish, agent, &board.boot.command_line, board.signals.led.as_deref());
        put_all(&card, &system, &files).unwrap();
        fsck(&card, &root);
        let there = |path: &str| ext4::paths(&card, &root, &[path]).unwrap()[0];
        assert_eq!(cat(&card, &root, "/etc/hostname"), "greenhouse\n");
        assert!(cat(&card, &root, "/etc/limpet/agent.env").contains("LIMPET_JOIN=limpet1."));
        assert!(cat(&card, &root, "/etc/systemd/system/limpet-agent.service").contains("--node-name greenhouse"));
        assert!(there("/etc/systemd/system/multi-user.target.wants/limpet-agent.service"), "{}", layout.name);
        // What was there is there.
        for (path, content) in layout.files.iter().filter(|(path, _)| *path != "etc/hostname") {
            assert_eq!(cat(&card, &root, &format!("/{path}")), *content, "{}", layout.name);
        }
        match traits.network {
            Network::NetworkManager => assert!(there("/etc/NetworkManager/system-connections/limpet-wifi.nmconnection")),
            _ => assert!(cat(&card, &root, "/etc/netplan/60-limpet.yaml").contains("\"home\":")),
        }
        assert_eq!(there("/etc/cloud/cloud.cfg.d/99-limpet.cfg"), traits.cloud_init, "{}", layout.name);
        assert_eq!(boot.is_some(), traits.raspberry_pi, "{}", layout.name);
        if let (Some(boot), Some((_, before))) = (boot, layout.boot) {
            let line = String::from_utf8(fat::read(&card, &boot, "/cmdline.txt").unwrap()).unwrap();
            assert!(line.starts_with(before[0].1.trim()), "{}: the system's own words stay: {line}", layout.name);
            assert!(line.contains(" cgroup_enable=memory") && line.matches('\n').count() == 1, "{line}");
            for (name, content) in &before[1..] {
                assert_eq!(fat::read(&card, &boot, &format!("/{name}")).unwrap(), content.as_bytes(), "{}", layout.name);
            }
        }
    }
}

/// networkd takes the first file, by name, that fits a card: the systems' own say "DHCP" for each.
#[test]
fn a_fixed_address_wins_over_the_systems_own_netplan() {
    let address = Address { ip: "192.168.1.20".parse().unwrap(), prefix: 24, gateway: None, dns: Vec::new() };
    let wish = Wish { address: Some(address), ..wish() };
    let traits = Traits { network: Network::Netplan, raspberry_pi: false, cloud_init: true, modem_manager: false };
    let ours = recipe(&traits, &wish, Vec::new(), &[], None).into_iter().find(|f| f.path == "/etc/netplan/60-limpet.yaml");
    let What::File(text) = ours.unwrap().what else { panic!("no file") };
    let text = String::from_utf8(text).unwrap();
    let name = text.lines().skip_while(|l| !l.contains("ethernets:")).nth(1).unwrap().trim().trim_end_matches(':');
    for other in ["all-en", "all-eth", "all-eth-interfaces", "alleths", "eth0", "en", "enp1s0", "end0", "cloud-init"] {
        assert!(format!("10-netplan-{name}.network") < format!("10-netplan-{other}.network"), "{name} comes after {other}");
    }
    assert!(text.contains("192.168.1.20/24"));
}
