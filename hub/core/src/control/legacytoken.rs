//! Ends ServiceAccount tokens in Secrets that were made long ago for the account and that nobody uses.
//!
//! In: one Secret of type `kubernetes.io/service-account-token`, its account, the pods that mount it, and since when uses are
//! noted. Out: the label that makes it invalid, a year without use later; its deletion, another year later.
//! Source: kube-controller-manager's legacy ServiceAccount token cleaner. Never: touches a Secret that somebody made by hand.

use super::{Controller, common::after};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{ConfigMap, Kind, Pod, PodRef, Secret, ServiceAccount},
};
use jiff::{civil::Date, tz::TimeZone};
use serde_json::json;

pub const TYPE: &str = "kubernetes.io/service-account-token";
pub const ACCOUNT: &str = "kubernetes.io/service-account.name";
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server says since when it notes uses.
pub const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const DAY_S: i64 = 86_400;
const UNUSED_S: i64 = 365 * DAY_S;

#[derive(Debug)]
pub struct LegacyTokenCleaner;

impl Controller for LegacyTokenCleaner {
    fn name(&self) -> &'static str {
        "legacy-serviceaccount-token-cleaner-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Secret::RESOURCE]
    }

    fn keys_for(&self, _view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let token = changed.new_as::<Secret>().is_some_and(|s| &*s.type_ == TYPE);
        if token { vec![changed.key.clone()] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let secret = view.get::<Secret>(&key.namespace, &key.name);
        let Some(secret) = secret.filter(|s| &*s.type_ == TYPE && s.meta.deleting.is_none()) else { return plan };
        plan.wake_at(after(now, DAY_S));
        let long_ago = after(now, -UNUSED_S);
        // Uses are noted from some moment of that day on.
        let tracked = tracked_since(view).is_some_and(|since| after(since, DAY_S) <= long_ago);
        if !tracked || secret.meta.created_at() >= long_ago || !is_generated(view, secret) || is_mounted(view, secret) {
            return plan;
        }
        let day = |label: &str| secret.meta.labels.get(label).and_then(date);
        let invalid = day(INVALID_SINCE).filter(|since| *since <= now);
        if day(LAST_USED).is_some_and(|used| used >= long_ago) {
            if secret.meta.labels.contains_key(INVALID_SINCE) {
                let labels = json!({"metadata": {"labels": {INVALID_SINCE: null}}});
                plan.patch_exact(Secret::RESOURCE, &secret.meta, None, labels);
            }
        } else if let Some(since) = invalid {
            if since < long_ago {
                plan.because("Unused", format!("the token {key} has been invalid since {since}"));
                plan.delete(Secret::RESOURCE, &secret.meta);
            }
        } else {
            plan.because("Unused", format!("nobody used the token {key} for a year"));
            let today = now.strftime("%Y-%m-%d").to_string();
            let labels = json!({"metadata": {"labels": {INVALID_SINCE: today}}});
            plan.patch_exact(Secret::RESOURCE, &secret.meta, None, labels);
        }
        plan
    }
}

fn date(text: &str) -> Option<Timestamp> {
    Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn tracked_since(view: &ObjectStore) -> Option<Timestamp> {
    date(view.get::<ConfigMap>(TRACKING.0, TRACKING.1)?.field("/data/since").as_str()?)
}

/// Whether the account lists it: then it was made for it, in times when every account had one.
fn is_generated(view: &ObjectStore, secret: &Secret) -> bool {
    let Some(account) = secret.meta.annotations.get(ACCOUNT) else { return false };
    let account = view.get::<ServiceAccount>(&secret.meta.namespace, account);
    let listed = account.map(|a| a.field("/secrets")).unwrap_or_default();
    listed.as_array().into_iter().flatten().any(|s| s["name"] == *secret.meta.name)
}

fn is_mounted(view: &ObjectStore, secret: &Secret) -> bool {
    let wanted = PodRef::Secret(secret.meta.name.clone());
    view.list::<Pod>(&secret.meta.namespace).any(|p| p.spec.refs.contains(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::Value;

    const YEAR: i64 = 366 * DAY_S;

    fn world() -> World {
        let mut w = World::new();
        w.create("/configmaps", json!({"metadata": {"name": TRACKING.1, "namespace": TRACKING.0},
            "data": {"since": "2026-11-23"}}));
        w.create("/serviceaccounts", json!({"metadata": {"name": "sa", "namespace": "a"},
            "secrets": [{"name": "old"}, {"name": "used"}, {"name": "mounted"}]}));
        for name in ["old", "used", "mounted", "by-hand"] {
            w.create("/secrets", json!({"metadata": {"name": name, "namespace": "a", "annotations": {ACCOUNT: "sa"}},
                "type": TYPE}));
        }
        let volume = json!([{"name": "v", "secret": {"secretName": "mounted"}}]);
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"volumes": volume}}));
        w.settle();
        w
    }

    fn label(w: &World, name: &str) -> Value {
        w.get("/secrets", "a", name)["metadata"]["labels"][INVALID_SINCE].clone()
    }

    #[test]
    fn what_nobody_uses_becomes_invalid_and_then_goes() {
        let mut w = world();
        w.pass(YEAR - 3 * DAY_S);
        assert_eq!(label(&w, "old"), Value::Null);
        w.patch("/secrets", "a", "used", json!({"metadata": {"labels": {LAST_USED: "2027-11-20"}}}));
        w.pass(4 * DAY_S);
        assert_eq!(label(&w, "old").as_str().map(|d| &d[..7]), Some("2027-11"));
        assert_eq!((label(&w, "used"), label(&w, "mounted"), label(&w, "by-hand")), (Value::Null, Value::Null, Value::Null));
        w.patch("/secrets", "a", "old", json!({"metadata": {"labels": {LAST_USED: "2027-11-25"}}}));
        w.settle();
        assert_eq!(label(&w, "old"), Value::Null, "used again");
        w.pass(YEAR);
        assert!(label(&w, "old").is_string());
        w.pass(YEAR);
        let left: Vec<Value> = w.list("/secrets").iter().map(|s| s["metadata"]["name"].clone()).collect();
        assert_eq!(left, ["by-hand", "mounted"], "a year after it became invalid");
    }

    #[test]
    fn nothing_is_judged_before_uses_were_noted_for_long_enough() {
        let mut w = world();
        w.delete("/configmaps", TRACKING.0, TRACKING.1);
        w.pass(2 * YEAR);
        assert_eq!((w.list("/secrets").len(), label(&w, "old")), (4, Value::Null));
    }
}
