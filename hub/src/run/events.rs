//! Kubernetes Events of the hub's own parts.
//!
//! In: what happened to which object. Out: v1 Events; the same again within a while only raises the count.
//! Never: fails anything: an Event that cannot be written is logged and forgotten.

use super::{Api, Delete, Patch, clock};
use limpet_hub_core::{EventType, Regarding, Timestamp, random_suffix};
use limpet_store::Store;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Events whose repetitions are counted.
const REMEMBERED_MAX: usize = 2048;
/// A repetition after so long is a new Event.
const SAME_WITHIN_S: i64 = 600;
/// Messages are cut, as upstream does.
const MESSAGE_BYTES_MAX: usize = 1024;
/// How long Events are kept, as upstream's default.
const KEPT_S: i64 = 3600;
const SWEEP_EVERY: Duration = Duration::from_secs(300);

type Sameness = (String, String, String);

struct Known {
    namespace: String,
    name: String,
    count: u64,
    last: Timestamp,
}

#[derive(Default)]
struct Memory {
    known: HashMap<Sameness, Known>,
    order: VecDeque<Sameness>,
}

pub struct Recorder {
    api: Arc<dyn Api>,
    memory: Mutex<Memory>,
}

impl Recorder {
    pub fn new(api: Arc<dyn Api>) -> Recorder {
        Recorder { api, memory: Mutex::default() }
    }

    pub async fn record(
        &self,
        regarding: &Regarding,
        type_: EventType,
        reason: &str,
        message: &str,
        component: &'static str,
    ) {
        let message = cut(message, MESSAGE_BYTES_MAX);
        let now = clock::now();
        let same = (format!("{}/{}", regarding.kind, regarding.uid), reason.to_string(), message.to_string());
        if let Some((namespace, name, count)) = self.again(&same, now) {
            let ask = Patch {
                resource: "/events".into(),
                namespace,
                name,
                uid: String::new(),
                resource_version: None,
                subresource: None,
                merge: json!({"count": count, "lastTimestamp": second(now)}),
            };
            match self.api.patch(component, ask).await {
                Ok(_) => return,
                Err(status) if status.code == 404 => {}
                Err(status) => return failed(&status.message),
            }
        }
        let event = object(regarding, type_, reason, message, component, now);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let (namespace, name) = (text(&event["metadata"]["namespace"]), text(&event["metadata"]["name"]));
        match self.api.create(component, "/events".into(), namespace.clone(), event).await {
            Ok(_) => self.remember(same, Known { namespace, name, count: 1, last: now }),
            Err(status) => failed(&status.message),
        }
    }

    fn again(&self, same: &Sameness, now: Timestamp) -> Option<(String, String, u64)> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory.known.get_mut(same)?;
        if now.as_second() - known.last.as_second() > SAME_WITHIN_S {
            return None;
        }
        known.count += 1;
        known.last = now;
        Some((known.namespace.clone(), known.name.clone(), known.count))
    }

    fn remember(&self, same: Sameness, known: Known) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.known.insert(same.clone(), known).is_none() {
            memory.order.push_back(same);
        }
        while memory.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = memory.order.pop_front() {
                memory.known.remove(&oldest);
            }
        }
    }
}

fn failed(why: &str) {
    tracing::debug!("an Event could not be written: {why}");
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn object(
    regarding: &Regarding,
    type_: EventType,
    reason: &str,
    message: &str,
    component: &str,
    now: Timestamp,
) -> Value {
    let namespace = match regarding.namespace.is_empty() {
        true => "default",
        false => &regarding.namespace,
    };
    let name = cut(&regarding.name, 200);
    let suffix = format!("{:x}{}", now.as_millisecond(), random_suffix(clock::seed(), name, 0));
    let mut involved = json!({
        "apiVersion": regarding.api_version,
        "kind": regarding.kind,
        "name": regarding.name,
        "uid": regarding.uid,
    });
    if !regarding.namespace.is_empty() {
        involved["namespace"] = json!(regarding.namespace);
    }
    if regarding.resource_version > 0 {
        involved["resourceVersion"] = json!(regarding.resource_version.to_string());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{suffix}"), "namespace": namespace},
        "involvedObject": involved,
        "type": type_.as_str(),
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": second(now),
        "lastTimestamp": second(now),
        "count": 1,
    })
}

/// Deletes Events that are older than an hour.
pub async fn sweep(store: Store, api: Arc<dyn Api>) {
    let mut turns = tokio::time::interval(SWEEP_EVERY);
    loop {
        turns.tick().await;
        let limit = clock::now().as_second() - KEPT_S;
        for record in store.list("/events", None).records {
            if last_seen(&record.bytes).is_some_and(|at| at >= limit) {
                continue;
            }
            let ask = Delete {
                resource: "/events".into(),
                namespace: record.key.namespace.clone(),
                name: record.key.name.clone(),
                uid: String::new(),
                grace: None,
                propagation: None,
            };
            if let Err(status) = api.delete("event-ttl", ask).await
                && status.code != 404
            {
                failed(&status.message);
            }
        }
    }
}

/// The latest time that an Event names, in seconds since 1970.
fn last_seen(bytes: &[u8]) -> Option<i64> {
    let event: Value = serde_json::from_slice(bytes).ok()?;
    let times = [&event["lastTimestamp"], &event["eventTime"], &event["series"]["lastObservedTime"]];
    let created = &event["metadata"]["creationTimestamp"];
    let parse = |v: &Value| v.as_str()?.parse::<Timestamp>().ok().map(|t| t.as_second());
    times.into_iter().filter_map(parse).max().or_else(|| parse(created))
}
