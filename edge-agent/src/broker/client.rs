//! One client of the board's broker, from CONNECT to its end.
//!
//! In: MQTT 3.1.1 packets, hostile until parsed. Out: subscriptions and messages for the hall; what waits for the client.
//! Sessions end with the connection, whatever `CleanSession` says; QoS 1 is kept while it lasts. QoS 2 is refused.
//! Never: a packet larger than the limit; more in flight than the window; waits long for a client that does not read.

use super::{FromPod, Shared, Whose};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use limpet_agent_core::messages::{Delivery, topics};
use limpet_protocol::limits::MESSAGE_BYTES_MAX;
use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Codec, Connect, ConnectAck, ConnectAckReason, Packet, SubscribeReturnCode},
};
use std::{collections::BTreeSet, num::NonZeroU16, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};
use tokio_util::codec::Framed;

const PACKET_BYTES_MAX: u32 = MESSAGE_BYTES_MAX as u32 + 1024;
const CONNECT_BYTES_MAX: u32 = 4096 + MESSAGE_BYTES_MAX as u32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a client that names none.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3600);
const IN_FLIGHT_MAX: usize = 16;
const FILTERS_PER_PACKET_MAX: usize = 32;

type Wire<S> = Framed<S, Codec>;

pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(stream: S, shared: Shared, whose: Whose) {
    let mut wire = Framed::with_capacity(stream, Codec::new(CONNECT_BYTES_MAX), 1024);
    let why = match greet(&mut wire).await {
        Ok(connect) => match Client::enter(&shared, &whose) {
            Ok(mut client) => client.talk(&mut wire, *connect).await,
            Err(why) => {
                let _ = send(&mut wire, welcome(ConnectAckReason::ServiceUnavailable)).await;
                why.into()
            }
        },
        Err(why) => why,
    };
    log::debug!("broker: a client of pod {}/{}: {why}", whose.namespace, whose.pod);
}

fn welcome(return_code: ConnectAckReason) -> Packet {
    Packet::ConnectAck(ConnectAck { return_code, session_present: false })
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Box<Connect>, String> {
    match timeout(CONNECT_TIMEOUT, wire.next()).await {
        Ok(Some(Ok((Packet::Connect(connect), _)))) => Ok(connect),
        Ok(Some(Ok(_))) => Err("the first packet is not CONNECT".into()),
        Ok(Some(Err(e))) => {
            let _ = send(wire, welcome(ConnectAckReason::UnacceptableProtocolVersion)).await;
            Err(format!("no CONNECT of MQTT 3.1.1: {e:?}"))
        }
        Ok(None) => Err("closed before CONNECT".into()),
        Err(_) => Err("no CONNECT in time".into()),
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, packet: Packet) -> Result<(), String> {
    match timeout(WRITE_TIMEOUT, wire.send(packet)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("write failed: {e:?}")),
        Err(_) => Err("it does not read".into()),
    }
}

/// A client in the hall; leaves it when dropped.
struct Client<'a> {
    shared: &'a Shared,
    whose: &'a Whose,
    number: u64,
    news: Arc<Notify>,
    in_flight: BTreeSet<u16>,
    last_id: u16,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.wake.remove(&self.number);
        state.hall.leave(&self.whose.namespace, self.number);
    }
}

impl<'a> Client<'a> {
    fn enter(shared: &'a Shared, whose: &'a Whose) -> Result<Client<'a>, &'static str> {
        let news = Arc::new(Notify::new());
        let mut state = shared.lock();
        let number = state.hall.enter(&whose.namespace, &whose.pod)?;
        state.wake.insert(number, news.clone());
        Ok(Client { shared, whose, number, news, in_flight: BTreeSet::new(), last_id: 0 })
    }

