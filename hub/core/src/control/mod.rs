//! The controllers: each makes the world a little more like its object's spec.
//!
//! In: the view and a key. Out: a plan. The shell's part of the contract: it loads the whole store into the view
//! before the first reconcile, applies a plan, and feeds the resulting events to the view before it reconciles the
//! same key again (read your writes); so no controller has to remember what it did.
//! Never: a plan at a fixed point, but for an Event that says again what was said (it is counted, not written anew).

mod common;
pub(crate) mod cron;
mod history;

mod autoscaler;
mod cronjob;
mod daemonset;
mod deployment;
mod endpoints;
mod job;
mod replicaset;
mod statefulset;

pub mod accounttoken;
mod address;
mod bootstrap;
mod budget;
mod clusterrole;
mod csr;
mod devicetaints;
mod absence;
mod fleet;
mod gc;
pub mod legacytoken;
mod link;
mod namespace;
mod nodepool;
mod podgc;
mod resourceclaim;
mod resourcequota;
mod serviceaccount;
mod taints;
mod token;
mod volumes;

pub use autoscaler::{Container, Figure, Metrics, NoMetrics, Usage};

use crate::{Change, Changed, Key, ObjectStore, Plan, Timestamp, clocks::{NeverSet, WallClock}};
use std::sync::Arc;
pub use absence::{LOST_SINCE, Policy, Reconcile, complaints, is_lost, most_are_away};
pub use fleet::{AGENT_VERSION, LOCK as UPDATE_LOCK, device_lock, waits_for};
pub use nodepool::{pool_of, pools_that_want};
pub(crate) use resourceclaim::FINALIZER as CLAIM_FINALIZER;
pub use volumes::local as local_volume;

/// One controller. `reconcile` for an object that no longer exists gives an empty plan.
pub trait Controller: Send + Sync {
    /// Name in logs, metrics and `source.component` of Events, e.g. `deployment-controller`.
    fn name(&self) -> &'static str;
    /// Resources whose events wake it; `*` stands for all.
    fn resources(&self) -> &'static [&'static str];
    /// What to reconcile because of an event. The view already holds the new state.
    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key>;
    /// `seed`: random, new for each call; only names are made of it.
    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, seed: u64) -> Plan;
    /// What to say when the API refused a change of this key's plan (quota, admission, invalid): Events, conditions.
    fn refused(&self, view: &ObjectStore, key: &Key, change: &Change, error: &str, now: Timestamp) -> Plan {
        let _ = (view, key, change, error, now);
        Plan::default()
    }
}

/// What controllers need to know that is not in the store.
#[derive(Clone)]
pub struct Settings {
    /// PEM of the hub's CA, for `kube-root-ca.crt`.
    pub ca_pem: String,
    /// A kubeconfig with the hub's address and CA and without a user, for `cluster-info`. Empty: none.
    pub cluster_info: String,
    /// Signs tokens of ServiceAccounts.
    pub tokens: Arc<dyn accounttoken::TokenSigner>,
    /// What pods use, for autoscalers.
    pub metrics: Arc<dyn Metrics>,
    /// Whether the wall clock can be trusted with waits.
    pub clock: Arc<dyn WallClock>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ca_pem: String::new(),
            cluster_info: String::new(),
            tokens: Arc::new(accounttoken::NoSigner),
            metrics: Arc::new(NoMetrics),
            clock: Arc::new(NeverSet),
        }
    }
}

/// The controller of budgets alone, for tests that look at one plan.
#[cfg(test)]
pub fn budgets() -> impl Controller {
    budget::BudgetController
}

/// The board that a daemon pod is on or is meant for.
#[cfg(test)]
pub fn node_of_daemon(pod: &crate::view::Pod) -> Option<&str> {
    daemonset::node_of(pod)
}

/// All controllers, in no particular order.
pub fn all(settings: &Settings) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(deployment::DeploymentController),
        Box::new(replicaset::ReplicaSetController::new()),
        Box::new(replicaset::ReplicationControllerController::new()),
        Box::new(daemonset::DaemonSetController::default()),
        Box::new(statefulset::StatefulSetController),
        Box::new(job::JobController),
        Box::new(cronjob::CronJobController),
        Box::new(endpoints::EndpointsController),
        Box::new(autoscaler::AutoscalerController::new(Arc::clone(&settings.metrics))),
        Box::new(endpoints::EndpointsMirroring),
        Box::new(address::AddressController),
        Box::new(csr::CertificateCleaner),
        Box::new(token::TokenCleaner),
        Box::new(bootstrap::BootstrapSigner { kubeconfig: settings.cluster_info.clone() }),
        Box::new(legacytoken::LegacyTokenCleaner),
        Box::new(accounttoken::AccountTokens {
            signer: Arc::clone(&settings.tokens),
            ca_pem: settings.ca_pem.clone(),
        }),
        Box::new(resourceclaim::ResourceClaimController),
        Box::new(budget::BudgetController),
        Box::new(resourcequota::ResourceQuotaController),
        Box::new(clusterrole::ClusterRoleAggregation),
        Box::new(volumes::ClaimController),
        Box::new(volumes::VolumeController),
        Box::new(volumes::ClaimProtection),
        Box::new(volumes::VolumeProtection),
        Box::new(volumes::EphemeralVolumes),
        Box::new(namespace::NamespaceController),
        Box::new(serviceaccount::ServiceAccountController { ca_pem: settings.ca_pem.clone() }),
        Box::new(gc::GarbageCollector),
        Box::new(podgc::PodGarbageCollector::default()),
        Box::new(taints::TaintEviction::default()),
        Box::new(devicetaints::DeviceTaintEviction),
        Box::new(absence::AbsenceController { clock: Arc::clone(&settings.clock) }),
        Box::new(nodepool::NodePoolController),
        Box::new(link::LinkPolicyController),
        Box::new(fleet::FleetRolloutController { clock: Arc::clone(&settings.clock) }),
    ]
}
