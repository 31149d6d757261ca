//! The device's memory: an append-only file of batches, each with length and CRC.
//!
//! In: records of the cores, in batches that belong together. Out: the same records at the next start; a file cut at
//! any byte gives back a prefix of the batches. Secrets and tokens are sealed with the device's key.
//! Never: writes when nothing changed; acknowledges before fsync; rewrites in place (compaction is a new file and a
//! rename).

mod codec;
mod key;

pub use key::{DeviceKey, write_private};

use limpet_agent_core::Record;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"LMPTJNL1";
/// One batch: a `SetChange` fits with room to spare.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Below this size compaction is not worth a write.
const COMPACT_BYTES_MIN: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The caller retries later; the journal is as it was before.
    #[error("the journal {path} cannot be written: {source}; free some space or replace the card")]
    Write { path: PathBuf, source: std::io::Error },
    /// Nobody retries: the agent cannot work without its journal.
    #[error("the journal {path} cannot be opened: {source}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a journal of this agent; move it away to start afresh")]
    Foreign { path: PathBuf },
    #[error("the journal failed before and is closed until the agent starts again")]
    Broken,
    #[error("a batch of {0} bytes is over the journal's limit")]
    TooLarge(usize),
}

pub struct Journal {
    path: PathBuf,
    file: File,
    key: DeviceKey,
    bytes: u64,
    bytes_compacted: u64,
    broken: bool,
}

impl Journal {
    /// Opens or creates `<dir>/journal` and reads all of it. What is damaged at the end is cut off.
    pub fn open(dir: &Path, key: DeviceKey) -> Result<(Journal, Vec<Record>), JournalError> {
        let path = dir.join("journal");
        let failed = |source| JournalError::Open { path: path.clone(), source };
        let _ = std::fs::remove_file(dir.join("journal.new"));
        if !path.exists() {
            create(dir, &path, &[]).map_err(failed)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        if !content.starts_with(MAGIC) {
            return Err(JournalError::Foreign { path });
        }
        let (records, good) = replay(&content, &key);
        if good < content.len() {
            let lost = content.len() - good;
            log::warn!("journal: the last {lost} bytes are damaged (power cut?) and are cut off");
            if lost > 64 * 1024 {
                let _ = std::fs::write(dir.join("journal.damaged"), &content);
            }
            file.set_len(good as u64).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(good as u64)).map_err(failed)?;
        let bytes = good as u64;
        Ok((Journal { path, file, key, bytes, bytes_compacted: bytes, broken: false }, records))
    }

    /// Makes a batch durable. On an error the file is as it was.
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.append_batch(records, true)
    }

    /// As `append`, but durable only with the next `append` or when the kernel writes it: for what may be lost in a
    /// power cut without harm.
    pub fn append_lazily(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.append_batch(records, false)
    }

    fn append_batch(&mut self, records: &[Record], sync: bool) -> Result<(), JournalError> {
        if self.broken {
            return Err(JournalError::Broken);
        }
        let frame = frame(records, &self.key)?;
        let mut written = self.file.write_all(&frame);
        if sync {
            written = written.and_then(|()| self.file.sync_data());
        }
        if let Err(source) = written {
            let back = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
            self.broken = back.is_err();
            return Err(JournalError::Write { path: self.path.clone(), source });
        }
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Whether so much has been appended that a new file with the present state would be much smaller.
    pub fn wants_compaction(&self) -> bool {
        self.bytes > COMPACT_BYTES_MIN && self.bytes > self.bytes_compacted * 3
    }

    /// Replaces the file by one with just these records. On an error the old file stays in use.
    pub fn compact(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let failed = |source| JournalError::Write { path: self.path.clone(), source };
        let mut content = Vec::new();
        // Batches of bounded size; together they are one state because the rename is atomic.
        for chunk in records.chunks(64) {
            match frame(chunk, &self.key) {
                Ok(frame) => content.extend(frame),
                Err(_) => {
                    for record in chunk {
                        content.extend(frame_one(record, &self.key)?);
                    }
                }
            }
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        create(dir, &self.path, &content).map_err(failed)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        self.bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.bytes_compacted = self.bytes;
        self.file = file;
        self.broken = false;
        Ok(())
    }
}

fn frame_one(record: &Record, key: &DeviceKey) -> Result<Vec<u8>, JournalError> {
    frame(std::slice::from_ref(record), key)
}

/// Length and CRC in front of the encoded batch.
fn frame(records: &[Record], key: &DeviceKey) -> Result<Vec<u8>, JournalError> {
    let mut out = vec![0; 8];
    for record in records {
        let body = codec::encode(record, key);
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(body);
    }
    let len = out.len() - 8;
    if len > BATCH_BYTES_MAX {
        return Err(JournalError::TooLarge(len));
    }
    let crc = crc32fast::hash(&out[8..]);
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// All records of the sound batches, and where the first unsound byte is.
fn replay(content: &[u8], key: &DeviceKey) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while let Some(batch) = batch_at(content, at) {
        let mut rest = batch;
        while let Some((len, tail)) = rest.split_at_checked(4) {
            let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
            let Some((body, tail)) = tail.split_at_checked(len) else { break };
            match codec::decode(body, key) {
                Some(record) => records.push(record),
                None => log::warn!("journal: a record of this or a newer agent cannot be read and is passed over"),
            }
            rest = tail;
        }
        at += 8 + batch.len();
    }
    (records, at)
}

fn batch_at(content: &[u8], at: usize) -> Option<&[u8]> {
    let (head, rest) = content.get(at..)?.split_at_checked(8)?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let batch = rest.get(..len).filter(|_| len > 0 && len <= BATCH_BYTES_MAX)?;
    (crc32fast::hash(batch) == crc).then_some(batch)
}

/// A new file with the magic and `content`, under a temporary name first.
fn create(dir: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join("journal.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(MAGIC)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
