//! Admission: what the cluster adds to a write, and what it does not let in.
//!
//! In: a defaulted object on its way to the store. Out: the object with what was added, or a 403/404/422.
//! One file a rule, in the order in which they act. Never: authorizes, stores.

mod admin_access;
pub mod dynamic;
mod namespace;
mod node_features;
mod node_restriction;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod tolerations;

mod certificates;
mod escalation;
mod limits;

mod addresses;
mod kept;
mod quota;

pub use dynamic::Hooks;

use crate::{
    api::{Api, kinds, write::Ask},
    auth::User,
};
use limpet_objects::{custom, policy, resource::Resource, status::Status};
use limpet_store::{Draft, Expect, Key, Store, Write};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::MutexGuard;

/// Their status says whether their expressions fit the kinds that they name.
const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// To a pod, a Service or a node: exec, attach, port-forward, proxy.
    Connect,
}

/// One write, as the rules see it.
pub struct Review<'a> {
    pub api: &'a Arc<Api>,
    pub user: &'a User,
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty when the name is still to be generated.
    pub name: &'a str,
    pub object: &'a mut Value,
    pub old: Option<&'a Value>,
    pub warnings: Vec<String>,
}

impl<'a> Review<'a> {
    pub fn new(
        ask: &'a Ask,
        operation: Operation,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> Review<'a> {
        Review {
            api: &ask.api,
            user: &ask.user,
            operation,
            resource: &ask.target.resource,
            subresource: &ask.subresource,
            namespace: &ask.target.namespace,
            name: &ask.target.name,
            object,
            old,
            warnings: Vec::new(),
        }
    }

    /// Whether this is about objects of this storage id themselves.
    fn is(&self, storage: &str) -> bool {
        self.resource.storage == storage && self.subresource.is_empty()
    }

    fn creates(&self, storage: &str) -> bool {
        self.operation == Operation::Create && self.is(storage)
    }

    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.plural, self.name, why)
    }

    /// A stored object.
    fn stored(&self, storage: &str, namespace: &str, name: &str) -> Option<Value> {
        let record = self.api.store.get(&limpet_store::Key::new(storage, namespace, name))?;
        serde_json::from_slice(&record.bytes).ok()
    }
}

/// All rules that need nothing held.
pub async fn mutate(review: &mut Review<'_>) -> Result<(), Status> {
    namespace::admit(review)?;
    node_restriction::admit(review)?;
    if review.operation == Operation::Delete {
        return Ok(());
    }
    escalation::admit(review)?;
    certificates::admit(review)?;
    if review.creates("/pods") {
        service_account::admit(review).await?;
        priority::admit(review)?;
        runtime_class::admit(review)?;
        tolerations::admit(review);
        limits::admit(review)?;
    }
    node_features::admit(review)?;
    admin_access::admit(review)?;
    if review.is(limits::CLAIMS) {
        limits::admit_claim(review)?;
    }
    pod_security::admit(review)
}

pub use kept::Kept;

/// Keeps what was reserved until the object is stored.
#[derive(Default)]
pub struct Held<'a> {
    guards: Vec<Write>,
    _addresses: Option<MutexGuard<'a, ()>>,
    _quota: Option<MutexGuard<'a, Kept>>,
    _names: Option<MutexGuard<'a, ()>>,
}

/// Records that are written with whatever takes of something scarce. Of two hubs that decide at the same time, one finds that
/// its guard was changed, and decides again.
const GUARDS: &str = "limpet/guards";

/// Whether this is the record of a guard.
pub fn is_guard(key: &Key) -> bool {
    *key.resource == *GUARDS
}

impl Held<'_> {
    /// Takes a guard as it is now. What it guards is looked at afterwards. A hub alone has the locks, which do.
    fn guard(&mut self, store: &Store, namespace: &str, name: &str) {
        if !store.is_shared() {
            return;
        }
        let key = Key::new(GUARDS, namespace, name);
        let expect = store.get(&key).map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        self.guards.push(Write::Put { key, expect, draft: Draft::opaque(b"{}".to_vec()) });
    }

    pub fn guards(&self) -> impl Iterator<Item = Write> + '_ {
        self.guards.iter().cloned()
    }
}

/// Rules about what is scarce: they are held until the store has answered. `object` is valid already.
pub async fn reserve<'a>(ask: &'a Ask, object: &mut Value, old: Option<&Value>) -> Result<Held<'a>, Status> {
    let mut held = Held::default();
    if quota::applies(ask, old.is_none()) {
        let mut kept = ask.api.quota_lock().await;
        held.guard(&ask.api.store, &ask.target.namespace, "quota");
        quota::check(ask, object, old, &mut kept)?;
        held._quota = Some(kept);
    }
    if !ask.subresource.is_empty() {
        return Ok(held);
    }
    if ask.target.resource.storage == "/services" {
        held._addresses = Some(ask.api.address_lock().await);
        held.guard(&ask.api.store, "", "addresses");
        addresses::allocate(ask, object, old)?;
    }
    if ask.target.resource.storage == POLICIES {
        let conditions = old.map(|old| old["status"]["conditions"].clone()).filter(Value::is_array);
        object["status"] = policy::typecheck::status(object, &ask.api.kinds());
        // They are others'.
        if let Some(conditions) = conditions {
            object["status"]["conditions"] = conditions;
        }
    }
    if ask.target.resource.storage == custom::STORAGE {
        held._names = Some(ask.api.names_lock().await);
        held.guard(&ask.api.store, "", "names");
        object["status"] = kinds::status_of(&ask.api.store, object, ask.api.now());
    }
    Ok(held)
}
