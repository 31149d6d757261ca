//! What a decision wants done, as data.
//!
//! In: nothing. Out: `Plan`s; `hub/run` applies their `Change`s in order through the same path as API writes.
//! Never: does anything. A fixed point is an empty plan.

use crate::{
    Timestamp,
    view::{Kind, Meta, Obj},
};
use serde_json::Value;

/// The outcome of one reconcile. `changes` are applied in order; the first that fails ends the plan and the key is
/// tried again (with back-off) once the view has caught up. `again_at` asks for a call at that time even when
/// nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub again_at: Option<Timestamp>,
    pub why: Vec<Why>,
}

/// One reason behind a plan: feeds `kubectl describe`, `limpet why` and logs from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub reason: &'static str,
    pub message: String,
}

/// One thing to do. Resources are store ids: `"<group>/<plural>"`, core group empty (`"/pods"`).
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Create; `metadata.name` is always set. "Already exists" counts as done when the existing object has the same
    /// controller, otherwise it is a failure.
    Create { resource: String, namespace: String, object: Value },
    /// RFC 7386 merge patch, with the uid (and resourceVersion, where given) as precondition. `subresource`:
    /// `status`, `finalize`, `scale`.
    Patch {
        resource: String,
        namespace: String,
        name: String,
        uid: String,
        resource_version: Option<u64>,
        subresource: Option<&'static str>,
        merge: Value,
    },
    /// Delete with the uid as precondition (empty: none). "Not found" counts as done.
    Delete {
        resource: String,
        namespace: String,
        name: String,
        uid: String,
        grace: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// A Kubernetes Event; failures are not retried, repetitions are counted by the shell.
    Event { regarding: Regarding, type_: EventType, reason: String, message: String, component: &'static str },
    /// pods/binding.
    Bind { namespace: String, name: String, uid: String, node: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// The object that an Event is about (`involvedObject`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: u64,
}

impl Regarding {
    pub fn of<T>(o: &Obj<T>) -> Regarding
    where
        Obj<T>: Kind,
    {
        Regarding {
            api_version: <Obj<T> as Kind>::API_VERSION.into(),
            kind: <Obj<T> as Kind>::KIND.into(),
            namespace: o.meta.namespace.to_string(),
            name: o.meta.name.to_string(),
            uid: o.meta.uid.to_string(),
            resource_version: o.meta.resource_version,
        }
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub fn because(&mut self, reason: &'static str, message: impl Into<String>) {
        self.why.push(Why { reason, message: message.into() });
    }

    /// Keeps the earlier of both times.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |t| t.min(at)));
    }

    pub fn create(&mut self, resource: &str, namespace: &str, object: Value) {
        self.push(Change::Create { resource: resource.into(), namespace: namespace.into(), object });
    }

    pub fn patch(&mut self, resource: &str, meta: &Meta, sub: Option<&'static str>, merge: Value) {
        self.push(Change::Patch {
            resource: resource.into(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            uid: meta.uid.to_string(),
            resource_version: None,
            subresource: sub,
            merge,
        });
    }

    /// A patch that only holds for the version that was looked at.
    pub fn patch_exact(&mut self, resource: &str, meta: &Meta, sub: Option<&'static str>, merge: Value) {
        self.patch(resource, meta, sub, merge);
        if let Some(Change::Patch { resource_version, .. }) = self.changes.last_mut() {
            *resource_version = Some(meta.resource_version);
        }
    }

    pub fn delete(&mut self, resource: &str, meta: &Meta) {
        self.delete_with(resource, meta, None, Some(Propagation::Background));
    }

    pub fn delete_with(
        &mut self,
        resource: &str,
        meta: &Meta,
        grace: Option<i64>,
        propagation: Option<Propagation>,
    ) {
        self.push(Change::Delete {
            resource: resource.into(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            uid: meta.uid.to_string(),
            grace,
            propagation,
        });
    }

    pub fn event(
        &mut self,
        regarding: Regarding,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
        component: &'static str,
    ) {
        let message = message.into();
        self.push(Change::Event { regarding, type_, reason: reason.into(), message, component });
    }

    /// Events behind all other changes: so creations stand side by side (the shell makes neighbours of one sort durable
    /// together), and nothing is said before it is done.
    pub fn events_last(mut self) -> Plan {
        self.changes.sort_by_key(|c| matches!(c, Change::Event { .. }));
        self
    }

    /// Takes over everything of another plan.
    pub fn extend(&mut self, other: Plan) {
        self.changes.extend(other.changes);
        self.why.extend(other.why);
        if let Some(t) = other.again_at {
            self.wake_at(t);
        }
    }
}
