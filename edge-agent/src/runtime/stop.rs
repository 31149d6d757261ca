//! Ends and removes: signals, groups, sandboxes.
//!
//! In: container and pod ids. Out: nothing left of them (processes, groups, mounts, FIFOs, records, addresses).
//! Never: signals a pid without checking that it still is the recorded process.

use super::record::{self, Record};
use super::spec::ContainerSpec;
use super::{Runtime, RuntimeError, check_id, rt, sys};
use std::path::Path;
use std::time::Duration;

/// How long a killed container may take to die before its removal gives up (the caller retries).
const DEATH_WAIT: Duration = Duration::from_secs(10);
/// And how long the keeper's word of it.
const TOLD_WAIT: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);

impl Runtime {
    /// Sends a signal to the container's first process. `NotFound` when it does not run.
    pub fn signal(&self, container_id: &str, signal: i32) -> Result<(), RuntimeError> {
        check_id(container_id)?;
        let record = record::read(&self.shared.options.run_dir, container_id)?;
        let gone = || RuntimeError::NotFound(format!("container {container_id} does not run"));
        let pidfd = sys::pidfd_open(record.pid).map_err(|_| gone())?;
        if !record.alive() {
            return Err(gone());
        }
        sys::pidfd_send_signal(&pidfd, signal)
            .map_err(|err| RuntimeError::io(format!("signal {signal} to container {container_id}"), err))
    }

    /// Kills everything in the container's group. The end comes through the channel.
    pub fn kill(&self, container_id: &str) -> Result<(), RuntimeError> {
        check_id(container_id)?;
        let record = record::read(&self.shared.options.run_dir, container_id)?;
        kill_record(self, &record);
        Ok(())
    }

    /// Removes a container: kills what still runs, then its group, pipes, writable layer and record. Done twice it is
    /// no error.
    pub async fn remove_container(&self, container_id: &str) -> Result<(), RuntimeError> {
        check_id(container_id)?;
        let shared = &self.shared;
        let record = match record::read(&shared.options.run_dir, container_id) {
            Ok(record) => record,
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            Err(err) => return Err(err),
        };
        // With the first process goes its namespace; who is left in the group is looked for when it cannot be removed.
        end_first(&record);
        let deadline = tokio::time::Instant::now() + DEATH_WAIT;
        while record::start_time(record.pid) == Some(record.start_time) && record.exit.is_none() {
            if tokio::time::Instant::now() >= deadline {
                return Err(RuntimeError::Create(format!(
                    "container {container_id} does not die: its processes may be stuck in the kernel (a hung disk?)"
                )));
            }
            tokio::time::sleep(STEP).await;
        }
        // Its end is told before its record goes: nobody would hear of it afterwards.
        let told = tokio::time::Instant::now() + TOLD_WAIT;
        while shared.exits.awaits(record.pid) && tokio::time::Instant::now() < told {
            tokio::time::sleep(STEP).await;
        }
        self.remove_group(&record.cgroup).await?;
        let ends: &[&str] = match (record.spec.tty, record.spec.stdin) {
            (true, _) => &["tty"],
            (false, true) => &["in", "out", "err"],
            (false, false) => &["out", "err"],
        };
        let keys: Vec<String> = ends.iter().map(|end| format!("{container_id}/{end}")).collect();
        shared.keeper.drop_fds(keys).await?;
        if record.spec.other_runtime.is_some() {
            self.let_forget(&record.spec).await;
        }
        drop(shared.exits.take_streams(container_id));
        shared.exits.forget(record.pid);
        self.remove_files(&record.spec)
    }

