//! The objects that are written: small ConfigMaps, and pods as a Deployment makes them.
//!
//! In: a number. Out: JSON. Never: a pod that a scheduler takes up: what is measured is the API.

use bytes::Bytes;
use serde_json::{Value, json};

/// No scheduler has this name.
const NO_SCHEDULER: &str = "limpet-load";

pub fn name(number: usize) -> String {
    format!("load-{number:06}")
}

pub fn config_map(number: usize, generation: usize) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(number), "labels": {"app": "load", "shard": (number % 16).to_string()}},
        "data": {
            "generation": generation.to_string(),
            "settings.toml": "interval = 30\nretries = 5\n[link]\nserver = \"hub.example.org\"\nkeepalive = 340\n",
            "motd": format!("this is object {number} of a load"),
        },
    });
    bytes(&object)
}

/// A merge patch.
pub fn patch(generation: usize) -> Bytes {
    bytes(&json!({"data": {"generation": generation.to_string()}}))
}

pub fn pod(number: usize) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name(number),
            "labels": {"app": "load", "pod-template-hash": "5d5f9c7b8"},
            "annotations": {"example.org/config-digest": "sha256:3f786850e387550fdab836ed7e6dc881de23001b"},
        },
        "spec": {
            "schedulerName": NO_SCHEDULER,
            "containers": [{
                "name": "web", "image": "registry.example.org/shop/web:1.4.2",
                "ports": [{"containerPort": 8080, "name": "http"}],
                "env": [
                    {"name": "SHOP", "value": number.to_string()},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": name(number)}}],
        },
    });
    bytes(&object)
}

fn bytes(object: &Value) -> Bytes {
    object.to_string().into()
}
