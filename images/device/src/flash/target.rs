//! One card or file, opened for writing.
//!
//! In: a path. Out: writes and reads at offsets, past the page cache where the system lets us.
//! Never: opens a drive that the kernel says somebody uses (O_EXCL).

use rustix::{
    fs::{Advice, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Direct I/O wants memory, offsets and lengths in multiples of this, at the most.
const ALIGN: usize = 4096;
/// And of this, at the least.
const SECTOR: usize = 512;
const ZEROS: [u8; ALIGN] = [0; ALIGN];

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0} is in use by this machine; unmount it, or end what uses it, and try again")]
    Busy(String),
    #[error("no right to write {0}; run as root, or join the group `disk`")]
    Denied(String),
    #[error("{0} is gone; was the card pulled?")]
    Gone(String),
    #[error("{0} is full: the image is larger than it")]
    Full(String),
    #[error("{0} fails: {1}; the card or its reader is broken, take another")]
    Io(String, io::Error),
}

pub struct Target {
    file: File,
    path: PathBuf,
    is_device: bool,
    /// Of a device, when it was opened.
    bytes: u64,
    direct: AtomicBool,
    /// What was done to it, for tests that cut the power in between.
    #[cfg(test)]
    pub log: std::sync::Arc<std::sync::Mutex<Vec<Step>>>,
}

#[cfg(test)]
#[derive(Clone)]
pub enum Step {
    Write(u64, Vec<u8>),
    Sync,
}

impl Target {
    /// A block device, which must exist, or a file, which is made or emptied.
    pub fn open(path: &Path) -> Result<Target, TargetError> {
        let is_device = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        let base = OFlags::RDWR | OFlags::CLOEXEC;
        let open = |flags: OFlags| rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
        let opened = match is_device {
            // Without O_CREAT, O_EXCL means: not while it is mounted or held. The kernel itself is the last guard.
            true => open(base | OFlags::EXCL | OFlags::DIRECT).map(|fd| (fd, true)).or_else(|e| match e {
                Errno::INVAL => open(base | OFlags::EXCL).map(|fd| (fd, false)),
                other => Err(other),
            }),
            false => open(base | OFlags::CREATE | OFlags::TRUNC).map(|fd| (fd, false)),
        };
        let (fd, direct) = opened.map_err(|e| explain(path, e.into()))?;
        let file = File::from(fd);
        let bytes = if is_device { (&file).seek(SeekFrom::End(0)).map_err(|e| explain(path, e))? } else { 0 };
        Ok(Target {
            file,
            path: path.into(),
            is_device,
            bytes,
            direct: direct.into(),
            #[cfg(test)]
            log: Default::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// `major:minor` of a device, as /sys writes it.
    pub fn number(&self) -> Option<String> {
        let rdev = self.file.metadata().ok()?.rdev();
        self.is_device.then(|| format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev)))
    }

    /// `data` comes from `Aligned`. A last piece that fills no sector is written without direct I/O.
    pub fn write(&self, data: &[u8], offset: u64) -> Result<(), TargetError> {
        #[cfg(test)]
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Step::Write(offset, data.to_vec()));
        self.with_fallback(data.len(), || self.file.write_all_at(data, offset))
    }

    pub fn read(&self, into: &mut [u8], offset: u64) -> Result<(), TargetError> {
        let cell = std::cell::RefCell::new(into);
        let length = cell.borrow().len();
        self.with_fallback(length, || self.file.read_exact_at(&mut cell.borrow_mut(), offset))
    }

