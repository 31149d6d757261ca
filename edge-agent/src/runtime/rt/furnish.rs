//! The file systems that every container has, mounted on its root by the helper before libcontainer begins.
//!
//! In: the mounted root, its spec, its pod's sandbox. Out: the destinations that are done; libcontainer is asked for the others
//! alone. It makes seventy system calls and more for each mount; these take six, and look at no path of the image but `/dev`,
//! `/sys` and three files in `/etc`.
//! Never: follows a link, mounts a volume or what is the container's own (/proc, cgroup2), or fails: what cannot be had here is
//! left to libcontainer, which then says why.

use super::super::detached::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, ATTR_STRICTATIME};
use super::super::spec::{ContainerSpec, SandboxSpec};
use super::super::sys;
use super::{rootfs, sandbox};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The pod's files; `oci` asks libcontainer for the same when they are not done here.
pub const ETC: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

pub struct Room<'a> {
    pub root: &'a Path,
    pub run_dir: &'a Path,
    pub etc: &'a Path,
    pub spec: &'a ContainerSpec,
    pub sandbox: &'a SandboxSpec,
    /// The container's groups on cgroup v1 (`rootfs::cgroup_view`); empty on v2.
    pub groups: &'a [(Vec<String>, std::path::PathBuf)],
}

/// Whether this process may do it: its mounts and namespaces are its own, and nothing else of the host runs in them. The users of
/// a pod's own may mount less, and hooks expect the host's network.
pub fn is_for(spec: &ContainerSpec, sandbox: &SandboxSpec) -> bool {
    let ours = spec.other_runtime.is_none() && spec.hooks.is_empty() && sandbox.first_id.is_none();
    ours && !rootfs::shares_mounts(spec)
}

/// Must be called where `is_for`, in a mount namespace of this process. It is in the pod's network and ipc namespace afterwards.
pub fn furnish(room: &Room<'_>) -> Vec<&'static str> {
    let mut done = Vec::new();
    if let Err(why) = fill(room, &mut done) {
        log::debug!("runtime: {}: left to libcontainer: {why}", room.spec.id);
    }
    done
}

fn fill(room: &Room<'_>, done: &mut Vec<&'static str>) -> Result<()> {
    let root = directory(room.root)?;
    let plain = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
    let access = if room.spec.read_only_root { ATTR_RDONLY } else { 0 };
    // They lie on a volume that is the whole of /etc, which is not there yet.
    let own = if room.spec.mounts_on("/etc") { [].as_slice() } else { &ETC };
    for &(name, destination) in own.iter().filter(|(_, destination)| !room.spec.mounts_on(destination)) {
        // Absent, or a link of the image.
        let Ok(target) = below(root.as_fd(), &format!("etc/{name}"), 0) else { continue };
        let file = detached::clone(&room.etc.join(name), false)?;
        if access != 0 {
            detached::restrict(&file, access)?;
        }
        detached::place_on(&file, target.as_fd())?;
        done.push(destination);
    }
    // What the next ones show is their mounter's.
    if !room.sandbox.host_network {
        enter(room, "net", CloneFlags::CLONE_NEWNET)?;
    }
    if !room.sandbox.host_ipc {
        enter(room, "ipc", CloneFlags::CLONE_NEWIPC)?;
    }
    let sys_access = if room.spec.privileged { 0 } else { ATTR_RDONLY };
    let sys = detached::new(c"sysfs", &[], plain | sys_access)?;
    detached::place_on(&sys, below(root.as_fd(), "sys", libc::O_DIRECTORY)?.as_fd())?;
    done.push("/sys");
    if !room.groups.is_empty() {
        rootfs::cgroup_view(&room.root.join("sys/fs/cgroup"), room.groups, room.spec.privileged)?;
        done.push("/sys/fs/cgroup");
    }
    let size = [(c"mode", c"755"), (c"size", c"65536k")];
    let dev = detached::new(c"tmpfs", &size, ATTR_NOSUID | ATTR_STRICTATIME)?;
    let places = ["pts", "mqueue", "shm"];
    places.iter().try_for_each(|name| mkdirat(dev.as_fd(), *name, Mode::from_bits_truncate(0o755)))?;
    detached::place_on(&dev, below(root.as_fd(), "dev", libc::O_DIRECTORY)?.as_fd())?;
    done.push("/dev");
    let terminals = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
    let pts = detached::new(c"devpts", &terminals, ATTR_NOSUID | ATTR_NOEXEC)?;
    detached::place_on(&pts, below(dev.as_fd(), "pts", libc::O_DIRECTORY)?.as_fd())?;
    done.push("/dev/pts");
    let mqueue = detached::new(c"mqueue", &[], plain)?;
    detached::place_on(&mqueue, below(dev.as_fd(), "mqueue", libc::O_DIRECTORY)?.as_fd())?;
    done.push("/dev/mqueue");
    if !room.spec.mounts_on("/dev/shm") {
        let shm = detached::clone(&sandbox::shm_dir(room.run_dir, room.sandbox), true)?;
        detached::place_on(&shm, below(dev.as_fd(), "shm", libc::O_DIRECTORY)?.as_fd())?;
        done.push("/dev/shm");
    }
    Ok(())
}

fn enter(room: &Room<'_>, name: &str, kind: CloneFlags) -> Result<()> {
    let pin = File::open(sandbox::pin(room.run_dir, &room.spec.pod_uid, name))?;
    setns(pin, kind).map_err(|err| Error::other(format!("the pod's {name} namespace: {}", err.desc())))
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    Ok(std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

fn below(dir: BorrowedFd<'_>, name: &str, flags: i32) -> Result<OwnedFd> {
    sys::open_in(dir, Path::new(name), libc::O_PATH | flags, sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS)
}
