//! Reads a container's log back, as `kubectl logs` wants it.
//!
//! In: the files of one attempt, options, and whether more may come. Out: text in chunks, through a channel that may
//! be slow. Source: options of `GET /api/v1/namespaces/{ns}/pods/{name}/log` in the Kubernetes API reference.
//! Never: holds more than one block in memory.

use super::{Logs, files_of};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

const BLOCK_BYTES: u64 = 16 * 1024;
/// What `tail_text` looks at: a line of a log file at its longest, and what comes after it.
const TAIL_BYTES: u64 = 24 * 1024;
const CHUNK_BYTES: usize = 12 * 1024;
const CRI_LINE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub follow: bool,
    pub timestamps: bool,
    /// Only lines stamped at or after this, milliseconds since 1970.
    pub since_ms: Option<u64>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

/// Where a reader that follows hears that there is more.
pub trait News {
    /// Whether the container's output may still grow.
    fn is_open(&self, id: &str) -> bool;
    /// Counts with what was written.
    fn version(&self, id: &str) -> u64;
    /// Returns when there may be more than at `version`, or nothing comes any more.
    fn changed(&self, id: &str, version: u64) -> impl Future<Output = ()> + Send;
}

impl News for Logs {
    fn is_open(&self, id: &str) -> bool {
        Logs::is_open(self, id)
    }

    fn version(&self, id: &str) -> u64 {
        Logs::version(self, id)
    }

    fn changed(&self, id: &str, version: u64) -> impl Future<Output = ()> + Send {
        Logs::changed(self, id, version)
    }
}

/// Sends the log until its end, or with `follow` until the container's. An error is a sentence for the user.
pub async fn read(
    path: &Path,
    container_id: &str,
    logs: &impl News,
    options: &ReadOptions,
    out: &mpsc::Sender<Vec<u8>>,
) -> Result<(), String> {
    let mut filter = Filter { options: options.clone(), left: options.limit_bytes.unwrap_or(u64::MAX), inside: false };
    let (mut files, offset) = start(path, options.tail_lines);
    let mut offset = Some(offset);
    while !files.is_empty() {
        let current = files.remove(0);
        let last = files.is_empty();
        let Ok(file) = File::open(&current) else { continue };
        let mut reader = BufReader::with_capacity(8 * 1024, file);
        if let Some(offset) = offset.take() {
            reader.seek(SeekFrom::Start(offset)).map_err(|e| e.to_string())?;
        }
        if !(last && options.follow) {
            copy(&mut reader, &mut filter, out).await?;
        } else {
            follow(&mut reader, path, container_id, logs, &mut filter, out).await?;
        }
        if filter.left == 0 {
            break;
        }
    }
    Ok(())
}

async fn follow(
    reader: &mut BufReader<File>,
    path: &Path,
    id: &str,
    logs: &impl News,
    filter: &mut Filter,
    out: &mpsc::Sender<Vec<u8>>,
) -> Result<(), String> {
    loop {
        let version = logs.version(id);
        let open = logs.is_open(id);
        copy(reader, filter, out).await?;
        if let Some(next) = successor(reader.get_ref(), path) {
            // The file was rotated away; what came before the rename is read to its end first.
            copy(reader, filter, out).await?;
            *reader = BufReader::with_capacity(8 * 1024, next);
            continue;
        }
        if !open || filter.left == 0 {
            return Ok(());
        }
        tokio::select! {
            () = logs.changed(id, version) => {}
            () = out.closed() => return Ok(()),
        }
    }
}

/// The file after `current` in order of writing; `None` while `current` is the newest.
fn successor(current: &File, path: &Path) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let inode = current.metadata().ok()?.ino();
    let files = files_of(path);
    let is_current = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.ino() == inode);
    let next = files.iter().position(is_current).map_or(0, |at| at + 1);
    File::open(files.get(next)?).ok()
}

struct Filter {
    options: ReadOptions,
    left: u64,
    /// The last piece was not the end of its line.
    inside: bool,
}

