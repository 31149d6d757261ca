//! One connection from accept to end.
//!
//! In: a socket. Out: `FromNode`s for the hub, packets for the client.
//! Never: handles a packet before the certificate and the gate have said which node this is.

use crate::{
    Broker, FromNode, Gate, PeerIdentity, Right, allowed, limits,
    registry::{Lane, Outgoing, Seat},
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use rmqtt_codec::{
    error::DecodeError,
    types::{Publish, QoS},
    v3::{Codec, Connect, ConnectAck, ConnectAckReason, Packet, SubscribeReturnCode},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::codec::Framed;

/// A stream whose other end has shown a certificate that the hub's CA made.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Wire = Framed<Box<dyn Stream>, Codec>;

pub(crate) struct Setting {
    pub broker: Broker,
    pub gate: Arc<dyn Gate>,
    pub inbox: mpsc::Sender<FromNode>,
    pub strangers: Arc<Semaphore>,
    pub all: Arc<Semaphore>,
    pub message_bytes_max: usize,
}

/// Serves one socket until it ends; `stranger` is given back once the client is known.
pub(crate) async fn run(
    socket: TcpStream,
    peer: SocketAddr,
    setting: &Setting,
    stranger: OwnedSemaphorePermit,
) {
    match handshake(socket, setting).await {
        Ok((stream, leaf)) => serve(Box::new(stream), leaf, peer, setting, Some(stranger)).await,
        Err(reason) => tracing::info!(%peer, "MQTT: connection refused: {reason}"),
    }
}

/// Serves a stream on which TLS is done; `leaf` is the certificate that it verified.
pub(crate) async fn serve(
    stream: Box<dyn Stream>,
    leaf: Vec<u8>,
    peer: SocketAddr,
    setting: &Setting,
    stranger: Option<OwnedSemaphorePermit>,
) {
    let (node, connect, certificate, mut wire) = match greet(stream, &leaf, peer, setting).await {
        Ok(greeted) => greeted,
        Err(reason) => {
            tracing::info!(%peer, "MQTT: connection refused: {reason}");
            return;
        }
    };
    drop((stranger, leaf));
    wire.codec_mut().set_max_size(setting.message_bytes_max as u32);
    let mut seat = setting.broker.register(&node);
    let connection = seat.connection;
    let connected = FromNode::Connected { node: node.clone(), connection, certificate, peer };
    let heard = Heard::default();
    let reason = match setting.inbox.send(connected).await {
        Ok(()) => talk(&mut wire, &mut seat, setting, &node, &connect, &heard).await,
        Err(_) => "the hub is stopping".to_string(),
    };
    setting.broker.unregister(&node, connection);
    let _ = timeout(Duration::from_secs(1), wire.close()).await;
    let silent = heard.ago();
    let _ = setting.inbox.send(FromNode::Disconnected { node, connection, reason, silent }).await;
}

/// When the client was heard last.
struct Heard(Mutex<Instant>);

impl Default for Heard {
    fn default() -> Heard {
        Heard(Mutex::new(Instant::now()))
    }
}

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn ago(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

fn keep_alive(connect: &Connect) -> Duration {
    match connect.keep_alive {
        0 => limits::KEEP_ALIVE_MAX,
        s => Duration::from_secs(s.into()).min(limits::KEEP_ALIVE_MAX),
    }
}

/// TLS within its time; the certificate at the other end.
async fn handshake(socket: TcpStream, setting: &Setting) -> Result<(TlsStream<TcpStream>, Vec<u8>), String> {
    let _ = socket.set_nodelay(true);
    // A board that is gone without a word is noticed as soon as there is something to tell it.
    let _ = socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(limits::UNACKNOWLEDGED));
    let tls = setting.broker.shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
    let stream = timeout(limits::HANDSHAKE, TlsAcceptor::from(tls).accept(socket))
        .await
        .map_err(|_| "no TLS handshake in time".to_string())?
        .map_err(|e| format!("TLS: {e}"))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let leaf = leaf.ok_or("no client certificate")?.to_vec();
    Ok((stream, leaf))
}

/// CONNECT and the gate, in time.
async fn greet(
    stream: Box<dyn Stream>,
    leaf: &[u8],
    peer: SocketAddr,
    setting: &Setting,
) -> Result<(String, Box<Connect>, Vec<u8>, Wire), String> {
    let identity = PeerIdentity { address: Some(peer), ..PeerIdentity::from_der(leaf)? };
    let mut wire = Framed::with_capacity(stream, Codec::new(limits::CONNECT_BYTES_MAX), 1024);
    let first = timeout(limits::HANDSHAKE, wire.next())
        .await
        .map_err(|_| format!("{}: no CONNECT in time", identity.common_name))?;
    let connect = match first {
        Some(Ok((Packet::Connect(connect), _))) => connect,
        Some(Ok(_)) => return Err("the first packet is not CONNECT".into()),
        Some(Err(e)) => {
            refuse(&mut wire, ConnectAckReason::UnacceptableProtocolVersion).await;
            return Err(format!("{}: not an MQTT 3.1.1 CONNECT: {e:?}", identity.common_name));
        }
        None => return Err("closed before CONNECT".into()),
    };
    let node = match setting.gate.admit(&identity, &connect.client_id) {
        Ok(node) => node,
        Err(reason) => {
            refuse(&mut wire, ConnectAckReason::NotAuthorized).await;
            return Err(format!("{}: {reason}", identity.common_name));
        }
    };
    if let Some(will) = &connect.last_will
        && (will.retain || !allowed(&node, Right::Publish, &will.topic))
    {
        refuse(&mut wire, ConnectAckReason::NotAuthorized).await;
        return Err(format!("{node}: a will outside its own topics, or retained"));
    }
    send(&mut wire, accept_packet(ConnectAckReason::ConnectionAccepted)).await?;
    Ok((node, connect, identity.certificate, wire))
}

fn accept_packet(return_code: ConnectAckReason) -> Packet {
    Packet::ConnectAck(ConnectAck { return_code, session_present: false })
}

async fn refuse(wire: &mut Wire, reason: ConnectAckReason) {
    let _ = send(wire, accept_packet(reason)).await;
    let _ = timeout(Duration::from_secs(1), wire.close()).await;
}

async fn send(wire: &mut Wire, packet: Packet) -> Result<(), String> {
    match timeout(limits::WRITE, wire.send(packet)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("write failed: {e:?}")),
        Err(_) => Err("takes messages too slowly".into()),
    }
}

/// Serves a known client; returns why it ended. Reading and writing go on side by side: a client that is busy sending
/// must be read even while it does not read, or both sides would wait for each other.
async fn talk(
    wire: &mut Wire,
    seat: &mut Seat,
    setting: &Setting,
    node: &str,
    connect: &Connect,
    heard: &Heard,
) -> String {
    let keep_alive = keep_alive(connect);
    // Our own agent needs no answer to its pings: its kernel knows that they arrived.
    let quiet = connect.username.as_deref() == Some(limits::QUIET);
    let (answers, mut answer_queue) = mpsc::channel(limits::ANSWERS_MAX);
    let (mut sink, mut stream) = wire.split();
    let from = Origin { node, connection: seat.connection, setting, answers, quiet, heard };
    let Seat { queue, bulk, end, .. } = seat;
    let reason = tokio::select! {
        biased;
        _ = end.changed() => end.borrow().clone().unwrap_or_else(|| "ended by the hub".into()),
        reason = read(&mut stream, &from, keep_alive + keep_alive / 2) => return reason,
        reason = write(&mut sink, &mut answer_queue, queue, bulk) => return reason,
    };
    // The hub's last words; then the client has a moment to take them and to close, because clients drop what they have
    // not read when the end comes at once.
    let last_words = async {
        let mut said = false;
        while let Some(outgoing) = queue.try_recv() {
            sink.feed(publish(outgoing)).await?;
            said = true;
        }
        sink.flush().await?;
        while said && let Some(Ok(_)) = stream.next().await {}
        Ok::<_, rmqtt_codec::error::EncodeError>(())
    };
    let _ = timeout(limits::LAST_WORDS, last_words).await;
    reason
}

/// Writes answers first, then state, then bulk; as many as are queued share one flush.
async fn write(
    sink: &mut SplitSink<&mut Wire, Packet>,
    answers: &mut mpsc::Receiver<Packet>,
    queue: &mut Lane,
    bulk: &mut Lane,
) -> String {
    loop {
        let packet = tokio::select! {
            biased;
            Some(packet) = answers.recv() => packet,
            Some(outgoing) = queue.recv() => publish(outgoing),
            Some(outgoing) = bulk.recv() => publish(outgoing),
            else => return "replaced".into(),
        };
        let more = !answers.is_empty() || !queue.is_empty() || !bulk.is_empty();
        let written = async {
            match more {
                true => sink.feed(packet).await,
                false => sink.send(packet).await,
            }
        };
        match timeout(limits::WRITE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return format!("write failed: {e:?}"),
            Err(_) => return "takes messages too slowly".into(),
        }
    }
}

fn publish(outgoing: Outgoing) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos: QoS::AtMostOnce,
        topic: outgoing.topic.into(),
        packet_id: None,
        payload: outgoing.payload,
        properties: None,
    }))
}

