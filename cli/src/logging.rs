//! The log on stderr.
//!
//! In: a filter. Out: one line an event; colours only on a terminal. Never: stdout, which belongs to results.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("--log {filter:?} is not a filter: {e}"))?;
    fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|e| format!("cannot start the log: {e}"))
}
