//! Applies the entries of an archive to a tree, one after the other.
//!
//! In: entries. Out: files, directories, links and devices with owner, mode, times and attributes; whiteouts.
//! Never: keeps an earlier entry's link when a later one says otherwise (the last entry wins, as with every unpacker).

use super::names::{self, FORCED, Meaning};
use super::tree::{self, Place, Tree, TreeError};
use super::{UnpackError, Unpacked, file_error, tar_error};
use crate::limits::LayerLimits;
use crate::tar::{Area, Entry, Kind, Reader, Time};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Past this, kernels and tools take an id for a negative one (CVE-2024-40635).
const ID_MAX: u64 = i32::MAX as u64;
const COPY_BYTES: usize = 128 * 1024;

pub fn apply<R: Read>(reader: &mut Reader<R>, into: &Path, limits: &LayerLimits) -> Result<Unpacked, UnpackError> {
    let tree = Tree::open(into).map_err(|e| file_error(format!("opening {}", into.display()), e))?;
    // What is in the archive about the root comes later and wins.
    let root_mode = Mode::from_raw_mode(0o755);
    rustix::fs::fchmod(&*tree.root().fd, root_mode).map_err(|e| file_error("setting the root's mode".to_string(), e))?;
    let buffer = vec![0; COPY_BYTES];
    let mut layer = Layer { tree, limits, buffer, times: Vec::new(), done: Unpacked::default() };
    while let Some(entry) = reader.next_entry().map_err(tar_error)? {
        layer.done.entries += 1;
        if layer.done.entries > limits.entries_max {
            let max = limits.entries_max;
            return Err(UnpackError::TooLarge(format!("it has more than the {max} entries allowed")));
        }
        layer.entry(reader, &entry).map_err(|e| e.at(&entry.path))?;
    }
    layer.set_directory_times();
    Ok(layer.done)
}

struct Layer<'a> {
    tree: Tree,
    limits: &'a LayerLimits,
    buffer: Vec<u8>,
    /// Writing into a directory changes its time, so directories get theirs at the end.
    times: Vec<(Vec<u8>, Time)>,
    done: Unpacked,
}

