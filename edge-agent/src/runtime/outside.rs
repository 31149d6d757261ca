//! Runs a command in a container without the agent: for people at the board.
//!
//! In: the run directory, what to run. Out: the command's exit code; its stdio is this process's own.
//! Never: inside the agent: it waits, and takes orphans in.

use super::spec::ExecSpec;
use super::{RuntimeError, check_id, helper, record, rt};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The command becomes ours when the helper that started it ends; so long that may take.
const ARRIVAL: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(10);

/// Whether the container's first process is there.
pub fn runs(run_dir: &Path, id: &str) -> bool {
    check_id(id).is_ok() && record::read(run_dir, id).is_ok_and(|record| record.alive())
}

pub async fn exec(run_dir: &Path, spec: &ExecSpec) -> Result<i32, RuntimeError> {
    check_id(&spec.container_id)?;
    if !record::read(run_dir, &spec.container_id)?.alive() {
        return Err(RuntimeError::NotFound(format!("container {} does not run", spec.container_id)));
    }
    // The command is a grandchild; its end is told to the nearest process that asked for orphans.
    nix::sys::prctl::set_child_subreaper(true).map_err(|err| RuntimeError::io("take orphans in", err))?;
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|err| RuntimeError::io("stdio", err));
    let stdio: [OwnedFd; 3] =
        [own(std::io::stdin().as_fd())?, own(std::io::stdout().as_fd())?, own(std::io::stderr().as_fd())?];
    let request = rt::Request::Exec { run_dir: run_dir.to_path_buf(), spec: spec.clone() };
    let fds: Vec<&OwnedFd> = stdio.iter().collect();
    let pid = helper::Helper::new(None).call(&request, &fds).await?.pid;
    wait(nix::unistd::Pid::from_raw(pid)).await
}

async fn wait(pid: nix::unistd::Pid) -> Result<i32, RuntimeError> {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let mut patience = ARRIVAL;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Err(nix::errno::Errno::ECHILD) if patience > STEP => patience -= STEP,
            Err(err) => return Err(RuntimeError::io("wait for the command", err)),
            Ok(_) => {}
        }
        tokio::time::sleep(STEP).await;
    }
}
