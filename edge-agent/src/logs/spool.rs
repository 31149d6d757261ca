//! What a container has said and its log does not hold yet, kept where the agent's death cannot reach it.
//!
//! In: bytes moved by the kernel from a pipe into a file of the run directory (tmpfs on a board). Out: the same bytes, to be
//! written to the log; then a mark of how far the log has them. An agent that is killed at any point leaves here what is not in
//! the log yet, and how long the log was before a write that was not marked: nothing is lost, nothing stands twice.
//! A terminal cannot be spliced: there, one read may be lost with its reader.
//! Never: syncs (it has to outlive a process, not the board), or holds more than a few pipes' worth of bytes for long.

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, SpliceFFlags, fallocate, splice},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::BorrowedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

/// Where bytes begin in a spool; the mark stands before them in the file of the first lane.
const HEAD_BYTES: u64 = 64;
/// Bytes that are in the log already and may still take room here.
const STALE_BYTES_MAX: u64 = 256 * 1024;

/// A log at one moment: which file, and how long it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// 0: there was no file that could be written.
    pub inode: u64,
    pub bytes: u64,
}

/// The bytes of one container on their way to its log.
pub struct Spool {
    path: PathBuf,
    head: File,
    /// stdout and stderr; the second is made when there is something to put into it.
    lanes: [Option<Lane>; 2],
    mark: Mark,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    log: Place,
    /// Per lane: up to here everything is in the log.
    kept: [u64; 2],
}

struct Lane {
    file: File,
    size: u64,
    /// Up to here bytes were handed out; what follows `kept` may still wait for the end of its line.
    read: u64,
    /// Up to here the room was given back.
    holed: u64,
}

impl Spool {
    /// For a container that begins now: nothing of an earlier one of this name counts.
    pub fn begin(dir: &Path, id: &str) -> io::Result<Spool> {
        std::fs::create_dir_all(dir)?;
        remove(dir, id);
        Spool::open(dir, id)
    }

    /// For a container of the agent before this one, with what that agent left behind.
    pub fn resume(dir: &Path, id: &str) -> io::Result<Spool> {
        std::fs::create_dir_all(dir)?;
        let mut spool = Spool::open(dir, id)?;
        if path_of(dir, id, 1).exists() {
            spool.lane(1)?;
        }
        for (at, lane) in spool.lanes.iter_mut().enumerate() {
            let Some(lane) = lane else { continue };
            // Beyond the end: the spool was emptied, and the mark that says so was not written any more.
            if !(HEAD_BYTES..=lane.size).contains(&spool.mark.kept[at]) {
                spool.mark.kept[at] = HEAD_BYTES;
            }
            lane.read = spool.mark.kept[at];
        }
        Ok(spool)
    }

    fn open(dir: &Path, id: &str) -> io::Result<Spool> {
        let path = path_of(dir, id, 0);
        let head = open(&path)?;
        let size = head.metadata()?.len();
        let mut mark = Mark { kept: [HEAD_BYTES; 2], ..Mark::default() };
        if size < HEAD_BYTES {
            head.set_len(HEAD_BYTES)?;
            write_mark(&head, &mark)?;
        } else {
            mark = read_mark(&head)?;
        }
        let first = Lane::new(head.try_clone()?, size.max(HEAD_BYTES));
        Ok(Spool { path: path_of(dir, id, 1), head, lanes: [Some(first), None], mark })
    }

    /// The log at the time of the last mark.
    pub fn place(&self) -> Place {
        self.mark.log
    }

