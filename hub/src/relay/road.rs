//! Asking another hub.
//!
//! In: what this hub's parts want of a board that is connected elsewhere. Out: streams that look like those of boards connected
//! here, figures, kept logs; or a sentence. A connection for each, so that none waits for another.
//! Never: keeps a connection for later; has more than `ASKED_MAX` of them.

use super::{ALPN, ASKED_MAX, Ask, KeptAsk, KeptFound, KeyWord, NODES_MAX, Told, wire};
use crate::{
    run::{
        Peers,
        streams::{Stream, StreamError, StreamHandle},
        usage::NodeUsage,
    },
    webhook::tls::{self, Own},
};
use limpet_protocol::{StreamFrame, StreamOpen};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// In the certificate of every hub.
const NAME: &str = "hub.limpet";
/// For each address of a hub.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// A board has 30 seconds to open a stream, or 10 to say its figures.
const ANSWER_TIME: Duration = Duration::from_secs(35);
/// Frames that wait for the connection.
const FRAMES_MAX: usize = 16;

pub struct Road {
    peers: Arc<Peers>,
    connector: TlsConnector,
    seats: Arc<Semaphore>,
    /// Held while this hub changes keys.
    pub(super) turn: Mutex<()>,
}

/// A connection with its place among `ASKED_MAX`.
struct Line {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
    seat: OwnedSemaphorePermit,
}

