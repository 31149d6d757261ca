//! What MQTT brokers have been broken with (the list is in docs/THREATS.md), against this one, over real TLS.
//!
//! In: raw bytes from clients with good certificates, and from clients without. Out: refusals, and nobody else harmed.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::{Bytes, BytesMut};
use limpet_broker::{FromNode, Stream, limits};
use rmqtt_codec::v3::Codec;
use std::time::{Duration, Instant};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::codec::Decoder;

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

/// CONNECT with the parts that have been trouble: client id, user name, will.
fn connect(id: &[u8], user: Option<&[u8]>, will: Option<(&[u8], bool)>) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
    text(&mut body, id);
    if let Some((topic, retain)) = will {
        body[7] |= 0x04 | if retain { 0x20 } else { 0 };
        text(&mut body, topic);
        text(&mut body, b"dead");
    }
    if let Some(user) = user {
        body[7] |= 0x80;
        text(&mut body, user);
    }
    [&[0x10, body.len() as u8][..], &body].concat()
}

fn subscribe(filter: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(0);
    [&[0x82, body.len() as u8][..], &body].concat()
}

fn publish(first: u8, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if first & 6 != 0 {
        body.extend([0, 9]);
    }
    body.extend(payload);
    [&[first, body.len() as u8][..], &body].concat()
}

/// Writes, then reads `n` bytes or up to the end.
async fn talk(stream: &mut (impl Stream + ?Sized), bytes: &[u8], n: usize) -> Vec<u8> {
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = vec![0; n];
    let mut have = 0;
    while have < n {
        match timeout(LONG, stream.read(&mut answer[have..])).await.expect("in time") {
            Ok(0) | Err(_) => break,
            Ok(more) => have += more,
        }
    }
    answer.truncate(have);
    answer
}

const WELCOME: [u8; 4] = [0x20, 2, 0, 0];
const NOT_AUTHORIZED: [u8; 4] = [0x20, 2, 0, 5];

/// CVE-2017-7650: a client id or user name of `#`, `+` or with `/` widened the rights of its pattern.
#[tokio::test(flavor = "multi_thread")]
async fn names_widen_no_right() {
    let w = world_with(AnyId).await;
    for name in [&b"#"[..], b"+", b"+/+", b"pi-2", b"n/pi-2/d/s", b"$SYS", b"", b"pi-2/d/#"] {
        let mut stream = w.raw("pi-1").await;
        assert_eq!(talk(&mut stream, &connect(name, Some(name), None), 4).await, WELCOME, "{name:?}");
        for filter in [&b"n/pi-2/d/+"[..], b"n/+/d/+", b"#", b"n/pi-2/d/s", b"+/pi-2/+/+", b"$share/g/n/pi-2/d/+"] {
            assert_eq!(talk(&mut stream, &subscribe(filter), 5).await, [0x90, 3, 0, 1, 0x80], "{name:?} {filter:?}");
        }
        assert!(talk(&mut stream, &publish(0x30, b"n/pi-2/u/s", b"x"), 1).await.is_empty(), "{name:?}");
    }
}

/// CVE-2018-12546 and CVE-2021-34434: what was retained, willed or subscribed outlived the right to it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_right() {
    let mut w = world_with(AnyId).await;
    for (topic, retain) in [(&b"n/pi-2/u/s"[..], false), (b"n/pi-1/d/s", false), (b"#", false), (b"n/pi-1/u/s", true)] {
        let mut stream = w.raw("pi-1").await;
        let answer = talk(&mut stream, &connect(b"x", None, Some((topic, retain))), 4).await;
        assert_eq!(answer, NOT_AUTHORIZED, "a will on {topic:?}");
    }
    // A will on its own topic is taken, and no message comes of it: the hub hears of the end itself.
    let mut stream = w.raw("pi-1").await;
    talk(&mut stream, &connect(b"x", None, Some((b"n/pi-1/u/s", false))), 4).await;
    talk(&mut stream, &subscribe(b"n/pi-1/d/+"), 5).await;
    assert!(matches!(w.next().await, FromNode::Connected { .. }));
    w.broker.disconnect("pi-1", "revoked");
    assert!(talk(&mut stream, &[], 1).await.is_empty());
    assert!(matches!(w.next().await, FromNode::Disconnected { .. }));
    drop(stream);
    // Back again: a subscription of the old connection brings nothing, because nothing was kept.
    assert!(w.broker.send("pi-1", 's', Bytes::from_static(b"late")).is_err());
    let mut again = w.raw("pi-1").await;
    assert_eq!(talk(&mut again, &connect(b"x", None, None), 4).await, WELCOME);
    assert!(timeout(Duration::from_millis(300), again.read_u8()).await.is_err(), "nothing waited for it");
    // Retained messages and QoS 2 end the connection.
    for first in [0x31, 0x34] {
        let mut stream = w.raw("pi-3").await;
        talk(&mut stream, &connect(b"x", None, None), 4).await;
        assert!(talk(&mut stream, &publish(first, b"n/pi-3/u/s", b"x"), 1).await.is_empty());
    }
}

