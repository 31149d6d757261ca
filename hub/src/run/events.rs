//! Kubernetes Events of the hub's own parts.
//!
//! In: what happened to which object. Out: Events, counted, combined and limited as the core's correlator says. The
//! scheduler's are of events.k8s.io's form as upstream's are (`eventTime`, `series`), the controllers' of v1's
//! (`lastTimestamp`, `count`): kubectl sorts by `lastTimestamp`, so what the scheduler says of a pod comes first.
//! Never: fails anything: an Event that cannot be written is logged and forgotten.

use super::{Api, Delete, Lead, Patch, clock};
use limpet_hub_core::{
    EventType, Regarding, Timestamp,
    events::{Correlator, Verdict},
    random_suffix,
    schedule::SCHEDULER_NAME,
};
use limpet_objects::time::rfc3339_micro;
use limpet_store::Store;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Messages are cut, as upstream does.
const MESSAGE_BYTES_MAX: usize = 1024;
/// How long Events are kept, as upstream's default.
const KEPT_S: i64 = 3600;
const SWEEP_EVERY: Duration = Duration::from_secs(300);

pub struct Recorder {
    api: Arc<dyn Api>,
    correlator: Mutex<Correlator>,
}

impl Recorder {
    pub fn new(api: Arc<dyn Api>) -> Recorder {
        Recorder { api, correlator: Mutex::default() }
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
        // The lock is gone before anything is waited for.
        let verdict = self.lock().judge(regarding, type_, reason, message, component, now);
        match verdict {
            Verdict::Drop => {}
            Verdict::New { key, message } => self.write(&key, regarding, type_, reason, &message, component).await,
            Verdict::Again { namespace, name, count, message } => {
                let merge = again(component, count, &message, now);
                let ask = Patch {
                    resource: "/events".into(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    uid: String::new(),
                    resource_version: None,
                    subresource: None,
                    merge,
                };
                match self.api.patch(component, ask).await {
                    Ok(_) => {}
                    Err(status) if status.code == 404 => {
                        self.lock().vanished(&namespace, &name);
                        self.write("", regarding, type_, reason, &message, component).await;
                    }
                    Err(status) => failed(&status.message),
                }
            }
        }
    }

    async fn write(
        &self,
        key: &str,
        regarding: &Regarding,
        type_: EventType,
        reason: &str,
        message: &str,
        component: &'static str,
    ) {
        let now = clock::now();
        let event = object(regarding, type_, reason, message, component, now);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let (namespace, name) = (text(&event["metadata"]["namespace"]), text(&event["metadata"]["name"]));
        match self.api.create(component, "/events".into(), namespace.clone(), event).await {
            Ok(_) if !key.is_empty() => self.lock().written(key, &namespace, &name, now),
            Ok(_) => {}
            Err(status) => failed(&status.message),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Correlator> {
        self.correlator.lock().unwrap_or_else(PoisonError::into_inner)
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
    let mut event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{suffix}"), "namespace": namespace},
        "involvedObject": involved,
        "type": type_.as_str(),
        "reason": reason,
        "message": message,
        "reportingComponent": component,
    });
    let form = match action(component, reason) {
        Some(action) => json!({
            "action": action, "eventTime": rfc3339_micro(now), "reportingInstance": component, "source": {},
        }),
        None => json!({
            "source": {"component": component},
            "reportingInstance": "",
            "firstTimestamp": second(now),
            "lastTimestamp": second(now),
            "count": 1,
        }),
    };
    if let (Some(event), Value::Object(form)) = (event.as_object_mut(), form) {
        event.extend(form);
    }
    event
}

/// What the scheduler did or tried, in upstream's words (kube-scheduler's `Eventf` calls); others do not say it.
fn action(component: &str, reason: &str) -> Option<&'static str> {
    match (component, reason) {
        (SCHEDULER_NAME, "Scheduled") => Some("Binding"),
        (SCHEDULER_NAME, "Preempted") => Some("Preempting"),
        (SCHEDULER_NAME, _) => Some("Scheduling"),
        _ => None,
    }
}

/// What changes in an Event when the same has happened for the `count`th time.
fn again(component: &str, count: u64, message: &str, now: Timestamp) -> Value {
    match component {
        SCHEDULER_NAME => {
            json!({"series": {"count": count, "lastObservedTime": rfc3339_micro(now)}, "message": message})
        }
        _ => json!({"count": count, "lastTimestamp": second(now), "message": message}),
    }
}

/// Deletes Events that are older than an hour.
pub async fn sweep(store: Store, api: Arc<dyn Api>, lead: Lead) {
    let mut turns = tokio::time::interval(SWEEP_EVERY);
    loop {
        turns.tick().await;
        lead.wait().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> Regarding {
        let (api_version, kind, namespace) = ("v1".into(), "Pod".into(), "default".into());
        Regarding { api_version, kind, namespace, name: "web".into(), uid: "u".into(), resource_version: 7 }
    }

    #[test]
    fn the_scheduler_speaks_in_events_k8s_io_and_controllers_in_v1() {
        let now: Timestamp = "2026-11-23T10:00:00.123456Z".parse().unwrap();
        let said = |reason, component| object(&about(), EventType::Normal, reason, "words", component, now);
        let scheduled = said("Scheduled", SCHEDULER_NAME);
        let times = |event: &Value| ["eventTime", "firstTimestamp", "lastTimestamp", "count"].map(|f| event[f].clone());
        assert_eq!(times(&scheduled), [json!("2026-11-23T10:00:00.123456Z"), Value::Null, Value::Null, Value::Null]);
        assert_eq!((&scheduled["action"], &scheduled["source"]), (&json!("Binding"), &json!({})));
        assert_eq!(said("FailedScheduling", SCHEDULER_NAME)["action"], "Scheduling");
        assert_eq!(said("Preempted", SCHEDULER_NAME)["action"], "Preempting");
        let made = said("SuccessfulCreate", "replicaset-controller");
        let second = json!("2026-11-23T10:00:00Z");
        assert_eq!(times(&made), [Value::Null, second.clone(), second.clone(), json!(1)]);
        assert!(made.get("action").is_none());
        let series = again(SCHEDULER_NAME, 2, "words", now);
        let expect = json!({"count": 2, "lastObservedTime": "2026-11-23T10:00:00.123456Z"});
        assert_eq!((&series["series"], series.get("count")), (&expect, None));
        assert_eq!(again("job-controller", 2, "words", now), json!({"count": 2, "lastTimestamp": second, "message": "words"}));
        // Both ages are read.
        assert_eq!(last_seen(scheduled.to_string().as_bytes()), last_seen(made.to_string().as_bytes()));
    }
}
