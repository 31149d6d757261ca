//! Forgets connections that translate to endpoints which are no more.
//!
//! In: the UDP Services before and after a change. Out: deleted conntrack entries. Never: touches TCP (a dead endpoint
//! resets it) or a connection that still leads to a living endpoint.
//!
//! Without this a client that keeps its UDP port, such as a DNS resolver, is sent to a dead pod for minutes.

use super::netlink::{Attributes, Message, Socket};
use super::services::ServiceRule;
use crate::runtime::spec::Protocol;
use std::collections::BTreeMap;
use std::io::Result;
use std::net::Ipv4Addr;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const HEAD: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;
/// Entries of one pass; what is left goes with the next change or by itself.
const STALE_MAX: usize = 10_000;

type Place = (Ipv4Addr, u16);

/// Deletes UDP entries of these Services whose endpoint is not among the new ones, and those that met a node port while
/// it led nowhere.
pub fn forget_stale(old: &[ServiceRule], new: &[ServiceRule]) -> Result<usize> {
    let changed = Changed::between(old, new);
    if changed.addresses.is_empty() && changed.ports.is_empty() {
        return Ok(0);
    }
    let mut stale: Vec<Vec<u8>> = Vec::new();
    let mut socket = Socket::netfilter()?;
    socket.dump(Message::new(GET, 0, &HEAD), |_, body| {
        let Some((original, raw)) = tuple(body, ORIGINAL) else {
            return;
        };
        let Some((reply, _)) = tuple(body, REPLY) else {
            return;
        };
        if original.protocol == UDP && changed.makes_stale(&original, &reply) && stale.len() < STALE_MAX {
            stale.push(raw.to_vec());
        }
    })?;
    let count = stale.len();
    for raw in stale {
        let mut message = Message::new(DELETE, 0, &HEAD);
        message.attr(ORIGINAL | NESTED, &raw);
        match socket.request(vec![message]) {
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) => {} // ended by itself
            other => other?,
        }
    }
    Ok(count)
}

/// Fronts of UDP that have lost endpoints or got their first.
struct Changed {
    /// Virtual addresses with the endpoints that they have now.
    addresses: BTreeMap<Place, Vec<Place>>,
    /// Node ports with the endpoints that they have lost; `None` for one that led nowhere before.
    ports: BTreeMap<u16, Option<Vec<Place>>>,
}

impl Changed {
    fn between(old: &[ServiceRule], new: &[ServiceRule]) -> Changed {
        let udp = |rules: &[ServiceRule]| -> BTreeMap<(Option<Ipv4Addr>, u16), Vec<Place>> {
            let rules = rules.iter().filter(|rule| rule.protocol == Protocol::Udp);
            rules.map(|rule| ((rule.address(), rule.port), rule.backends.clone())).collect()
        };
        let (before, after) = (udp(old), udp(new));
        let mut changed = Changed { addresses: BTreeMap::new(), ports: BTreeMap::new() };
        for (front, then) in &before {
            let now = after.get(front).map_or(&[][..], Vec::as_slice);
            let gone: Vec<Place> = then.iter().filter(|endpoint| !now.contains(endpoint)).copied().collect();
            match front {
                _ if gone.is_empty() => {}
                (Some(ip), port) => _ = changed.addresses.insert((*ip, *port), now.to_vec()),
                (None, port) => _ = changed.ports.insert(*port, Some(gone)),
            }
        }
        let led_nowhere = |front| before.get(front).is_none_or(Vec::is_empty);
        let first = after.iter().filter(|(front, now)| front.0.is_none() && !now.is_empty() && led_nowhere(front));
        changed.ports.extend(first.map(|(front, _)| (front.1, None)));
        changed
    }

    fn makes_stale(&self, original: &Tuple, reply: &Tuple) -> bool {
        let translated = reply.source != original.destination || reply.destination != original.source;
        let of_address = self.addresses.get(&original.destination).is_some_and(|now| !now.contains(&reply.source));
        of_address
            || self.ports.get(&original.destination.1).is_some_and(|gone| match gone {
                Some(gone) => translated && gone.contains(&reply.source),
                None => !translated,
            })
    }
}

struct Tuple {
    source: Place,
    destination: Place,
    protocol: u8,
}

/// One direction of an entry, and its bytes.
fn tuple(body: &[u8], kind: u16) -> Option<(Tuple, &[u8])> {
    let (_, raw) = Attributes(body.get(HEAD.len()..)?).find(|(found, _)| *found == kind)?;
    let part = |kind: u16| Attributes(raw).find(|(found, _)| *found == kind).map(|(_, value)| value);
    let field = |list: &[u8], kind: u16| -> Option<Vec<u8>> {
        Attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value.to_vec())
    };
    let (addresses, protocol) = (part(1)?, part(2)?);
    let ip = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(field(addresses, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(<[u8; 2]>::try_from(field(protocol, kind)?).ok()?));
    let number = *field(protocol, 1)?.first()?;
    Some((Tuple { source: (ip(1)?, port(2)?), destination: (ip(2)?, port(3)?), protocol: number }, raw))
}
