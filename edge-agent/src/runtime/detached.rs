#![allow(unsafe_code)] // open_tree, mount_setattr and move_mount have no wrapper in libc or nix
//! Mounts that are made before they have a place: clones, read-only or with other owners, and new file systems, moved to
//! where they belong.
//!
//! In: paths, names of file systems, a user namespace. Out: fds of mounts, or mounts.
//! Never: a mount that somebody else's table shows before it is ready.

use super::sys::{c_path, new_fd};
use nix::errno::Errno;
use std::ffi::CStr;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub const ATTR_RDONLY: u64 = 1;
pub const ATTR_NOSUID: u64 = 2;
pub const ATTR_NODEV: u64 = 4;
pub const ATTR_NOEXEC: u64 = 8;
pub const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_IDMAP: u64 = 0x0010_0000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_FROM_FD: libc::c_uint = 0x04;
const MOVE_TO_FD: libc::c_uint = 0x40;
const CONFIG_SET_STRING: libc::c_uint = 1;
const CONFIG_CREATE: libc::c_uint = 6;

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A read-only bind mount of one file (Linux 5.12).
pub fn read_only(path: &Path) -> Result<OwnedFd> {
    let tree = clone(path, false)?;
    set(&tree, &MountAttr { attr_set: ATTR_RDONLY, ..MountAttr::default() })?;
    Ok(tree)
}

/// A bind mount of a path with everything that is mounted below it.
pub fn clone(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = c_path(path)?;
    let below = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | below;
    // SAFETY: the path is a live C string; the call returns a new fd or -1.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// As `clone`; owners on the disk are users of the namespace: 0 there is its 0. What is mounted below keeps its owners.
pub fn mapped(path: &Path, users: BorrowedFd<'_>) -> Result<OwnedFd> {
    let tree = clone(path, true)?;
    let attr = MountAttr { attr_set: ATTR_IDMAP, userns_fd: users.as_raw_fd() as u64, ..MountAttr::default() };
    set(&tree, &attr).map_err(|err| {
        let path = path.display();
        Error::new(err.kind(), format!("{path} cannot be given other owners: {err} (its file system knows no idmapped mounts?)"))
    })?;
    Ok(tree)
}

/// Limits a clone before anybody can reach it: `ATTR_RDONLY`, `ATTR_NOSUID` and so on, added to what it has.
pub fn restrict(tree: &OwnedFd, attributes: u64) -> Result<()> {
    set(tree, &MountAttr { attr_set: attributes, ..MountAttr::default() })
}

/// A file system that belongs nowhere yet. `options` are its own (`mode`, `size`), `attributes` the mount's (`ATTR_NOSUID`, …).
/// What it shows of namespaces is the caller's.
pub fn new(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<OwnedFd> {
    // SAFETY: a live C string and flags; the call returns a new fd or -1.
    let context = new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?;
    let none: *const libc::c_char = std::ptr::null();
    let config = |command: libc::c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: a live fd; key and value are live C strings or null as the command wants them.
        Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) })
    };
    for (key, value) in std::iter::once(&(c"source", kind)).chain(options) {
        config(CONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    config(CONFIG_CREATE, none, none)?;
    // SAFETY: a live fd and flags (1: close-on-exec); the call returns a new fd or -1.
    new_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) })
}

/// As `restrict`, with what is mounted below.
pub fn restrict_all(tree: &OwnedFd, attributes: u64) -> Result<()> {
    change(tree, &MountAttr { attr_set: attributes, ..MountAttr::default() }, true)
}

/// What is mounted in the tree from now on comes out nowhere else. `follows`: what is mounted in the original still comes in.
// The width of the kernel's flags differs between targets.
#[allow(clippy::unnecessary_cast)]
pub fn keep_apart(tree: &OwnedFd, follows: bool) -> Result<()> {
    let propagation = if follows { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    change(tree, &MountAttr { propagation: propagation as u64, ..MountAttr::default() }, true)
}

fn set(tree: &OwnedFd, attr: &MountAttr) -> Result<()> {
    change(tree, attr, false)
}

fn change(tree: &OwnedFd, attr: &MountAttr, recursive: bool) -> Result<()> {
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` lives through the call and its true size is passed; the empty path means the fd itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Puts a mount on a place that exists.
pub fn place(tree: &OwnedFd, target: &Path) -> Result<()> {
    let target = c_path(target)?;
    // SAFETY: a live fd and two live C strings; the first is empty, which MOVE_FROM_FD allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_FROM_FD,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Puts a mount on what is open: no path is walked, so none can lead elsewhere.
pub fn place_on(tree: &OwnedFd, target: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: two live fds, and empty names that both flags allow.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_FROM_FD | MOVE_TO_FD,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Runs `work` with the file-system ids of a pod's first user: what it makes belongs to that user.
pub fn as_owner<T>(first_id: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let ids = |id: u32| {
        // SAFETY: plain numbers, and only for this thread.
        unsafe { (libc::setfsgid(id), libc::setfsuid(id)) };
    };
    ids(first_id);
    let done = work();
    ids(0);
    done
}
