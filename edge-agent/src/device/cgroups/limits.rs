//! Limits and counters of a group, in the files of either version.
//!
//! In: `Resources`. Out: written files; OOM kills; usage. Never: fails for a controller that the machine lacks.

use super::hierarchy::Hierarchies;
use crate::runtime::spec::Resources;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

/// What a group uses now; absent where the machine does not count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub cpu_ns: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Memory without the file cache that could go at once: what the kubelet calls the working set.
    pub working_set_bytes: Option<u64>,
    pub pids: Option<u64>,
}

pub fn apply(hierarchies: &Hierarchies, group: &str, wanted: &Resources) -> Result<()> {
    if let Some(dir) = hierarchies.dir("memory", group) {
        memory(&dir, hierarchies.is_v2(), wanted)?;
    }
    if let Some(dir) = hierarchies.dir("cpu", group) {
        cpu(&dir, hierarchies.is_v2(), wanted)?;
    }
    if let (Some(dir), Some(limit)) = (hierarchies.dir("pids", group), wanted.pids_limit) {
        set(&dir, "pids.max", &limit.to_string())?;
    }
    if let (Some(dir), Some(pages)) = (hierarchies.dir("hugetlb", group), &wanted.hugepages) {
        hugepages(&dir, hierarchies.is_v2(), pages)?;
    }
    Ok(())
}

/// As `apply` for a group that is in use: what is absent is unlimited from now on. Memory that is used already cannot be
/// taken away by a lower limit: an error then says so, and the limit stays (KEP-1287 has it that way).
pub fn update(hierarchies: &Hierarchies, group: &str, wanted: &Resources) -> Result<()> {
    let v2 = hierarchies.is_v2();
    if let Some(dir) = hierarchies.dir("memory", group) {
        update_memory(&dir, v2, wanted.memory_limit_bytes)?;
    }
    if let Some(dir) = hierarchies.dir("cpu", group) {
        cpu(&dir, v2, wanted)?;
        if wanted.cpu_quota_us.is_none() {
            let (file, value) = if v2 { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
            optional(&dir, file, value)?;
        }
    }
    Ok(())
}

fn update_memory(dir: &Path, v2: bool, limit: Option<u64>) -> Result<()> {
    let used = number(&dir.join(if v2 { "memory.current" } else { "memory.usage_in_bytes" })).unwrap_or(0);
    if let Some(limit) = limit.filter(|limit| *limit < used) {
        return Err(Error::other(format!("the memory limit {limit} is below what is used now ({used})")));
    }
    let text = limit.map_or_else(|| if v2 { "max".into() } else { "-1".into() }, |limit| limit.to_string());
    if v2 {
        return set(dir, "memory.max", &text);
    }
    // Memory alone may never be more than memory and swap together: which of them is first depends on the direction.
    let both = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
    let old = number(&dir.join(both[0])).unwrap_or(u64::MAX);
    let grows = limit.is_none_or(|limit| limit > old);
    let order = if grows { [both[1], both[0]] } else { both };
    order.iter().try_for_each(|file| optional(dir, file, &text))
}

fn memory(dir: &Path, v2: bool, wanted: &Resources) -> Result<()> {
    let Some(limit) = wanted.memory_limit_bytes else { return Ok(()) };
    let text = limit.to_string();
    if v2 {
        set(dir, "memory.max", &text)?;
        return optional(dir, "memory.swap.max", "0");
    }
    set(dir, "memory.limit_in_bytes", &text)?;
    optional(dir, "memory.memsw.limit_in_bytes", &text)
}

/// One process of a container killed means the container is broken: all of it go, as kubelet has it; also when the limit that
/// was reached is the pod's. Not for pods: their other containers stay.
pub fn end_together(hierarchies: &Hierarchies, group: &str) -> Result<()> {
    match hierarchies.dir("memory", group).filter(|_| hierarchies.is_v2()) {
        Some(dir) => optional(&dir, "memory.oom.group", "1"),
        None => Ok(()),
    }
}

/// What is not asked for is not given: otherwise any container could take the pages that another one reserved.
fn hugepages(dir: &Path, v2: bool, wanted: &std::collections::BTreeMap<String, u64>) -> Result<()> {
    let word = if v2 { ".max" } else { ".limit_in_bytes" };
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(size) = name.to_str().and_then(|n| n.strip_prefix("hugetlb.")?.strip_suffix(word)) else { continue };
        // Pages that are mapped and not touched yet (`rsvd`, since Linux 5.7) are as good as taken: nobody else gets them, and
        // who asks for too many is told so, where it would end by SIGBUS later.
        let limit = wanted.get(size.strip_suffix(".rsvd").unwrap_or(size)).copied().unwrap_or(0);
        set(dir, &format!("hugetlb.{size}{word}"), &limit.to_string())?;
    }
    Ok(())
}

