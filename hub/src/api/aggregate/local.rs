//! APIServices of the groups that the hub serves itself, so that `kubectl get apiservices` shows everything; and what other
//! servers must know to believe the hub.
//!
//! In: the registry, the hub's certificate for other servers. Out: APIServices without a Service, taken back with their
//! definition; `kube-system/extension-apiserver-authentication`. Never: touches an APIService that names a Service.

use super::{STORAGE, reach::Identity};
use crate::{
    api::{Api, Client, object},
    run::{Delete, Patch},
};
use serde_json::{Value, json};

const BY: &str = "kube-aggregator";
/// Who made it, as upstream marks it: at the start, or with a definition.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// (group, priority of the group); the order of upstream's own table.
const PRIORITIES: [(&str, i64); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
];

/// Makes what is missing and takes away what was of a definition that is gone.
pub async fn register(api: &Api, client: &Client) {
    if let Some(identity) = api.aggregate.identity() {
        publish(client, identity).await;
    }
    let kinds = api.kinds();
    let mut wanted = Vec::new();
    for group in kinds.groups().iter().filter(|g| g.name != "apiregistration.k8s.io") {
        wanted.extend(group.versions.iter().map(|version| format!("{version}.{}", group.name)));
        for (at, version) in group.versions.iter().enumerate() {
            let name = format!("{version}.{}", group.name);
            if !client.has(STORAGE, "", &name) {
                let object = own(&group.name, version, at);
                if let Err(status) = client.create(BY, STORAGE, "", object).await {
                    tracing::debug!(name, why = status.message, "an APIService of the hub's own was not made");
                }
            }
        }
    }
    for record in api.store.list(STORAGE, None).records {
        let Ok(object) = serde_json::from_slice::<Value>(&record.bytes) else { continue };
        let name = object::name(&object).to_owned();
        let ours = object["metadata"]["labels"][MANAGED].is_string() && object["spec"]["service"].is_null();
        if ours && !wanted.contains(&name) {
            let ask = Delete {
                resource: STORAGE.into(),
                namespace: String::new(),
                uid: object::uid(&object).to_owned(),
                name,
                grace: None,
                propagation: None,
            };
            // Gone already is as good.
            let _ = client.delete(BY, ask).await;
        }
    }
}

fn own(group: &str, version: &str, at: usize) -> Value {
    let known = PRIORITIES.iter().find(|(name, _)| *name == group).map(|(_, priority)| *priority);
    // A definition's versions are in their order already; a hundred of them would be too many.
    let later = i64::try_from(at).unwrap_or(99).min(99);
    let (priority, managed) = known.map_or((1000, "true"), |p| (p, "onstart"));
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": priority, "versionPriority": 100 - later}})
}

/// Hubs that share a store have an authority each: all of them are named.
async fn publish(client: &Client, identity: &Identity) {
    let place = "kube-system";
    let data = |front: &str| {
        json!({"client-ca-file": identity.client_ca_pem, "requestheader-client-ca-file": front,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]", "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]"})
    };
    let outcome = match client.get("/configmaps", place, AUTHENTICATION) {
        None => {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": AUTHENTICATION, "namespace": place}, "data": data(&identity.ca_pem)});
            client.create(BY, "/configmaps", place, object).await
        }
        Some(object) => {
            let front = object["data"]["requestheader-client-ca-file"].as_str().unwrap_or_default();
            if front.contains(identity.ca_pem.trim()) {
                return;
            }
            let all = format!("{}\n{}", front.trim(), identity.ca_pem).trim_start().to_owned();
            let patch = Patch {
                resource: "/configmaps".into(),
                namespace: place.into(),
                name: AUTHENTICATION.into(),
                uid: String::new(),
                resource_version: None,
                subresource: None,
                merge: json!({"data": data(&all)}),
            };
            client.patch(BY, patch).await
        }
    };
    if let Err(status) = outcome {
        tracing::warn!(why = status.message, "{place}/{AUTHENTICATION} was not written: other API servers cannot know the hub");
    }
}
