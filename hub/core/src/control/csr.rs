//! Forgets CertificateSigningRequests that are over.
//!
//! In: one request. Out: its deletion, an hour after it was answered, a day after it was made.
//! Source: kube-controller-manager's certificate cleaner. Never: approves or signs (the signer is `hub/run/signer`).

use super::{Controller, common::after};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{CertificateSigningRequest, Kind},
};

const ANSWERED_S: i64 = 3600;
const PENDING_S: i64 = 24 * 3600;

#[derive(Debug)]
pub struct CertificateCleaner;

impl Controller for CertificateCleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[CertificateSigningRequest::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        if changed.new.is_some() { vec![changed.key.clone()] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(csr) = view.get::<CertificateSigningRequest>("", &key.name) else { return plan };
        if csr.meta.deleting.is_some() {
            return plan;
        }
        let conditions = csr.field("/status/conditions");
        let answered = conditions.as_array().into_iter().flatten().filter_map(|c| {
            let at = c["lastUpdateTime"].as_str().or(c["lastTransitionTime"].as_str())?;
            at.parse::<Timestamp>().ok()
        });
        let due = match answered.max() {
            Some(at) => after(at, ANSWERED_S),
            None if conditions.as_array().is_some_and(|c| !c.is_empty()) => after(csr.meta.created_at(), ANSWERED_S),
            None => after(csr.meta.created_at(), PENDING_S),
        };
        if due > now {
            plan.wake_at(due);
        } else {
            plan.because("Over", "the request was answered, or waited, long ago");
            plan.delete(CertificateSigningRequest::RESOURCE, &csr.meta);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use crate::{view::conditions::rfc3339, world::World};
    use serde_json::json;

    const CSRS: &str = "certificates.k8s.io/certificatesigningrequests";

    #[test]
    fn requests_are_forgotten_after_their_answer_or_a_day() {
        let mut w = World::new();
        for name in ["approved", "denied", "waiting"] {
            w.create(CSRS, json!({"metadata": {"name": name}, "spec": {"signerName": "x.io/y"}}));
        }
        w.pass(1000);
        for (name, type_) in [("approved", "Approved"), ("denied", "Denied")] {
            let condition = json!({"type": type_, "status": "True", "lastUpdateTime": rfc3339(w.now)});
            w.patch(CSRS, "", name, json!({"status": {"conditions": [condition]}}));
        }
        w.pass(3599);
        assert_eq!(w.list(CSRS).len(), 3);
        w.pass(2);
        assert_eq!(w.list(CSRS).len(), 1);
        w.pass(24 * 3600);
        assert!(w.list(CSRS).is_empty());
    }
}
