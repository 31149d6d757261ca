//! Directories that outlive their pods: hostPath and local PersistentVolumes.
//!
//! In: a path of the board, the pod's fsGroup. Out: a directory that the group can write, where one was asked for; or none.
//! Never: follows a link while it removes files or gives them to a group, or makes a directory that is not ours to make.

use nix::fcntl::AtFlags;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const DEPTH_MAX: usize = 128;

/// `make`: the hub provisioned it here and any user of the pod may write. `always`: the group gets every file each time;
/// otherwise only when the top does not belong to it yet (`OnRootMismatch`).
pub fn set_up(dir: &Path, make: bool, fs_group: Option<u32>, always: bool) -> Result<()> {
    if !dir.is_absolute() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("volume path {} is not absolute", dir.display())));
    }
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(Error::other(format!("volume path {} is no directory", dir.display()))),
        Err(err) if err.kind() == ErrorKind::NotFound && make => {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
        }
        Err(err) => return Err(Error::new(err.kind(), format!("volume path {}: {err}", dir.display()))),
    }
    let Some(gid) = fs_group else { return Ok(()) };
    let top = std::fs::metadata(dir)?;
    if !always && top.gid() == gid && top.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    give(&open(dir)?, gid, 0)
}

/// Removes the directory with all that is in it, durably. One that is not there is removed.
pub fn remove(dir: &Path) -> Result<()> {
    let named = |err: Error| Error::new(err.kind(), format!("remove {}: {err}", dir.display()));
    match std::fs::symlink_metadata(dir) {
        Ok(found) if !found.is_dir() => return Err(Error::other(format!("{} is no directory", dir.display()))),
        Ok(_) => {}
        Err(err) if err.kind() == ErrorKind::NotFound => return settle(dir),
        Err(err) => return Err(named(err)),
    }
    // Somebody mounted something there: its files are not the volume's.
    if let Some(point) = super::mount_points()?.into_iter().find(|point| point.starts_with(dir)) {
        return Err(Error::other(format!("{} is a mount point", point.display())));
    }
    std::fs::remove_dir_all(dir).map_err(named)?;
    settle(dir)
}

/// A name that is gone stays gone once the directory above it is on the disk.
fn settle(dir: &Path) -> Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    match std::fs::File::open(above) {
        Ok(file) => file.sync_all(),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

fn open(dir: &Path) -> Result<std::fs::File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(dir)
}

/// As kubelet: the group owns it, may do what the owner may, and what is made later belongs to it too. The top comes last,
/// so that an interrupted walk is seen as a mismatch.
fn give(dir: &std::fs::File, gid: u32, depth: usize) -> Result<()> {
    use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
    use nix::unistd::{Gid, fchownat};
    if depth > DEPTH_MAX {
        return Err(Error::other("the volume is too deep to be given to a group"));
    }
    let group = Some(Gid::from_raw(gid));
    let mut listing = nix::dir::Dir::from_fd(nix::unistd::dup(dir.as_fd())?)?;
    let names: Vec<_> = listing.iter().filter_map(|e| e.ok()).map(|e| e.file_name().to_owned()).collect();
    for name in names.iter().filter(|n| !matches!(n.to_bytes(), b"." | b"..")) {
        let name = name.as_c_str();
        let Ok(found) = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            let inner = nix::fcntl::openat(
                dir,
                name,
                nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            give(&std::fs::File::from(inner), gid, depth + 1)?;
            continue;
        }
        fchownat(dir, name, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind == SFlag::S_IFREG {
            let mode = Mode::from_bits_truncate((found.st_mode & 0o7777) | 0o660 | ((found.st_mode & 0o100) >> 3));
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
        }
    }
    std::os::unix::fs::fchown(dir, None, Some(gid))?;
    let mode = dir.metadata()?.mode() & 0o7777;
    dir.set_permissions(std::fs::Permissions::from_mode(mode | 0o2770))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_files_and_leaves_others() {
        let base = std::env::temp_dir().join(format!("limpet-remove-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        let (dir, outside) = (base.join("volume"), base.join("outside"));
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("file"), "x").unwrap();
        std::fs::write(dir.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, base.join("link")).unwrap();
        assert!(remove(&base.join("link")).is_err() && remove(&outside.join("file")).is_err());
        remove(&dir).unwrap();
        assert!(!dir.exists() && outside.join("file").exists());
        remove(&dir).unwrap();
        remove(&base.join("never/made")).unwrap();
        let _ = std::fs::remove_dir_all(base);
    }

    #[test]
    fn the_group_gets_it_once_or_always() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: giving files to a group needs root");
            return;
        }
        let base = std::env::temp_dir().join(format!("limpet-persistent-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        let (dir, outside) = (base.join("volume"), base.join("outside"));
        assert!(set_up(&dir, false, None, true).is_err(), "a local volume must be there");
        set_up(&dir, true, None, true).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o7777, 0o777);
        std::fs::write(&outside, "x").unwrap();
        std::fs::create_dir(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
        let look = |path: &Path| {
            let found = std::fs::metadata(path).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        set_up(&dir, true, Some(2000), false).unwrap();
        assert_eq!(look(&dir.join("sub/file")), (2000, 0o664));
        assert_eq!(look(&dir.join("sub")), (2000, 0o2775));
        assert_eq!(look(&dir), (2000, 0o2777));
        assert_eq!(look(&outside).0, 0, "a link is not followed");
        std::fs::write(dir.join("later"), "x").unwrap();
        std::os::unix::fs::chown(dir.join("later"), None, Some(0)).unwrap();
        set_up(&dir, true, Some(2000), false).unwrap();
        assert_eq!(look(&dir.join("later")).0, 0, "OnRootMismatch: the top matches");
        set_up(&dir, true, Some(2000), true).unwrap();
        assert_eq!(look(&dir.join("later")).0, 2000);
        let _ = std::fs::remove_dir_all(base);
    }
}
