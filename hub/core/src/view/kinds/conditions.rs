//! A status condition, as most kinds have them.
//!
//! In: JSON. Out: the fields that decisions compare, and lists of conditions with one set or removed as upstream does.
//! Never: a new transition time when the status did not change.

use crate::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// One entry of `status.conditions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    pub status: Box<str>,
    pub reason: Box<str>,
    pub message: Box<str>,
    #[serde(rename = "lastTransitionTime")]
    pub since: Option<Timestamp>,
    #[serde(rename = "lastUpdateTime")]
    pub updated: Option<Timestamp>,
}

/// The condition of a type, if it is there.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| &*c.type_ == type_)
}

/// Whether the condition of a type is there with status "True".
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| &*c.status == "True")
}

/// Sets a condition. When status and reason are what they were, nothing changes; `since` only moves with the status.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = find(conditions, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.since = old.since;
        }
    }
    remove(conditions, &new.type_);
    conditions.push(new);
}

/// As `set`, and new words count, too: for conditions whose message tells how far something is.
pub fn set_words(conditions: &mut Vec<Condition>, new: Condition) {
    let same = |c: &&mut Condition| c.type_ == new.type_ && c.status == new.status;
    if let Some(old) = conditions.iter_mut().find(same) {
        (old.reason, old.message) = (new.reason, new.message);
        return;
    }
    set(conditions, new);
}

pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| &*c.type_ != type_);
}

/// Seconds, as Kubernetes writes times.
pub fn rfc3339(t: Timestamp) -> String {
    Timestamp::from_second(t.as_second()).unwrap_or(t).to_string()
}

impl Condition {
    pub fn new(
        type_: &str,
        status: bool,
        reason: &str,
        message: impl Into<Box<str>>,
        now: Timestamp,
    ) -> Condition {
        Condition {
            type_: type_.into(),
            status: if status { "True" } else { "False" }.into(),
            reason: reason.into(),
            message: message.into(),
            since: Some(now),
            updated: None,
        }
    }

    pub fn to_value(&self) -> Value {
        let mut v = json!({"type": self.type_, "status": self.status});
        if !self.reason.is_empty() {
            v["reason"] = json!(self.reason);
        }
        if !self.message.is_empty() {
            v["message"] = json!(self.message);
        }
        if let Some(t) = self.since {
            v["lastTransitionTime"] = json!(rfc3339(t));
        }
        if let Some(t) = self.updated {
            v["lastUpdateTime"] = json!(rfc3339(t));
        }
        v
    }
}

/// `status.conditions`; null when there is none.
pub fn to_value(conditions: &[Condition]) -> Value {
    if conditions.is_empty() {
        return Value::Null;
    }
    conditions.iter().map(Condition::to_value).collect()
}
