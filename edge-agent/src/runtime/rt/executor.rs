//! The last steps inside the container, after libcontainer's and before the program's.
//!
//! In: the program, the final capabilities, the filter. Out: the running program, or an error in runc's words on the
//! error pipe (which closes by itself when execve succeeds). Never: leaves a signal ignored, an fd open, a capability
//! that was only borrowed, or a program without its filter.

use super::super::detached;
use super::super::seccomp::Filter;
use super::super::sys;
use super::{caps, home};
use crate::device::cgroups::enter;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use std::collections::HashMap;
use std::fs::File;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone)]
pub struct Program {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Final capabilities.
    pub caps: u64,
    pub last_cap: u32,
    pub filter: Option<Rc<Filter>>,
    /// Write end of the error pipe, close-on-exec.
    pub errors: Rc<OwnedFd>,
    /// The group's files when the program's process is not in it yet. They were opened by root, which is what counts.
    pub doors: Option<Rc<Vec<File>>>,
    /// As the container counts.
    pub uid: u32,
    /// The first program of a container: its mounts are looked at once more.
    pub guarded: bool,
    /// An exec in a pod with users of its own: libcontainer joins every namespace but that of users.
    pub users: Option<Rc<File>>,
    pub tty: bool,
    /// Volumes in /dev and their places (`over_dev`).
    pub late: Rc<Vec<(PathBuf, OwnedFd)>>,
}

impl Program {
    fn fail(&self, why: &str) -> String {
        let _ = nix::unistd::write(self.errors.as_fd(), why.as_bytes());
        why.to_owned()
    }

    /// The file to execute, found as execvp(3) and runc find it.
    fn find(&self) -> Result<CString, String> {
        let Some(name) = self.args.first().filter(|name| !name.is_empty()) else {
            return Err("no command specified".into());
        };
        if name.contains('/') {
            return check(Path::new(name)).map_err(|why| format!("exec: \"{name}\": {why}"));
        }
        let path = self.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let mut refused = None;
        for dir in path.split(':') {
            let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
            match check(&file) {
                Ok(found) => return Ok(found),
                Err(why) if why == "permission denied" => refused = Some(why),
                Err(_) => {}
            }
        }
        Err(match refused {
            Some(why) => format!("exec: \"{name}\": {why}"),
            None => format!("exec: \"{name}\": executable file not found in $PATH"),
        })
    }

    fn run(&self) -> Result<(), String> {
        let text = |what: &'static str| move |err: std::io::Error| format!("{what}: {err}");
        let file = self.find()?;
        if self.guarded {
            super::guard::check_mounts()?;
        }
        for (path, volume) in self.late.iter() {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let place = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
            let placed = place.and_then(|place| detached::place_on(volume, place.as_fd()));
            placed.map_err(|err| format!("mount the volume on {}: {err}", path.display()))?;
        }
        for door in self.doors.iter().flat_map(|doors| doors.iter()) {
            enter(door, 0).map_err(text("join the cgroup"))?;
        }
        let words = |words: &[String]| -> std::io::Result<Vec<CString>> {
            words.iter().map(|word| sys::c_str(OsStr::new(word))).collect()
        };
        let args = words(&self.args).map_err(text("exec"))?;
        let mut env = words(&last_of_each(&self.env)).map_err(text("exec"))?;
        if !self.env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(sys::c_str(OsStr::new(&format!("HOME={}", home::of(self.uid)))).map_err(text("exec"))?);
        }
        if let Some(users) = &self.users {
            if self.tty {
                // Made by the host's root, it is the program's own.
                let own = (nix::unistd::geteuid(), std::io::stdin());
                let _ = nix::unistd::fchown(own.1.as_fd(), Some(own.0), None);
            }
            nix::sched::setns(users.as_fd(), nix::sched::CloneFlags::CLONE_NEWUSER)
                .map_err(|err| format!("join the pod's users: {err}"))?;
        }
        sys::close_on_exec_from(3).map_err(text("close fds"))?;
        sys::reset_signals().map_err(text("reset signals"))?;
        sys::limit_bounding(self.caps, self.last_cap).map_err(text("limit capabilities"))?;
        if let Some(filter) = &self.filter {
            sys::load_seccomp(&filter.code, filter.flags).map_err(text("load the seccomp filter"))?;
        }
        sys::set_capabilities(self.caps).map_err(text("set capabilities"))?;
        let err = sys::exec(&file, &args, &env);
        Err(format!("exec {}: {}", file.to_string_lossy(), plain(&err)))
    }
}

/// Of two values for one name the later counts.
fn last_of_each(env: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|pair| seen.insert(name(pair))).cloned().collect();
    kept.reverse();
    kept
}

fn check(file: &Path) -> Result<CString, String> {
    let found = std::fs::metadata(file).map_err(|err| format!("stat {}: {}", file.display(), plain(&err)))?;
    if found.is_dir() {
        return Err("is a directory".into());
    }
    // The kernel's own check counts (owner, group, capabilities); a file without any x bit nobody may execute.
    let may = nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok();
    if !may || found.permissions().mode() & 0o111 == 0 {
        return Err("permission denied".into());
    }
    sys::c_path(file).map_err(|err| err.to_string())
}

/// The error's words without Rust's "(os error 2)", in small letters as Go prints them.
fn plain(err: &std::io::Error) -> String {
    match err.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(errno) => errno.desc().to_lowercase(),
        None => err.to_string(),
    }
}

impl Executor for Program {
    fn validate(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        match self.find() {
            Ok(_) => Ok(()),
            Err(why) => Err(ExecutorValidationError::ArgValidationError(self.fail(&why))),
        }
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is handed to execve as given; only a home is new there.
        Ok(())
    }

    fn exec(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        match self.run() {
            Ok(()) => Ok(()),
            Err(why) => Err(ExecutorError::Other(self.fail(&why))),
        }
    }
}

/// Capabilities to hand to libcontainer: the final ones and those that the executor borrows.
pub fn during_setup(caps: u64) -> u64 {
    caps | (caps::TRANSIENT & caps::held())
}

/// What the error pipe says after the start: empty when the program runs. Waits for its end unless the reader is
/// non-blocking.
pub fn outcome(reader: &OwnedFd) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match nix::unistd::read(reader, &mut chunk) {
            Ok(0) | Err(nix::errno::Errno::EAGAIN) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(n) if text.len() < 64 * 1024 => text.extend_from_slice(&chunk[..n]),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}
