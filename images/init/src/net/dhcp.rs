//! A DHCP client (RFC 2131): one address for one card, kept as long as the network gives it.
//!
//! In: answers of whoever is on the cable (hostile until parsed). Out: leases.
//! Never: an answer to a question that was not asked; a wait without an end.

use crate::log::say;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use std::{
    fs,
    io::Result,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const ANSWER: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(32);
/// A look at a card's carrier is a file of the kernel's.
const LOOK: Duration = Duration::from_secs(1);
const LEASE_MIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    server: Ipv4Addr,
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// Runs for ever; `got` hears every new or renewed lease.
pub fn keep(card: &str, name: &str, got: impl Fn(&Lease)) {
    let mut pause = PAUSE_MIN;
    let mut carrier = Carrier::of(card);
    loop {
        // Nobody is asked where nothing is plugged in, or no network has let the radio in.
        if carrier.wait() {
            pause = PAUSE_MIN;
        }
        match obtain(card, name) {
            Ok(lease) => {
                pause = PAUSE_MIN;
                got(&lease);
                // Half of its life, as T1 of the RFC; asking anew from the beginning gives the same address.
                let life = Duration::from_secs(u64::from(lease.seconds)).max(LEASE_MIN);
                carrier.sleep(life / 2);
            }
            Err(why) => {
                if pause == PAUSE_MAX / 2 {
                    say!("{card}: no address yet: {why}");
                }
                carrier.sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Runs for ever: each time that somebody is at the other end.
pub fn at_each_carrier(card: &str, there: impl Fn()) {
    let mut carrier = Carrier::of(card);
    loop {
        carrier.wait();
        there();
        carrier.sleep(Duration::MAX);
    }
}

/// Whether there is anybody at the other end, and whether that was so all the time.
struct Carrier {
    at: std::path::PathBuf,
    changes: Option<u64>,
}

impl Carrier {
    fn of(card: &str) -> Carrier {
        let at = std::path::Path::new("/sys/class/net").join(card);
        let changes = count(&at);
        Carrier { at, changes }
    }

    /// Until there is one; whether it is another than before.
    fn wait(&mut self) -> bool {
        let none = |at: &std::path::Path| match fs::read_to_string(at.join("carrier")) {
            Ok(text) => text.trim() != "1",
            // A card that is off cannot say; a radio's is switched on once it has a supplicant.
            Err(_) => at.join("phy80211").exists(),
        };
        while none(&self.at) {
            std::thread::sleep(LOOK / 4);
        }
        let now = count(&self.at);
        std::mem::replace(&mut self.changes, now) != now
    }

    /// So long, or until the cable or the network is another.
    fn sleep(&self, time: Duration) {
        let begun = Instant::now();
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|d| !d.is_zero()) {
            if count(&self.at) != self.changes {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// How often it came and went.
fn count(card: &std::path::Path) -> Option<u64> {
    fs::read_to_string(card.join("carrier_changes")).ok()?.trim().parse().ok()
}

fn obtain(card: &str, name: &str) -> Result<Lease> {
    let mac = mac(card)?;
    let socket = UdpSocket::bind("0.0.0.0:68")?;
    socket.set_broadcast(true)?;
    setsockopt(&socket, BindToDevice, &card.into())?;
    let id = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]) ^ Instant::now().elapsed().subsec_nanos() ^ std::process::id();
    let ask = |message: &[u8], wanted: &[Kind]| -> Result<(Kind, Lease)> {
        socket.send_to(message, "255.255.255.255:67")?;
        let start = Instant::now();
        let mut buffer = [0u8; 1500];
        loop {
            let left = ANSWER.checked_sub(start.elapsed()).filter(|d| !d.is_zero());
            socket.set_read_timeout(Some(left.ok_or(std::io::ErrorKind::TimedOut)?))?;
            let (n, _) = socket.recv_from(&mut buffer)?;
            match parse(&buffer[..n], id, &mac) {
                Some((kind, lease)) if wanted.contains(&kind) => return Ok((kind, lease)),
                _ => {}
            }
        }
    };
    let (_, offer) = ask(&message(Kind::Discover, id, &mac, name, None), &[Kind::Offer])?;
    match ask(&message(Kind::Request, id, &mac, name, Some(&offer)), &[Kind::Ack, Kind::Nak])? {
        (Kind::Ack, lease) => Ok(lease),
        _ => Err(std::io::Error::other("the server took its offer back")),
    }
}

fn mac(card: &str) -> Result<[u8; 6]> {
    let text = fs::read_to_string(format!("/sys/class/net/{card}/address"))?;
    let mut mac = [0; 6];
    for (byte, hex) in mac.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(hex, 16).map_err(std::io::Error::other)?;
    }
    Ok(mac)
}

fn message(kind: Kind, id: u32, mac: &[u8; 6], name: &str, offer: Option<&Lease>) -> Vec<u8> {
    let mut m = vec![0u8; 236];
    m[..4].copy_from_slice(&[1, 1, 6, 0]);
    m[4..8].copy_from_slice(&id.to_be_bytes());
    // Answers as a broadcast: this card has no address to send them to.
    m[10] = 0x80;
    m[28..34].copy_from_slice(mac);
    m.extend(COOKIE);
    let mut option = |code: u8, value: &[u8]| {
        m.extend([code, value.len() as u8]);
        m.extend(value);
    };
    option(53, &[kind as u8]);
    option(61, &[&[1], &mac[..]].concat());
    option(12, &name.as_bytes()[..name.len().min(63)]);
    if let Some(offer) = offer {
        option(50, &offer.address.octets());
        option(54, &offer.server.octets());
    }
    option(55, &[1, 3, 6, 42, 51]);
    m.push(255);
    m
}

fn parse(m: &[u8], id: u32, mac: &[u8; 6]) -> Option<(Kind, Lease)> {
    if m.len() < 241 || m[0] != 2 || m[4..8] != id.to_be_bytes() || m[28..34] != *mac || m[236..240] != COOKIE {
        return None;
    }
    let ip = |b: &[u8]| Ipv4Addr::new(b[0], b[1], b[2], b[3]);
    let ips = |b: &[u8]| b.chunks_exact(4).take(4).map(ip).collect::<Vec<_>>();
    let mut lease = Lease {
        address: ip(&m[16..20]),
        prefix: 24,
        router: None,
        dns: Vec::new(),
        ntp: Vec::new(),
        server: Ipv4Addr::UNSPECIFIED,
        seconds: 3600,
    };
    let (mut kind, mut at) = (None, 240);
    while let Some(code) = m.get(at).copied().filter(|c| *c != 255) {
        if code == 0 {
            at += 1;
            continue;
        }
        let length = usize::from(*m.get(at + 1)?);
        let value = m.get(at + 2..at + 2 + length)?;
        at += 2 + length;
        match (code, length) {
            (53, 1) => kind = [Kind::Offer, Kind::Ack, Kind::Nak].into_iter().find(|k| *k as u8 == value[0]),
            (1, 4) => lease.prefix = u32::from_be_bytes([value[0], value[1], value[2], value[3]]).count_ones() as u8,
            (3, 4..) => lease.router = Some(ip(value)),
            (6, 4..) => lease.dns = ips(value),
            (42, 4..) => lease.ntp = ips(value),
            (51, 4) => lease.seconds = u32::from_be_bytes([value[0], value[1], value[2], value[3]]),
            (54, 4) => lease.server = ip(value),
            _ => {}
        }
    }
    let fit = !lease.address.is_unspecified() && !lease.address.is_multicast() && !lease.address.is_loopback();
    (fit || kind == Some(Kind::Nak)).then_some((kind?, lease))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut m = message(Kind::Offer, 7, &[1, 2, 3, 4, 5, 6], "", None);
        m[0] = 2;
        m[16..20].copy_from_slice(&[10, 0, 2, 15]);
        m.pop();
        m.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 8, 10, 0, 2, 3, 8, 8, 8, 8]);
        m.extend([51, 4, 0, 0, 0, 120, 54, 4, 10, 0, 2, 2, 255]);
        m
    }

    #[test]
    fn answers_are_read_and_doubted() {
        let mac = [1, 2, 3, 4, 5, 6];
        let (kind, lease) = parse(&answer(), 7, &mac).unwrap();
        assert!(kind == Kind::Offer);
        assert_eq!((lease.address.to_string(), lease.prefix, lease.seconds), ("10.0.2.15".into(), 24, 120));
        assert_eq!((lease.router.unwrap().to_string(), lease.dns.len()), ("10.0.2.2".into(), 2));
        assert!(parse(&answer(), 8, &mac).is_none(), "another question's");
        assert!(parse(&answer(), 7, &[9; 6]).is_none(), "another card's");
        let good = answer();
        for cut in 0..good.len() {
            let _ = parse(&good[..cut], 7, &mac);
        }
        let mut endless = good.clone();
        endless.truncate(240);
        endless.extend([53, 255]);
        assert!(parse(&endless, 7, &mac).is_none());
        let mut nowhere = good;
        nowhere[16..20].fill(0);
        assert!(parse(&nowhere, 7, &mac).is_none());
    }
}
