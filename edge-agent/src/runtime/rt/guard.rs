//! Nothing is mounted over the kernel's own files.
//!
//! In: the destinations of a pod's mounts; the finished mounts of a container. Out: an error for what lies on /proc.
//! Whoever can exchange files below /proc turns what the runtime writes there (labels, sysctls) into writes of their
//! choice (CVE-2025-52881). Links in images and in volumes that others share are why both ends are looked at.
//! Never: trusts a path alone; what counts is where mounts ended up.

use super::oci::{MASKED, READ_ONLY};
use std::io::Read;
use std::path::Path;

/// Files that lxcfs and its like put there; they say how large a container is, and the runtime writes none of them.
const ALLOWED: [&str; 10] = [
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
    "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid",
];

/// A clear word early, for whoever wrote the manifest.
pub fn check_destination(destination: &Path) -> Result<(), String> {
    match forbidden(destination, &ALLOWED) {
        true => Err(format!("{}: volumes cannot be mounted on /proc or below it", destination.display())),
        false => Ok(()),
    }
}

/// What most tables fit in. The kernel gives up to a page at once, if that much is asked for.
const TABLE_BYTES: usize = 16 * 1024;

/// Inside the container, when all its mounts are there.
pub fn check_mounts() -> Result<(), String> {
    let told = |err: std::io::Error| format!("look at the mounts: {err}");
    let mut table = String::with_capacity(TABLE_BYTES);
    std::fs::File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_string(&mut table)).map_err(told)?;
    check_table(&table)
}

fn check_table(table: &str) -> Result<(), String> {
    let own: Vec<&str> = MASKED.iter().chain(&READ_ONLY).chain(&ALLOWED).copied().collect();
    let (mut seen, mut proc) = (false, 0);
    for point in table.lines().filter_map(|line| line.split(' ').nth(4)) {
        seen = true;
        proc += usize::from(point == "/proc");
        if point != "/proc" && forbidden(Path::new(point), &own) {
            return Err(format!("a mount ended up on {point}"));
        }
    }
    match (seen, proc) {
        (true, 1) => Ok(()),
        _ => Err(format!("/proc is mounted {proc} times")),
    }
}

fn forbidden(path: &Path, allowed: &[&str]) -> bool {
    path.starts_with("/proc") && !allowed.iter().any(|good| path == Path::new(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_proc() {
        for (path, good) in [
            ("/proc", false),
            ("/proc/self/attr", false),
            ("/proc/sys", false),
            ("/proc//1", false),
            ("/proc/./self", false),
            ("/process", true),
            ("/host/proc", true),
            ("/proc/meminfo", true),
        ] {
            assert_eq!(check_destination(Path::new(path)).is_ok(), good, "{path}");
        }
        let line = |point: &str| format!("1 2 0:3 / {point} rw - tmpfs tmpfs rw\n");
        let usual = ["/", "/proc", "/proc/kcore", "/proc/sys", "/etc/hosts"].map(line).concat();
        assert_eq!(check_table(&usual), Ok(()));
        for bad in ["/proc/self/attr", "/proc/1", "/proc", "/proc/sys/kernel"] {
            assert!(check_table(&(usual.clone() + &line(bad))).is_err(), "{bad}");
        }
        assert!(check_table("").is_err());
    }
}
