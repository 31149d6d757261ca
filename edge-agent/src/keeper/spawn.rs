#![allow(unsafe_code)] // pre_exec places the socket on fd 3
//! Starts the agent below the keeper, with its end of their socket.
//!
//! In: a program, its arguments. Out: a process and the keeper's end; words for how one ended.
//! Never: an agent that outlives its keeper, or that keeps the keeper's signal mask.

use super::AGENT_FD;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub fn start_agent(exe: &Path, args: &[OsString]) -> std::io::Result<(Pid, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    let theirs_raw = theirs.as_raw_fd();
    let mut command = Command::new(exe);
    command.arg0("limpet-agent").arg("agent").args(args);
    // SAFETY: only dup2, fcntl, prctl and sigprocmask, all async-signal-safe, run between fork and exec; the process has
    // one thread.
    unsafe {
        command.pre_exec(move || {
            if theirs_raw == AGENT_FD {
                Errno::result(libc::fcntl(AGENT_FD, libc::F_SETFD, 0))?;
            } else {
                Errno::result(libc::dup2(theirs_raw, AGENT_FD))?;
            }
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
            // The keeper blocks what it reads from its signalfd; the agent must not inherit that.
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok((Pid::from_raw(child.id() as i32), ours))
}

pub fn raise_fd_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard);
    }
}

pub fn describe(status: i32) -> String {
    if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit code {}", libc::WEXITSTATUS(status))
    }
}
