#![allow(unsafe_code)] // system calls without a wrapper in libc or nix
//! The system calls that the runtime needs and no crate wraps.
//!
//! In and out: fds and plain numbers. Never: keeps state.

use nix::errno::Errno;
use std::ffi::{CString, OsStr};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
/// Absolute links and `..` count from the directory, as after chroot(2).
pub const RESOLVE_IN_ROOT: u64 = 0x10;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// struct pidfd_info of linux/pidfd.h, its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

pub fn c_path(path: &Path) -> Result<CString> {
    c_str(path.as_os_str())
}

pub fn c_str(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::other("a path or word holds a zero byte"))
}

pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers; the call returns a new fd (close-on-exec) or -1.
    new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

pub fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a live fd and a null siginfo, which the kernel fills in itself.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Wait status of a process that ended and was reaped by somebody else; `None` before Linux 6.15.
pub fn pidfd_exit_status(pidfd: &OwnedFd) -> Option<i32> {
    const INFO_EXIT: u64 = 1 << 3;
    const GET_INFO: u64 = (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size of the live struct that the kernel fills.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// openat2(2) relative to a directory.
pub fn open_in(dir: BorrowedFd<'_>, path: &Path, flags: i32, resolve: u64) -> Result<OwnedFd> {
    let path = c_path(path)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    loop {
        // SAFETY: path and `how` live through the call and the true size of `how` is passed.
        let raw = unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &how, size_of::<OpenHow>())
        };
        match new_fd(raw) {
            Err(err) if matches!(err.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// The fd that a system call has just returned, or its error.
pub(super) fn new_fd(raw: libc::c_long) -> Result<OwnedFd> {
    let raw = Errno::result(raw)? as i32;
    // SAFETY: the kernel just returned this fd to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Puts an fd under tokio's watch; it should be non-blocking.
pub fn watch(fd: OwnedFd) -> Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always the same, and closed only when the `AsyncFd` drops it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// fork(2) in a process with one thread: 0 in the child.
pub fn fork() -> Result<i32> {
    // SAFETY: callers have one thread, so the child may go on with ordinary code.
    Ok(Errno::result(unsafe { libc::fork() })?)
}

/// fork(2) whose child is born in a cgroup (v2, Linux 5.7): nobody has to be moved there, which takes the kernel long.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> Result<i32> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    #[repr(C)]
    #[derive(Default)]
    struct Args {
        flags: u64,
        unused: [u64; 3],
        exit_signal: u64,
        rest: [u64; 5],
        cgroup: u64,
    }
    let args = Args {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..Args::default()
    };
    // SAFETY: no stack and no thread flags make this a fork; `args` has the layout of clone_args and its true size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<Args>()) };
    Ok(Errno::result(pid)? as i32)
}

/// A child that writes `0` to a file and ends, with 0 when that worked. It runs in this process's own memory, so that nothing
/// is copied for it and nothing has to be copied when this process goes on. Its stack is given away: it may outlive the
/// caller's interest.
pub fn write_zero_aside(file: BorrowedFd<'_>) -> Result<i32> {
    const STACK_WORDS: usize = 1024;
    extern "C" fn child(file: *mut libc::c_void) -> libc::c_int {
        // SAFETY: two system calls on plain numbers and a static text. The errno that a failure sets is the parent's, too.
        unsafe {
            let written = libc::syscall(libc::SYS_write, file as usize, c"0".as_ptr(), 1usize);
            libc::_exit(libc::c_int::from(written != 1))
        }
    }
    let stack = Box::leak(vec![0u128; STACK_WORDS].into_boxed_slice()).as_mut_ptr_range();
    let number = file.as_raw_fd() as usize as *mut libc::c_void;
    // SAFETY: `stack.end` is the top of a live, aligned stack that nobody else has; the child ends in `_exit` and touches no
    // other memory. It has a copy of the table of fds.
    let pid = unsafe { libc::clone(child, stack.end.cast(), libc::CLONE_VM | libc::SIGCHLD, number) };
    Ok(Errno::result(pid)?)
}

/// Ends this process at once, without anything that Rust or libc would do.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// What this process has: the effective set and the permitted one.
pub fn capabilities() -> Result<(u64, u64)> {
    let header = [CAPABILITY_VERSION_3, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of capget(2) version 3 and live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    let set = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    Ok((set(0), set(1)))
}

/// Whether a capability's number means something to this kernel.
pub fn knows_capability(number: u32) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, number as libc::c_ulong, 0, 0, 0) >= 0 }
}

/// Every capability set at once; bounding is separate.
pub fn set_capabilities(caps: u64) -> Result<()> {
    let header = [CAPABILITY_VERSION_3, 0];
    let (low, high) = (caps as u32, (caps >> 32) as u32);
    // effective, permitted, inheritable; low words first.
    let data = [[low, low, 0], [high, high, 0]];
    // SAFETY: header and data have the layout of capset(2) version 3 and live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// Drops every capability outside `keep` from the bounding set, and the ambient set whole.
pub fn limit_bounding(keep: u64, last_cap: u32) -> Result<()> {
    for cap in (0..=last_cap).filter(|cap| keep & (1 << cap) == 0) {
        // SAFETY: plain numbers.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap as libc::c_ulong, 0, 0, 0) };
        if held == 1 {
            // SAFETY: plain numbers.
            Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap as libc::c_ulong, 0, 0, 0) })?;
        }
    }
    // SAFETY: plain numbers.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Every signal to its default, none blocked: what a new program expects.
pub fn reset_signals() -> Result<()> {
    // Past the C library: it hides two numbers, and its posix_spawn leaves just those ignored.
    let default = [0usize; 8];
    for signal in (1..=64).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        let none: *mut usize = std::ptr::null_mut();
        // SAFETY: a zeroed kernel sigaction (handler SIG_DFL, no flags, empty mask), larger than any layout of it.
        let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
        Errno::result(result)?;
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Marks every fd from 3 up close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    // SAFETY: plain numbers; nothing is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        if let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            && fd >= first as i32
        {
            // SAFETY: F_SETFD on a number that may have been closed meanwhile is harmless.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Installs a seccomp filter for this thread.
pub fn load_seccomp(filter: &[libc::sock_filter], flags: u32) -> Result<()> {
    const SET_MODE_FILTER: libc::c_ulong = 1;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads `len` instructions behind the pointer, which live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &program) })?;
    Ok(())
}

/// execve(2); returns only with an error.
pub fn exec(program: &CString, args: &[CString], env: &[CString]) -> Error {
    match nix::unistd::execve(program, args, env) {
        Ok(never) => match never {},
        Err(err) => err.into(),
    }
}

/// Takes ownership of an fd that this process inherited under a known number.
pub fn inherited(raw: i32) -> OwnedFd {
    // SAFETY: the caller names an fd that it was started with (0 or 3) and takes it once.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

pub fn set_size(tty: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &size) })?;
    Ok(())
}

/// Attaches an eBPF program to a cgroup (device control of cgroup v2).
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[u64]) -> Result<()> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_ATTACH: i32 = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 5],
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
        rest: [u64; 2],
    }
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 5],
    };
    // SAFETY: `load` is a prefix of union bpf_attr with its true size; the pointers in it live through the call.
    let raw = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &load, size_of::<Load>()) };
    let loaded = new_fd(raw)?;
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        rest: [0; 2],
    };
    // SAFETY: as above; both fds are open.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attach, size_of::<Attach>()) })?;
    Ok(())
}

/// dup2(2) onto a standard number.
pub fn onto(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    // SAFETY: both are plain numbers; what `number` was is closed, and nothing here owns it.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}
