//! A device in the person of an MQTT client, from its join token to its removal.
//!
//! In: real TLS, broker, store and session core. Out: what the device hears, and what is written.

use super::*;
use crate::{
    enroll::{Endpoints, Enroll, TokenWish},
    pki::Pki,
    run::{Api, Applier, Delete, FromNode as Said, Listener, Streams, World, tests::PlainApi},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use limpet_broker::{Broker, BrokerOptions, serve};
use limpet_protocol::{
    Ack, Down, Envelope, Hello, Inventory, ItemKind, StreamFrame, StreamKind, StreamOpen, Up,
    join::{JoinAnswer, JoinAsk, JoinToken, TOKEN_PREFIX},
    topic::{self, Channel},
};
use limpet_store::{Key, Store};
use rcgen::{CertificateParams, KeyPair};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, time::timeout};

const LONG: Duration = Duration::from_secs(30);

struct Hub {
    dir: tempfile::TempDir,
    store: Store,
    api: Arc<PlainApi>,
    enroll: Arc<Enroll>,
    streams: Streams,
    _broker: Broker,
    port: u16,
}

async fn hub() -> Hub {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limpet_store::Options::default()).unwrap();
    let pki = Pki::open(&dir.path().join("pki"), &[], SystemTime::now()).unwrap();
    let tls = Arc::new(pki.mqtt_config().unwrap());
    let enroll = Arc::new(Enroll::new(store.clone(), Arc::new(RwLock::new(pki)), Endpoints::default()));
    let api = Arc::new(PlainApi::new(store.clone(), 0));
    let (world, feed) = World::load(&store);
    let applier = Arc::new(Applier::new(api.clone(), store.clone(), world));
    let peers = crate::run::Peers::new(store.clone(), "", Endpoints::default(), b"");
    let (offline, nodes) = (Offline::new(applier.clone(), applier.clone(), peers), Nodes::new());
    let listeners: Vec<Arc<dyn Listener>> = vec![offline.clone(), nodes.clone()];
    tokio::spawn(feed.run(listeners));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let presence = Arc::new(Presence::new());
    let gate = Arc::new(NodeGate::new(enroll.clone(), nodes.clone(), presence.clone()));
    let options = BrokerOptions { tls, message_bytes_max: 4 * 1024 * 1024 };
    let (broker, from_nodes) = serve(Some(listener), options, gate);
    let (streams, to_nodes) = Streams::new();
    offline.start();
    nodes.start(Links {
        presence,
        messages: Arc::new(crate::messages::Messages::open(dir.path())),
        kept: Arc::new(crate::kept::KeptLogs::open(dir.path())),
        ranges: Default::default(),
        broker: broker.clone(),
        from_nodes,
        streams: streams.clone(),
        to_nodes,
        applier,
        offline,
        enroll: enroll.clone(),
    });
    Hub { dir, store, api, enroll, streams, _broker: broker, port }
}

impl Hub {
    async fn join(&self, name: &str) -> (JoinAnswer, String) {
        // A token of its own: who has joined before may join again, as another card.
        let wish = TokenWish { ttl_seconds: 60, node: Some(name.into()), ..TokenWish::default() };
        let made = self.enroll.create_token(&wish, SystemTime::now()).await.unwrap();
        let json = URL_SAFE_NO_PAD.decode(made.token.strip_prefix(TOKEN_PREFIX).unwrap()).unwrap();
        let token: JoinToken = serde_json::from_slice(&json).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap();
        let ask = JoinAsk {
            token_id: token.id,
            token_secret: token.secret,
            node_name: name.into(),
            csr_pem: csr.pem().unwrap(),
            instance: "00".into(),
            description: String::new(),
            hardware: String::new(),
        };
        (self.enroll.join(&ask, "192.0.2.9", SystemTime::now()).await.unwrap(), key.serialize_pem())
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let record = self.store.get(&Key::new(resource, namespace, name))?;
        serde_json::from_slice(&record.bytes).ok()
    }
}

