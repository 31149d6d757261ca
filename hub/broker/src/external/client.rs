//! One connection of the hub to an external broker: MQTT 3.1.1, clean session, QoS 0.
//!
//! In: an address. Out: packets for the desk, and its own written; why it ended. What is lost the sealed link notices itself, so
//! acknowledgements of the broker would only cost.
//! Never: a packet over the limit in memory: it is passed over as it comes, because somebody may publish large ones to end
//! the connection of all.

use super::{ExternalOptions, desk::Desk};
use crate::{Stream, connection::Setting, limits};
use bytes::{Buf, BytesMut};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use rmqtt_codec::{
    error::{DecodeError, EncodeError},
    types::{Protocol, Publish, QoS},
    v3::{Codec, Connect, ConnectAckReason, Packet, SubscribeReturnCode},
};
use rustls::pki_types::ServerName;
use std::{num::NonZeroU16, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Decoder, Encoder, Framed};

/// A whole MQTT packet: a sealed one and its topic.
const PACKET_BYTES_MAX: usize = limpet_sealed::PACKET_BYTES_MAX + 1024;
const CONNECT: Duration = Duration::from_secs(20);
/// A word for each node.
const LEAVING: Duration = Duration::from_secs(60);
const KEEP_ALIVE_S: u16 = 30;
const PING_EVERY: Duration = Duration::from_secs(20);
/// The broker answers pings; nothing at all for so long: it is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// Packets of all nodes that wait for the socket.
const OUT_PACKETS_MAX: usize = 256;

pub(super) enum Ended {
    /// Hub and nodes met there until then.
    Met(String),
    NotMet(String),
}

type Wire = Framed<Box<dyn Stream>, Skipping>;

/// From the first packet to the end of the connection.
pub(super) async fn visit(at: &(String, u16), options: &ExternalOptions, setting: &Arc<Setting>) -> Ended {
    let late = |_| "no answer in time".to_string();
    let met = timeout(CONNECT, connect(at, options)).await.map_err(late).and_then(|met| met);
    let (wire, address) = match met {
        Ok(met) => met,
        Err(why) => return Ended::NotMet(why),
    };
    let (sink, mut stream) = wire.split();
    let (out, queue) = mpsc::channel(OUT_PACKETS_MAX);
    let (mut desk, mut ends) = match Desk::new(options, setting, out, address) {
        Ok(desk) => desk,
        Err(why) => return Ended::NotMet(why),
    };
    tracing::info!("hub and nodes meet at the broker {}:{}", at.0, at.1);
    let reading = async {
        desk.open().await;
        loop {
            tokio::select! {
                Some(end) = ends.recv() => desk.ended(&end),
                next = timeout(SILENCE, stream.next()) => match next {
                    Err(_) => return format!("nothing heard for {} s", SILENCE.as_secs()),
                    Ok(None) => return "it closed the connection".to_string(),
                    Ok(Some(Err(e))) => return format!("{e:?}"),
                    Ok(Some(Ok(Packet::Publish(publish)))) => desk.packet(*publish).await,
                    Ok(Some(Ok(_))) => {}
                },
            }
        }
    };
    let why = tokio::select! {
        why = reading => why,
        why = write(sink, queue) => why,
    };
    Ended::Met(why)
}

/// Tells all nodes there that their sessions are over, and goes: the hub meets them somewhere else from now on.
pub(super) async fn leave(at: &(String, u16), options: &ExternalOptions, setting: &Arc<Setting>) -> Result<(), String> {
    let late = |_| "no answer in time".to_string();
    let (wire, address) = timeout(CONNECT, connect(at, options)).await.map_err(late)??;
    let (sink, _stream) = wire.split();
    let (out, queue) = mpsc::channel(OUT_PACKETS_MAX);
    let (mut desk, _ends) = Desk::new(options, setting, out, address)?;
    // The queue ends with the desk.
    let telling = async move { desk.open().await };
    timeout(LEAVING, async { tokio::join!(telling, write(sink, queue)) }).await.map_err(late).map(|_| ())
}

