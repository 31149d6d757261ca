//! Floods of HTTP/2 frames, clients that read or write nothing, bodies that are large only when they are parsed: the hub answers
//! others meanwhile, and its memory is afterwards what it was.
//!
//! In: frames made by hand on TLS connections. Out: answers to others, memory of this process, in which the hub runs.
//! Never: a second test beside it in this process: it measures memory.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http_client;
#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use std::{sync::atomic::Ordering, time::Duration};
use support::Cluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Of each flood, at most.
const FLOOD_BYTES: usize = 24 * 1024 * 1024;
/// A write that makes no progress for so long is one that the server holds back.
const HELD: Duration = Duration::from_millis(500);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET of a path, in literals of HPACK.
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 9]);
    block.extend_from_slice(b"127.0.0.1");
    block
}

async fn http2(c: &Cluster, settings: &[u8]) -> TlsStream<TcpStream> {
    let (mut tls, _) = http_client::connect(c.dir.path(), &c.url, "h2").await;
    tls.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.unwrap();
    tls
}

/// Sends without reading until the server ends the connection, holds it back, or `FLOOD_BYTES` went through. How many went.
async fn flood(tls: &mut TlsStream<TcpStream>, mut next: impl FnMut(u32) -> Vec<u8>) -> usize {
    let mut sent = 0;
    for number in 0.. {
        let some: Vec<u8> = (0..64).flat_map(|at| next(number * 64 + at)).collect();
        match timeout(HELD, tls.write_all(&some)).await {
            Ok(Ok(())) => sent += some.len(),
            Ok(Err(_)) | Err(_) => break,
        }
        if sent >= FLOOD_BYTES {
            break;
        }
    }
    sent
}

/// The same, with somebody who reads what comes.
async fn flood_and_read(tls: TlsStream<TcpStream>, mut next: impl FnMut(u32) -> Vec<u8>) -> usize {
    let (mut read, mut write) = tokio::io::split(tls);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while matches!(read.read(&mut buffer).await, Ok(1..)) {}
    });
    let mut sent = 0;
    for number in 0.. {
        let some: Vec<u8> = (0..64).flat_map(|at| next(number * 64 + at)).collect();
        match timeout(HELD * 10, write.write_all(&some)).await {
            Ok(Ok(())) => sent += some.len(),
            Ok(Err(_)) | Err(_) => break,
        }
        if sent >= FLOOD_BYTES / 4 {
            break;
        }
    }
    reading.abort();
    sent
}

/// Memory of this process, now and at most, in KiB.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Others are answered.
fn others(c: &Cluster, after: &str) {
    assert_eq!(c.get("/readyz").0, 200, "after {after}");
    let (code, _) = c.get(&format!("{MAPS}/kube-root-ca.crt"));
    assert!(matches!(code, 200 | 404), "{code} after {after}");
}

/// Frames that ask for nothing, or take back what they ask for.
async fn frames(c: &Cluster) {
    let id = |n: u32| 2 * n + 1;
    let path = "/api/v1/pods";
    let resets = |n| {
        let asked = frame(HEADERS, END_STREAM | END_HEADERS, id(n), &head(path));
        [asked, frame(RST_STREAM, 0, id(n), &[0, 0, 0, 8])].concat()
    };
    flood(&mut http2(c, &[]).await, resets).await;
    flood_and_read(http2(c, &[]).await, resets).await;
    // A head that never ends (CVE-2024-27316): cut off long before it is all here.
    let value = vec![b'x'; 8000];
    // A literal without a place in the table; 8000 = 127 + 7873, in HPACK's integers.
    let mut block = vec![0x00, 1, b'a', 0x7f, 0xc1, 0x3d];
    block.extend_from_slice(&value);
    let endless = |n| match n {
        0 => frame(HEADERS, END_STREAM, 1, &head(path)),
        _ => frame(CONTINUATION, 0, 1, &block),
    };
    let sent = flood_and_read(http2(c, &[]).await, endless).await;
    assert!(sent < FLOOD_BYTES / 4, "a head of {sent} bytes was read");
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0]);
    for empty in [settings, frame(PING, 0, 0, &[7; 8]), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])] {
        flood(&mut http2(c, &[]).await, |_| empty.clone()).await;
        flood_and_read(http2(c, &[]).await, |_| empty.clone()).await;
    }
    let mut open = http2(c, &[]).await;
    open.write_all(&frame(HEADERS, END_HEADERS, 1, &head(MAPS))).await.unwrap();
    flood(&mut open, |_| frame(DATA, 0, 1, &[])).await;
    let mut open = http2(c, &[]).await;
    flood(&mut open, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    // Nonsense: frames that the protocol forbids in their place.
    let places = [frame(DATA, 0, 0, b"x"), frame(CONTINUATION, 0, 1, b"x"), frame(SETTINGS, 0, 0, b"x")];
    for bad in places.into_iter().chain([frame(200, 255, 77, &[0; 100])]) {
        flood(&mut http2(c, &[]).await, |_| bad.clone()).await;
    }
}

