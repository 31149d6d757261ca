//! A known client: what it says and what it is told, side by side.
//!
//! In: its packets, its queue, the hub's word that it must end. Out: `FromNode`s, packets; why it ended.
//! Never: reads on while the hub has no room; lets streams go before state.

use crate::{
    FromNode, Right, allowed,
    connection::Setting,
    limits,
    queue::{Next, Queue},
    registry::Seat,
    wire::{self, End, Reader, Writer},
};
use bytes::{Bytes, BytesMut};
use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Packet, SubscribeReturnCode},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

pub(crate) struct Talk<'a> {
    node: &'a str,
    seat: Seat,
    setting: &'a Setting,
    /// Pings are not answered.
    quiet: bool,
    /// Nothing heard for so long: the client is gone.
    patience: Duration,
    /// When the client was heard last.
    heard: Mutex<Instant>,
}

impl<'a> Talk<'a> {
    pub fn new(node: &'a str, seat: Seat, setting: &'a Setting, quiet: bool, keep_alive: Duration) -> Talk<'a> {
        let patience = keep_alive + keep_alive / 2;
        Talk { node, seat, setting, quiet, patience, heard: Mutex::new(Instant::now()) }
    }

    /// For how long nothing has been heard.
    pub fn silent(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Serves until the client or the hub ends it; returns why. Reading and writing go on side by side: a client that is busy
/// sending must be read even while it does not read, or both sides would wait for each other.
pub(crate) async fn talk(reader: &mut Reader, writer: &mut Writer, with: &mut Talk<'_>) -> String {
    let reason = tokio::select! {
        biased;
        reason = with.seat.queue.ended() => reason,
        reason = with.read(reader) => return reason,
        reason = write(writer, &with.seat.queue, with.node) => return reason,
    };
    // The hub's last words; then the client has a moment to take them and to close, because clients drop what they have
    // not read when the end comes at once.
    let last_words = async {
        let mut bytes = BytesMut::new();
        while let Some(next) = with.seat.queue.try_next(true) {
            wire::encode(packet(next, with.node), &mut bytes)?;
        }
        if !bytes.is_empty() {
            writer.write(&bytes).await?;
            while reader.next().await.is_ok() {}
        }
        Ok::<_, String>(())
    };
    let _ = timeout(limits::LAST_WORDS, Box::pin(last_words)).await;
    reason
}

/// Writes what is most urgent; as much as fits one record of TLS goes together, but streams wait for everything else.
async fn write(writer: &mut Writer, queue: &Queue, node: &str) -> String {
    loop {
        let mut next = Some(queue.next().await);
        let mut bytes = BytesMut::new();
        while let Some(one) = next.take() {
            if let Err(e) = wire::encode(packet(one, node), &mut bytes) {
                return e;
            }
            if bytes.len() < limits::BATCH_BYTES {
                next = queue.try_next(false);
            }
        }
        if let Err(e) = Box::pin(writer.write(&bytes)).await {
            return e;
        }
    }
}

fn packet(next: Next, node: &str) -> Packet {
    match next {
        Next::Answer(packet) => packet,
        Next::Message { channel, payload } => publish(node, channel, payload),
    }
}

fn publish(node: &str, channel: char, payload: Bytes) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos: QoS::AtMostOnce,
        topic: format!("n/{node}/d/{channel}").into(),
        packet_id: None,
        payload,
        properties: None,
    }))
}

impl Talk<'_> {
    async fn read(&self, reader: &mut Reader) -> String {
        loop {
            let packet = match timeout(self.patience, reader.next()).await {
                Err(_) => return format!("nothing heard for {} s", self.patience.as_secs()),
                Ok(Ok(packet)) => packet,
                Ok(Err(End::Closed)) => return "the connection was lost".into(),
                Ok(Err(End::Broken(e))) => return format!("broken packet: {e:?}"),
            };
            self.heard();
            // In a box: it is there for a moment, the room for it would be for days.
            if let Err(reason) = Box::pin(self.handle(packet)).await {
                return reason;
            }
        }
    }

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
        match self.seat.queue.answer(packet) {
            true => Ok(()),
            false => Err("does not read its acknowledgements".into()),
        }
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
            connection: self.seat.connection,
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
