//! Events as kubelet writes them: repeated ones are counted, noisy objects are slowed down.
//!
//! In: an object, a reason, a message. Out: v1 Event as JSON; a repetition has the same name and a higher count.
//! Never: more than a bounded number of remembered events, or floods (25 at once, then one in five minutes).

use super::{Action, Uid, mark};
use crate::clock::{Now, rfc3339};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

const REMEMBERED_MAX: usize = 256;
/// By so many their list grows.
const SEEN_STEP: usize = 16;
const BURST: u32 = 25;
const REFILL_MS: u64 = 300_000;
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Warning,
}

#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub uid: &'a Uid,
    pub namespace: &'a str,
    pub name: &'a str,
    pub field_path: Option<String>,
}

/// An Event that was told. Its words are not kept: a repetition is known by their hash.
#[derive(Debug)]
struct Seen {
    uid: Uid,
    words: u64,
    /// The end of its name.
    stamp: u64,
    first_ms: u64,
    count: u32,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled_ms: u64,
}

/// v1 Event as it is written; fields in the order of the alphabet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    api_version: &'a str,
    count: u32,
    first_timestamp: String,
    involved_object: About<'a>,
    kind: &'a str,
    last_timestamp: String,
    message: &'a str,
    metadata: Named<'a>,
    reason: &'a str,
    reporting_component: &'a str,
    reporting_instance: &'a str,
    source: Source<'a>,
    #[serde(rename = "type")]
    type_: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    api_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_path: Option<&'a str>,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
struct Source<'a> {
    component: &'a str,
    host: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// The one that was told last is the last.
    seen: Vec<Seen>,
    buckets: BTreeMap<Uid, Bucket>,
    order: u64,
}

impl Recorder {
    #[allow(clippy::too_many_arguments)]
    pub fn record(
        &mut self,
        now: Now,
        node: &str,
        subject: Subject<'_>,
        kind: Kind,
        reason: &str,
        message: &str,
        out: &mut VecDeque<Action>,
    ) {
        if !self.allowed(now, subject.uid) {
            return;
        }
        let message = cut(message);
        self.order += 1;
        let words = mark(&(&subject.field_path, reason, message));
        let same = |s: &Seen| s.words == words && s.uid == *subject.uid;
        let seen = match self.seen.iter().position(same) {
            Some(at) => self.seen.remove(at),
            None => Seen {
                uid: subject.uid.clone(),
                words,
                // The time in nanoseconds as kubelet has it; the order keeps names of one millisecond apart.
                stamp: now.wall_ms * 1_000_000 + self.order % 1_000_000,
                first_ms: now.wall_ms,
                count: 0,
            },
        };
        let seen = Seen { count: seen.count.saturating_add(1), ..seen };
        let name = format!("{}.{:x}", subject.name, seen.stamp);
        let event = Event {
            api_version: "v1",
            count: seen.count,
            first_timestamp: rfc3339(seen.first_ms),
            involved_object: About {
                api_version: "v1",
                field_path: subject.field_path.as_deref(),
                kind: "Pod",
                name: subject.name,
                namespace: subject.namespace,
                uid: subject.uid,
            },
            kind: "Event",
            last_timestamp: rfc3339(now.wall_ms),
            message,
            metadata: Named { name: &name, namespace: subject.namespace },
            reason,
            reporting_component: "kubelet",
            reporting_instance: node,
            source: Source { component: "kubelet", host: node },
            type_: if kind == Kind::Normal { "Normal" } else { "Warning" },
        };
        // Nothing in it can fail to be written.
        out.push_back(Action::Event(serde_json::to_vec(&event).unwrap_or_default()));
        if self.seen.len() >= REMEMBERED_MAX {
            self.seen.remove(0);
        }
        if self.seen.len() == self.seen.capacity() {
            self.seen.reserve_exact(SEEN_STEP);
        }
        self.seen.push(seen);
    }

    pub fn forget(&mut self, uid: &Uid) {
        self.seen.retain(|seen| seen.uid != *uid);
        self.buckets.remove(uid);
    }

    fn allowed(&mut self, now: Now, uid: &Uid) -> bool {
        let bucket =
            self.buckets.entry(uid.clone()).or_insert(Bucket { left: BURST, filled_ms: now.mono_ms });
        let refill = (now.mono_ms.saturating_sub(bucket.filled_ms)) / REFILL_MS;
        if refill > 0 {
            bucket.left = bucket.left.saturating_add(refill as u32).min(BURST);
            bucket.filled_ms += refill * REFILL_MS;
        }
        let yes = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        yes
    }
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
