//! What a device has: pieces of the files in its unpacked layers.
//!
//! In: directories. Out: where each piece lies. Never: follows a link, leaves the file system it began in, or remembers
//! more than `PIECES_MAX` pieces.

use super::{Name, PIECE_BYTES_MIN, cut, name};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PIECES_MAX: usize = 1 << 20;
const FILES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 128;

#[derive(Default)]
pub struct Base {
    files: Vec<PathBuf>,
    places: HashMap<Name, Place>,
    /// The file that was read last stays open: neighbours in an archive are neighbours in a file.
    open: Option<(u32, File)>,
}

#[derive(Clone, Copy)]
struct Place {
    file: u32,
    length: u32,
    offset: u64,
}

impl Base {
    /// Looks only for pieces of these names: what nobody wants is not remembered.
    pub fn scan(roots: &[PathBuf], wanted: &HashSet<Name>) -> Result<Base> {
        let mut base = Base::default();
        for root in roots {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = rustix::fs::open(root, flags, Mode::empty())?;
            let device = rustix::fs::fstat(&dir)?.st_dev;
            base.walk(dir, root, device, wanted, 0)?;
        }
        Ok(base)
    }

    fn walk(&mut self, dir: OwnedFd, path: &Path, device: u64, wanted: &HashSet<Name>, depth: usize) -> Result<()> {
        let entries: Vec<_> = Dir::read_from(&dir)?.filter_map(|entry| entry.ok()).collect();
        for entry in entries {
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let name = entry.file_name();
            let Ok(found) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let at = path.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if found.st_dev != device {
                continue;
            }
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory if depth < DEPTH_MAX => {
                    if let Ok(inner) = rustix::fs::openat(&dir, name, flags | OFlags::DIRECTORY, Mode::empty()) {
                        self.walk(inner, &at, device, wanted, depth + 1)?;
                    }
                }
                FileType::RegularFile if found.st_size as u64 >= PIECE_BYTES_MIN => {
                    if let Ok(file) = rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                        self.file(File::from(file), at, wanted)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, file: File, path: PathBuf, wanted: &HashSet<Name>) -> Result<()> {
        if self.files.len() >= FILES_MAX {
            return Ok(());
        }
        let (index, mut offset, mut used) = (self.files.len() as u32, 0u64, false);
        cut::each(&file, |piece| {
            let name = name(piece);
            if self.places.len() < PIECES_MAX && wanted.contains(&name) {
                self.places.entry(name).or_insert(Place { file: index, length: piece.len() as u32, offset });
                used = true;
            }
            offset += piece.len() as u64;
            Ok(())
        })?;
        if used {
            self.files.push(path);
        }
        Ok(())
    }

    pub fn has(&self, name: Name, length: u32) -> bool {
        self.places.get(&name).is_some_and(|place| place.length == length)
    }

    /// The piece's bytes; `false` when it is not here.
    pub fn read(&mut self, name: Name, into: &mut Vec<u8>) -> Result<bool> {
        let Some(place) = self.places.get(&name).copied() else { return Ok(false) };
        if self.open.as_ref().is_none_or(|(index, _)| *index != place.file) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::open(&self.files[place.file as usize], flags, Mode::empty())?;
            self.open = Some((place.file, File::from(file)));
        }
        into.resize(place.length as usize, 0);
        match &self.open {
            Some((_, file)) => file.read_exact_at(into, place.offset)?,
            None => return Ok(false),
        }
        Ok(true)
    }

    pub fn pieces(&self) -> usize {
        self.places.len()
    }
}
