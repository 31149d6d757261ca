//! Logs that the hub is to keep: which piece of which container's log goes out next.
//!
//! In: containers whose logs are wanted, that one of them has grown, pieces that were read, the hub's `LogTaken`. Out: wishes to
//! read, messages to send. The board's log files are the spool: nothing is written twice, and nothing is noted on the board,
//! because the hub says how far it is when it is asked.
//! Never: more than one piece under way; a piece before the hub has the one before it.

mod choice;

pub use choice::{Choice, wanted_bytes};

use crate::{clock::Now, pods::Uid};
use limpet_protocol::{LogPiece, LogPlace, LogTaken, Up};
use std::{collections::BTreeMap, sync::Arc};

/// New lines wait so long for others, so that a container that says a line a second does not cost a packet a second.
const PACE_MS: u64 = 5_000;
/// What the hub has not answered is said again.
const AGAIN_MS: u64 = 60_000;
/// From this version on the hub keeps logs.
const SINCE: u8 = 4;
/// Containers whose logs are kept; more are passed over.
const CONTAINERS_MAX: usize = 1024;

/// A container of a pod: the log of all its attempts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Whose {
    pub uid: Uid,
    pub container: Arc<str>,
}

/// What was read of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    pub from: LogPlace,
    pub to: LogPlace,
    /// Lines before `from` that are gone, or more than the bound allows.
    pub lost: u64,
    pub text: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptOutput {
    Send(Up),
    /// Read what follows `from`, at most one piece, of at most `bytes_max` bytes that are still to come; then call `read`.
    Read { whose: Whose, from: LogPlace, bytes_max: u32 },
    /// Everything of a pod that is gone is at the hub, or nobody wants it.
    Done(Whose),
}

#[derive(Debug)]
struct Log {
    namespace: String,
    pod: String,
    bytes_max: u32,
    /// How far the hub is; `None`: it has to be asked.
    at: Option<LogPlace>,
    /// There may be more to read from then on.
    due_ms: Option<u64>,
    /// The pod is gone: once the rest is at the hub, so is the log.
    gone: bool,
}

/// The piece or the wish to read that is under way.
#[derive(Debug)]
struct UnderWay {
    whose: Whose,
    since_ms: u64,
    reading: bool,
}

#[derive(Debug, Default)]
pub struct KeptLogs {
    logs: BTreeMap<Whose, Log>,
    under_way: Option<UnderWay>,
    done: Vec<Whose>,
    connected: bool,
    held: bool,
}

impl KeptLogs {
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// This log is wanted from now on; 0 bytes: it is not.
    pub fn want(&mut self, now: Now, whose: Whose, (namespace, pod): (&str, &str), bytes_max: u32) {
        if bytes_max == 0 || (self.logs.len() >= CONTAINERS_MAX && !self.logs.contains_key(&whose)) {
            self.logs.remove(&whose);
            return;
        }
        let new = || Log {
            namespace: namespace.into(),
            pod: pod.into(),
            bytes_max,
            at: None,
            due_ms: Some(now.mono_ms + PACE_MS),
            gone: false,
        };
        self.logs.entry(whose).or_insert_with(new).bytes_max = bytes_max;
    }

    pub fn wants(&self, whose: &Whose) -> bool {
        self.logs.contains_key(whose)
    }

    /// Kept containers of a pod, and how many bytes of each.
    pub fn of_pod(&self, uid: &str) -> impl Iterator<Item = (&str, u32)> {
        self.logs.iter().filter(move |(whose, _)| *whose.uid == *uid).map(|(whose, log)| (&*whose.container, log.bytes_max))
    }

    /// Namespace and name of a pod with kept logs.
    pub fn pod_name(&self, uid: &str) -> Option<(&str, &str)> {
        let (_, log) = self.logs.iter().find(|(whose, _)| *whose.uid == *uid)?;
        Some((&log.namespace, &log.pod))
    }

    /// The log has grown.
    pub fn grown(&mut self, now: Now, whose: &Whose) {
        if let Some(log) = self.logs.get_mut(whose) {
            log.due_ms.get_or_insert(now.mono_ms + PACE_MS);
        }
    }

