//! Events as kubelet writes them: repeated ones are counted, noisy objects are slowed down.
//!
//! In: an object, a reason, a message. Out: v1 Event as JSON; a repetition has the same name and a higher count.
//! Never: more than a bounded number of remembered events, or floods (25 at once, then one in five minutes).

use super::{Action, Uid, mark};
use crate::clock::{Now, rfc3339};
use serde_json::json;
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
        let mut about = json!({
            "apiVersion": "v1", "kind": "Pod",
            "namespace": subject.namespace, "name": subject.name, "uid": &**subject.uid,
        });
        if let Some(path) = subject.field_path {
            about["fieldPath"] = path.into();
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{:x}", subject.name, seen.stamp), "namespace": subject.namespace},
            "involvedObject": about,
            "type": if kind == Kind::Normal { "Normal" } else { "Warning" },
            "reason": reason, "message": message,
            "source": {"component": "kubelet", "host": node},
            "reportingComponent": "kubelet", "reportingInstance": node,
            "firstTimestamp": rfc3339(seen.first_ms), "lastTimestamp": rfc3339(now.wall_ms),
            "count": seen.count,
        });
        out.push_back(Action::Event(event.to_string().into_bytes()));
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
