//! The node itself: its range of pod addresses, its report, the rules for Services and host ports.
//!
//! In: items of the set, facts of the board. Out: what the network and the hub need to know.
//! Never: applies rules that are already in force.

use super::{Config, Paths};
use crate::{
    device,
    net::{Cidr, services::ServiceRule},
    runtime::Runtime,
};
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
    facts.user_namespaces = runtime.can_own_users();
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

/// Above this share in use, images that no pod wants are removed.
const DISK_USED_PERCENT_MAX: u64 = 85;

pub fn disk_is_filling(paths: &Paths) -> bool {
    let (all, free) = device::disk_bytes(&paths.data);
    all > 0 && (all - free.min(all)) * 100 / all > DISK_USED_PERCENT_MAX
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
        user_namespaces: facts.user_namespaces,
        restart_wait_ms_first: config.restart_back_off_seconds_first.saturating_mul(1000),
        restart_wait_ms_max: config.restart_back_off_seconds_max.saturating_mul(1000),
    }
}

/// Services as rules for the kernel.
pub fn rules(table: &[ServiceEntry], node: &str) -> Vec<ServiceRule> {
    let mut rules = Vec::new();
    for service in table {
        let ips = service.cluster_ips.iter().chain(&service.external_ips);
        for ip in ips.filter_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
            for port in service.ports.iter().filter(|p| p.port != 0) {
                let backends = port.reachable(node, service.local_only).filter_map(|b| Some((b.ip.parse().ok()?, b.port)));
                rules.push(ServiceRule {
                    cluster_ip: ip,
                    protocol: super::convert::protocol(&port.protocol),
                    port: port.port,
                    backends: backends.collect(),
                });
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
