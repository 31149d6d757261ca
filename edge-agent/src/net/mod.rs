//! Pod networking from kernel parts only: bridge, veth, nftables, all over netlink.
//!
//! In: the node's range of pod addresses, Services and their endpoints. Out: links, addresses, one nft table.
//! Never: starts a program (`ip`, `nft`, `iptables`), or touches links and tables that it did not make.
//!
//! Everything happens in the network namespace of the calling process: agents in different namespaces do not meet.

pub mod conntrack;
pub mod dns;
pub mod ipam;
pub mod link;
pub mod netlink;
pub mod nft;
pub mod services;

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The bridge that all pods of a node hang on.
pub const BRIDGE: &str = "limpet0";

/// An IPv4 range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cidr {
    /// First address of the range.
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Cidr> {
        (prefix <= 32).then(|| Cidr { base: Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix })
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.base)
    }

    pub fn size(&self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The bridge's own address: the first after the network's.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    /// The address at a distance from the base.
    pub fn nth(&self, index: u64) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| Ipv4Addr::from(u32::from(self.base).wrapping_add(index as u32)))
    }
}

fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("`{text}` is not an IPv4 range like 10.42.0.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        Cidr::new(address.parse().map_err(|_| wrong())?, prefix).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Makes the node ready for pods: forwarding, the bridge with the gateway's address. Again it repairs. The nft table
/// (masquerading, Services, host ports) is `services::apply`.
pub fn set_up_node(cidr: Cidr) -> std::io::Result<()> {
    set("ip_forward", "1")?;
    link::ensure_bridge(BRIDGE, cidr.gateway(), cidr.prefix)?;
    // Pods talk to each other through the host on purpose: no "there is a shorter way" messages.
    set("conf/all/send_redirects", "0")?;
    set(&format!("conf/{BRIDGE}/send_redirects"), "0")
}

fn set(key: &str, value: &str) -> std::io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/{key}");
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value)
        .map_err(|err| std::io::Error::new(err.kind(), format!("write {value} to {path}: {err}")))
}

#[cfg(test)]
mod tests;
