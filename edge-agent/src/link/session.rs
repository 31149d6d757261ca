//! The MQTT connection: connects, subscribes, carries bytes both ways, and says when it is gone.
//!
//! In: encoded envelopes for the hub, a lane each. Out: `LinkEvent`s. Nothing of an old connection is ever sent in a new
//! one; the outbox knows what must be said again.
//! An idle link costs one ping in one direction, and the kernel's acknowledgement: `TCP_USER_TIMEOUT` notices when that
//! does not come. Where somebody between ends the TCP connection the hub has to answer.
//! Never: holds more than a few messages; waiting happens in the callers.

use super::{
    Identity,
    backoff::Backoff,
    meet,
    mqtt::{self, Packet, Reader, Version},
    road::{self, Kind, Proxy, Target},
    tls,
};
use crate::device::Clock;
use bytes::Bytes;
use limpet_protocol::{limits::ENVELOPE_BYTES_MAX, topic, topic::Channel};
use std::{
    io::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

/// Messages between the callers and the socket; streams wait here, and only here.
pub(super) const OUT_MESSAGES_MAX: usize = 8;
pub(super) const BULK_MESSAGES_MAX: usize = 2;
const IN_MESSAGES_MAX: usize = 32;
/// From the first packet to the hub's confirmation of the subscription. A handshake that is given up is work for nothing on both
/// sides, and bytes; a busy board of one slow core, or a link that loses packets, needs more than ten seconds at times.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A session of this length was a good one: the next attempt starts quickly again.
pub(super) const SOUND: Duration = Duration::from_secs(30);
/// After so many failed attempts, and then each time after so many more, the hub is asked where it is.
pub(super) const ASTRAY_FIRST: u32 = 8;
pub(super) const ASTRAY_EVERY: u32 = 60;
/// Messages that wait are written together, up to about one record of TLS.
const BATCH_BYTES: usize = 12 * 1024;
/// The socket takes nothing for so long: the connection is dead.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the hub has to answer pings.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// In the board's own network bytes cost nothing, and a board that is gone is soon missed.
const NEAR_KEEPALIVE_S: u16 = 20;
/// Below the shortest patience of usual NATs (350 s), and 1 MB a month at 128 bytes each.
const FAR_KEEPALIVE_S: u16 = 340;
/// Proxies mostly end what is idle for a minute.
const PROXIED_KEEPALIVE_S: u16 = 50;
/// A link on hold looks in so often.
const LOOK_IN: Duration = Duration::from_millis(limpet_agent_core::metered::LOOK_IN_MS);
/// Asks the hub's broker not to answer pings.
const QUIET: &str = "quiet";

#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed; messages of this connection go here.
    Up(Lanes),
    Message(Bytes),
    Down,
    /// The hub's answer to `Lanes::renewal`.
    Renewed(Vec<u8>),
    /// Not connected for many attempts: perhaps the hub is somewhere else now, which a renewal would tell.
    Astray,
}

/// The ways to the hub. State never waits behind streams, and logs and commands never behind forwarded ports.
#[derive(Clone, Debug)]
pub struct Lanes {
    pub state: mpsc::Sender<(Channel, Vec<u8>)>,
    pub streams: mpsc::Sender<Vec<u8>>,
    pub bulk: mpsc::Sender<Vec<u8>>,
    /// For a new certificate, where the link may be the only way to the hub: a `JoinAsk` as JSON.
    pub renewal: Option<mpsc::Sender<Vec<u8>>>,
}

/// The running connection; dropping it ends it.
#[derive(Debug)]
pub struct Link {
    pub events: mpsc::Receiver<LinkEvent>,
    /// Ends the present connection (a new one follows).
    pub hang_up: Arc<tokio::sync::Notify>,
}

#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// `None`: as the road to the hub suggests.
    pub keepalive_s: Option<u16>,
    /// At a broker: how often the kernel probes the connection between two signs of life. `None`: as the road suggests.
    pub probe_s: Option<u16>,
    pub backoff_s_max: u64,
    /// Doors of the hub's own, used instead of what it named when not empty.
    pub mqtt: Vec<String>,
    /// The same for a broker at which hub and boards meet.
    pub broker: Vec<String>,
    pub proxy: Option<Proxy>,
    /// What the link policy says.
    pub hold: Arc<Hold>,
    /// The client id: distinguishes two devices with copies of one card. Empty: the node's name.
    pub hardware: String,
}

