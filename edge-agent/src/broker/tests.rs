//! The broker with real sockets and clients that mean no good.

use super::*;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Codec, Connect, Packet, SubscribeReturnCode},
};
use std::{
    num::NonZeroU16,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use tokio_util::codec::Framed;

const LONG: Duration = Duration::from_secs(30);

fn broker(name: &str) -> (LocalBroker, PathBuf) {
    let run = std::env::temp_dir().join(format!("limpet-broker-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&run);
    (LocalBroker::new(&run), run)
}

async fn raw(run: &Path, uid: &str) -> UnixStream {
    UnixStream::connect(LocalBroker::dir_of(run, uid).join("mqtt.sock")).await.unwrap()
}

struct Client(Framed<UnixStream, Codec>);

impl Client {
    /// Without a session, and with a name of its own.
    async fn new(run: &Path, uid: &str) -> Client {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Client::named(run, uid, &name, true).await.0
    }

    /// And whether there was a session.
    async fn named(run: &Path, uid: &str, name: &str, clean_session: bool) -> (Client, bool) {
        let mut client = Client(Framed::new(raw(run, uid).await, Codec::new(0)));
        let connect = Connect { clean_session, ..Connect::default() }.client_id(name.to_string());
        client.send(connect.into()).await;
        match client.next().await {
            Some(Packet::ConnectAck(ack)) if ack.return_code as u8 == 0 => (client, ack.session_present),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&mut self, packet: Packet) {
        self.0.send(packet).await.unwrap();
    }

    async fn next(&mut self) -> Option<Packet> {
        timeout(LONG, self.0.next()).await.unwrap()?.ok().map(|(packet, _)| packet)
    }

    async fn subscribe(&mut self, filters: &[&str]) -> Vec<SubscribeReturnCode> {
        let topic_filters = filters.iter().map(|f| ((*f).into(), QoS::AtLeastOnce)).collect();
        self.send(Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters }).await;
        match self.next().await {
            Some(Packet::SubscribeAck { status, .. }) => status,
            other => panic!("{other:?}"),
        }
    }

    /// With QoS 1, up to the acknowledgement.
    async fn publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        self.send(publish(topic, payload, QoS::AtLeastOnce)).await;
        matches!(self.next().await, Some(Packet::PublishAck { .. }))
    }
}

fn publish(topic: &str, payload: &[u8], qos: QoS) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.to_string().into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        payload: Bytes::copy_from_slice(payload),
        properties: None,
    }))
}

#[tokio::test]
async fn pods_of_a_namespace_talk_and_the_hub_hears_what_goes_up() {
    let (mut broker, run) = broker("talk");
    for (uid, namespace) in [("u1", "a"), ("u2", "a"), ("u3", "b")] {
        broker.open(uid, namespace, uid, None).unwrap();
        broker.open(uid, namespace, uid, None).unwrap();
    }
    let (mut one, mut two) = (Client::new(&run, "u1").await, Client::new(&run, "u2").await);
    let mut three = Client::new(&run, "u3").await;
    let granted = two.subscribe(&["#", "a/#/b", "up/+"]).await;
    let good = SubscribeReturnCode::Success(QoS::AtLeastOnce);
    assert_eq!(granted, [good, SubscribeReturnCode::Failure, good]);
    three.subscribe(&["#"]).await;
    assert!(one.publish("up/t", b"21.5").await);
    let up = timeout(LONG, broker.up.recv()).await.unwrap().unwrap();
    assert_eq!((&*up.namespace, &*up.pod, up.topic.as_str(), &*up.payload), ("a", "u1", "up/t", &b"21.5"[..]));
    match two.next().await {
        Some(Packet::Publish(p)) => assert_eq!((&*p.topic, &*p.payload, p.qos), ("up/t", &b"21.5"[..], QoS::AtLeastOnce)),
        other => panic!("{other:?}"),
    }
    // Only its own namespace and the hub: the first thing that the other one hears is what is meant for it.
    broker.publish("b", "down/x", b"on", false);
    match three.next().await {
        Some(Packet::Publish(p)) => assert_eq!((&*p.topic, &*p.payload), ("down/x", &b"on"[..])),
        other => panic!("{other:?}"),
    }
    // What is not for clients ends the connection.
    for topic in ["down/x", "$SYS/x", "a/+"] {
        let mut bad = Client::new(&run, "u1").await;
        assert!(!bad.publish(topic, b"x").await, "{topic}");
    }
    broker.close("u2");
    assert!(two.next().await.is_none(), "its clients end with the pod");
    assert!(!LocalBroker::dir_of(&run, "u2").exists());
    std::fs::remove_dir_all(run).unwrap();
}

