//! Everything that a group counts, for whoever asks (`/stats/summary`, metrics pages).
//!
//! In: a group's files of either version. Out: numbers; what a machine does not count is absent.
//! Never: read without a question; nothing here runs by itself.

use super::{Usage, hierarchy::Hierarchies, limits};
use crate::device::pressure::{self, Pressure};
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub usage: Usage,
    pub rss_bytes: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    /// Periods of the CPU quota: all, those in which it ran out; and how long it was held back then.
    pub cpu_periods: Option<u64>,
    pub cpu_throttled: Option<u64>,
    pub cpu_throttled_ns: Option<u64>,
    pub cpu_user_ns: Option<u64>,
    pub cpu_system_ns: Option<u64>,
    /// The most that it has used, and how often it hit its limit (v1).
    pub memory_max_bytes: Option<u64>,
    pub memory_failures: Option<u64>,
    pub mapped_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub threads_max: Option<u64>,
    /// What it may use: shares, and microseconds of CPU time in each period.
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<u64>,
    pub cpu_period_us: Option<u64>,
    pub oom_kills: u64,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

pub fn stats(hierarchies: &Hierarchies, group: &str) -> Stats {
    let mut stats = Stats {
        usage: limits::usage(hierarchies, group),
        oom_kills: limits::oom_kills(hierarchies, group),
        ..Stats::default()
    };
    let v2 = hierarchies.is_v2();
    if let Some(dir) = hierarchies.dir("memory", group) {
        memory(&dir, v2, &mut stats);
    }
    if let Some(dir) = hierarchies.dir("cpu", group) {
        let text = read(&dir.join("cpu.stat"));
        stats.cpu_periods = word(&text, "nr_periods");
        stats.cpu_throttled = word(&text, "nr_throttled");
        let micros = word(&text, "throttled_usec").map(|us| us.saturating_mul(1000));
        stats.cpu_throttled_ns = micros.or(word(&text, "throttled_time"));
        stats.cpu_shares = limits::shares(&dir, v2);
        quota(&dir, v2, &mut stats);
        let micros = |name: &str| word(&text, name).map(|us| us.saturating_mul(1000));
        (stats.cpu_user_ns, stats.cpu_system_ns) = (micros("user_usec"), micros("system_usec"));
        if v2 {
            let pressure = |what: &str| pressure::parse(&read(&dir.join(format!("{what}.pressure"))));
            stats.cpu_pressure = pressure("cpu");
            stats.memory_pressure = pressure("memory");
            stats.io_pressure = pressure("io");
        }
    }
    if let Some(dir) = hierarchies.dir("cpuacct", group) {
        let number = |file: &str| read(&dir.join(file)).trim().parse::<u64>().ok();
        stats.cpu_user_ns = stats.cpu_user_ns.or_else(|| number("cpuacct.usage_user"));
        stats.cpu_system_ns = stats.cpu_system_ns.or_else(|| number("cpuacct.usage_sys"));
    }
    if let Some(dir) = hierarchies.dir("pids", group) {
        stats.threads_max = read(&dir.join("pids.max")).trim().parse().ok();
    }
    stats
}

fn quota(dir: &Path, v2: bool, stats: &mut Stats) {
    let text = if v2 {
        read(&dir.join("cpu.max"))
    } else {
        format!("{} {}", read(&dir.join("cpu.cfs_quota_us")).trim(), read(&dir.join("cpu.cfs_period_us")).trim())
    };
    // No limit is `max` or -1.
    let mut words = text.split_whitespace().map(|w| w.parse::<u64>().ok());
    (stats.cpu_quota_us, stats.cpu_period_us) = (words.next().flatten(), words.next().flatten());
}

/// What a group has read from and written to one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskIo {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// By disk, on v2: on v1 a hierarchy more for each container would cost its start more than the figures are worth, and newer
/// kernels do not count there.
pub fn disks(hierarchies: &Hierarchies, group: &str) -> Vec<DiskIo> {
    let file = hierarchies.dir("io", group).filter(|_| hierarchies.is_v2());
    let text = file.map(|dir| read(&dir.join("io.stat"))).unwrap_or_default();
    let all = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut disk = DiskIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DiskIo::default() };
        for (name, n) in words.filter_map(|w| w.split_once('=')).filter_map(|(k, v)| Some((k, v.parse().ok()?))) {
            match name {
                "rbytes" => disk.read_bytes = n,
                "wbytes" => disk.write_bytes = n,
                "rios" => disk.reads = n,
                "wios" => disk.writes = n,
                _ => {}
            }
        }
        Some(disk).filter(|disk| disk.reads + disk.writes > 0)
    });
    all.collect()
}

fn memory(dir: &Path, v2: bool, stats: &mut Stats) {
    let text = read(&dir.join("memory.stat"));
    let (rss, cache, faults, major, mapped, most) = match v2 {
        true => ("anon", "file", "pgfault", "pgmajfault", "file_mapped", "memory.peak"),
        false => (
            "total_rss", "total_cache", "total_pgfault", "total_pgmajfault", "total_mapped_file", "memory.max_usage_in_bytes",
        ),
    };
    stats.mapped_bytes = word(&text, mapped);
    stats.rss_bytes = word(&text, rss);
    stats.cache_bytes = word(&text, cache);
    stats.page_faults = word(&text, faults);
    stats.major_page_faults = word(&text, major);
    let number = |file: &str| read(&dir.join(file)).trim().parse::<u64>().ok();
    stats.swap_bytes = if v2 { number("memory.swap.current") } else { word(&text, "total_swap") };
    stats.memory_max_bytes = number(most);
    stats.memory_failures = number("memory.failcnt");
    let limit = number(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    // v1 says "no limit" as the largest number of whole pages.
    stats.memory_limit_bytes = limit.filter(|bytes| *bytes < 1 << 62);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn word(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_quotas() {
        let root = std::env::temp_dir().join(format!("limpet-disks-{}", std::process::id()));
        std::fs::create_dir_all(root.join("g")).unwrap();
        let file = |name: &str, text: &str| std::fs::write(root.join("g").join(name), text).unwrap();
        file("io.stat", "179:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n8:0 rbytes=0 wbytes=0 rios=0 wios=0\nx y\n");
        file("cpu.max", "max 100000\n");
        let disk = DiskIo { major: 179, minor: 0, read_bytes: 4096, write_bytes: 8192, reads: 1, writes: 2 };
        let v2 = Hierarchies::V2 { root: root.clone(), offered: vec!["io".into(), "cpu".into()] };
        assert_eq!(disks(&v2, "g"), [disk]);
        assert_eq!((stats(&v2, "g").cpu_quota_us, stats(&v2, "g").cpu_period_us), (None, Some(100_000)));
        file("cpu.cfs_quota_us", "5000\n");
        file("cpu.cfs_period_us", "100000\n");
        let v1 = Hierarchies::V1(vec![("cpu".into(), root.clone())]);
        assert!(disks(&v1, "g").is_empty());
        assert_eq!((stats(&v1, "g").cpu_quota_us, stats(&v1, "g").cpu_period_us), (Some(5000), Some(100_000)));
        std::fs::remove_dir_all(root).unwrap();
    }
}
