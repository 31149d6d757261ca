//! What a namespace uses of the resources that a ResourceQuota can limit.
//!
//! In: the view, a namespace, the quota. Out: an amount for each limited resource. Pods that ended use no compute.
//! Semantics: https://kubernetes.io/docs/concepts/policy/resource-quotas/
//! Never: reads a pod's bytes, unless the quota asks for its priority class.

use crate::view::{
    ObjectStore, PersistentVolumeClaim, Pod, Requests, ResourceQuota, Service,
};
use limpet_objects::quantity::{Format, Quantity};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Resources of the core group that may be limited by their plain name.
const PLAIN: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// `status.used`: every resource of `spec.hard` with what is used of it.
pub fn used(view: &ObjectStore, quota: &ResourceQuota) -> Map<String, Value> {
    let spec = quota.field("/spec");
    let namespace = &*quota.meta.namespace;
    let pods: Vec<&Arc<Pod>> = view.list::<Pod>(namespace).filter(|p| in_scope(&spec, p)).collect();
    let names = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    names.map(|name| (name.to_owned(), Value::from(one(view, namespace, &pods, name).to_string()))).collect()
}

fn one(view: &ObjectStore, namespace: &str, pods: &[&Arc<Pod>], name: &str) -> Quantity {
    let number = |n: usize| Quantity::from_value_of(n as i64, Format::DecimalSi);
    if let Some(counted) = name.strip_prefix("count/") {
        return match counted {
            "pods" => number(pods.len()),
            _ => number(view.count_in(&storage_of(counted), namespace)),
        };
    }
    if let Some((class, what)) = name.split_once(OF_CLASS) {
        let claims = view.list::<PersistentVolumeClaim>(namespace);
        return claims_of(claims.filter(|c| c.spec.storage_class_name.as_deref() == Some(class)), what);
    }
    match name {
        "pods" => number(pods.iter().filter(|p| !p.is_finished()).count()),
        "services.loadbalancers" => number(services(view, namespace, |s| usize::from(is(s, "LoadBalancer")))),
        "services.nodeports" => number(services(view, namespace, node_ports)),
        "requests.storage" => claims_of(view.list::<PersistentVolumeClaim>(namespace), name),
        _ if PLAIN.contains(&name) => number(view.count_in(&format!("/{name}"), namespace)),
        _ => compute(pods, name),
    }
}

/// `jobs.batch` is stored as `batch/jobs`.
fn storage_of(counted: &str) -> String {
    let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
    format!("{group}/{plural}")
}

fn claims_of<'a>(claims: impl Iterator<Item = &'a Arc<PersistentVolumeClaim>>, what: &str) -> Quantity {
    match what {
        "persistentvolumeclaims" => Quantity::from_value_of(claims.count() as i64, Format::DecimalSi),
        _ => {
            let sizes = claims.map(|c| c.spec.resources.requests.get("storage"));
            Quantity::from_bytes(sizes.fold(0, i64::saturating_add))
        }
    }
}

fn is(service: &Service, type_: &str) -> bool {
    &*service.spec.type_ == type_
}

fn node_ports(service: &Service) -> usize {
    if is(service, "NodePort") || is(service, "LoadBalancer") { service.spec.ports.len() } else { 0 }
}

fn services(view: &ObjectStore, namespace: &str, of: impl Fn(&Service) -> usize) -> usize {
    view.list::<Service>(namespace).map(|s| of(s)).sum()
}

/// `cpu`, `requests.cpu`, `limits.memory`, `requests.vendor.com/gpu`, `hugepages-2Mi`.
fn compute(pods: &[&Arc<Pod>], name: &str) -> Quantity {
    let (of_limits, resource) = match name.split_once('.') {
        Some(("limits", resource)) => (true, resource),
        Some(("requests", resource)) => (false, resource),
        _ => (false, name),
    };
    let alive = pods.iter().filter(|p| !p.is_finished());
    let amount = |r: &Requests| r.get(resource);
    let sum = alive.fold(0_i64, |sum, p| {
        let own = if of_limits { p.spec.limits.as_deref().map_or(0, amount) } else { amount(&p.spec.requests) };
        sum.saturating_add(own)
    });
    match resource {
        "cpu" => Quantity::from_milli(sum),
        "memory" | "ephemeral-storage" => Quantity::from_bytes(sum),
        _ if resource.starts_with("hugepages-") => Quantity::from_bytes(sum),
        _ => Quantity::from_value_of(sum, Format::DecimalSi),
    }
}

/// Whether a quota counts a pod: it fits all scopes.
fn in_scope(spec: &Value, pod: &Pod) -> bool {
    let scopes = spec["scopes"].as_array().into_iter().flatten();
    let plain = scopes.map(|s| (s.as_str().unwrap_or_default(), "Exists", &Value::Null));
    let chosen = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        (e["scopeName"].as_str().unwrap_or_default(), e["operator"].as_str().unwrap_or("Exists"), &e["values"])
    });
    plain.chain(chosen).all(|(scope, operator, values)| fits(pod, scope, operator, values))
}

fn fits(pod: &Pod, scope: &str, operator: &str, values: &Value) -> bool {
    let best_effort = pod.spec.requests.is_empty() && pod.spec.limits.is_none();
    match scope {
        "Terminating" => pod.spec.active_deadline_s.is_some(),
        "NotTerminating" => pod.spec.active_deadline_s.is_none(),
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        "PriorityClass" => {
            let class = pod.field("/spec/priorityClassName");
            let class = class.as_str().unwrap_or_default();
            let listed = || values.as_array().is_some_and(|v| v.iter().any(|x| x == class));
            match operator {
                "In" => listed(),
                "NotIn" => !listed(),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = &pod.spec.affinity else { return false };
    let sides = affinity.pod_affinity.iter().chain(&affinity.pod_anti_affinity);
    let terms = sides.flat_map(|s| s.required.iter().chain(s.preferred.iter().map(|p| &p.pod_affinity_term)));
    terms.into_iter().any(|t| !t.namespaces.is_empty() || t.namespace_selector.is_some())
}

/// What of an object a quota can see: two equal ones use the same.
#[derive(PartialEq)]
pub enum Charge<'a> {
    Pod { ended: bool, requests: &'a Requests, limits: Option<&'a Requests>, deadline: bool },
    Claim { size: i64, class: Option<&'a str> },
    Service { type_: &'a str, ports: usize },
    One,
}

/// The charge of an object of the view.
pub fn charge(object: &crate::view::Object) -> Charge<'_> {
    use crate::view::Object;
    match object {
        Object::Pod(p) => Charge::Pod {
            ended: p.is_finished(),
            requests: &p.spec.requests,
            limits: p.spec.limits.as_deref(),
            deadline: p.spec.active_deadline_s.is_some(),
        },
        Object::PersistentVolumeClaim(c) => {
            Charge::Claim { size: c.spec.resources.requests.get("storage"), class: c.spec.storage_class_name.as_deref() }
        }
        Object::Service(s) => Charge::Service { type_: &s.spec.type_, ports: s.spec.ports.len() },
        _ => Charge::One,
    }
}