#[tokio::test]
async fn a_session_outlives_its_connection_and_qos_2_is_once() {
    let (mut broker, run) = broker("session");
    broker.open("u1", "a", "p", None).unwrap();
    let (mut ear, known) = Client::named(&run, "u1", "ear", false).await;
    assert!(!known);
    let topic_filters = vec![("t".into(), QoS::ExactlyOnce)];
    ear.send(Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters }).await;
    let granted = ear.next().await;
    let twice = |status: &[SubscribeReturnCode]| status == [SubscribeReturnCode::Success(QoS::ExactlyOnce)];
    assert!(matches!(granted, Some(Packet::SubscribeAck { status, .. }) if twice(&status)));
    drop(ear);
    let mut mouth = Client::new(&run, "u1").await;
    let packet_id = NonZeroU16::MIN;
    // The same message twice, since its receipt got lost: it counts once.
    for _ in 0..2 {
        mouth.send(publish("t", b"once", QoS::ExactlyOnce)).await;
        assert!(matches!(mouth.next().await, Some(Packet::PublishReceived { .. })));
    }
    mouth.send(Packet::PublishRelease { packet_id }).await;
    assert!(matches!(mouth.next().await, Some(Packet::PublishComplete { .. })));
    assert!(mouth.publish("t", b"then").await);
    let said = |packet: Option<Packet>| match packet {
        Some(Packet::Publish(p)) => (p.payload.to_vec(), p.packet_id.unwrap(), p.dup, p.qos as u8),
        other => panic!("{other:?}"),
    };
    let (mut ear, known) = Client::named(&run, "u1", "ear", false).await;
    assert!(known);
    let (payload, id, again, qos) = said(ear.next().await);
    assert_eq!((&*payload, again, qos), (&b"once"[..], false, 2));
    let (payload, other, again, qos) = said(ear.next().await);
    assert_eq!((&*payload, again, qos), (&b"then"[..], false, 1));
    ear.send(Packet::PublishReceived { packet_id: id }).await;
    assert!(matches!(ear.next().await, Some(Packet::PublishRelease { packet_id }) if packet_id == id));
    // Another connection of the same name: the older one ends, what is under way is said again.
    let (mut heir, known) = Client::named(&run, "u1", "ear", false).await;
    assert!(known && ear.next().await.is_none());
    assert!(matches!(heir.next().await, Some(Packet::PublishRelease { packet_id }) if packet_id == id));
    let (payload, same, again, _) = said(heir.next().await);
    assert_eq!((&*payload, same, again), (&b"then"[..], other, true));
    heir.send(Packet::PublishComplete { packet_id: id }).await;
    heir.send(Packet::PublishAck { packet_id: other }).await;
    heir.send(Packet::PingRequest).await;
    assert!(matches!(heir.next().await, Some(Packet::PingResponse)));
    drop(heir);
    // A clean session is a new one; a session without a name is refused.
    let (mut clean, known) = Client::named(&run, "u1", "ear", true).await;
    assert!(!known && mouth.publish("t", b"nobody hears").await);
    clean.send(Packet::PingRequest).await;
    assert!(matches!(clean.next().await, Some(Packet::PingResponse)));
    let mut nameless = Client(Framed::new(raw(&run, "u1").await, Codec::new(0)));
    nameless.send(Connect { clean_session: false, ..Connect::default() }.into()).await;
    assert!(matches!(nameless.next().await, Some(Packet::ConnectAck(ack)) if ack.return_code as u8 == 2));
    std::fs::remove_dir_all(run).unwrap();
}

#[tokio::test]
async fn hostile_clients_end_and_others_go_on() {
    let (mut broker, run) = broker("hostile");
    broker.open("u1", "a", "p", None).unwrap();
    broker.open("u2", "a", "q", None).unwrap();
    let mut sane = Client::new(&run, "u2").await;
    sane.subscribe(&["ok"]).await;
    // A packet without end, something that is no MQTT, a CONNECT of a version that is not served.
    for bytes in [&[0x30, 0xff, 0xff, 0xff, 0x7f, 0][..], b"GET / HTTP/1.1\r\n\r\n", &[0x10, 0xff, 0xff, 0xff, 0xff, 1]] {
        let mut stream = raw(&run, "u1").await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
    let mut endless = Client::new(&run, "u1").await;
    endless.0.get_mut().write_all(&[0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'a']).await.unwrap();
    assert!(endless.next().await.is_none());
    // One who never reads what it asked for: others are not held up, and its queue has an end.
    let mut slow = Client::new(&run, "u1").await;
    slow.subscribe(&["flood/#"]).await;
    let mut loud = Client::new(&run, "u2").await;
    for n in 0..2000 {
        loud.send(publish(&format!("flood/{n}"), &[7; 4000], QoS::AtMostOnce)).await;
    }
    assert!(loud.publish("ok", b"still here").await);
    match sane.next().await {
        Some(Packet::Publish(p)) => assert_eq!(&*p.payload, b"still here"),
        other => panic!("{other:?}"),
    }
    assert!(broker.dropped() > 0);
    let mut many = Vec::new();
    for n in 0..40 {
        let mut stream = raw(&run, "u1").await;
        stream.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'0' + n]).await.unwrap();
        let mut answer = [0; 4];
        timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        many.push((answer[3], stream));
    }
    assert!(many.iter().any(|(code, _)| *code == 0) && many.last().unwrap().0 == 3, "too many of one pod are not let in");
    std::fs::remove_dir_all(run).unwrap();
}