struct Device {
    name: String,
    client: AsyncClient,
    events: EventLoop,
    session: u64,
}

impl Device {
    fn new(hub: &Hub, name: &str, (answer, key): &(JoinAnswer, String)) -> Device {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(answer.ca_pem.as_bytes()).unwrap()).unwrap();
        let cert = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)
            .unwrap();
        let mut options = MqttOptions::new(name, "localhost", hub.port);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_max_packet_size(4 * 1024 * 1024, 4 * 1024 * 1024);
        // Nobody polls it while others talk.
        options.set_keep_alive(Duration::from_secs(1000));
        let (client, events) = AsyncClient::new(options, 100);
        Device { name: name.into(), client, events, session: 1 }
    }

    async fn hello(&mut self) {
        self.hello_as([0; 16]).await;
    }

    async fn hello_as(&mut self, instance: [u8; 16]) {
        self.client.subscribe(topic::down_filter(&self.name), QoS::AtMostOnce).await.unwrap();
        let hello = Hello { boot_id: "b".into(), speaks: (1, 3), instance, ..Hello::default() };
        self.say(Channel::State, Up::Hello(hello)).await;
    }

    async fn say(&self, channel: Channel, message: Up) {
        let bytes = Envelope { session: self.session, message }.encode(3);
        self.client.publish(topic::up(&self.name, channel), QoS::AtLeastOnce, false, bytes).await.unwrap();
    }

    /// The next word of the hub that `wanted` likes, or why the connection ended.
    async fn hear(&mut self, wanted: impl Fn(&Down) -> bool) -> Result<Down, String> {
        let hearing = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(p))) => {
                        let envelope = Envelope::<Down>::decode(&p.payload).unwrap();
                        if wanted(&envelope.message) {
                            return Ok(envelope.message);
                        }
                    }
                    Ok(_) => {}
                    Err(e) => return Err(e.to_string()),
                }
            }
        };
        timeout(LONG, hearing).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_joins_works_and_is_removed() {
    let hub = hub().await;
    let papers = hub.join("pi-1").await;
    let mut device = Device::new(&hub, "pi-1", &papers);
    device.hello().await;
    device.hear(|d| matches!(d, Down::Welcome(_))).await.unwrap();
    device.say(Channel::State, Up::Inventory(Inventory::default())).await;
    let node = hub.get("/nodes", "", "pi-1").unwrap();
    assert_eq!(node["spec"]["podCIDR"], "10.42.0.0/24");

    // A pod that is bound to it reaches it.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "pi-1", "containers": [{"name": "c", "image": "i"}]},
    });
    hub.api.create("test", "/pods".into(), "default".into(), pod).await.unwrap();
    let has_pod = |d: &Down| match d {
        Down::Step(c) => c.puts.iter().any(|i| i.key.kind == ItemKind::Pod && i.key.name == "web"),
        _ => false,
    };
    let Ok(Down::Step(change)) = device.hear(has_pod).await else { panic!() };
    device.say(Channel::State, Up::Ack(Ack { seq: change.seq })).await;

    // Its report is written.
    let uid = hub.get("/pods", "default", "web").unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
    let report = limpet_protocol::PodReport {
        uid: uid.clone(),
        namespace: "default".into(),
        name: "web".into(),
        version: 1,
        status: json!({"phase": "Running"}).to_string().into_bytes(),
    };
    device.say(Channel::Status, Up::PodReport(report)).await;
    device.hear(|d| matches!(d, Down::Reported { uid: u, version: 1 } if *u == uid)).await.unwrap();
    assert_eq!(hub.get("/pods", "default", "web").unwrap()["status"]["phase"], "Running");

    // A stream goes through.
    let open = StreamOpen {
        namespace: "default".into(),
        pod: "web".into(),
        uid,
        kind: StreamKind::PortForward { port: 80 },
    };
    let streams = hub.streams.clone();
    let opening = tokio::spawn(async move { streams.open("pi-1", open).await });
    let heard = device.hear(|d| matches!(d, Down::Stream(StreamFrame::Open { .. }))).await.unwrap();
    let Down::Stream(frame) = heard else { panic!() };
    let id = frame.id();
    device.say(Channel::Stream, Up::Stream(StreamFrame::Opened { id })).await;
    let data = StreamFrame::Data { id, lane: 0, bytes: b"hi".to_vec() };
    device.say(Channel::Stream, Up::Stream(data)).await;
    let polling = tokio::spawn(async move {
        let goodbye = device.hear(|d| matches!(d, Down::Goodbye { .. })).await;
        goodbye.map(|d| (d, device))
    });
    let handle = opening.await.unwrap().unwrap();
    assert_eq!(handle.recv().await, Some(Said::Data { lane: 0, bytes: "hi".into() }));

    // Deleting the Node ends it all, and the certificate opens nothing any more.
    let ask = Delete {
        resource: "/nodes".into(),
        namespace: String::new(),
        name: "pi-1".into(),
        uid: String::new(),
        grace: None,
        propagation: None,
    };
    hub.api.delete("test", ask).await.unwrap();
    assert!(matches!(handle.recv().await, Some(Said::End { .. })));
    polling.await.unwrap().unwrap();
    let mut again = Device::new(&hub, "pi-1", &papers);
    again.hello().await;
    again.hear(|_| true).await.unwrap_err();
    assert_eq!(hub.get("/nodes", "", "pi-1"), None);
    let papers = hub.join("pi-1").await;
    let mut anew = Device::new(&hub, "pi-1", &papers);
    anew.hello().await;
    anew.hear(|d| matches!(d, Down::Welcome(_))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_together_get_different_addresses() {
    let hub = hub().await;
    let mut devices = Vec::new();
    for name in ["a", "b", "c"] {
        let papers = hub.join(name).await;
        devices.push(Device::new(&hub, name, &papers));
    }
    let welcomed = devices.into_iter().map(|mut device| async move {
        device.hello().await;
        device.hear(|d| matches!(d, Down::Welcome(_))).await
    });
    for welcome in futures_util::future::join_all(welcomed).await {
        welcome.unwrap();
    }
    let nodes = hub.store.list("/nodes", None).records;
    let ranges: std::collections::BTreeSet<String> = nodes
        .iter()
        .map(|r| serde_json::from_slice::<Value>(&r.bytes).unwrap()["spec"]["podCIDR"].to_string())
        .collect();
    assert_eq!(ranges.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_card_under_an_old_name_is_no_copy() {
    let hub = hub().await;
    let come = async |name: &str, papers: &(JoinAnswer, String), instance: [u8; 16]| {
        let mut device = Device::new(&hub, name, papers);
        device.hello_as(instance).await;
        device.hear(|d| matches!(d, Down::Welcome(_))).await.unwrap();
        device
    };
    // A board, and the same one with a card that was written anew; the first one may still be there.
    let first = hub.join("pi-1").await;
    let there = come("pi-1", &first, [1; 16]).await;
    let second = hub.join("pi-1").await;
    come("pi-1", &second, [2; 16]).await;
    drop(there);
    // Two installations with one key are a copy: this is told, and later than anything about the first board would be.
    let papers = hub.join("pi-2").await;
    come("pi-2", &papers, [1; 16]).await;
    come("pi-2", &papers, [2; 16]).await;
    let mut watch = hub.store.watch("/events", None, 0).unwrap();
    loop {
        let event = timeout(LONG, watch.next()).await.expect("an Event about the copy").unwrap().unwrap();
        let event: Value = serde_json::from_slice(&event.record.bytes).unwrap();
        if event["reason"] == "DuplicateIdentity" {
            assert_eq!(event["involvedObject"]["name"], "pi-2", "{event}");
            return;
        }
    }
}

mod forgeries;
