//! The node's own status.
//!
//! In: facts that the shell read from the device. Out: the body of a `NodeReport`, equal for equal facts.
//! Never: a heartbeat time; the hub dates what it hears.

use crate::plan::OWN_HANDLER;
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
    /// Processor time that pods may not have, in thousandths of a core.
    pub cpu_reserved_milli: u64,
    pub swap_bytes: u64,
    /// Sizes of huge pages that the kernel has, and the bytes set aside for each: `2Mi`.
    pub huge_pages: Vec<(String, u64)>,
    pub board: Vec<BoardCondition>,
    pub own: Vec<OwnCondition>,
    pub pods_max: u32,
    pub ips: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub problems: Vec<NodeProblem>,
    /// Names and sizes of the images that are here.
    pub images: Vec<(Vec<String>, u64)>,
    /// Pods can have users of their own.
    pub no_own_users: Option<String>,
    /// Other runtimes, by the handler of a RuntimeClass.
    pub runtime_handlers: Vec<String>,
    /// Devices by the name of their resource: all, and those that pods can have.
    pub devices: std::collections::BTreeMap<String, (u64, u64)>,
    /// Devices that pods claim by name: `{"name","resource","path","cdi","shared"}`.
    pub claimable: Vec<Value>,
}

impl NodeFacts {
    /// What pods may have of the memory, for the node's status, admission and what pods are told: without large pages.
    pub fn allocatable_memory_bytes(&self) -> u64 {
        let huge: u64 = self.huge_pages.iter().map(|(_, bytes)| bytes).sum();
        let reserved = [self.memory_reserved_bytes, self.memory_kept_free_bytes, huge];
        reserved.iter().fold(self.memory_bytes, |left, bytes| left.saturating_sub(*bytes))
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

impl NodeProblem {
    /// The condition of the node, when it is one under which further pods are refused.
    pub fn pressure(&self) -> Option<&'static str> {
        match self {
            NodeProblem::NotReady(_) => None,
            NodeProblem::DiskPressure(_) => Some("DiskPressure"),
            NodeProblem::MemoryPressure(_) => Some("MemoryPressure"),
            NodeProblem::PidPressure(_) => Some("PIDPressure"),
        }
    }
}

/// What schedulers and admission may want to know of a node before they send it a pod (KEP-5328), in order of the alphabet: only
/// what this node does and older ones of the same version may not.
const DECLARED: [&str; 3] =
    ["GuaranteedQoSPodCPUResize", "InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"];

/// The version of Kubernetes whose ways this node has, with the agent's own.
pub fn kubelet_version(agent: &str) -> String {
    format!("v1.36.0+limpet-{agent}")
}

/// Something that the board itself tells; a condition of its own on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardCondition {
    /// `UnderVoltage`, `Throttled`, `Overheated`, `FlashWornOut`
    pub kind: &'static str,
    pub bad: bool,
    pub reason: &'static str,
    pub message: &'static str,
}

/// Something that the agent tells of itself, as a condition of its own on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCondition {
    pub kind: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

