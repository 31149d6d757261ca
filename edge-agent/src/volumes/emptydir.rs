//! emptyDir: a directory on the disk, or a tmpfs.
//!
//! In: the volume's directory, medium, size, group. Out: a directory that any user of the pod may write.
//! Never: empties what a running pod has written (a second call changes nothing).

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::io::{Error, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    #[default]
    Disk,
    /// Counts against the pod's memory. Secrets and tokens live here too.
    Memory { bytes: Option<u64> },
    /// Large pages; 0 is the kernel's usual size of them.
    HugePages { page_bytes: u64 },
}

pub fn set_up(dir: &Path, medium: Medium, fs_group: Option<u32>) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    if let Medium::Memory { bytes } = medium
        && !super::is_mount_point(dir)?
    {
        mount_tmpfs(dir, bytes, 0o777)?;
    }
    if let Medium::HugePages { page_bytes } = medium
        && !super::is_mount_point(dir)?
    {
        mount_huge_pages(dir, page_bytes)?;
    }
    let mut mode = 0o777;
    if let Some(gid) = fs_group {
        std::os::unix::fs::chown(dir, None, Some(gid))?;
        mode |= 0o2000;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
}

/// A tmpfs without devices, programs' special rights or, when the kernel can, swap.
pub fn mount_tmpfs(dir: &Path, bytes: Option<u64>, mode: u32) -> Result<()> {
    let mut options = format!("mode={mode:o}");
    if let Some(bytes) = bytes {
        options.push_str(&format!(",size={bytes}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    out_of_swap(&KNOWS_NOSWAP, &options, |options| mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options)))
        .map_err(|err| Error::other(format!("mount a tmpfs on {}: {}", dir.display(), err.desc())))
}

/// Linux 6.4 and newer.
static KNOWS_NOSWAP: AtomicBool = AtomicBool::new(true);

/// A kernel that does not know the word writes each attempt to its log, which many boards keep on their card: it is asked once.
pub(super) fn out_of_swap(known: &AtomicBool, options: &str, attempt: impl Fn(&str) -> nix::Result<()>) -> nix::Result<()> {
    if !known.load(Ordering::Relaxed) {
        return attempt(options);
    }
    attempt(&format!("{options},noswap")).or_else(|err| {
        attempt(options)?;
        // Without the word it went well: that was all it did not know.
        known.store(err != Errno::EINVAL, Ordering::Relaxed);
        Ok(())
    })
}

fn mount_huge_pages(dir: &Path, page_bytes: u64) -> Result<()> {
    let options = if page_bytes == 0 { "mode=777".to_string() } else { format!("mode=777,pagesize={page_bytes}") };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("hugetlbfs"), dir, Some("hugetlbfs"), flags, Some(options.as_str())).map_err(|err| {
        Error::other(format!("mount huge pages of {page_bytes} bytes on {}: {}", dir.display(), err.desc()))
    })
}
