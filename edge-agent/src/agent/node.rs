//! The node itself: its range of pod addresses, its report, the rules for Services and host ports.
//!
//! In: items of the set, facts of the board. Out: what the network and the hub need to know.
//! Never: applies rules that are already in force.

use super::{Config, Paths};
use crate::{
    device,
    net::{
        Cidr,
        services::{Affinity, Front, ServiceRule},
    },
    runtime::Runtime,
};
use crate::os_update::Os;
use limpet_agent_core::{
    Items,
    plan::HostFacts,
    services::ServiceEntry,
    status::{NodeFacts, NodeProblem},
};
use limpet_protocol::{ItemKind, join::JoinAnswer};
use std::{net::Ipv4Addr, path::Path};

/// With less than this, or a tenth of the disk, the node takes no more pods.
const DISK_FREE_BYTES_WANTED: u64 = 1 << 30;

/// The range that the hub gave this node; IPv4 first.
pub fn pod_cidr(items: &Items, node: &str) -> Option<Cidr> {
    let object: serde_json::Value = items.read(ItemKind::Node, "", node)?;
    let spec = object.get("spec")?;
    let several = spec.get("podCIDRs").and_then(|l| l.as_array()).into_iter().flatten();
    let all = several.chain(spec.get("podCIDR")).filter_map(|v| v.as_str());
    all.filter_map(|text| text.parse().ok()).next()
}

pub fn facts(answer: &JoinAnswer, config: &Config, paths: &Paths, runtime: &Runtime) -> NodeFacts {
    let mut facts = device::node_facts(&paths.data);
    facts.name = answer.node_name.clone();
    if let Some(os) = Os::here() {
        facts.os_image = os.image();
    }
    facts.pods_max = config.pods_max;
    facts.ips = match &config.node_ip {
        Some(ip) => vec![ip.clone()],
        None => device::primary_ips(answer.meets_at().0),
    };
    if let Some(mib) = config.reserved_memory_mib {
        facts.memory_reserved_bytes = mib << 20;
    }
    facts.cpu_reserved_milli = config.reserved_cpu_milli;
    facts.labels.extend(config.labels.clone());
    facts.no_own_users = runtime.no_own_users();
    let there = config.runtimes.iter().filter(|(_, other)| other.program.exists());
    facts.runtime_handlers = there.map(|(handler, _)| handler.clone()).collect();
    let controllers = runtime.cgroups().controllers();
    if !controllers.memory {
        log::warn!(
            "the kernel's memory controller is off: memory limits have no effect; on Raspberry Pi OS add \
             `cgroup_enable=memory` to /boot/firmware/cmdline.txt"
        );
    }
    if facts.ips.is_empty() {
        let why = "the board has no network address yet".to_string();
        facts.problems.push(NodeProblem::NotReady(why));
    }
    facts
}

/// So much must be free for the node to take pods.
pub fn disk_bytes_wanted(data: &Path) -> u64 {
    let (all, _) = device::disk_bytes(data);
    (all / 10).min(DISK_FREE_BYTES_WANTED)
}

pub fn host_facts(facts: &NodeFacts, answer: &JoinAnswer, config: &Config) -> HostFacts {
    let api = answer.api.first().and_then(|target| {
        Some((crate::link::http::host_of(target).to_string(), crate::link::http::port_of(target)?))
    });
    HostFacts {
        node_name: facts.name.clone(),
        ips: facts.ips.clone(),
        memory_bytes: facts.memory_bytes,
        allocatable_cpu_milli: i64::from(facts.cpus) * 1000 - i64::try_from(facts.cpu_reserved_milli).unwrap_or(0),
        allocatable_memory_bytes: facts.allocatable_memory_bytes() as i64,
        pods_max: facts.pods_max,
        allocatable_storage_bytes: i64::try_from(facts.disk_bytes / 10 * 9).unwrap_or(i64::MAX),
        api,
        cluster_domain: config.cluster_domain.clone(),
        app_armor: device::app_armor(),
        unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
        runtime_handlers: facts.runtime_handlers.clone(),
        no_own_users: facts.no_own_users.clone(),
        pressed: facts.problems.iter().filter_map(NodeProblem::pressure).collect(),
        restart_wait_ms_first: config.restart_back_off_seconds_first.saturating_mul(1000),
        restart_wait_ms_max: config.restart_back_off_seconds_max.saturating_mul(1000),
    }
}

