//! The node's own status.
//!
//! In: facts of the firmware, how its configuration fares. Out: the body of a `NodeReport`, equal for equal facts.
//! Never: a time; the hub dates what it hears. Room for a pod.

use crate::config::{ANNOTATION, Config};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use limpet_protocol::limits::LEAF_ITEM_BYTES_MAX;
use serde_json::{Value, json};

/// Label by which hub and people know a leaf; the hub gives it a taint of the same name.
pub const LABEL: &str = "limpet.dev/leaf";

/// What a firmware knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// `Raspberry Pi Pico W`
    pub board: String,
    /// As GOARCH or Rust's targets name it: `thumbv6m`
    pub architecture: String,
    pub firmware: String,
    /// Serial number of the processor or of its flash, hex.
    pub machine_id: String,
    pub memory_bytes: u64,
    pub address: String,
}

/// Something that the firmware tells of itself, as a condition of its own on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// One word: `SensorFault`
    pub kind: String,
    pub holds: bool,
    pub reason: String,
    pub message: String,
}

/// `refused`: why the firmware does not follow its configuration.
pub fn body(facts: &Facts, epoch: u32, config: &Config, refused: Option<&str>, own: &[Condition]) -> Vec<u8> {
    let mut conditions = alloc::vec![
        condition("MemoryPressure", false, "LeafHasSufficientMemory", "leaf has sufficient memory available"),
        condition("DiskPressure", false, "LeafHasNoDiskPressure", "leaf has no disk pressure"),
        condition("PIDPressure", false, "LeafHasSufficientPID", "leaf has no processes"),
        condition("Ready", true, "LeafReady", "the firmware runs; this board runs no containers"),
        configured(config, refused),
    ];
    conditions.extend(own.iter().map(|c| condition(&c.kind, c.holds, &c.reason, &c.message)));
    let resources = json!({"cpu": "0", "memory": format!("{}Ki", facts.memory_bytes / 1024), "pods": "0"});
    let mut addresses = alloc::vec![json!({"type": "Hostname", "address": facts.name})];
    if !facts.address.is_empty() {
        addresses.insert(0, json!({"type": "InternalIP", "address": facts.address}));
    }
    let report = json!({
        "labels": {LABEL: "true", "kubernetes.io/arch": facts.architecture, "kubernetes.io/os": "none",
            "kubernetes.io/hostname": facts.name},
        "status": {
            "capacity": resources, "allocatable": resources, "addresses": addresses, "conditions": conditions,
            "nodeInfo": {
                "architecture": facts.architecture, "operatingSystem": "none", "osImage": facts.board,
                "kernelVersion": facts.firmware, "machineID": facts.machine_id, "systemUUID": facts.machine_id,
                "bootID": format!("{}-{epoch}", facts.machine_id), "containerRuntimeVersion": "none://",
                "kubeletVersion": format!("limpet-leaf-{}", facts.firmware), "kubeProxyVersion": "",
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        },
    });
    serde_json::to_vec(&report).unwrap_or_default()
}

fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message})
}

fn configured(config: &Config, refused: Option<&str>) -> Value {
    let Some((namespace, name)) = &config.source else {
        let message = format!("no ConfigMap: kubectl annotate node THIS {ANNOTATION}=NAMESPACE/NAME");
        return condition("Configured", false, "NotAnnotated", &message);
    };
    let (holds, reason, message) = match (config.generation, refused) {
        (0, _) => (
            false,
            "NotThere",
            format!("ConfigMap {namespace}/{name} is not there, or has more than {LEAF_ITEM_BYTES_MAX} bytes"),
        ),
        (_, Some(why)) => (false, "Refused", why.to_string()),
        (generation, None) => (true, "Applied", format!("ConfigMap {namespace}/{name} of revision {generation}")),
    };
    condition("Configured", holds, reason, &message)
}
