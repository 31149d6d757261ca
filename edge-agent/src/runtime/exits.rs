//! Who died: maps the keeper's pids to containers and execs, and puts ends on record.
//!
//! In: `Exit`s of the keeper. Out: `Exited` for containers (recorded first, then acknowledged, then told), codes for
//! execs. Never: keeps an unknown pid for ever (the newest `STRANGERS_MAX` wait for a late registration).

use super::record::{self, Ended};
use super::{FdMap, Shared, Streams, lock};
use crate::keeper::client::Exit;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

const STRANGERS_MAX: usize = 256;
/// The code of an end that nobody saw.
pub const CODE_UNSEEN: i32 = 255;

/// A container's program ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exited {
    pub container_id: String,
    pub pod_uid: String,
    pub ended: Ended,
}

pub struct Exits {
    state: Mutex<State>,
    tell: mpsc::UnboundedSender<Exited>,
}

#[derive(Default)]
struct State {
    known: HashMap<i32, Kind>,
    /// Ends whose pid nobody has named yet: a helper's reply may come after its child's death.
    strangers: VecDeque<Exit>,
    /// Fds of the time before this agent, until somebody takes them.
    fds: FdMap,
    ready: Vec<(Exit, String)>,
    wake: Option<Arc<tokio::sync::Notify>>,
}

enum Kind {
    Container(String),
    Exec(oneshot::Sender<i32>),
}

impl Exits {
    pub fn new(fds: FdMap) -> (Exits, mpsc::UnboundedReceiver<Exited>) {
        let (tell, exited) = mpsc::unbounded_channel();
        let state = State { fds, wake: Some(Arc::default()), ..State::default() };
        (Exits { state: Mutex::new(state), tell }, exited)
    }

    /// From now on the end of `pid` is this container's end; also when it has come already.
    pub fn register_container(&self, pid: i32, id: &str) {
        let mut state = lock(&self.state);
        if let Some(exit) = state.take_stranger(pid) {
            state.ready.push((exit, id.to_owned()));
            if let Some(wake) = &state.wake {
                wake.notify_one();
            }
        } else {
            state.known.insert(pid, Kind::Container(id.to_owned()));
        }
    }

    pub fn register_exec(&self, pid: i32) -> oneshot::Receiver<i32> {
        let (tell, exit) = oneshot::channel();
        let mut state = lock(&self.state);
        if let Some(exit) = state.take_stranger(pid) {
            let _ = tell.send(decode(exit.status).0);
        } else {
            state.known.insert(pid, Kind::Exec(tell));
        }
        exit
    }

    /// Whether the keeper's word of this end is still on its way.
    pub fn awaits(&self, pid: i32) -> bool {
        lock(&self.state).known.contains_key(&pid)
    }

    pub fn forget(&self, pid: i32) {
        lock(&self.state).known.remove(&pid);
    }

    pub fn take_streams(&self, id: &str) -> Streams {
        let mut state = lock(&self.state);
        let mut take = |end: &str| state.fds.remove(&format!("{id}/{end}"));
        Streams { stdin: take("in"), stdout: take("out"), stderr: take("err"), tty: take("tty") }
    }

    /// Streams that were opened anew; what is held already stays.
    pub fn hold_streams(&self, id: &str, streams: Streams) {
        let mut state = lock(&self.state);
        for (end, fd) in [("out", streams.stdout), ("err", streams.stderr)] {
            if let Some(fd) = fd {
                state.fds.entry(format!("{id}/{end}")).or_insert(fd);
            }
        }
    }

    /// Keys held for containers that have no record: to be dropped.
    pub fn stale_keys(&self, is_known: impl Fn(&str) -> bool) -> Vec<String> {
        let mut state = lock(&self.state);
        let stale: Vec<String> = state
            .fds
            .keys()
            .filter(|key| key.rsplit_once('/').is_some_and(|(id, end)| is_end(end) && !is_known(id)))
            .cloned()
            .collect();
        for key in &stale {
            state.fds.remove(key);
        }
        stale
    }
}

fn is_end(end: &str) -> bool {
    matches!(end, "in" | "out" | "err" | "tty")
}

impl State {
    fn take_stranger(&mut self, pid: i32) -> Option<Exit> {
        let at = self.strangers.iter().position(|exit| exit.pid == pid)?;
        self.strangers.remove(at)
    }
}

/// Code (as a shell counts) and signal of a wait status.
pub fn decode(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, Some(signal))
    } else {
        (libc::WEXITSTATUS(status), None)
    }
}

/// Runs as long as the keeper is there.
pub async fn pump(shared: Arc<Shared>, mut exits: mpsc::UnboundedReceiver<Exit>) {
    let wake = lock(&shared.exits.state).wake.clone().unwrap_or_default();
    loop {
        let exit = tokio::select! {
            exit = exits.recv() => match exit {
                Some(exit) => exit,
                None => return,
            },
            () = wake.notified() => {
                let ready = std::mem::take(&mut lock(&shared.exits.state).ready);
                for (exit, id) in ready {
                    settle(&shared, &id, Some(exit), exit.at_ms);
                }
                continue;
            }
        };
        if !take(&shared, exit).await {
            return;
        }
    }
}

/// Whose end it is, and that is put on record before the keeper may forget it. Whether the keeper is still there.
pub async fn take(shared: &Shared, exit: Exit) -> bool {
    let kind = {
        let mut state = lock(&shared.exits.state);
        let kind = state.known.remove(&exit.pid);
        if kind.is_none() {
            if state.strangers.len() == STRANGERS_MAX {
                state.strangers.pop_front();
            }
            state.strangers.push_back(exit);
        }
        kind
    };
    match kind {
        Some(Kind::Container(id)) => settle(shared, &id, Some(exit), exit.at_ms),
        Some(Kind::Exec(tell)) => {
            let _ = tell.send(decode(exit.status).0);
        }
        None => {}
    }
    shared.keeper.ack(exit.seq).await.is_ok()
}

/// Puts a container's end on record and tells it. `exit` is `None` when nobody saw it.
pub fn settle(shared: &Shared, id: &str, exit: Option<Exit>, at_ms: i64) {
    let Ok(mut found) = record::read(&shared.options.run_dir, id) else { return };
    if found.exit.is_some() {
        return;
    }
    let ended = ended(shared, &found.cgroup, exit, at_ms);
    found.exit = Some(ended);
    if let Err(err) = record::write(&shared.options.run_dir, &found) {
        log::error!("runtime: cannot record the end of container {id}: {err}");
    }
    let told = Exited { container_id: id.to_owned(), pod_uid: found.spec.pod_uid, ended };
    let _ = shared.exits.tell.send(told);
}

pub fn ended(shared: &Shared, cgroup: &str, exit: Option<Exit>, at_ms: i64) -> Ended {
    let Some(exit) = exit else {
        return Ended { code: CODE_UNSEEN, signal: None, oom_killed: false, at_ms, unseen: true };
    };
    let (code, signal) = decode(exit.status);
    // An OOM kill of some child does not make the container's own end one.
    let killed = signal == Some(libc::SIGKILL) || code == 128 + libc::SIGKILL;
    let oom_killed = killed && shared.cgroups.oom_kills(cgroup) > 0;
    Ended { code, signal, oom_killed, at_ms: exit.at_ms.max(at_ms), unseen: false }
}
