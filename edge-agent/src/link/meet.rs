//! The link by way of a broker that is not the hub's own: greetings, sealed sessions, one after the other on one connection.
//!
//! In: the broker's address, the device's key, messages of the lanes. Out: the same `LinkEvent`s as on a direct link; a session
//! is what a connection is there. What the broker makes up, repeats, leaves out or swaps is refused (`limpet-sealed`).
//! Never: ends a session because of a packet that is not genuine; sends anything of the link unsealed.

mod arrive;
mod quiet;

pub(super) use arrive::Manner;

use super::{
    Identity,
    backoff::Backoff,
    mqtt::{self, Packet, Reader},
    road::{Kind, Pulse, UNACKNOWLEDGED},
    session::{
        ASTRAY_EVERY, ASTRAY_FIRST, BULK_MESSAGES_MAX, CONNECT_TIMEOUT, Lanes, LinkEvent, LinkOptions, OUT_MESSAGES_MAX,
        PING_TIMEOUT, Rhythm, SOUND, WRITE_TIMEOUT,
    },
    tls,
};
use crate::device::Clock;
use arrive::{Arrived, Naming, arrive};
use limpet_protocol::{join::JoinBroker, limits::ENVELOPE_BYTES_MAX, topic, topic::Channel};
use limpet_sealed::{
    Asking, Debt, Inside, Joiner, Key, Kind as Sort, Point, Reset, SealError, Session, SystemRandom, Window, kind, parts,
};
use std::{
    collections::VecDeque,
    io::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

/// A whole packet of the broker's: a sealed one and its topic.
const PACKET_BYTES_MAX: usize = limpet_sealed::PACKET_BYTES_MAX + 1024;
/// From the confirmation to the hub's word that it lets the node in.
const ADMISSION: Duration = Duration::from_secs(20);
/// All boards hear at the same moment that a hub has started.
const SPREAD_MS: u64 = 2000;
/// The channel of renewals, which only this layer knows.
const RENEWAL: u8 = b'r';
/// Greetings of one sort without an answer after which the other sort is tried.
const ASKED_ALIKE: u32 = 3;
/// What was said so long ago is acknowledged.
const SAID: Duration = UNACKNOWLEDGED.saturating_add(Duration::from_secs(1));
/// A line in the log for each sort of refused packet.
const SAID_EVERY: Duration = Duration::from_secs(3600);

static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Packets that were refused since the agent began.
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Why the connection to the broker ended.
pub(super) async fn visit(
    (identity, broker): (&watch::Receiver<Arc<Identity>>, &JoinBroker),
    (address, manner): (&str, &mut Manner),
    config: Arc<rustls::ClientConfig>,
    (clock, options): (&Clock, &LinkOptions),
    tell: &mpsc::Sender<LinkEvent>,
) -> Error {
    let who = &identity.borrow().clone();
    let node = &who.answer.node_name;
    let arrived = match arrive((node, broker), (address, manner), config, options).await {
        Ok(arrived) => arrived,
        Err(e) => return e,
    };
    let Arrived { reader, write, rhythm, probe, naming } = arrived;
    log::debug!("link: at the broker {address}: {:?}, a word every {} s", rhythm.kind, rhythm.every.as_secs());
    let wrong = |what: &str, e: &dyn std::fmt::Display| Error::other(format!("{what}: {e}"));
    let random = SystemRandom::new();
    let (key, trust) = match (who.key.sealing(&random), tls::hub_key(&who.answer.ca_pem, clock)) {
        (Ok(key), Ok(trust)) => (key, trust),
        (Err(e), _) => return wrong("the node's key", &e),
        (_, Err(e)) => return wrong("the hub's CA", &e),
    };
    let mut meeting = Meeting {
        node,
        identity,
        broker,
        asked: 0,
        knows_beats: None,
        naming,
        probe,
        resting: false,
        hardware: &options.hardware,
        key,
        random,
        trust: Box::new(trust),
        backoff: Backoff::new(options.backoff_s_max),
        rhythm,
        tell,
        epoch: 0,
        out: Vec::new(),
        sent: Instant::now(),
        pinged: None,
        said: Vec::new(),
        topic: topic::sealed_up(node),
    };
    meeting.run(reader, write).await
}

/// Where the present session is.
enum State {
    /// Nothing until then.
    Waiting(Instant),
    /// Greeted; again at that time.
    Asking(Asking, Instant),
    /// Confirmed; the hub has until then to let the node in.
    Confirmed(Session, Instant),
    Open(Box<Open>),
}

struct Open {
    session: Session,
    since: Instant,
    state: mpsc::Receiver<(Channel, Vec<u8>)>,
    streams: mpsc::Receiver<Vec<u8>>,
    bulk: mpsc::Receiver<Vec<u8>>,
    renewal: mpsc::Receiver<Vec<u8>>,
    parts: VecDeque<Inside>,
    window: Window,
    joiner: Joiner,
    debt: Debt,
    /// Signs of life since the hub's last word.
    unheard: u32,
}

struct Meeting<'a> {
    node: &'a str,
    identity: &'a watch::Receiver<Arc<Identity>>,
    broker: &'a JoinBroker,
    /// Greetings without an answer.
    asked: u32,
    /// Whether this hub takes signs of life that are packets of their own sort; `None` before its first answer.
    knows_beats: Option<bool>,
    naming: Naming,
    /// The kernel's probes between two signs of life, and how often.
    probe: Option<(Pulse, Duration)>,
    resting: bool,
    hardware: &'a str,
    key: Key,
    random: SystemRandom,
    trust: Box<dyn Fn(&[u8]) -> Option<Point> + Send + Sync + 'a>,
    backoff: Backoff,
    rhythm: Rhythm,
    tell: &'a mpsc::Sender<LinkEvent>,
    /// The newest start of a hub that was told of.
    epoch: u64,
    /// Packets for the broker.
    out: Vec<u8>,
    sent: Instant,
    /// A ping that has to be answered.
    pinged: Option<Instant>,
    said: Vec<(&'static str, Instant)>,
    topic: String,
}

/// What there is to do next.
enum Next {
    Came(Packet),
    Message(u8, Vec<u8>),
    Timer,
}

impl Meeting<'_> {
    async fn run(&mut self, mut reader: Reader<impl AsyncRead + Unpin>, mut write: impl AsyncWrite + Unpin) -> Error {
        let mut state = self.ask(true);
        loop {
            let batch = std::mem::take(&mut self.out);
            if !batch.is_empty() {
                self.sent = Instant::now();
                self.rest(false);
                match timeout(WRITE_TIMEOUT, mqtt::write(&mut write, &batch)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => return e,
                    Err(_) => return Error::other("the broker takes nothing"),
                }
            }
            state = match self.step(state, &mut reader).await {
                Ok(state) => state,
                Err(e) => return e,
            };
        }
    }

    async fn step(&mut self, mut state: State, reader: &mut Reader<impl AsyncRead + Unpin>) -> Result<State, Error> {
        let at = self.wake(&state);
        let next = tokio::select! {
            biased;
            packet = reader.next() => Next::Came(packet?),
            message = message(&mut state) => match message {
                Some((channel, bytes)) => Next::Message(channel, bytes),
                None => return Err(Error::other("the agent closed the session")),
            },
            () = sleep_until(at) => Next::Timer,
        };
        let mut state = match next {
            Next::Came(packet) => self.came(state, packet).await?,
            Next::Message(channel, bytes) => {
                if let State::Open(open) = &mut state {
                    open.parts.extend(parts(channel, &bytes));
                }
                state
            }
            Next::Timer => self.timer(state).await?,
        };
        if let State::Open(open) = &mut state
            && let Err(error) = self.fill(open)
        {
            return self.end(state, &error.to_string()).await;
        }
        Ok(state)
    }

    /// Parts go out as far as the window lets them.
    fn fill(&mut self, open: &mut Open) -> Result<(), SealError> {
        while open.window.is_open()
            && let Some(part) = open.parts.pop_front()
        {
            let packet = open.session.up.seal(&part)?;
            open.window.sent();
            self.publish(&packet);
        }
        Ok(())
    }

    fn publish(&mut self, packet: &[u8]) {
        self.naming.publish(&mut self.out, &self.topic, packet);
    }

    async fn came(&mut self, state: State, packet: Packet) -> Result<State, Error> {
        self.pinged = None;
        let Packet::Publish(packet) = packet else { return Ok(state) };
        match kind(&packet) {
            Some(Sort::Answer) => Ok(self.answered(state, &packet)),
            Some(Sort::Sealed) => self.sealed(state, &packet).await,
            Some(Sort::Reset) => self.reset(state, &packet).await,
            _ => {
                self.refuse(&SealError::Malformed);
                Ok(state)
            }
        }
    }

    fn answered(&mut self, state: State, packet: &[u8]) -> State {
        // A second answer to the same greeting is late and nothing else.
        let State::Asking(asking, at) = state else { return state };
        let answered = match asking.check(packet, &self.trust) {
            Ok(answered) => answered,
            Err(error) => {
                self.refuse(&error);
                return State::Asking(asking, at);
            }
        };
        let beats = asking.beats();
        match asking.finish(&answered, &self.key, &self.random) {
            Ok((session, confirm)) => {
                self.knows_beats = Some(beats);
                self.publish(&confirm);
                State::Confirmed(session, Instant::now() + ADMISSION)
            }
            Err(error) => {
                log::error!("link: {error}");
                State::Waiting(Instant::now() + self.backoff.next())
            }
        }
    }

    async fn sealed(&mut self, mut state: State, packet: &[u8]) -> Result<State, Error> {
        let session = match &mut state {
            State::Confirmed(session, _) => session,
            State::Open(open) => &mut open.session,
            _ => return Ok(state),
        };
        let inside = match session.down.open(packet) {
            Ok(inside) => inside,
            Err(error @ (SealError::Lost { .. } | SealError::Broken(_) | SealError::UsedUp)) => {
                self.refuse(&error);
                return self.end(state, &error.to_string()).await;
            }
            Err(error) => {
                self.refuse(&error);
                return Ok(state);
            }
        };
        match (state, inside) {
            (State::Confirmed(session, _), Inside::Ready) => self.open(session).await,
            (state, Inside::Over(reason)) => self.end(state, &format!("the hub ends the session: {reason}")).await,
            (State::Open(mut open), inside) => match self.said(&mut open, inside).await? {
                Ok(()) => Ok(State::Open(open)),
                Err(error) => self.end(State::Open(open), &error.to_string()).await,
            },
            (state, _) => self.end(state, "the hub speaks before it has let this node in").await,
        }
    }

    async fn open(&mut self, session: Session) -> Result<State, Error> {
        let (state_sender, state) = mpsc::channel(OUT_MESSAGES_MAX);
        let (stream_sender, streams) = mpsc::channel(BULK_MESSAGES_MAX);
        let (bulk_sender, bulk) = mpsc::channel(BULK_MESSAGES_MAX);
        let (renewal_sender, renewal) = mpsc::channel(1);
        self.epoch = self.epoch.max(session.epoch);
        self.asked = 0;
        let lanes = Lanes { state: state_sender, streams: stream_sender, bulk: bulk_sender, renewal: Some(renewal_sender) };
        self.tell(LinkEvent::Up(lanes)).await?;
        Ok(State::Open(Box::new(Open {
            session,
            since: Instant::now(),
            state,
            streams,
            bulk,
            renewal,
            parts: VecDeque::new(),
            window: Window::default(),
            joiner: Joiner::default(),
            debt: Debt::default(),
            unheard: 0,
        })))
    }

    /// What the hub says in an open session. The inner error ends the session.
    async fn said(&mut self, open: &mut Open, inside: Inside) -> Result<Result<(), SealError>, Error> {
        open.unheard = 0;
        match inside {
            Inside::Part { channel, last, bytes } => {
                if let Some(taken) = open.debt.taken() {
                    match open.session.up.seal(&Inside::Credit(taken)) {
                        Ok(packet) => self.publish(&packet),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                match open.joiner.part(channel, last, bytes, ENVELOPE_BYTES_MAX) {
                    Ok(None) => {}
                    Ok(Some(answer)) if channel == RENEWAL => self.tell(LinkEvent::Renewed(answer)).await?,
                    Ok(Some(message)) => self.tell(LinkEvent::Message(message.into())).await?,
                    Err(error) => return Ok(Err(error)),
                }
                Ok(Ok(()))
            }
            Inside::Credit(taken) => Ok(open.window.credit(taken)),
            Inside::Beat => Ok(Ok(())),
            Inside::Confirm(_) | Inside::Ready | Inside::Over(_) => {
                Ok(Err(SealError::Broken("a greeting within a session")))
            }
        }
    }

    async fn reset(&mut self, state: State, packet: &[u8]) -> Result<State, Error> {
        let reset = match Reset::read(self.node, packet, &self.trust) {
            Ok(reset) => reset,
            Err(error) => {
                self.refuse(&error);
                return Ok(state);
            }
        };
        let is_news = reset.epoch > self.epoch;
        if is_news {
            // Perhaps another version.
            self.knows_beats = None;
        }
        self.epoch = self.epoch.max(reset.epoch);
        let session = match &state {
            State::Confirmed(session, _) => session,
            State::Open(open) => &open.session,
            // The hub is there: no need to wait for long.
            State::Asking(..) | State::Waiting(_) if !is_news => return Ok(state),
            State::Asking(..) | State::Waiting(_) => {
                self.backoff.reset();
                return Ok(State::Waiting(Instant::now() + spread()));
            }
        };
        if !reset.ends(session.up.id(), session.epoch) {
            return Ok(state);
        }
        match self.end(state, "the hub does not know the session any more").await? {
            State::Waiting(_) => Ok(State::Waiting(Instant::now() + spread())),
            other => Ok(other),
        }
    }

    /// The session is over; the next one begins after a while.
    async fn end(&mut self, state: State, why: &str) -> Result<State, Error> {
        if let State::Open(open) = &state {
            if open.since.elapsed() > SOUND {
                self.backoff.reset();
            }
            self.tell(LinkEvent::Down).await?;
        }
        let wait = self.backoff.next();
        log::info!("link: {why}; the next session in {:.1} s", wait.as_secs_f32());
        Ok(State::Waiting(Instant::now() + wait))
    }

    async fn tell(&self, event: LinkEvent) -> Result<(), Error> {
        self.tell.send(event).await.map_err(|_| Error::other("the agent ends"))
    }

    /// Counts, and says so once an hour for each sort.
    fn refuse(&mut self, error: &SealError) {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        let sort = match error {
            // Late packets of a session that has ended are usual.
            SealError::Foreign => return,
            SealError::Forged => "forged",
            SealError::Repeated { .. } => "repeated",
            SealError::Malformed | SealError::Key(_) => "malformed",
            SealError::Lost { .. } | SealError::Broken(_) | SealError::UsedUp => "lost",
        };
        if self.said.iter().any(|(said, at)| *said == sort && at.elapsed() < SAID_EVERY) {
            return;
        }
        self.said.retain(|(said, _)| *said != sort);
        self.said.push((sort, Instant::now()));
        log::warn!("link: a packet at the broker was refused ({sort}): {error}; more of the sort are only counted");
    }
}

/// The next message of an open session, once the one before is on its way; state before streams before bulk.
async fn message(state: &mut State) -> Option<(u8, Vec<u8>)> {
    let State::Open(open) = state else { return std::future::pending().await };
    if !open.parts.is_empty() {
        return std::future::pending().await;
    }
    tokio::select! {
        biased;
        message = open.state.recv() => message.map(|(channel, bytes)| (channel.letter() as u8, bytes)),
        Some(ask) = open.renewal.recv() => Some((RENEWAL, ask)),
        Some(bytes) = open.streams.recv() => Some((Channel::Stream.letter() as u8, bytes)),
        Some(bytes) = open.bulk.recv() => Some((Channel::Stream.letter() as u8, bytes)),
    }
}

fn spread() -> Duration {
    let mut random = [0u8; 2];
    let _ = getrandom::fill(&mut random);
    Duration::from_millis(SPREAD_MS * u64::from(u16::from_le_bytes(random)) / 65_535)
}
