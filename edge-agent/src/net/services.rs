//! The one nft table of a node: masquerading, Services, host ports.
//!
//! In: the node's range, Services with their endpoints, host ports. Out: the whole table, replaced in one
//! transaction: a packet sees the old rules or the new ones. Never: a half-applied change, or another table.

use super::Cidr;
use super::nft::{Batch, Data, NUMBER, PAIR_KEY, PORT_KEY, R0, R1, R2, SERVICE_KEY, Set, TARGET, VERDICT};
use crate::runtime::spec::Protocol;
use std::io::Result;
use std::net::Ipv4Addr;

/// One port of one Service address (ClusterIP, or another virtual address).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServiceRule {
    pub cluster_ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    /// Ready endpoints; empty refuses connections at once.
    pub backends: Vec<(Ipv4Addr, u16)>,
}

/// A port of the host that leads to a pod (`hostPort`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRule {
    /// `None`: every address of the host.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub protocol: Protocol,
    pub pod_ip: Ipv4Addr,
    pub pod_port: u16,
}

/// More endpoints of one port are left out: the kernel's anonymous map must fit one message.
const BACKENDS_MAX: usize = 1000;
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;

/// Replaces the node's table.
pub fn apply(cidr: Cidr, services: &[ServiceRule], ports: &[PortRule]) -> Result<()> {
    let mut batch = Batch::replace_table();
    sets(&mut batch, services, ports);
    chains(&mut batch, cidr);
    batch.commit()
}

fn sets(batch: &mut Batch, services: &[ServiceRule], ports: &[PortRule]) {
    let verdicts = |name| Set { name, key_type: SERVICE_KEY.0, key_bytes: SERVICE_KEY.1, data: Some(VERDICT) };
    let svc = batch.set(&verdicts("svc"));
    let host_ip_ports = batch.set(&verdicts("hostipports"));
    let host_ports =
        batch.set(&Set { name: "hostports", key_type: PORT_KEY.0, key_bytes: PORT_KEY.1, data: Some(VERDICT) });
    let empty = batch.set(&Set { name: "empty", key_type: SERVICE_KEY.0, key_bytes: SERVICE_KEY.1, data: None });
    let hairpin = batch.set(&Set { name: "hairpin", key_type: PAIR_KEY.0, key_bytes: PAIR_KEY.1, data: None });
    let (mut to_services, mut refused, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for rule in services {
        let key = service_key(rule.cluster_ip, rule.protocol, rule.port);
        if rule.backends.is_empty() {
            refused.push((key, Data::None));
            continue;
        }
        let chain = format!("svc-{}-{}-{}", rule.cluster_ip, number(rule.protocol), rule.port);
        translate(batch, &chain, &rule.backends[..rule.backends.len().min(BACKENDS_MAX)]);
        to_services.push((key, Data::Goto(chain)));
        own.extend(rule.backends.iter().map(|(ip, _)| *ip));
    }
    let (mut any_address, mut one_address) = (Vec::new(), Vec::new());
    for rule in ports {
        let place = rule.host_ip.map_or_else(|| "any".into(), |ip| ip.to_string());
        let chain = format!("port-{place}-{}-{}", number(rule.protocol), rule.host_port);
        translate(batch, &chain, &[(rule.pod_ip, rule.pod_port)]);
        match rule.host_ip {
            Some(ip) => one_address.push((service_key(ip, rule.protocol, rule.host_port), Data::Goto(chain))),
            None => any_address.push((port_key(rule.protocol, rule.host_port), Data::Goto(chain))),
        }
        own.push(rule.pod_ip);
    }
    own.sort_unstable();
    own.dedup();
    let pairs: Vec<_> = own.iter().map(|ip| ([ip.octets(), ip.octets()].concat(), Data::None)).collect();
    batch.elements("svc", svc, &to_services);
    batch.elements("hostipports", host_ip_ports, &one_address);
    batch.elements("hostports", host_ports, &any_address);
    batch.elements("empty", empty, &refused);
    batch.elements("hairpin", hairpin, &pairs);
}

/// A chain that sends a connection to one of the backends, each with the same chance.
fn translate(batch: &mut Batch, chain: &str, backends: &[(Ipv4Addr, u16)]) {
    batch.chain(chain);
    let target = |(ip, port): &(Ipv4Addr, u16)| [ip.octets(), padded(*port)].concat();
    if let [backend] = backends {
        let (ip, port) = (backend.0.octets(), backend.1.to_be_bytes());
        batch.rule(chain, |rule| {
            rule.load(R0, &ip).load(R1, &port).dnat(R0, R1);
        });
        return;
    }
    let map = Set { name: "__map%d", key_type: NUMBER.0, key_bytes: NUMBER.1, data: Some(TARGET) };
    let id = batch.set(&map);
    let elements: Vec<_> = backends
        .iter()
        .enumerate()
        .map(|(index, backend)| ((index as u32).to_ne_bytes().to_vec(), Data::Value(target(backend))))
        .collect();
    batch.elements("__map%d", id, &elements);
    batch.rule(chain, |rule| {
        rule.random(R0, backends.len() as u32).value_of(R0, "__map%d", id).dnat(R0, R1);
    });
}

fn chains(batch: &mut Batch, cidr: Cidr) {
    let mask = super::mask(cidr.prefix);
    batch.chain("services");
    batch.rule("services", |rule| {
        rule.destination_address(R0).protocol(R1).destination_port(R2).follow(R0, "svc");
    });
    batch.chain("ports");
    batch.rule("ports", |rule| {
        rule.destination_address(R0).protocol(R1).destination_port(R2).follow(R0, "hostipports");
    });
    batch.rule("ports", |rule| {
        rule.protocol(R0).destination_port(R1).follow(R0, "hostports");
    });
    for (chain, hook) in [("pre", HOOK_PREROUTING), ("out", HOOK_OUTPUT)] {
        batch.base_chain(chain, "nat", hook, -100);
        batch.rule(chain, |rule| {
            rule.jump("services");
        });
        batch.rule(chain, |rule| {
            // Not for 127.0.0.0/8: loopback sources must not leave the host.
            rule.destination_is_local();
            rule.destination_address(R0).in_range(R0, Ipv4Addr::new(127, 0, 0, 0), 0xff00_0000, false).jump("ports");
        });
    }
    batch.base_chain("post", "nat", HOOK_POSTROUTING, 100);
    batch.rule("post", |rule| {
        // A pod that reached itself through a Service would drop a packet from its own address.
        rule.source_address(R0).destination_address(R1).is_in(R0, "hairpin").masquerade();
    });
    batch.rule("post", |rule| {
        rule.source_address(R0).in_range(R0, cidr.base, mask, true);
        rule.destination_address(R0).in_range(R0, cidr.base, mask, false).masquerade();
    });
    for (chain, hook) in [("refuse-forward", HOOK_FORWARD), ("refuse-output", HOOK_OUTPUT)] {
        batch.base_chain(chain, "filter", hook, 0);
        for tcp in [true, false] {
            batch.rule(chain, |rule| {
                rule.protocol(R1).compare(R1, tcp, &[number(Protocol::Tcp)]);
                rule.destination_address(R0).destination_port(R2).is_in(R0, "empty").refuse(tcp);
            });
        }
    }
}

fn service_key(ip: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [ip.octets(), [number(protocol), 0, 0, 0], padded(port)].concat()
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    [[number(protocol), 0, 0, 0], padded(port)].concat()
}

/// A port as it lies in a register: network order first, zeros after.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}