fn cpu(dir: &Path, v2: bool, wanted: &Resources) -> Result<()> {
    let period = wanted.cpu_period_us.unwrap_or(100_000);
    if let Some(shares) = wanted.cpu_shares {
        set_shares(dir, v2, shares)?;
    }
    match (wanted.cpu_quota_us, v2) {
        (Some(quota), true) if quota > 0 => optional(dir, "cpu.max", &format!("{quota} {period}")),
        (Some(quota), false) if quota > 0 => {
            optional(dir, "cpu.cfs_period_us", &period.to_string())?;
            optional(dir, "cpu.cfs_quota_us", &quota.to_string())
        }
        _ => Ok(()),
    }
}

pub fn set_shares(dir: &Path, v2: bool, shares: u64) -> Result<()> {
    let shares = shares.clamp(SHARES_MIN, SHARES_MAX);
    match v2 {
        true => set(dir, "cpu.weight", &weight(shares).to_string()),
        false => set(dir, "cpu.shares", &shares.to_string()),
    }
}

/// What a group weighs, on v1's scale.
pub fn shares(dir: &Path, v2: bool) -> Option<u64> {
    match v2 {
        true => number(&dir.join("cpu.weight")).map(shares_of),
        false => number(&dir.join("cpu.shares")),
    }
}

/// The fewest shares that have this weight: `weight` gives it back.
pub fn shares_of(of: u64) -> u64 {
    let (mut least, mut most) = (SHARES_MIN, SHARES_MAX);
    while least < most {
        let middle = least.midpoint(most);
        match weight(middle) >= of {
            true => most = middle,
            false => least = middle + 1,
        }
    }
    least
}

/// Shares of v1 as a weight of v2, as runc 1.3.2, crun 1.23 and kubelet 1.35 have it: the least, the most and the usual one
/// (1024 is 100) are each other's. The straight line of KEP-2254 gave who asks for a whole CPU 39 beside a system's 100.
pub fn weight(shares: u64) -> u64 {
    match shares {
        ..=SHARES_MIN => 1,
        SHARES_MAX.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

pub fn oom_kills(hierarchies: &Hierarchies, group: &str) -> u64 {
    let Some(dir) = hierarchies.dir("memory", group) else { return 0 };
    let file = if hierarchies.is_v2() { "memory.events" } else { "memory.oom_control" };
    field(&dir.join(file), "oom_kill").unwrap_or(0)
}

pub fn usage(hierarchies: &Hierarchies, group: &str) -> Usage {
    let number = |controller: &str, file: &str| number(&hierarchies.dir(controller, group)?.join(file));
    let mut usage = Usage { pids: number("pids", "pids.current"), ..Usage::default() };
    let inactive = if hierarchies.is_v2() {
        usage.memory_bytes = number("memory", "memory.current");
        usage.cpu_ns = hierarchies
            .dir("cpu", group)
            .and_then(|dir| field(&dir.join("cpu.stat"), "usage_usec"))
            .map(|micros| micros.saturating_mul(1000));
        "inactive_file"
    } else {
        usage.memory_bytes = number("memory", "memory.usage_in_bytes");
        usage.cpu_ns = number("cpuacct", "cpuacct.usage");
        "total_inactive_file"
    };
    let idle = hierarchies.dir("memory", group).and_then(|dir| field(&dir.join("memory.stat"), inactive)).unwrap_or(0);
    usage.working_set_bytes = usage.memory_bytes.map(|bytes| bytes.saturating_sub(idle));
    usage
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a word, in files of `word number` lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

pub fn set(dir: &Path, file: &str, value: &str) -> Result<()> {
    use std::io::Write;
    // The kernel's files are there or not: nothing is made, nothing cut.
    let opened = std::fs::OpenOptions::new().write(true).open(dir.join(file));
    opened
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|err| Error::new(err.kind(), format!("write {value} to {}: {err}", dir.join(file).display())))
}

/// Kernels are built without some of these files.
fn optional(dir: &Path, file: &str, value: &str) -> Result<()> {
    match set(dir, file, value) {
        Err(err) if err.kind() == ErrorKind::NotFound || err.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}