/// Copies all complete lines that are there.
async fn copy(
    reader: &mut BufReader<File>,
    filter: &mut Filter,
    out: &mpsc::Sender<Vec<u8>>,
) -> Result<(), String> {
    let mut chunk = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = reader.by_ref().take(CRI_LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let n = n.map_err(|e| format!("reading the log: {e}"))?;
        if n > 0 && line.last() != Some(&b'\n') && (n as u64) < CRI_LINE_BYTES_MAX {
            // Half-written: read it again when the rest is there.
            reader.seek_relative(-(n as i64)).map_err(|e| e.to_string())?;
        } else if n > 0 {
            filter.line(&line, &mut chunk);
            if chunk.len() < CHUNK_BYTES && filter.left > 0 {
                continue;
            }
        }
        let more = n > 0 && chunk.len() >= CHUNK_BYTES && filter.left > 0;
        if !chunk.is_empty() && out.send(std::mem::take(&mut chunk)).await.is_err() {
            filter.left = 0;
            return Ok(());
        }
        if !more {
            return Ok(());
        }
    }
}

impl Filter {
    /// Takes the CRI prefix off and appends what the user wants of one line.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(stamp), Some(_stream), Some(tag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let stamp = std::str::from_utf8(stamp).unwrap_or("");
        if let Some(since) = self.options.since_ms
            && limpet_agent_core::clock::parse_rfc3339(stamp).is_none_or(|at| at < since)
        {
            return;
        }
        let before = out.len();
        // The parts of a long line have one stamp, at its beginning.
        if self.options.timestamps && !std::mem::replace(&mut self.inside, tag == b"P") {
            out.extend_from_slice(stamp.as_bytes());
            out.push(b' ');
        }
        let text = if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        out.extend_from_slice(text);
        let added = (out.len() - before) as u64;
        if added > self.left {
            out.truncate(before + self.left as usize);
            self.left = 0;
        } else {
            self.left -= added;
        }
    }
}

/// The files to read and where in the first of them to begin, so that the last `tail` lines come.
fn start(path: &Path, tail: Option<u64>) -> (Vec<PathBuf>, u64) {
    let files = files_of(path);
    let Some(mut wanted) = tail else { return (files, 0) };
    for (index, file) in files.iter().enumerate().rev() {
        let (found, offset) = tail_offset(file, wanted).unwrap_or((0, 0));
        if found >= wanted {
            return (files[index..].to_vec(), offset);
        }
        wanted -= found;
    }
    (files, 0)
}

/// How many lines (at most `wanted`) the file has at its end, and where they begin. Parts of a line are not counted.
fn tail_offset(path: &Path, wanted: u64) -> std::io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let mut at = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, at));
    }
    let mut found = 0;
    let end = at;
    let mut block = vec![0; BLOCK_BYTES as usize];
    while at > 0 {
        let len = BLOCK_BYTES.min(at);
        at -= len;
        file.seek(SeekFrom::Start(at))?;
        let block = &mut block[..len as usize];
        file.read_exact(block)?;
        for i in (0..block.len()).rev() {
            let place = at + i as u64;
            if block[i] == b'\n' && place + 1 != end {
                found += 1;
                if found == wanted {
                    return Ok((wanted, place + 1));
                }
            }
        }
    }
    // The first line has no newline in front of it.
    Ok((found + u64::from(end > 0), 0))
}

/// The end of a log as plain text: at most so many bytes and lines.
pub fn tail_text(path: &Path, bytes_max: usize, lines_max: usize) -> String {
    let mut raw: Vec<u8> = Vec::new();
    for file in files_of(path).iter().rev() {
        let Some(room) = TAIL_BYTES.checked_sub(raw.len() as u64).filter(|room| *room > 0) else { break };
        let Ok(mut file) = File::open(file) else { continue };
        let len = file.metadata().map_or(0, |m| m.len());
        let _ = file.seek(SeekFrom::Start(len.saturating_sub(room)));
        let mut part = Vec::new();
        let _ = file.take(room).read_to_end(&mut part);
        part.append(&mut raw);
        raw = part;
    }
    let mut filter = Filter { options: ReadOptions::default(), left: u64::MAX, inside: false };
    let mut text = Vec::new();
    raw.split_inclusive(|b| *b == b'\n').for_each(|line| filter.line(line, &mut text));
    let before_last = text.len().saturating_sub(1);
    let ends = text[..before_last].iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    let lines = lines_max.checked_sub(1).map_or(text.len(), |n| ends.map(|(at, _)| at + 1).nth(n).unwrap_or(0));
    let from = text.len().saturating_sub(bytes_max).max(lines);
    String::from_utf8_lossy(&text[from..]).into_owned()
}