    /// The same on the medium afterwards, but for a file that has just been made: there, what is not written reads as zeros.
    pub fn write_or_skip(&self, data: &[u8], offset: u64) -> Result<(), TargetError> {
        let zeros = || data.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()]);
        if self.is_device || !zeros() { self.write(data, offset) } else { Ok(()) }
    }

    /// A file ends there, also where its last part was skipped.
    pub fn end_at(&self, bytes: u64) -> Result<(), TargetError> {
        if self.is_device { Ok(()) } else { self.file.set_len(bytes).map_err(|e| self.why(e)) }
    }

    fn with_fallback(&self, length: usize, work: impl Fn() -> io::Result<()>) -> Result<(), TargetError> {
        if !self.direct.load(Relaxed) {
            return work().map_err(|e| self.why(e));
        }
        if !length.is_multiple_of(SECTOR) {
            // The end of an odd image. What comes after it, reading back above all, is direct again.
            return self.buffered(&work);
        }
        match work() {
            // Sectors of another size, or a device that cannot.
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                let done = self.buffered(&work);
                if length.is_multiple_of(ALIGN) {
                    self.direct.store(false, Relaxed);
                    self.set_direct(false)?;
                }
                done
            }
            other => other.map_err(|e| self.why(e)),
        }
    }

    /// Through the page cache, this once.
    fn buffered(&self, work: &impl Fn() -> io::Result<()>) -> Result<(), TargetError> {
        self.set_direct(false)?;
        let done = work().map_err(|e| self.why(e));
        self.set_direct(true)?;
        done
    }

    fn set_direct(&self, on: bool) -> Result<(), TargetError> {
        let flags = rustix::fs::fcntl_getfl(&self.file).map_err(|e| self.why(e.into()))? - OFlags::DIRECT;
        let flags = if on { flags | OFlags::DIRECT } else { flags };
        rustix::fs::fcntl_setfl(&self.file, flags).map_err(|e| self.why(e.into()))
    }

    /// A reader whose card was pulled is still there, and says only that the drive has come to its end.
    fn why(&self, error: io::Error) -> TargetError {
        let other = self.is_device && (&self.file).seek(SeekFrom::End(0)).is_ok_and(|bytes| bytes != self.bytes);
        if other { TargetError::Gone(self.path.display().to_string()) } else { explain(&self.path, error) }
    }

    /// Everything is on the medium, and the next read comes from there.
    pub fn sync(&self) -> Result<(), TargetError> {
        #[cfg(test)]
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Step::Sync);
        self.file.sync_all().map_err(|e| self.why(e))?;
        // Advice only: a file system without it reads from memory.
        let _ = rustix::fs::fadvise(self.file.as_fd(), 0, None, Advice::DontNeed);
        Ok(())
    }
}

impl Target {
    /// Tells the reader to let go of the card, as a desktop's "eject" does; whether it did. Readers that cannot stay as they are.
    #[allow(unsafe_code)]
    pub fn eject(&self) -> bool {
        const CDROMEJECT: rustix::ioctl::Opcode = 0x5309;
        if !self.is_device {
            return false;
        }
        // SAFETY: this request has no argument and touches no memory of this process; the descriptor is open meanwhile.
        unsafe { rustix::ioctl::ioctl(&self.file, rustix::ioctl::NoArg::<CDROMEJECT>::new()).is_ok() }
    }
}

fn explain(path: &Path, error: io::Error) -> TargetError {
    let name = path.display().to_string();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => TargetError::Busy(name),
        Some(Errno::ACCESS | Errno::PERM) => TargetError::Denied(name),
        Some(Errno::NODEV | Errno::NXIO | Errno::NOENT | Errno::NOMEDIUM) => TargetError::Gone(name),
        Some(Errno::NOSPC) => TargetError::Full(name),
        // A drive that vanishes under a write says only this.
        Some(Errno::IO) if !path.exists() => TargetError::Gone(name),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => TargetError::Full(name),
        _ => TargetError::Io(name, error),
    }
}

/// Memory at an address that direct I/O takes, without unsafe code: a little too much, used from the right place on.
pub struct Aligned {
    memory: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    pub fn new(length: usize) -> Aligned {
        let memory = vec![0u8; length + ALIGN];
        let from = memory.as_ptr().align_offset(ALIGN);
        Aligned { memory, from, length }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.length]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.length]
    }
}
