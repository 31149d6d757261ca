#![allow(unsafe_code)] // mkdirat has no wrapper that takes a borrowed directory and a mode here
//! Opens a path inside a volume so that nothing can lead it outside (CVE-2021-25741).
//!
//! In: a volume's directory and a relative path from a pod's spec. Out: an fd of what is there (O_PATH); missing
//! directories are made. Never: follows `..`, or a link that leaves the volume.

use crate::runtime::sys;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};

const DEPTH_MAX: usize = 64;

pub fn open(volume: &Path, sub_path: &str) -> Result<OwnedFd> {
    let wanted = Path::new(sub_path);
    let parts = check(wanted)?;
    let root = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(volume)?;
    let found = sys::open_in(root.as_fd(), wanted, libc::O_PATH, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS);
    match found {
        Err(err) if err.kind() == ErrorKind::NotFound => make(root.into(), &parts),
        Err(err) if err.raw_os_error() == Some(libc::EXDEV) => return Err(outside(sub_path)),
        other => other,
    }
    .map_err(|err| Error::new(err.kind(), format!("\"{sub_path}\": {err}")))
}

/// Opens a regular file below a directory for reading; a link that leads out of it is refused.
pub fn open_file(dir: &Path, path: &str) -> Result<std::fs::File> {
    let wanted = Path::new(path);
    check(wanted)?;
    let root = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(dir)?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let file: std::fs::File =
        sys::open_in(root.as_fd(), wanted, flags, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS)?.into();
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::new(ErrorKind::InvalidInput, "is not a file")),
    }
}

fn check(path: &Path) -> Result<Vec<&OsStr>> {
    let refuse = |why| Err(Error::new(ErrorKind::InvalidInput, why));
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir => return refuse("must not contain \"..\""),
            Component::RootDir | Component::Prefix(_) => return refuse("must be a relative path"),
        }
    }
    if parts.len() > DEPTH_MAX {
        return refuse("is deeper than 64 directories");
    }
    Ok(parts)
}

/// Makes the missing directories one by one; each step is opened before the next is made in it. As kubelet: whoever may write
/// in the volume may write in what is made of it, so they have the permissions of its root.
fn make(root: OwnedFd, parts: &[&OsStr]) -> Result<OwnedFd> {
    let mode = std::fs::File::from(root.try_clone()?).metadata()?.mode() & 0o7777;
    let mut at = root;
    for part in parts {
        let next = |at: BorrowedFd<'_>| {
            sys::open_in(at, Path::new(part), libc::O_PATH, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS)
        };
        at = match next(at.as_fd()) {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let name = sys::c_str(part)?;
                // SAFETY: a live directory fd and C string.
                let made = unsafe { libc::mkdirat(at.as_raw_fd(), name.as_ptr(), 0o700) };
                if made != 0 && Error::last_os_error().kind() != ErrorKind::AlreadyExists {
                    return Err(Error::last_os_error());
                }
                match made {
                    0 => permitted(at.as_fd(), Path::new(part), mode)?,
                    _ => next(at.as_fd())?,
                }
            }
            other => other?,
        };
    }
    Ok(at)
}

/// Opens what was just made, and gives it its permissions: the mask of this process does not count. A link that has taken its
/// place is not followed.
fn permitted(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<OwnedFd> {
    let made = sys::open_in(dir, name, libc::O_PATH | libc::O_DIRECTORY, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS)?;
    // An O_PATH descriptor takes no fchmod; by its name in /proc no path is walked.
    std::fs::set_permissions(format!("/proc/self/fd/{}", made.as_raw_fd()), std::fs::Permissions::from_mode(mode))?;
    Ok(made)
}

fn outside(sub_path: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("\"{sub_path}\" leads out of the volume through a link"))
}
