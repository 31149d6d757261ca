//! Terminals: receives the pty's master that libcontainer makes inside the container.
//!
//! In: a listening socket whose path libcontainer connects to. Out: the master. Never: used when the spec has no tty.

use super::super::sys;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

pub struct Console {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Console {
    pub fn listen(dir: &Path) -> std::io::Result<Console> {
        let name = format!("tty{}.sock", std::process::id());
        let path = dir.join(&name);
        let _ = std::fs::remove_file(&path);
        // A socket's address has 107 bytes at most: a pod's uid and a container's name take most of them.
        let dir = std::fs::File::open(dir)?;
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        Ok(Console { listener: UnixListener::bind(short)?, path })
    }

    /// The master. libcontainer has sent it before its `build()` returned, so this does not wait.
    pub fn master(self) -> std::io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        let _ = std::fs::remove_file(&self.path);
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        super::super::helper::receive_some(&OwnedFd::from(stream), &mut bytes, &mut fds)?;
        fds.pop().ok_or_else(|| std::io::Error::other("no pty came from the container"))
    }
}

pub fn set_size(tty: BorrowedFd<'_>, columns: u16, rows: u16) -> std::io::Result<()> {
    sys::set_size(tty, columns, rows)
}
