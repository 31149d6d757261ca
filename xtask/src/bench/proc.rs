//! What the kernel says about processes.
//!
//! In: the path of a program. Out: memory and bytes of all processes that run it.
//! Never: counts a process by its name.

use std::{fs, path::Path, time::Duration};

/// Processes whose executable is `program`.
pub fn pids(program: &Path) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
        .collect()
}

/// Proportional set size of all of them, in bytes.
pub fn pss(program: &Path) -> Result<u64, String> {
    let pids = pids(program);
    if pids.is_empty() {
        return Err(format!("{} does not run", program.display()));
    }
    let one = |pid: &i32| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").map(|kib| kib * 1024);
    Ok(pids.iter().filter_map(one).sum())
}

/// Looks at a board that rests, a second apart.
const LOOKS: u32 = 30;

/// Memory in bytes: all of it, and what is not pages of files. The least of several looks: a probe may just be running, and which
/// pages of the program are there depends on who ran last.
pub fn least(program: &Path) -> Result<(u64, u64), String> {
    let mut least = (u64::MAX, u64::MAX);
    for _ in 0..LOOKS {
        let own = |pid: &i32| field(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:").map(|kib| kib * 1024);
        let own: u64 = pids(program).iter().filter_map(own).sum();
        least = (least.0.min(pss(program)?), least.1.min(own));
        rest(Duration::from_secs(1));
    }
    Ok(least)
}

/// Bytes that all of them have caused to be written to a disk.
pub fn written(program: &Path) -> u64 {
    pids(program).iter().filter_map(|pid| field(&format!("/proc/{pid}/io"), "write_bytes:")).sum()
}

/// Seconds of processor time of all of them.
pub fn cpu_seconds(program: &Path) -> f64 {
    let ticks = |pid: &i32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(rest.get(11)?.parse::<f64>().ok()? + rest.get(12)?.parse::<f64>().ok()?)
    };
    pids(program).iter().filter_map(ticks).sum::<f64>() / 100.0
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets time pass; a benchmark is the one place where that is what is wanted.
#[allow(clippy::disallowed_methods)]
pub fn rest(time: Duration) {
    std::thread::sleep(time);
}
