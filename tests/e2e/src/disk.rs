//! A board's data directory as a disk of its own, so that the kernel counts what reaches it; benchmarks put theirs on one, too.
//!
//! In: the directory, before the agent starts. Out: bytes that were written to the disk, by whomever: what the agent writes, what
//! containers write in their layers, and what the file system adds (its journal, times of access).
//! Never: left behind mounted.

use crate::{Result, process::sh, until};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const BYTES: u64 = 2 << 30;

pub struct Disk {
    image: PathBuf,
    point: PathBuf,
    device: String,
}

/// Mounts of the calling thread, and of what it starts from now on, are nobody else's: whoever walks over the machine's files
/// (locate, du) does not read on a board's disk, and no other namespace keeps it.
pub fn apart() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("cannot leave the host's mounts: {e}"))?;
    sh("mount", ["--make-rprivate", "/"]).map(drop)
}

impl Disk {
    /// An ext4 of its own on a loop device, mounted as Debian mounts one.
    pub fn under(point: &Path) -> Result<Disk> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("a path that is no text".to_string());
        let image = point.with_extension("disk");
        let (file, place) = (text(&image)?, text(point)?);
        fs::create_dir_all(point).map_err(|e| format!("cannot make {place}: {e}"))?;
        fs::File::create(&image).and_then(|empty| empty.set_len(BYTES)).map_err(|e| format!("cannot make {file}: {e}"))?;
        // Nothing that the file system would do later by itself.
        sh("mke2fs", ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", &file])?;
        let device = sh("losetup", ["--find", "--show", &file])?.trim().to_owned();
        let disk = Disk { image, point: point.to_owned(), device };
        sh("mount", [&disk.device, &place])?;
        Ok(disk)
    }

    /// Forces all there is to the disk.
    pub fn sync(&self) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot sync {}: {e}", self.point.display());
        let directory = fs::File::open(&self.point).map_err(|e| failed(&e))?;
        nix::unistd::syncfs(directory).map_err(|e| failed(&e))
    }

    /// Bytes written since the disk was made; what waits in memory is written first.
    pub fn written(&self) -> Result<u64> {
        let name = self.device.rsplit('/').next().unwrap_or_default();
        let path = format!("/sys/block/{name}/stat");
        self.sync()?;
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
        // The seventh number counts sectors of 512 bytes.
        let sectors = text.split_whitespace().nth(6).and_then(|word| word.parse::<u64>().ok());
        sectors.map(|sectors| sectors * 512).ok_or_else(|| format!("{path} says `{}`", text.trim()))
    }
}

mod ioctl {
    #![allow(unsafe_code)]
    //! `EXT4_IOC_SHUTDOWN` of <linux/ext4.h>, by which file systems' own tests cut the power.
    use std::os::fd::AsRawFd;

    nix::ioctl_read!(shutdown, b'X', 125, u32);

    /// Not even the journal's log in memory is written.
    const NOLOGFLUSH: u32 = 2;

    pub fn off(directory: &std::fs::File) -> nix::Result<()> {
        let mut how = NOLOGFLUSH;
        // SAFETY: the kernel reads one u32 at the address, which lives until it returns.
        unsafe { shutdown(directory.as_raw_fd(), &raw mut how) }.map(drop)
    }
}

impl Disk {
    /// The power goes: whatever is not on the disk in this moment is lost, and the disk comes back as it is. Nobody may use it.
    pub fn cut(&self) -> Result<()> {
        let point = self.point.to_string_lossy();
        let directory = fs::File::open(&self.point).map_err(|e| format!("cannot open {point}: {e}"))?;
        ioctl::off(&directory).map_err(|e| format!("cannot stop the file system of {point}: {e}"))?;
        drop(directory);
        // Mounts of the board's own namespace go with its last process.
        until("the disk to be free", Duration::from_secs(20), || sh("umount", [&*point]).map(drop))?;
        sh("mount", [&self.device, &*point]).map(drop)
    }

    /// Makes every time of access two days old: whatever is read from now on is written down again, also with `relatime`, which
    /// spares those of the last day.
    pub fn age(&self) -> Result<()> {
        let point = self.point.to_string_lossy();
        sh("find", [&point, "-xdev", "-exec", "touch", "-h", "-a", "-d", "2 days ago", "{}", "+"]).map(|_| ())
    }

    /// Says which files changed in the last minutes.
    pub fn tell(&self, minutes: u64) {
        let (point, age) = (self.point.to_string_lossy(), format!("-{minutes}"));
        // Looking must not count as reading.
        let _ = sh("mount", ["-o", "remount,noatime", &point]);
        let found = sh("find", [&point, "-xdev", "(", "-cmin", &age, "-or", "-amin", &age, ")"]);
        println!("changed or read: {}", found.unwrap_or_else(|why| why));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The board may still run: its own view of the disk goes with it, and then the loop device.
        let point = self.point.to_string_lossy();
        let _ = sh("umount", ["--lazy", &point]);
        let _ = sh("losetup", ["--detach", &self.device]);
        let _ = fs::remove_file(&self.image);
    }
}
