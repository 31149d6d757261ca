//! Kept logs between the core that decides, the files, and the link.
//!
//! In: pods with their annotations, logs that grow, the hub's answers. Out: pieces for the link; logs of gone pods put aside.
//! Never: reads a file inside a step of the loop.

use super::{config::Config, state::Agent};
use crate::logs::{self, Grown, Left, Logs};
use limpet_agent_core::{
    Now,
    kept::{Choice, Chunk, KeptLogs, KeptOutput, Whose, wanted_bytes},
};
use limpet_protocol::Up;
use std::collections::VecDeque;
use tokio::sync::mpsc;

pub struct Kept {
    pub logs: KeptLogs,
    pub grown: mpsc::UnboundedReceiver<Grown>,
    pub pieces: mpsc::UnboundedReceiver<(Whose, Option<Chunk>)>,
    /// Pieces that were read and wait for room on the lane.
    pub ready: VecDeque<Up>,
    read: mpsc::UnboundedSender<(Whose, Option<Chunk>)>,
    usual: Choice,
}

impl Kept {
    pub fn new(config: &Config, logs: &mut Logs) -> Kept {
        let (tell, grown) = mpsc::unbounded_channel();
        logs.say_grown(tell);
        let (read, pieces) = mpsc::unbounded_channel();
        let usual = Choice::parse(&config.keep_logs).unwrap_or_default();
        Kept { logs: KeptLogs::default(), grown, pieces, ready: VecDeque::new(), read, usual }
    }
}

impl Agent {
    /// Whose logs are wanted now.
    pub(super) fn look_at_kept(&mut self) {
        let now = self.clock.now();
        for pod in self.pods.pods() {
            let meta = &pod.object.metadata;
            for container in pod.object.spec.all_containers() {
                let bytes = wanted_bytes(&meta.annotations, &container.name, self.kept.usual);
                let whose = Whose { uid: pod.uid.clone(), container: container.name.as_str().into() };
                if bytes > 0 || self.kept.logs.wants(&whose) {
                    self.kept.logs.want(now, whose, (&meta.namespace, &meta.name), bytes);
                }
            }
        }
    }

    /// Logs of pods that went while the hub was away.
    pub(super) fn look_at_left(&mut self) {
        let now = self.clock.now();
        for left in logs::left(&self.options.paths.data) {
            for (container, bytes) in &left.containers {
                let whose = Whose { uid: left.uid.as_str().into(), container: container.as_str().into() };
                self.kept.logs.want(now, whose, (&left.namespace, &left.pod), *bytes);
            }
            self.kept.logs.gone(now, &left.uid);
        }
    }

    pub(super) fn keeps(&self, uid: &str, container: &str) -> bool {
        self.kept.logs.wants(&Whose { uid: uid.into(), container: container.into() })
    }

    /// What is to be put aside when this pod's directory goes.
    pub(super) fn left_of(&self, uid: &str) -> Option<Left> {
        let containers: Vec<(String, u32)> = self.kept.logs.of_pod(uid).map(|(name, bytes)| (name.into(), bytes)).collect();
        let (namespace, pod) = self.kept.logs.pod_name(uid)?;
        Some(Left { uid: uid.into(), namespace: namespace.into(), pod: pod.into(), containers })
    }

    pub(super) fn log_has_grown(&mut self, grown: &Grown) {
        self.hands.logs.heard(&grown.id);
        let whose = Whose { uid: grown.uid.as_str().into(), container: grown.container.as_str().into() };
        self.kept.logs.grown(self.clock.now(), &whose);
    }

    pub(super) fn piece_was_read(&mut self, whose: &Whose, chunk: Option<Chunk>) {
        let up = self.kept.logs.read(self.clock.now(), whose, chunk);
        self.kept.ready.extend(up);
    }

    /// The next message about a log. Wishes to read are passed on.
    pub(super) fn next_of_logs(&mut self, now: Now) -> Option<Up> {
        if !self.sync.welcomed() {
            self.kept.ready.clear();
            return None;
        }
        if let Some(up) = self.kept.ready.pop_front() {
            return Some(up);
        }
        while let Some(output) = self.kept.logs.poll(now) {
            match output {
                KeptOutput::Send(up) => return Some(up),
                KeptOutput::Read { whose, from, bytes_max } => {
                    let dir = logs::dir_of(&self.options.paths.data, &whose.uid, &whose.container);
                    let tell = self.kept.read.clone();
                    tokio::task::spawn_blocking(move || {
                        let _ = tell.send((whose, logs::piece_after(&dir, from, bytes_max.into())));
                    });
                }
                KeptOutput::Done(whose) => {
                    if self.kept.logs.of_pod(&whose.uid).next().is_none() {
                        Left::forget(&self.options.paths.data, &whose.uid);
                    }
                }
            }
        }
        None
    }
}
