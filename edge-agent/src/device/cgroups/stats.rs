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
    pub memory_limit_bytes: Option<u64>,
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
        if v2 {
            let pressure = |what: &str| pressure::parse(&read(&dir.join(format!("{what}.pressure"))));
            stats.cpu_pressure = pressure("cpu");
            stats.memory_pressure = pressure("memory");
            stats.io_pressure = pressure("io");
        }
    }
    stats
}

fn memory(dir: &Path, v2: bool, stats: &mut Stats) {
    let text = read(&dir.join("memory.stat"));
    let (rss, cache, faults, major) = match v2 {
        true => ("anon", "file", "pgfault", "pgmajfault"),
        false => ("total_rss", "total_cache", "total_pgfault", "total_pgmajfault"),
    };
    stats.rss_bytes = word(&text, rss);
    stats.cache_bytes = word(&text, cache);
    stats.page_faults = word(&text, faults);
    stats.major_page_faults = word(&text, major);
    let number = |file: &str| read(&dir.join(file)).trim().parse::<u64>().ok();
    stats.swap_bytes = if v2 { number("memory.swap.current") } else { word(&text, "total_swap") };
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
