//! Volumes on this node: directories that are bind-mounted into containers.
//!
//! In: resolved data (paths, bytes, modes, group ids) and directories under `<data>/pods/<uid>/volumes`. Out: a
//! source directory for a mount. Never: Kubernetes objects, or a path that leaves its volume.

pub mod atomic;
pub mod emptydir;
pub mod hostpath;
pub mod image;
pub mod persistent;
pub mod subpath;
pub mod travel;

use nix::mount::{MntFlags, umount2};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

pub use atomic::File;
pub use emptydir::Medium;
pub use hostpath::HostPathType;

const MOUNTS: &str = "/proc/self/mountinfo";

/// Where a volume of a pod lives: `<data>/pods/<uid>/volumes/<kind>/<name>`, kubelet's layout without the plugin
/// prefix.
pub fn dir(data_dir: &Path, pod_uid: &str, kind: &str, name: &str) -> PathBuf {
    data_dir.join("pods").join(pod_uid).join("volumes").join(kind).join(name)
}

/// Unmounts and removes everything under the pod's `volumes` directory. hostPath volumes are not under it.
pub fn tear_down_pod(data_dir: &Path, pod_uid: &str) -> Result<()> {
    let base = data_dir.join("pods").join(pod_uid).join("volumes");
    unmount_below(&base)?;
    match std::fs::remove_dir_all(&base) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(Error::new(err.kind(), format!("remove {}: {err}", base.display())))
        }
        _ => Ok(()),
    }
}

/// Detaches every mount at or below the directory, the deepest first.
pub fn unmount_below(base: &Path) -> Result<()> {
    let mut points: Vec<PathBuf> = mount_points()?.into_iter().filter(|point| point.starts_with(base)).collect();
    points.sort();
    for point in points.iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(err) => return Err(Error::other(format!("unmount {}: {}", point.display(), err.desc()))),
        }
    }
    Ok(())
}

/// The text of a file of a volume; `None` when it is not there. The sentence says what else is wrong with it.
pub fn read_text(volume: &Path, path: &str, bytes_max: usize) -> std::result::Result<Option<String>, String> {
    use std::io::Read;
    let told = |err: Error| format!("file \"{path}\" of the volume: {err}");
    let file = match subpath::open_file(volume, path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(told)?,
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() > bytes_max {
        return Err(format!("file \"{path}\" of the volume is larger than {bytes_max} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("file \"{path}\" of the volume is not text in UTF-8"))?;
    Ok(Some(text))
}

pub fn is_mount_point(path: &Path) -> Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == path))
}

fn mount_points() -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(MOUNTS)?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field))).collect())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = field.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (bytes[at], code) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
