//! The runtime's own tests where boards run them: on Debian's kernel with nothing but cgroup v2, in an emulated machine.
//!
//! In: Debian's cloud kernel, QEMU, the agent's test program as cargo builds it. Out: the tests' words and their result.
//! Never: KVM (not every machine has it), or a figure of time: an emulated millisecond is none.

use crate::{setup, sh};
use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const PACKAGES: &[setup::Package] = &[
    ("busybox", "busybox-static", "the emulated machine's whole userland"),
    ("qemu-system-x86_64", "qemu-system-x86", "the emulated machine"),
    ("mke2fs", "e2fsprogs", "its disk"),
    ("ldd", "libc-bin", "finds the libraries of the test program"),
];
const KERNEL: &str = "linux-image-cloud-amd64";
const MODULES: &str = "virtio_pci virtio_blk ext4 overlay veth bridge nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_numgen \
                       nft_reject_inet nft_reject_ipv4 nf_conntrack_netlink nft_fib_inet";
/// The first process of the machine: drivers, then a root that can be left (containers pivot away from it).
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for driver in DRIVERS; do modprobe $driver; done
mkdir /new; mount -t tmpfs -o size=90%,mode=755 root /new
rm -rf /lib/modules
cp -a /bin /lib /lib64 /etc /test /run.sh /new/
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/var
umount /proc /sys
mount --move /dev /new/dev
exec switch_root /new /run.sh
";
/// The second one: file systems as a board has them, the tests, the plug.
const RUN: &str = "#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm; mount -t devpts dev /dev/pts; mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs run /run
mount /dev/vda /tmp
ip link set lo up; hostname board
echo \"kernel $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)\"
/test --test-threads=1 WORDS
echo \"limpet-v2-result $?\"
poweroff -f
";
const MEMORY_MIB: &str = "1536";
const LIMIT: Duration = Duration::from_secs(3600);

#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose names contain this; without it those of the runtime
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result<(), String> {
    setup::packages(PACKAGES)?;
    let filter = args.filter.as_deref().unwrap_or("runtime::");
    if !filter.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b)) {
        return Err(format!("{filter:?} cannot be a part of a test's name"));
    }
    let work = sh::root().join("target/v2");
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let kernel = kernel(&work)?;
    let tree = work.join("tree");
    let _ = fs::remove_dir_all(&tree);
    userland(&tree, &kernel, &test_program()?, filter)?;
    let initrd = work.join("initrd");
    archive(&tree, &initrd)?;
    let disk = work.join("disk");
    let _ = fs::remove_file(&disk);
    sh::output("truncate", &["-s", "2G", &disk.to_string_lossy()])?;
    sh::output("mke2fs", &["-q", "-t", "ext4", &disk.to_string_lossy()])?;
    boot(&kernel.join("vmlinuz"), &initrd, &disk)
}

/// Debian's newest, unpacked once: `vmlinuz` and `lib/modules`.
fn kernel(work: &Path) -> Result<PathBuf, String> {
    let depends = sh::output("apt-cache", &["depends", KERNEL])?;
    let name = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ").filter(|n| n.starts_with("linux-image-")));
    let name = name.ok_or_else(|| format!("apt knows no {KERNEL}: run `apt-get update`"))?.to_string();
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

fn first(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let found = entries.flatten().find(|e| wanted(&e.file_name().to_string_lossy()));
    found.map(|e| e.path()).ok_or_else(|| format!("{} has not what was looked for", dir.display()))
}

/// The agent's unit tests as one program.
fn test_program() -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--quiet", "-p", "limpet-agent", "--message-format=json"]).current_dir(sh::root());
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !output.status.success() {
        return Err("the agent's tests do not build".into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let made = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "limpet-agent" && message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    };
    text.lines().find_map(made).ok_or_else(|| "cargo named no test program".into())
}

fn userland(tree: &Path, kernel: &Path, test: &Path, filter: &str) -> Result<(), String> {
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |e: std::io::Error| format!("{what}: {e}")
    };
    for dir in ["bin", "lib", "lib64", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(dir)).map_err(io(tree))?;
    }
    let busybox = sh::find("busybox").ok_or("busybox is not there")?;
    fs::copy(&busybox, tree.join("bin/busybox")).map_err(io(&busybox))?;
    sh::status(Command::new("strip").arg("-o").arg(tree.join("test")).arg(test))?;
    for word in sh::output("ldd", &[&test.to_string_lossy()])?.split_whitespace().filter(|w| w.starts_with('/')) {
        let target = tree.join(word.trim_start_matches('/').trim_start_matches("usr/"));
        fs::create_dir_all(target.parent().unwrap_or(tree)).map_err(io(&target))?;
        fs::copy(word, &target).map_err(io(Path::new(word)))?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").map_err(io(tree))?;
    for (name, text) in [("init", INIT.replace("DRIVERS", MODULES)), ("run.sh", RUN.replace("WORDS", filter))] {
        let path = tree.join(name);
        fs::write(&path, text).map_err(io(&path))?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(io(&path))?;
    }
    symlink("busybox", tree.join("bin/sh")).map_err(io(tree))?;
    sh::status(Command::new("cp").arg("-a").arg(kernel.join("lib/modules")).arg(tree.join("lib/")))
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

/// Shows what the machine says until it is off; what its tests ended with decides.
fn boot(kernel: &Path, initrd: &Path, disk: &Path) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg("qemu-system-x86_64");
    command.args(["-machine", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY_MIB]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    command.arg("-drive").arg(format!("if=none,id=disk,format=raw,file={}", disk.display()));
    command.args(["-device", "virtio-blk-pci,drive=disk"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start QEMU: {e}"))?;
    let mut said = Vec::new();
    if let Some(mut console) = child.stdout.take() {
        let mut chunk = [0u8; 4096];
        while let Ok(n @ 1..) = console.read(&mut chunk) {
            print!("{}", String::from_utf8_lossy(&chunk[..n]));
            said.extend_from_slice(&chunk[..n]);
        }
    }
    child.wait().map_err(|e| format!("QEMU: {e}"))?;
    match String::from_utf8_lossy(&said).contains("limpet-v2-result 0") {
        true => Ok(()),
        false => Err("the tests failed on cgroup v2, or the machine did not come to their end; what it said is above".into()),
    }
}
