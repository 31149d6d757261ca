//! The board's network: every wired card up, addresses by DHCP or as the node's file says.
//!
//! In: the node's file, network cards. Out: addresses, routes, /etc/resolv.conf; leases are renewed by a thread each.
//! Never: a way in: nothing listens here.

mod dhcp;
mod netlink;

use crate::{log::say, node::Node};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// How long the start of the agent waits for a first lease; a board without a network starts its pods all the same.
const FIRST_LEASE: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub struct Network {
    /// Time servers that the network names.
    pub ntp: Vec<Ipv4Addr>,
}

fn cards() -> Vec<String> {
    let all = fs::read_dir("/sys/class/net").map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let wired = |path: &std::path::Path| {
        path.join("device").exists() && fs::read_to_string(path.join("type")).is_ok_and(|t| t.trim() == "1")
    };
    let mut names: Vec<String> =
        all.iter().filter(|e| wired(&e.path())).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

pub fn start(node: &Node) -> Network {
    let _ = fs::create_dir_all("/etc");
    let done = netlink::up("lo").and_then(|()| netlink::add_address("lo", Ipv4Addr::LOCALHOST.into(), 8));
    if let Err(e) = done.or_else(|e| if e.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) }) {
        say!("lo: {e}");
    }
    let cards = cards();
    if cards.is_empty() {
        say!("there is no wired network card");
    }
    let mut leases = Vec::new();
    for (index, card) in cards.iter().enumerate() {
        if let Err(e) = netlink::up(card) {
            say!("{card}: {e}");
            continue;
        }
        match &node.address {
            Some(address) if index == 0 => fixed(card, address, node),
            _ => leases.push(by_dhcp(card.clone(), node.name.clone(), !node.dns.is_empty())),
        }
    }
    first_lease(leases)
}

fn resolvers(servers: &[IpAddr]) {
    let text: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
    if let Err(why) = crate::slots::replace(std::path::Path::new("/etc/resolv.conf"), text.as_bytes()) {
        say!("{why}");
    }
}

fn fixed(card: &str, address: &str, node: &Node) {
    let parsed = address.split_once('/').and_then(|(ip, n)| Some((ip.parse::<IpAddr>().ok()?, n.parse::<u8>().ok()?)));
    let Some((ip, prefix)) = parsed else {
        say!("{address:?} is not an address such as 192.168.1.20/24");
        return;
    };
    let added = netlink::add_address(card, ip, prefix);
    let routed = node.gateway.map_or(Ok(()), |gateway| netlink::default_route(card, gateway));
    for e in [added.err(), routed.err()].into_iter().flatten() {
        say!("{card}: {e}");
    }
    resolvers(&node.dns);
}

/// A thread for the life of this board.
fn by_dhcp(card: String, name: String, has_dns: bool) -> Receiver<dhcp::Lease> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        dhcp::keep(&card, &name, |lease| {
            let added = netlink::replace_address(&card, lease.address.into(), lease.prefix);
            let routed = lease.router.map_or(Ok(()), |r| netlink::default_route(&card, r.into()));
            for e in [added.err(), routed.err()].into_iter().flatten() {
                say!("{card}: {e}");
            }
            if !has_dns {
                resolvers(&lease.dns.iter().map(|d| IpAddr::V4(*d)).collect::<Vec<_>>());
            }
            let _ = send.send(lease.clone());
        });
    });
    receive
}

fn first_lease(leases: Vec<Receiver<dhcp::Lease>>) -> Network {
    let start = Instant::now();
    while start.elapsed() < FIRST_LEASE && !leases.is_empty() {
        for receiver in &leases {
            if let Ok(lease) = receiver.recv_timeout(Duration::from_millis(50)) {
                say!("address {}/{}", lease.address, lease.prefix);
                return Network { ntp: lease.ntp };
            }
        }
    }
    Network::default()
}
