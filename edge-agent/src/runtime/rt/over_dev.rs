//! Volumes in the way of what libcontainer makes in /dev: on /dev itself (tools that manage disks and buses mount the board's own
//! there), or on a device that every container has (/dev/urandom on /dev/random).
//!
//! In: the container's mounts with their sources. Out: mounts that belong nowhere yet, on /dev a tree with all that the pod has
//! below; the executor puts them in their places as the last step.
//! libcontainer knows no such volumes: it would make its links and nodes in the board's /dev, and replace its ptmx.
//! Never: follows a link below /dev, or makes anything there but the places of the pod's own mounts, as runc does.

use super::super::detached::{self, ATTR_RDONLY};
use super::super::spec::{ContainerSpec, Mount, Propagation};
use super::super::sys;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, mkdirat};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const DEV: &str = "/dev";
const NOT_BOTH_WAYS: &str = "a volume on /dev cannot have mountPropagation: Bidirectional: what the container has below is its own";

/// Where in /dev a mount is; `None` elsewhere. Empty: on it.
fn in_dev(mount: &Mount) -> Option<PathBuf> {
    let parts: PathBuf = mount.destination.components().collect();
    parts.strip_prefix(DEV).ok().map(Path::to_owned)
}

pub fn is_for(spec: &ContainerSpec) -> bool {
    spec.mounts.iter().filter_map(in_dev).any(|at| at.as_os_str().is_empty())
}

/// Of the specification: libcontainer makes these in every container, and fails where something is.
const EVERYBODYS: [&str; 6] = ["null", "zero", "full", "tty", "random", "urandom"];

fn is_late(spec: &ContainerSpec, mount: &Mount) -> bool {
    in_dev(mount).is_some_and(|at| is_for(spec) || EVERYBODYS.iter().any(|name| at == Path::new(name)))
}

/// What is left for libcontainer to mount. `None`: all.
pub fn others(spec: &ContainerSpec, sources: &[PathBuf]) -> Option<(ContainerSpec, Vec<PathBuf>)> {
    spec.mounts.iter().find(|mount| is_late(spec, mount))?;
    let kept = spec.mounts.iter().zip(sources).filter(|(mount, _)| !is_late(spec, mount));
    let (mounts, sources) = kept.map(|(mount, source)| (mount.clone(), source.clone())).unzip();
    Some((ContainerSpec { mounts, ..spec.clone() }, sources))
}

/// Where to put which. `shm`: the pod's, for pods that mount nothing there. `place`: of the container alone, empty again
/// afterwards.
pub fn late(spec: &ContainerSpec, sources: &[PathBuf], shm: &Path, place: &Path) -> Result<Vec<(PathBuf, OwnedFd)>> {
    if is_for(spec) {
        return Ok(vec![(DEV.into(), tree(spec, sources, shm, place)?)]);
    }
    let all = spec.mounts.iter().zip(sources).filter(|(mount, _)| is_late(spec, mount));
    let single = |(mount, source): (&Mount, &PathBuf)| {
        let tree = ready(mount, source)?;
        finish(&tree, mount)?;
        Ok((mount.destination.clone(), tree))
    };
    all.map(single).collect()
}

fn tree(spec: &ContainerSpec, sources: &[PathBuf], shm: &Path, place: &Path) -> Result<OwnedFd> {
    let mut all: Vec<(PathBuf, Mount, &Path)> = Vec::new();
    for (mount, source) in spec.mounts.iter().zip(sources) {
        all.extend(in_dev(mount).map(|at| (at, mount.clone(), source.as_path())));
    }
    if !spec.mounts_on("/dev/shm") {
        all.push(("shm".into(), Mount::default(), shm));
    }
    all.sort_by_key(|(at, ..)| at.components().count());
    std::fs::create_dir_all(place)?;
    let put_all = || all.iter().try_for_each(|(at, mount, source)| put(place, at, mount, source));
    let made = put_all().and_then(|()| detached::clone(place, true));
    let _ = umount2(place, MntFlags::MNT_DETACH);
    made
}

fn ready(mount: &Mount, source: &Path) -> Result<OwnedFd> {
    match mount.propagation {
        Propagation::Bidirectional => Err(Error::new(ErrorKind::InvalidInput, NOT_BOTH_WAYS)),
        _ => detached::clone(source, true),
    }
}

fn finish(tree: &OwnedFd, mount: &Mount) -> Result<()> {
    // Before anything is put on it, which the board's own would get too; and after it has a place, which may be shared itself.
    detached::keep_apart(tree, mount.propagation == Propagation::HostToContainer)?;
    match (mount.read_only, mount.recursive_read_only) {
        (false, _) => Ok(()),
        (true, false) => detached::restrict(tree, ATTR_RDONLY),
        (true, true) => detached::restrict_all(tree, ATTR_RDONLY),
    }
}

fn put(place: &Path, at: &Path, mount: &Mount, source: &Path) -> Result<()> {
    let told = |err: Error| Error::new(err.kind(), format!("{}: {err}", mount.destination.display()));
    let tree = ready(mount, source).map_err(told)?;
    if at.as_os_str().is_empty() {
        detached::place(&tree, place).map_err(told)?;
    } else {
        let is_dir = std::fs::metadata(source).map_err(told)?.is_dir();
        let target = target(place, at, is_dir).map_err(told)?;
        detached::place_on(&tree, target.as_fd()).map_err(told)?;
    }
    finish(&tree, mount).map_err(told)
}

/// What a mount below /dev lies on; made where it is missing, in a directory that is there.
fn target(place: &Path, at: &Path, is_dir: bool) -> Result<OwnedFd> {
    let open = |path: &Path| -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let root: OwnedFd = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(place)?.into();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        sys::open_in(root.as_fd(), path, libc::O_PATH, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS)
    };
    match open(at) {
        Err(err) if err.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    let above = open(at.parent().unwrap_or(Path::new("")))?;
    let name = at.file_name().unwrap_or_default();
    if is_dir {
        mkdirat(above.as_fd(), name, Mode::from_bits_truncate(0o755))?;
    } else {
        openat(above.as_fd(), name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644))?;
    }
    open(at)
}
