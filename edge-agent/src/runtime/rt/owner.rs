//! Users of a pod's own: a process in a new user namespace, from which the pod's other namespaces are made.
//!
//! In: the first id of the pod's range, work to do as its user 0. Out: a process whose namespaces can be pinned.
//! Never: started in a process with threads; alive after its maker.

use super::super::detached::{as_owner, mapped, place};
use super::super::spec::IDS_PER_POD;
use super::super::sys;
use super::rootfs::leave_mounts;
use super::{Failure, Outcome, init};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, pipe2};
use std::io::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const WORDS_BYTES_MAX: usize = 1024;
/// For the trial only; nothing is left that belongs to it.
const TRIAL_ID: u32 = IDS_PER_POD;

pub struct Owner {
    pub pid: i32,
    /// What its work returned.
    pub said: i32,
    go: OwnedFd,
}

impl Owner {
    /// `work` runs in the new process as user 0 of the new namespace; the process then waits for `end`.
    pub fn start(first_id: u32, work: impl FnOnce() -> Result<i32>) -> Result<Owner> {
        let (answers, answer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (wait, go) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let pid = sys::fork()?;
        if pid == 0 {
            drop((answers, go));
            let line = match inside(&answer, &wait, work) {
                Ok(number) => format!("{number}\n"),
                Err(err) => format!("{err}\n"),
            };
            let _ = nix::unistd::write(&answer, line.as_bytes());
            let _ = nix::unistd::read(&wait, &mut [0; 1]);
            sys::exit_now(0);
        }
        drop((answer, wait));
        let mut owner = Owner { pid, said: 0, go };
        match line(&answers)?.as_str() {
            "unshared" => {}
            why => return Err(Error::other(format!("a user namespace: {why}"))),
        }
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {first_id} {IDS_PER_POD}\n"))?;
        }
        nix::unistd::write(&owner.go, b"m")?;
        let said = line(&answers)?;
        owner.said = said.parse().map_err(|_| Error::other(format!("namespaces of the pod's own users: {said}")))?;
        Ok(owner)
    }

    pub fn end(self) -> Result<()> {
        let pid = Pid::from_raw(self.pid);
        drop(self);
        waitpid(pid, None)?;
        Ok(())
    }
}

fn inside(answer: &OwnedFd, wait: &OwnedFd, work: impl FnOnce() -> Result<i32>) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    nix::unistd::write(answer, b"unshared\n")?;
    if nix::unistd::read(wait, &mut [0; 1])? == 0 {
        sys::exit_now(1);
    }
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
    nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    work()
}

fn line(from: &OwnedFd) -> Result<String> {
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    while text.len() < WORDS_BYTES_MAX && nix::unistd::read(from, &mut byte)? == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Process 1 of a process namespace that the pod's containers share. Returns its number on the host.
pub fn start_init() -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = sys::fork()?;
    if child == 0 {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        if let Ok(null) = null {
            for stdio in 0..3 {
                let _ = sys::onto(null.as_fd(), stdio);
            }
        }
        let _ = sys::close_on_exec_from(3);
        let words: Vec<_> = [c"limpet-agent", c"rt", c"init"].map(std::ffi::CStr::to_owned).into();
        let _ = sys::exec(&c"/proc/self/exe".to_owned(), &words, &[]);
        // A program that only root may run: what it would do is here too.
        sys::exit_now(init::main());
    }
    Ok(child)
}

/// Tries everything that a pod with users of its own needs, on the file systems that it would be on.
pub fn attempt(run_dir: &Path, data_dir: &Path) -> std::result::Result<Outcome, Failure> {
    let dir = data_dir.join("users-trial");
    let _ = std::fs::remove_dir_all(&dir);
    let tried = attempt_in(&dir, run_dir);
    let _ = std::fs::remove_dir_all(&dir);
    tried.map(|()| Outcome::default()).map_err(|err| Failure::Create(err.to_string()))
}

fn attempt_in(dir: &Path, run_dir: &Path) -> Result<()> {
    let owner = Owner::start(TRIAL_ID, || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID)?;
        let child = sys::fork()?;
        if child == 0 {
            let fine = |kind: &str, at: &str| mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>).is_ok();
            sys::exit_now(i32::from(!(fine("proc", "/proc") && fine("sysfs", "/sys"))));
        }
        match waitpid(Pid::from_raw(child), None)? {
            WaitStatus::Exited(_, 0) => Ok(0),
            _ => Err(Error::other("they may not mount /proc and /sys (is the agent in a container itself?)")),
        }
    })?;
    let users = std::fs::File::open(format!("/proc/{}/ns/user", owner.pid))?;
    leave_mounts(MsFlags::MS_PRIVATE)?;
    mapped(run_dir, users.as_fd())?;
    for name in ["disk/upper", "disk/work", "lower", "root"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    std::fs::write(dir.join("lower/file"), b"")?;
    place(&mapped(&dir.join("lower"), users.as_fd())?, &dir.join("lower"))?;
    std::os::unix::fs::chown(dir.join("disk/upper"), Some(TRIAL_ID), Some(TRIAL_ID))?;
    std::env::set_current_dir(dir)?;
    let options = "lowerdir=lower,upperdir=disk/upper,workdir=disk/work";
    let mounted = mount(Some("overlay"), "root", Some("overlay"), MsFlags::empty(), Some(options));
    std::env::set_current_dir("/")?;
    mounted.map_err(|err| Error::other(format!("an overlay of mapped layers: {}", err.desc())))?;
    let owned = std::fs::metadata(dir.join("root/file"))?.uid();
    as_owner(TRIAL_ID, || std::fs::create_dir(dir.join("root/made")))?;
    let made = std::fs::metadata(dir.join("disk/upper/made"))?.uid();
    if (owned, made) != (TRIAL_ID, TRIAL_ID) {
        return Err(Error::other(format!("an overlay of mapped layers shows the owners {owned} and {made}")));
    }
    nix::mount::umount2(&dir.join("root"), nix::mount::MntFlags::MNT_DETACH)?;
    nix::mount::umount2(&dir.join("lower"), nix::mount::MntFlags::MNT_DETACH)?;
    owner.end()
}
