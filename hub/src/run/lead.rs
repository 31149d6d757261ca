//! Whether this hub leads: runs controllers, scheduler and the other things that only one may do.
//!
//! In: nothing for a hub alone, or the Lease `kube-system/limpet-hub` in the shared store. Out: a term; whoever acts for the
//! leader has the term checked in the very transaction of each write, so a leader that was replaced writes nothing any more.
//! Never: decides who leads; `hub-core::election` does.

use super::{
    apply::{Api, Patch},
    clock,
};
use limpet_hub_core::election::{Election, LEASE_S, RETRY_S, Seen, Step};
use limpet_store::{Check, Draft, Expect, Key, Revision, Store, Write};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

const LEASES: &str = "coordination.k8s.io/leases";
const NAMESPACE: &str = "kube-system";
const NAME: &str = "limpet-hub";
const BY: &str = "limpet-leader-election";
/// The record whose revision is the term.
const TERMS: &str = "limpet/terms";
const TERM: &str = "leader";

/// Whether this is the record of the term.
pub fn is_term(key: &Key) -> bool {
    *key.resource == *TERMS
}

/// Handle to the answer; clones share it.
#[derive(Clone)]
pub struct Lead {
    /// The term's revision; `None`: another hub leads, or nobody.
    term: Arc<watch::Sender<Option<Revision>>>,
    is_alone: bool,
}

impl Lead {
    /// There is one hub, and it leads.
    pub fn alone() -> Lead {
        Lead { term: Arc::new(watch::Sender::new(Some(0))), is_alone: true }
    }

    /// There may be more; `run` finds out.
    pub fn among() -> Lead {
        Lead { term: Arc::new(watch::Sender::new(None)), is_alone: false }
    }

    pub fn leads(&self) -> bool {
        self.term.borrow().is_some()
    }

    /// Changes with each term.
    pub fn terms(&self) -> watch::Receiver<Option<Revision>> {
        self.term.subscribe()
    }

    /// Whether this hub leads, as it changes; ends with the process.
    pub fn active(&self) -> watch::Receiver<bool> {
        let (tell, active) = watch::channel(self.leads());
        let mut terms = self.terms();
        tokio::spawn(async move {
            while terms.changed().await.is_ok() {
                tell.send_replace(terms.borrow_and_update().is_some());
            }
            // A hub alone leads for ever: somebody has to hold the other end.
            tell.closed().await;
        });
        active
    }

    /// Returns while this hub leads.
    pub async fn wait(&self) {
        // The sender lives as long as `self`.
        let _ = self.term.subscribe().wait_for(Option::is_some).await;
    }

    /// What must be true when the leader writes; nothing for a hub alone.
    pub fn check(&self) -> Option<Check> {
        let term = (*self.term.borrow()).unwrap_or(0);
        (!self.is_alone).then(|| Check { key: Key::new(TERMS, "", TERM), expect: Expect::Revision(term) })
    }

    /// Takes part in the election until the store is closed.
    pub async fn run(self, store: Store, api: Arc<dyn Api>, identity: String) {
        let mut election = Election::new(&identity);
        let mut turns = tokio::time::interval(Duration::from_secs(RETRY_S));
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            // A look that takes too long must not keep a leader from seeing that its time is over.
            let patience = Duration::from_secs(2 * RETRY_S);
            let outcome = tokio::time::timeout(patience, self.turn(&mut election, &store, &*api, &identity)).await;
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!("leader election: {why}"),
                Err(_) => tracing::warn!("leader election: the store does not answer"),
            }
            if self.leads() && !election.leads(clock::steady()) {
                tracing::warn!(identity, "this hub does not lead any more");
                self.term.send_replace(None);
            }
        }
    }

    async fn turn(
        &self,
        election: &mut Election,
        store: &Store,
        api: &dyn Api,
        identity: &str,
    ) -> Result<(), String> {
        let began = clock::steady();
        store.catch_up().await.map_err(|e| e.to_string())?;
        let seen = lease(store);
        let revision = seen.as_ref().map(|s| s.revision);
        match election.step(seen.as_ref(), began) {
            Step::Wait => Ok(()),
            Step::Renew => {
                write(api, revision, json!({"renewTime": micros()})).await?;
                election.written(began);
                Ok(())
            }
            Step::Acquire { transitions } => {
                let now = micros();
                let spec = json!({"holderIdentity": identity, "leaseDurationSeconds": LEASE_S, "acquireTime": now,
                    "renewTime": now, "leaseTransitions": transitions});
                let at = write(api, revision, spec).await?;
                let term = begin_term(store, at, identity).await?;
                election.written(began);
                tracing::info!(identity, term, "this hub leads");
                self.term.send_replace(Some(term));
                Ok(())
            }
        }
    }

    /// Gives the Lease back, so that another hub leads at once.
    pub async fn resign(&self, store: &Store, api: &dyn Api, identity: &str) {
        if self.is_alone || self.term.send_replace(None).is_none() {
            return;
        }
        let Some(seen) = lease(store).filter(|s| s.holder == identity) else { return };
        if let Err(why) = write(api, Some(seen.revision), json!({"holderIdentity": ""})).await {
            tracing::debug!("the lease was not given back: {why}");
        }
    }
}

fn lease(store: &Store) -> Option<Seen> {
    let record = store.get(&Key::new(LEASES, NAMESPACE, NAME))?;
    let object: Value = serde_json::from_slice(&record.bytes).ok()?;
    let spec = &object["spec"];
    Some(Seen {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().into(),
        revision: record.revision,
        transitions: spec["leaseTransitions"].as_i64().unwrap_or(0),
    })
}

fn micros() -> Value {
    let now = clock::now();
    json!(now.round(jiff::Unit::Microsecond).unwrap_or(now).to_string())
}

/// Creates the Lease, or changes the one of that revision.
async fn write(api: &dyn Api, revision: Option<Revision>, spec: Value) -> Result<Revision, String> {
    let answer = match revision {
        None => {
            let metadata = json!({"name": NAME, "namespace": NAMESPACE});
            let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
            api.create(BY, LEASES.into(), NAMESPACE.into(), object).await
        }
        Some(_) => {
            let ask = Patch {
                resource: LEASES.into(),
                namespace: NAMESPACE.into(),
                name: NAME.into(),
                uid: String::new(),
                resource_version: revision,
                subresource: None,
                merge: json!({"spec": spec}),
            };
            api.patch(BY, ask).await
        }
    };
    answer.map_err(|status| status.message)
}

/// The term begins only while the Lease is as this hub wrote it.
async fn begin_term(store: &Store, lease: Revision, identity: &str) -> Result<Revision, String> {
    let held = Check { key: Key::new(LEASES, NAMESPACE, NAME), expect: Expect::Revision(lease) };
    let draft = Draft::opaque(json!({"leader": identity}).to_string().into_bytes());
    let write = Write::Put { key: Key::new(TERMS, "", TERM), expect: Expect::Any, draft };
    let records = store.write_if(vec![held], vec![write]).await.map_err(|e| e.to_string())?;
    Ok(records.first().map_or(0, |r| r.revision))
}
