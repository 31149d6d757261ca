//! A status condition, as most kinds have them.
//!
//! In: JSON. Out: the fields that decisions compare. Never: heartbeat times.

use crate::Timestamp;
use serde::Deserialize;

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
