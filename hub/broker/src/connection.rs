//! One connection from accept to end.
//!
//! In: a socket. Out: `FromNode`s for the hub, packets for the client.
//! Never: handles a packet before the certificate and the gate have said which node this is.

use crate::{
    Broker, FromNode, Gate, PeerIdentity, Right, allowed, limits,
    talk::{Talk, talk},
    tls::Tls,
    wire::{self, End, Reader, Writer},
};
use rmqtt_codec::v3::{Connect, ConnectAck, ConnectAckReason, Packet};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

/// A stream whose other end has shown a certificate that the hub's CA made.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

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
    // In boxes, here and below: what a handshake needs is given back after it, a connection lasts.
    match Box::pin(handshake(socket, setting)).await {
        Ok((stream, leaf)) => serve(stream, leaf, peer, setting, Some(stranger)).await,
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
    let greeted = match Box::pin(greet(stream, &leaf, peer, setting)).await {
        Ok(greeted) => greeted,
        Err(reason) => {
            tracing::info!(%peer, "MQTT: connection refused: {reason}");
            return;
        }
    };
    drop((stranger, leaf));
    let Greeted { node, quiet, keep_alive, mut reader, mut writer } = greeted;
    reader.set_packet_bytes_max(setting.message_bytes_max);
    let seat = setting.broker.register(&node);
    let connection = seat.connection;
    let mut with = Talk::new(&node, seat, setting, quiet, keep_alive);
    let reason = match setting.inbox.send(FromNode::Connected { node: node.clone(), connection, peer }).await {
        Ok(()) => talk(&mut reader, &mut writer, &mut with).await,
        Err(_) => "the hub is stopping".to_string(),
    };
    let silent = with.silent();
    setting.broker.unregister(&node, connection);
    writer.close().await;
    let _ = setting.inbox.send(FromNode::Disconnected { node, connection, reason, silent }).await;
}

/// A client that may be here.
struct Greeted {
    node: String,
    /// Our own agent needs no answer to its pings: its kernel knows that they arrived.
    quiet: bool,
    keep_alive: Duration,
    reader: Reader,
    writer: Writer,
}

fn keep_alive(connect: &Connect) -> Duration {
    match connect.keep_alive {
        0 => limits::KEEP_ALIVE_MAX,
        s => Duration::from_secs(s.into()).min(limits::KEEP_ALIVE_MAX),
    }
}

/// TLS within its time; the certificate at the other end.
async fn handshake(socket: TcpStream, setting: &Setting) -> Result<(Box<dyn Stream>, Vec<u8>), String> {
    let _ = socket.set_nodelay(true);
    let options = socket2::SockRef::from(&socket);
    // A board that is gone without a word is noticed as soon as there is something to tell it.
    let _ = options.set_tcp_user_timeout(Some(limits::UNACKNOWLEDGED));
    // What waits is put in order here; in the kernel it could not be overtaken.
    let _ = options.set_tcp_notsent_lowat(limits::UNSENT_BYTES);
    let tls = setting.broker.shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
    let stream = timeout(patience(setting.strangers.available_permits()), Tls::accept(tls, socket))
        .await
        .map_err(|_| "no TLS handshake in time".to_string())?
        .map_err(|e| format!("TLS: {e}"))?;
    let leaf = stream.certificates().first().ok_or("no client certificate")?.to_vec();
    Ok((Box::new(stream), leaf))
}

/// How long one that has just come may take for its handshake; `places` are left for others.
fn patience(places: usize) -> Duration {
    if places < limits::UNAUTHENTICATED_ROOM { limits::HANDSHAKE_CROWDED } else { limits::HANDSHAKE }
}

/// CONNECT and the gate, in time.
async fn greet(
    stream: Box<dyn Stream>,
    leaf: &[u8],
    peer: SocketAddr,
    setting: &Setting,
) -> Result<Greeted, String> {
    let identity = PeerIdentity { address: Some(peer), ..PeerIdentity::from_der(leaf)? };
    let (mut reader, mut writer) = wire::split(stream, limits::CONNECT_BYTES_MAX);
    let first = timeout(limits::HANDSHAKE, reader.first())
        .await
        .map_err(|_| format!("{}: no CONNECT in time", identity.common_name))?;
    let connect = match first {
        Ok(Packet::Connect(connect)) => connect,
        Ok(_) => return Err("the first packet is not CONNECT".into()),
        Err(End::Broken(e)) => {
            refuse(&mut writer, ConnectAckReason::UnacceptableProtocolVersion).await;
            return Err(format!("{}: not an MQTT 3.1.1 CONNECT: {e:?}", identity.common_name));
        }
        Err(End::Closed) => return Err("closed before CONNECT".into()),
    };
    let node = match setting.gate.admit(&identity, &connect.client_id) {
        Ok(node) => node,
        Err(reason) => {
            refuse(&mut writer, ConnectAckReason::NotAuthorized).await;
            return Err(format!("{}: {reason}", identity.common_name));
        }
    };
    if let Some(will) = &connect.last_will
        && (will.retain || !allowed(&node, Right::Publish, &will.topic))
    {
        refuse(&mut writer, ConnectAckReason::NotAuthorized).await;
        return Err(format!("{node}: a will outside its own topics, or retained"));
    }
    writer.send(accept_packet(ConnectAckReason::ConnectionAccepted)).await?;
    let quiet = connect.username.as_deref() == Some(limits::QUIET);
    Ok(Greeted { node, quiet, keep_alive: keep_alive(&connect), reader, writer })
}

fn accept_packet(return_code: ConnectAckReason) -> Packet {
    Packet::ConnectAck(ConnectAck { return_code, session_present: false })
}

async fn refuse(writer: &mut Writer, reason: ConnectAckReason) {
    let _ = writer.send(accept_packet(reason)).await;
    writer.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'a, F>(_: impl FnOnce(TcpStream, SocketAddr, &'a Setting, OwnedSemaphorePermit) -> F) -> usize {
        size_of::<F>()
    }

    /// There are as many as boards.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = size(run);
        assert!(size <= 1536, "{size} bytes");
    }

    /// A busy board may take its time until strangers hold half of the places.
    #[test]
    fn who_comes_to_a_crowd_has_less_time() {
        assert_eq!(patience(limits::UNAUTHENTICATED_MAX - 1), limits::HANDSHAKE);
        assert_eq!(patience(limits::UNAUTHENTICATED_ROOM), limits::HANDSHAKE);
        assert_eq!(patience(limits::UNAUTHENTICATED_ROOM - 1), limits::HANDSHAKE_CROWDED);
        assert_eq!(patience(0), limits::HANDSHAKE_CROWDED);
    }
}
