//! A broker with its CA and clients, for tests over real TLS.

#![allow(clippy::unwrap_used, dead_code)]

use limpet_broker::{Broker, BrokerOptions, FromNode, Gate, PeerIdentity, serve};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, TlsConfiguration, Transport};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::client::TlsStream;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc, time::timeout};

pub const LONG: Duration = Duration::from_secs(20);

pub struct NodeGate;
impl Gate for NodeGate {
    fn admit(&self, peer: &PeerIdentity, client_id: &str) -> Result<String, String> {
        let node = peer.common_name.strip_prefix("system:node:").ok_or("not a node")?;
        if client_id != node {
            return Err("the client id is not the node's name".into());
        }
        Ok(node.into())
    }
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Ca {
    pub fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let der = cert.der().clone();
        Ca { issuer: Issuer::new(params, key), der }
    }

    pub fn leaf(&self, cn: &str, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, cn);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }

    pub fn client(&self, trusted: &Ca, cn: &str) -> ClientConfig {
        let (cert, key) = self.leaf(cn, &[]);
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted.roots())
            .with_client_auth_cert(vec![cert], key)
            .unwrap()
    }
}

pub struct World {
    pub ca: Ca,
    pub broker: Broker,
    pub inbox: mpsc::Receiver<FromNode>,
    pub address: SocketAddr,
}

/// A gate that takes the node from the certificate alone, as the hub's does.
pub struct AnyId;
impl Gate for AnyId {
    fn admit(&self, peer: &PeerIdentity, _client_id: &str) -> Result<String, String> {
        peer.common_name.strip_prefix("system:node:").map(String::from).ok_or("not a node".into())
    }
}

pub async fn world() -> World {
    world_with(NodeGate).await
}

pub async fn world_with(gate: impl Gate) -> World {
    let ca = Ca::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider.clone());
    let (cert, key) = ca.leaf("hub", &["localhost"]);
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![cert], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = BrokerOptions { tls: Arc::new(tls), message_bytes_max: 64 * 1024 };
    let (broker, inbox) = serve(Some(listener), options, Arc::new(gate));
    World { ca, broker, inbox, address }
}

impl World {
    pub fn options(&self, id: &str, tls: ClientConfig) -> MqttOptions {
        let mut options = MqttOptions::new(id, "localhost", self.address.port());
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(1024 * 1024, 1024 * 1024);
        options
    }

    pub fn node(&self, name: &str) -> (AsyncClient, EventLoop) {
        let tls = self.ca.client(&self.ca, &format!("system:node:{name}"));
        AsyncClient::new(self.options(name, tls), 10)
    }

    pub async fn next(&mut self) -> FromNode {
        timeout(LONG, self.inbox.recv()).await.expect("in time").expect("open")
    }
}

/// Polls until the wanted packet or an error arrives.
pub async fn until(events: &mut EventLoop, want: impl Fn(&Packet) -> bool) -> Result<Packet, String> {
    timeout(LONG, async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(p)) if want(&p) => return Ok(p),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    })
    .await
    .expect("in time")
}

pub async fn connected(world: &mut World, events: &mut EventLoop) {
    until(events, |p| matches!(p, Packet::ConnAck(_))).await.unwrap();
    assert!(matches!(world.next().await, FromNode::Connected { .. }));
}

impl World {
    /// A TLS connection of a node, nothing said yet.
    pub async fn raw(&self, node: &str) -> TlsStream<TcpStream> {
        let tls = self.ca.client(&self.ca, &format!("system:node:{node}"));
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap()
    }
}
