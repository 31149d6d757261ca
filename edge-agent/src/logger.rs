//! Lines on stderr: `time level message`, no more.
//!
//! In: `log` records. Out: stderr. The level comes from LIMPET_LOG or the configuration.
//! Never: a secret (nobody passes one), or a file: whoever starts the agent keeps what it says.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;

struct Stderr;

static LOGGER: Stderr = Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries are heard only when they warn.
        metadata.target().starts_with("limpet") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let stamp = limpet_agent_core::clock::rfc3339_micro(now.map_or(0, |d| d.as_millis() as u64));
        let line = format!("{stamp} {} {}\n", record.level(), record.args());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// The first call counts.
pub fn start(configured: &str) {
    let wanted = std::env::var("LIMPET_LOG").unwrap_or_else(|_| configured.to_string());
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(wanted.parse().unwrap_or(LevelFilter::Info));
    }
}
