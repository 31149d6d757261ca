//! The pods' resolver: cluster names from the journal, everything else from the host's resolvers.
//!
//! In: DNS questions over UDP and TCP on the bridge's address. Out: answers, also with no hub and no network.
//! Never: recurses, caches, or answers a name of the cluster's domain with somebody else's words.

use limpet_agent_core::services::{Answer, DnsRecord, Names, Wanted};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE, rdata};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
};

const QUESTION_BYTES_MAX: usize = 4096;
/// What fits into a UDP answer without EDNS.
const UDP_BYTES_MAX: usize = 512;
const QUESTIONS_AT_ONCE_MAX: usize = 64;
const TTL_S: u32 = 5;
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The names of now; replaced as a whole when Services change.
#[derive(Clone, Default)]
pub struct Shared {
    names: Arc<RwLock<Arc<Names>>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Shared {
    pub fn replace(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    fn names(&self) -> Arc<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves on `<address>:53`; an earlier server of the same names ends.
pub fn start(address: Ipv4Addr, shared: Shared) {
    let serving = shared.clone();
    let task = tokio::spawn(async move {
        loop {
            let end = serve(address, &serving).await;
            log::warn!("dns: {address}:53: {end}; trying again");
            tokio::time::sleep(BIND_AGAIN).await;
        }
    });
    let old = shared.task.lock().unwrap_or_else(PoisonError::into_inner).replace(task);
    if let Some(old) = old {
        old.abort();
    }
}

async fn serve(address: Ipv4Addr, shared: &Shared) -> std::io::Error {
    let bind = async {
        let udp = UdpSocket::bind((address, 53)).await?;
        let tcp = TcpListener::bind((address, 53)).await?;
        Ok::<_, std::io::Error>((Arc::new(udp), tcp))
    };
    let (udp, tcp) = match bind.await {
        Ok(both) => both,
        Err(e) => return e,
    };
    let permits = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE_MAX));
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        tokio::select! {
            got = udp.recv_from(&mut buffer) => match got {
                Ok((len, from)) => {
                    let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                    let (udp, shared, question) = (udp.clone(), shared.clone(), buffer[..len].to_vec());
                    tokio::spawn(async move {
                        if let Some(answer) = answer(&shared, address, &question, false).await {
                            let _ = udp.send_to(&answer, from).await;
                        }
                        drop(permit);
                    });
                }
                Err(e) => return e,
            },
            got = tcp.accept() => match got {
                Ok((stream, _)) => {
                    let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(TCP_TIMEOUT, converse(stream, &shared, address)).await;
                        drop(permit);
                    });
                }
                Err(e) => return e,
            },
        }
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared, own: Ipv4Addr) -> std::io::Result<()> {
    loop {
        let len = usize::from(stream.read_u16().await?);
        if len > QUESTION_BYTES_MAX {
            return Ok(());
        }
        let mut question = vec![0; len];
        stream.read_exact(&mut question).await?;
        let Some(answer) = answer(shared, own, &question, true).await else { return Ok(()) };
        stream.write_u16(answer.len() as u16).await?;
        stream.write_all(&answer).await?;
    }
}

/// `None`: not worth an answer.
async fn answer(shared: &Shared, own: Ipv4Addr, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let query = Packet::parse(bytes).ok()?;
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let [question] = query.questions.as_slice() else { return reply(&query, RCODE::FormatError, Vec::new()) };
    let Some(wanted) = wanted(question.qtype) else {
        return forward(own, bytes, tcp).await.or_else(|| reply(&query, RCODE::ServerFailure, Vec::new()));
    };
    let name = question.qname.to_string();
    let answer = match shared.names().lookup(&name, wanted) {
        Answer::NotOurs => {
            return forward(own, bytes, tcp).await.or_else(|| reply(&query, RCODE::ServerFailure, Vec::new()));
        }
        Answer::NoSuchName => reply(&query, RCODE::NameError, Vec::new()),
        Answer::Records(records) => {
            let mut answers: Vec<ResourceRecord<'_>> =
                records.iter().filter_map(|r| record(&question.qname, r)).collect();
            if let [DnsRecord::Cname(target)] = records.as_slice() {
                answers.extend(follow(own, target, question.qtype).await);
            }
            reply(&query, RCODE::NoError, answers)
        }
    };
    answer.map(|bytes| if tcp || bytes.len() <= UDP_BYTES_MAX { bytes } else { truncated(&query).unwrap_or(bytes) })
}

fn wanted(kind: QTYPE) -> Option<Wanted> {
    Some(match kind {
        QTYPE::TYPE(TYPE::A) => Wanted::A,
        QTYPE::TYPE(TYPE::AAAA) => Wanted::Aaaa,
        QTYPE::TYPE(TYPE::SRV) => Wanted::Srv,
        QTYPE::TYPE(TYPE::PTR) => Wanted::Ptr,
        QTYPE::ANY => Wanted::Any,
        // Other types of a cluster name exist but are empty; the look-up tells which names are ours.
        QTYPE::TYPE(_) => Wanted::Ptr,
        _ => return None,
    })
}

fn record<'a>(owner: &Name<'_>, record: &DnsRecord) -> Option<ResourceRecord<'a>> {
    let data = match record {
        DnsRecord::Address(IpAddr::V4(ip)) => rdata::RData::A(rdata::A::from(*ip)),
        DnsRecord::Address(IpAddr::V6(ip)) => rdata::RData::AAAA(rdata::AAAA::from(*ip)),
        DnsRecord::Srv { port, target } => {
            let target = Name::new(target).ok()?.into_owned();
            rdata::RData::SRV(rdata::SRV { priority: 0, weight: 100, port: *port, target })
        }
        DnsRecord::Cname(target) => rdata::RData::CNAME(rdata::CNAME(Name::new(target).ok()?.into_owned())),
        DnsRecord::Ptr(target) => rdata::RData::PTR(rdata::PTR(Name::new(target).ok()?.into_owned())),
    };
    Some(ResourceRecord::new(owner.clone().into_owned(), CLASS::IN, TTL_S, data))
}

