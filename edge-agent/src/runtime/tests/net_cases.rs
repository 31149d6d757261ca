//! Services, host ports and masquerading, with real packets in the world's own network namespace.

use super::world::{World, read_until};
use crate::net::services::{Affinity, Front, PortRule, ServiceRule, apply};
use crate::net::{Cidr, nft};
use crate::runtime::*;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// Pods that answer with their names at 8080.
async fn servers(world: &World) -> Vec<(Ipv4Addr, u16)> {
    let mut backends = Vec::new();
    for name in ["one", "two"] {
        let info = world.pod(name).await;
        let script = format!("echo up; exec nc -ll -p 8080 -e echo {name}");
        let started = world.runtime.start_container(&world.container(name, name, &script)).await.unwrap();
        read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "up").await;
        backends.push((info.ip.unwrap(), 8080));
    }
    backends
}

/// What the board itself is answered.
async fn from_board(address: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
    Ok(text)
}

/// The board's UDP connections whose lines have all of these words.
fn connections(words: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap_or_default();
    text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

/// The node itself is a client of this address: it needs a route that covers it.
fn route(vip: Ipv4Addr) {
    let route = format!("ip route add {vip}/32 dev {}", crate::net::BRIDGE);
    std::process::Command::new("sh").args(["-c", &route]).status().unwrap();
}

pub async fn services(mut world: World) {
    let vip = Ipv4Addr::new(10, 96, 0, 10);
    let backends = servers(&world).await;
    world.pod("client").await;
    let cidr = "10.77.0.0/24".parse().unwrap();
    let rule = |backends: &[(Ipv4Addr, u16)]| ServiceRule {
        front: Front::Address(vip),
        protocol: Protocol::Tcp,
        port: 80,
        backends: backends.to_vec(),
        affinity: None,
    };
    apply(cidr, &[rule(&backends)], &[]).unwrap();
    let ask = |n: usize| format!("i=0; while [ $i -lt {n} ]; do timeout 5 nc -w 2 10.96.0.10 80 && i=$((i+1)); done");
    let text = world.output(&world.container("client", "c1", &ask(20))).await;
    assert!(text.contains("one") && text.contains("two"), "both pods answer: {text}");
    // A pod through its own Service, alone behind it: the hairpin, with and without br_netfilter.
    apply(cidr, &[rule(&backends[..1])], &[]).unwrap();
    for filter in ["1", "0"] {
        if std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filter).is_err() {
            println!("br_netfilter is not loaded");
        }
        let text = world.output(&world.container("one", &format!("hairpin{filter}"), &ask(2))).await;
        assert_eq!(text, "one\none\n", "br_netfilter {filter}");
        apply(cidr, &[rule(&backends)], &[]).unwrap();
        let text = world.output(&world.container("client", &format!("both{filter}"), &ask(20))).await;
        assert!(text.contains("one") && text.contains("two"), "br_netfilter {filter}: {text}");
        apply(cidr, &[rule(&backends[..1])], &[]).unwrap();
    }
    // From the node itself, and a port of the host.
    let port = PortRule { host_ip: None, host_port: 9090, protocol: Protocol::Tcp, pod_ip: backends[1].0, pod_port: 8080 };
    apply(cidr, &[rule(&backends[..1])], std::slice::from_ref(&port)).unwrap();
    for (address, expect) in [("10.77.0.1:9090", "two\n")] {
        assert_eq!(from_board(address).await.unwrap(), expect);
    }
    // No endpoint: refused at once instead of a time-out.
    apply(cidr, &[rule(&[])], &[]).unwrap();
    let text = world.output(&world.container("client", "c3", "nc -w 20 10.96.0.10 80 || echo refused")).await;
    assert!(text.contains("refused"), "{text}");
    // Many at once: one batch.
    let many: Vec<ServiceRule> = (0..300u16)
        .map(|i| ServiceRule { port: 1000 + i, backends: backends.clone(), ..rule(&[]) })
        .chain([rule(&backends)])
        .collect();
    let begun = std::time::Instant::now();
    apply(cidr, &many, &[port]).unwrap();
    println!("{} services in {:?}", many.len(), begun.elapsed());
    let text = world.output(&world.container("client", "c4", &ask(1))).await;
    assert!(text == "one\n" || text == "two\n", "{text}");
}