/// What a link policy says about the connection itself; shared between the loop that knows and the task that connects.
#[derive(Debug, Default)]
pub struct Hold {
    held: AtomicBool,
    /// 0: none.
    keepalive_s: AtomicU16,
    news: tokio::sync::Notify,
}

impl Hold {
    /// Whether that is new.
    pub fn set(&self, held: bool) -> bool {
        let new = self.held.swap(held, Ordering::Relaxed) != held;
        if new {
            self.news.notify_one();
        }
        new
    }

    pub fn set_keepalive(&self, seconds: u16) -> bool {
        self.keepalive_s.swap(seconds, Ordering::Relaxed) != seconds
    }

    pub(super) fn keepalive(&self) -> Option<u16> {
        Some(self.keepalive_s.load(Ordering::Relaxed)).filter(|s| *s > 0)
    }

    /// Waits while the link is to be closed, but no longer than until the next look.
    async fn over(&self) {
        let end = Instant::now() + LOOK_IN;
        while self.held.load(Ordering::Relaxed) {
            tokio::select! {
                () = self.news.notified() => {}
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }
}

/// Starts the connection's task. It follows `identity` at its next attempt.
pub fn start(identity: watch::Receiver<Arc<Identity>>, clock: Clock, options: LinkOptions) -> Link {
    let (tell, events) = mpsc::channel(IN_MESSAGES_MAX);
    let hang_up = Arc::new(tokio::sync::Notify::new());
    tokio::spawn(run(identity, clock, options, tell, hang_up.clone()));
    Link { events, hang_up }
}

async fn run(
    identity: watch::Receiver<Arc<Identity>>,
    clock: Clock,
    options: LinkOptions,
    tell: mpsc::Sender<LinkEvent>,
    hang_up: Arc<tokio::sync::Notify>,
) {
    let mut backoff = Backoff::new(options.backoff_s_max);
    let (mut round, mut astray) = (0usize, 0u32);
    // Kept for as long as the identity is the same: TLS sessions are resumed, which saves most of a handshake.
    let mut known: Option<(Arc<Identity>, Arc<rustls::ClientConfig>)> = None;
    let mut manner = meet::Manner::default();
    loop {
        let who = identity.borrow().clone();
        // Doors in the settings are the hub's own, wherever the others meet.
        let broker = who.answer.broker.as_ref().filter(|_| options.mqtt.is_empty());
        let hubs = match broker {
            Some(_) if !options.broker.is_empty() => &options.broker,
            Some(broker) => &broker.addresses,
            None if options.mqtt.is_empty() => &who.answer.mqtt,
            None => &options.mqtt,
        };
        let Some(hub) = hubs.get(round % hubs.len().max(1)).cloned() else {
            log::error!("link: the hub named no MQTT address; join again, or wait for a renewal");
            let _ = tell.send(LinkEvent::Astray).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            continue;
        };
        round += 1;
        let begun = Instant::now();
        let end = match config(&who, broker.map_or(&who.answer.ca_pem, |b| &b.ca_pem), &clock, &mut known) {
            Ok(config) => tokio::select! {
                end = async {
                    match broker {
                        Some(broker) => {
                            meet::visit((&identity, broker), (&hub, &mut manner), config, (&clock, &options), &tell).await
                        }
                        None => one_session(&who.answer.node_name, &hub, config, &options, &tell).await,
                    }
                } => end.to_string(),
                () = hang_up.notified() => "hung up".to_string(),
            },
            Err(e) => format!("the identity on disk cannot be used: {e}"),
        };
        if begun.elapsed() > SOUND {
            backoff.reset();
            astray = 0;
        }
        astray += 1;
        if astray % ASTRAY_EVERY == ASTRAY_FIRST && tell.send(LinkEvent::Astray).await.is_err() {
            return;
        }
        let wait = backoff.next();
        log::info!("link: {hub}: {end}; next attempt in {:.1} s", wait.as_secs_f32());
        if tell.send(LinkEvent::Down).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
        options.hold.over().await;
    }
}

fn config(
    who: &Arc<Identity>,
    ca_pem: &str,
    clock: &Clock,
    known: &mut Option<(Arc<Identity>, Arc<rustls::ClientConfig>)>,
) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    if let Some((of, config)) = known
        && Arc::ptr_eq(of, who)
    {
        return Ok(config.clone());
    }
    let answer = &who.answer;
    let mut config = tls::with_certificate(ca_pem, &answer.certificate_pem, &who.key, clock)?;
    // By this the hub tells a link from a request on a port that serves both.
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let config = Arc::new(config);
    *known = Some((who.clone(), config.clone()));
    Ok(config)
}

/// Why it ended.
async fn one_session(
    node: &str,
    hub: &str,
    config: Arc<rustls::ClientConfig>,
    options: &LinkOptions,
    tell: &mpsc::Sender<LinkEvent>,
) -> Error {
    let late = |_| Error::other("no answer in time");
    let met = async {
        let target = Target::parse(hub)?;
        let (stream, kind, _) = road::open(&target, options.proxy.as_ref(), config).await?;
        let rhythm = Rhythm::new(kind, options.keepalive_s.or(options.hold.keepalive()));
        let (read, mut write) = tokio::io::split(stream);
        let mut reader = Reader::new(read, ENVELOPE_BYTES_MAX + 1024);
        greet(node, &options.hardware, &rhythm, &mut reader, &mut write).await?;
        Ok((reader, write, rhythm))
    };
    let (mut reader, mut write, rhythm) = match timeout(CONNECT_TIMEOUT, met).await.map_err(late) {
        Ok(Ok(met)) => met,
        Ok(Err(e)) | Err(e) => return e,
    };
    log::debug!("link: {:?}, a ping every {} s", rhythm.kind, rhythm.every.as_secs());
    let (state, state_queue) = mpsc::channel(OUT_MESSAGES_MAX);
    let (streams, stream_queue) = mpsc::channel(BULK_MESSAGES_MAX);
    let (bulk, bulk_queue) = mpsc::channel(BULK_MESSAGES_MAX);
    if tell.send(LinkEvent::Up(Lanes { state, streams, bulk, renewal: None })).await.is_err() {
        return Error::other("the agent ends");
    }
    let topics = Channel::ALL.map(|c| topic::up(node, c));
    let mut out = Out { topics, state: state_queue, streams: stream_queue, bulk: bulk_queue };
    tokio::select! {
        end = receive(&mut reader, &rhythm, tell) => end,
        end = out.send(&mut write, &rhythm) => end,
    }
}

/// When to ping, and whether the hub answers.
pub(super) struct Rhythm {
    pub kind: Kind,
    pub every: Duration,
    /// The hub answered the last ping.
    answered: AtomicBool,
}

impl Rhythm {
    pub fn new(kind: Kind, wanted_s: Option<u16>) -> Rhythm {
        let usual = match kind {
            Kind::Near => NEAR_KEEPALIVE_S,
            Kind::Far => FAR_KEEPALIVE_S,
            Kind::Proxied => PROXIED_KEEPALIVE_S,
        };
        let every = Duration::from_secs(wanted_s.unwrap_or(usual).max(5).into());
        Rhythm { kind, every, answered: AtomicBool::new(true) }
    }

