//! The board's log files as the spool of kept logs: pieces from any place on, and what is left of pods that are gone.
//!
//! In: the directory of a container's logs, a place, bounds. Out: the next piece, and how many lines lie between; directories of
//! gone pods whose logs the hub does not have yet.
//! Never: copies a log; a line that is not whole.

use super::{container_dir, write};
use limpet_agent_core::kept::Chunk;
use limpet_protocol::{LogPlace, limits::LOG_PIECE_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Beside the logs of a container: lines of the files that were removed.
const REMOVED: &str = "removed";
/// Gone pods whose logs may wait for the hub.
const LEFT_MAX: usize = 64;
const ABOUT: &str = "about.json";

struct Part {
    attempt: u32,
    /// From 1 on, within the attempt.
    file: u32,
    path: PathBuf,
    bytes: u64,
}

/// All files of a container, in the order in which they were written.
fn parts(dir: &Path) -> Vec<Part> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    let mut parts = Vec::new();
    for name in names {
        let path = dir.join(&name);
        let (attempt, file) = match name.split_once(".log") {
            Some((attempt, "")) => {
                // What is written now comes after all that was put aside.
                let last = write::rotated(&path).last().and_then(|p| write::order_of(p)).unwrap_or(0);
                (attempt.parse().ok(), u32::try_from(last + 1).ok())
            }
            Some((attempt, rest)) => (attempt.parse().ok(), rest.strip_prefix('.').and_then(|n| n.parse().ok())),
            None => continue,
        };
        let (Some(attempt), Some(file)) = (attempt, file) else { continue };
        let Ok(meta) = path.metadata() else { continue };
        parts.push(Part { attempt, file, path, bytes: meta.len() });
    }
    parts.sort_by_key(|p| (p.attempt, p.file));
    parts
}

fn removed_lines(dir: &Path) -> u64 {
    std::fs::read_to_string(dir.join(REMOVED)).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// A file of a kept log is about to be removed: its lines are remembered as a number.
pub fn count_removed(path: &Path) {
    let Some(dir) = path.parent() else { return };
    let lines = File::open(path).and_then(|f| lines_within(f, u64::MAX)).unwrap_or(0);
    let all = removed_lines(dir) + lines;
    // A number that is lost with the power makes the count of lost lines too small, nothing else.
    let _ = std::fs::write(dir.join(REMOVED), all.to_string());
}

/// Whole lines in the next so many bytes.
fn lines_within(from: impl Read, bytes: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(64 * 1024, from.take(bytes));
    let mut lines = 0;
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(lines);
        }
        lines += block.iter().filter(|b| **b == b'\n').count() as u64;
        let n = block.len();
        reader.consume(n);
    }
}

/// The next piece after `from`; of what is still to come only the newest `bytes_max` bytes count. `None`: there is no whole line.
pub fn piece_after(dir: &Path, from: LogPlace, bytes_max: u64) -> Option<Chunk> {
    let parts = parts(dir);
    let (mut at, mut lost) = (from, 0);
    let known = parts.iter().any(|p| (p.attempt, p.file) == (from.attempt, from.file));
    let mut rest: Vec<&Part> = parts.iter().filter(|p| (p.attempt, p.file) >= (from.attempt, from.file)).collect();
    if !known {
        let first = rest.first()?;
        at = LogPlace { attempt: first.attempt, file: first.file, offset: 0, lines: from.lines };
        // The beginning of the oldest file that is left.
        if parts.first().is_some_and(|p| std::ptr::eq(p, *first)) {
            at.lines = removed_lines(dir).max(from.lines);
            lost = at.lines - from.lines;
        }
    }
    let ahead = |rest: &[&Part], at: &LogPlace| rest.iter().map(|p| p.bytes).sum::<u64>().saturating_sub(at.offset);
    while ahead(&rest, &at) > bytes_max && !rest.is_empty() {
        let too_many = ahead(&rest, &at) - bytes_max;
        let (bytes, lines) = skip(rest[0], at.offset, too_many).ok()?;
        if bytes == 0 {
            break;
        }
        (at.offset, at.lines, lost) = (at.offset + bytes, at.lines + lines, lost + lines);
        if at.offset >= rest[0].bytes {
            rest.remove(0);
            let next = rest.first()?;
            at = LogPlace { attempt: next.attempt, file: next.file, offset: 0, lines: at.lines };
        }
    }
    for part in rest {
        if (part.attempt, part.file) != (at.attempt, at.file) {
            at = LogPlace { attempt: part.attempt, file: part.file, offset: 0, lines: at.lines };
        }
        let text = whole_lines(part, at.offset).unwrap_or_default();
        if !text.is_empty() {
            let lines = text.iter().filter(|b| **b == b'\n').count() as u64;
            let to = LogPlace { offset: at.offset + text.len() as u64, lines: at.lines + lines, ..at };
            return Some(Chunk { from: at, to, lost, text });
        }
    }
    None
}

