//! The one nft table of a node: masquerading, Services, node ports, host ports.
//!
//! In: the node's range, Services with their endpoints, host ports. Out: the whole table, replaced in one
//! transaction: a packet sees the old rules or the new ones; what clients are bound to goes along (`ClientIP`).
//! Never: a half-applied change, or another table.

use super::Cidr;
use super::nft::{self, ADDRESS, Batch, Data, Expressions, NUMBER, PAIR_KEY, PORT_KEY};
use super::nft::{R0, R1, R2, SERVICE_KEY, Set, TARGET, VERDICT};
use crate::runtime::spec::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Result;
use std::net::Ipv4Addr;

/// One port of one Service, in one place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServiceRule {
    pub front: Front,
    pub protocol: Protocol,
    pub port: u16,
    /// Ready endpoints; empty refuses connections at once.
    pub backends: Vec<(Ipv4Addr, u16)>,
    pub affinity: Option<Affinity>,
}

impl ServiceRule {
    /// The virtual address; `None` for a node port.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self.front {
            Front::Address(ip) => Some(ip),
            Front::Node { .. } => None,
        }
    }
}

/// Where clients meet a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Front {
    /// ClusterIP, or another virtual address.
    Address(Ipv4Addr),
    /// A node port: every address of the board but loopback's. With `masquerade` endpoints see the board as the client.
    Node { masquerade: bool },
}

/// `sessionAffinity: ClientIP`. Rules of one protocol with the same `of` share what they remember.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Affinity {
    /// Address and port of the Service.
    pub of: (Ipv4Addr, u16),
    /// So long an endpoint is kept for a client that does not come again.
    pub seconds: u32,
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
/// Clients that one port of one Service remembers; more of them are spread as if there were no affinity.
const CLIENTS_MAX: u32 = 16_384;
/// The longest time that the API takes: one day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;
/// What ends sooner is not carried over into a new table: the kernel counts in ticks of up to 10 ms.
const WORTH_KEEPING_MS: u64 = 20;
/// In a packet's mark: its source becomes the board. The bit that Kubernetes' own proxy uses.
const MASQUERADE_BIT: u32 = 0x4000;
const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;

/// Replaces the node's table.
pub fn apply(cidr: Cidr, services: &[ServiceRule], ports: &[PortRule]) -> Result<()> {
    let mut batch = Batch::replace_table();
    memories(&mut batch, services);
    sets(&mut batch, services, ports);
    chains(&mut batch, cidr);
    batch.commit()
}

/// The maps from clients to endpoints, with what the present table's maps hold of endpoints that are still there.
fn memories(batch: &mut Batch, services: &[ServiceRule]) {
    let mut wanted: BTreeMap<String, (u64, BTreeSet<Vec<u8>>)> = BTreeMap::new();
    for rule in services {
        let Some(affinity) = rule.affinity else {
            continue;
        };
        let ms = u64::from(affinity.seconds.clamp(1, AFFINITY_SECONDS_MAX)) * 1000;
        let (_, targets) = wanted.entry(memory(rule.protocol, affinity)).or_insert_with(|| (ms, BTreeSet::new()));
        targets.extend(rule.backends.iter().map(target));
    }
    for (name, (timeout_ms, targets)) in wanted {
        let set = Set { name: &name, key_type: ADDRESS.0, key_bytes: ADDRESS.1, data: Some(TARGET) };
        let id = batch.memory(&set, timeout_ms, CLIENTS_MAX);
        let held = nft::remembered(&name).unwrap_or_else(|err| {
            log::warn!("net: which clients had which endpoints of {name} is forgotten: {err}");
            Vec::new()
        });
        // The kernel may list an element twice while it makes its table larger.
        let held: BTreeMap<Vec<u8>, (Vec<u8>, u64)> = held
            .into_iter()
            .filter(|(_, target, left_ms)| targets.contains(target) && *left_ms >= WORTH_KEEPING_MS)
            .map(|(client, target, left_ms)| (client, (target, left_ms.min(timeout_ms))))
            .collect();
        let elements: Vec<_> =
            held.into_iter().map(|(client, (target, left_ms))| (client, Data::Until(target, left_ms))).collect();
        batch.elements(&name, id, &elements);
    }
}

