//! One client of the board's broker, from CONNECT to its end.
//!
//! In: MQTT 3.1.1 packets, hostile until parsed. Out: subscriptions and messages for the hall; what waits for the client.
//! A session without `CleanSession` outlives the connection (in the hall, which is memory of the agent); QoS 0, 1 and 2.
//! Never: a packet larger than the limit; more in flight than the window; waits long for a client that does not read.

use super::{FromPod, Shared, Whose};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use limpet_agent_core::messages::{Answer, Delivery, Step, topics};
use limpet_protocol::limits::MESSAGE_BYTES_MAX;
use rmqtt_codec::{
    error::DecodeError,
    types::{Publish, QoS},
    v3::{Codec, Connect, ConnectAck, ConnectAckReason, Packet, SubscribeReturnCode},
};
use std::{num::NonZeroU16, sync::Arc, time::Duration};
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
/// A client's name for itself; the standard wants 23 to be possible.
const NAME_BYTES_MAX: usize = 256;
const FILTERS_PER_PACKET_MAX: usize = 32;

type Wire<S> = Framed<S, Codec>;

pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(stream: S, shared: Shared, whose: Whose) {
    let mut wire = Framed::with_capacity(stream, Codec::new(CONNECT_BYTES_MAX), 1024);
    let why = match greet(&mut wire).await {
        Ok(connect) if !is_named_well(&connect) => {
            let _ = send(&mut wire, welcome(ConnectAckReason::IdentifierRejected)).await;
            "a session needs a client id, of 256 bytes at most".into()
        }
        Ok(connect) => match Client::enter(&shared, &whose, &connect) {
            Ok((mut client, known)) => client.talk(&mut wire, *connect, known).await,
            Err(why) => {
                let _ = send(&mut wire, welcome(ConnectAckReason::ServiceUnavailable)).await;
                why.into()
            }
        },
        Err(why) => why,
    };
    log::debug!("broker: a client of pod {}/{}: {why}", whose.namespace, whose.pod);
}

fn is_named_well(connect: &Connect) -> bool {
    connect.client_id.len() <= NAME_BYTES_MAX && (connect.clean_session || !connect.client_id.is_empty())
}

fn welcome(return_code: ConnectAckReason) -> Packet {
    Packet::ConnectAck(ConnectAck { return_code, session_present: false })
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Box<Connect>, String> {
    match timeout(CONNECT_TIMEOUT, wire.next()).await {
        Ok(Some(Ok((Packet::Connect(connect), _)))) => Ok(connect),
        Ok(Some(Ok(_))) => Err("the first packet is not CONNECT".into()),
        Ok(Some(Err(e))) => {
            // The codec refuses a session without a name by itself (MQTT-3.1.3-8).
            let answer = match e {
                DecodeError::InvalidClientId => ConnectAckReason::IdentifierRejected,
                _ => ConnectAckReason::UnacceptableProtocolVersion,
            };
            let _ = send(wire, welcome(answer)).await;
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
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.wake.remove(&self.number);
        state.hall.leave(&self.whose.namespace, self.number);
    }
}

impl<'a> Client<'a> {
    /// And whether it had a session.
    fn enter(shared: &'a Shared, whose: &'a Whose, connect: &Connect) -> Result<(Client<'a>, bool), &'static str> {
        let news = Arc::new(Notify::new());
        let mut state = shared.lock();
        let stays = !connect.clean_session;
        let (number, known) = state.hall.enter(&whose.namespace, &whose.pod, &connect.client_id, stays)?;
        // Somebody may have lost his place to this one.
        state.wake.values().for_each(|other| other.notify_one());
        // What waited in the session.
        news.notify_one();
        state.wake.insert(number, news.clone());
        Ok((Client { shared, whose, number, news }, known))
    }

    /// Returns why it ended.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, connect: Connect, known: bool) -> String {
        if let Some(will) = &connect.last_will
            && !topics::may_publish(&will.topic)
        {
            let _ = send(wire, welcome(ConnectAckReason::NotAuthorized)).await;
            return "a will on a topic that is not for clients".into();
        }
        let accepted = ConnectAck { return_code: ConnectAckReason::ConnectionAccepted, session_present: known };
        if let Err(why) = send(wire, Packet::ConnectAck(accepted)).await {
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
                let (qos, id) = (publish.qos, publish.packet_id);
                let is_news = match (qos, id) {
                    (QoS::ExactlyOnce, Some(id)) => {
                        let taken = self.shared.lock().hall.take(&self.whose.namespace, self.number, id.get());
                        taken.ok_or("it publishes with QoS 2 and releases nothing")?
                    }
                    _ => true,
                };
                if is_news {
                    self.publish(&publish.topic, publish.payload, qos, publish.retain).await?;
                }
                match (qos, id) {
                    (QoS::AtLeastOnce, Some(packet_id)) => send(wire, Packet::PublishAck { packet_id }).await,
                    (QoS::ExactlyOnce, Some(packet_id)) => send(wire, Packet::PublishReceived { packet_id }).await,
                    _ => Ok(()),
                }
            }
            Packet::PublishAck { packet_id } => {
                self.answer(Answer::Acknowledged(packet_id.get()));
                Ok(())
            }
            Packet::PublishReceived { packet_id } => {
                self.answer(Answer::Received(packet_id.get()));
                send(wire, Packet::PublishRelease { packet_id }).await
            }
            Packet::PublishComplete { packet_id } => {
                self.answer(Answer::Completed(packet_id.get()));
                Ok(())
            }
            Packet::PublishRelease { packet_id } => {
                self.answer(Answer::Released(packet_id.get()));
                send(wire, Packet::PublishComplete { packet_id }).await
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
            Some(granted) => SubscribeReturnCode::Success(qos_of(granted)),
            None => SubscribeReturnCode::Failure,
        }
    }

    fn answer(&self, answer: Answer) {
        self.shared.lock().hall.acknowledged(&self.whose.namespace, self.number, answer);
    }

    async fn publish(&self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<(), String> {
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
        loop {
            let next = {
                let mut state = self.shared.lock();
                if !state.hall.is_in(&self.whose.namespace, self.number) {
                    return Err("another client of its name has come".into());
                }
                state.hall.next(&self.whose.namespace, self.number)
            };
            match next {
                None => return Ok(()),
                Some(Step::Say { id, delivery, again }) => send(wire, packet_of(delivery, id, again)).await?,
                Some(Step::Release(id)) => {
                    if let Some(packet_id) = NonZeroU16::new(id) {
                        send(wire, Packet::PublishRelease { packet_id }).await?;
                    }
                }
            }
        }
    }
}

fn qos_of(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn packet_of(delivery: Delivery, id: Option<u16>, again: bool) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: again,
        retain: delivery.retain,
        qos: qos_of(delivery.qos),
        topic: delivery.topic.to_string().into(),
        packet_id: id.and_then(NonZeroU16::new),
        payload: Bytes::copy_from_slice(&delivery.payload),
        properties: None,
    }))
}
