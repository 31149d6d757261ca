//! Messages for a hub that is away, on the board's disk.
//!
//! In: messages in order. Out: the same after a restart, up to what a power cut took. Shape: length, CRC, postcard, one after
//! the other. Written only while the hub is away, without waiting for the disk; synced seldom. Rewritten when it has doubled,
//! emptied when all is delivered.
//! Never: larger than twice what is stored.

use limpet_agent_core::messages::STORE_BYTES_MAX;
use limpet_protocol::BoardMessage;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const FILE_BYTES_MAX: u64 = 2 * STORE_BYTES_MAX as u64 + 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 128 * 1024;

pub struct Spooled {
    path: PathBuf,
    bytes: u64,
}

impl Spooled {
    /// What is there; damaged ends are left out.
    pub fn open(data: &Path) -> (Spooled, Vec<BoardMessage>) {
        let path = data.join("messages");
        let content = std::fs::read(&path).unwrap_or_default();
        let mut messages = Vec::new();
        let mut rest = content.as_slice();
        while let Some((message, tail)) = one(rest) {
            messages.push(message);
            rest = tail;
        }
        let bytes = (content.len() - rest.len()) as u64;
        if !rest.is_empty()
            && let Err(e) = OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(bytes))
        {
            log::warn!("broker: {}: {e}", path.display());
        }
        (Spooled { path, bytes }, messages)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// `all`: what is stored in all, for when the file is to be written anew.
    pub fn append<'a>(&mut self, new: &[BoardMessage], all: impl Iterator<Item = &'a BoardMessage>) -> io::Result<()> {
        let mut frames = Vec::new();
        new.iter().for_each(|m| frame(m, &mut frames));
        if self.bytes + frames.len() as u64 > FILE_BYTES_MAX {
            frames.clear();
            all.for_each(|m| frame(m, &mut frames));
            let temporary = self.path.with_extension("new");
            open(&temporary, true)?.write_all(&frames)?;
            std::fs::rename(&temporary, &self.path)?;
            self.bytes = frames.len() as u64;
            return Ok(());
        }
        let mut file = open(&self.path, false)?;
        if let Err(e) = file.write_all(&frames) {
            let _ = file.set_len(self.bytes);
            return Err(e);
        }
        self.bytes += frames.len() as u64;
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        if self.bytes == 0 { Ok(()) } else { open(&self.path, false)?.sync_data() }
    }

    /// Everything is delivered.
    pub fn clear(&mut self) -> io::Result<()> {
        self.bytes = 0;
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn open(path: &Path, anew: bool) -> io::Result<File> {
    OpenOptions::new().create(true).append(!anew).write(true).truncate(anew).mode(0o600).open(path)
}

fn frame(message: &BoardMessage, out: &mut Vec<u8>) {
    let body = postcard::to_allocvec(message).unwrap_or_default();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
}

fn one(bytes: &[u8]) -> Option<(BoardMessage, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (body, rest) = rest.split_at_checked(len).filter(|_| len <= MESSAGE_BYTES_MAX)?;
    let sound = crc32fast::hash(body) == u32::from_le_bytes(*crc);
    Some((postcard::from_bytes(body).ok().filter(|_| sound)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, bytes: usize) -> BoardMessage {
        BoardMessage { number, topic: "up/t".into(), payload: vec![7; bytes], ..BoardMessage::default() }
    }

    #[test]
    fn what_was_written_comes_back_whatever_was_cut() {
        let dir = std::env::temp_dir().join(format!("limpet-messages-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let all: Vec<_> = (1..=5).map(|n| message(n, 10)).collect();
        let (mut file, there) = Spooled::open(&dir);
        assert!(there.is_empty() && file.is_empty());
        file.append(&all[..2], all.iter()).unwrap();
        file.append(&all[2..], all.iter()).unwrap();
        assert_eq!(Spooled::open(&dir).1, all);
        let whole = std::fs::read(dir.join("messages")).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(dir.join("messages"), &whole[..cut]).unwrap();
            let (mut file, there) = Spooled::open(&dir);
            assert_eq!(there, all[..there.len()]);
            file.append(&[message(9, 1)], all.iter()).unwrap();
            assert_eq!(Spooled::open(&dir).1.last().unwrap().number, 9, "cut at {cut}");
        }
        let big: Vec<_> = (1..=60).map(|n| message(n, 60_000)).collect();
        let (mut file, _) = Spooled::open(&dir);
        for m in &big {
            file.append(std::slice::from_ref(m), big[50..].iter()).unwrap();
            assert!(std::fs::metadata(dir.join("messages")).unwrap().len() <= FILE_BYTES_MAX);
        }
        file.clear().unwrap();
        assert!(Spooled::open(&dir).1.is_empty());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
