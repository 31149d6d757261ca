//! Which resources are served: the built-in ones and those of CustomResourceDefinitions.
//!
//! In: stored definitions. Out: the registry of now; the status of definitions (names, conditions); the objects
//! of deleted definitions are deleted too. A definition is served before its create is answered, and its kind is not served
//! any more when a watch tells of its end.
//! Never: serves a name that another definition holds.

use super::{Api, Client, Target, object, write::Ask};
use crate::webhook;
use jiff::Timestamp;
use limpet_objects::{
    custom::{self, Converter, STORAGE, names},
    resource::{Registry, Resource, registry},
    status::Status,
};
use limpet_store::{Record, Store};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{MutexGuard, watch};

pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// While objects of a deleted definition remain, how often they are looked at.
const CLEANUP_EVERY: Duration = Duration::from_millis(200);
/// How long a conversion may take: upstream's.
const CONVERSION_TIME: Duration = Duration::from_secs(30);
/// Objects that are deleted in one look.
const DELETES_AT_ONCE: usize = 500;
const BY: &str = "customresourcedefinition-controller";

/// What a definition's stored bytes became.
struct Made {
    revision: u64,
    /// Of everything that matters to its resources.
    digest: u64,
    resources: Vec<Arc<Resource>>,
}

pub struct Kinds {
    now: RwLock<Arc<Registry>>,
    /// The newest revision of definitions that is taken in.
    taken_in: AtomicU64,
    /// By definition, so that only changed ones are read again.
    made: Mutex<BTreeMap<String, Made>>,
    /// Who calls conversion webhooks; set once.
    api: OnceLock<Weak<Api>>,
    /// Counts the registries.
    changes: watch::Sender<u64>,
    /// Held from the choice of names until they are stored.
    names: tokio::sync::Mutex<()>,
}

impl Default for Kinds {
    fn default() -> Kinds {
        Kinds {
            now: RwLock::new(Arc::new(registry().with(Vec::new()))),
            taken_in: AtomicU64::new(0),
            made: Mutex::default(),
            api: OnceLock::new(),
            changes: watch::Sender::new(0),
            names: tokio::sync::Mutex::default(),
        }
    }
}

impl Kinds {
    /// What is served, with all that the store shows of definitions: nobody who was told of a change sees it undone.
    pub fn now(&self, store: &Store) -> Arc<Registry> {
        if self.taken_in.load(Ordering::Acquire) < store.newest_of(STORAGE) {
            self.refresh(store);
        }
        self.latest()
    }

    fn latest(&self) -> Arc<Registry> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Conversion webhooks are called through the API's streams. Set once, before the first look.
    pub fn set_api(&self, api: &Arc<Api>) {
        // A second time would be the same.
        let _ = self.api.set(Arc::downgrade(api));
    }

    fn converter(&self, conversion: &Value) -> Option<Arc<dyn Converter>> {
        let api = self.api.get().filter(|_| conversion["strategy"] == "Webhook")?;
        Some(Arc::new(Webhook { api: Weak::clone(api), webhook: conversion["webhook"].clone() }))
    }

