//! One bridge on this machine with the hub on it, and a network namespace for every board.
//!
//! In: a slot. Out: addresses that reach each other. Never: changes routes, forwarding or firewalls of the machine.

use crate::process::sh;
use crate::{Result, Slot};

/// Makes the bridge; the hub listens on its address.
pub fn bridge(slot: &Slot) -> Result<String> {
    let (bridge, address) = (slot.bridge(), slot.address(1));
    sh("ip", ["link", "add", &bridge, "type", "bridge"])?;
    sh("ip", ["address", "add", &format!("{address}/24"), "dev", &bridge])?;
    sh("ip", ["link", "set", &bridge, "up"])?;
    Ok(address)
}

/// A board's namespace, connected to the bridge; its address.
pub fn board(slot: &Slot, node: usize) -> Result<String> {
    let namespace = slot.namespace(node);
    let outer = format!("lm{}n{node}", slot.number);
    let address = slot.address(10 + u8::try_from(node).map_err(|_| "too many boards")?);
    sh("ip", ["netns", "add", &namespace])?;
    sh("ip", ["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
    sh("ip", ["link", "set", &outer, "master", &slot.bridge(), "up"])?;
    let inside = |words: &[&str]| sh("ip", ["-netns", &namespace].iter().chain(words).copied());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "add", "default", "via", &slot.address(1)])?;
    Ok(address)
}

/// A TAP device at the bridge, for a board that is a program; its name and the board's address.
pub fn tap(slot: &Slot, node: usize) -> Result<(String, String)> {
    let name = format!("lm{}n{node}", slot.number);
    sh("ip", ["tuntap", "add", "dev", &name, "mode", "tap"])?;
    sh("ip", ["link", "set", &name, "master", &slot.bridge(), "up"])?;
    Ok((name, slot.address(10 + u8::try_from(node).map_err(|_| "too many boards")?)))
}

/// Pulls or plugs a board's cable.
pub fn cable(slot: &Slot, node: usize, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    sh("ip", ["link", "set", &format!("lm{}n{node}", slot.number), state]).map(|_| ())
}
