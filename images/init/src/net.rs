//! The board's network: every wired card up, and the radio's once it has a network; addresses by DHCP or as the node's file
//! says.
//!
//! In: the node's file, network cards (the radio itself is radio.rs's). Out: addresses, routes, /etc/resolv.conf; leases are
//! renewed by a thread each.
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

/// Cards with Ethernet's frames: those of radios, or the others.
fn cards(radio: bool) -> Vec<String> {
    let all = fs::read_dir("/sys/class/net").map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let fits = |path: &std::path::Path| {
        let ethernet = path.join("device").exists() && fs::read_to_string(path.join("type")).is_ok_and(|t| t.trim() == "1");
        ethernet && path.join("phy80211").exists() == radio
    };
    let mut names: Vec<String> =
        all.iter().filter(|e| fits(&e.path())).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The cards of radios, sorted; the first is used.
pub fn radios() -> Vec<String> {
    cards(true)
}

pub fn has_address(card: &str) -> bool {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let inet = |a: &nix::ifaddrs::InterfaceAddress| {
        let Some(address) = &a.address else { return false };
        address.as_sockaddr_in().is_some() || address.as_sockaddr_in6().is_some_and(|v6| !link_local(v6.ip()))
    };
    all.filter(|a| a.interface_name == card).any(|a| inet(&a))
}

fn link_local(ip: std::net::Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
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
    let mut has_fixed = false;
    loop {
        // A radio without a network to join is left alone, and switched on by its supplicant.
        let of_radio: Vec<String> = node.wifi.as_ref().and_then(|_| radios().into_iter().next()).into_iter().collect();
        for card in cards(false).into_iter().chain(of_radio.iter().cloned()) {
            if known.contains(&card) {
                continue;
            }
            known.push(card.clone());
            if !of_radio.contains(&card)
                && let Err(e) = netlink::up(&card)
            {
                say!("{card}: {e}");
                continue;
            }
            match &node.address {
                // The address belongs to the network that the node's file names.
                Some(address) if !has_fixed && of_radio.contains(&card) == node.wifi.is_some() => {
                    has_fixed = true;
                    fixed(&card, address, node, of_radio.contains(&card));
                }
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

/// A radio is on once its supplicant is, and off in between when that begins again: only then can it have routes.
fn fixed(card: &str, address: &str, node: &Node, is_radio: bool) {
    let parsed = address.split_once('/').and_then(|(ip, n)| Some((ip.parse::<IpAddr>().ok()?, n.parse::<u8>().ok()?)));
    let Some((ip, prefix)) = parsed else {
        say!("{address:?} is not an address such as 192.168.1.20/24");
        return;
    };
    resolvers(&node.dns);
    let (card, gateway) = (card.to_string(), node.gateway);
    let set = move |card: &str| {
        let added = netlink::replace_address(card, ip, prefix);
        let routed = gateway.map_or(Ok(()), |gateway| netlink::default_route(card, gateway));
        for e in [added.err(), routed.err()].into_iter().flatten() {
            say!("{card}: {e}");
        }
    };
    match is_radio {
        true => drop(std::thread::spawn(move || dhcp::at_each_carrier(&card, || set(&card)))),
        false => set(&card),
    }
}

/// A thread for the life of this board.
fn by_dhcp(card: String, name: String, has_dns: bool, send: Sender<dhcp::Lease>) {
    std::thread::spawn(move || {
        let last = std::cell::Cell::new(None);
        dhcp::keep(&card, &name, |lease| {
            if last.replace(Some(lease.address)) != Some(lease.address) {
                say!("address {}/{}", lease.address, lease.prefix);
            }
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
        Ok(lease) => Network { ntp: lease.ntp },
        Err(_) => {
            say!("no network answers yet; this board goes on without");
            Network::default()
        }
    }
}