/// A client that keeps its UDP port follows the Service to a new endpoint.
pub async fn udp(world: World) {
    let vip = Ipv4Addr::new(10, 96, 0, 53);
    let mut backends = Vec::new();
    for name in ["one", "two"] {
        let info = world.pod(name).await;
        backends.push((info.ip.unwrap(), 5353));
    }
    let rule = |backends: &[(Ipv4Addr, u16)]| {
        vec![ServiceRule {
            front: Front::Address(vip),
            protocol: Protocol::Udp,
            port: 53,
            backends: backends.to_vec(),
            affinity: None,
        }]
    };
    route(vip);
    world.runtime.set_services(rule(&backends[..1])).unwrap();
    let client = UdpSocket::bind("10.77.0.1:4444").unwrap();
    client.send_to(b"?", (vip, 53)).unwrap();
    let entries = || connections(&["sport=4444", "dport=53 "]);
    let first = entries();
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].contains(&format!("src={}", backends[0].0)), "{first:?}");
    world.runtime.set_services(rule(&backends)).unwrap();
    assert_eq!(entries().len(), 1, "a living endpoint keeps its connections");
    world.runtime.set_services(rule(&backends[1..])).unwrap();
    assert_eq!(entries(), Vec::<String>::new());
    client.send_to(b"?", (vip, 53)).unwrap();
    let second = entries();
    assert!(second[0].contains(&format!("src={}", backends[1].0)), "{second:?}");
}