fn reply(query: &Packet<'_>, code: RCODE, answers: Vec<ResourceRecord<'_>>) -> Option<Vec<u8>> {
    let mut packet = Packet::new_reply(query.id());
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *packet.rcode_mut() = code;
    packet.questions.extend(query.questions.iter().cloned());
    packet.answers = answers;
    packet.build_bytes_vec_compressed().ok()
}

fn truncated(query: &Packet<'_>) -> Option<Vec<u8>> {
    let mut packet = Packet::new_reply(query.id());
    packet.set_flags(PacketFlag::TRUNCATION | PacketFlag::AUTHORITATIVE_ANSWER);
    packet.questions.extend(query.questions.iter().cloned());
    packet.build_bytes_vec_compressed().ok()
}

/// The host's resolvers, without this one.
fn resolvers(own: Ipv4Addr) -> Vec<IpAddr> {
    let text = crate::device::host_file("/etc/resolv.conf");
    let lines = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver"));
    lines.filter_map(|l| l.trim().parse().ok()).filter(|ip| *ip != IpAddr::V4(own)).take(3).collect()
}

/// Asks the host's resolvers, all at once so that a dead one costs nothing; the first answer's bytes are passed on as they are.
async fn forward(own: Ipv4Addr, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    use futures_util::{StreamExt, stream::FuturesUnordered};
    let mut asked: FuturesUnordered<_> = resolvers(own)
        .into_iter()
        .map(|resolver| async move {
            let target = SocketAddr::new(resolver, 53);
            if tcp { ask_tcp(target, question).await } else { ask_udp(target, question).await }
        })
        .collect();
    let first = async {
        while let Some(result) = asked.next().await {
            if let Ok(answer) = result
                && answer.get(..2) == question.get(..2)
            {
                return Some(answer);
            }
        }
        None
    };
    tokio::time::timeout(FORWARD_TIMEOUT, first).await.ok().flatten()
}

async fn ask_udp(target: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    let len = socket.recv(&mut buffer).await?;
    buffer.truncate(len);
    Ok(buffer)
}

async fn ask_tcp(target: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_u16(question.len() as u16).await?;
    stream.write_all(question).await?;
    let len = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; len];
    stream.read_exact(&mut buffer).await?;
    Ok(buffer)
}

/// The addresses behind an ExternalName, as the host's resolvers know them.
async fn follow(own: Ipv4Addr, target: &str, kind: QTYPE) -> Vec<ResourceRecord<'static>> {
    let Ok(name) = Name::new(target) else { return Vec::new() };
    let mut query = Packet::new_query(1);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(name, kind, simple_dns::QCLASS::CLASS(CLASS::IN), false));
    let Ok(bytes) = query.build_bytes_vec() else { return Vec::new() };
    let Some(answer) = forward(own, &bytes, false).await else { return Vec::new() };
    match Packet::parse(&answer) {
        Ok(packet) => packet.answers.into_iter().map(ResourceRecord::into_owned).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod dns_tests {
    use super::*;
    use limpet_agent_core::services::{ServiceEntry, ServicePortEntry};

    fn shared() -> Shared {
        let port = ServicePortEntry { name: "http".into(), protocol: "TCP".into(), port: 80, ..Default::default() };
        let web = ServiceEntry {
            namespace: "default".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.10".into()],
            ports: vec![port],
            ..ServiceEntry::default()
        };
        let shared = Shared::default();
        shared.replace(Names::new("cluster.local", vec![web]));
        shared
    }

    fn ask(name: &str, kind: TYPE) -> Vec<u8> {
        let mut query = Packet::new_query(77);
        let question = Question::new(
            Name::new_unchecked(name).into_owned(),
            QTYPE::TYPE(kind),
            simple_dns::QCLASS::CLASS(CLASS::IN),
            false,
        );
        query.questions.push(question);
        query.build_bytes_vec().unwrap()
    }

    #[test]
    fn answers_of_every_kind() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shared = shared();
            for (name, kind, code, answers) in [
                ("web.default.svc.cluster.local", TYPE::A, RCODE::NoError, 1),
                ("web.default.svc.cluster.local", TYPE::AAAA, RCODE::NoError, 0),
                ("web.default.svc.cluster.local", TYPE::MX, RCODE::NoError, 0),
                ("_http._tcp.web.default.svc.cluster.local", TYPE::SRV, RCODE::NoError, 1),
                ("no.default.svc.cluster.local", TYPE::A, RCODE::NameError, 0),
                ("10.0.96.10.in-addr.arpa", TYPE::PTR, RCODE::NoError, 1),
            ] {
                let bytes = answer(&shared, Ipv4Addr::LOCALHOST, &ask(name, kind), false).await.unwrap();
                let packet = Packet::parse(&bytes).unwrap();
                assert_eq!((packet.id(), packet.rcode(), packet.answers.len()), (77, code, answers), "{name} {kind:?}");
            }
            for hostile in [&b""[..], b"x", &[0xff; 40], &ask("a", TYPE::A)[..9]] {
                assert!(answer(&shared, Ipv4Addr::LOCALHOST, hostile, false).await.is_none());
            }
        });
    }
}
