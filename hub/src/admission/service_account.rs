//! ServiceAccount: every pod has an account, and its token where pods look for it.
//!
//! In: new pods. Out: `spec.serviceAccountName`, image pull secrets, and the projected volume
//! `kube-api-access-…`, as upstream makes it. Never: a pod with an account that does not exist.

use super::Review;
use crate::api::{self, object};
use limpet_objects::status::Status;
use limpet_store::Key;
use serde_json::{Value, json};
use std::time::Duration;

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A new namespace gets its default account a moment later; who creates both at once waits for it.
const ACCOUNT_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn admit(review: &mut Review<'_>) -> Result<(), Status> {
    if !review.object["metadata"]["annotations"][MIRROR].is_null() {
        return Ok(());
    }
    let spec = &review.object["spec"];
    let name = spec["serviceAccountName"].as_str().filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
    let account = match account(review, &name).await {
        Some(account) => account,
        None => {
            let namespace = review.namespace;
            return Err(review.forbidden(&format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            )));
        }
    };
    let own = spec["automountServiceAccountToken"].as_bool();
    let mounts = own.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true);
    let Some(spec) = object::map(review.object, "spec") else { return Ok(()) };
    spec.insert("serviceAccountName".into(), json!(name));
    spec.insert("serviceAccount".into(), json!(name));
    let has_pull_secrets =
        spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|s| !s.is_empty());
    if !has_pull_secrets && let Some(secrets) = account.get("imagePullSecrets").filter(|s| s.is_array()) {
        spec.insert("imagePullSecrets".into(), secrets.clone());
    }
    if mounts {
        mount_token(spec);
    }
    Ok(())
}

async fn account(review: &Review<'_>, name: &str) -> Option<Value> {
    let store = &review.api.store;
    let key = Key::new("/serviceaccounts", review.namespace, name);
    let found = || store.get(&key).and_then(|r| serde_json::from_slice(&r.bytes).ok());
    let before = found();
    if before.is_some() || name != "default" {
        return before;
    }
    let mut watch = store.watch("/serviceaccounts", Some(review.namespace), store.revision()).ok();
    let waiting = async {
        loop {
            if let Some(account) = found() {
                return Some(account);
            }
            watch.as_mut()?.next().await?.ok()?;
        }
    };
    tokio::time::timeout(ACCOUNT_WAIT, waiting).await.ok().flatten()
}

fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let mut volume = None;
    for list in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let Some(mounts) = object::list(container, "volumeMounts") else { continue };
            if mounts.iter().any(|m| m["mountPath"] == MOUNT) {
                continue;
            }
            let name = volume.get_or_insert_with(|| format!("kube-api-access-{}", api::new_suffix()));
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
        }
    }
    let (Some(name), Some(volumes)) = (volume, object::list(spec, "volumes")) else { return };
    volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}}));
}
