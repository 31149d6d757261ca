//! How containers and pods end: last words, signals, and removal until nothing is left.
//!
//! In: exits, what the core wants gone. Out: `ContainerExited`, `SandboxRemoved`, `PodRemoved`.
//! Never: says that something is gone before it is.

use super::super::convert;
use super::{Hands, Known};
use crate::{
    logs,
    runtime::{Exited, RuntimeError},
    volumes,
};
use limpet_agent_core::{
    Input,
    pods::{Exit, Uid},
};
use std::{path::PathBuf, time::Duration};

const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_FROM_LOG_BYTES_MAX: usize = 2048;
const MESSAGE_FROM_LOG_LINES_MAX: usize = 80;
/// What kubelet gives to containers of which it knows nothing but that they run.
const STRANGERS_GRACE: Duration = Duration::from_secs(1);
/// For what is still in the pipes of a container that has ended.
pub const DRAIN: Duration = Duration::from_millis(1000);

impl Hands {
    /// A container ended: first what it said, then that it ended.
    pub fn exited(&self, exited: Exited) {
        let Some(known) = self.lock().containers.remove(&exited.container_id) else { return };
        let hands = self.clone();
        self.spawn(async move {
            hands.logs.drain(&exited.container_id, DRAIN).await;
            let code = exited.ended.code;
            let message = hands.last_words(&known, code);
            Input::ContainerExited {
                at: known.at,
                exit: Exit {
                    code,
                    oom_killed: exited.ended.oom_killed,
                    message,
                    finished_ms: 0,
                    unknown: exited.ended.unseen,
                },
            }
        });
    }

    /// What a container said last that ended while no agent was there, by id: first what is still in its pipes,
    /// as far as that comes until then.
    pub async fn last_words_of(&self, id: &str, code: i32, until: tokio::time::Instant) -> String {
        let Some(known) = self.lock().containers.get(id).cloned() else { return String::new() };
        if known.message_from_log && code != 0 {
            self.logs.drain(id, until.saturating_duration_since(tokio::time::Instant::now())).await;
        }
        self.last_words(&known, code)
    }

    fn last_words(&self, known: &Known, code: i32) -> String {
        let at = &known.at;
        let file = convert::termination_file(&self.paths.data, &at.uid, &at.container, at.attempt);
        let message = end_of(&file, MESSAGE_BYTES_MAX);
        if !message.is_empty() || code == 0 || !known.message_from_log {
            return message;
        }
        let path = logs::file(&self.paths.data, &at.uid, &at.container, at.attempt);
        logs::tail_text(&path, MESSAGE_FROM_LOG_BYTES_MAX, MESSAGE_FROM_LOG_LINES_MAX)
    }

    pub fn signal(&self, id: &str, signal: &str) {
        let result = match signal_number(signal) {
            Some(libc::SIGKILL) => self.runtime.kill(id),
            Some(number) => self.runtime.signal(id, number),
            None => self.runtime.signal(id, libc::SIGTERM),
        };
        if let Err(e) = result {
            log::debug!("signal {signal} to {id}: {e}");
        }
    }

    pub fn remove_container(&self, id: String) {
        let hands = self.clone();
        tokio::spawn(async move {
            hands.logs.forget(&id);
            if let Err(e) = hands.runtime.remove_container(&id).await {
                log::warn!("container {id} is not removed yet: {e}");
            }
        });
    }

    pub fn remove_sandbox(&self, uid: Uid) {
        let hands = self.clone();
        self.spawn(async move {
            hands.until_done(&uid, None).await;
            Input::SandboxRemoved { uid }
        });
    }

    /// Whether a pod that is not torn down yet has this directory as a volume.
    pub fn has_mounted(&self, dir: &std::path::Path) -> bool {
        self.lock().volumes.values().flatten().any(|(_, source)| source == dir)
    }

    /// `left`: kept logs of the pod stay until the hub has them.
    pub fn remove_pod(&self, uid: Uid, left: Option<logs::Left>) {
        let hands = self.clone();
        self.spawn(async move {
            hands.ask_to_end(&uid).await;
            hands.until_done(&uid, Some(&left)).await;
            hands.lock().qos.remove(&uid);
            Input::PodRemoved { uid }
        });
    }

    /// A pod whose object is gone since before this agent: nobody has asked its containers yet.
    async fn ask_to_end(&self, uid: &Uid) {
        let running = || {
            let all = self.runtime.list().into_iter();
            all.filter(|f| *f.pod_uid == **uid && matches!(f.state, crate::runtime::State::Running))
        };
        for found in running() {
            self.signal(&found.id, "SIGTERM");
        }
        let deadline = tokio::time::Instant::now() + STRANGERS_GRACE;
        while running().next().is_some() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_done(&self, uid: &Uid, files_too: Option<&Option<logs::Left>>) {
        let mut wait = Duration::from_millis(200);
        while let Err(why) = self.tear_down(uid, files_too).await {
            log::warn!("pod {uid} is not removed yet: {why}; trying again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }

    /// `files_too`: the pod's directory goes as well, but for logs that are left to deliver.
    async fn tear_down(&self, uid: &Uid, files_too: Option<&Option<logs::Left>>) -> Result<(), String> {
        let text = |e: RuntimeError| e.to_string();
        for found in self.runtime.list().into_iter().filter(|f| *f.pod_uid == **uid) {
            self.logs.forget(&found.id);
            self.lock().containers.remove(&found.id);
            self.runtime.remove_container(&found.id).await.map_err(text)?;
        }
        self.runtime.remove_sandbox(uid).await.map_err(text)?;
        self.lock().devices.release(uid);
        self.plugins.release(uid);
        volumes::tear_down_pod(&self.paths.data, uid).map_err(|e| e.to_string())?;
        self.lock().volumes.remove(uid);
        if let Some(left) = files_too {
            if let Some(left) = left
                && let Err(e) = logs::put_aside(&self.paths.data, left)
            {
                log::warn!("pod {uid}: its logs cannot be kept: {e}");
            }
            let dir = self.paths.data.join("pods").join(&**uid);
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("remove {}: {e}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The file's last bytes, as kubelet takes them.
fn end_of(path: &PathBuf, bytes_max: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let len = file.metadata().map_or(0, |m| m.len());
        let _ = file.seek(SeekFrom::Start(len.saturating_sub(bytes_max as u64)));
        let _ = file.take(bytes_max as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return Some(34 + offset).filter(|n| *n <= 64);
    }
    format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_by_any_name() {
        for (name, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("nonsense", None),
        ] {
            assert_eq!(super::signal_number(name), want, "{name}");
        }
    }
}
