//! Empties a namespace that is being deleted, then lets it go.
//!
//! In: one Namespace with a deletion time. Out: deletes of all that is in it (pods first, KEP-5080), conditions that say
//! what remains, and at the end the finalizer `kubernetes` taken away through `finalize`.
//! Never: touches a namespace that is not being deleted.

use super::{Controller, common::set_status};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp, limits,
    view::{Condition, Kind, Namespace, Object, Pod, conditions},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

const FINALIZER: &str = "kubernetes";

#[derive(Debug)]
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &["*"]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let name = if changed.is::<Namespace>() { &changed.key.name } else { &changed.key.namespace };
        let going = view.get::<Namespace>("", name).is_some_and(|n| n.meta.deleting.is_some());
        if going { vec![Key::new(Namespace::RESOURCE, "", name)] } else { vec![] }
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(ns) = view.get::<Namespace>("", &key.name).filter(|n| n.meta.deleting.is_some()) else {
            return plan;
        };
        let left: Vec<(&str, &Object)> = view.in_namespace(&key.name).collect();
        if left.is_empty() {
            let finalizers: Vec<_> = ns.spec.finalizers.iter().filter(|f| &***f != FINALIZER).collect();
            if finalizers.len() < ns.spec.finalizers.len() {
                let patch = json!({"spec": {"finalizers": finalizers}});
                plan.patch(Namespace::RESOURCE, &ns.meta, Some("finalize"), patch);
            }
            return plan;
        }
        let pods_left = left.iter().any(|(r, _)| *r == Pod::RESOURCE);
        let now_due = left.iter().filter(|(r, _)| !pods_left || *r == Pod::RESOURCE);
        let waiting = now_due.filter(|(_, o)| o.meta().deleting.is_none());
        for (resource, object) in waiting.take(limits::DELETES_PER_STEP_MAX) {
            plan.delete(resource, object.meta());
        }
        say_what_remains(ns, &left, now, &mut plan);
        plan
    }
}

fn say_what_remains(ns: &Arc<Namespace>, left: &[(&str, &Object)], now: Timestamp, plan: &mut Plan) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (resource, object) in left {
        let (group, plural) = resource.split_once('/').unwrap_or(("", resource));
        *counts.entry(format!("{plural}.{group}")).or_insert(0) += 1;
        for f in &object.meta().finalizers {
            *finalizers.entry(f).or_insert(0) += 1;
        }
    }
    let list: Vec<String> = counts.iter().map(|(r, n)| format!("{r} has {n} resource instances")).collect();
    let held: Vec<String> =
        finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let mut all = Vec::new();
    let mut say = |type_: &str, on: bool, reason: &str, message: String| {
        all.push(Condition::new(type_, on, reason, message, now));
    };
    say(
        "NamespaceDeletionDiscoveryFailure",
        false,
        "ResourcesDiscovered",
        "All resources successfully discovered".into(),
    );
    say(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed".into(),
    );
    let deleted = "All content successfully deleted, may be waiting on finalization";
    say("NamespaceDeletionContentFailure", false, "ContentDeleted", deleted.into());
    let message = format!("Some resources are remaining: {}", list.join(", "));
    say("NamespaceContentRemaining", true, "SomeResourcesRemain", message);
    if held.is_empty() {
        let message = "All content-preserving finalizers finished";
        say("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", message.into());
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
        say("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message);
    }
    let old = ns.field("/status/conditions");
    let old: Vec<Condition> = serde_json::from_value(old).unwrap_or_default();
    for c in &mut all {
        if let Some(before) = conditions::find(&old, &c.type_).filter(|o| o.status == c.status) {
            c.since = before.since;
        }
    }
    let mut status = ns.field("/status");
    status["conditions"] = conditions::to_value(&all);
    set_status(plan, ns, status);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    /// Pods go before everything else: what they mount and who speaks for them stays until they have ended.
    #[test]
    fn pods_go_first_and_conditions_say_what_is_left() {
        let mut w = World::with_nodes(1);
        w.create("/namespaces", json!({"metadata": {"name": "a"}}));
        w.create("/configmaps", json!({"metadata": {"name": "m", "namespace": "a"}}));
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "finalizers": ["x.io/hold"]}, "spec": {"nodeName": "n0"}});
        w.create("/pods", pod);
        w.settle();
        w.delete("/namespaces", "", "a");
        w.settle();
        assert!(w.exists("/configmaps", "a", "m"), "the pod has not ended");
        let said = |w: &World| -> Vec<String> {
            let all = w.get("/namespaces", "", "a")["status"]["conditions"].as_array().unwrap().clone();
            let one = |c: &serde_json::Value| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "");
            all.iter().map(one).collect()
        };
        assert_eq!(said(&w), [
            "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered",
            "NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions",
            "NamespaceDeletionContentFailure=False ContentDeleted",
            "NamespaceContentRemaining=True SomeResourcesRemain",
            "NamespaceFinalizersRemaining=True SomeFinalizersRemain",
        ]);
        let message = w.get("/namespaces", "", "a")["status"]["conditions"][4]["message"].clone();
        assert_eq!(message, "Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances");
        w.patch("/pods", "a", "p", json!({"metadata": {"finalizers": null}}));
        w.settle();
        assert!(!w.exists("/namespaces", "", "a") && !w.exists("/configmaps", "a", "m"));
    }

    /// Another finalizer of the spec keeps the namespace after it is empty.
    #[test]
    fn other_finalizers_of_the_spec_are_for_others() {
        let mut w = World::new();
        w.create("/namespaces", json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes", "x.io/own"]}}));
        w.settle();
        w.delete("/namespaces", "", "a");
        w.settle();
        assert_eq!(w.get("/namespaces", "", "a")["spec"]["finalizers"], json!(["x.io/own"]));
        assert_eq!(w.list("/serviceaccounts").len() + w.list("/configmaps").len(), 0);
        w.patch("/namespaces", "", "a", json!({"spec": {"finalizers": []}}));
        assert!(!w.exists("/namespaces", "", "a"));
    }

    #[test]
    fn a_namespace_goes_with_all_that_is_in_it() {
        let mut w = World::with_nodes(1);
        w.create("/namespaces", json!({"metadata": {"name": "a"}}));
        w.create(
            "apps/deployments",
            json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {}}}}),
        );
        w.create(
            "x.io/things",
            json!({"metadata": {"name": "t", "namespace": "a", "finalizers": ["x.io/hold"]}}),
        );
        w.settle();
        w.delete("/namespaces", "", "a");
        w.settle();
        let status = &w.get("/namespaces", "", "a")["status"];
        assert_eq!(status["phase"], "Terminating");
        let remaining = &status["conditions"][3];
        assert_eq!(
            remaining["message"],
            "Some resources are remaining: things.x.io has 1 resource instances"
        );
        assert_eq!(w.list("apps/deployments").len() + w.list("/pods").len(), 0);
        w.patch("x.io/things", "a", "t", json!({"metadata": {"finalizers": null}}));
        w.settle();
        assert!(!w.exists("/namespaces", "", "a"));
        assert!(w.exists("/nodes", "", "n0"));
    }
}
