//! Container logs: written as CRI lines, rotated by size, read back for `kubectl logs`.
//!
//! In: what containers write to their pipes or terminals. Out: files `<data>/pods/<uid>/logs/<container>/<attempt>.log`
//! with lines `<rfc3339nano> stdout F text`, and copies for whoever is attached.
//! Never: syncs to flash, keeps more than a bounded number of bytes, or lets a slow reader hold up a container.

mod kept;
mod pump;
mod read;
mod reader;
mod spool;
mod write;

pub use kept::{Left, count_removed, dir_of, left, piece_after, put_aside};
pub use pump::{Begin, Grown, Logs, Sources};
pub use read::{News, ReadOptions, read, tail_text};

use std::path::{Path, PathBuf};

/// Bytes of one line after which it is cut into parts (`P`).
pub const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub file_bytes_max: u64,
    pub files_max: usize,
    /// The hub keeps this log: lines that are removed are counted.
    pub kept: bool,
}

pub fn container_dir(data: &Path, uid: &str, container: &str) -> PathBuf {
    data.join("pods").join(uid).join("logs").join(container)
}

pub fn file(data: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    container_dir(data, uid, container).join(format!("{attempt}.log"))
}

/// The files of one attempt, oldest first: `<n>.log.<order>` and then `<n>.log`.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let mut rotated = write::rotated(path);
    rotated.push(path.to_path_buf());
    rotated
}

/// Removes the logs of attempts older than the previous one; `kept`: and counts their lines.
pub fn forget_old_attempts(data: &Path, uid: &str, container: &str, attempt: u32, kept: bool) {
    let Ok(entries) = std::fs::read_dir(container_dir(data, uid, container)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.split('.').next()).and_then(|n| n.parse::<u32>().ok());
        if number.is_some_and(|n| n + 1 < attempt) {
            if kept {
                count_removed(&entry.path());
            }
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