    fn quiet(&self) -> bool {
        self.kind != Kind::Proxied
    }
}

/// Up to the hub's confirmation of the subscription.
async fn greet(
    node: &str,
    hardware: &str,
    rhythm: &Rhythm,
    reader: &mut Reader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Error> {
    let keepalive = u16::try_from(rhythm.every.as_secs()).unwrap_or(u16::MAX);
    let id = if hardware.is_empty() { node } else { hardware };
    let mut hello = mqtt::connect(Version::V4, id, keepalive, rhythm.quiet().then_some(QUIET), None);
    hello.extend(mqtt::subscribe(Version::V4, &topic::down_filter(node)));
    mqtt::write(write, &hello).await?;
    loop {
        match reader.next().await? {
            Packet::ConnAck(0, _) => {}
            Packet::ConnAck(5, _) => return Err(Error::other("the hub does not let this node in (its log says why)")),
            Packet::ConnAck(code, _) => return Err(Error::other(format!("the hub refuses the connection with code {code}"))),
            Packet::SubAck(0x80) => return Err(Error::other("the hub refused the subscription")),
            Packet::SubAck(_) => return Ok(()),
            _ => {}
        }
    }
}

/// What goes to the hub.
struct Out {
    topics: [String; 4],
    state: mpsc::Receiver<(Channel, Vec<u8>)>,
    streams: mpsc::Receiver<Vec<u8>>,
    bulk: mpsc::Receiver<Vec<u8>>,
}

impl Out {
    fn add(&self, batch: &mut Vec<u8>, channel: Channel, bytes: &[u8]) {
        mqtt::publish(batch, &self.topics[channel as usize], bytes);
    }

    /// Writes messages, state before streams before bulk, and pings when there is nothing to write.
    async fn send(&mut self, write: &mut (impl AsyncWrite + Unpin), rhythm: &Rhythm) -> Error {
        let mut pinged = false;
        loop {
            let mut batch = Vec::new();
            let pause = if pinged && !rhythm.quiet() { PING_TIMEOUT } else { rhythm.every };
            tokio::select! {
                biased;
                message = self.state.recv() => match message {
                    Some((channel, bytes)) => self.add(&mut batch, channel, &bytes),
                    None => return Error::other("the agent closed the session"),
                },
                Some(bytes) = self.streams.recv() => self.add(&mut batch, Channel::Stream, &bytes),
                Some(bytes) = self.bulk.recv() => self.add(&mut batch, Channel::Stream, &bytes),
                () = tokio::time::sleep(pause) => {
                    if pinged && !rhythm.quiet() {
                        match rhythm.answered.load(Ordering::Relaxed) {
                            true => pinged = false,
                            false => return Error::other("the hub does not answer pings"),
                        }
                        continue;
                    }
                    pinged = true;
                    rhythm.answered.store(false, Ordering::Relaxed);
                    batch.extend(mqtt::PING);
                }
            }
            while batch.len() < BATCH_BYTES
                && let Ok((channel, bytes)) = self.state.try_recv()
            {
                self.add(&mut batch, channel, &bytes);
            }
            match timeout(WRITE_TIMEOUT, mqtt::write(write, &batch)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return e,
                Err(_) => return Error::other("the hub takes nothing"),
            }
        }
    }
}

async fn receive(
    reader: &mut Reader<impl AsyncRead + Unpin>,
    rhythm: &Rhythm,
    tell: &mpsc::Sender<LinkEvent>,
) -> Error {
    loop {
        let packet = match reader.next().await {
            Ok(packet) => packet,
            Err(e) => return e,
        };
        rhythm.answered.store(true, Ordering::Relaxed);
        if let Packet::Publish(payload) = packet
            && tell.send(LinkEvent::Message(payload)).await.is_err()
        {
            return Error::other("the agent ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything waits at once: what the hub should know, then what somebody looks at, then what somebody copies.
    #[tokio::test]
    async fn state_goes_before_streams_before_bulk() {
        let (state, state_queue) = mpsc::channel(OUT_MESSAGES_MAX);
        let (streams, stream_queue) = mpsc::channel(BULK_MESSAGES_MAX);
        let (bulk, bulk_queue) = mpsc::channel(BULK_MESSAGES_MAX);
        for n in 0..BULK_MESSAGES_MAX as u8 {
            bulk.try_send(vec![b'b', n]).unwrap();
            streams.try_send(vec![b's', n]).unwrap();
        }
        for (n, channel) in [Channel::State, Channel::Status, Channel::Event].into_iter().enumerate() {
            state.try_send((channel, vec![b'0' + n as u8])).unwrap();
        }
        let topics = Channel::ALL.map(|c| topic::up("pi-1", c));
        let mut out = Out { topics, state: state_queue, streams: stream_queue, bulk: bulk_queue };
        let rhythm = Rhythm::new(Kind::Far, None);
        // A narrow road: what is written has to be read before more goes.
        let (mut write, read) = tokio::io::duplex(16);
        let mut reader = Reader::new(read, 1024);
        let hearing = async {
            let mut heard = Vec::new();
            while heard.len() < 8 {
                let Packet::Publish(payload) = reader.next().await.unwrap() else { panic!() };
                heard.push(payload[0]);
                if heard.len() == 4 {
                    // What is urgent overtakes the bulk that waits already.
                    state.try_send((Channel::State, vec![b'!'])).unwrap();
                }
            }
            heard
        };
        let heard = tokio::select! {
            end = out.send(&mut write, &rhythm) => panic!("{end}"),
            heard = timeout(Duration::from_secs(30), hearing) => heard.unwrap(),
        };
        assert_eq!(heard[..5], *b"012ss");
        assert!(heard.contains(&b'!') && heard.ends_with(b"b"), "{heard:?}");
    }
}
