//! The container's root: an overlay of the image's layers, mounted in the helper's own mount namespace.
//!
//! In: layer directories. Out: a mounted `<bundle>/rootfs` that nobody else sees and that ends with the container.
//! Never: follows a link of the image when it prepares mount points.

use super::super::spec::{ContainerSpec, Propagation};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// The kernel's own limit is 500.
const LAYERS_MAX: usize = 500;
const NONE: Option<&str> = None;
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Whether something that the container mounts must reach the host: then the root is mounted on the host too.
pub fn shares_mounts(spec: &ContainerSpec) -> bool {
    spec.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional)
}

/// From here on this process's mounts are its own. libcontainer knows no propagation of single mounts: when one of
/// them wants what the host mounts later, all get it.
pub fn own_mounts(spec: &ContainerSpec) -> Result<()> {
    let follows = spec.mounts.iter().any(|mount| mount.propagation == Propagation::HostToContainer);
    leave_mounts(if follows { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE })
}

/// A mount namespace of its own for the calling thread.
pub fn leave_mounts(propagation: MsFlags) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | propagation, NONE)?;
    Ok(())
}

/// Gives libcontainer a machine in which moving a process into `group` does nothing: the groups are ours to handle,
/// and its search for hierarchies reads the whole mount table a dozen times. Only in this mount namespace.
pub fn hide_cgroups(group: &str) -> Result<()> {
    let _ = umount2(CGROUP_ROOT, MntFlags::MNT_DETACH);
    if mount(Some("cgroup2"), CGROUP_ROOT, Some("cgroup2"), MsFlags::empty(), NONE).is_ok() {
        let dir = Path::new(CGROUP_ROOT).join(group.trim_matches('/'));
        std::fs::create_dir_all(&dir)?;
        mount(Some("/dev/null"), &dir.join("cgroup.procs"), NONE, MsFlags::MS_BIND, NONE)?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, CGROUP_ROOT, NONE, read_only, NONE)?;
        return Ok(());
    }
    // A kernel without the second version: an empty place means no controllers.
    mount(Some("none"), CGROUP_ROOT, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=4k"))?;
    Ok(())
}

/// Prepares /sys/fs/cgroup of a container on cgroup v1: its own group in the hierarchies that matter.
pub fn cgroup_view(bundle: &Path, view: &[(Vec<String>, PathBuf)], writable: bool) -> Result<PathBuf> {
    let place = bundle.join("cgroup");
    std::fs::create_dir_all(&place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some("mode=755,size=64k"))?;
    let read_only = if writable { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags | read_only;
    for (index, (names, group)) in view.iter().enumerate() {
        // Known by links only: under its usual name libcontainer would take the mount for a hierarchy of the host.
        let real = format!("v1-{index}");
        let target = place.join(&real);
        std::fs::create_dir(&target)?;
        mount(Some(group), &target, NONE, MsFlags::MS_BIND, NONE)?;
        mount(NONE, &target, NONE, again, NONE)?;
        for name in names {
            std::os::unix::fs::symlink(&real, place.join(name))?;
        }
    }
    mount(NONE, &place, NONE, again, NONE)?;
    Ok(place)
}

/// Mounts the overlay on `<bundle>/rootfs`.
pub fn mount_overlay(bundle: &Path, layers: &[PathBuf], writable: &Path) -> Result<PathBuf> {
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(Error::other(format!("an image of {} layers; 1 to {LAYERS_MAX} can be mounted", layers.len())));
    }
    let root = bundle.join("rootfs");
    for dir in [root.as_path(), &bundle.join("l")] {
        std::fs::create_dir_all(dir)?;
    }
    for (name, place) in [("u", "upper"), ("w", "work")] {
        let target = writable.join(place);
        std::fs::create_dir_all(&target)?;
        link(&target, &bundle.join(name))?;
    }
    // The upper directory becomes `/` of the container.
    std::fs::set_permissions(writable.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    // Short relative names: the options must fit one page whatever the length of the layers' paths.
    for (index, layer) in layers.iter().enumerate() {
        link(layer, &bundle.join("l").join(index.to_string()))?;
    }
    std::env::set_current_dir(bundle)?;
    let lower = (0..layers.len()).map(|i| format!("l/{i}")).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir=u,workdir=w");
    let overlay = |options: &str| mount(Some("overlay"), "rootfs", Some("overlay"), MsFlags::empty(), Some(options));
    // `volatile`: the layer ends with the container, so nothing is gained by forcing it onto the flash.
    let mounted = overlay(&format!("{options},volatile")).or_else(|_| overlay(&options));
    std::env::set_current_dir("/")?;
    mounted.map_err(|err| Error::other(format!("mount the overlay of {} layers: {}", layers.len(), err.desc())))?;
    Ok(root)
}

fn link(target: &Path, name: &Path) -> Result<()> {
    let _ = std::fs::remove_file(name);
    std::os::unix::fs::symlink(target, name)
}

/// Makes the places of the kernel's file systems real directories; an image may not point them elsewhere.
pub fn check_mount_points(root: &Path) -> Result<()> {
    for name in ["dev", "proc", "sys", "etc"] {
        let path = root.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::other(format!("/{name} of the image is not a directory"))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir(&path)?,
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Resolves sub paths: the returned sources cannot be exchanged for a link any more (they are mounts of this
/// namespace on what was opened). CVE-2021-25741 is the class of hole that this closes.
pub fn resolve_sources(bundle: &Path, spec: &ContainerSpec) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::with_capacity(spec.mounts.len());
    for (index, wish) in spec.mounts.iter().enumerate() {
        let Some(sub_path) = wish.sub_path.as_deref().filter(|path| !path.is_empty()) else {
            sources.push(wish.source.clone());
            continue;
        };
        let opened = crate::volumes::subpath::open(&wish.source, sub_path)?;
        let place = bundle.join(format!("sub{index}"));
        let kind = nix::sys::stat::fstat(opened.as_fd())?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR {
            std::fs::create_dir_all(&place)?;
        } else {
            std::fs::write(&place, b"")?;
        }
        let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
        mount(Some(source.as_str()), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        sources.push(place);
    }
    Ok(sources)
}