fn memory(protocol: Protocol, affinity: Affinity) -> String {
    format!("clients-{}-{}-{}", affinity.of.0, number(protocol), affinity.of.1)
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
    let (mut any_address, mut one_address) = (Vec::new(), Vec::new());
    for rule in ports {
        let place = rule.host_ip.map_or_else(|| "any".into(), |ip| ip.to_string());
        let chain = format!("port-{place}-{}-{}", number(rule.protocol), rule.host_port);
        batch.chain(&chain);
        translate(batch, &chain, &[(rule.pod_ip, rule.pod_port)], None);
        match rule.host_ip {
            Some(ip) => one_address.push((service_key(ip, rule.protocol, rule.host_port), Data::Goto(chain))),
            None => any_address.push((port_key(rule.protocol, rule.host_port), Data::Goto(chain))),
        }
        own.push(rule.pod_ip);
    }
    // One port of the host leads to one place: a pod's own comes first.
    let whole = ports.iter().filter(|rule| rule.host_ip.is_none());
    let mut taken: BTreeSet<_> = whole.map(|rule| (rule.protocol, rule.host_port)).collect();
    for rule in services {
        let key = match rule.front {
            Front::Address(ip) => service_key(ip, rule.protocol, rule.port),
            Front::Node { .. } => port_key(rule.protocol, rule.port),
        };
        let chain = match rule.front {
            Front::Address(_) if rule.backends.is_empty() => {
                refused.push((key, Data::None));
                continue;
            }
            Front::Address(ip) => format!("svc-{ip}-{}-{}", number(rule.protocol), rule.port),
            // The board's own kernel refuses what nobody on it listens to.
            Front::Node { .. } if rule.backends.is_empty() || !taken.insert((rule.protocol, rule.port)) => {
                continue;
            }
            Front::Node { .. } => format!("node-{}-{}", number(rule.protocol), rule.port),
        };
        batch.chain(&chain);
        if rule.front == (Front::Node { masquerade: true }) {
            batch.rule(&chain, |rule| {
                rule.mark(MASQUERADE_BIT);
            });
        }
        let memory = rule.affinity.map(|affinity| memory(rule.protocol, affinity));
        translate(batch, &chain, &rule.backends[..rule.backends.len().min(BACKENDS_MAX)], memory.as_deref());
        match rule.front {
            Front::Address(_) => to_services.push((key, Data::Goto(chain))),
            Front::Node { .. } => any_address.push((key, Data::Goto(chain))),
        }
        own.extend(rule.backends.iter().map(|(ip, _)| *ip));
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

/// Rules that send a connection to one of the backends, each with the same chance; with a memory a client that it knows
/// comes to the same one again.
fn translate(batch: &mut Batch, chain: &str, backends: &[(Ipv4Addr, u16)], memory: Option<&str>) {
    if let Some(memory) = memory {
        batch.rule(chain, |rule| {
            rule.source_address(R2).recall(R2, memory, R0).remember(R2, memory, R0).dnat(R0, R1);
        });
    }
    let anonymous = Set { name: "__map%d", key_type: NUMBER.0, key_bytes: NUMBER.1, data: Some(TARGET) };
    // Rules do not share an anonymous map. Without room in the memory the second one is for it.
    for memory in memory.into_iter().map(Some).chain([None]) {
        let map = (backends.len() != 1).then(|| {
            let id = batch.set(&anonymous);
            let numbered = backends.iter().enumerate();
            let elements: Vec<_> = numbered
                .map(|(index, backend)| ((index as u32).to_ne_bytes().to_vec(), Data::Value(target(backend))))
                .collect();
            batch.elements(anonymous.name, id, &elements);
            id
        });
        batch.rule(chain, |rule| {
            choose(rule, backends, map);
            if let Some(memory) = memory {
                // What another packet of this client has chosen in the same moment stays.
                rule.source_address(R2).remember(R2, memory, R0).recall(R2, memory, R0);
            }
            rule.dnat(R0, R1);
        });
    }
}

/// Puts address and port of one of the backends into R0 and R1.
fn choose(rule: &mut Expressions<'_>, backends: &[(Ipv4Addr, u16)], map: Option<u32>) {
    match (map, backends) {
        (None, [(ip, port)]) => rule.load(R0, &ip.octets()).load(R1, &padded(*port)),
        (map, _) => rule.random(R0, backends.len() as u32).value_of(R0, "__map%d", map.unwrap_or_default()),
    };
}

/// A backend as it lies in R0 and R1, and in maps.
fn target((ip, port): &(Ipv4Addr, u16)) -> Vec<u8> {
    [ip.octets(), padded(*port)].concat()
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
        rule.was_marked(MASQUERADE_BIT).masquerade();
    });
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
