//! What a namespace uses of the resources that a ResourceQuota can limit.
//!
//! In: the view, a namespace, the quota; or one object. Out: an amount for each limited resource. Pods that ended use
//! no compute. Admission and the quota's status count with the same functions.
//! Semantics: https://kubernetes.io/docs/concepts/policy/resource-quotas/
//! Never: reads an object's bytes, unless the quota asks for its class.

use crate::view::{
    Object, ObjectStore, PersistentVolumeClaim, Pod, Requests, ResourceQuota, Service,
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
    let claims: Vec<&Arc<PersistentVolumeClaim>> =
        view.list::<PersistentVolumeClaim>(namespace).filter(|c| claim_in_scope(&spec, c)).collect();
    let amount = |name: &str| {
        if let Some(amount) = of_pods(&pods, name).or_else(|| of_claims(&claims, name)) {
            return amount;
        }
        match name {
            // What has no scope is seen by quotas without one only.
            _ if is_scoped(&spec) => Quantity::ZERO,
            "services.loadbalancers" => number(services(view, namespace, |s| usize::from(is(s, "LoadBalancer")))),
            "services.nodeports" => number(services(view, namespace, node_ports)),
            _ => counted(name).map_or(Quantity::ZERO, |storage| number(view.count_in(&storage, namespace))),
        }
    };
    let names = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    names.map(|name| (name.to_owned(), Value::from(amount(name).to_string()))).collect()
}

/// What one object of a resource takes of one of a quota's resources: nothing, where the quota does not see it.
pub fn takes(spec: &Value, resource: &str, object: &Object, name: &str) -> Quantity {
    let nothing = Quantity::ZERO;
    match object {
        Object::Pod(pod) if in_scope(spec, pod) => of_pods(&[pod], name).unwrap_or(nothing),
        Object::PersistentVolumeClaim(claim) if claim_in_scope(spec, claim) => {
            of_claims(&[claim], name).unwrap_or(nothing)
        }
        Object::Pod(_) | Object::PersistentVolumeClaim(_) => nothing,
        _ if is_scoped(spec) => nothing,
        Object::Service(service) if name == "services.loadbalancers" => {
            number(usize::from(is(service, "LoadBalancer")))
        }
        Object::Service(service) if name == "services.nodeports" => number(node_ports(service)),
        _ if counted(name).is_some_and(|storage| storage == resource) => number(1),
        _ => nothing,
    }
}

/// Whether a quota sees a pod at all.
pub fn sees(spec: &Value, object: &Object) -> bool {
    matches!(object, Object::Pod(pod) if in_scope(spec, pod))
}

fn number(n: usize) -> Quantity {
    Quantity::from_value_of(n as i64, Format::DecimalSi)
}

fn is_scoped(spec: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|l| !l.is_empty());
    some(&spec["scopes"]) || some(&spec["scopeSelector"]["matchExpressions"])
}

/// The storage id of the resource whose objects a name counts.
fn counted(name: &str) -> Option<String> {
    match name.strip_prefix("count/") {
        Some(counted) => Some(storage_of(counted)),
        None => PLAIN.contains(&name).then(|| format!("/{name}")),
    }
}

/// `None`: not about pods.
fn of_pods(pods: &[&Arc<Pod>], name: &str) -> Option<Quantity> {
    match name {
        "count/pods" => Some(number(pods.len())),
        "pods" => Some(number(pods.iter().filter(|p| !p.is_finished()).count())),
        "requests.storage" | "services.loadbalancers" | "services.nodeports" => None,
        _ if counted(name).is_some() || name.contains(OF_CLASS) => None,
        _ => Some(compute(pods, name)),
    }
}

/// `None`: not about claims.
fn of_claims(claims: &[&Arc<PersistentVolumeClaim>], name: &str) -> Option<Quantity> {
    if let Some((class, what)) = name.split_once(OF_CLASS) {
        let of_class = claims.iter().filter(|c| c.spec.storage_class_name.as_deref() == Some(class));
        return Some(sum_of_claims(of_class.copied(), what));
    }
    match name {
        "persistentvolumeclaims" | "count/persistentvolumeclaims" => Some(number(claims.len())),
        "requests.storage" => Some(sum_of_claims(claims.iter().copied(), name)),
        _ => None,
    }
}

/// `jobs.batch` is stored as `batch/jobs`.
fn storage_of(counted: &str) -> String {
    let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
    format!("{group}/{plural}")
}

fn sum_of_claims<'a>(claims: impl Iterator<Item = &'a Arc<PersistentVolumeClaim>>, what: &str) -> Quantity {
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

/// The scopes of a quota: (scope, operator, values).
fn scopes(spec: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|s| (s.as_str().unwrap_or_default(), "Exists", &Value::Null));
    let chosen = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        (e["scopeName"].as_str().unwrap_or_default(), e["operator"].as_str().unwrap_or("Exists"), &e["values"])
    });
    plain.chain(chosen)
}

/// Whether a quota counts a pod: it fits all scopes.
fn in_scope(spec: &Value, pod: &Pod) -> bool {
    scopes(spec).all(|(scope, operator, values)| fits(pod, scope, operator, values))
}

/// The only scope that knows claims is that of their VolumeAttributesClass.
fn claim_in_scope(spec: &Value, claim: &PersistentVolumeClaim) -> bool {
    scopes(spec).all(|(scope, operator, values)| {
        let class = || claim.field("/spec/volumeAttributesClassName");
        scope == "VolumeAttributesClass" && is_named(class().as_str().unwrap_or_default(), operator, values)
    })
}

fn is_named(class: &str, operator: &str, values: &Value) -> bool {
    let listed = || values.as_array().is_some_and(|v| v.iter().any(|x| x == class));
    match operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "DoesNotExist" => class.is_empty(),
        _ => !class.is_empty(),
    }
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
            is_named(class.as_str().unwrap_or_default(), operator, values)
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
pub fn charge(object: &Object) -> Charge<'_> {
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