    /// Returns why it ended.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, connect: Connect) -> String {
        if let Some(will) = &connect.last_will
            && !topics::may_publish(&will.topic)
        {
            let _ = send(wire, welcome(ConnectAckReason::NotAuthorized)).await;
            return "a will on a topic that is not for clients".into();
        }
        if let Err(why) = send(wire, welcome(ConnectAckReason::ConnectionAccepted)).await {
            return why;
        }
        wire.codec_mut().set_max_size(PACKET_BYTES_MAX);
        let (why, politely) = self.until_end(wire, connect.keep_alive).await;
        if let Some(will) = connect.last_will.filter(|_| !politely) {
            let _ = self.publish(&will.topic, will.message, will.qos, will.retain).await;
        }
        why
    }

    async fn until_end<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, keep_alive: u16) -> (String, bool) {
        let patience = match keep_alive {
            0 => KEEP_ALIVE_MAX,
            seconds => Duration::from_secs(u64::from(seconds) * 3 / 2 + 1),
        };
        let news = self.news.clone();
        loop {
            let done = tokio::select! {
                packet = timeout(patience, wire.next()) => match packet {
                    Ok(Some(Ok((Packet::Disconnect, _)))) => return ("it said goodbye".into(), true),
                    Ok(Some(Ok((packet, _)))) => self.packet(wire, packet).await,
                    Ok(Some(Err(e))) => Err(format!("broken packet: {e:?}")),
                    Ok(None) => Err("the connection was lost".into()),
                    Err(_) => Err("nothing heard in time".into()),
                },
                () = news.notified() => Ok(()),
            };
            if let Err(why) = match done {
                Ok(()) => self.deliver(wire).await,
                Err(why) => Err(why),
            } {
                return (why, false);
            }
        }
    }

    async fn packet<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => {
                self.publish(&publish.topic, publish.payload, publish.qos, publish.retain).await?;
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(packet_id)) => send(wire, Packet::PublishAck { packet_id }).await,
                    _ => Ok(()),
                }
            }
            Packet::PublishAck { packet_id } => {
                self.in_flight.remove(&packet_id.get());
                Ok(())
            }
            Packet::Subscribe { packet_id, topic_filters } => {
                if topic_filters.len() > FILTERS_PER_PACKET_MAX {
                    return Err("too many filters in one packet".into());
                }
                let status = topic_filters.iter().map(|(filter, qos)| self.subscribe(filter, *qos)).collect();
                send(wire, Packet::SubscribeAck { packet_id, status }).await
            }
            Packet::Unsubscribe { packet_id, topic_filters } => {
                for filter in &topic_filters {
                    self.shared.lock().hall.unsubscribe(&self.whose.namespace, self.number, filter);
                }
                send(wire, Packet::UnsubscribeAck { packet_id }).await
            }
            Packet::PingRequest => send(wire, Packet::PingResponse).await,
            other => Err(format!("a packet of type {} is not expected", other.packet_type() >> 4)),
        }
    }

    fn subscribe(&self, filter: &str, qos: QoS) -> SubscribeReturnCode {
        let mut state = self.shared.lock();
        match state.hall.subscribe(&self.whose.namespace, self.number, filter, qos as u8) {
            Some(0) => SubscribeReturnCode::Success(QoS::AtMostOnce),
            Some(_) => SubscribeReturnCode::Success(QoS::AtLeastOnce),
            None => SubscribeReturnCode::Failure,
        }
    }

    async fn publish(&self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<(), String> {
        if qos == QoS::ExactlyOnce {
            return Err("QoS 2 is not served here".into());
        }
        if !topics::may_publish(topic) {
            return Err(format!("it published on {:?}, which is not for clients", topic.chars().take(80).collect::<String>()));
        }
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(format!("a message of {} bytes; the limit is {MESSAGE_BYTES_MAX}", payload.len()));
        }
        self.shared.publish(&self.whose.namespace, topic, &payload, qos as u8, retain);
        if topic.starts_with(topics::UP) {
            let (namespace, pod) = (self.whose.namespace.clone(), self.whose.pod.clone());
            let up = FromPod { namespace, pod, topic: topic.into(), payload };
            self.shared.up.send(up).await.map_err(|_| "the agent ends".to_string())?;
        }
        Ok(())
    }

    /// Sends what waits, as far as the window allows.
    async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Result<(), String> {
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let next = self.shared.lock().hall.next(&self.whose.namespace, self.number);
            let Some(delivery) = next else { return Ok(()) };
            let packet = self.packet_of(delivery);
            send(wire, packet).await?;
        }
        Ok(())
    }

    fn packet_of(&mut self, delivery: Delivery) -> Packet {
        let packet_id = (delivery.qos > 0).then(|| self.next_id());
        Packet::Publish(Box::new(Publish {
            dup: false,
            retain: delivery.retain,
            qos: if delivery.qos > 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            topic: delivery.topic.to_string().into(),
            packet_id,
            payload: Bytes::copy_from_slice(&delivery.payload),
            properties: None,
        }))
    }

    fn next_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id).filter(|id| self.in_flight.insert(id.get())) {
                return id;
            }
        }
    }
}
