//! The broker against a real MQTT client (rumqttc) over real TLS.
//!
//! In: certificates made by rcgen. Out: what a node may and may not do.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use limpet_broker::{FromNode, SendError};
use rumqttc::{AsyncClient, Packet, QoS};
use std::sync::Arc;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways() {
    let mut w = world().await;
    let (client, mut events) = w.node("pi-1");
    connected(&mut w, &mut events).await;
    client.subscribe("n/pi-1/d/+", QoS::AtLeastOnce).await.unwrap();
    client.publish("n/pi-1/u/s", QoS::AtLeastOnce, false, "hello").await.unwrap();
    until(&mut events, |p| matches!(p, Packet::PubAck(_))).await.unwrap();
    let FromNode::Message { node, channel, payload, .. } = w.next().await else { panic!() };
    assert_eq!((node.as_str(), channel, payload.as_ref()), ("pi-1", 's', b"hello".as_ref()));
    w.broker.send("pi-1", 's', Bytes::from_static(b"welcome")).unwrap();
    let p = until(&mut events, |p| matches!(p, Packet::Publish(_))).await.unwrap();
    let Packet::Publish(p) = p else { panic!() };
    assert_eq!((p.topic.as_str(), p.payload.as_ref()), ("n/pi-1/d/s", b"welcome".as_ref()));
    assert_eq!(w.broker.send("pi-2", 's', Bytes::new()), Err(SendError::NotConnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_topics_are_refused() {
    let mut w = world().await;
    for topic in ["n/pi-2/u/s", "n/pi-1/d/s", "$SYS/x", "n/pi-1/u/s/t"] {
        let (client, mut events) = w.node("pi-1");
        connected(&mut w, &mut events).await;
        client.publish(topic, QoS::AtLeastOnce, false, "x").await.unwrap();
        until(&mut events, |p| matches!(p, Packet::PubAck(_))).await.expect_err(topic);
        let FromNode::Disconnected { reason, .. } = w.next().await else { panic!("{topic}") };
        assert!(reason.contains("not its own"), "{reason}");
    }
    let (client, mut events) = w.node("pi-1");
    connected(&mut w, &mut events).await;
    client.subscribe("n/pi-2/d/+", QoS::AtMostOnce).await.unwrap();
    let p = until(&mut events, |p| matches!(p, Packet::SubAck(_))).await.unwrap();
    assert!(format!("{p:?}").contains("Failure"), "{p:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_certificate_or_another_name_does_not_get_in() {
    let mut w = world().await;
    let stranger = Ca::new();
    let foreign = w.options("pi-1", stranger.client(&w.ca, "system:node:pi-1"));
    let (_c, mut events) = AsyncClient::new(foreign, 10);
    until(&mut events, |p| matches!(p, Packet::ConnAck(_))).await.unwrap_err();
    let user = w.options("pi-1", w.ca.client(&w.ca, "kubernetes-admin"));
    let (_c, mut events) = AsyncClient::new(user, 10);
    until(&mut events, |p| matches!(p, Packet::ConnAck(_))).await.unwrap_err();
    let other = w.options("pi-2", w.ca.client(&w.ca, "system:node:pi-1"));
    let (_c, mut events) = AsyncClient::new(other, 10);
    until(&mut events, |p| matches!(p, Packet::ConnAck(_))).await.unwrap_err();
    assert_eq!(w.broker.connected(), 0);
    assert!(w.inbox.try_recv().is_err(), "the hub never heard of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_replaces_the_first() {
    let mut w = world().await;
    let (_c1, mut first) = w.node("pi-1");
    connected(&mut w, &mut first).await;
    let (_c2, mut second) = w.node("pi-1");
    until(&mut second, |p| matches!(p, Packet::ConnAck(_))).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        match w.next().await {
            FromNode::Connected { connection, .. } => seen.push(("up", connection)),
            FromNode::Disconnected { connection, reason, .. } => {
                assert!(reason.contains("replaced"), "{reason}");
                seen.push(("down", connection));
            }
            FromNode::Message { .. } => panic!(),
        }
    }
    seen.sort();
    assert_eq!(seen, [("down", 1), ("up", 2)]);
    assert!(w.broker.is_connected("pi-1"));
    w.broker.disconnect("pi-1", "removed");
    let FromNode::Disconnected { reason, connection, .. } = w.next().await else { panic!() };
    assert_eq!((reason.as_str(), connection), ("removed", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_and_retained_messages_end_the_connection() {
    let mut w = world().await;
    for (size, retain, word) in [(70_000, false, "MaxSize"), (1, true, "retained")] {
        let (client, mut events) = w.node("pi-1");
        connected(&mut w, &mut events).await;
        client.publish("n/pi-1/u/s", QoS::AtLeastOnce, retain, vec![0; size]).await.unwrap();
        until(&mut events, |p| matches!(p, Packet::PubAck(_))).await.unwrap_err();
        let FromNode::Disconnected { reason, .. } = w.next().await else { panic!() };
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_fills_only_its_own_queue() {
    let mut w = world().await;
    let (_client, mut slow) = w.node("slow");
    connected(&mut w, &mut slow).await;
    let payload = Bytes::from(vec![1u8; 60_000]);
    let full = (0..100_000).find_map(|_| w.broker.send("slow", 's', payload.clone()).err());
    assert_eq!(full, Some(SendError::QueueFull));
    let (_c, mut quick) = w.node("quick");
    connected(&mut w, &mut quick).await;
    w.broker.send("quick", 's', Bytes::from_static(b"now")).unwrap();
    until(&mut quick, |p| matches!(p, Packet::Publish(_))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_before_connect_is_cut_off() {
    let mut w = world().await;
    let tls = w.ca.client(&w.ca, "system:node:pi-1");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0x30, 2, 0, 0]] {
        let socket = tokio::net::TcpStream::connect(w.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("ended in time");
        assert!(read.is_err() || answer.len() <= 4, "{answer:?}");
    }
    assert!(w.inbox.try_recv().is_err());
}

#[tokio::test]
async fn the_last_words_arrive_before_the_end() {
    let mut w = world().await;
    let (client, mut events) = w.node("pi-1");
    connected(&mut w, &mut events).await;
    client.subscribe("n/pi-1/d/+", QoS::AtMostOnce).await.unwrap();
    until(&mut events, |p| matches!(p, Packet::SubAck(_))).await.unwrap();
    w.broker.send("pi-1", 's', Bytes::from_static(b"goodbye")).unwrap();
    w.broker.disconnect_one("pi-1", 999, "another connection's end");
    w.broker.disconnect("pi-1", "removed");
    let said = until(&mut events, |p| matches!(p, Packet::Publish(_))).await.unwrap();
    assert!(matches!(said, Packet::Publish(p) if p.payload == "goodbye"));
    assert!(matches!(w.next().await, FromNode::Disconnected { reason, .. } if reason == "removed"));
}
