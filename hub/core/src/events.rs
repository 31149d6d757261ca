//! Which Events are written, which are counted, and which are too many.
//!
//! In: what is to be said about whom, and the time. Out: a new Event, one more of a known one, or nothing.
//! The rules are those of Kubernetes' own event recorder: the same again is counted; many alike are told as one; an
//! object that is talked about without end is given 25 Events and then one in five minutes.
//! Never: remembers more than a bounded number of objects.

use crate::{EventType, Regarding, Timestamp};
use std::collections::{BTreeMap, VecDeque};

/// What is remembered of each sort at most.
const REMEMBERED_MAX: usize = 4096;
/// Events of one source about one object before it is slowed down.
const SPAM_BURST: f64 = 25.0;
/// Seconds for one more.
const SPAM_REFILL_S: f64 = 300.0;
/// Different messages with one reason after which they are told as one.
const ALIKE_MAX: usize = 10;
/// Seconds during which Events count as alike or the same.
const ALIKE_WITHIN_S: i64 = 600;

/// What to do with an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it with this message. Tell `Correlator::written` under which name.
    New { key: String, message: String },
    /// It is there already: raise its count, and give it this message.
    Again { namespace: String, name: String, count: u64, message: String },
    /// Too many.
    Drop,
}

struct Known {
    namespace: String,
    name: String,
    count: u64,
    last: Timestamp,
}

struct Alike {
    messages: Vec<u64>,
    last: Timestamp,
}

