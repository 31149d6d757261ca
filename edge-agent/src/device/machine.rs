//! What the whole machine uses now: CPU, memory, network, file systems.
//!
//! In: /proc, /sys. Out: numbers. Never: read without a question.

use super::pressure::{self, Pressure};
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    pub cpu_ns: u64,
    pub memory_total: u64,
    pub memory_available: u64,
    pub memory_free: u64,
    pub memory_anon: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
    pub pid_max: u64,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// One network interface's counters, seen from its owner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    /// Packets that came, that were sent, and those of each that were dropped.
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fs {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub inodes_used: u64,
}

/// Of more processes in one group nobody counts what they have open.
const PROCESSES_MAX: usize = 1000;
/// The kernel counts CPU time in hundredths of a second for everybody.
const TICK_NS: u64 = 10_000_000;

pub fn machine() -> Machine {
    let info = read("/proc/meminfo");
    let kib = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let faults = read("/proc/vmstat");
    let count = |name: &str| {
        let line = faults.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    };
    Machine {
        cpu_ns: busy_ns(&read("/proc/stat")),
        memory_total: kib("MemTotal"),
        memory_available: kib("MemAvailable"),
        memory_free: kib("MemFree"),
        memory_anon: kib("AnonPages"),
        swap_total: kib("SwapTotal"),
        swap_free: kib("SwapFree"),
        page_faults: count("pgfault"),
        major_page_faults: count("pgmajfault"),
        processes: processes(&read("/proc/loadavg")),
        pid_max: read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0),
        cpu_pressure: pressure::of_machine("cpu"),
        memory_pressure: pressure::of_machine("memory"),
        io_pressure: pressure::of_machine("io"),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Everything but idling and waiting for disks (fields 4 and 5 of the first line); guests count as user already.
fn busy_ns(stat: &str) -> u64 {
    let line = stat.lines().next().and_then(|l| l.strip_prefix("cpu ")).unwrap_or("");
    let ticks = line.split_whitespace().take(8).map(|n| n.parse::<u64>().unwrap_or(0));
    ticks.enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, n)| n).sum::<u64>() * TICK_NS
}

/// The fourth word of /proc/loadavg is `running/all`.
fn processes(loadavg: &str) -> u64 {
    let word = loadavg.split_whitespace().nth(3).and_then(|w| w.split_once('/'));
    word.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// The machine's interfaces but loopback, those of pods included.
pub fn interfaces() -> Vec<Interface> {
    let text = read("/proc/net/dev");
    let all = text.lines().skip(2).filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().map(|w| w.parse().unwrap_or(0)).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        let name = name.trim().to_string();
        Some(Interface {
            name,
            rx_bytes: at(0),
            rx_errors: at(2),
            tx_bytes: at(8),
            tx_errors: at(10),
            rx_packets: at(1),
            tx_packets: at(9),
            rx_dropped: at(3),
            tx_dropped: at(11),
        })
    });
    all.filter(|i| i.name != "lo").collect()
}

/// A pod's interface by its other end on the host: what that one sends, the pod receives.
pub fn pod_interface(all: &[Interface], host_link: &str) -> Option<Interface> {
    let host = all.iter().find(|i| i.name == host_link)?;
    Some(Interface {
        name: "eth0".into(),
        rx_bytes: host.tx_bytes,
        rx_errors: host.tx_errors,
        tx_bytes: host.rx_bytes,
        tx_errors: host.rx_errors,
        rx_packets: host.tx_packets,
        tx_packets: host.rx_packets,
        rx_dropped: host.tx_dropped,
        tx_dropped: host.rx_dropped,
    })
}

/// `/dev/mmcblk0`; the number where the kernel has no name for it.
pub fn disk_name(major: u32, minor: u32) -> String {
    let text = read(&format!("/sys/dev/block/{major}:{minor}/uevent"));
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// The disk that a directory is on; empty where that is none (a tmpfs, an overlay).
pub fn disk_of(dir: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::metadata(dir) else { return String::new() };
    let (major, minor) = (nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
    if major == 0 { String::new() } else { disk_name(major as u32, minor as u32) }
}

/// What processes have open: descriptors, and those of them that are sockets.
pub fn open_files(pids: &[i32]) -> (u64, u64) {
    let (mut all, mut sockets) = (0, 0);
    for pid in pids.iter().take(PROCESSES_MAX) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            all += 1;
            let target = std::fs::read_link(entry.path());
            sockets += u64::from(target.is_ok_and(|t| t.to_string_lossy().starts_with("socket:")));
        }
    }
    (all, sockets)
}

// The widths of statvfs fields differ between targets.
#[allow(clippy::unnecessary_cast)]
pub fn file_system(dir: &Path) -> Fs {
    let Ok(s) = nix::sys::statvfs::statvfs(dir) else { return Fs::default() };
    let unit = s.fragment_size() as u64;
    let blocks = |n: u64| n * unit;
    Fs {
        capacity: blocks(s.blocks() as u64),
        available: blocks(s.blocks_available() as u64),
        used: blocks((s.blocks() as u64).saturating_sub(s.blocks_free() as u64)),
        inodes: s.files() as u64,
        inodes_free: s.files_free() as u64,
        inodes_used: (s.files() as u64).saturating_sub(s.files_free() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_this_machine() {
        assert_eq!(busy_ns("cpu  1 2 3 100 50 4 5 6 7 8\ncpu0 1"), (1 + 2 + 3 + 4 + 5 + 6) * TICK_NS);
        assert_eq!(processes("0.1 0.2 0.3 2/345 678"), 345);
        let m = machine();
        assert!(m.memory_total > m.memory_available && m.memory_available > 0 && m.cpu_ns > 0 && m.processes > 0);
        let fs = file_system(Path::new("/"));
        assert!(fs.capacity >= fs.used && fs.capacity > 0);
        assert_eq!((disk_name(999, 7).as_str(), disk_of(Path::new("/proc")).as_str()), ("999:7", ""));
        let (all, sockets) = open_files(&[std::process::id() as i32]);
        assert!(all > 2 && sockets < all, "{all} {sockets}");
    }
}