/// At least so many bytes further, to the end of a line or of the file: bytes and lines.
fn skip(part: &Part, offset: u64, bytes: u64) -> io::Result<(u64, u64)> {
    let there = part.bytes.saturating_sub(offset);
    let mut file = File::open(&part.path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut lines = lines_within(&mut file, bytes.min(there))?;
    if bytes >= there {
        return Ok((there, lines));
    }
    file.seek(SeekFrom::Start(offset + bytes))?;
    let mut last = Vec::new();
    let to_end = BufReader::new(file).read_until(b'\n', &mut last)? as u64;
    lines += u64::from(last.last() == Some(&b'\n'));
    Ok((bytes + to_end, lines))
}

fn whole_lines(part: &Part, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(&part.path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(LOG_PIECE_BYTES_MAX as u64).read_to_end(&mut text)?;
    let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    text.truncate(end);
    Ok(text)
}

/// A gone pod whose logs the hub does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    /// Kept containers, and how many bytes of each.
    pub containers: Vec<(String, u32)>,
}

fn left_dir(data: &Path) -> PathBuf {
    data.join("logs-left")
}

/// Moves the logs of a pod that is being removed to where they wait for the hub. The oldest go when there are too many.
pub fn put_aside(data: &Path, left: &Left) -> io::Result<()> {
    let from = data.join("pods").join(&left.uid).join("logs");
    let to = left_dir(data).join(&left.uid);
    if !from.is_dir() || to.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(left_dir(data))?;
    let mut all: Vec<_> = std::fs::read_dir(left_dir(data))?.flatten().map(|e| e.path()).collect();
    all.sort_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
    for old in all.iter().take((all.len() + 1).saturating_sub(LEFT_MAX)) {
        std::fs::remove_dir_all(old)?;
    }
    std::fs::write(from.join(ABOUT), serde_json::to_vec(left)?)?;
    std::fs::rename(&from, &to)?;
    // Only what the bound lets through is worth its room.
    for (container, bytes_max) in &left.containers {
        trim(&to.join(container), u64::from(*bytes_max));
    }
    Ok(())
}

fn trim(dir: &Path, bytes_max: u64) {
    let mut after = 0;
    for part in parts(dir).iter().rev() {
        if after >= bytes_max {
            count_removed(&part.path);
            let _ = std::fs::remove_file(&part.path);
        }
        after += part.bytes;
    }
}

/// Every gone pod whose logs wait.
pub fn left(data: &Path) -> Vec<Left> {
    let Ok(entries) = std::fs::read_dir(left_dir(data)) else { return Vec::new() };
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path.join(ABOUT)).ok()?).ok();
    entries.flatten().filter_map(|e| read(e.path())).collect()
}

impl Left {
    pub fn forget(data: &Path, uid: &str) {
        let _ = std::fs::remove_dir_all(left_dir(data).join(uid));
    }
}

