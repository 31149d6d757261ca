//! What the kernel says about the server's process.
//!
//! In: a process number, when the server runs here. Out: memory in bytes, processor time.

use std::{fs, time::Duration};

pub struct Server(Option<u32>);

impl Server {
    pub fn new(pid: Option<u32>) -> Server {
        Server(pid)
    }

    /// This program itself.
    pub fn own() -> Server {
        Server(Some(std::process::id()))
    }

    /// Resident and proportional set size.
    pub fn memory(&self) -> Option<(u64, u64)> {
        Some((self.rollup("Rss:")?, self.rollup("Pss:")?))
    }

    /// What is in memory and in no file.
    pub fn anonymous(&self) -> Option<u64> {
        self.rollup("Anonymous:")
    }

    fn rollup(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0?)).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// User and system time so far, of all threads, those that ended too.
    pub fn cpu(&self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0?)).ok()?;
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = rest.get(11)?.parse::<u64>().ok()? + rest.get(12)?.parse::<u64>().ok()?;
        // The kernel counts in hundredths for user space on every architecture.
        Some(Duration::from_millis(ticks * 10))
    }
}
