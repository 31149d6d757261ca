//! The hub's names that end in `.local`, answered in its own networks (RFC 6762): boards find it there without a name server, and
//! after it got another address.
//!
//! In: multicast questions of whoever is in a network of this machine. Out: this machine's addresses in that network.
//! Never: answers for a name that the operator did not give; more than one packet for one.

use nix::ifaddrs::getifaddrs;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE, rdata};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
const QUESTION_BYTES_MAX: usize = 9000;
const QUESTIONS_MAX: usize = 16;
/// A hub with a new address is found by it after that.
const TTL_S: u32 = 10;
/// Networks may come and go.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Those of `hosts` that nobody else answers.
pub fn local_names(hosts: &[String]) -> Vec<String> {
    let local = |host: &&String| host.len() > ".local".len() && host.to_ascii_lowercase().ends_with(".local");
    hosts.iter().filter(local).cloned().collect()
}

/// Answers for `names` until the hub ends. `only`: the one address that the hub listens at.
pub fn start(names: Vec<String>, only: Option<IpAddr>) {
    if names.is_empty() {
        return;
    }
    let socket = match open().and_then(tokio::net::UdpSocket::from_std) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, ?names, "the hub cannot answer for its name in the local network: port 5353 is not to be had");
            return;
        }
    };
    tracing::info!(?names, "the hub answers to its name in the local network");
    tokio::spawn(async move {
        let mut buffer = vec![0; QUESTION_BYTES_MAX];
        loop {
            for network in networks(only) {
                // Joined already is as good.
                let _ = socket.join_multicast_v4(GROUP, network.0);
            }
            let end = tokio::time::Instant::now() + LOOK_AGAIN;
            while let Ok(got) = tokio::time::timeout_at(end, socket.recv_from(&mut buffer)).await {
                let Ok((length, SocketAddr::V4(from))) = got else { continue };
                let Some((answer, to)) = answer(&buffer[..length], from, &names, &networks(only)) else { continue };
                let _ = socket.send_to(&answer, to).await;
            }
        }
    });
}

/// Shared with other responders of this machine.
fn open() -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT).into())?;
    Ok(socket.into())
}

/// This machine's address in each network, and the network's mask.
fn networks(only: Option<IpAddr>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let own = |i: nix::ifaddrs::InterfaceAddress| {
        let mask = i.netmask.and_then(|m| m.as_sockaddr_in().map(|m| m.ip()))?;
        Some((i.address?.as_sockaddr_in()?.ip(), mask))
    };
    let all = getifaddrs().into_iter().flatten().filter_map(own);
    all.filter(|(ip, _)| !ip.is_loopback() && only.is_none_or(|one| one == IpAddr::V4(*ip))).collect()
}

/// The answer and to whom: who asks once, from a port of its own, is answered alone; others all hear it.
fn answer(
    question: &[u8],
    from: SocketAddrV4,
    names: &[String],
    networks: &[(Ipv4Addr, Ipv4Addr)],
) -> Option<(Vec<u8>, SocketAddrV4)> {
    let query = Packet::parse(question).ok()?;
    // Only those of the same network: what comes from elsewhere did not come by multicast.
    let near = |(ip, mask): &&(Ipv4Addr, Ipv4Addr)| ip.to_bits() & mask.to_bits() == from.ip().to_bits() & mask.to_bits();
    let (own, _) = networks.iter().find(near)?;
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let once = from.port() != PORT;
    let mut reply = Packet::new_reply(if once { query.id() } else { 0 });
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    for asked in query.questions.iter().take(QUESTIONS_MAX) {
        let wanted = asked.qname.to_string();
        let address = matches!(asked.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY);
        if once {
            reply.questions.push(asked.clone());
        }
        if let Some(name) = names.iter().find(|n| address && n.trim_end_matches('.').eq_ignore_ascii_case(&wanted)) {
            let data = rdata::RData::A(rdata::A { address: own.to_bits() });
            reply.answers.push(ResourceRecord::new(Name::new(name).ok()?.into_owned(), CLASS::IN, TTL_S, data));
        }
    }
    if reply.answers.is_empty() {
        return None;
    }
    let to = if once { from } else { SocketAddrV4::new(GROUP, PORT) };
    Some((reply.build_bytes_vec().ok()?, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{QCLASS, Question};

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), true));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn own_names_are_answered_to_neighbours_and_nothing_else_is() {
        let names = local_names(&["Hub.local".into(), "hub.example".into(), ".local".into(), "10.0.0.1".into()]);
        assert_eq!(names, ["Hub.local"]);
        let networks = [("192.0.2.1", "255.255.255.0"), ("10.9.0.1", "255.255.0.0")];
        let networks = networks.map(|(ip, mask)| (ip.parse().unwrap(), mask.parse().unwrap()));
        let ask = |bytes: &[u8], from: &str| answer(bytes, from.parse().unwrap(), &names, &networks);
        let (bytes, to) = ask(&question("hub.LOCAL", TYPE::A), "10.9.3.4:40000").unwrap();
        assert_eq!(to, "10.9.3.4:40000".parse().unwrap());
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.id(), reply.questions.len(), reply.answers.len()), (77, 1, 1));
        assert_eq!(reply.answers[0].rdata, rdata::RData::A(rdata::A { address: u32::from_be_bytes([10, 9, 0, 1]) }));
        // A responder's own question is answered to all.
        let (bytes, to) = ask(&question("hub.local", TYPE::A), "192.0.2.9:5353").unwrap();
        assert_eq!((to, Packet::parse(&bytes).unwrap().id()), ("224.0.0.251:5353".parse().unwrap(), 0));
        for (bytes, from) in [
            (question("hub.local", TYPE::A), "198.51.100.1:40000"),
            (question("bub.local", TYPE::A), "10.9.3.4:40000"),
            (question("hub.local", TYPE::TXT), "10.9.3.4:40000"),
            (b"nonsense".to_vec(), "10.9.3.4:40000"),
            (Packet::new_reply(1).build_bytes_vec().unwrap(), "10.9.3.4:40000"),
        ] {
            assert!(ask(&bytes, from).is_none(), "{from} {bytes:?}");
        }
    }
}