/// Ours say that they want no answer to pings; everybody else gets it.
#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_unless_that_is_not_wanted() {
    let w = world_with(AnyId).await;
    let ping = [0xc0, 0];
    let mut usual = w.raw("pi-1").await;
    talk(&mut usual, &connect(b"x", None, None), 4).await;
    assert_eq!(talk(&mut usual, &ping, 2).await, [0xd0, 0]);
    let mut quiet = w.raw("pi-2").await;
    talk(&mut quiet, &connect(b"x", Some(b"quiet"), None), 4).await;
    quiet.write_all(&ping).await.unwrap();
    assert_eq!(talk(&mut quiet, &subscribe(b"n/pi-2/d/+"), 5).await, [0x90, 3, 0, 1, 0], "the ping was not answered");
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// CVE-2017-7651: memory of clients that never say who they are. A thousand of them, half-way through a handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_strangers_cost_little_and_end() {
    let mut w = world().await;
    // The parts of the process that the first connection needs are not the strangers'.
    drop(w.raw("pi-0").await);
    let before = resident_bytes();
    let begun = Instant::now();
    let mut strangers = Vec::new();
    for n in 0..1000 {
        let Ok(mut socket) = TcpStream::connect(w.address).await else { break };
        // The head of a record of 16 KiB that never comes; some say nothing at all.
        if n % 3 > 0 {
            let _ = socket.write_all(&[22, 3, 1, 64, 0, 1, 0, 63, 252]).await;
        }
        strangers.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Both ends are in this process.
    let each = resident_bytes().saturating_sub(before) / strangers.len();
    assert!(each <= 32 * 1024, "{each} bytes a stranger");
    for mut socket in strangers {
        let mut end = [0; 16];
        // At most 512 are served at a time: the first half of them for thirty seconds each, the others for ten.
        let patience = Duration::from_secs(60);
        while let Ok(1..) = timeout(patience, socket.read(&mut end)).await.expect("every stranger is sent away") {}
    }
    assert!(begun.elapsed() < limits::HANDSHAKE + 3 * limits::HANDSHAKE_CROWDED + LONG, "{:?}", begun.elapsed());
    assert!(w.inbox.try_recv().is_err(), "the hub never heard of them");
    let mut late = w.raw("pi-1").await;
    assert_eq!(talk(&mut late, &connect(b"pi-1", None, None), 4).await, WELCOME, "and others get in");
}

/// Every parser before the hub's own: packets that were good once, spoilt. `corpus.txt` holds what once was trouble.
#[test]
fn spoilt_packets_do_no_harm() {
    let mut seeds = vec![
        connect(b"pi-1", Some(b"quiet"), Some((b"n/pi-1/u/s", false))),
        subscribe(b"n/pi-1/d/+"),
        publish(0x32, b"n/pi-1/u/s", b"payload"),
        vec![0xc0, 0],
        vec![0xa2, 4, 0, 1, 0, 0],
        vec![0x40, 2, 0, 1],
        vec![0xe0, 0],
    ];
    for line in include_str!("corpus.txt").lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        seeds.push((0..line.len() / 2).map(|i| u8::from_str_radix(&line[i * 2..i * 2 + 2], 16).unwrap()).collect());
    }
    let mut x = 0x5eed_u64;
    let mut chance = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x % n.max(1) as u64) as usize
    };
    let (mut good, mut bad) = (0, 0);
    for _ in 0..200_000 {
        let mut bytes = seeds[chance(seeds.len())].clone();
        for _ in 0..chance(4) {
            let at = chance(bytes.len());
            match chance(4) {
                0 => bytes[at] ^= 1 << chance(8),
                1 => bytes[at] = [0, 0x7f, 0x80, 0xff][chance(4)],
                2 => bytes.truncate(at + 1),
                _ => bytes.insert(at, chance(256) as u8),
            }
        }
        let mut codec = Codec::new(limits::CONNECT_BYTES_MAX);
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = codec.decode(&mut buffer).inspect_err(|_| bad += 1) {
            good += 1;
        }
        assert!(buffer.capacity() <= 64 * 1024, "{bytes:?} made the buffer grow");
    }
    assert!(good > 10_000 && bad > 10_000, "{good} {bad}");
}
