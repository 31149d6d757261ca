//! The way to a broker that is not the hub's, up to its confirmation of the subscription.
//!
//! In: its address, what the settings want. Out: a connection, its rhythm, and how topics are named on it.
//! MQTT 5 where the broker speaks it (a topic is told once and has a number then), else 3.1.1.
//! Never: the node's name as client id; a version again that the broker did not like.

use super::{super::road, CONNECT_TIMEOUT, PACKET_BYTES_MAX};
use crate::link::{
    mqtt::{self, Packet, Reader, Version, Welcome},
    road::{Kind, Pulse, Stream, Target},
    session::{LinkOptions, PING_TIMEOUT, Rhythm},
};
use limpet_protocol::{join::JoinBroker, topic};
use std::{io::Error, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::timeout,
};

/// Over a router: a sign of life for the hub each second time that something has to pass, and the kernel's probe in between
/// (104 B instead of 149). The probe is later than half of it, so that the next sign of life goes before a second one.
const FAR_KEEPALIVE_S: u16 = 680;
const FAR_PROBE_S: u16 = 341;

/// What was learned of the broker so far.
#[derive(Default)]
pub struct Manner {
    /// It did not understand version 5 of MQTT.
    is_old: bool,
}

/// How topics are named there.
pub(super) enum Naming {
    Whole,
    /// Version 5, by a broker that takes no numbers.
    WholeV5,
    /// The topic's number, which the first packet tells.
    Number { told: bool },
}

impl Naming {
    pub fn publish(&mut self, out: &mut Vec<u8>, topic: &str, packet: &[u8]) {
        match self {
            Naming::Whole => mqtt::publish(out, topic, packet),
            Naming::WholeV5 => mqtt::publish_v5(out, topic, packet),
            Naming::Number { told } => {
                let topic = (!std::mem::replace(told, true)).then_some(topic);
                mqtt::publish_numbered(out, topic, packet);
            }
        }
    }
}

type Connection = Box<dyn Stream>;

/// A connection on which greetings may go.
pub(super) struct Arrived {
    pub reader: Reader<ReadHalf<Connection>>,
    pub write: WriteHalf<Connection>,
    pub rhythm: Rhythm,
    /// The kernel's probes between two signs of life, and how often.
    pub probe: Option<(Pulse, Duration)>,
    pub naming: Naming,
}

/// The error says why not.
pub(super) async fn arrive(
    (node, broker): (&str, &JoinBroker),
    (address, manner): (&str, &mut Manner),
    config: Arc<rustls::ClientConfig>,
    options: &LinkOptions,
) -> Result<Arrived, Error> {
    let late = |_| Error::other("no answer in time");
    let version = if manner.is_old { Version::V4 } else { Version::V5 };
    let mut reached = false;
    let met = async {
        let target = Target::parse(address)?;
        let (stream, kind, pulse) = road::open(&target, options.proxy.as_ref(), config).await?;
        reached = true;
        let (mut rhythm, probe) = rhythm(kind, options);
        let (read, mut write) = tokio::io::split(stream);
        let mut reader = Reader::patient(read, PACKET_BYTES_MAX, version);
        let welcome = greet(node, broker, version, &rhythm, &mut reader, &mut write).await?;
        if let Some(wanted) = welcome.keepalive_s {
            rhythm.every = rhythm.every.min(Duration::from_secs(u64::from(wanted) * 3 / 4)).max(Duration::from_secs(5));
        }
        Ok((reader, write, rhythm, probe.map(|every| (pulse, every)), welcome))
    };
    let met = timeout(CONNECT_TIMEOUT, met).await.map_err(late).and_then(|met| met);
    // Perhaps it is the version that it does not like; some only hang up.
    manner.is_old ^= met.is_err() && reached;
    let (reader, write, rhythm, probe, welcome) = met?;
    let naming = match (version, welcome.aliases) {
        (Version::V4, _) => Naming::Whole,
        (Version::V5, false) => Naming::WholeV5,
        (Version::V5, true) => Naming::Number { told: false },
    };
    Ok(Arrived { reader, write, rhythm, probe, naming })
}

/// What the settings and the link policy want, or else what suits the road; and how often the kernel probes it, if at all.
fn rhythm(kind: Kind, options: &LinkOptions) -> (Rhythm, Option<Duration>) {
    let wanted = options.keepalive_s.or(options.hold.keepalive());
    let (usual, probe) = match (wanted, kind) {
        (None, Kind::Far) => (Some(FAR_KEEPALIVE_S), Some(FAR_PROBE_S)),
        (wanted, _) => (wanted, None),
    };
    let rhythm = Rhythm::new(kind, usual);
    let probe = options.probe_s.or(probe).map(|s| Duration::from_secs(s.into())).filter(|p| *p < rhythm.every);
    (rhythm, probe)
}

/// Up to the broker's confirmation of the subscription.
async fn greet(
    node: &str,
    broker: &JoinBroker,
    version: Version,
    rhythm: &Rhythm,
    reader: &mut Reader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
) -> Result<Welcome, Error> {
    // Not the node's name: a broker ends the older of two clients with one id, and two copies of a card would end each other
    // for ever.
    let mut id = [0u8; 8];
    getrandom::fill(&mut id).map_err(|e| Error::other(e.to_string()))?;
    let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
    let keepalive = u16::try_from(rhythm.every.as_secs() + PING_TIMEOUT.as_secs()).unwrap_or(u16::MAX);
    let word = |text: &'_ str| (!text.is_empty()).then(|| text.to_string());
    let (user, password) = (word(&broker.username), word(&broker.password));
    let mut hello = mqtt::connect(version, &id, keepalive, user.as_deref(), password.as_deref());
    hello.extend(mqtt::subscribe(version, &topic::sealed_down(node)));
    mqtt::write(write, &hello).await?;
    let mut welcome = Welcome::default();
    loop {
        match reader.next().await? {
            Packet::ConnAck(0, wanted) => welcome = wanted,
            Packet::ConnAck(code, _) => {
                return Err(Error::other(format!("the broker refuses the connection with code {code}")));
            }
            Packet::SubAck(0x80..) => return Err(Error::other("the broker does not let this node read its own topic")),
            Packet::SubAck(_) => return Ok(welcome),
            _ => {}
        }
    }
}
