//! Files on a FAT partition inside a larger file or drive.
//!
//! In: the target, the area. Out: changed files, read back. Never: a byte outside of the area.

use super::{InjectError, bounded};
use crate::provision::{Put, What};
use crate::table::Area;
use fatfs::{FileSystem, FsOptions};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// A window on a file.
pub struct Window {
    file: File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl Window {
    pub fn open(path: &Path, area: &Area, write: bool) -> io::Result<Window> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Window { file, start: area.start, bytes: area.bytes, at: 0 })
    }

    fn piece(&self, wanted: usize) -> usize {
        wanted.min(usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX))
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece(buf.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let n = self.file.read(&mut buf[..piece])?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Window {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let piece = self.piece(buf.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let n = self.file.write(&buf[..piece])?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => self.bytes.checked_add_signed(n),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Small blocks cost a system call each: several are kept.
type Volume = FileSystem<Window>;

fn open(target: &Path, area: &Area, write: bool) -> io::Result<Volume> {
    FileSystem::new(Window::open(target, area, write)?, FsOptions::new().update_accessed_date(false))
}

pub fn exists(target: &Path, area: &Area, path: &str) -> bool {
    open(target, area, false).is_ok_and(|v| v.root_dir().open_file(path.trim_start_matches('/')).is_ok())
}

pub fn read(target: &Path, area: &Area, path: &str) -> io::Result<Vec<u8>> {
    let volume = open(target, area, false)?;
    let mut bytes = Vec::new();
    let file = volume.root_dir().open_file(path.trim_start_matches('/'))?;
    file.take(super::INJECTED_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub fn put(target: &Path, area: &Area, files: &[Put]) -> Result<(), InjectError> {
    let volume = open(target, area, true)?;
    let mut wanted = Vec::new();
    for file in files {
        let told = |e: io::Error| InjectError::Put(file.path.clone(), e.to_string());
        let content = match &file.what {
            What::File(content) => content.clone(),
            What::Words(words) => with_words(&volume, &file.path, words).map_err(told)?,
            // FAT knows neither links nor permissions.
            What::Link(_) | What::Directory => continue,
        };
        bounded(content.len(), &file.path)?;
        write(&volume, &file.path, &content).map_err(told)?;
        wanted.push((file.path.clone(), content));
    }
    volume.unmount()?;
    for (path, content) in wanted {
        if read(target, area, &path)? != content {
            return Err(InjectError::Put(path, "it read back differently".into()));
        }
    }
    Ok(())
}

fn write(volume: &Volume, path: &str, content: &[u8]) -> io::Result<()> {
    let path = path.trim_start_matches('/');
    let mut at = String::new();
    for part in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
        at = if at.is_empty() { part.into() } else { format!("{at}/{part}") };
        volume.root_dir().create_dir(&at)?;
    }
    let mut file = volume.root_dir().create_file(path)?;
    file.truncate()?;
    file.write_all(content)?;
    file.flush()
}

/// The firmware takes the first line only; a word that is there already stays as it is.
fn with_words(volume: &Volume, path: &str, words: &[String]) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    let file = volume.root_dir().open_file(path.trim_start_matches('/'))?;
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(add_words(&text, words).into_bytes())
}

pub fn add_words(text: &str, words: &[String]) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    let key = |w: &str| w.split('=').next().unwrap_or_default().to_string();
    let mut all: Vec<String> = line.split_whitespace().map(String::from).collect();
    // The same key twice, such as two consoles, is right; our keys are meant once.
    all.retain(|w| !words.iter().any(|new| key(new) == key(w)) || words.contains(w));
    for word in words {
        if !all.contains(word) {
            all.push(word.clone());
        }
    }
    format!("{}\n", all.join(" "))
}
