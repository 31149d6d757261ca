//! Names that end in `.local`, asked of the board's own networks (RFC 6762, one-shot queries): a static program has no other
//! resolver that does.
//!
//! In: a name, a port. Out: a TCP connection. All other names are the system's business.
//! Never: trusts an answer. Whoever is on the cable may give one; that it is the hub is for TLS to tell.

use nix::ifaddrs::getifaddrs;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE, rdata::RData};
use std::{
    io::{Error, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
/// After the first one; a radio loses the one or the other.
const AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(900)];
const PATIENCE: Duration = Duration::from_secs(2);
const NETWORKS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 8;
const ANSWER_BYTES_MAX: usize = 9000;

/// Like `TcpStream::connect`, for names of the local network, too.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, Error> {
    if !is_local(host) {
        return TcpStream::connect((host, port)).await;
    }
    let mut last = Error::from(ErrorKind::NotFound);
    for address in resolve(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Error::new(e.kind(), format!("{host} is {}, which cannot be reached: {e}", address.ip())),
        }
    }
    Err(last)
}

/// At least one address, or an error.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let found: Vec<SocketAddr> = match is_local(host) {
        false => tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect(),
        true => lookup(host).await?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
    };
    match found.is_empty() {
        true => Err(Error::new(ErrorKind::NotFound, format!("nobody in this network answers to the name {host}"))),
        false => Ok(found),
    }
}

fn is_local(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name.len() > ".local".len() && name.ends_with(".local")
}

/// This board's networks, by its own address in each.
fn networks() -> Vec<Ipv4Addr> {
    use nix::net::if_::InterfaceFlags as Flags;
    let wanted = Flags::IFF_UP | Flags::IFF_MULTICAST;
    let own = |i: nix::ifaddrs::InterfaceAddress| {
        let fit = i.flags.contains(wanted) && !i.flags.contains(Flags::IFF_LOOPBACK);
        i.address.filter(|_| fit)?.as_sockaddr_in().map(|a| a.ip())
    };
    getifaddrs().into_iter().flatten().filter_map(own).take(NETWORKS_MAX).collect()
}

async fn lookup(host: &str) -> Result<Vec<IpAddr>, Error> {
    let id = getrandom::u32().map_err(|e| Error::other(e.to_string()))? as u16;
    let question = question(id, host)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_multicast_loop_v4(true)?;
    let begun = Instant::now();
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    for end in AGAIN.into_iter().chain([PATIENCE]) {
        ask(&socket, &question).await;
        while let Ok(got) = timeout_at(begun + end, socket.recv_from(&mut buffer)).await {
            let (length, _) = got?;
            let found = addresses(&buffer[..length], id, host);
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(Vec::new())
}

/// Into each network; one that does not take it is passed over.
async fn ask(socket: &UdpSocket, question: &[u8]) {
    for own in networks() {
        if socket2::SockRef::from(socket).set_multicast_if_v4(&own).is_ok() {
            let _ = socket.send_to(question, GROUP).await;
        }
    }
}

fn question(id: u16, host: &str) -> Result<Vec<u8>, Error> {
    let wrong = |e: simple_dns::SimpleDnsError| Error::new(ErrorKind::InvalidInput, format!("the name {host:?}: {e}"));
    let mut packet = Packet::new_query(id);
    for kind in [TYPE::A, TYPE::AAAA] {
        let name = Name::new(host).map_err(wrong)?;
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), true));
    }
    packet.build_bytes_vec().map_err(wrong)
}

/// Of an answer to our question; nothing of anything else.
fn addresses(bytes: &[u8], id: u16, host: &str) -> Vec<IpAddr> {
    let Ok(packet) = Packet::parse(bytes) else { return Vec::new() };
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return Vec::new();
    }
    let wanted = host.strip_suffix('.').unwrap_or(host);
    let ours = packet.answers.iter().filter(|a| a.name.to_string().eq_ignore_ascii_case(wanted));
    let ip = |data: &RData<'_>| match data {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) => Some(IpAddr::V6(a.address.into())),
        _ => None,
    };
    let sound = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    let mut found: Vec<IpAddr> = ours.filter_map(|a| ip(&a.rdata)).filter(sound).take(ADDRESSES_MAX).collect();
    // Those of version 4 first: addresses of the link alone would need the interface's name, too.
    found.retain(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{ResourceRecord, rdata};

    fn answer(id: u16, name: &str, ip: [u8; 4], reply: bool) -> Vec<u8> {
        let mut packet = if reply { Packet::new_reply(id) } else { Packet::new_query(id) };
        let data = rdata::RData::A(rdata::A { address: u32::from_be_bytes(ip) });
        packet.answers.push(ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, 10, data));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn only_answers_to_the_question_count() {
        let good = answer(7, "Hub.local", [10, 0, 0, 1], true);
        assert_eq!(addresses(&good, 7, "hub.local"), [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(addresses(&good, 7, "hub.local."), [IpAddr::from([10, 0, 0, 1])]);
        for bad in [
            answer(8, "hub.local", [10, 0, 0, 1], true),
            answer(7, "bub.local", [10, 0, 0, 1], true),
            answer(7, "hub.local", [10, 0, 0, 1], false),
            answer(7, "hub.local", [127, 0, 0, 1], true),
            answer(7, "hub.local", [224, 0, 0, 251], true),
            good[..good.len() - 1].to_vec(),
            Vec::new(),
        ] {
            assert!(addresses(&bad, 7, "hub.local").is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_the_local_network_are_told_from_others() {
        let names = [("hub.local", true), ("HUB.Local.", true), (".local", false), ("local", false), ("10.0.0.1", false)];
        for (name, local) in names {
            assert_eq!(is_local(name), local, "{name}");
        }
        assert!(question(1, &"x".repeat(64)).is_err());
        let asked = question(1, "hub.local").unwrap();
        assert_eq!(Packet::parse(&asked).unwrap().questions.len(), 2);
    }
}