/// Services as rules for the kernel.
pub fn rules(table: &[ServiceEntry], node: &str) -> Vec<ServiceRule> {
    let mut rules = Vec::new();
    for service in table {
        let ips = service.cluster_ips.iter().chain(&service.external_ips);
        let ips: Vec<Ipv4Addr> = ips.filter_map(|ip| ip.parse().ok()).collect();
        for port in service.ports.iter().filter(|p| p.port != 0) {
            let of = ips.first().filter(|_| service.affinity_s > 0);
            let affinity = of.map(|ip| Affinity { of: (*ip, port.port), seconds: service.affinity_s });
            let mut add = |front: Front, number: u16, local_only: bool| {
                let backends = port.reachable(node, local_only).filter_map(|b| Some((b.ip.parse().ok()?, b.port)));
                rules.push(ServiceRule {
                    front,
                    protocol: super::convert::protocol(&port.protocol),
                    port: number,
                    backends: backends.collect(),
                    affinity,
                });
            };
            for ip in &ips {
                add(Front::Address(*ip), port.port, service.local_only);
            }
            if port.node_port != 0 {
                add(Front::Node { masquerade: !service.external_local }, port.node_port, service.external_local);
            }
        }
    }
    rules
}

/// Pods together cannot take what is reserved: the kernel then ends one of them, not something of the system's.
pub fn enforce_allocatable(facts: &NodeFacts, runtime: &Runtime) {
    let bytes = facts.memory_bytes.saturating_sub(facts.memory_reserved_bytes);
    if bytes > 0
        && runtime.cgroups().controllers().memory
        && let Err(e) = runtime.cgroups().limit_all(bytes)
    {
        log::warn!("the memory of all pods is not limited: {e}");
    }
}

/// Without it containers for which nothing was said run unconfined, and those that ask for the runtime's profile wait.
pub fn load_app_armor() {
    if let Err(e) = device::load_app_armor() {
        log::warn!("the AppArmor profile of containers could not be loaded into the kernel: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spec::Protocol;
    use limpet_agent_core::{services, sync::Items};
    use limpet_protocol::{ItemKey, ItemKind};
    use serde_json::{Value, json};

    /// The rules of one Service with a pod on each of the named boards, as the hub tells it.
    fn told(spec: Value, boards: &[&str]) -> Vec<ServiceRule> {
        let mut items = Items::default();
        let mut put = |kind, body: Value| {
            items.put(ItemKey::new(kind, "default", "web"), 1, body.to_string().as_bytes());
        };
        put(ItemKind::Service, json!({"spec": spec}));
        let one = |(at, board): (usize, &&str)| json!({"addresses": [format!("10.42.0.{at}")], "nodeName": board});
        let endpoints: Vec<Value> = boards.iter().enumerate().map(one).collect();
        put(
            ItemKind::EndpointSlice,
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
                "ports": [{"name": "", "port": 8080}], "endpoints": endpoints}),
        );
        rules(&services::table(&items, &services::Local::default()), "here")
    }

    #[test]
    fn node_ports_and_affinity_of_a_service() {
        let spec = |policy: &str| {
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "externalIPs": ["192.0.2.7"], "externalTrafficPolicy": policy,
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "ports": [{"port": 80, "protocol": "UDP", "nodePort": 30_080}]})
        };
        let [cluster_ip, outer] = ["10.96.0.9", "192.0.2.7"].map(|ip| ip.parse().unwrap());
        let affinity = Some(Affinity { of: (cluster_ip, 80), seconds: 60 });
        let rule = |front, port, backends: &[u8]| ServiceRule {
            front,
            protocol: Protocol::Udp,
            port,
            backends: backends.iter().map(|at| (Ipv4Addr::new(10, 42, 0, *at), 8080)).collect(),
            affinity,
        };
        for (policy, boards, at_address, at_node) in [
            ("Cluster", &["there", "here"][..], &[1][..], &[1][..]),
            ("Cluster", &["there", "there"], &[0, 1], &[0, 1]),
            ("Local", &["there", "here"], &[1], &[1]),
            ("Local", &["there"], &[0], &[]),
        ] {
            let node = Front::Node { masquerade: policy == "Cluster" };
            let wanted = [
                rule(Front::Address(cluster_ip), 80, at_address),
                rule(Front::Address(outer), 80, at_address),
                rule(node, 30_080, at_node),
            ];
            assert_eq!(told(spec(policy), boards), wanted, "{policy} {boards:?}");
        }
        let plain = told(json!({"clusterIP": "10.96.0.9", "sessionAffinity": "None", "ports": [{"port": 80}]}), &["here"]);
        assert_eq!(plain.len(), 1, "no node port");
        assert_eq!(plain[0].affinity, None);
        let usual = told(json!({"clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}), &["here"]);
        assert_eq!(usual[0].affinity.map(|a| a.seconds), Some(10_800));
    }
}
