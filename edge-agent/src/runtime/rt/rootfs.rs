//! The container's root: an overlay of the image's layers, mounted in the helper's own mount namespace.
//!
//! In: layer directories. Out: a mounted `<bundle>/rootfs` that nobody else sees and that ends with the container.
//! Never: follows a link of the image when it prepares mount points.

use super::super::detached;
use super::super::spec::{ContainerSpec, Mount, Propagation};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The kernel's own limit is 500.
const LAYERS_MAX: usize = 500;
/// The kernel takes one page, which is the smallest one here, with `,volatile` and an end.
const OPTIONS_BYTES_MAX: usize = 4000;
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

/// Makes /sys/fs/cgroup of a container on cgroup v1 in a directory: its own group in the hierarchies that matter.
pub fn cgroup_view(place: &Path, view: &[(Vec<String>, PathBuf)], writable: bool) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("mode=755,size=64k"))?;
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
    mount(NONE, place, NONE, again, NONE)?;
    Ok(())
}

/// The pod's own users, when it has some.
pub struct Users {
    pub first_id: u32,
    pub namespace: std::fs::File,
}

/// What is mounted over in every container, as the lowest layer of all: no container has to make these places in a layer of its
/// own first, which on a card would be a dozen writes for each start. Made once; made again where a power cut left a part.
pub fn places(data_dir: &Path) -> Result<PathBuf> {
    let base = data_dir.join("places");
    let last = base.join("etc/resolv.conf");
    if last.symlink_metadata().is_ok() {
        return Ok(base);
    }
    for dir in ["dev", "proc", "sys", "etc"] {
        std::fs::create_dir_all(base.join(dir))?;
    }
    for file in ["etc/hosts", "etc/hostname"].map(|name| base.join(name)).iter().chain([&last]) {
        std::fs::write(file, b"")?;
    }
    Ok(base)
}

/// Mounts the overlay on `root`, which is made. With users of the pod's own the layers' owners are theirs; what the container
/// writes belongs to them also on the disk, where the kernel itself must be able to make files: that ends with the container.
pub fn mount_overlay(
    root: &Path,
    bundle: &Path,
    layers: &[PathBuf],
    places: &Path,
    writable: &Path,
    users: Option<&Users>,
) -> Result<()> {
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(Error::other(format!("an image of {} layers; 1 to {LAYERS_MAX} can be mounted", layers.len())));
    }
    std::fs::create_dir_all(root)?;
    leave_torn(writable)?;
    for place in ["upper", "work"] {
        std::fs::create_dir_all(writable.join(place))?;
    }
    if let Some(users) = users {
        std::os::unix::fs::chown(writable.join("upper"), Some(users.first_id), Some(users.first_id))?;
    }
    // The upper directory becomes `/` of the container.
    std::fs::set_permissions(writable.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let all: Vec<&Path> = layers.iter().map(PathBuf::as_path).chain(std::iter::once(places)).take(LAYERS_MAX).collect();
    let base = places.parent().unwrap_or(places);
    let (base, options) = match overlay_options(base, &all, writable).filter(|_| users.is_none()) {
        Some(options) => (base, options),
        None => (bundle, short_options(bundle, &all, writable, users)?),
    };
    std::env::set_current_dir(base)?;
    let overlay = |options: &str| mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options));
    // `volatile`: the layer ends with the container, so nothing is gained by forcing it onto the flash.
    let mounted = overlay(&format!("{options},volatile")).or_else(|_| overlay(&options));
    std::env::set_current_dir("/")?;
    mounted.map_err(|err| Error::other(format!("mount the overlay of {} layers: {}", layers.len(), err.desc())))?;
    // Under a shared mount it is born shared: what the container mounts in its root would come out here.
    mount(NONE, root, NONE, MsFlags::MS_PRIVATE, NONE)?;
    Ok(())
}

/// Names as they are, shorter where they lie below `base`. `None` when they do not fit, or have letters that mean something here.
fn overlay_options(base: &Path, lower: &[&Path], writable: &Path) -> Option<String> {
    let plain = |path: &Path| -> Option<String> {
        let name = path.strip_prefix(base).unwrap_or(path).to_str()?;
        (!name.is_empty() && !name.contains([',', ':', '\\'])).then(|| name.to_owned())
    };
    let lower = lower.iter().map(|layer| plain(layer)).collect::<Option<Vec<_>>>()?.join(":");
    let own = plain(writable)?;
    let options = format!("lowerdir={lower},upperdir={own}/upper,workdir={own}/work");
    (options.len() <= OPTIONS_BYTES_MAX).then_some(options)
}

/// The same under short names in the bundle.
fn short_options(bundle: &Path, lower: &[&Path], writable: &Path, users: Option<&Users>) -> Result<String> {
    std::fs::create_dir_all(bundle.join("l"))?;
    put(writable, &bundle.join("d"), None)?;
    for (index, layer) in lower.iter().enumerate() {
        put(layer, &bundle.join("l").join(index.to_string()), users)?;
    }
    let lower = (0..lower.len()).map(|i| format!("l/{i}")).collect::<Vec<_>>().join(":");
    Ok(format!("lowerdir={lower},upperdir=d/upper,workdir=d/work"))
}

/// What a container had written when the power went: nobody forced it onto the disk, the kernel mounts it no more, and the
/// container begins anew.
fn leave_torn(writable: &Path) -> Result<()> {
    if !writable.join("work/work/incompat/volatile").exists() {
        return Ok(());
    }
    for place in ["upper", "work"] {
        std::fs::remove_dir_all(writable.join(place))?;
    }
    Ok(())
}