/// `mirrors`: of the board's own pods; `None` on a board that has no directory for them.
pub fn node_report(facts: &NodeFacts, mirrors: Option<Vec<Value>>) -> Vec<u8> {
    let resources = |cpu_milli: u64, memory: u64, disk: String, device: fn(&(u64, u64)) -> u64| {
        let cpu = if cpu_milli.is_multiple_of(1000) { (cpu_milli / 1000).to_string() } else { format!("{cpu_milli}m") };
        let mut all = json!({
            "cpu": cpu, "memory": format!("{}Ki", memory / 1024), "pods": facts.pods_max.to_string(),
            "ephemeral-storage": disk,
        });
        for (size, bytes) in &facts.huge_pages {
            all[format!("hugepages-{size}")] = if *bytes == 0 { "0".into() } else { format!("{}Ki", bytes / 1024).into() };
        }
        for (name, counts) in &facts.devices {
            all[name] = device(counts).to_string().into();
        }
        all
    };
    let cpu = u64::from(facts.cpus) * 1000;
    // The last tenth of the disk is where pods are evicted: nobody can count on it.
    let capacity = resources(cpu, facts.memory_bytes, format!("{}Ki", facts.disk_bytes / 1024), |all| all.0);
    let memory = facts.allocatable_memory_bytes();
    let disk = (facts.disk_bytes / 10 * 9).to_string();
    let allocatable = resources(cpu.saturating_sub(facts.cpu_reserved_milli), memory, disk, |all| all.1);
    let mut addresses: Vec<Value> =
        facts.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    let mut images: Vec<&(Vec<String>, u64)> = facts.images.iter().collect();
    images.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let images: Vec<Value> =
        images.into_iter().take(50).map(|(names, size)| json!({"names": names, "sizeBytes": size})).collect();
    let mut labels: Map<String, Value> =
        facts.labels.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    for (key, value) in [
        ("kubernetes.io/arch", facts.architecture.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", &facts.name),
        ("beta.kubernetes.io/arch", &facts.architecture),
        ("beta.kubernetes.io/os", "linux"),
    ] {
        labels.entry(key).or_insert_with(|| value.into());
    }
    let status = json!({
        "capacity": capacity,
        "allocatable": allocatable,
        "addresses": addresses,
        "conditions": conditions(facts),
        "images": images,
        "nodeInfo": {
            "architecture": facts.architecture, "operatingSystem": "linux", "osImage": facts.os_image,
            "kernelVersion": facts.kernel, "machineID": facts.machine_id, "bootID": facts.boot_id,
            "systemUUID": facts.system_uuid, "containerRuntimeVersion": format!("limpet://{}", facts.agent_version),
            "kubeletVersion": kubelet_version(&facts.agent_version), "kubeProxyVersion": "",
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "runtimeHandlers": handlers(facts),
        "features": {"supplementalGroupsPolicy": true},
        "declaredFeatures": DECLARED,
    });
    let mut status = status;
    if facts.swap_bytes > 0 {
        status["nodeInfo"]["swap"] = json!({"capacity": facts.swap_bytes});
    }
    let mut report = json!({"status": status, "labels": labels});
    if !facts.claimable.is_empty() {
        report["devices"] = facts.claimable.clone().into();
    }
    if let Some(mirrors) = mirrors {
        report["staticPods"] = mirrors.into();
    }
    report.to_string().into_bytes()
}

/// The node's own runtime under both of its names, then the others. Users of a pod's own are the own runtime's.
fn handlers(facts: &NodeFacts) -> Value {
    let one = |name: &str, users: bool| {
        json!({"name": name, "features": {"recursiveReadOnlyMounts": true, "userNamespaces": users}})
    };
    let own = ["", OWN_HANDLER].map(|name| one(name, facts.no_own_users.is_none()));
    own.into_iter().chain(facts.runtime_handlers.iter().map(|name| one(name, false))).collect()
}

fn conditions(facts: &NodeFacts) -> Value {
    let problems = &facts.problems;
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
    let mut all = vec![
        pressure("MemoryPressure", "SufficientMemory", memory),
        pressure("DiskPressure", "NoDiskPressure", disk),
        pressure("PIDPressure", "SufficientPID", pid),
        ready,
    ];
    all.extend(facts.board.iter().map(|c| {
        json!({"type": c.kind, "status": if c.bad { "True" } else { "False" }, "reason": c.reason, "message": c.message})
    }));
    all.extend(facts.own.iter().map(|c| {
        json!({"type": c.kind, "status": if c.holds { "True" } else { "False" }, "reason": c.reason, "message": c.message})
    }));
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_facts_make_equal_reports() {
        let facts = NodeFacts { name: "pi".into(), cpus: 4, ips: vec!["192.0.2.7".into()], ..NodeFacts::default() };
        let one = node_report(&facts, None);
        assert_eq!(one, node_report(&facts, None));
        let value: Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(value["status"]["conditions"][3]["status"], "True");
        assert_eq!(value["labels"]["kubernetes.io/hostname"], "pi");
        assert!(DECLARED.is_sorted(), "the API takes no other order");
        assert_eq!(value["status"]["declaredFeatures"], json!(DECLARED));
        let sick = NodeFacts { problems: vec![NodeProblem::DiskPressure("full".into())], ..facts };
        let value: Value = serde_json::from_slice(&node_report(&sick, None)).unwrap();
        assert_eq!(value["status"]["conditions"][1]["reason"], "KubeletHasDiskPressure");
    }

    #[test]
    fn what_pods_may_have_is_less_than_what_there_is() {
        let weak = BoardCondition { kind: "UnderVoltage", bad: true, reason: "Weak", message: "m" };
        let facts = NodeFacts {
            cpus: 4,
            cpu_reserved_milli: 250,
            memory_bytes: 1 << 30,
            memory_reserved_bytes: 64 << 20,
            disk_bytes: 1000 << 20,
            swap_bytes: 99,
            huge_pages: vec![("2Mi".into(), 4 << 20), ("1Gi".into(), 0)],
            board: vec![weak],
            ..NodeFacts::default()
        };
        let value: Value = serde_json::from_slice(&node_report(&facts, None)).unwrap();
        let status = &value["status"];
        assert_eq!(status["capacity"]["cpu"], "4");
        assert_eq!(status["allocatable"]["cpu"], "3750m");
        assert_eq!(status["allocatable"]["memory"], format!("{}Ki", (1024 - 64 - 4) * 1024));
        // The board itself reckons with the same.
        assert_eq!(facts.allocatable_memory_bytes(), (1024 - 64 - 4) << 20);
        assert_eq!(status["allocatable"]["ephemeral-storage"], (900u64 << 20).to_string());
        assert_eq!((&status["capacity"]["hugepages-2Mi"], &status["capacity"]["hugepages-1Gi"]), (&json!("4096Ki"), &json!("0")));
        let weak = &status["conditions"][4];
        assert_eq!((&weak["type"], &weak["status"]), (&json!("UnderVoltage"), &json!("True")));
        assert_eq!(status["nodeInfo"]["swap"]["capacity"], 99);
    }
}
