//! Keeps EndpointSlices and Endpoints of Services with selectors.
//!
//! In: one Service and the pods that it selects. Out: slices of up to 100 endpoints with ready, serving and
//! terminating, and the older Endpoints object. Endpoints stay in the slice where they are.
//! Semantics: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
//! Never: touches endpoints that somebody else keeps (Services without selector).

mod legacy;
mod mirror;
mod slices;

pub use mirror::EndpointsMirroring;

use super::{Controller, common::is_terminating};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{EndpointSlice, Endpoints, IntOrString, Kind, Labels, Pod, Service, ServicePort},
};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";

#[derive(Debug)]
pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Service::RESOURCE, Pod::RESOURCE, EndpointSlice::RESOURCE, Endpoints::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let service = |name: &str| Key::new(Service::RESOURCE, &changed.key.namespace, name);
        if changed.is::<Service>() {
            return vec![changed.key.clone()];
        }
        if changed.is::<Endpoints>() {
            return vec![service(&changed.key.name)];
        }
        if changed.is::<EndpointSlice>() {
            return changed.metas().filter_map(|m| m.labels.get(SERVICE_NAME)).map(service).collect();
        }
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        if old.zip(new).is_some_and(|(o, n)| o.meta.labels == n.meta.labels && looks(o) == looks(n)) {
            return vec![];
        }
        let selects = |s: &&std::sync::Arc<Service>| {
            [old, new].into_iter().flatten().any(|p| is_kept(s) && selected(s, &p.meta.labels))
        };
        view.list::<Service>(&changed.key.namespace).filter(selects).map(|s| service(&s.meta.name)).collect()
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, _now: Timestamp, seed: u64) -> Plan {
        let mut plan = Plan::default();
        let Some(service) = view.get::<Service>(&key.namespace, &key.name) else {
            legacy::without_service(view, key, &mut plan);
            return plan;
        };
        if service.meta.deleting.is_some() || is_terminating(view, &key.namespace) || !is_kept(service) {
            return plan;
        }
        let pods: Vec<&Pod> =
            view.list::<Pod>(&key.namespace).map(|p| &**p).filter(|p| is_endpoint(service, p)).collect();
        slices::reconcile(view, service, &pods, seed, &mut plan);
        legacy::reconcile(view, service, &pods, &mut plan);
        plan
    }
}

/// What of a pod is seen in an endpoint.
fn looks(pod: &Pod) -> (bool, bool, bool, &[Box<str>], Option<&str>) {
    let s = &pod.status;
    (s.ready, pod.meta.deleting.is_some(), pod.is_finished(), &s.ips, pod.node.as_deref())
}

fn is_kept(service: &Service) -> bool {
    !service.spec.selector.is_empty() && &*service.spec.type_ != "ExternalName"
}

fn selected(service: &Service, labels: &Labels) -> bool {
    service.spec.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn is_endpoint(service: &Service, pod: &Pod) -> bool {
    selected(service, &pod.meta.labels) && !pod.is_finished() && !pod.status.ips.is_empty()
}

fn is_headless(service: &Service) -> bool {
    &*service.spec.cluster_ip == "None"
}

/// Number that a port of a Service means in a pod.
fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        IntOrString::Int(0) | IntOrString::Nothing(()) => Some(port.port),
        IntOrString::Int(n) => Some(*n),
        IntOrString::Text(name) => {
            let found =
                pod.spec.ports.iter().find(|p| p.name == *name && same_protocol(&p.protocol, &port.protocol));
            found.map(|p| p.port)
        }
    }
}

fn same_protocol(a: &str, b: &str) -> bool {
    let or_tcp = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
    or_tcp(a) == or_tcp(b)
}

/// Ports of a pod as a list of JSON; those that it does not have are left out.
fn ports(service: &Service, pod: &Pod, always_name: bool) -> Vec<Value> {
    let one = |p: &ServicePort| {
        let number = target(pod, p)?;
        let protocol = if p.protocol.is_empty() { "TCP" } else { &*p.protocol };
        let mut out = json!({"port": number, "protocol": protocol});
        if always_name || !p.name.is_empty() {
            out["name"] = json!(p.name);
        }
        if let Some(app) = &p.app_protocol {
            out["appProtocol"] = json!(app);
        }
        Some(out)
    };
    service.spec.ports.iter().filter_map(one).collect()
}

/// The same as text, for many pods.
struct Ports<'a> {
    service: &'a Service,
    always_name: bool,
    /// Where they do not depend on the pod.
    of_all: Option<String>,
}

impl<'a> Ports<'a> {
    fn new(service: &'a Service, always_name: bool) -> Ports<'a> {
        Ports { service, always_name, of_all: None }
    }

    fn of(&mut self, pod: &Pod) -> String {
        if let Some(text) = &self.of_all {
            return text.clone();
        }
        let text = json!(ports(self.service, pod, self.always_name)).to_string();
        if !self.service.spec.ports.iter().any(|p| matches!(p.target_port, IntOrString::Text(_))) {
            self.of_all = Some(text.clone());
        }
        text
    }
}

/// Fields in the order of canonical JSON, as in all that is written to be compared with bytes.
#[derive(Debug, Serialize)]
struct TargetRef<'a> {
    kind: &'static str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

fn target_ref(pod: &Pod) -> TargetRef<'_> {
    TargetRef { kind: Pod::KIND, name: &pod.meta.name, namespace: &pod.meta.namespace, uid: &pod.meta.uid }
}

/// The pod's host name when the Service is the one that gives it a name of its own.
fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    let named = !pod.spec.hostname.is_empty() && *pod.spec.subdomain == *service.meta.name;
    named.then_some(&*pod.spec.hostname)
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What a field is to be, when that is something else than its bytes say. Other bytes may say the same.
fn changed(bytes: &[u8], wanted: &str) -> Option<Value> {
    if bytes == wanted.as_bytes() {
        return None;
    }
    let wanted: Value = serde_json::from_str(wanted).unwrap_or_default();
    let old: Value = serde_json::from_slice(bytes).unwrap_or_default();
    (old != wanted).then_some(wanted)
}

#[cfg(test)]
mod tests;