/// A directory under a short name: a link, or a mount with other owners.
fn put(target: &Path, name: &Path, users: Option<&Users>) -> Result<()> {
    let _ = std::fs::remove_file(name);
    match users {
        None => std::os::unix::fs::symlink(target, name),
        Some(users) => {
            std::fs::create_dir_all(name)?;
            detached::place(&detached::mapped(target, users.namespace.as_fd())?, name)
        }
    }
}

/// Lets the pod's own users come to the bundle, whatever the directories above the run directory allow. Everything that
/// the container mounts is in the run directory by then; the rest of that branch of the tree is gone from this mount
/// namespace.
pub fn clear_way(run_dir: &Path) -> Result<()> {
    let mut parts = run_dir.components();
    let top: PathBuf = parts.by_ref().take(2).collect();
    if parts.next().is_none() {
        return Ok(());
    }
    let tree = detached::clone(run_dir, true)?;
    mount(Some("tmpfs"), &top, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755,size=64k"))?;
    std::fs::create_dir_all(run_dir)?;
    detached::place(&tree, run_dir)
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
///
/// With users of the pod's own every source is such a mount, and what is on it belongs to them.
pub fn resolve_sources(bundle: &Path, spec: &ContainerSpec, users: Option<&Users>) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::with_capacity(spec.mounts.len());
    for (index, wish) in spec.mounts.iter().enumerate() {
        let sub_path = wish.sub_path.as_deref().filter(|path| !path.is_empty());
        let opened = match (sub_path, users) {
            (None, None) if !shows_cgroups(&wish.source) => {
                sources.push(wish.source.clone());
                continue;
            }
            (Some(sub_path), _) => crate::volumes::subpath::open(&wish.source, sub_path)?,
            (None, _) => open(&wish.source)?,
        };
        let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let place = place_for(&opened, bundle.join(format!("sub{index}")))?;
        match users {
            None => mount(Some(&source), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?,
            Some(users) => place_mapped(&source, &place, wish, users)?,
        }
        sources.push(place);
    }
    Ok(sources)
}

/// Whether the board's groups can be seen there, which are hidden from libcontainer later (`hide_cgroups`): who mounts them wants
/// the real ones.
fn shows_cgroups(source: &Path) -> bool {
    let source = source.canonicalize().unwrap_or_default();
    let groups = Path::new(CGROUP_ROOT);
    groups.starts_with(&source) && source.is_absolute() || source.starts_with(groups)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path);
    opened.map(OwnedFd::from).map_err(|err| Error::new(err.kind(), format!("{}: {err}", path.display())))
}

/// A directory or file for a mount of what is open.
fn place_for(opened: &OwnedFd, place: PathBuf) -> Result<PathBuf> {
    let kind = nix::sys::stat::fstat(opened.as_fd())?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFDIR {
        std::fs::create_dir_all(&place)?;
    } else {
        std::fs::write(&place, b"")?;
    }
    Ok(place)
}

fn place_mapped(source: &Path, place: &Path, wish: &Mount, users: &Users) -> Result<()> {
    let tree = match detached::mapped(source, users.namespace.as_fd()) {
        // The layers of an image: an overlay cannot be mapped, and nothing is written there.
        Err(_) if wish.read_only && is_overlay(source) => detached::clone(source, true)?,
        Err(err) => {
            let (from, to) = (wish.source.display(), wish.destination.display());
            return Err(Error::new(err.kind(), format!("{to}: {from} with hostUsers: false: {err}")));
        }
        Ok(tree) => tree,
    };
    detached::place(&tree, place)
}

fn is_overlay(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC)
}

/// The pod's /etc files as its own users' where the run directory's file system can.
pub fn etc_of(bundle: &Path, etc: PathBuf, users: &Users) -> Result<PathBuf> {
    let Ok(tree) = detached::mapped(&etc, users.namespace.as_fd()) else { return Ok(etc) };
    let place = bundle.join("etc");
    std::fs::create_dir_all(&place)?;
    detached::place(&tree, &place)?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_is_not_mounted_again() {
        let dir = std::env::temp_dir().join(format!("limpet-torn-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("upper/etc")).unwrap();
        std::fs::write(dir.join("upper/etc/half"), "").unwrap();
        std::fs::create_dir_all(dir.join("work/work")).unwrap();
        leave_torn(&dir).unwrap();
        assert!(dir.join("upper/etc/half").exists(), "what ended well is nobody's to remove here");
        // As the kernel marks it while it is mounted.
        std::fs::create_dir_all(dir.join("work/work/incompat/volatile")).unwrap();
        leave_torn(&dir).unwrap();
        assert!(!dir.join("upper").exists() && !dir.join("work").exists());
        leave_torn(&dir).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn layers_go_by_their_own_names_when_they_can() {
        let base = Path::new("/data");
        let own = Path::new("/data/pods/u/containers/c");
        let plain = |lower: &[&str]| {
            let lower: Vec<&Path> = lower.iter().map(Path::new).collect();
            overlay_options(base, &lower, own)
        };
        let expected = "lowerdir=layers/a:/elsewhere/b,upperdir=pods/u/containers/c/upper,workdir=pods/u/containers/c/work";
        assert_eq!(plain(&["/data/layers/a", "/elsewhere/b"]).as_deref(), Some(expected));
        for bad in ["/data/a,b", "/data/a:b", "/data/a\\b", "/data"] {
            assert_eq!(plain(&[bad]), None, "{bad}");
        }
        let long = format!("/data/{}", "x".repeat(100));
        assert!(plain(&vec![long.as_str(); 30]).is_some());
        assert_eq!(plain(&vec![long.as_str(); 40]), None, "more than the kernel reads");
    }
}
