//! How large the store's window and caches are, and which resources may reach the disk later.
//!
//! In: nothing. Out: `Options`. Never: settings that change what a client may rely on.

use std::{path::PathBuf, time::Duration};

#[derive(Clone, Debug)]
pub struct Options {
    /// Events that the watch window keeps at most.
    pub window_events: usize,
    /// Bytes of the objects in those events at most.
    pub window_bytes: usize,
    /// redb's own page cache. Reads come from memory, so it only serves the writer.
    pub cache_bytes: usize,
    /// Resources whose writes are answered before they are durable (heartbeats): a crash may take them back to the
    /// last flush, never to a revision that somebody else gets again.
    pub relaxed: Vec<&'static str>,
    /// Resources that are sealed on disk, with the keys of `keys`.
    pub sealed: Vec<&'static str>,
    /// The key file; made when missing. `None`: nothing is sealed.
    pub keys: Option<PathBuf>,
    /// How long a relaxed write may wait for the disk.
    pub relaxed_flush: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            window_events: 8192,
            window_bytes: 16 * 1024 * 1024,
            cache_bytes: 2 * 1024 * 1024,
            relaxed: Vec::new(),
            sealed: Vec::new(),
            keys: None,
            relaxed_flush: Duration::from_secs(60),
        }
    }
}