    /// Removes the pod's sandbox; its containers must be gone.
    pub async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_id(pod_uid)?;
        let shared = &self.shared;
        let had_ports = rt::sandbox::read(&shared.options.run_dir, pod_uid).is_ok_and(|spec| !spec.host_ports.is_empty());
        for group in shared.cgroups.pod_groups(pod_uid) {
            shared.cgroups.kill(&group);
            self.remove_group(&group).await?;
        }
        rt::sandbox::tear_down(&shared.options.run_dir, pod_uid)
            .map_err(|err| RuntimeError::io(format!("remove the sandbox of pod {pod_uid}"), err))?;
        self.release(pod_uid)?;
        self.release_ids(pod_uid);
        if had_ports {
            self.apply_rules(true)?;
        }
        Ok(())
    }

    /// The container's input ends, whoever else has it: also for an agent that comes later.
    pub async fn close_stdin(&self, id: &str) -> Result<(), RuntimeError> {
        Ok(self.shared.keeper.drop_fds([format!("{id}/in")]).await?)
    }

    /// What a failed start may have left; a helper that was killed left everything.
    pub(super) async fn forget_failed(&self, spec: &ContainerSpec) {
        let id = &spec.id;
        let group = rt::group_of(&self.shared.cgroups, spec);
        self.kill_abandoned();
        self.shared.cgroups.kill(&group);
        if let Err(err) = self.remove_group(&group).await {
            log::warn!("runtime: {err}");
        }
        let _ = self.shared.keeper.drop_fds(["in", "out", "err"].map(|end| format!("{id}/{end}"))).await;
        if let Err(err) = self.remove_files(spec) {
            log::warn!("runtime: {err}");
        }
    }

    /// Another runtime ends what it has for the container (a sandbox of its own, hooks), within bounds.
    async fn let_forget(&self, spec: &ContainerSpec) {
        let mut delete = tokio::process::Command::from(rt::external::forget(&self.shared.options.run_dir, spec));
        match tokio::time::timeout(DEATH_WAIT, delete.kill_on_drop(true).status()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => log::debug!("runtime: delete of container {}: {status}", spec.id),
            Ok(Err(err)) => log::warn!("runtime: delete of container {}: {err}", spec.id),
            Err(_) => log::warn!("runtime: delete of container {} took too long and was ended", spec.id),
        }
    }

    async fn remove_group(&self, group: &str) -> Result<(), RuntimeError> {
        let deadline = tokio::time::Instant::now() + DEATH_WAIT;
        loop {
            match self.shared.cgroups.remove(group) {
                Ok(()) => return Ok(()),
                Err(err) if tokio::time::Instant::now() >= deadline => {
                    return Err(RuntimeError::io(format!("remove the cgroup {group}"), err));
                }
                Err(_) => self.shared.cgroups.kill(group),
            }
            tokio::time::sleep(STEP).await;
        }
    }

    fn remove_files(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let (options, id) = (&self.shared.options, &spec.id);
        remove_fifos(&options.run_dir, id);
        let layer = rt::writable_layer(&options.data_dir, &spec.pod_uid, id);
        let known = rt::external::state_dir(&options.run_dir).join(id);
        let state = options.run_dir.join("state").join(id);
        for (dir, usual) in [(rt::bundle(&options.run_dir, id), &BUNDLE[..]), (state, &STATE), (known, &[]), (layer, &LAYER)] {
            remove(&dir, usual).map_err(|err| RuntimeError::io(format!("remove {}", dir.display()), err))?;
        }
        match std::fs::remove_file(record::path(&options.run_dir, id)) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(RuntimeError::io("remove the record", err)),
            _ => Ok(()),
        }
    }
}

fn kill_record(runtime: &Runtime, record: &Record) {
    runtime.shared.cgroups.kill(&record.cgroup);
    end_first(record);
}

fn end_first(record: &Record) {
    if let Ok(pidfd) = sys::pidfd_open(record.pid)
        && record.alive()
    {
        let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
    }
}

fn remove_fifos(run_dir: &Path, id: &str) {
    for end in ["out", "err"] {
        let _ = std::fs::remove_file(super::helper::fifo(run_dir, id, end));
    }
}

// What is in a container's directories when it wrote nothing of its own: files, then directories (with a `/` at their end) from
// below. Nothing has to be listed to remove these.
const BUNDLE: [&str; 2] = ["config.json", "rootfs/"];
const STATE: [&str; 3] = ["notify.sock", "youki_config.json", "state.json"];
const LAYER: [&str; 6] =
    ["work/work/incompat/volatile/dirty", "work/work/incompat/volatile/", "work/work/incompat/", "work/work/", "work/", "upper/"];

/// Removes a directory; `usual` first, and what else is there one by one.
fn remove(dir: &Path, usual: &[&str]) -> std::io::Result<()> {
    for name in usual {
        let path = dir.join(name.trim_end_matches('/'));
        let gone = if name.ends_with('/') { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        if gone.is_err() {
            break;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) => remove_tree(dir),
        Ok(()) => Ok(()),
    }
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