/// A map that forgets the oldest entry when it is full.
struct Bounded<V> {
    map: BTreeMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Bounded { map: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<V> Bounded<V> {
    fn entry(&mut self, key: &str, new: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(key) {
            while self.order.len() >= REMEMBERED_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
            self.order.push_back(key.to_owned());
        }
        self.map.entry(key.to_owned()).or_insert_with(new)
    }
}

/// The memory of one recorder.
#[derive(Default)]
pub struct Correlator {
    spam: Bounded<(f64, Timestamp)>,
    alike: Bounded<Alike>,
    known: Bounded<Option<Known>>,
}

impl Correlator {
    /// Decides about one Event.
    pub fn judge(
        &mut self,
        about: &Regarding,
        type_: EventType,
        reason: &str,
        message: &str,
        component: &str,
        now: Timestamp,
    ) -> Verdict {
        let object = format!("{component}/{}/{}/{}/{}", about.kind, about.namespace, about.name, about.uid);
        if !self.may_speak(&object, now) {
            return Verdict::Drop;
        }
        let group = format!("{object}/{}/{reason}", type_.as_str());
        let (key, message) = match self.is_crowded(&group, message, now) {
            true => (group, format!("(combined from similar events): {message}")),
            false => (format!("{group}/{message}"), message.to_owned()),
        };
        let known = self.known.entry(&key, || None);
        match known {
            Some(k) if now.as_second() - k.last.as_second() <= ALIKE_WITHIN_S => {
                k.count += 1;
                k.last = now;
                let (namespace, name) = (k.namespace.clone(), k.name.clone());
                Verdict::Again { namespace, name, count: k.count, message }
            }
            _ => {
                *known = None;
                Verdict::New { key, message }
            }
        }
    }

    /// A new Event was written under this name.
    pub fn written(&mut self, key: &str, namespace: &str, name: &str, now: Timestamp) {
        let known = Known { namespace: namespace.into(), name: name.into(), count: 1, last: now };
        *self.known.entry(key, || None) = Some(known);
    }

    /// A known Event is not there any more: the next one is new.
    pub fn vanished(&mut self, namespace: &str, name: &str) {
        let gone = |k: &Option<Known>| k.as_ref().is_some_and(|k| k.namespace == namespace && k.name == name);
        self.known.map.values_mut().filter(|k| gone(k)).for_each(|k| *k = None);
    }

    fn may_speak(&mut self, object: &str, now: Timestamp) -> bool {
        let (tokens, last) = self.spam.entry(object, || (SPAM_BURST, now));
        let passed = (now.as_second() - last.as_second()).max(0) as f64;
        *tokens = (*tokens + passed / SPAM_REFILL_S).min(SPAM_BURST);
        *last = now;
        let may = *tokens >= 1.0;
        if may {
            *tokens -= 1.0;
        }
        may
    }

    /// Whether so many different messages came with this reason that they are told as one.
    fn is_crowded(&mut self, group: &str, message: &str, now: Timestamp) -> bool {
        let alike = self.alike.entry(group, || Alike { messages: Vec::new(), last: now });
        if now.as_second() - alike.last.as_second() > ALIKE_WITHIN_S {
            alike.messages.clear();
        }
        alike.last = now;
        let digest = fingerprint(message);
        if !alike.messages.contains(&digest) && alike.messages.len() < ALIKE_MAX {
            alike.messages.push(digest);
        }
        alike.messages.len() >= ALIKE_MAX
    }
}

/// FNV-1a: two messages with one fingerprint only make one Event fewer.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> Regarding {
        Regarding { api_version: "v1".into(), kind: "Pod".into(), namespace: "a".into(), name: name.into(),
            uid: format!("u-{name}"), resource_version: 1 }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn say(c: &mut Correlator, name: &str, message: &str, second: i64) -> Verdict {
        let verdict = c.judge(&about(name), EventType::Warning, "Failed", message, "me", at(second));
        if let Verdict::New { key, .. } = &verdict {
            c.written(key, "a", &format!("e{second}"), at(second));
        }
        verdict
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut c = Correlator::default();
        assert!(matches!(say(&mut c, "p", "no", 0), Verdict::New { .. }));
        for n in 2..5 {
            let want = Verdict::Again { namespace: "a".into(), name: "e0".into(), count: n, message: "no".into() };
            assert_eq!(say(&mut c, "p", "no", n as i64), want);
        }
        assert!(matches!(say(&mut c, "q", "no", 5), Verdict::New { .. }), "another object");
        assert!(matches!(say(&mut c, "p", "no", 700), Verdict::New { .. }), "after a long while it is news");
        c.vanished("a", "e700");
        assert!(matches!(say(&mut c, "p", "no", 701), Verdict::New { .. }));
    }

    #[test]
    fn many_alike_are_told_as_one() {
        let mut c = Correlator::default();
        for n in 0..9 {
            assert!(matches!(say(&mut c, "p", &format!("no {n}"), n), Verdict::New { .. }));
        }
        let Verdict::New { message, .. } = say(&mut c, "p", "no 9", 9) else { panic!() };
        assert_eq!(message, "(combined from similar events): no 9");
        let Verdict::Again { count, message, .. } = say(&mut c, "p", "no 10", 10) else { panic!() };
        assert_eq!((count, &*message), (2, "(combined from similar events): no 10"));
    }

    #[test]
    fn an_object_without_end_is_slowed_down() {
        let mut c = Correlator::default();
        let dropped = |v: &Verdict| *v == Verdict::Drop;
        assert!((0..25).all(|_| !dropped(&say(&mut c, "p", "no", 0))));
        assert!(dropped(&say(&mut c, "p", "no", 0)));
        assert!(!dropped(&say(&mut c, "q", "no", 0)));
        assert!(dropped(&say(&mut c, "p", "no", 299)));
        assert!(!dropped(&say(&mut c, "p", "no", 301)));
        assert!(dropped(&say(&mut c, "p", "no", 302)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut c = Correlator::default();
        (0..10_000).for_each(|n| drop(say(&mut c, &format!("p{n}"), "no", 0)));
        assert!(c.known.map.len() <= REMEMBERED_MAX && c.spam.map.len() <= REMEMBERED_MAX);
        assert!(c.alike.map.len() <= REMEMBERED_MAX && c.known.order.len() <= REMEMBERED_MAX);
    }
}
