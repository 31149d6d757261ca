//! Node ports and session affinity, with other hosts, the board itself and pods as clients.
//!
//! In: a world with two boards, servers that say who they are and whom they see. Out: who answers, and to whom.
//! Never: an answer at a port that leads nowhere.

use limpet_e2e::pods::{container, inside, manifest, ready, sleeper};
use limpet_e2e::wait::until_every;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(3);
/// So often one client asks before it is believed that it always gets the same answer.
const TIMES: usize = 20;

/// Answers `NAME sees CLIENT.` over HTTP.
const SERVER: &str = "mkdir -p /www/cgi-bin; cd /www/cgi-bin; \
    printf '#!/bin/sh\\necho; echo $(hostname) sees $REMOTE_ADDR.\\n' >who; chmod +x who; exec httpd -f -p 80 -h /www";

fn server(world: &World, name: &str) -> Result<()> {
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}});
    let spec = json!({"nodeSelector": {"kubernetes.io/hostname": "board-1"}, "containers": [container("c", SERVER, probe)]});
    let mut pod = manifest(name, spec);
    pod["metadata"]["labels"] = json!({"app": "who"});
    world.kubectl.apply(&pod.to_string()).map(|_| ())
}

fn patch(world: &World, spec: Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    world.kubectl.run(&["patch", "service", "who", "--type=merge", "-p", &patch]).map(|_| ())
}

/// What another host, this machine, is told.
fn from_outside(address: &str) -> Result<String> {
    let wrong = |e: std::io::Error| format!("{address}: {e}");
    let socket: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&socket, ANSWER).map_err(wrong)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(wrong)?;
    stream.write_all(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n").map_err(wrong)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(wrong)?;
    wait::yes(text.contains(" sees "), || format!("{address}: {text:?}"))?;
    Ok(text.lines().last().unwrap_or_default().to_string())
}

/// Nobody listens there: told at once.
fn refused(address: &str) -> Result<()> {
    let socket: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    match TcpStream::connect_timeout(&socket, ANSWER) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{address}: {other:?} instead of a refusal")),
    }
}

/// A UDP socket at port 81 of every pod that has a server.
fn udp_servers(world: &World) -> Result<Vec<UdpSocket>> {
    let inside = |pid: i32| -> std::io::Result<UdpSocket> {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind("0.0.0.0:81")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    };
    let servers = world.agents[0].named("httpd");
    // A thread of its own for each: it is the thread that is in a namespace.
    let opened = servers.into_iter().map(|server| std::thread::spawn(move || inside(server.pid)).join());
    opened.map(|socket| socket.map_err(|_| "panic".to_string())?.map_err(|e| e.to_string())).collect()
}

/// One of the servers gets a datagram, and its answer comes back from where it was sent to; whom the server saw.
fn echoed(address: &str, servers: &[UdpSocket]) -> Result<IpAddr> {
    let wrong = |e: std::io::Error| format!("UDP {address}: {e}");
    let client = UdpSocket::bind("0.0.0.0:0").map_err(wrong)?;
    client.connect(address).map_err(wrong)?;
    client.set_read_timeout(Some(ANSWER)).map_err(wrong)?;
    client.send(b"ping").map_err(wrong)?;
    let mut text = [0; 64];
    let mut got = servers.iter().filter_map(|server| Some((server, server.recv_from(&mut text).ok()?)));
    let (server, (_, peer)) = got.next().ok_or_else(|| format!("UDP {address}: no server got it"))?;
    server.send_to(b"pong", peer).map_err(wrong)?;
    let len = client.recv(&mut text).map_err(wrong)?;
    wait::yes(&text[..len] == b"pong", || format!("{:?}", &text[..len]))?;
    Ok(peer.ip())
}

/// Number of the node port with this name.
fn node_port(world: &World, name: &str) -> Result<u64> {
    let service = world.kubectl.json("get service who")?;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let number = ports.filter(|p| p["name"] == name).find_map(|p| p["nodePort"].as_u64());
    number.ok_or_else(|| service["spec"].to_string())
}

fn name_of(answer: &str) -> String {
    answer.split(' ').next().unwrap_or_default().to_string()
}

fn servers_and_client(world: &World, spec: Value) -> Result<()> {
    for name in ["web-a", "web-b"] {
        server(world, name)?;
    }
    sleeper(world, "client", json!({}), json!({"nodeSelector": {"kubernetes.io/hostname": "board-1"}}))?;
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "who"}, "spec": spec});
    world.kubectl.apply(&object.to_string())?;
    for name in ["web-a", "web-b", "client"] {
        ready(world, name)?;
    }
    Ok(())
}

