#![allow(unsafe_code)] // mkdirat has no wrapper that takes a borrowed directory and a mode here
//! Makes a container's working directory where its image has none, as other runtimes do.
//!
//! In: the mounted root, the container's mounts with what they are sources of. Out: the directory, root's with mode 755, also
//! in a volume. Never: leaves the root or the volume, whatever links are in them; writes to a volume that is read-only here;
//! judges a path that cannot be: that is libcontainer's `chdir`, which says why.

use super::super::spec::Mount;
use super::super::sys;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

const DEPTH_MAX: usize = 64;
const MODE: libc::mode_t = 0o755;
/// The kernel's own: what is there is not a directory of the image.
const NOT_THE_IMAGES: [&str; 3] = ["proc", "sys", "dev"];

/// `sources` in the order of `mounts`. Whoever calls it decides by its file system ids who owns what is made.
pub fn make(root: &Path, mounts: &[Mount], sources: &[PathBuf], cwd: &str) -> Result<()> {
    let Some(parts) = parts(cwd) else { return Ok(()) };
    let holds = |destination: &Path| {
        let destination: Vec<&OsStr> = destination.components().filter_map(normal).collect();
        parts.starts_with(&destination).then_some(destination.len())
    };
    let all = mounts.iter().zip(sources).filter_map(|(mount, source)| Some((holds(&mount.destination)?, mount, source)));
    // A later mount lies on an earlier one.
    match all.max_by_key(|(depth, ..)| *depth) {
        Some((_, mount, _)) if mount.read_only => Ok(()),
        // A link of a volume counts from the container's root, which is not there yet: such a path is left alone.
        Some((depth, _, source)) => below(source, &parts[depth..], sys::RESOLVE_BENEATH),
        None if parts.first().is_none_or(|top| NOT_THE_IMAGES.iter().any(|name| top == name)) => Ok(()),
        None => below(root, &parts, sys::RESOLVE_IN_ROOT),
    }
}

/// `None`: not a plain absolute path.
fn parts(cwd: &str) -> Option<Vec<&OsStr>> {
    let path = Path::new(cwd);
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let parts: Vec<&OsStr> = path.components().filter_map(normal).collect();
    (plain && parts.len() <= DEPTH_MAX).then_some(parts)
}

fn normal(part: Component<'_>) -> Option<&OsStr> {
    match part {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

fn below(base: &Path, parts: &[&OsStr], resolve: u64) -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let Ok(base) = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(base) else { return Ok(()) };
    let base = OwnedFd::from(base);
    // Always from the base, where links that lead to its root come out in it.
    let open = |path: &Path| {
        sys::open_in(base.as_fd(), path, libc::O_PATH | libc::O_DIRECTORY, resolve | sys::RESOLVE_NO_MAGICLINKS)
    };
    let (mut at, mut path) = (base.try_clone()?, PathBuf::new());
    for part in parts {
        path.push(part);
        at = match open(&path) {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let name = sys::c_str(part)?;
                // SAFETY: a live directory fd and C string.
                let made = unsafe { libc::mkdirat(at.as_raw_fd(), name.as_ptr(), MODE) };
                if made != 0 && Error::last_os_error().kind() != ErrorKind::AlreadyExists {
                    let err = Error::last_os_error();
                    return Err(Error::new(err.kind(), format!("mkdir {}: {err}", path.display())));
                }
                match open(&path) {
                    Ok(made) => made,
                    // A link to what is not there yet, as a volume may be.
                    Err(_) => return Ok(()),
                }
            }
            Err(_) => return Ok(()),
            Ok(found) => found,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("limpet-workdir-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("root/etc")).unwrap();
        std::fs::create_dir_all(dir.join("volume")).unwrap();
        dir
    }

    #[test]
    fn it_is_made_in_the_root_whatever_its_links_say() {
        let dir = scratch("links");
        let (root, outside) = (dir.join("root"), dir.join("volume"));
        let cwd = |cwd: &str| make(&root, &[], &[], cwd);
        cwd("/a/b").unwrap();
        cwd("/a/b/c/").unwrap();
        assert_eq!(std::fs::metadata(root.join("a/b/c")).unwrap().permissions().mode() & 0o777, 0o755);
        // Out by an absolute link, and by one that climbs: both stay in the root.
        symlink(&outside, root.join("away")).unwrap();
        symlink("../../../../../..", root.join("up")).unwrap();
        symlink("/etc", root.join("inside")).unwrap();
        cwd("/away/x").unwrap();
        assert!(!root.join(outside.strip_prefix("/").unwrap()).exists(), "a link to nothing in this root is left alone");
        std::fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap())).unwrap();
        cwd("/away/x").unwrap();
        cwd("/up/y").unwrap();
        cwd("/inside/z").unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join("y").is_dir() && root.join("etc/z").is_dir());
        assert!(root.join(outside.strip_prefix("/").unwrap()).join("x").is_dir());
        // Not ours to make, or no such path: the container's start says what is wrong with it.
        std::fs::write(root.join("file"), "").unwrap();
        for other in ["", "/", "relative/x", "/a/../../b", "/proc/x", "/dev/x", "/sys/x", "/file/x", &"/d".repeat(65)] {
            cwd(other).unwrap_or_else(|e| panic!("{other}: {e}"));
        }
        assert!(!root.join("proc").exists() && !root.join("d").exists() && !root.join("relative").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn in_a_volume_it_is_made_there_where_that_may_be_written() {
        let dir = scratch("volume");
        let (root, volume, inner) = (dir.join("root"), dir.join("volume"), dir.join("inner"));
        std::fs::create_dir(&inner).unwrap();
        let on = |destination: &str, source: &Path, read_only| Mount {
            source: source.into(),
            destination: destination.into(),
            read_only,
            ..Mount::default()
        };
        let mounts = [on("/data", &volume, false), on("/data/inner/", &inner, false), on("/fixed", &volume, true)];
        let sources: Vec<PathBuf> = mounts.iter().map(|mount| mount.source.clone()).collect();
        let cwd = |cwd: &str| make(&root, &mounts, &sources, cwd);
        for path in ["/data", "/data/one/two", "/data/inner/three", "/database/four", "/fixed/five"] {
            cwd(path).unwrap();
        }
        assert!(volume.join("one/two").is_dir() && inner.join("three").is_dir() && root.join("database/four").is_dir());
        assert!(!volume.join("inner").exists() && !volume.join("five").exists() && !root.join("data").exists());
        symlink(&root, volume.join("out")).unwrap();
        symlink("..", volume.join("up")).unwrap();
        cwd("/data/out/six").unwrap();
        cwd("/data/up/seven").unwrap();
        assert!(!root.join("six").exists() && !dir.join("seven").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
