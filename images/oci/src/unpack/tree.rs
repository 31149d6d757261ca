//! A directory that is written to without ever leaving it.
//!
//! In: components below the root. Out: directory handles, reached one component at a time with O_NOFOLLOW; symbolic links on
//! the way are read and resolved here, as if the root were the root of the file system.
//! Never: hands a path with a slash to the kernel, or opens anything that is not a directory.

use crate::limits::{LINKS_FOLLOWED_MAX, PATH_DEPTH_MAX};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

pub struct Tree {
    root: Rc<OwnedFd>,
    /// The parent of the last entry: archives keep the files of a directory together.
    last: Option<(Vec<Vec<u8>>, Place)>,
}

/// A directory of the tree, reached safely.
#[derive(Clone)]
pub struct Place {
    pub fd: Rc<OwnedFd>,
    pub is_root: bool,
}

#[derive(Debug)]
pub enum TreeError {
    Refused(&'static str),
    Os(Errno),
}

impl From<Errno> for TreeError {
    fn from(error: Errno) -> TreeError {
        TreeError::Os(error)
    }
}

impl Tree {
    pub fn open(root: &Path) -> Result<Tree, Errno> {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        Ok(Tree { root: Rc::new(root), last: None })
    }

    pub fn root(&self) -> Place {
        Place { fd: self.root.clone(), is_root: true }
    }

    /// Must be called whenever a directory or a link was removed or a link was made: paths may mean something else now.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// The directory at `parts`; `make` creates what is missing (mode 0755), otherwise that is ENOENT.
    pub fn directory(&mut self, parts: &[&[u8]], make: bool) -> Result<Place, TreeError> {
        if let Some((last, place)) = &self.last
            && last.iter().map(Vec::as_slice).eq(parts.iter().copied())
        {
            return Ok(place.clone());
        }
        let place = self.walk(parts, make)?;
        self.last = Some((parts.iter().map(|p| p.to_vec()).collect(), place.clone()));
        Ok(place)
    }

    /// The directory at `parts`, which must exist.
    pub fn walk_to(&self, parts: &[&[u8]]) -> Result<Place, TreeError> {
        self.walk(parts, false)
    }

    fn walk(&self, parts: &[&[u8]], make: bool) -> Result<Place, TreeError> {
        let mut stack: Vec<Rc<OwnedFd>> = vec![self.root.clone()];
        let mut todo: VecDeque<Vec<u8>> = parts.iter().map(|p| p.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                // Above the root is the root, as after chroot.
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let at = stack.last().unwrap_or(&self.root).clone();
            match enter(&at, &name, make)? {
                Step::Into(fd) if stack.len() <= PATH_DEPTH_MAX => stack.push(Rc::new(fd)),
                Step::Into(_) => return Err(TreeError::Refused("the path is too deep")),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_FOLLOWED_MAX || todo.len() > 4 * PATH_DEPTH_MAX {
                        return Err(TreeError::Refused("too many symbolic links on the way to it"));
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let parts = target.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
                    for part in parts.rev() {
                        todo.push_front(part.to_vec());
                    }
                }
            }
        }
        let is_root = stack.len() == 1;
        Ok(Place { fd: stack.pop().unwrap_or_else(|| self.root.clone()), is_root })
    }
}

enum Step {
    Into(OwnedFd),
    Link(Vec<u8>),
}

fn enter(at: &OwnedFd, name: &[u8], make: bool) -> Result<Step, TreeError> {
    match rustix::fs::openat(at, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => return Ok(Step::Into(fd)),
        Err(Errno::NOENT) if make => {
            rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))?;
            let fd = rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
            return Ok(Step::Into(fd));
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(e) => return Err(e.into()),
    }
    match rustix::fs::readlinkat(at, name, Vec::new()) {
        Ok(target) => Ok(Step::Link(target.into_bytes())),
        Err(Errno::INVAL) => Err(TreeError::Refused("something that is no directory is in its way")),
        Err(e) => Err(e.into()),
    }
}

impl Place {
    /// What is at `name`, links not followed; None when there is nothing.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        match rustix::fs::statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn open_directory(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&*self.fd, name, DIRECTORY, Mode::empty())
    }

    /// Removes `name` and everything below it.
    pub fn remove(&self, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        match file_type(stat) == FileType::Directory {
            true => remove_directory(&self.fd, name),
            false => rustix::fs::unlinkat(&*self.fd, name, AtFlags::empty()),
        }
    }
}

/// Depth is bounded by `PATH_DEPTH_MAX`: only `walk` makes directories.
fn remove_directory(at: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let fd = rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        let stat = rustix::fs::statat(&fd, child, AtFlags::SYMLINK_NOFOLLOW)?;
        match file_type(&stat) == FileType::Directory {
            true => remove_directory(&fd, child)?,
            false => rustix::fs::unlinkat(&fd, child, AtFlags::empty())?,
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

/// overlayfs' mark for "not here any more".
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}