/// What can go wrong with one entry; its path is added once, in `apply`.
enum EntryError {
    Refused(&'static str),
    Os(&'static str, Errno),
    Unpack(UnpackError),
}

impl EntryError {
    fn at(self, path: &[u8]) -> UnpackError {
        let path: String = String::from_utf8_lossy(path).chars().take(300).collect();
        match self {
            EntryError::Refused(why) => UnpackError::Refused { path, why },
            EntryError::Os(what, errno) => file_error(format!("{what} {path:?}"), errno),
            EntryError::Unpack(error) => error,
        }
    }
}

impl From<TreeError> for EntryError {
    fn from(error: TreeError) -> EntryError {
        match error {
            TreeError::Refused(why) => EntryError::Refused(why),
            TreeError::Os(errno) => EntryError::Os("reaching the directory of", errno),
        }
    }
}

fn os(what: &'static str) -> impl Fn(Errno) -> EntryError {
    move |errno| EntryError::Os(what, errno)
}

type Done = Result<(), EntryError>;

impl Layer<'_> {
    fn entry<R: Read>(&mut self, reader: &mut Reader<R>, entry: &Entry) -> Done {
        if entry.uid > ID_MAX || entry.gid > ID_MAX {
            return Err(EntryError::Refused("its owner's id is larger than 2147483647"));
        }
        let parts = names::components(&entry.path).map_err(EntryError::Refused)?;
        match names::meaning(&parts).map_err(EntryError::Refused)? {
            Meaning::Ignored => Ok(()),
            Meaning::Root if entry.kind == Kind::Directory => {
                let root = self.tree.root();
                self.finish_directory(entry, &root.fd)
            }
            Meaning::Root => Err(EntryError::Refused("the root must be a directory")),
            Meaning::Opaque { directory } => self.opaque(directory),
            Meaning::Whiteout { parent, name } => self.whiteout(parent, name),
            Meaning::Plain { parent, name } => {
                let place = self.tree.directory(parent, true)?;
                self.plain(reader, entry, &place, name)
            }
        }
    }

    fn opaque(&mut self, directory: &[&[u8]]) -> Done {
        let place = self.tree.directory(directory, true)?;
        if place.is_root {
            self.done.hides_all = true;
        }
        set_opaque(&place.fd)
    }

    /// Hides `name` of lower layers; what this layer itself has there stays (layer.md: whiteouts apply to lower layers).
    fn whiteout(&mut self, parent: &[&[u8]], name: &[u8]) -> Done {
        let place = self.tree.directory(parent, true)?;
        let there = place.stat(name).map_err(os("looking at"))?;
        let forced = place.is_root && FORCED.contains(&name);
        match there {
            Some(stat) if tree::file_type(&stat) == FileType::Directory => {
                set_opaque(&place.open_directory(name).map_err(os("opening"))?)
            }
            Some(_) => Ok(()),
            // The runtime mounts on these: they are emptied instead of removed.
            None if forced => {
                rustix::fs::mkdirat(&*place.fd, name, Mode::from_raw_mode(0o755)).map_err(os("making"))?;
                set_opaque(&place.open_directory(name).map_err(os("opening"))?)
            }
            None => make_node(&place, name, FileType::CharacterDevice, 0o000, 0).map_err(os("making a whiteout for")),
        }
    }

    fn plain<R: Read>(&mut self, reader: &mut Reader<R>, entry: &Entry, place: &Place, name: &[u8]) -> Done {
        if place.is_root && FORCED.contains(&name) && entry.kind != Kind::Directory {
            return Err(EntryError::Refused("it must be a real directory: the runtime mounts there"));
        }
        let there = place.stat(name).map_err(os("looking at"))?;
        match &entry.kind {
            Kind::Directory => self.directory(entry, place, name, there),
            Kind::HardLink(target) => self.hard_link(place, name, there, target),
            _ => {
                self.clear(place, name, there)?;
                match &entry.kind {
                    Kind::Symlink(target) => self.symlink(entry, place, name, target),
                    Kind::Char { major: 0, minor: 0 } => {
                        Err(EntryError::Refused("device 0:0 is overlayfs' mark of a removed file"))
                    }
                    Kind::Char { major, minor } => {
                        device(entry, place, name, FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
                    }
                    Kind::Block { major, minor } => {
                        device(entry, place, name, FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
                    }
                    Kind::Fifo => device(entry, place, name, FileType::Fifo, 0),
                    _ => self.file(reader, entry, place, name),
                }
            }
        }
    }

    /// Makes room for an entry that replaces an earlier one.
    fn clear(&mut self, place: &Place, name: &[u8], there: Option<Stat>) -> Done {
        let Some(stat) = there else { return Ok(()) };
        self.tree.forget();
        place.remove(name, &stat).map_err(os("replacing"))
    }

    fn directory(&mut self, entry: &Entry, place: &Place, name: &[u8], there: Option<Stat>) -> Done {
        let exists = there.as_ref().is_some_and(|s| tree::file_type(s) == FileType::Directory);
        let hidden_below = there.as_ref().is_some_and(tree::is_whiteout);
        if !exists {
            self.clear(place, name, there)?;
            rustix::fs::mkdirat(&*place.fd, name, Mode::from_raw_mode(0o700)).map_err(os("making"))?;
        }
        let fd = place.open_directory(name).map_err(os("opening"))?;
        if hidden_below {
            set_opaque(&fd)?;
        }
        self.finish_directory(entry, &fd)
    }

    fn finish_directory(&mut self, entry: &Entry, fd: &OwnedFd) -> Done {
        self.own_and_mode(entry, fd)?;
        self.times.push((entry.path.clone(), entry.mtime));
        Ok(())
    }

    fn file<R: Read>(&mut self, reader: &mut Reader<R>, entry: &Entry, place: &Place, name: &[u8]) -> Done {
        if entry.size > self.limits.file_bytes_max {
            return Err(EntryError::Refused("the file is larger than allowed"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*place.fd, name, flags, Mode::from_raw_mode(0o600)).map_err(os("making"))?;
        let file = File::from(fd);
        let whole = [Area { offset: 0, length: entry.size }];
        for area in entry.sparse.as_deref().unwrap_or(&whole) {
            self.copy(reader, &file, *area)?;
        }
        if entry.sparse.is_some() {
            rustix::fs::ftruncate(&file, entry.size).map_err(os("sizing"))?;
        }
        self.own_and_mode(entry, &file)?;
        rustix::fs::futimens(&file, &timestamps(entry.mtime)).map_err(os("setting the time of"))
    }

    fn copy<R: Read>(&mut self, reader: &mut Reader<R>, file: &File, area: Area) -> Done {
        let (mut at, mut left) = (area.offset, area.length);
        while left > 0 {
            let want = left.min(self.buffer.len() as u64) as usize;
            let got = reader.read_data(&mut self.buffer[..want]).map_err(|e| EntryError::Unpack(tar_error(e)))?;
            if got == 0 {
                return Err(EntryError::Refused("its data is shorter than its size"));
            }
            file.write_all_at(&self.buffer[..got], at).map_err(|e| write_error(&e))?;
            at += got as u64;
            left -= got as u64;
        }
        Ok(())
    }

    /// The order matters: changing the owner clears setuid and capabilities.
    fn own_and_mode(&mut self, entry: &Entry, fd: impl AsFd) -> Done {
        let (uid, gid) = ids(entry);
        rustix::fs::fchown(&fd, uid, gid).map_err(os("setting the owner of"))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(os("setting the mode of"))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_wanted_xattr(key)) {
            match rustix::fs::fsetxattr(&fd, key.as_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => {
                    self.done.xattrs_dropped += 1;
                }
                Err(e) => return Err(EntryError::Os("setting an attribute of", e)),
            }
        }
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, place: &Place, name: &[u8], target: &[u8]) -> Done {
        self.tree.forget();
        rustix::fs::symlinkat(target, &*place.fd, name).map_err(os("linking"))?;
        let (uid, gid) = ids(entry);
        let follow_not = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&*place.fd, name, uid, gid, follow_not).map_err(os("setting the owner of"))?;
        rustix::fs::utimensat(&*place.fd, name, &timestamps(entry.mtime), follow_not)
            .map_err(os("setting the time of"))
    }

    fn hard_link(&mut self, place: &Place, name: &[u8], there: Option<Stat>, target: &[u8]) -> Done {
        let parts = names::components(target).map_err(EntryError::Refused)?;
        let Meaning::Plain { parent, name: old } = names::meaning(&parts).map_err(EntryError::Refused)? else {
            return Err(EntryError::Refused("a hard link to something that is no file"));
        };
        let missing = EntryError::Refused("a hard link to a file that is not in this layer");
        let from = match self.tree.walk_to(parent) {
            Ok(from) => from,
            Err(TreeError::Os(Errno::NOENT)) => return Err(missing),
            Err(e) => return Err(e.into()),
        };
        let Some(stat) = from.stat(old).map_err(os("looking at the target of"))? else { return Err(missing) };
        if tree::file_type(&stat) == FileType::Directory {
            return Err(EntryError::Refused("a hard link to a directory"));
        }
        let same = there.as_ref().is_some_and(|t| (t.st_dev, t.st_ino) == (stat.st_dev, stat.st_ino));
        if same {
            return Ok(());
        }
        self.clear(place, name, there)?;
        rustix::fs::linkat(&*from.fd, old, &*place.fd, name, AtFlags::empty()).map_err(os("linking"))
    }

    /// Deepest last is not needed: setting a time changes no other directory's. What is gone by now is skipped.
    fn set_directory_times(&mut self) {
        self.tree.forget();
        for (path, time) in std::mem::take(&mut self.times) {
            let Ok(parts) = names::components(&path) else { continue };
            if let Ok(place) = self.tree.walk_to(&parts) {
                let _ = rustix::fs::futimens(&*place.fd, &timestamps(time));
            }
        }
    }
}

fn write_error(error: &std::io::Error) -> EntryError {
    EntryError::Os("writing", Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn device(entry: &Entry, place: &Place, name: &[u8], kind: FileType, number: u64) -> Done {
    make_node(place, name, kind, entry.mode, number).map_err(os("making"))?;
    let (uid, gid) = ids(entry);
    rustix::fs::chownat(&*place.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(os("setting the owner of"))?;
    // Made by us a moment ago in a directory that only we write to: not a link that this could follow.
    let mode = Mode::from_raw_mode(entry.mode);
    rustix::fs::chmodat(&*place.fd, name, mode, AtFlags::empty()).map_err(os("setting the mode of"))?;
    rustix::fs::utimensat(&*place.fd, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(os("setting the time of"))
}

fn make_node(place: &Place, name: &[u8], kind: FileType, mode: u32, number: u64) -> Result<(), Errno> {
    rustix::fs::mknodat(&*place.fd, name, kind, Mode::from_raw_mode(mode), number)
}

fn set_opaque(fd: &OwnedFd) -> Done {
    rustix::fs::fsetxattr(fd, OPAQUE_XATTR, b"y", XattrFlags::empty()).map_err(os("marking as opaque"))
}

/// Never `trusted.*` or `user.overlay.*`: with those an image could point overlayfs at files of another layer.
fn is_wanted_xattr(key: &str) -> bool {
    key == "security.capability" || (key.starts_with("user.") && !key.starts_with("user.overlay."))
}

fn ids(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid as u32)), Some(Gid::from_raw(entry.gid as u32)))
}

fn timestamps(time: Time) -> Timestamps {
    let spec = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: spec, last_modification: spec }
}
