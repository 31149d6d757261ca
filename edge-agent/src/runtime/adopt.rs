//! Finds the containers of the agent before this one, and sweeps what has no record.
//!
//! In: records, the keeper's exits, /proc. Out: `Found`s; watches on processes whose parent is not the keeper.
//! Never: signals a process that it cannot name by pid and start time.

use super::helper::Pipes;
use super::record::{self, Ended, Record};
use super::{Runtime, exits, sys};
use crate::keeper::client::Exit;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Name of libcontainer's process before it becomes the container's program.
const WAITING: &str = "youki:[2:INIT]";

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Running,
    Exited(Ended),
}

/// A container of this machine, from its record.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: String,
    pub pod_uid: String,
    pub pod_name: String,
    pub namespace: String,
    /// Name in the pod's spec.
    pub name: String,
    pub attempt: u32,
    pub started_ms: i64,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub user: super::spec::User,
    pub state: State,
}

impl Runtime {
    /// Every container on record, dead ones too until they are removed.
    pub fn list(&self) -> Vec<Found> {
        record::read_all(&self.shared.options.run_dir).0.into_iter().map(found).collect()
    }

    /// Uids of the pods that have a sandbox directory.
    pub fn list_sandboxes(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.shared.options.run_dir.join("pods")) else { return Vec::new() };
        let mut uids: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        uids.sort();
        uids
    }

    /// `exits`: what the keeper told when it was greeted; `later`: what it tells since.
    pub(super) async fn adopt_records(&self, mut exits: Vec<Exit>, later: &mut mpsc::UnboundedReceiver<Exit>) {
        let shared = &self.shared;
        let (records, bad) = record::read_all(&shared.options.run_dir);
        for (path, why) in bad {
            log::warn!("runtime: record {} is unreadable ({why}); its container is swept", path.display());
            let _ = std::fs::remove_file(path);
        }
        let end_of = |exits: &[Exit], found: &Record| {
            exits.iter().find(|exit| exit.pid == found.pid && found.boot_id == record::boot_id()).copied()
        };
        let mut gone = Vec::new();
        for found in records.into_iter().filter(|found| found.exit.is_none()) {
            match end_of(&exits, &found) {
                // Not collected yet: the keeper's word of it comes.
                None if found.alive() || found.is_left_to(std::os::unix::process::parent_id() as i32) => self.adopt(&found).await,
                _ => gone.push(found),
            }
        }
        if gone.iter().any(|found| end_of(&exits, found).is_none()) {
            // It may have ended since the greeting. What the keeper has collected by now it tells before it answers.
            if let Err(err) = shared.keeper.hear_out().await {
                log::warn!("runtime: the keeper does not say how containers ended: {err}");
            }
            while let Ok(exit) = later.try_recv() {
                if gone.iter().any(|found| found.pid == exit.pid) {
                    exits.push(exit);
                } else {
                    exits::take(shared, exit).await;
                }
            }
        }
        for mut found in gone {
            let exit = end_of(&exits, &found);
            let at_ms = exit.map_or_else(|| now_ms().max(found.started_ms), |exit| exit.at_ms);
            found.exit = Some(exits::ended(shared, &found.cgroup, exit, at_ms));
            if let Err(err) = record::write(&shared.options.run_dir, &found) {
                log::error!("runtime: cannot record the end of container {}: {err}", found.spec.id);
            }
        }
        for exit in exits {
            let _ = shared.keeper.ack(exit.seq).await;
        }
        self.sweep().await;
    }

    async fn adopt(&self, found: &Record) {
        let keeper = std::os::unix::process::parent_id() as i32;
        if record::parent(found.pid) == Some(keeper) {
            self.shared.exits.register_container(found.pid, &found.spec.id);
            return;
        }
        // Its keeper died: only a pidfd tells of its end, and the pipes are opened anew.
        let streams = Pipes::again(&self.shared.options.run_dir, &found.spec.id);
        for (end, fd) in [("out", &streams.stdout), ("err", &streams.stderr)] {
            if let Some(fd) = fd {
                let _ = self.shared.keeper.put_fd(&format!("{}/{end}", found.spec.id), fd.as_fd()).await;
            }
        }
        self.shared.exits.hold_streams(&found.spec.id, streams);
        let watched = sys::pidfd_open(found.pid).and_then(sys::watch);
        match watched {
            Ok(pidfd) if found.alive() => {
                let (shared, id) = (Arc::clone(&self.shared), found.spec.id.clone());
                tokio::spawn(async move {
                    let _ = pidfd.readable().await;
                    let exit = sys::pidfd_exit_status(pidfd.get_ref())
                        .map(|status| Exit { seq: 0, pid: 0, status, at_ms: now_ms() });
                    exits::settle(&shared, &id, exit, now_ms());
                });
            }
            _ => exits::settle(&self.shared, &found.spec.id, None, now_ms()),
        }
    }

    /// Kills what waits for the start that a dead helper will never give: a child of the keeper that still is
    /// libcontainer's own process (a living helper's child is not the keeper's, a started program has another name).
    pub(super) fn kill_abandoned(&self) {
        let keeper = std::os::unix::process::parent_id() as i32;
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids.filter(|pid| record::parent(*pid) == Some(keeper)) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if let (true, Ok(pidfd)) = (name.trim() == WAITING, sys::pidfd_open(pid)) {
                log::warn!("runtime: process {pid} waits for a helper that is gone and is killed");
                let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
            }
        }
    }

    /// Kills groups without a record and drops what the keeper holds for them: a helper was cut off half-way.
    async fn sweep(&self) {
        let shared = &self.shared;
        self.kill_abandoned();
        let known = |id: &str| record::path(&shared.options.run_dir, id).exists();
        for group in shared.cgroups.container_groups() {
            let id = group.rsplit('/').next().unwrap_or_default();
            if id != super::rt::sandbox::INIT_GROUP && !known(id) {
                log::warn!("runtime: group {group} belongs to no container on record and is killed");
                shared.cgroups.kill(&group);
                let _ = shared.cgroups.remove(&group);
            }
        }
        let _ = shared.keeper.drop_fds(shared.exits.stale_keys(known)).await;
    }
}

fn found(record: Record) -> Found {
    // Dead but not on record means that the keeper's word is still on its way: running until it comes.
    let state = record.exit.map_or(State::Running, State::Exited);
    Found {
        id: record.spec.id,
        pod_uid: record.spec.pod_uid,
        pod_name: record.spec.pod_name,
        namespace: record.spec.namespace,
        name: record.spec.name,
        attempt: record.spec.attempt,
        started_ms: record.started_ms,
        annotations: record.spec.annotations,
        user: record.spec.user,
        state,
    }
}

pub(super) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
