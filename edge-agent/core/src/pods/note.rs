//! What a pod's status says that the journal does not have: since when, who has started up, who is ready.
//!
//! In: a pod as it is, the note of the agent before this one. Out: a note when it differs from the last, for memory that lasts as
//! long as the board runs: probes change it as often as they like, and that is no matter of the card.
//! Never: believed of another attempt than the one that it is about.

use super::{container::Container, pod::LivePod, status::Conditions};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNote {
    pub uid: String,
    /// Type, value, and since when by the wall clock.
    pub conditions: Vec<(String, bool, u64)>,
    /// Containers that run, by name: attempt, `started`, `ready`.
    pub containers: BTreeMap<String, (u32, bool, bool)>,
}

impl PodNote {
    /// Whether this attempt of a container has started up, and whether it is ready.
    pub(super) fn of(&self, name: &str, attempt: u32) -> Option<(bool, bool)> {
        self.containers.get(name).filter(|(of, ..)| *of == attempt).map(|(_, started, ready)| (*started, *ready))
    }
}

impl LivePod {
    fn looks(&self) -> impl Iterator<Item = (&str, (u32, bool, bool))> {
        let look = |c: &Container| (c.attempt.unwrap_or(0), c.started, c.ready);
        self.containers.iter().filter(|c| c.running().is_some()).map(move |c| (&*c.name, look(c)))
    }

    pub fn note_if_changed(&mut self) -> Option<PodNote> {
        let mut hasher = DefaultHasher::new();
        self.conditions.hash(&mut hasher);
        self.looks().for_each(|look| look.hash(&mut hasher));
        let mark = Some(hasher.finish());
        if std::mem::replace(&mut self.noted, mark) == mark {
            return None;
        }
        Some(PodNote {
            uid: self.facts.uid.to_string(),
            conditions: self.conditions.noted(),
            containers: self.looks().map(|(name, look)| (name.to_string(), look)).collect(),
        })
    }

    /// Before anything is said of it: what has not changed is dated as it was.
    pub fn take_note(&mut self, note: &PodNote) {
        self.conditions = Conditions::of_note(&note.conditions);
    }
}