/// At every address of the board but loopback's, beside host ports, for TCP and UDP.
pub async fn node_ports(mut world: World) {
    let backends = servers(&world).await;
    world.pod("client").await;
    let cidr: Cidr = "10.77.0.0/24".parse().unwrap();
    let rule = |protocol, masquerade, backends: &[(Ipv4Addr, u16)]| ServiceRule {
        front: Front::Node { masquerade },
        protocol,
        port: 30_080,
        backends: backends.to_vec(),
        affinity: None,
    };
    let ask = "i=0; while [ $i -lt 20 ]; do timeout 5 nc -w 2 10.77.0.1 30080 && i=$((i+1)); done";
    for masquerade in [true, false] {
        apply(cidr, &[rule(Protocol::Tcp, masquerade, &backends)], &[]).unwrap();
        let text = world.output(&world.container("client", &format!("c{masquerade}"), ask)).await;
        assert!(text.contains("one") && text.contains("two"), "both pods answer: {text}");
        apply(cidr, &[rule(Protocol::Tcp, masquerade, &backends[..1])], &[]).unwrap();
        assert_eq!(from_board("10.77.0.1:30080").await.unwrap(), "one\n");
        // A pod that is its own endpoint.
        let text = world.output(&world.container("one", &format!("own{masquerade}"), "nc -w 2 10.77.0.1 30080")).await;
        assert_eq!(text, "one\n", "masquerade {masquerade}");
        let refused = from_board("127.0.0.1:30080").await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    // Two Services with one port (the second's news came first), and a pod's own port with that number.
    let twice = [rule(Protocol::Tcp, false, &backends[..1]), rule(Protocol::Tcp, true, &backends[1..])];
    apply(cidr, &twice, &[]).unwrap();
    assert_eq!(from_board("10.77.0.1:30080").await.unwrap(), "one\n");
    let port = PortRule { host_ip: None, host_port: 30_080, protocol: Protocol::Tcp, pod_ip: backends[1].0, pod_port: 8080 };
    apply(cidr, &twice[..1], &[port]).unwrap();
    assert_eq!(from_board("10.77.0.1:30080").await.unwrap(), "two\n");
    // Without endpoints nobody answers.
    apply(cidr, &[rule(Protocol::Tcp, true, &[])], &[]).unwrap();
    assert_eq!(from_board("10.77.0.1:30080").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // A client that keeps its UDP port and was there before the endpoints.
    let client = UdpSocket::bind("10.77.0.1:4445").unwrap();
    let entries = || connections(&["sport=4445", "dport=30080 "]);
    let mut last = Vec::new();
    for (now, what) in [(&backends[..0], None), (&backends[..1], Some(0)), (&backends[1..], Some(1)), (&backends[..0], None)] {
        world.runtime.set_services(vec![rule(Protocol::Udp, false, now)]).unwrap();
        assert_eq!(entries(), Vec::<String>::new(), "after {last:?}");
        client.send_to(b"?", ("10.77.0.1", 30_080)).unwrap();
        last = entries();
        let leads = |at: usize| last.iter().any(|line: &String| line.contains(&format!("src={} ", backends[at].0)));
        assert_eq!((0..2).find(|at| leads(*at)), what, "{last:?}");
    }
}

/// `ClientIP`: over new tables, more endpoints and both fronts; not over the loss of the endpoint, nor past its time.
pub async fn affinity(mut world: World) {
    let vip = Ipv4Addr::new(10, 96, 0, 11);
    let backends = servers(&world).await;
    world.pod("client").await;
    route(vip);
    let cidr: Cidr = "10.77.0.0/24".parse().unwrap();
    let rules = |backends: &[(Ipv4Addr, u16)], seconds| {
        [Front::Address(vip), Front::Node { masquerade: true }].map(|front| ServiceRule {
            front,
            protocol: Protocol::Tcp,
            port: 30_080,
            backends: backends.to_vec(),
            affinity: Some(Affinity { of: (vip, 30_080), seconds }),
        })
    };
    let set = |backends: &[(Ipv4Addr, u16)], seconds| apply(cidr, &rules(backends, seconds), &[]).unwrap();
    // Alone at first, then with another that it could be spread to.
    set(&backends[..1], 10_800);
    let mut number = 0;
    let mut client = async |world: &mut World, address: &str, times: usize| {
        number += 1;
        let line = format!("i=0; while [ $i -lt {times} ]; do timeout 5 nc -w 2 {address} 30080 && i=$((i+1)); done");
        let text = world.output(&world.container("client", &format!("c{number}"), &line)).await;
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names.join(" ")
    };
    assert_eq!(client(&mut world, "10.96.0.11", 1).await, "one");
    set(&backends, 10_800);
    assert_eq!(client(&mut world, "10.96.0.11", 12).await, "one");
    assert_eq!(client(&mut world, "10.77.0.1", 12).await, "one", "the node port leads to the same");
    let held = nft::remembered("clients-10.96.0.11-6-30080").unwrap();
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(held[0].2 > 10_000_000, "milliseconds that are left of three hours: {held:?}");
    for _ in 0..12 {
        set(&backends, 10_800);
        assert_eq!(client(&mut world, "10.96.0.11", 1).await, "one", "another table");
    }
    set(&backends[1..], 10_800);
    assert_eq!(client(&mut world, "10.96.0.11", 1).await, "two");
    set(&backends, 10_800);
    assert_eq!(client(&mut world, "10.96.0.11", 12).await, "two", "what is gone is forgotten");
    // Switched off, everybody is spread.
    let plain = rules(&backends, 0).map(|rule| ServiceRule { affinity: None, ..rule });
    apply(cidr, &plain, &[]).unwrap();
    assert_eq!(client(&mut world, "10.96.0.11", 40).await, "one two");
    // A short time, and then anybody's turn.
    set(&backends, 1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        seen.insert(from_board("10.96.0.11:30080").await.unwrap());
        if seen.len() == 2 {
            break;
        }
        while !nft::remembered("clients-10.96.0.11-6-30080").unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

/// More clients than are remembered: the rest is served all the same.
pub async fn full_memory(world: World) {
    let vip = Ipv4Addr::new(10, 96, 0, 12);
    let backends: Vec<_> = [world.pod("one").await, world.pod("two").await].map(|pod| (pod.ip.unwrap(), 53)).to_vec();
    route(vip);
    std::process::Command::new("ip").args(["route", "add", "local", "10.78.0.0/16", "dev", "lo"]).status().unwrap();
    let affinity = Some(Affinity { of: (vip, 53), seconds: 600 });
    let rule = ServiceRule { front: Front::Address(vip), protocol: Protocol::Udp, port: 53, backends, affinity };
    let set = || apply("10.77.0.0/24".parse().unwrap(), std::slice::from_ref(&rule), &[]).unwrap();
    set();
    let all = 16_384u16;
    for number in 0..=all {
        let [high, low] = number.to_be_bytes();
        let client = UdpSocket::bind((Ipv4Addr::new(10, 78, high, low), 4446)).unwrap();
        client.send_to(b"?", (vip, 53)).unwrap();
    }
    assert_eq!(nft::remembered("clients-10.96.0.12-17-53").unwrap().len(), usize::from(all));
    let last = connections(&["src=10.78.64.0 ", "dport=53 "]);
    assert!(last.len() == 1 && last[0].contains("src=10.77.0."), "{last:?}");
    // All of them are taken along into a new table: one batch of many messages.
    set();
    assert_eq!(nft::remembered("clients-10.96.0.12-17-53").unwrap().len(), usize::from(all));
}
