//! Links, addresses and routes: the bridge, and one veth pair a pod.
//!
//! In: names, addresses, network namespace fds. Out: configured links. Never: deletes a link that is not its own by
//! name.

use super::netlink::{Attributes, CREATE, EXCL, Message, Socket};
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
const IFLA_NAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_INFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const IFLA_PROTINFO: u16 = 12;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const FAMILY_BRIDGE: u8 = 7;
const UP: u32 = 1;

/// Makes the bridge with its address, up; all of it may be there already.
pub fn ensure_bridge(name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let mut socket = Socket::route()?;
    let mut create = Message::new(NEW_LINK, CREATE | EXCL, &link_head(0, 0, 0, 0));
    create.text(IFLA_NAME, name);
    // A fixed hardware address: without one the bridge takes its ports' and changes with them.
    create.attr(IFLA_ADDRESS, &hardware_address(address));
    create.nest(IFLA_INFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
    ignore_existing(socket.request(vec![create])).map_err(|err| tell("make the bridge", name, err))?;
    let index = index_of(&mut socket, name)?;
    ignore_existing(socket.request(vec![add_address(index, address, prefix)]))
        .map_err(|err| tell("give an address to", name, err))?;
    socket.request(vec![set_up(index)]).map_err(|err| tell("bring up", name, err))
}

/// A stable locally administered address made of the IPv4 address.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// What a pod's veth pair needs to know.
pub struct Pair<'a> {
    pub host_name: &'a str,
    pub bridge: &'a str,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// Makes a veth pair: `host_name` on the bridge here, `eth0` in the pod's namespace with address and default route.
/// `socket` is of the host's namespace, `pod` of the pod's.
pub fn attach_pod(socket: &mut Socket, pod: &mut Socket, pod_ns: BorrowedFd<'_>, pair: &Pair<'_>) -> Result<()> {
    let Pair { host_name, bridge, address, gateway } = *pair;
    let bridge_index = index_of(socket, bridge)?;
    delete(socket, host_name)?;
    // Without IFF_UP: the kernel refuses to bring a veth up before its peer is.
    let mut create = Message::new(NEW_LINK, CREATE | EXCL, &link_head(0, 0, 0, 0));
    create.text(IFLA_NAME, host_name).u32(IFLA_MASTER, bridge_index);
    create.nest(IFLA_INFO, |info| {
        info.text(INFO_KIND, "veth");
        info.nest(INFO_DATA, |data| {
            data.nest(VETH_PEER, |peer| {
                peer.raw(&link_head(0, 0, 0, 0));
                peer.text(IFLA_NAME, "eth0");
                peer.attr(IFLA_ADDRESS, &hardware_address(address));
                peer.u32(IFLA_NET_NS_FD, pod_ns.as_raw_fd() as u32);
            });
        });
    });
    socket.request(vec![create]).map_err(|err| tell("make the veth pair", host_name, err))?;
    let loopback = index_of(pod, "lo")?;
    let inside = index_of(pod, "eth0")?;
    pod.request(vec![set_up(loopback)]).map_err(|err| tell("bring up", "lo", err))?;
    pod.request(vec![add_address(inside, address, 32)]).map_err(|err| tell("give an address to", "eth0", err))?;
    pod.request(vec![set_up(inside)]).map_err(|err| tell("bring up", "eth0", err))?;
    let outside = index_of(socket, host_name)?;
    socket.request(vec![set_up(outside)]).map_err(|err| tell("bring up", host_name, err))?;
    // Where br_netfilter is loaded a pod's packet to its own Service is turned round inside the bridge.
    socket.request(vec![hairpin(outside)]).map_err(|err| tell("set hairpin on", host_name, err))?;
    // One address, no on-link range: pods reach each other through the host, where a Service's answer is translated
    // back (a bridge alone would carry it past conntrack).
    pod.request(vec![link_route(inside, gateway), default_route(inside, gateway)])
        .map_err(|err| tell("add routes to", "eth0", err))
}

/// Loopback up in the namespace of this socket.
pub fn loopback_up(socket: &mut Socket) -> Result<()> {
    let index = index_of(socket, "lo")?;
    socket.request(vec![set_up(index)])
}

/// Removes a link by name; no error when there is none.
pub fn delete(socket: &mut Socket, name: &str) -> Result<()> {
    let mut message = Message::new(DEL_LINK, 0, &link_head(0, 0, 0, 0));
    message.text(IFLA_NAME, name);
    match socket.request(vec![message]) {
        Err(err) if err.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other.map_err(|err| tell("delete", name, err)),
    }
}

pub fn index_of(socket: &mut Socket, name: &str) -> Result<u32> {
    let mut found = None;
    socket.dump(Message::new(GET_LINK, 0, &link_head(0, 0, 0, 0)), |kind, body| {
        if kind == NEW_LINK
            && let (Some(index), Some(rest)) = (body.get(4..8).and_then(|b| b.first_chunk()), body.get(16..))
            && Attributes(rest).any(|(kind, value)| kind == IFLA_NAME && value.strip_suffix(&[0]) == Some(name.as_bytes()))
        {
            found = Some(u32::from_ne_bytes(*index));
        }
    })?;
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no link {name} in this network namespace")))
}

fn link_head(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[0] = family;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&change.to_ne_bytes());
    head
}

fn set_up(index: u32) -> Message {
    Message::new(NEW_LINK, 0, &link_head(0, index, UP, UP))
}

fn hairpin(index: u32) -> Message {
    let mut message = Message::new(SET_LINK, 0, &link_head(FAMILY_BRIDGE, index, 0, 0));
    message.nest(IFLA_PROTINFO, |info| {
        info.attr(BRIDGE_PORT_HAIRPIN, &[1]);
    });
    message
}

fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const BROADCAST: u16 = 4;
    let mut head = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(NEW_ADDRESS, CREATE | EXCL, &head);
    message.attr(LOCAL, &address.octets()).attr(ADDRESS, &address.octets());
    if prefix < 31 {
        let broadcast = Ipv4Addr::from(u32::from(address) | !super::mask(prefix));
        message.attr(BROADCAST, &broadcast.octets());
    }
    message
}

const ROUTE_GATEWAY: u16 = 5;
const ROUTE_LINK: u16 = 4;
const ROUTE_DESTINATION: u16 = 1;

fn route_head(prefix: u8, scope: u8) -> [u8; 12] {
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    [libc::AF_INET as u8, prefix, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, scope, UNICAST, 0, 0, 0, 0]
}

fn link_route(index: u32, to: Ipv4Addr) -> Message {
    const SCOPE_LINK: u8 = 253;
    let mut message = Message::new(NEW_ROUTE, CREATE | EXCL, &route_head(32, SCOPE_LINK));
    message.attr(ROUTE_DESTINATION, &to.octets()).u32(ROUTE_LINK, index);
    message
}

fn default_route(index: u32, gateway: Ipv4Addr) -> Message {
    let mut message = Message::new(NEW_ROUTE, CREATE | EXCL, &route_head(0, 0));
    message.attr(ROUTE_GATEWAY, &gateway.octets()).u32(ROUTE_LINK, index);
    message
}

fn ignore_existing(result: Result<()>) -> Result<()> {
    match result {
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn tell(what: &str, name: &str, err: Error) -> Error {
    Error::new(err.kind(), format!("{what} {name}: {err}"))
}
