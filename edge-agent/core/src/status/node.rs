//! The node's own status.
//!
//! In: facts that the shell read from the device. Out: the body of a `NodeReport`, equal for equal facts.
//! Never: a heartbeat time; the hub dates what it hears.

use serde_json::{Map, Value, json};

/// What the device says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    pub architecture: String,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
    pub agent_version: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub memory_reserved_bytes: u64,
    /// Below this much free memory pods are evicted: no pod can count on it.
    pub memory_kept_free_bytes: u64,
    pub disk_bytes: u64,
    pub pods_max: u32,
    pub ips: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub problems: Vec<NodeProblem>,
    /// Names and sizes of the images that are here.
    pub images: Vec<(Vec<String>, u64)>,
    /// Devices by the name of their resource.
    pub devices: std::collections::BTreeMap<String, u64>,
}

impl NodeFacts {
    pub fn allocatable_memory_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.memory_reserved_bytes).saturating_sub(self.memory_kept_free_bytes)
    }
}

/// Something that keeps the node from being all right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeProblem {
    /// Pods cannot run at all; the sentence says why.
    NotReady(String),
    DiskPressure(String),
    MemoryPressure(String),
    PidPressure(String),
}

pub fn node_report(facts: &NodeFacts) -> Vec<u8> {
    let resources = |memory: u64| {
        let mut all = json!({
            "cpu": facts.cpus.to_string(), "memory": format!("{}Ki", memory / 1024),
            "pods": facts.pods_max.to_string(), "ephemeral-storage": format!("{}Ki", facts.disk_bytes / 1024),
        });
        for (name, count) in &facts.devices {
            all[name] = count.to_string().into();
        }
        all
    };
    let mut addresses: Vec<Value> =
        facts.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    let images: Vec<Value> =
        facts.images.iter().take(50).map(|(names, size)| json!({"names": names, "sizeBytes": size})).collect();
    let mut labels: Map<String, Value> =
        facts.labels.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    for (key, value) in [
        ("kubernetes.io/arch", facts.architecture.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", &facts.name),
    ] {
        labels.entry(key).or_insert_with(|| value.into());
    }
    let status = json!({
        "capacity": resources(facts.memory_bytes),
        "allocatable": resources(facts.allocatable_memory_bytes()),
        "addresses": addresses,
        "conditions": conditions(&facts.problems),
        "images": images,
        "nodeInfo": {
            "architecture": facts.architecture, "operatingSystem": "linux", "osImage": facts.os_image,
            "kernelVersion": facts.kernel, "machineID": facts.machine_id, "bootID": facts.boot_id,
            "systemUUID": facts.system_uuid, "containerRuntimeVersion": format!("limpet://{}", facts.agent_version),
            "kubeletVersion": format!("v1.36.0+limpet-{}", facts.agent_version), "kubeProxyVersion": "",
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    });
    json!({"status": status, "labels": labels}).to_string().into_bytes()
}

fn conditions(problems: &[NodeProblem]) -> Value {
    let find = |pick: fn(&NodeProblem) -> Option<&String>| problems.iter().find_map(pick);
    let pressure = |kind: &str, what: &str, problem: Option<&String>| {
        let reason = |yes: &str| format!("KubeletHas{yes}");
        match problem {
            Some(why) => json!({"type": kind, "status": "True", "reason": reason(kind), "message": why}),
            None => json!({
                "type": kind, "status": "False", "reason": format!("KubeletHas{what}"),
                "message": match kind {
                    "DiskPressure" => "kubelet has no disk pressure",
                    "MemoryPressure" => "kubelet has sufficient memory available",
                    _ => "kubelet has sufficient PID available",
                },
            }),
        }
    };
    let memory = find(|p| if let NodeProblem::MemoryPressure(why) = p { Some(why) } else { None });
    let disk = find(|p| if let NodeProblem::DiskPressure(why) = p { Some(why) } else { None });
    let pid = find(|p| if let NodeProblem::PidPressure(why) = p { Some(why) } else { None });
    let ready = match find(|p| if let NodeProblem::NotReady(why) = p { Some(why) } else { None }) {
        Some(why) => json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": why}),
        None => json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }),
    };
    json!([
        pressure("MemoryPressure", "SufficientMemory", memory),
        pressure("DiskPressure", "NoDiskPressure", disk),
        pressure("PIDPressure", "SufficientPID", pid),
        ready,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_facts_make_equal_reports() {
        let facts = NodeFacts { name: "pi".into(), cpus: 4, ips: vec!["192.0.2.7".into()], ..NodeFacts::default() };
        let one = node_report(&facts);
        assert_eq!(one, node_report(&facts));
        let value: Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(value["status"]["conditions"][3]["status"], "True");
        assert_eq!(value["labels"]["kubernetes.io/hostname"], "pi");
        let sick = NodeFacts { problems: vec![NodeProblem::DiskPressure("full".into())], ..facts };
        let value: Value = serde_json::from_slice(&node_report(&sick)).unwrap();
        assert_eq!(value["status"]["conditions"][1]["reason"], "KubeletHasDiskPressure");
    }
}