async fn connect(at: &(String, u16), options: &ExternalOptions) -> Result<(Wire, std::net::SocketAddr), String> {
    let (host, port) = at;
    let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
    let address = tcp.peer_addr().map_err(|e| e.to_string())?;
    let _ = tcp.set_nodelay(true);
    let _ = socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(limits::UNACKNOWLEDGED));
    let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
    let stream = TlsConnector::from((options.tls)()?).connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?;
    let mut wire: Wire = Framed::new(Box::new(stream), Skipping { codec: Codec::new(0), skip: 0 });
    let connect = Connect {
        protocol: Protocol(4),
        clean_session: true,
        keep_alive: KEEP_ALIVE_S,
        last_will: None,
        client_id: client_id()?.into(),
        username: options.username.clone().map(Into::into),
        password: options.password.clone().map(Into::into),
        cert: None,
    };
    let lost = |e: EncodeError| format!("{e:?}");
    wire.send(Packet::Connect(Box::new(connect))).await.map_err(lost)?;
    match next(&mut wire).await? {
        Packet::ConnectAck(ack) if ack.return_code == ConnectAckReason::ConnectionAccepted => {}
        Packet::ConnectAck(ack) => return Err(format!("{:?}", ack.return_code)),
        _ => return Err("not an MQTT broker".into()),
    }
    let filters = vec![(limpet_protocol::topic::SEALED_UP_FILTER.into(), QoS::AtMostOnce)];
    wire.send(Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters: filters }).await.map_err(lost)?;
    loop {
        match next(&mut wire).await? {
            Packet::SubscribeAck { status, .. } if status.contains(&SubscribeReturnCode::Failure) => {
                return Err(format!("no right to read {}; see `limpet broker acl`", limpet_protocol::topic::SEALED_UP_FILTER));
            }
            Packet::SubscribeAck { .. } => return Ok((wire, address)),
            _ => {}
        }
    }
}

fn client_id() -> Result<String, String> {
    let mut bytes = [0u8; 8];
    let random = limpet_sealed::SystemRandom::new();
    limpet_sealed::SecureRandom::fill(&random, &mut bytes).map_err(|_| "no randomness")?;
    Ok(bytes.iter().fold("limpet-hub-".into(), |id, b| format!("{id}{b:02x}")))
}

async fn next(wire: &mut Wire) -> Result<Packet, String> {
    match wire.next().await {
        Some(Ok(packet)) => Ok(packet),
        Some(Err(e)) => Err(format!("{e:?}")),
        None => Err("it closed the connection".into()),
    }
}

async fn write(mut sink: SplitSink<Wire, Packet>, mut queue: mpsc::Receiver<(String, Vec<u8>)>) -> String {
    loop {
        let packet = tokio::select! {
            biased;
            next = queue.recv() => match next {
                Some((topic, bytes)) => publish(topic, bytes),
                None => return "the hub is stopping".into(),
            },
            () = sleep(PING_EVERY) => Packet::PingRequest,
        };
        let more = !queue.is_empty();
        let written = async { if more { sink.feed(packet).await } else { sink.send(packet).await } };
        match timeout(limits::WRITE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return format!("write failed: {e:?}"),
            Err(_) => return "it takes nothing".into(),
        }
    }
}

fn publish(topic: String, bytes: Vec<u8>) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos: QoS::AtMostOnce,
        topic: topic.into(),
        packet_id: None,
        payload: bytes.into(),
        properties: None,
    }))
}

/// The codec, without what is too large.
struct Skipping {
    codec: Codec,
    /// Bytes of a packet that are still to be passed over.
    skip: usize,
}

impl Decoder for Skipping {
    type Item = Packet;
    type Error = DecodeError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        loop {
            let n = self.skip.min(bytes.len());
            bytes.advance(n);
            self.skip -= n;
            if self.skip > 0 {
                return Ok(None);
            }
            match whole(bytes) {
                Some(len) if len > PACKET_BYTES_MAX => self.skip = len,
                Some(len) if bytes.len() >= len => {
                    // One packet only, so that the codec never holds a header of the next one.
                    let mut one = bytes.split_to(len);
                    return Ok(self.codec.decode(&mut one)?.map(|(packet, _)| packet));
                }
                _ if bytes.len() >= 5 && whole(bytes).is_none() => return Err(DecodeError::InvalidLength),
                _ => return Ok(None),
            }
        }
    }
}

/// Bytes of the packet that begins here, once its length is there (MQTT 3.1.1, 2.2.3).
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for (n, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(len + n + 2);
        }
    }
    None
}

impl Encoder<Packet> for Skipping {
    type Error = EncodeError;

    fn encode(&mut self, packet: Packet, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.codec.encode(packet, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_passed_over() {
        let mut skipping = Skipping { codec: Codec::new(0), skip: 0 };
        let mut wire = BytesMut::new();
        for len in [10, PACKET_BYTES_MAX * 3, 20] {
            skipping.encode(publish("n/system:node:a/u".into(), vec![7; len]), &mut wire).unwrap();
        }
        let (mut come, mut lens) = (BytesMut::new(), Vec::new());
        for chunk in wire.chunks(1000) {
            come.extend_from_slice(chunk);
            while let Some(packet) = skipping.decode(&mut come).unwrap() {
                let Packet::Publish(publish) = packet else { panic!() };
                lens.push(publish.payload.len());
            }
            assert!(come.len() <= 1000, "nothing of it is kept");
        }
        assert_eq!(lens, [10, 20]);
        let mut endless = BytesMut::from(&b"\x30\xff\xff\xff\xff\xff"[..]);
        assert!(skipping.decode(&mut endless).is_err());
    }
}
