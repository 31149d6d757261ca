//! Brings what is stored about flows to the door, and keeps what every cluster has.
//!
//! In: changes of FlowSchemas and PriorityLevelConfigurations. Out: the door's configuration; defaults that were deleted;
//! the condition `Dangling` of schemas. Never: changes a spec that a user wrote.

use crate::api::{Api, Client, object};
use limpet_hub_core::flow::{Config, defaults};
use limpet_objects::time;
use limpet_store::Store;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
const BY: &str = "api-priority-and-fairness-config-producer-v1";
/// After a write that failed.
const PAUSE: Duration = Duration::from_secs(5);

pub async fn keep(api: Arc<Api>) {
    let client = Client::new(Arc::clone(&api));
    loop {
        let revision = api.store.revision();
        api.guard.flow.configure(read(&api.store));
        let good = mend(&client, &api).await;
        let (Ok(mut schemas), Ok(mut levels)) =
            (api.store.watch(SCHEMAS, None, revision), api.store.watch(LEVELS, None, revision))
        else {
            continue;
        };
        // A change, or a watch that fell behind: both mean to look again.
        tokio::select! {
            _ = schemas.next() => {}
            _ = levels.next() => {}
            () = tokio::time::sleep(PAUSE), if !good => {}
            () = api.stopped() => return,
        }
    }
}

fn all(store: &Store, resource: &str) -> Vec<Value> {
    let records = store.list(resource, None).records;
    records.iter().filter_map(|record| serde_json::from_slice(&record.bytes).ok()).collect()
}

fn read(store: &Store) -> Config {
    Config::of(&all(store, SCHEMAS), &all(store, LEVELS))
}

/// Makes what is missing; whether everything that had to be written was written.
pub async fn mend(client: &Client, api: &Api) -> bool {
    let mut good = true;
    for (resource, value) in defaults() {
        let name = object::name(&value).to_owned();
        if !client.has(resource, "", &name)
            && let Err(status) = client.create(BY, resource, "", value).await
        {
            tracing::warn!(%resource, %name, why = status.message, "a default of priority and fairness is missing");
            good = false;
        }
    }
    let levels: Vec<String> = all(&api.store, LEVELS).iter().map(|level| object::name(level).to_owned()).collect();
    for mut schema in all(&api.store, SCHEMAS) {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().to_owned();
        let condition = dangling(&level, levels.contains(&level), &time::rfc3339(api.now()));
        let old = schema["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Dangling");
        if old.is_some_and(|old| old["status"] == condition["status"] && old["message"] == condition["message"]) {
            continue;
        }
        let conditions = with(&schema["status"]["conditions"], condition);
        schema["status"] = json!({"conditions": conditions});
        // A conflict shows as a change, and so is looked at again.
        good &= client.update(BY, SCHEMAS, "status", schema).await.is_ok();
    }
    good
}

/// The condition among those of others, which stay as they are and where they are.
pub(super) fn with(conditions: &Value, own: Value) -> Value {
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    match all.iter_mut().find(|c| c["type"] == own["type"]) {
        Some(before) => *before = own,
        None => all.push(own),
    }
    Value::Array(all)
}

fn dangling(level: &str, exists: bool, now: &str) -> Value {
    let (status, reason, end) = match exists {
        true => ("False", "Found", "it exists"),
        false => ("True", "NotFound", "there is no such object"),
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and {end}"
    );
    json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
}
