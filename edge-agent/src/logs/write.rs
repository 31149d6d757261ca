//! The writer of one container's log: lines with stamps, a new file when one is full.
//!
//! In: chunks of bytes as they come. Out: whole CRI lines; what has no newline yet waits, up to a bound.
//! Never: fails the container: when the disk is full, lines are dropped and counted.

use super::{LINE_BYTES_MAX, Limits, spool::Place};
use limpet_agent_core::clock::rfc3339_nano;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub struct Writer {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    bytes: u64,
    limits: Limits,
    dropped: u64,
    /// Counts rotations, for readers that follow.
    pub generation: u64,
}

/// The unfinished line of one stream.
#[derive(Default)]
pub struct Rest(Vec<u8>);

impl Rest {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Writer {
    pub fn open(path: &Path, limits: Limits) -> Writer {
        let mut writer =
            Writer { path: path.into(), file: None, inode: 0, bytes: 0, limits, dropped: 0, generation: 0 };
        writer.reopen();
        writer
    }

    fn reopen(&mut self) {
        if let Some(dir) = self.path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        match OpenOptions::new().append(true).create(true).open(&self.path) {
            Ok(file) => {
                (self.inode, self.bytes) = file.metadata().map_or((0, 0), |m| (m.ino(), m.len()));
                self.file = Some(file);
            }
            Err(e) => {
                log::warn!("logs: cannot write {}: {e}", self.path.display());
                self.file = None;
            }
        }
    }

    /// Where the log stands now.
    pub fn place(&self) -> Place {
        let inode = if self.file.is_some() { self.inode } else { 0 };
        Place { inode, bytes: self.bytes }
    }

    /// Takes back what an agent that was killed wrote and did not mark: it comes again from the spool.
    pub fn back_to(&mut self, marked: Place) {
        let now = self.place();
        // Another file than the marked one was begun by the very write that was not marked.
        let bytes = if now.inode == marked.inode { marked.bytes } else { 0 };
        if marked.inode != 0 && bytes < now.bytes && self.file.as_ref().is_some_and(|f| f.set_len(bytes).is_ok()) {
            self.bytes = bytes;
        }
    }

    /// Writes what is complete in `chunk`. `stream` is `stdout` or `stderr`.
    pub fn chunk(&mut self, stream: &str, wall_ns: u128, rest: &mut Rest, chunk: &[u8]) {
        let stamp = rfc3339_nano(wall_ns);
        let mut out = Vec::with_capacity(chunk.len() + 64);
        let mut line = |tag: char, head: &[u8], body: &[u8]| {
            out.extend_from_slice(stamp.as_bytes());
            out.push(b' ');
            out.extend_from_slice(stream.as_bytes());
            out.extend_from_slice(&[b' ', tag as u8, b' ']);
            out.extend_from_slice(head);
            out.extend_from_slice(body);
            out.push(b'\n');
        };
        let mut chunk = chunk;
        loop {
            let room = LINE_BYTES_MAX - rest.0.len().min(LINE_BYTES_MAX);
            match chunk.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(at) => {
                    line('F', &rest.0, &chunk[..at]);
                    rest.0 = Vec::new();
                    chunk = &chunk[at + 1..];
                }
                None if chunk.len() > room => {
                    line('P', &rest.0, &chunk[..room]);
                    rest.0 = Vec::new();
                    chunk = &chunk[room..];
                }
                None => {
                    rest.0.extend_from_slice(chunk);
                    break;
                }
            }
        }
        self.write(&out);
    }

    /// The stream is over: what waits becomes a last, partial line.
    pub fn finish(&mut self, stream: &str, wall_ns: u128, rest: &mut Rest) {
        if !rest.0.is_empty() {
            let text = String::from_utf8_lossy(&rest.0).into_owned();
            self.write(format!("{} {stream} P {text}\n", rfc3339_nano(wall_ns)).as_bytes());
            rest.0 = Vec::new();
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.limits.file_bytes_max {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(lines).is_ok(),
            None => false,
        };
        if written {
            self.bytes += lines.len() as u64;
        } else {
            // Half a line would be taken for the beginning of the next one.
            if let Some(file) = &self.file {
                let _ = file.set_len(self.bytes);
            }
            if self.dropped == 0 {
                log::warn!("logs: {} cannot be written (disk full?); lines are lost", self.path.display());
            }
            self.dropped += 1;
            self.file = None;
        }
    }

    fn rotate(&mut self) {
        let older = rotated(&self.path);
        let next = older.last().and_then(|p| order_of(p)).unwrap_or(0) + 1;
        let keep = self.limits.files_max.max(2) - 2;
        for path in older.iter().take(older.len().saturating_sub(keep)) {
            if self.limits.kept {
                super::count_removed(path);
            }
            let _ = std::fs::remove_file(path);
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{next:08}"));
        let _ = std::fs::rename(&self.path, name);
        self.generation += 1;
        self.reopen();
    }
}

pub fn order_of(path: &Path) -> Option<u64> {
    path.extension()?.to_str()?.parse().ok()
}

/// `<path>.<order>`, oldest first.
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|e| e.path())
        .filter(|p| order_of(p).is_some())
        .collect();
    found.sort();
    found
}
