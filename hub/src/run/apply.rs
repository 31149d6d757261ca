//! Carries out the core's changes, through the same path as requests of API clients.
//!
//! In: `Change`s, in order. Out: writes by way of `Api`, which the API server implements; waits until the view has
//! them. Changes of one sort that follow each other (a ReplicaSet's new pods) go at the same time and share fsyncs; what
//! is created goes in batches of 1, 2, 4 and so on, as upstream: where there is no room, few try.
//! Never: writes to the store by itself.

use super::{Lead, World, events::Recorder};
use futures_util::future::join_all;
use limpet_hub_core::{Change, Propagation};
use limpet_objects::status::Status;
use limpet_store::{Key, Revision, Store};
use serde_json::{Value, json};
use std::{future::Future, pin::Pin, sync::Arc};

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;

/// A merge patch with preconditions. `uid` empty: none.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: Option<u64>,
    pub subresource: Option<&'static str>,
    pub merge: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub grace: Option<i64>,
    pub propagation: Option<Propagation>,
}

/// What the hub's own parts ask of the API server, past authentication and authorization. `by` is the field manager.
/// Resources are store ids ("/pods", "apps/deployments"). Every answer is the revision after which the view has it.
pub trait Api: Send + Sync + 'static {
    fn create(&self, by: &'static str, resource: String, namespace: String, object: Value) -> Answer<'_, Revision>;
    fn patch(&self, by: &'static str, ask: Patch) -> Answer<'_, Revision>;
    fn delete(&self, by: &'static str, ask: Delete) -> Answer<'_, Revision>;
    /// pods/binding.
    fn bind(&self, by: &'static str, namespace: String, name: String, uid: String, node: String)
    -> Answer<'_, Revision>;
    /// serviceaccounts/token: a TokenRequest in, the same with its status out.
    fn token(&self, namespace: String, service_account: String, request: Value) -> Answer<'_, Value>;
}

/// A change that was not made, and why. `change` has lost its contents, only its names are left.
#[derive(Debug)]
pub struct Refused {
    pub status: Status,
    pub change: Change,
}

/// Changes of one sort that go at the same time.
const TOGETHER: usize = 32;

pub struct Applier {
    api: Arc<dyn Api>,
    store: Store,
    world: Arc<World>,
    events: Recorder,
    lead: Lead,
}

impl Applier {
    pub fn new(api: Arc<dyn Api>, store: Store, world: Arc<World>) -> Applier {
        Applier::of_leader(api, store, world, Lead::alone())
    }

    /// For those who act only while this hub leads; `api` has that checked with every write.
    pub fn of_leader(api: Arc<dyn Api>, store: Store, world: Arc<World>, lead: Lead) -> Applier {
        let events = Recorder::new(Arc::clone(&api));
        Applier { api, store, world, events, lead }
    }

    pub fn lead(&self) -> &Lead {
        &self.lead
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub fn api(&self) -> &Arc<dyn Api> {
        &self.api
    }

    pub fn events(&self) -> &Recorder {
        &self.events
    }

    /// Applies until one fails; then waits for the view, also after a failure.
    pub async fn apply(&self, by: &'static str, changes: Vec<Change>) -> Result<Revision, Status> {
        self.try_apply(by, changes).await.map_err(|refused| refused.status)
    }

    /// As `apply`, and says which change it was that failed.
    pub async fn try_apply(&self, by: &'static str, changes: Vec<Change>) -> Result<Revision, Refused> {
        let mut newest = 0;
        let mut outcome = Ok(());
        let mut creates = 1;
        let mut rest = changes.into_iter().peekable();
        while let Some(first) = rest.next() {
            let bound = match first {
                Change::Create { .. } => creates,
                _ => TOGETHER,
            };
            if matches!(first, Change::Create { .. }) {
                creates = TOGETHER.min(2 * creates);
            }
            let mut together = vec![first];
            while together.len() < bound
                && let Some(next) = rest.next_if(|next| same_sort(&together[0], next))
            {
                together.push(next);
            }
            let mut outlines: Vec<Change> = together.iter().map(outline).collect();
            let answers = join_all(together.into_iter().map(|c| self.one(by, c))).await;
            for (answer, change) in answers.into_iter().zip(outlines.drain(..)) {
                match answer {
                    Ok(revision) => newest = newest.max(revision),
                    Err(status) => outcome = Err(Refused { status, change }),
                }
            }
            if outcome.is_err() {
                break;
            }
        }
        self.world.reached(newest).await;
        outcome.map(|()| newest)
    }

    async fn one(&self, by: &'static str, change: Change) -> Result<Revision, Status> {
        match change {
            Change::Create { resource, namespace, object } => {
                let owner = controller(&object).map(String::from);
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let key = Key::new(resource.as_str(), &namespace, name);
                let again = Some(&object).filter(|o| resource == "/events" && o["count"].as_i64() > Some(1)).cloned();
                let answer = self.api.create(by, resource, namespace, object).await;
                match answer {
                    Err(status) if status.reason == "AlreadyExists" && again.is_some() => {
                        self.counted(by, &key, &again.unwrap_or_default()).await
                    }
                    Err(status) if status.reason == "AlreadyExists" => self.existing(&key, owner).ok_or(status),
                    other => other,
                }
            }
            Change::Patch { resource, namespace, name, uid, resource_version, subresource, merge } => {
                let ask = Patch { resource, namespace, name, uid, resource_version, subresource, merge };
                self.api.patch(by, ask).await
            }
            Change::Delete { resource, namespace, name, uid, grace, propagation } => {
                let ask = Delete { resource, namespace, name, uid, grace, propagation };
                match self.api.delete(by, ask).await {
                    Err(status) if status.code == 404 => Ok(self.store.revision()),
                    other => other,
                }
            }
            Change::Bind { namespace, name, uid, node } => self.api.bind(by, namespace, name, uid, node).await,
            Change::Event { regarding, type_, reason, message, component } => {
                self.events.record(&regarding, type_, &reason, &message, component).await;
                Ok(0)
            }
        }
    }

    /// A node's Event that was told before, and has happened again: the one that is there counts it. Another one of its name
    /// stays.
    async fn counted(&self, by: &'static str, key: &Key, event: &Value) -> Result<Revision, Status> {
        let record = self.store.get(key);
        let record = record.ok_or_else(|| Status::new(409, "Conflict", "the Event is gone, and comes with its next repetition"))?;
        let there: Value = serde_json::from_slice(&record.bytes).unwrap_or_default();
        let same = ["involvedObject", "source", "reason", "message"].iter().all(|field| there[field] == event[field]);
        if !same || there["count"].as_i64() >= event["count"].as_i64() {
            return Ok(record.revision);
        }
        let ask = Patch {
            resource: key.resource.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: String::new(),
            resource_version: None,
            subresource: None,
            merge: json!({"count": event["count"], "lastTimestamp": event["lastTimestamp"]}),
        };
        self.api.patch(by, ask).await
    }

    /// The revision of an object that is there already and belongs to the same controller.
    fn existing(&self, key: &Key, owner: Option<String>) -> Option<Revision> {
        let record = self.store.get(key)?;
        let object: Value = serde_json::from_slice(&record.bytes).ok()?;
        (controller(&object).map(String::from) == owner).then_some(record.revision)
    }
}

/// A change without its contents: enough to say what was refused.
fn outline(change: &Change) -> Change {
    match change {
        Change::Create { resource, namespace, object } => {
            let metadata = serde_json::json!({"name": object["metadata"]["name"]});
            let object = serde_json::json!({"metadata": metadata});
            Change::Create { resource: resource.clone(), namespace: namespace.clone(), object }
        }
        Change::Patch { resource, namespace, name, uid, resource_version, subresource, .. } => Change::Patch {
            resource: resource.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            resource_version: *resource_version,
            subresource: *subresource,
            merge: Value::Null,
        },
        other => other.clone(),
    }
}

fn same_sort(a: &Change, b: &Change) -> bool {
    match (a, b) {
        (Change::Create { resource: a, .. }, Change::Create { resource: b, .. })
        | (Change::Delete { resource: a, .. }, Change::Delete { resource: b, .. }) => a == b,
        (Change::Event { .. }, Change::Event { .. }) => true,
        _ => false,
    }
}

/// Uid of the controlling owner.
fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|o| o["controller"] == true)?["uid"].as_str()
}
