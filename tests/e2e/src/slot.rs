//! A number for every world, so that many can live on one machine.
//!
//! In: nothing. Out: a number that nobody else has, with names derived from it. Whoever gets a number removes what an earlier
//! world with that number has left: the lock goes with its process, everything else may stay behind after a crash.
//! Never: removes anything of a world whose process lives.

use crate::Result;
use crate::process::sh;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In the environment of every process of a world.
pub const MARK: &str = "LIMPET_E2E_SLOT";
const NUMBERS: std::ops::RangeInclusive<u8> = 1..=200;
/// Not under /tmp: data directories need a file system that overlayfs can use.
const BASE: &str = "/var/tmp/limpet-e2e";

pub struct Slot {
    pub number: u8,
    _lock: File,
}

impl Slot {
    pub fn take() -> Result<Slot> {
        let locks = Path::new(BASE);
        fs::create_dir_all(locks).map_err(|e| format!("cannot make {BASE}: {e}"))?;
        for number in NUMBERS {
            let path = locks.join(format!("{number}.lock"));
            let file = File::create(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
            if file.try_lock().is_ok() {
                let slot = Slot { number, _lock: file };
                slot.sweep()?;
                fs::create_dir_all(slot.dir()).map_err(|e| format!("cannot make {}: {e}", slot.dir().display()))?;
                return Ok(slot);
            }
        }
        Err(format!("{} worlds are running already", NUMBERS.end()))
    }

    /// Data of hub and agents.
    pub fn dir(&self) -> PathBuf {
        Path::new(BASE).join(self.number.to_string())
    }

    /// The agents' run directories: on a tmpfs where there is one, as on a board.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/limpet-e2e/{}", self.number))
    }

    pub fn mark(&self) -> (&'static str, String) {
        (MARK, self.number.to_string())
    }

    pub fn bridge(&self) -> String {
        format!("limpet{}", self.number)
    }

    pub fn namespace(&self, node: usize) -> String {
        format!("limpet{}-n{node}", self.number)
    }

    pub fn cgroup(&self, node: usize) -> String {
        format!("limpet-e2e-{}-n{node}", self.number)
    }

    /// `host` 1 is the bridge itself, boards follow from 11 on.
    pub fn address(&self, host: u8) -> String {
        format!("10.213.{}.{host}", self.number)
    }

    /// Removes everything of this number.
    pub fn sweep(&self) -> Result<()> {
        self.end_processes()?;
        for namespace in sh("ip", ["-brief", "netns", "list"]).unwrap_or_default().lines() {
            let name = namespace.split(' ').next().unwrap_or_default();
            if name.starts_with(&format!("limpet{}-n", self.number)) {
                sh("ip", ["netns", "delete", name])?;
            }
        }
        self.remove_links()?;
        self.remove_cgroups();
        self.unmount();
        for dir in [self.dir(), self.run_dir()] {
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))?;
            }
        }
        Ok(())
    }

    /// Small disks that a test has mounted.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|p| Path::new(p).starts_with(self.dir())) {
            let _ = sh("umount", ["--lazy", point]);
        }
    }

    /// The bridge and the cables. A namespace that is being torn down may still hold the other end of a cable.
    fn remove_links(&self) -> Result<()> {
        let (bridge, cable) = (self.bridge(), format!("lm{}n", self.number));
        let is_ours = |name: &str| {
            let board = name.strip_prefix(&cable).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
            name == bridge || board
        };
        crate::until("removing network links", Duration::from_secs(60), || {
            let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
            let left: Vec<String> =
                links.filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_ours(n)).collect();
            for name in &left {
                // Gone in the meantime is fine, too: the next look tells.
                let _ = sh("ip", ["link", "delete", name]);
            }
            crate::wait::yes(left.is_empty(), || format!("{left:?} are still there"))
        })
    }

    fn end_processes(&self) -> Result<()> {
        let limit = Duration::from_secs(20);
        crate::until("ending left-over processes", limit, || {
            let left = self.processes();
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            crate::wait::yes(left.is_empty(), || format!("{left:?} still run"))
        })
    }

    /// Processes with our mark. Containers have none, but they end with the process namespace of their board.
    fn processes(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.number);
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let has_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != own && has_mark(pid))
            .collect()
    }

    /// Groups of the boards in every hierarchy, v1 and v2, deepest first.
    fn remove_cgroups(&self) {
        let prefix = format!("limpet-e2e-{}-n", self.number);
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
        for hierarchy in hierarchies.chain([root.to_path_buf()]) {
            for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    remove_group(&entry.path());
                }
            }
        }
    }
}

fn remove_group(path: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_group(&child.path());
        }
    }
    let _ = fs::remove_dir(path);
}

impl Drop for Slot {
    fn drop(&mut self) {
        if std::env::var_os("LIMPET_E2E_KEEP").is_some() {
            eprintln!("kept (LIMPET_E2E_KEEP): {}", self.dir().display());
            let _ = self.end_processes();
            return;
        }
        if let Err(why) = self.sweep() {
            eprintln!("cleaning up: {why}");
        }
    }
}