/// Where packets come from and where answers go.
struct Origin<'a> {
    node: &'a str,
    connection: u64,
    setting: &'a Setting,
    answers: mpsc::Sender<Packet>,
    /// Pings are not answered.
    quiet: bool,
    heard: &'a Heard,
}

async fn read(stream: &mut SplitStream<&mut Wire>, from: &Origin<'_>, patience: Duration) -> String {
    loop {
        let packet = match timeout(patience, stream.next()).await {
            Err(_) => return format!("nothing heard for {} s", patience.as_secs()),
            Ok(Some(Ok((packet, _)))) => packet,
            Ok(Some(Err(DecodeError::Io(_)))) | Ok(None) => return "the connection was lost".into(),
            Ok(Some(Err(e))) => return format!("broken packet: {e:?}"),
        };
        from.heard.now();
        if let Err(reason) = from.handle(packet).await {
            return reason;
        }
    }
}

impl Origin<'_> {
    async fn handle(&self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => self.receive(*publish).await,
            Packet::Subscribe { packet_id, topic_filters } => {
                if topic_filters.len() > limits::FILTERS_MAX {
                    return Err("too many topic filters".into());
                }
                let status = topic_filters.iter().map(|(filter, _)| self.subscribe(filter)).collect();
                self.answer(Packet::SubscribeAck { packet_id, status })
            }
            Packet::Unsubscribe { packet_id, .. } => self.answer(Packet::UnsubscribeAck { packet_id }),
            Packet::PingRequest if self.quiet => Ok(()),
            Packet::PingRequest => self.answer(Packet::PingResponse),
            Packet::PublishAck { .. } => Ok(()),
            Packet::Disconnect => Err("the node said goodbye".into()),
            other => Err(format!("unexpected packet of type {}", other.packet_type() >> 4)),
        }
    }

    fn subscribe(&self, filter: &str) -> SubscribeReturnCode {
        match allowed(self.node, Right::Subscribe, filter) {
            // The hub sends to `n/<node>/d/…` only, and a node that asks for less gets the same.
            true => SubscribeReturnCode::Success(QoS::AtMostOnce),
            false => {
                tracing::warn!(node = self.node, "MQTT: subscription to {:?} refused", short(filter));
                SubscribeReturnCode::Failure
            }
        }
    }

    /// A client that asks faster than it reads the answers is cut off.
    fn answer(&self, packet: Packet) -> Result<(), String> {
        self.answers.try_send(packet).map_err(|_| "does not read its acknowledgements".to_string())
    }

    async fn receive(&self, publish: Publish) -> Result<(), String> {
        if !allowed(self.node, Right::Publish, &publish.topic) {
            return Err(format!("published to {:?}, which is not its own", short(&publish.topic)));
        }
        if publish.retain || publish.qos == QoS::ExactlyOnce {
            return Err("retained messages and QoS 2 are not part of this link".into());
        }
        let message = FromNode::Message {
            node: self.node.to_string(),
            connection: self.connection,
            channel: publish.topic.chars().last().unwrap_or('?'),
            payload: publish.payload,
        };
        self.setting.inbox.send(message).await.map_err(|_| "the hub is stopping".to_string())?;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => self.answer(Packet::PublishAck { packet_id }),
            _ => Ok(()),
        }
    }
}

/// What a log line may repeat of a stranger's text.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