    /// Tells when another registry is served.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub async fn lock(&self) -> MutexGuard<'_, ()> {
        self.names.lock().await
    }

    /// Takes in what the store says about definitions. Cheap when nothing changed.
    pub fn refresh(&self, store: &Store) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = store.newest_of(STORAGE);
        let records = store.list(STORAGE, None).records;
        let mut changed = records.len() != made.len();
        let mut next = BTreeMap::new();
        for record in records {
            let name = record.key.name.to_string();
            match made.remove(&name) {
                Some(same) if same.revision == record.revision => _ = next.insert(name, same),
                before => {
                    let new = self.make(&record, before);
                    changed |= new.1;
                    next.insert(name, new.0);
                }
            }
        }
        if changed {
            let all = next.values().flat_map(|made| made.resources.iter().cloned()).collect();
            let registry = Arc::new(registry().with(all));
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = registry;
            self.changes.send_modify(|count| *count += 1);
        }
        *made = next;
        self.taken_in.fetch_max(newest, Ordering::Release);
    }

    /// The resources of a definition, and whether they are others than before.
    fn make(&self, record: &Record, before: Option<Made>) -> (Made, bool) {
        let definition: Value = serde_json::from_slice(&record.bytes).unwrap_or_default();
        let digest = digest(&definition);
        let revision = record.revision;
        if let Some(same) = before.filter(|before| before.digest == digest) {
            return (Made { revision, ..same }, false);
        }
        let converter = |conversion: &Value| self.converter(conversion);
        let resources = custom::resources(&definition, &converter).into_iter().map(Arc::new).collect();
        (Made { revision, digest, resources }, true)
    }

    /// Ends when a resource is not served any more as it is; never for a built-in one.
    pub async fn replaced(&self, resource: &Arc<Resource>) {
        if resource.custom.is_none() {
            return std::future::pending().await;
        }
        let mut changes = self.changes.subscribe();
        loop {
            let now = self.latest();
            let own = now.by_path(&resource.group, &resource.version, &resource.plural);
            if !own.is_some_and(|own| Arc::ptr_eq(own, resource)) {
                return;
            }
            // The sender lives as long as this.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Names, versions and state of a definition; not its conditions' times and such.
fn digest(definition: &Value) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    definition["spec"].to_string().hash(&mut hasher);
    definition["status"]["acceptedNames"].to_string().hash(&mut hasher);
    object::uid(definition).hash(&mut hasher);
    (custom::condition(definition, "Established"), object::is_deleting(definition)).hash(&mut hasher);
    hasher.finish()
}

/// Converts by calling the definition's webhook.
struct Webhook {
    api: Weak<Api>,
    webhook: Value,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("clientConfig", &self.webhook["clientConfig"]).finish()
    }
}

impl Converter for Webhook {
    /// Objects are read in many places that do not wait; this thread does, and the runtime puts another in its
    /// place meanwhile.
    fn convert(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, String> {
        let Some(api) = self.api.upgrade() else { return Err("the hub is stopping".to_owned()) };
        let uid = super::new_uid();
        let versions = object::strings(&self.webhook["conversionReviewVersions"]);
        let version = versions.into_iter().find(|v| matches!(*v, "v1" | "v1beta1")).unwrap_or("v1");
        let review = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}});
        let call = webhook::call(&api, &self.webhook["clientConfig"], &review, CONVERSION_TIME);
        let runtime = tokio::runtime::Handle::current();
        let mut answer = tokio::task::block_in_place(|| runtime.block_on(call))?;
        let mut response = answer["response"].take();
        if response["uid"] != uid.as_str() {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        if response["result"]["status"] != "Success" {
            return Err(response["result"]["message"].as_str().unwrap_or("no reason given").to_owned());
        }
        let Value::Array(converted) = response["convertedObjects"].take() else {
            return Err("no convertedObjects in the response".to_owned());
        };
        for (object, converted) in objects.iter().zip(&converted) {
            if converted["apiVersion"] != api_version || converted["kind"] != object["kind"] {
                return Err(format!("expected an object of {api_version}, got {}", converted["apiVersion"]));
            }
        }
        Ok(converted)
    }
}

fn definitions(store: &Store) -> Vec<Value> {
    let records = store.list(STORAGE, None).records;
    records
        .iter()
        .filter_map(|r| serde_json::from_slice(&r.bytes).ok())
        .collect()
}

/// The status that a definition has once it is stored.
pub fn status_of(store: &Store, definition: &Value, now: Timestamp) -> Value {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let all = definitions(store);
    let taken = names::Taken::of(group, object::name(definition), registry(), all.iter());
    names::status(definition, &taken, now)
}

/// The deletion of a definition waits for its objects.
pub fn mark_deleted(target: &Target, definition: &mut Value, now: Timestamp) {
    if target.resource.storage != STORAGE || object::is_deleting(definition) {
        return;
    }
    object::add_finalizer(definition, CLEANUP);
    let Some(status) = definition.get_mut("status") else {
        return;
    };
    let words =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    names::set(
        status,
        "Terminating",
        true,
        "InstanceDeletionPending",
        words,
        now,
    );
}

/// Nothing new is created of a definition that is being deleted.
pub fn check_create(ask: &Ask) -> Result<(), Status> {
    match &ask.target.resource.custom {
        Some(custom) if custom.terminating => Err(Status::new(
            405,
            "MethodNotAllowed",
            "create not allowed while custom resource definition is terminating",
        )),
        _ => Ok(()),
    }
}

