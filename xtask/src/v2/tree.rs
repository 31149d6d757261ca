//! The emulated machine's root file system, and the disk that it is written to.
//!
//! In: programs and folders of this machine, kernel modules, what to run. Out: an ext4 disk.
//! Never: a file of this machine that no program there needs.

use crate::sh;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// File systems as a board has them, the programs some at a time (others alone), the plug.
const RUN: &str = "#!/bin/busybox sh
export PATH=/usr/bin:/bin:/usr/sbin HOME=/root
[ -d /proc/self ] || { mount -t proc proc /proc; mount -t sysfs sysfs /sys; }
mkdir -p /dev/pts /dev/shm; mount -t devpts dev /dev/pts; mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs run /run
mkdir /run/sshd
ip link set lo up; hostname board
echo \"kernel $(uname -r), clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)\"
echo \"controllers: $(cat /sys/fs/cgroup/cgroup.controllers)\"
cd /tmp
ALONE | xargs -r -n 1 /one.sh
TOGETHER | xargs -r -n 1 -P WIDTH /one.sh
sync
poweroff -f
";
/// What one says is heard in one piece, after its end.
const ONE: &str = "#!/bin/busybox sh
name=$1
log=/var/log/programs/$name
echo \"limpet-v2: $name runs since $(date +%s)\"
begun=$(date +%s)
timeout -s KILL SECONDS sh /programs/$name < /dev/null > $log 2>&1
code=$?
(
    flock 9 2> /dev/null
    echo \"limpet-v2: $name begins\"
    cat $log
    echo
    echo \"limpet-v2: $name ends $code $(($(date +%s) - begun))\"
) 9> /run/console
";
const DISK: &str = "6G";
/// No program may take the others' time for ever; the longest watches for an hour.
const PROGRAM_SECONDS_MAX: u32 = 5400;

const PEOPLE: &str =
    "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n";

/// What the machine calls it, and how it is run.
pub struct Program {
    pub name: String,
    pub script: String,
}

pub struct Tree {
    dir: PathBuf,
    disk: PathBuf,
}

impl Tree {
    /// Busybox and the folders that every machine has.
    pub fn new(work: &Path) -> Result<Tree, String> {
        let tree = Tree { dir: work.join("tree"), disk: work.join("disk") };
        let _ = fs::remove_dir_all(&tree.dir);
        for dir in [
            "bin", "lib", "lib64", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "mnt",
            "boot", "usr/local/bin", "etc/systemd/system", "var/tmp", "var/log/programs", "programs",
        ] {
            tree.make(dir)?;
        }
        let busybox = sh::find("busybox").ok_or("busybox is not there")?;
        fs::copy(&busybox, tree.dir.join("bin/busybox")).map_err(|e| format!("{}: {e}", busybox.display()))?;
        for applet in sh::output("busybox", &["--list"])?.lines().filter(|a| *a != "busybox") {
            symlink("busybox", tree.dir.join("bin").join(applet)).map_err(|e| format!("{applet}: {e}"))?;
        }
        // Where the kernel looks for it.
        symlink("/bin/busybox", tree.dir.join("sbin/modprobe")).map_err(|e| format!("modprobe: {e}"))?;
        symlink("../lib", tree.dir.join("usr/lib")).map_err(|e| format!("usr/lib: {e}"))?;
        // A test puts a script of its own over it.
        tree.text("usr/bin/journalctl", "")?;
        tree.text("etc/passwd", PEOPLE)?;
        tree.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
        tree.text("etc/hosts", "127.0.0.1 localhost board\n")?;
        Ok(tree)
    }

    /// A program and the libraries that it names, without its symbols.
    pub fn program(&self, from: &Path, to: &str) -> Result<(), String> {
        let target = self.place(to)?;
        let stripped = Command::new("strip").arg("-o").arg(&target).arg(from).stderr(std::process::Stdio::null()).status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(from, &target).map_err(|e| format!("{}: {e}", from.display()))?;
        }
        self.libraries(from)
    }

    fn libraries(&self, program: &Path) -> Result<(), String> {
        // It has no words for a static one, and says that as an error.
        let libraries = sh::output("ldd", &[&program.to_string_lossy()]).unwrap_or_default();
        for word in libraries.split_whitespace().filter(|w| w.starts_with('/') && !w.ends_with(':')) {
            let library = self.place(word.trim_start_matches('/').trim_start_matches("usr/"))?;
            fs::copy(word, &library).map_err(|e| format!("{word}: {e}"))?;
        }
        Ok(())
    }

    /// A file or a folder as it is; a folder of programs' parts with the libraries that they name.
    pub fn copy(&self, from: &Path, to: &str) -> Result<(), String> {
        let target = self.place(to)?;
        sh::status(Command::new("cp").args(["-a", "--no-target-directory"]).arg(from).arg(target))?;
        let parts = sh::output("find", &["-L", &from.to_string_lossy(), "-name", "*.so*", "-type", "f"])?;
        parts.lines().try_for_each(|part| self.libraries(Path::new(part)))
    }

    pub fn modules(&self, kernel: &Path) -> Result<(), String> {
        self.make("lib")?;
        sh::status(Command::new("cp").arg("-a").arg(kernel.join("lib/modules")).arg(self.dir.join("lib/")))
    }

    /// Written anew for each machine: what it runs, one after the other and then so many at a time.
    pub fn disk(&self, alone: &[Program], together: &[Program], width: u32) -> Result<PathBuf, String> {
        for program in alone.iter().chain(together) {
            self.text(&format!("programs/{}", program.name), &program.script)?;
        }
        let names = |programs: &[Program]| {
            let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
            format!("echo {}", names.join(" "))
        };
        let run = RUN.replace("ALONE", &names(alone)).replace("TOGETHER", &names(together));
        script(&self.dir.join("run.sh"), &run.replace("WIDTH", &width.to_string()))?;
        script(&self.dir.join("one.sh"), &ONE.replace("SECONDS", &PROGRAM_SECONDS_MAX.to_string()))?;
        let _ = fs::remove_file(&self.disk);
        let (disk, dir) = (self.disk.to_string_lossy(), self.dir.to_string_lossy());
        sh::output("truncate", &["-s", DISK, &disk])?;
        sh::output("mke2fs", &["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", &dir, &disk])?;
        Ok(self.disk.clone())
    }

    fn make(&self, dir: &str) -> Result<(), String> {
        fs::create_dir_all(self.dir.join(dir)).map_err(|e| format!("{dir}: {e}"))
    }

    fn place(&self, to: &str) -> Result<PathBuf, String> {
        let target = self.dir.join(to);
        let parent = target.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        Ok(target)
    }

    fn text(&self, to: &str, text: &str) -> Result<(), String> {
        fs::write(self.dir.join(to), text).map_err(|e| format!("{to}: {e}"))
    }
}

pub fn script(path: &Path, text: &str) -> Result<(), String> {
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    written.map_err(|e| format!("{}: {e}", path.display()))
}