/// Clients that ask for much and read nothing: over HTTP/2 without a window, over HTTP/1.1 without a read.
async fn readers(c: &Cluster) {
    let mut held = Vec::new();
    for _ in 0..4 {
        // SETTINGS_INITIAL_WINDOW_SIZE 0
        let mut tls = http2(c, &[0, 4, 0, 0, 0, 0]).await;
        for n in 0..200 {
            tls.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head(MAPS))).await.unwrap();
        }
        held.push(tls);
    }
    for _ in 0..40 {
        let (mut tls, _) = http_client::connect(c.dir.path(), &c.url, "http/1.1").await;
        let ask = format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n\r\n");
        tls.write_all(ask.repeat(20).as_bytes()).await.unwrap();
        held.push(tls);
    }
    // Long enough for all of them to have their turn.
    while c.api.metrics.in_flight.load(Ordering::Relaxed) > 100 {
        tokio::task::yield_now().await;
    }
}

/// Clients that begin and do not go on: heads and bodies.
async fn writers(c: &Cluster) -> Vec<TlsStream<TcpStream>> {
    let mut held = Vec::new();
    for n in 0..200 {
        let (mut tls, _) = http_client::connect(c.dir.path(), &c.url, "http/1.1").await;
        let begun = match n % 3 {
            0 => "POST ".to_owned(),
            1 => format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\nx-slow: "),
            _ => format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n{{\"data\":"),
        };
        tls.write_all(begun.as_bytes()).await.unwrap();
        held.push(tls);
    }
    held
}

/// Small on the wire, large as values.
async fn bodies(c: &Cluster) {
    let numbers = format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":[{}0]}}", "0,".repeat(700_000));
    let objects = format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":[{}0]}}", "{},".repeat(450_000));
    let patch = format!("{{\"data\":[{}0]}}", "0,".repeat(700_000));
    let mut protobuf = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Endpoints".to_vec();
    let entries = [0x12, 0x00].repeat(700_000);
    let mut length = entries.len();
    protobuf.push(0x12);
    while length >= 0x80 {
        protobuf.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    protobuf.push(length as u8);
    protobuf.extend_from_slice(&entries);
    let (one, applied) = (format!("{MAPS}/there"), format!("{MAPS}/there?fieldManager=x"));
    let asks = [
        ("POST", MAPS, "application/json", numbers.clone().into_bytes()),
        ("POST", MAPS, "application/json", objects.into_bytes()),
        ("POST", MAPS, "application/yaml", numbers.into_bytes()),
        ("PATCH", one.as_str(), "application/merge-patch+json", patch.clone().into_bytes()),
        ("PATCH", one.as_str(), "application/strategic-merge-patch+json", patch.clone().into_bytes()),
        ("PATCH", applied.as_str(), "application/apply-patch+yaml", patch.into_bytes()),
        ("POST", MAPS, "application/vnd.kubernetes.protobuf", protobuf),
    ];
    let tasks: Vec<_> = (0..14)
        .map(|n| {
            let (method, path, form, body) = asks[n % asks.len()].clone();
            let (dir, url, path) = (c.dir.path().to_owned(), c.url.clone(), path.to_owned());
            tokio::spawn(async move {
                let mut connection = http_client::Keeping::open(&dir, &url).await;
                let (head, _) = connection.ask(method, &path, &[("content-type", form)], body).await.unwrap();
                (form, head.status.as_u16())
            })
        })
        .collect();
    for task in tasks {
        let (form, code) = task.await.unwrap();
        assert!((400..=429).contains(&code), "{form}: {code}");
    }
}

#[test]
fn floods_slow_clients_and_bombs_leave_nothing_behind() {
    let c = Cluster::start();
    assert_eq!(c.json("POST", MAPS, json!({"metadata": {"name": "there"}, "data": {}})).0, 201);
    for n in 0..40 {
        let large = json!({"metadata": {"name": format!("large-{n}")}, "data": {"x": "y".repeat(200_000)}});
        assert_eq!(c.json("POST", MAPS, large).0, 201);
    }
    let round = |named: bool| {
        let measured = |what: &str, (before, _): (u64, u64)| {
            let (now, peak) = memory();
            if named {
                eprintln!("{what}: {before} KiB before, {now} after, {peak} at most");
            }
            // Everything at its worst, at the same time: bounded by what the limits say.
            assert!(peak < before + 600 * 1024, "{what}: {before} KiB before, {peak} at most");
            forget_peak();
        };
        forget_peak();
        let before = memory();
        c.runtime.block_on(frames(&c));
        others(&c, "floods of frames");
        measured("floods of frames", before);
        let before = memory();
        c.runtime.block_on(readers(&c));
        others(&c, "clients that read nothing");
        measured("clients that read nothing", before);
        let before = memory();
        let held = c.runtime.block_on(writers(&c));
        others(&c, "clients that send nothing");
        drop(held);
        measured("clients that send nothing", before);
        let before = memory();
        c.runtime.block_on(bodies(&c));
        others(&c, "bodies");
        measured("bodies", before);
        while c.api.metrics.in_flight.load(Ordering::Relaxed) != 0 {
            std::thread::yield_now();
        }
    };
    // The first round fills what is kept for ever: buffers, caches, arenas of the allocator.
    round(false);
    let before = memory().0;
    for _ in 0..2 {
        round(true);
    }
    let after = memory().0;
    eprintln!("{before} KiB after one round, {after} KiB after three");
    assert!(after < before + 96 * 1024, "{before} KiB after one round, {after} KiB after three");
}