/// Keeps the registry and the definitions' status in step with the store, until the hub stops.
pub async fn keep(api: Arc<Api>) {
    let client = Client::new(Arc::clone(&api));
    loop {
        let from = api.store.revision();
        let watch = api.store.watch(STORAGE, None, from);
        api.kinds.refresh(&api.store);
        let mut waiting = settle(&api, &client).await;
        let Ok(mut watch) = watch else { continue };
        loop {
            tokio::select! {
                () = api.stopped() => return,
                event = watch.next() => match event {
                    Some(Ok(_)) => {}
                    // Too slow, or the store is closed: from the start.
                    Some(Err(_)) => break,
                    None => return,
                },
                () = tokio::time::sleep(CLEANUP_EVERY), if waiting => {}
            }
            api.kinds.refresh(&api.store);
            waiting = settle(&api, &client).await;
        }
    }
}

/// Brings every definition's status up to date, and deleted ones forward. Whether one still waits.
async fn settle(api: &Arc<Api>, client: &Client) -> bool {
    let all = definitions(&api.store);
    let mut waiting = false;
    for definition in names::in_order(all.iter()) {
        if object::is_deleting(definition) {
            waiting |= clean(api, client, definition).await;
            continue;
        }
        let status = status_of(&api.store, definition, api.now());
        if status == definition["status"] {
            continue;
        }
        let mut new = definition.clone();
        new["status"] = status;
        // A conflict means that another event follows.
        if let Err(error) = client.update(BY, STORAGE, "status", new).await {
            tracing::debug!(definition = object::name(definition), %error.message, "status not updated");
        }
    }
    waiting
}

/// Deletes the objects of a deleted definition; when none is left the definition may go.
async fn clean(api: &Arc<Api>, client: &Client, definition: &Value) -> bool {
    let ours = object::strings(&definition["metadata"]["finalizers"]).any(|f| f == CLEANUP);
    if !ours {
        return false;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let storage = format!(
        "{}/{}",
        text(&definition["spec"]["group"]),
        text(&definition["spec"]["names"]["plural"])
    );
    let served = api.kinds().by_storage(&storage).is_some();
    let records = api
        .store
        .list_from(&storage, None, None, DELETES_AT_ONCE)
        .records;
    if !records.is_empty() && served {
        for record in &records {
            let deleting = serde_json::from_slice::<Value>(&record.bytes)
                .is_ok_and(|o| object::is_deleting(&o));
            if deleting {
                continue;
            }
            let (namespace, name) = (
                record.key.namespace.to_string(),
                record.key.name.to_string(),
            );
            let ask = crate::run::Delete {
                resource: storage.clone(),
                namespace,
                name,
                uid: String::new(),
                grace: None,
                propagation: None,
            };
            if let Err(error) = client.delete(BY, ask).await {
                tracing::debug!(%storage, %error.message, "an object of a deleted definition is still there");
            }
        }
        return true;
    }
    let mut new = definition.clone();
    object::remove_finalizer(&mut new, CLEANUP);
    let words = "removed all instances";
    names::set(
        &mut new["status"],
        "Terminating",
        false,
        "InstanceDeletionCompleted",
        words,
        api.now(),
    );
    if let Err(error) = client.update(BY, STORAGE, "", new).await {
        tracing::debug!(definition = object::name(definition), %error.message, "finalizer not removed");
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_store::{Draft, Expect, Key, Options, Write};

    #[tokio::test]
    async fn a_kind_is_served_as_its_watches_tell_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let (kinds, served) = (Kinds::default(), "a.example.com/buoys");
        let key = || Key::new(STORAGE, "", "buoys.a.example.com");
        let definition = json!({"metadata": {"name": "buoys.a.example.com", "uid": "u", "resourceVersion": "@@"},
            "spec": {"group": "a.example.com", "scope": "Namespaced", "names": {"plural": "buoys", "kind": "Buoy"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"acceptedNames": {"plural": "buoys", "kind": "Buoy"},
                "conditions": [{"type": "Established", "status": "True"}]}});
        kinds.refresh(&store);
        for _ in 0..3 {
            assert!(kinds.now(&store).by_storage(served).is_none());
            let draft = Draft::from_marked(definition.to_string().as_bytes(), "@@").unwrap();
            store.write(Write::Put { key: key(), expect: Expect::Absent, draft }).await.unwrap();
            // Nothing but the store has been told.
            assert!(kinds.now(&store).by_storage(served).is_some());
            store.write(Write::Delete { key: key(), expect: Expect::Any, last: None }).await.unwrap();
        }
        assert!(kinds.now(&store).by_storage(served).is_none());
    }
}