impl Road {
    /// `own`: this hub's certificate, the one that its beat names. `ca_pem`: the cluster's CA.
    pub fn new(peers: Arc<Peers>, own: &Own, ca_pem: &str) -> Result<Road, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|why| why.to_string())?.with_root_certificates(tls::roots(ca_pem.as_bytes())?);
        let mut config = tls::with_own(builder, Some(own))?;
        config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
        let seats = Arc::new(Semaphore::new(ASKED_MAX));
        Ok(Road { peers, connector: TlsConnector::from(Arc::new(config)), seats, turn: Mutex::new(()) })
    }

    /// The other hub that the node is connected to.
    pub fn holder(&self, node: &str) -> Option<String> {
        self.peers.holder(node)
    }

    /// As if the node were connected here.
    pub async fn open(&self, hub: &str, node: &str, open: StreamOpen) -> Result<StreamHandle, StreamError> {
        let away = |why: String| StreamError::Elsewhere { node: node.into(), hub: hub.into(), why };
        let mut line = self.ask(hub, &Ask::Stream { node: node.into(), open }).await.map_err(away)?;
        match told(&mut line.read).await.map_err(away)? {
            Told::Opened => {}
            Told::Refused(why) => return Err(why),
            _ => return Err(away("it answers something else".into())),
        }
        let (frames, outgoing) = mpsc::channel(FRAMES_MAX);
        let stream = Arc::new(Stream::opened());
        tokio::spawn(carry(line, Arc::clone(&stream), outgoing, format!("the way to node {node} by hub {hub} is gone")));
        Ok(StreamHandle::relayed(node, stream, frames))
    }

    /// What nodes use that are connected to that hub; those that do not answer are left out.
    pub async fn usage(&self, hub: &str, nodes: &[String]) -> BTreeMap<String, NodeUsage> {
        let mut all = BTreeMap::new();
        for nodes in nodes.chunks(NODES_MAX) {
            if let Err(why) = self.some_usage(hub, nodes, &mut all).await {
                tracing::debug!(hub, "no figures of its boards: {why}");
            }
        }
        all
    }

    async fn some_usage(&self, hub: &str, nodes: &[String], all: &mut BTreeMap<String, NodeUsage>) -> Result<(), String> {
        let mut line = self.ask(hub, &Ask::Usage { nodes: nodes.to_vec() }).await?;
        loop {
            match told(&mut line.read).await? {
                Told::Usage(node, usage) if nodes.contains(&node) => drop(all.insert(node, usage)),
                Told::Refused(why) => return Err(why.to_string()),
                Told::Done => return Ok(()),
                _ => return Err("it answers something else".into()),
            }
        }
    }

    /// The newest that any other hub has kept, and its lines.
    pub async fn kept(&self, ask: &KeptAsk) -> Option<(KeptFound, Vec<u8>)> {
        let hubs = self.peers.others();
        let asked = hubs.iter().map(|hub| async move {
            let found = self.kept_at(hub, ask).await;
            found.map_err(|why| tracing::debug!(hub, "no kept logs: {why}")).ok().flatten()
        });
        let found = futures_util::future::join_all(asked).await;
        found.into_iter().flatten().max_by_key(|(found, _)| (found.has_lines, found.at_ms))
    }

    async fn kept_at(&self, hub: &str, ask: &KeptAsk) -> Result<Option<(KeptFound, Vec<u8>)>, String> {
        let mut line = self.ask(hub, &Ask::Kept(ask.clone())).await?;
        match told(&mut line.read).await? {
            Told::Kept(None) => Ok(None),
            Told::Kept(Some(found)) => {
                let lines = match found.has_lines {
                    true => wire::read(&mut line.read).await.map_err(|why| why.to_string())?,
                    false => Vec::new(),
                };
                Ok(Some((found, lines)))
            }
            Told::Refused(why) => Err(why.to_string()),
            _ => Err("it answers something else".into()),
        }
    }

    /// One step of a change of keys.
    pub(super) async fn key(&self, hub: &str, word: KeyWord) -> Result<(), String> {
        let mut line = self.ask(hub, &Ask::Key(word)).await?;
        match told(&mut line.read).await? {
            Told::Done => Ok(()),
            Told::Refused(why) => Err(why.to_string()),
            _ => Err("it answers something else".into()),
        }
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    async fn ask(&self, hub: &str, ask: &Ask) -> Result<Line, String> {
        let full = || "this hub has too many streams to boards at other hubs; close some and try again".to_string();
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| full())?;
        let mut why = "it has not said where it is reached".to_string();
        for address in self.peers.api_of(hub) {
            match tokio::time::timeout(CONNECT_TIME, self.connect(&address)).await {
                Ok(Ok(stream)) => {
                    let (read, mut write) = tokio::io::split(stream);
                    wire::write_word(&mut write, ask).await.map_err(|why| format!("{address}: {why}"))?;
                    return Ok(Line { read, write, seat });
                }
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address} does not answer"),
            }
        }
        Err(why)
    }

    async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = self.connector.connect(name, stream).await?;
        match stream.get_ref().1.alpn_protocol() {
            Some(protocol) if protocol == ALPN.as_bytes() => Ok(stream),
            _ => Err(io::Error::other("it is a hub of an older version")),
        }
    }
}

async fn told(read: &mut (impl AsyncRead + Unpin)) -> Result<Told, String> {
    match tokio::time::timeout(ANSWER_TIME, wire::read_word(read)).await {
        Ok(told) => told.map_err(|why| why.to_string()),
        Err(_) => Err("it does not answer".into()),
    }
}

/// Until the handle is dropped, or the other side ends.
async fn carry(line: Line, stream: Arc<Stream>, outgoing: mpsc::Receiver<StreamFrame>, gone: String) {
    let Line { mut read, write, seat } = line;
    let reading = async {
        loop {
            let frame = match wire::read_from_holder(&mut read).await {
                Ok(frame) => frame,
                Err(why) => return format!("{gone}: {why}"),
            };
            let last = matches!(frame, StreamFrame::End { .. });
            if let Err(why) = stream.take(frame) {
                return why.into();
            }
            if last {
                return String::new();
            }
        }
    };
    let writing = async {
        if wire::write_all(write, outgoing, wire::to_holder).await.is_err() {
            // What the board said last may still be unread.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // After the last word of the board this changes nothing.
        why = reading => stream.end(why),
        () = writing => {}
    }
    drop(seat);
}