    /// The pod is gone; its containers say nothing more.
    pub fn gone(&mut self, now: Now, uid: &str) {
        for (_, log) in self.logs.iter_mut().filter(|(whose, _)| *whose.uid == *uid) {
            (log.gone, log.due_ms) = (true, Some(now.mono_ms));
        }
    }

    pub fn connected(&mut self, speak: u8) {
        self.connected = speak >= SINCE;
        self.give_up();
    }

    pub fn disconnected(&mut self) {
        self.connected = false;
        self.give_up();
    }

    /// What is under way is tried again at once.
    fn give_up(&mut self) {
        if let Some(log) = self.under_way.take().and_then(|u| self.logs.get_mut(&u.whose)) {
            log.due_ms = Some(0);
        }
    }

    /// Logs may not travel now.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// What a `Read` found; `None`: there is nothing (more).
    pub fn read(&mut self, now: Now, whose: &Whose, chunk: Option<Chunk>) -> Option<Up> {
        let under_way = self.under_way.as_mut().filter(|u| u.reading && u.whose == *whose)?;
        let Some((log, chunk)) = self.logs.get_mut(whose).zip(chunk) else {
            self.under_way = None;
            self.finished(whose);
            return None;
        };
        (under_way.reading, under_way.since_ms) = (false, now.mono_ms);
        Some(piece(whose, log, chunk))
    }

    /// Nothing more to read for now.
    fn finished(&mut self, whose: &Whose) {
        if self.logs.get(whose).is_some_and(|log| log.gone) {
            self.logs.remove(whose);
            self.done.push(whose.clone());
        }
    }

    /// The hub's answer. One that is behind what was sent makes this side go back.
    pub fn taken(&mut self, now: Now, taken: &LogTaken) {
        let whose = Whose { uid: taken.uid.as_str().into(), container: taken.container.as_str().into() };
        if self.under_way.as_ref().is_some_and(|u| u.whose == whose && !u.reading) {
            self.under_way = None;
        }
        let Some(log) = self.logs.get_mut(&whose) else { return };
        (log.at, log.due_ms) = (Some(taken.place), Some(now.mono_ms));
        if taken.refused {
            self.logs.remove(&whose);
            self.done.push(whose);
        }
    }

    pub fn poll(&mut self, now: Now) -> Option<KeptOutput> {
        if let Some(whose) = self.done.pop() {
            return Some(KeptOutput::Done(whose));
        }
        if !self.connected || self.held {
            return None;
        }
        if self.under_way.as_ref().is_some_and(|u| now.mono_ms < u.since_ms + AGAIN_MS) {
            return None;
        }
        self.give_up();
        let due = |log: &Log| log.due_ms.is_some_and(|at| at <= now.mono_ms);
        let (whose, log) = self.logs.iter_mut().filter(|(_, log)| due(log)).min_by_key(|(_, log)| log.due_ms)?;
        // What grows from here on makes it due again.
        log.due_ms = None;
        let (reading, whose) = (log.at.is_some(), whose.clone());
        let output = match log.at {
            Some(from) => KeptOutput::Read { whose: whose.clone(), from, bytes_max: log.bytes_max },
            None => KeptOutput::Send(piece(&whose, log, Chunk::default())),
        };
        self.under_way = Some(UnderWay { whose, since_ms: now.mono_ms, reading });
        Some(output)
    }

    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        if !self.connected || self.held {
            return None;
        }
        if let Some(under_way) = &self.under_way {
            return Some((under_way.since_ms + AGAIN_MS, "a piece of a log is not confirmed"));
        }
        self.logs.values().filter_map(|l| l.due_ms).min().map(|at| (at, "lines of a kept log"))
    }
}

fn piece(whose: &Whose, log: &Log, chunk: Chunk) -> Up {
    Up::LogPiece(LogPiece {
        namespace: log.namespace.clone(),
        pod: log.pod.clone(),
        uid: whose.uid.to_string(),
        container: whose.container.to_string(),
        bytes_max: log.bytes_max,
        from: chunk.from,
        to: chunk.to,
        lost: chunk.lost,
        text: chunk.text,
    })
}

#[cfg(test)]
mod tests;
