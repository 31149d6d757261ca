//! Services, host ports and masquerading, with real packets in the world's own network namespace.

use super::world::{World, read_until};
use crate::net::services::{PortRule, ServiceRule, apply};
use crate::runtime::*;
use std::net::Ipv4Addr;

pub async fn services(mut world: World) {
    let vip = Ipv4Addr::new(10, 96, 0, 10);
    let mut backends = Vec::new();
    for name in ["one", "two"] {
        let info = world.pod(name).await;
        let script = format!("echo up; exec nc -ll -p 8080 -e echo {name}");
        let started = world.runtime.start_container(&world.container(name, name, &script)).await.unwrap();
        read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "up").await;
        backends.push((info.ip.unwrap(), 8080));
    }
    world.pod("client").await;
    let cidr = "10.77.0.0/24".parse().unwrap();
    let rule = |backends: &[(Ipv4Addr, u16)]| ServiceRule {
        cluster_ip: vip,
        protocol: Protocol::Tcp,
        port: 80,
        backends: backends.to_vec(),
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
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        assert_eq!(text, expect);
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
        vec![ServiceRule { cluster_ip: vip, protocol: Protocol::Udp, port: 53, backends: backends.to_vec() }]
    };
    // The node itself is the client: it needs a route that covers the address.
    let route = format!("ip route add {vip}/32 dev {}", crate::net::BRIDGE);
    std::process::Command::new("sh").args(["-c", &route]).status().unwrap();
    world.runtime.set_services(rule(&backends[..1])).unwrap();
    let client = std::net::UdpSocket::bind("10.77.0.1:4444").unwrap();
    client.send_to(b"?", (vip, 53)).unwrap();
    let entries = || {
        let text = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap_or_default();
        let ours = |line: &&str| line.contains("sport=4444") && line.contains("dport=53 ");
        text.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
    };
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
