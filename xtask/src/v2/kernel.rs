//! Debian's cloud kernel and its first file system.
//!
//! In: Debian's packages. Out: `vmlinuz`, `lib/modules`, an archive that loads drivers and leaves for the disk.
//! Never: a kernel that is built here (user_mode.rs).

use crate::{setup, sh};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const KERNEL: &str = "linux-image-cloud-amd64";
const MODULES: &str = "virtio_pci virtio_blk virtio_rng ext4 overlay loop veth bridge nf_tables nft_chain_nat nft_nat nft_masq nft_ct \
                       nft_numgen nft_reject_inet nft_reject_ipv4 nf_conntrack_netlink nft_fib_inet tun fuse";
/// The first process of the machine: drivers, then the disk, which containers can pivot away from.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for driver in DRIVERS; do modprobe $driver; done
mount -t ext4 /dev/vda /new
mount --move /proc /new/proc; mount --move /sys /new/sys; mount --move /dev /new/dev
exec switch_root /new /run.sh
";

const PACKAGES: &[setup::Package] = &[("qemu-system-x86_64", "qemu-system-x86", "the emulated machine")];

/// Debian's newest, unpacked once: `vmlinuz` and `lib/modules`.
pub fn kernel(work: &Path) -> Result<PathBuf, String> {
    setup::packages(PACKAGES)?;
    let name = newest(KERNEL, "linux-image-")?;
    let dir = work.join(&name);
    if dir.join("vmlinuz").is_file() {
        return Ok(dir);
    }
    println!("Fetching from Debian: {name} (the emulated machine's kernel)");
    let partial = work.join("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
    sh::status(Command::new("apt-get").args(["download", "-q", &name]).current_dir(&partial))?;
    let package = first(&partial, |n| n.ends_with(".deb"))?;
    sh::status(Command::new("dpkg-deb").arg("-x").arg(&package).arg(partial.join("root")))?;
    let image = first(&partial.join("root/boot"), |n| n.starts_with("vmlinuz"))?;
    let move_to = |from: PathBuf, to: &str| {
        let moved = fs::create_dir_all(dir.join("lib")).and_then(|()| fs::rename(&from, dir.join(to)));
        moved.map_err(|e| format!("{}: {e}", from.display()))
    };
    move_to(partial.join("root/lib/modules"), "lib/modules")?;
    let version = first(&dir.join("lib/modules"), |_| true)?;
    let version = version.file_name().unwrap_or_default().to_string_lossy().into_owned();
    sh::status(Command::new("busybox").args(["depmod", "-b"]).arg(&dir).arg(version))?;
    move_to(image, "vmlinuz")?;
    let _ = fs::remove_dir_all(&partial);
    Ok(dir)
}

/// What a package of Debian's stands for today.
pub fn newest(package: &str, beginning: &str) -> Result<String, String> {
    let depends = sh::output("apt-cache", &["depends", package])?;
    let name = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ").filter(|n| n.starts_with(beginning)));
    name.map(String::from).ok_or_else(|| format!("apt knows no {package}: run `apt-get update`"))
}

pub fn first(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let found = entries.flatten().find(|e| wanted(&e.file_name().to_string_lossy()));
    found.map(|e| e.path()).ok_or_else(|| format!("{} has not what was looked for", dir.display()))
}

/// What loads the drivers and leaves for the disk.
pub fn first_files(work: &Path, kernel: &Path) -> Result<PathBuf, String> {
    let tree = work.join("first");
    let _ = fs::remove_dir_all(&tree);
    let io = |e: std::io::Error| format!("{}: {e}", tree.display());
    for dir in ["bin", "lib", "proc", "sys", "dev", "new"] {
        fs::create_dir_all(tree.join(dir)).map_err(io)?;
    }
    let busybox = sh::find("busybox").ok_or("busybox is not there")?;
    fs::copy(&busybox, tree.join("bin/busybox")).map_err(io)?;
    symlink("busybox", tree.join("bin/sh")).map_err(io)?;
    super::tree::script(&tree.join("init"), &INIT.replace("DRIVERS", MODULES))?;
    sh::status(Command::new("cp").arg("-a").arg(kernel.join("lib/modules")).arg(tree.join("lib/")))?;
    let to = work.join("initrd");
    archive(&tree, &to).map(|()| to)
}

/// As the kernel wants its first file system.
fn archive(tree: &Path, to: &Path) -> Result<(), String> {
    let out = fs::File::create(to).map_err(|e| format!("{}: {e}", to.display()))?;
    let mut find = Command::new("busybox").args(["find", "."]).current_dir(tree).stdout(Stdio::piped()).spawn();
    let names = find.as_mut().map_err(|e| format!("find: {e}"))?.stdout.take().ok_or("find says nothing")?;
    let mut cpio = Command::new("busybox");
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(tree).stdin(names).stdout(out).stderr(Stdio::null());
    let done = sh::status(&mut cpio);
    let _ = find.map(|mut child| child.wait());
    done
}