#[test]
fn boards_answer_at_node_ports() {
    test(2, &json!({}), |world| {
        servers_and_client(
            world,
            json!({"type": "NodePort", "selector": {"app": "who"}, "ports": [{"name": "web", "port": 80},
                {"name": "echo", "port": 81, "protocol": "UDP"}]}),
        )?;
        let (web, echo) = (node_port(world, "web")?, node_port(world, "echo")?);
        let board = world.agents[0].address.clone();
        let (address, own) = (format!("{board}:{web}"), world.slot.address(1));
        // From another host: every pod, none of which sees who it is.
        let mut seen = BTreeSet::new();
        until("both pods at the node port", SOON, || {
            let answer = from_outside(&address)?;
            wait::yes(!answer.contains(&format!("{own}.")), || format!("the client is not masqueraded: {answer}"))?;
            seen.insert(name_of(&answer));
            wait::yes(seen.len() == 2, || format!("{seen:?}"))
        })?;
        let servers = udp_servers(world)?;
        wait::yes(servers.len() == 2, || format!("{servers:?}"))?;
        let datagrams = format!("{board}:{echo}");
        until("datagrams", SOON, || {
            echoed(&datagrams, &servers).and_then(|peer| wait::yes(peer.to_string() != own, || format!("{peer}")))
        })?;
        // From the board at its own address, and not at loopback's.
        let url = |host: &str| format!("http://{host}:{web}/cgi-bin/who");
        let wget = |host: &str| world.agents[0].inside(&["timeout", "5", "busybox", "wget", "-qO-", &url(host)]);
        let answer = wget(&board)?.ok("wget on the board")?;
        wait::yes(answer.contains(" sees "), || answer.clone())?;
        let loopback = wget("127.0.0.1")?;
        wait::yes(loopback.code != 0 && loopback.stderr.contains("refused"), || format!("{loopback:?}"))?;
        // From a pod.
        let line = format!("timeout 5 wget -qO- {}", url(&board));
        until("from a pod", SOON, || inside(world, "client", &line).and_then(|a| wait::yes(a.contains(" sees "), || a)))?;
        // Local: the pods see the client. A board without one of them refuses.
        patch(world, json!({"externalTrafficPolicy": "Local"}))?;
        until("the client's own address", SOON, || {
            let answer = from_outside(&address)?;
            wait::yes(answer.contains(&format!("sees {own}.")) || answer.contains(&format!(":{own}")), || answer)
        })?;
        until("datagrams", SOON, || {
            echoed(&datagrams, &servers).and_then(|peer| wait::yes(peer.to_string() == own, || format!("{peer}")))
        })?;
        refused(&format!("{}:{web}", world.agents[1].address))?;
        // Other types: without a node port nobody answers, and the ones of a LoadBalancer are the same.
        patch(world, json!({"type": "ClusterIP", "externalTrafficPolicy": null}))?;
        until("no answer", SOON, || refused(&address))?;
        patch(world, json!({"type": "LoadBalancer"}))?;
        let address = format!("{board}:{}", node_port(world, "web")?);
        until("a load balancer's node port", SOON, || from_outside(&address).map(|_| ()))
    });
}

#[test]
fn clients_keep_their_pod() {
    test(1, &json!({}), |world| {
        servers_and_client(
            world,
            json!({"type": "NodePort", "selector": {"app": "who"}, "sessionAffinity": "ClientIP",
                "ports": [{"name": "web", "port": 80}]}),
        )?;
        let address = format!("{}:{}", world.agents[0].address, node_port(world, "web")?);
        let cluster = world.kubectl.json("get service who")?["spec"]["clusterIP"].as_str().unwrap_or_default().to_string();
        let all = |times: usize| -> Result<BTreeSet<String>> {
            (0..times).map(|_| from_outside(&address).map(|answer| name_of(&answer))).collect()
        };
        let same = || -> Result<String> {
            until("always the same pod", SOON, || {
                let mut names = all(TIMES)?;
                wait::yes(names.len() == 1, || format!("{names:?}"))?;
                names.pop_first().ok_or_else(|| "nobody".to_string())
            })
        };
        let both = || until("both pods", SOON, || all(TIMES).and_then(|n| wait::yes(n.len() == 2, || format!("{n:?}"))));
        let first = same()?;
        // A pod at the ClusterIP.
        let one = format!("timeout 5 wget -qO- http://{cluster}/cgi-bin/who");
        let ask = format!("i=0; while [ $i -lt {TIMES} ]; do {one} && i=$((i+1)); done");
        let answers = inside(world, "client", &ask)?;
        let names: BTreeSet<String> = answers.lines().map(name_of).collect();
        wait::yes(names.len() == 1, || answers.clone())?;
        // What is done to other Services makes nobody forget.
        world.kubectl.say("create service nodeport other --tcp=80:80")?;
        let port = world.kubectl.json("get service other")?["spec"]["ports"][0]["nodePort"].to_string();
        world.kubectl.run(&["patch", "service", "other", "--type=merge", "-p", "{\"spec\":{\"selector\":{\"app\":\"who\"}}}"])?;
        let other = format!("{}:{port}", world.agents[0].address);
        until("the other Service", SOON, || from_outside(&other).map(|_| ()))?;
        let names = all(TIMES)?;
        wait::yes(names == BTreeSet::from([first.clone()]), || format!("{names:?} instead of {first}"))?;
        // The pod goes: another one, which is kept when the first is back.
        world.kubectl.run(&["delete", "pod", &first, "--timeout=60s"])?;
        until("the other pod", SOON, || {
            let now = name_of(&from_outside(&address)?);
            wait::yes(now != first, || now)
        })?;
        server(world, &first)?;
        ready(world, &first)?;
        let second = same()?;
        wait::yes(second != first, || format!("{first} was not forgotten"))?;
        // Switched off and on.
        patch(world, json!({"sessionAffinity": "None", "sessionAffinityConfig": null}))?;
        both()?;
        patch(world, json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}))?;
        same()?;
        // Whoever stays away for longer than the time is anybody's client.
        let mut seen = BTreeSet::new();
        until_every(Duration::from_millis(1500), "both pods after a while", SOON, || {
            seen.insert(name_of(&from_outside(&address)?));
            wait::yes(seen.len() == 2, || format!("{seen:?}"))
        })
    });
}
