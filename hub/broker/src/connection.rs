//! One connection from accept to end.
//!
//! In: a socket. Out: `FromNode`s for the hub, packets for the client.
//! Never: handles a packet before the certificate and the gate have said which node this is.

use crate::{
    Broker, FromNode, Gate, PeerIdentity, Right, allowed, limits,
    registry::{Outgoing, Seat},
};
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Codec, Connect, ConnectAck, ConnectAckReason, Packet, SubscribeReturnCode},
};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::codec::Framed;

type Wire = Framed<TlsStream<TcpStream>, Codec>;

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
    let (node, connect, certificate, mut wire) = match greet(socket, setting).await {
        Ok(greeted) => greeted,
        Err(reason) => {
            tracing::info!(%peer, "MQTT: connection refused: {reason}");
            return;
        }
    };
    drop(stranger);
    wire.codec_mut().set_max_size(setting.message_bytes_max as u32);
    let mut seat = setting.broker.register(&node);
    let connection = seat.connection;
    let connected = FromNode::Connected { node: node.clone(), connection, certificate, peer };
    let reason = match setting.inbox.send(connected).await {
        Ok(()) => talk(&mut wire, &mut seat, setting, &node, keep_alive(&connect)).await,
        Err(_) => "the hub is stopping".to_string(),
    };
    setting.broker.unregister(&node, connection);
    let _ = timeout(Duration::from_secs(1), wire.close()).await;
    let _ = setting.inbox.send(FromNode::Disconnected { node, connection, reason }).await;
}

fn keep_alive(connect: &Connect) -> Duration {
    match connect.keep_alive {
        0 => limits::KEEP_ALIVE_MAX,
        s => Duration::from_secs(s.into()).min(limits::KEEP_ALIVE_MAX),
    }
}

/// TLS, CONNECT and the gate, each within its time.
async fn greet(
    socket: TcpStream,
    setting: &Setting,
) -> Result<(String, Box<Connect>, Vec<u8>, Wire), String> {
    let _ = socket.set_nodelay(true);
    let tls = setting.broker.shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
    let stream = timeout(limits::HANDSHAKE, TlsAcceptor::from(tls).accept(socket))
        .await
        .map_err(|_| "no TLS handshake in time".to_string())?
        .map_err(|e| format!("TLS: {e}"))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let leaf = leaf.ok_or("no client certificate")?;
    let identity = PeerIdentity::from_der(leaf)?;
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

/// Serves a known client; returns why it ended.
async fn talk(
    wire: &mut Wire,
    seat: &mut Seat,
    setting: &Setting,
    node: &str,
    keep_alive: Duration,
) -> String {
    let patience = keep_alive + keep_alive / 2;
    let mut deadline = Instant::now() + patience;
    loop {
        tokio::select! {
            biased;
            _ = seat.end.changed() => {
                return seat.end.borrow().clone().unwrap_or_else(|| "ended by the hub".into());
            }
            packet = wire.next() => {
                deadline = Instant::now() + patience;
                let packet = match packet {
                    Some(Ok((packet, _))) => packet,
                    Some(Err(e)) => return format!("broken packet: {e:?}"),
                    None => return "closed by the node".into(),
                };
                match handle(packet, wire, seat, setting, node).await {
                    Ok(()) => {}
                    Err(reason) => return reason,
                }
            }
            Some(outgoing) = seat.queue.recv() => {
                seat.queued_bytes.fetch_sub(outgoing.payload.len(), Ordering::Relaxed);
                if let Err(reason) = send(wire, publish(outgoing)).await {
                    return reason;
                }
            }
            _ = tokio::time::sleep_until(deadline) => {
                return format!("nothing heard for {} s", patience.as_secs());
            }
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

async fn handle(
    packet: Packet,
    wire: &mut Wire,
    seat: &Seat,
    setting: &Setting,
    node: &str,
) -> Result<(), String> {
    match packet {
        Packet::Publish(publish) => receive(*publish, wire, seat, setting, node).await,
        Packet::Subscribe { packet_id, topic_filters } => {
            if topic_filters.len() > limits::FILTERS_MAX {
                return Err("too many topic filters".into());
            }
            let status = topic_filters
                .iter()
                .map(|(filter, _)| match allowed(node, Right::Subscribe, filter) {
                    // The hub sends to `n/<node>/d/…` only, and a node that asks for less gets the same.
                    true => SubscribeReturnCode::Success(QoS::AtMostOnce),
                    false => {
                        tracing::warn!(node, "MQTT: subscription to {:?} refused", short(filter));
                        SubscribeReturnCode::Failure
                    }
                })
                .collect();
            send(wire, Packet::SubscribeAck { packet_id, status }).await
        }
        Packet::Unsubscribe { packet_id, .. } => {
            send(wire, Packet::UnsubscribeAck { packet_id }).await
        }
        Packet::PingRequest => send(wire, Packet::PingResponse).await,
        Packet::PublishAck { .. } => Ok(()),
        Packet::Disconnect => Err("the node said goodbye".into()),
        other => Err(format!("unexpected packet of type {}", other.packet_type() >> 4)),
    }
}

async fn receive(
    publish: Publish,
    wire: &mut Wire,
    seat: &Seat,
    setting: &Setting,
    node: &str,
) -> Result<(), String> {
    if !allowed(node, Right::Publish, &publish.topic) {
        return Err(format!("published to {:?}, which is not its own", short(&publish.topic)));
    }
    if publish.retain || publish.qos == QoS::ExactlyOnce {
        return Err("retained messages and QoS 2 are not part of this link".into());
    }
    let channel = publish.topic.chars().last().unwrap_or('?');
    let message = FromNode::Message {
        node: node.to_string(),
        connection: seat.connection,
        channel,
        payload: publish.payload,
    };
    setting.inbox.send(message).await.map_err(|_| "the hub is stopping".to_string())?;
    match (publish.qos, publish.packet_id) {
        (QoS::AtLeastOnce, Some(packet_id)) => send(wire, Packet::PublishAck { packet_id }).await,
        _ => Ok(()),
    }
}

/// What a log line may repeat of a stranger's text.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