    /// Moves what the pipe has, at most `max` bytes, into the spool: 0 is the end of the stream.
    pub fn take_in(&mut self, lane: usize, from: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        let lane = self.lane(lane)?;
        let mut offset = lane.size as i64;
        let moved = match splice(from, None, &lane.file, Some(&mut offset), max, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EINVAL) => lane.copy_in(from, max)?,
            moved => moved?,
        };
        lane.size += moved as u64;
        Ok(moved)
    }

    /// Bytes that were not handed out yet: 0 when there are none.
    pub fn next(&mut self, lane: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(lane) = &mut self.lanes[lane] else { return Ok(0) };
        let there = usize::try_from(lane.size - lane.read).unwrap_or(usize::MAX).min(buffer.len());
        lane.file.read_exact_at(&mut buffer[..there], lane.read)?;
        lane.read += there as u64;
        Ok(there)
    }

    /// The log has all that was handed out, but for the last `waiting` bytes, and is now at `log`.
    pub fn kept(&mut self, lane: usize, waiting: usize, log: Place) -> io::Result<()> {
        let at = lane;
        let Some(lane) = &mut self.lanes[at] else { return Ok(()) };
        self.mark.kept[at] = lane.read - (waiting as u64).min(lane.read - HEAD_BYTES);
        self.mark.log = log;
        write_mark(&self.head, &self.mark)?;
        let stale = self.mark.kept[at];
        if stale - lane.holed > STALE_BYTES_MAX {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (from, bytes) = (lane.holed as i64, (stale - lane.holed) as i64);
            // Where holes cannot be made, the room comes back with the next silence.
            let _ = fallocate(&lane.file, flags, from, bytes);
            lane.holed = stale;
        }
        Ok(())
    }

    /// The stream is silent: what is in the log takes no room here.
    pub fn rest(&mut self, lane: usize) -> io::Result<()> {
        let at = lane;
        let Some(lane) = &mut self.lanes[at] else { return Ok(()) };
        if lane.size == HEAD_BYTES || self.mark.kept[at] != lane.size {
            return Ok(());
        }
        lane.file.set_len(HEAD_BYTES)?;
        (lane.size, lane.read, lane.holed) = (HEAD_BYTES, HEAD_BYTES, HEAD_BYTES);
        self.mark.kept[at] = HEAD_BYTES;
        write_mark(&self.head, &self.mark)
    }

    fn lane(&mut self, lane: usize) -> io::Result<&mut Lane> {
        let slot = &mut self.lanes[lane];
        if slot.is_none() {
            let file = open(&self.path)?;
            let size = file.metadata()?.len();
            if size < HEAD_BYTES {
                file.set_len(HEAD_BYTES)?;
            }
            *slot = Some(Lane::new(file, size.max(HEAD_BYTES)));
        }
        slot.as_mut().ok_or_else(|| io::Error::other("a lane was not made"))
    }
}

impl Lane {
    fn new(file: File, size: u64) -> Lane {
        Lane { file, size, read: HEAD_BYTES, holed: HEAD_BYTES }
    }

    fn copy_in(&self, from: BorrowedFd<'_>, max: usize) -> io::Result<usize> {
        let mut bytes = vec![0; max];
        let n = nix::unistd::read(from, &mut bytes)?;
        self.file.write_all_at(&bytes[..n], self.size)?;
        Ok(n)
    }
}

/// The container is gone.
pub fn remove(dir: &Path, id: &str) {
    for lane in [0, 1] {
        let _ = std::fs::remove_file(path_of(dir, id, lane));
    }
}

fn path_of(dir: &Path, id: &str, lane: usize) -> PathBuf {
    dir.join(format!("{id}.{}", ["out", "err"][lane]))
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn write_mark(head: &File, mark: &Mark) -> io::Result<()> {
    let mut bytes = [0; 32];
    let fields = [mark.log.inode, mark.log.bytes, mark.kept[0], mark.kept[1]];
    for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    // One call within one page: it happens as a whole or not at all.
    head.write_all_at(&bytes, 0)
}

fn read_mark(head: &File) -> io::Result<Mark> {
    let mut bytes = [0; 32];
    head.read_exact_at(&mut bytes, 0)?;
    let field = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
        u64::from_le_bytes(word)
    };
    Ok(Mark { log: Place { inode: field(0), bytes: field(1) }, kept: [field(2), field(3)] })
}
