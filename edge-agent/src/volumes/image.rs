//! image: the files of an image, to read.
//!
//! In: unpacked layers. Out: a mount that shows them as one tree, read-only and without programs' rights.
//! Never: a writable layer, or a second mount when one is there.

use nix::mount::{MsFlags, mount};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `layers`: lowest first.
pub fn set_up(dir: &Path, layers: &[PathBuf]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    if super::is_mount_point(dir)? {
        return Ok(());
    }
    let none: Option<&str> = None;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let told = |err: nix::errno::Errno| Error::other(format!("mount an image on {}: {}", dir.display(), err.desc()));
    // overlayfs without a writable layer wants two of them.
    if let [only] = layers {
        mount(Some(only), dir, none, MsFlags::MS_BIND, none).map_err(told)?;
        return mount(none, dir, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, none).map_err(told);
    }
    // By fd: paths of many layers are longer than mount's options may be.
    let open = |layer: &PathBuf| std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(layer);
    let opened = layers.iter().rev().map(open).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = opened.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    let options = format!("lowerdir={}", names.join(":"));
    mount(Some("overlay"), dir, Some("overlay"), flags, Some(options.as_str())).map_err(told)
}
