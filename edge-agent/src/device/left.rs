//! What the board has left of what can run short.
//!
//! In: /proc, the file system of the data directory. Out: `Left` by signal; zero of all where nothing can be read.
//! Never: a walk over files (that is `disk_use`'s, away from the loop).

use limpet_agent_core::pressure::{Left, Signal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Entries of one tree that are counted; more count as these.
const ENTRIES_MAX: u64 = 2_000_000;
const DEPTH_MAX: usize = 64;

pub fn left(signal: Signal, data: &Path) -> Left {
    match signal {
        Signal::Memory => memory(&super::facts::read("/proc/meminfo")),
        Signal::Disk => {
            let (all, free) = super::disk_bytes(data);
            Left { all, free }
        }
        Signal::Inodes => inodes(data),
        Signal::Pids => pids(),
    }
}

fn memory(info: &str) -> Left {
    let bytes = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    match (bytes("MemTotal:"), bytes("MemAvailable:")) {
        (Some(all), Some(free)) => Left { all, free },
        _ => Left::default(),
    }
}

// The widths of statvfs fields differ between targets.
#[allow(clippy::unnecessary_cast)]
fn inodes(dir: &Path) -> Left {
    // btrfs and others have no fixed number: they say zero, which is never short.
    nix::sys::statvfs::statvfs(dir)
        .map(|s| Left { all: s.files() as u64, free: s.files_available() as u64 })
        .unwrap_or_default()
}

/// Tasks, which is what the kernel counts against its limit.
fn pids() -> Left {
    let number = |path: &str| super::facts::read(path).trim().parse::<u64>().ok();
    let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")].into_iter().flatten().min();
    let load = super::facts::read("/proc/loadavg");
    let used = load.split_whitespace().nth(3).and_then(|w| w.split('/').nth(1)).and_then(|n| n.parse::<u64>().ok());
    match (most, used) {
        (Some(all), Some(used)) => Left { all, free: all.saturating_sub(used) },
        _ => Left::default(),
    }
}

/// Bytes on disk and entries below a directory; other file systems below it do not count.
pub fn disk_use(dir: &Path) -> (u64, u64) {
    let Ok(top) = std::fs::symlink_metadata(dir) else { return (0, 0) };
    let (mut bytes, mut entries) = (0u64, 0u64);
    let mut linked = std::collections::HashSet::new();
    let mut todo = vec![(dir.to_path_buf(), 0)];
    while let Some((path, depth)) = todo.pop() {
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != top.dev() || entries >= ENTRIES_MAX {
                continue;
            }
            entries += 1;
            // A file with several names is on disk once.
            if found.is_dir() || found.nlink() < 2 || linked.insert(found.ino()) {
                bytes += found.blocks() * 512;
            }
            if found.is_dir() && depth < DEPTH_MAX {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    (bytes, entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_of_everything() {
        for signal in [Signal::Memory, Signal::Disk, Signal::Pids] {
            let left = left(signal, Path::new("/tmp"));
            assert!(left.all > 0 && left.free > 0 && left.free <= left.all, "{signal:?}: {left:?}");
        }
        assert_eq!(memory("MemTotal: 10 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n"), Left { all: 10240, free: 4096 });
        assert_eq!(memory("MemTotal: 10 kB\n"), Left::default());
    }

    #[test]
    fn files_are_counted_once_and_links_not_followed() {
        let dir = std::env::temp_dir().join(format!("limpet-use-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/a"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.join("sub/a"), dir.join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.join("all")).unwrap();
        let (bytes, entries) = disk_use(&dir);
        assert_eq!(entries, 4);
        assert!((100_000..150_000).contains(&bytes), "{bytes}");
        let _ = std::fs::remove_dir_all(dir);
    }
}
