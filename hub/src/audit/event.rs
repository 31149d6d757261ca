//! The record of one request, from its arrival to its end.
//!
//! In: who asks for what; later annotations, the request's body, the answer. Out: one event a stage, to the sinks.
//! Whoever drops the last `Trail` of a request that was begun ends its record. Never: two events of one stage.

use super::{Audit, body};
use crate::auth::{Acting, User};
use bytes::Bytes;
use jiff::Timestamp;
use limpet_hub_core::{
    audit::{Level, Stage, Verdict},
    rbac::Attributes,
};
use serde_json::{Map, Value, json};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Annotations of one event, and the letters of each.
const ANNOTATIONS_MAX: usize = 128;
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// What is known when a request arrives.
pub struct Head<'a> {
    pub id: &'a str,
    pub uri: String,
    pub user: Option<&'a User>,
    pub sources: Vec<IpAddr>,
    pub agent: &'a str,
    pub version: &'a str,
    pub now: Timestamp,
}

/// The fields that all events of a request have.
pub(super) struct Parts(Map<String, Value>);

impl Parts {
    pub fn of(asked: &Attributes<'_>, head: Head<'_>) -> Parts {
        let mut parts = Map::new();
        let mut set = |field: &str, value: Value| _ = parts.insert(field.to_owned(), value);
        set("kind", json!("Event"));
        set("apiVersion", json!("audit.k8s.io/v1"));
        set("auditID", json!(head.id));
        set("requestURI", json!(head.uri));
        set("verb", json!(asked.verb));
        set("user", head.user.map_or(json!({}), User::to_value));
        set("requestReceivedTimestamp", json!(micro(head.now)));
        if !head.sources.is_empty() {
            set("sourceIPs", json!(head.sources));
        }
        if !head.agent.is_empty() {
            set("userAgent", json!(head.agent));
        }
        if asked.path.is_none() {
            let mut about = Map::new();
            for (field, text) in [
                ("resource", asked.resource),
                ("namespace", asked.namespace),
                ("name", asked.name),
                ("apiGroup", asked.api_group),
                ("apiVersion", head.version),
                ("subresource", asked.subresource),
            ] {
                if !text.is_empty() {
                    about.insert(field.to_owned(), json!(text));
                }
            }
            set("objectRef", Value::Object(about));
        }
        Parts(parts)
    }
}

/// With six digits, as metav1.MicroTime.
fn micro(at: Timestamp) -> String {
    format!("{at:.6}")
}

pub struct Trail {
    audit: Arc<Audit>,
    verdict: Verdict,
    state: Mutex<State>,
}

struct State {
    parts: Map<String, Value>,
    annotations: Map<String, Value>,
    ended: bool,
}

impl Trail {
    pub(super) fn new(audit: Arc<Audit>, verdict: Verdict, parts: Parts) -> Trail {
        let mut parts = parts.0;
        parts.insert("level".into(), json!(verdict.level.name()));
        Trail { audit, verdict, state: Mutex::new(State { parts, annotations: Map::new(), ended: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, field: &str, value: Value) {
        self.state().parts.insert(field.to_owned(), value);
    }

    pub fn wants_request(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    pub fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    pub fn impersonates(&self, acting: &Acting) {
        self.set("impersonatedUser", acting.user.to_value());
        if !acting.constraint.is_empty() {
            self.set("authenticationMetadata", json!({"impersonationConstraint": acting.constraint}));
        }
    }

    /// The first value of a key stays, as upstream has it.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut state = self.state();
        if state.annotations.len() < ANNOTATIONS_MAX && !state.annotations.contains_key(key) {
            let text: String = value.chars().take(ANNOTATION_BYTES_MAX).collect();
            state.annotations.insert(key.to_owned(), json!(text));
        }
    }

    /// The body of the request, as it was sent.
    pub fn request_body(&self, bytes: &Bytes, content_type: &str) {
        if let Some(value) = body::parsed(bytes, content_type).filter(|_| self.wants_request()) {
            self.set("requestObject", self.lean(value));
        }
    }

    /// The answer's code, and what a metav1.Status says.
    pub(super) fn response(&self, code: u16, object: Option<Value>) {
        let mut status = json!({"metadata": {}, "code": code});
        let mut state = self.state();
        if let Some(said) = object.as_ref().filter(|object| object["kind"] == "Status") {
            for field in ["status", "message", "reason", "details"] {
                if !said[field].is_null() {
                    status[field] = said[field].clone();
                }
            }
        }
        state.parts.insert("responseStatus".into(), status);
        if let Some(object) = object.filter(|_| self.wants_response()) {
            if state.parts["verb"] == "create"
                && let (Some(name), Some(about)) = (object["metadata"]["name"].as_str(), state.parts.get_mut("objectRef"))
                && about["name"].is_null()
            {
                about["name"] = json!(name);
            }
            state.parts.insert("responseObject".into(), self.lean(object));
        }
    }

    fn lean(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields {
            strip(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        }
        object
    }

    /// Nobody was let in: this is the last event.
    pub fn unauthenticated(&self, attempted: &str) {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Unauthorized",
            "message": format!("Authentication failed, attempted: {attempted}")});
        self.response(401, Some(status));
        self.record(Stage::ResponseStarted);
        self.state().ended = true;
    }

    /// Writes the event of a stage.
    pub(super) fn record(&self, stage: Stage) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        state.ended = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        if !self.verdict.records(stage) {
            return;
        }
        let mut event = match state.ended {
            true => std::mem::take(&mut state.parts),
            false => state.parts.clone(),
        };
        event.insert("stage".into(), json!(stage.name()));
        event.insert("stageTimestamp".into(), json!(micro(Timestamp::now())));
        if !state.annotations.is_empty() {
            event.insert("annotations".into(), Value::Object(state.annotations.clone()));
        }
        drop(state);
        self.audit.send(serde_json::to_vec(&event).unwrap_or_default());
    }
}

fn strip(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // The client left, or a stream is over.
            self.record(Stage::ResponseComplete);
            return;
        }
        let status = json!({"metadata": {}, "code": 500, "status": "Failure", "reason": "InternalError",
            "message": "the hub panicked while it answered"});
        self.set("responseStatus", status);
        self.record(Stage::Panic);
    }
}
