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
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

/// How long the start of the agent waits for a first lease; a board without a network starts its pods all the same.
const FIRST_LEASE: Duration = Duration::from_secs(8);
/// Cards at USB appear seconds after their drivers, or when somebody plugs them in.
const LOOK_FOR_CARDS: Duration = Duration::from_secs(1);

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
    let (send, receive) = channel();
    let node = node.clone();
    let is_fixed = node.address.is_some();
    std::thread::spawn(move || look_for_cards(&node, &send));
    if is_fixed { Network::default() } else { first_lease(&receive) }
}

/// A thread for the life of this board; each card is taken once.
fn look_for_cards(node: &Node, send: &Sender<dhcp::Lease>) {
    let mut known: Vec<String> = Vec::new();
    loop {
        for card in cards() {
            if known.contains(&card) {
                continue;
            }
            known.push(card.clone());
            if let Err(e) = netlink::up(&card) {
                say!("{card}: {e}");
                continue;
            }
            match &node.address {
                Some(address) if known.len() == 1 => fixed(&card, address, node),
                _ => by_dhcp(card, node.name.clone(), !node.dns.is_empty(), send.clone()),
            }
        }
        std::thread::sleep(LOOK_FOR_CARDS);
    }
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
fn by_dhcp(card: String, name: String, has_dns: bool, send: Sender<dhcp::Lease>) {
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
}

fn first_lease(leases: &Receiver<dhcp::Lease>) -> Network {
    match leases.recv_timeout(FIRST_LEASE) {
        Ok(lease) => {
            say!("address {}/{}", lease.address, lease.prefix);
            Network { ntp: lease.ntp }
        }
        Err(_) => {
            say!("no network answers yet; this board goes on without");
            Network::default()
        }
    }
}
