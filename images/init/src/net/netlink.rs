//! Four requests to the kernel's network: up, address, address instead of another, default route.
//!
//! In: names and addresses. Out: the kernel's answer. Never: a message that was built from text.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use std::{
    io::{Error, Result},
    net::IpAddr,
    os::fd::AsRawFd,
};

const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const REQUEST_ACK: u16 = 1 | 4;
const CREATE: u16 = 0x400;
const REPLACE: u16 = 0x100;

fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(Error::from)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend(((4 + value.len()) as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// Sends one request and waits for its acknowledgement.
fn request(kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&fd, ReceiveTimeout, &nix::sys::time::TimeVal::new(5, 0))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(((16 + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_ACK | flags).to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    send(fd.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0u8; 4096];
    let got = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer.get(16..20).filter(|_| got >= 20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Error::from_raw_os_error(-code)),
        None => Err(Error::other("the kernel's answer is too short")),
    }
}

pub fn up(name: &str) -> Result<()> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index(name)?.to_ne_bytes());
    // IFF_UP, and only that is changed.
    body.extend(1u32.to_ne_bytes());
    body.extend(1u32.to_ne_bytes());
    request(NEWLINK, 0, &body)
}

fn address(name: &str, ip: IpAddr, prefix: u8, flags: u16) -> Result<()> {
    let mut body = vec![family(ip), prefix, 0, 0];
    body.extend(index(name)?.to_ne_bytes());
    let bytes = octets(ip);
    attribute(&mut body, 1, &bytes);
    attribute(&mut body, 2, &bytes);
    request(NEWADDR, CREATE | flags, &body)
}

pub fn add_address(name: &str, ip: IpAddr, prefix: u8) -> Result<()> {
    address(name, ip, prefix, 0x200)
}

pub fn replace_address(name: &str, ip: IpAddr, prefix: u8) -> Result<()> {
    address(name, ip, prefix, REPLACE)
}

pub fn default_route(name: &str, gateway: IpAddr) -> Result<()> {
    // Table main, protocol boot, scope universe, unicast.
    let mut body = vec![family(gateway), 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    attribute(&mut body, 5, &octets(gateway));
    attribute(&mut body, 4, &index(name)?.to_ne_bytes());
    request(NEWROUTE, CREATE | REPLACE, &body)
}