/// Where a container's log is, whether its pod is gone or not.
pub fn dir_of(data: &Path, uid: &str, container: &str) -> PathBuf {
    let here = container_dir(data, uid, container);
    if here.is_dir() { here } else { left_dir(data).join(uid).join(container) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Limits, write::{Rest, Writer}};

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("limpet-kept-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn say(writer: &mut Writer, from: u32, to: u32) {
        let mut rest = Rest::default();
        for n in from..to {
            writer.chunk("stdout", u128::from(n), &mut rest, format!("line {n:05}\n").as_bytes());
        }
    }

    /// Everything after `from`, as numbers of lines; and what was lost.
    fn take(dir: &Path, from: &mut LogPlace, bytes_max: u64) -> (Vec<u32>, u64) {
        let (mut numbers, mut lost) = (Vec::new(), 0);
        while let Some(chunk) = piece_after(dir, *from, bytes_max) {
            let text = String::from_utf8(chunk.text).unwrap();
            numbers.extend(text.lines().map(|l| l.rsplit(' ').next().unwrap().parse::<u32>().unwrap()));
            assert_eq!(chunk.to.lines - chunk.from.lines, text.lines().count() as u64);
            assert_eq!(chunk.from.lines, from.lines + chunk.lost);
            lost += chunk.lost;
            *from = chunk.to;
        }
        (numbers, lost)
    }

    #[test]
    fn every_line_once_through_rotations_and_attempts() {
        let dir = dir("once");
        let limits = Limits { file_bytes_max: 4096, files_max: 3, kept: true };
        let mut at = LogPlace::default();
        let mut all = Vec::new();
        for attempt in 0..3u32 {
            let mut writer = Writer::open(&dir.join(format!("{attempt}.log")), limits);
            for step in 0..6 {
                let from = attempt * 600 + step * 100;
                say(&mut writer, from, from + 100);
                let (numbers, lost) = take(&dir, &mut at, 1 << 20);
                assert_eq!(lost, 0);
                all.extend(numbers);
            }
        }
        assert_eq!(all, (0..1800).collect::<Vec<_>>());
        assert_eq!(at.lines, 1800);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_full_spool_drops_the_oldest_and_knows_how_many() {
        let dir = dir("full");
        let limits = Limits { file_bytes_max: 4096, files_max: 3, kept: true };
        let mut at = LogPlace::default();
        let mut writer = Writer::open(&dir.join("0.log"), limits);
        say(&mut writer, 0, 10);
        assert_eq!(take(&dir, &mut at, 1 << 20).0.len(), 10);
        // Far more than the files hold: most are removed; of the rest only 2 KiB count.
        say(&mut writer, 10, 2000);
        let (numbers, lost) = take(&dir, &mut at, 2048);
        assert_eq!(numbers.last(), Some(&1999));
        assert_eq!(lost + numbers.len() as u64, 1990);
        assert!((30..=60).contains(&numbers.len()), "{}", numbers.len());
        // An attempt that is forgotten counts as well.
        let mut writer = Writer::open(&dir.join("1.log"), limits);
        say(&mut writer, 2000, 2010);
        count_removed(&dir.join("0.log"));
        for path in [dir.join("0.log")].into_iter().chain(write::rotated(&dir.join("0.log"))) {
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(take(&dir, &mut at, 2048), ((2000..2010).collect(), 0));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn half_a_line_waits() {
        let dir = dir("half");
        std::fs::write(dir.join("0.log"), "t stdout F 1\nt stdout F 2").unwrap();
        let mut at = LogPlace::default();
        assert_eq!(take(&dir, &mut at, 4096).0, [1]);
        std::fs::write(dir.join("0.log"), "t stdout F 1\nt stdout F 2\n").unwrap();
        assert_eq!(take(&dir, &mut at, 4096).0, [2]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn logs_of_gone_pods_wait_within_bounds() {
        let data = dir("left");
        for n in 0..LEFT_MAX + 3 {
            let uid = format!("u{n}");
            let logs = container_dir(&data, &uid, "c");
            std::fs::create_dir_all(&logs).unwrap();
            std::fs::write(logs.join("0.log"), "t stdout F 1\n").unwrap();
            let about = Left { uid, namespace: "d".into(), pod: "p".into(), containers: vec![("c".into(), 4096)] };
            put_aside(&data, &about).unwrap();
        }
        assert_eq!(left(&data).len(), LEFT_MAX);
        let last = format!("u{}", LEFT_MAX + 2);
        assert!(left(&data).iter().any(|l| l.uid == last));
        let mut at = LogPlace::default();
        assert_eq!(take(&dir_of(&data, &last, "c"), &mut at, 4096).0, [1]);
        Left::forget(&data, &last);
        assert_eq!(left(&data).len(), LEFT_MAX - 1);
        std::fs::remove_dir_all(data).unwrap();
    }
}
