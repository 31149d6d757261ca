//! The objects that every cluster has from its first second.
//!
//! In: the API's state. Out: namespaces, roles and bindings, priority classes, the `kubernetes` Service and
//! where it leads. What is there is left as it is, save for the endpoints, which follow the hub. Never:
//! brings back what a user changed.

use super::{Api, Client, aggregate, kinds, limits};
use crate::{auth::legacy, run::Patch};
use limpet_hub_core::{control::legacytoken, flow, rbac};
use limpet_objects::status::Status;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};

const BY: &str = "limpet-bootstrap";
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
/// The first address of the Service network.
pub const SERVICE_ADDRESS: &str = "10.96.0.1";
const SERVICE_RANGE: &str = "10.96.0.0/16";
const SLICES: &str = "discovery.k8s.io/endpointslices";
const CLASSES: &str = "scheduling.k8s.io/priorityclasses";

pub async fn ensure(api: &Arc<Api>) -> Result<(), BootstrapError> {
    tokio::spawn(kinds::keep(Arc::clone(api)));
    let client = Client::new(Arc::clone(api));
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        make(&client, "/namespaces", "", namespace).await?;
    }
    for (resource, object) in rbac::defaults() {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        make(&client, resource, &namespace, object).await?;
    }
    for (name, value, text) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to \
             another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": text});
        make(&client, CLASSES, "", class).await?;
    }
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "limpet-local",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "limpet.dev/local",
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
    make(&client, "storage.k8s.io/storageclasses", "", class).await?;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [SERVICE_RANGE]}});
    make(&client, "networking.k8s.io/servicecidrs", "", range).await?;
    let (place, name) = legacytoken::TRACKING;
    let tracking = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": place},
        "data": {"since": legacy::day(api.now())}});
    make(&client, "/configmaps", place, tracking).await?;
    for (resource, object) in flow::defaults() {
        make(&client, resource, "", object).await?;
    }
    crate::flow::mend(&client, api).await;
    tokio::spawn(crate::flow::keep(Arc::clone(api)));
    tokio::spawn(aggregate::keep(Arc::clone(api)));
    kubernetes(api, &client).await
}

/// Notes on which day tokens without an end were used, until the hub stops.
pub async fn note_uses(api: Arc<Api>) {
    let client = Client::new(Arc::clone(&api));
    loop {
        let (namespace, name) = tokio::select! {
            next = api.tokens.uses.next() => next,
            () = api.stopped() => return,
        };
        let labels = json!({"metadata": {"labels": {legacytoken::LAST_USED: legacy::day(api.now())}}});
        let patch = Patch {
            resource: "/secrets".into(),
            namespace,
            name,
            uid: String::new(),
            resource_version: None,
            subresource: None,
            merge: labels,
        };
        if let Err(error) = client.patch(BY, patch).await {
            tracing::debug!("the use of a token could not be noted: {}", error.message);
        }
    }
}

/// Brings the `kubernetes` Service back when somebody deletes it, as upstream's own controller does.
pub async fn keep(api: Arc<Api>) {
    let client = Client::new(Arc::clone(&api));
    let mut look = tokio::time::interval(limits::KUBERNETES_SERVICE_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = api.stopped() => return,
        }
        let parts = [("/services", "default"), (SLICES, "default"), ("/endpoints", "default")];
        if parts.iter().all(|(resource, namespace)| client.has(resource, namespace, "kubernetes")) {
            continue;
        }
        if let Err(error) = kubernetes(&api, &client).await {
            tracing::warn!(%error, "the kubernetes Service could not be brought back");
        }
    }
}

async fn kubernetes(api: &Api, client: &Client) -> Result<(), BootstrapError> {
    make(client, "/services", "default", service(api)).await?;
    endpoints(api, client).await
}

/// Why the hub cannot start. The operator mends the store or reports a bug; starting again tries again.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct BootstrapError {
    what: String,
    why: String,
}

async fn make(client: &Client, resource: &str, namespace: &str, object: Value) -> Result<(), BootstrapError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if client.get(resource, namespace, &name).is_some() {
        return Ok(());
    }
    match client.create(BY, resource, namespace, object).await {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        Err(status) => Err(failed(&format!("{resource} {name}"), &status)),
    }
}

fn failed(what: &str, status: &Status) -> BootstrapError {
    BootstrapError { what: what.to_owned(), why: status.message.clone() }
}

fn port(api: &Api) -> u16 {
    api.endpoints.first().map_or(6443, |(_, port)| *port)
}

fn service(api: &Api) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": SERVICE_ADDRESS, "clusterIPs": [SERVICE_ADDRESS], "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port(api)}],
            "sessionAffinity": "None",
        },
    })
}

/// The addresses may be others at each start.
async fn endpoints(api: &Api, client: &Client) -> Result<(), BootstrapError> {
    let v4 = api.endpoints.iter().filter(|(ip, _)| matches!(ip, IpAddr::V4(_)));
    let addresses: Vec<String> = v4.map(|(ip, _)| ip.to_string()).collect();
    let ends: Vec<Value> =
        addresses.iter().map(|a| json!({"addresses": [a], "conditions": {"ready": true}})).collect();
    let labels = json!({"kubernetes.io/service-name": "kubernetes"});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "endpoints": ends, "ports": [{"name": "https", "port": port(api), "protocol": "TCP"}],
    });
    replace(client, SLICES, slice).await?;
    let list: Vec<Value> = addresses.iter().map(|a| json!({"ip": a})).collect();
    let subsets = match list.is_empty() {
        true => json!([]),
        false => {
            json!([{"addresses": list, "ports": [{"name": "https", "port": port(api), "protocol": "TCP"}]}])
        }
    };
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "subsets": subsets,
    });
    replace(client, "/endpoints", endpoints).await
}

async fn replace(client: &Client, resource: &str, object: Value) -> Result<(), BootstrapError> {
    let outcome = match client.get(resource, "default", "kubernetes") {
        Some(_) => client.update(BY, resource, "", object).await,
        None => client.create(BY, resource, "default", object).await,
    };
    outcome.map(|_| ()).map_err(|status| failed(&format!("{resource} kubernetes"), &status))
}
