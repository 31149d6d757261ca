//! What must be known about a pod after a power cut.
//!
//! In: the machine's state. Out: a small record for the journal, written only when it differs from the last.
//! Never: things that change while a pod just runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PodMemory {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// `status.startTime`.
    pub start_ms: u64,
    /// All init containers have done their work in this sandbox.
    pub initialized: bool,
    pub terminal: Option<Terminal>,
    /// What the pod has as a whole, when that is not the manifest's (a resize that waits).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<crate::api::Resources>,
    /// New sizes are on their way, and the pod's group may be wider than the pod.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resizing: bool,
    /// Boxed, as a tree's nodes have room for eleven.
    pub containers: BTreeMap<String, Box<ContainerMemory>>,
}

/// A pod's last word: it will not run again.
#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Terminal {
    /// `Succeeded` or `Failed`.
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMemory {
    /// The newest attempt that was started.
    pub attempt: Option<u32>,
    pub started_ms: u64,
    pub image_id: String,
    /// The image's name, when that is not written as in the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_name: String,
    /// How the newest attempt ended, when it has.
    pub ended: Option<Terminated>,
    /// How the one before ended.
    pub last: Option<Terminated>,
    /// The sizes that it has, when they are not the manifest's (a resize that waits).
    pub resources: Option<crate::api::Resources>,
}

/// v1 ContainerStateTerminated.
#[derive(Clone, Debug, Default, PartialEq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Terminated {
    pub code: i32,
    pub reason: String,
    pub message: String,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub id: String,
}
