//! The life of a leaf: joins once, then connects, and connects again.
//!
//! In: the stack, randomness, flash, the app. Out: everything the core wants done, in its order.
//! Never: gives up; writes to flash what the core did not ask for, besides the identity.

use crate::{
    App, State, Store,
    carry::Halves,
    http,
    join::{self, Identity, JoinError},
    mqtt::{self, Packet, Parser},
    store::Record,
    tls::{self, Own},
    trust::{Anchor, Trust},
};
use alloc::{format, string::String, vec, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
};
use embassy_futures::select::{Either, select};
use embassy_net::{IpAddress, Stack, dns::DnsQueryType, tcp::TcpSocket};
use embassy_sync::{blocking_mutex::raw::NoopRawMutex, signal::Signal};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{Read, Write};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use embedded_tls::{CryptoRngCore, TlsError};
use limpet_leaf_core::{Facts, Kept, Leaf, Output};
use limpet_protocol::{
    join::{JOIN_PATH, RENEW_PATH},
    limits::LEAF_ENVELOPE_BYTES_MAX,
    topic::{self, Channel},
};
use p256::ecdsa::SigningKey;

const SOCKET_BYTES: usize = 4096;
/// From the first packet to the hub's confirmation of the subscription.
const CONNECT: Duration = Duration::from_secs(30);
/// What was sent and is not acknowledged for so long: the connection is dead.
const DEAD: Duration = Duration::from_secs(60);
const KEEPALIVE_S: u16 = 60;
const PING: Duration = Duration::from_secs(50);
/// A session of this length was a good one: the next attempt starts quickly again.
const SOUND: Duration = Duration::from_secs(30);
const BACKOFF_S: (u64, u64) = (1, 120);
/// A refused token may be good later only by a hub's change of mind.
const REFUSED: Duration = Duration::from_secs(600);
/// Readings are taken so often when nothing asks for them more often.
const MEASURE: Duration = Duration::from_secs(2);
const BATCH_BYTES: usize = 3 * 1024;
const HOUR_MS: u64 = 3_600_000;

/// What is given to a board from outside.
pub struct Settings<'a> {
    pub facts: Facts,
    /// For the first start.
    pub token: &'a str,
}

/// Everything that lives as long as the power.
struct Board<'a, R, F, A> {
    net: Stack<'a>,
    rng: R,
    store: RefCell<Store<F>>,
    app: RefCell<A>,
    leaf: RefCell<Leaf>,
    news: Signal<NoopRawMutex, ()>,
    facts: Facts,
    /// The hub proved itself and ended the connection before it greeted: the certificate may have ended while this board was off,
    /// whose own clock does not know.
    turned_away: Cell<bool>,
}

fn now_ms() -> u64 {
    Instant::now().as_millis()
}

/// Runs until the power goes.
pub async fn run<R, F, A>(net: Stack<'_>, mut rng: R, mut store: Store<F>, app: A, settings: Settings<'_>) -> !
where
    R: CryptoRngCore,
    F: NorFlash + ReadNorFlash,
    A: App,
{
    let kept = store.load(Record::Kept).as_deref().and_then(Kept::decode);
    let identity = store.load(Record::Identity).as_deref().and_then(Identity::decode);
    let mut fresh = [0; 16];
    rng.fill_bytes(&mut fresh);
    let instance = kept.as_ref().map_or(fresh, |k| k.instance);
    let leaf = Leaf::new(settings.facts.clone(), kept, instance);
    let mut board = Board {
        net,
        rng,
        store: RefCell::new(store),
        app: RefCell::new(app),
        leaf: RefCell::new(leaf),
        news: Signal::new(),
        facts: settings.facts,
        turned_away: Cell::new(false),
    };
    board.app.borrow_mut().state(State::Connecting);
    board.local();
    let mut identity = match identity {
        Some(identity) => identity,
        None => board.join(settings.token, &instance).await,
    };
    board.live(&mut identity, &instance).await
}

impl<R: CryptoRngCore, F: NorFlash + ReadNorFlash, A: App> Board<'_, R, F, A> {
    /// Does what needs no hub: flash, configuration. Messages are returned.
    fn outputs(&self) -> (Vec<(Channel, Vec<u8>)>, Option<String>) {
        let mut messages = Vec::new();
        loop {
            let next = self.leaf.borrow_mut().poll();
            match next {
                None => return (messages, None),
                Some(Output::Send { channel, bytes }) => messages.push((channel, bytes)),
                Some(Output::HangUp(why)) => return (messages, Some(why)),
                Some(Output::Keep(bytes)) => {
                    let saved = self.store.borrow_mut().save(Record::Kept, &bytes);
                    if let Err(error) = saved {
                        log::error!("flash: {error:?}");
                    }
                    self.leaf.borrow_mut().kept(saved.is_ok(), now_ms());
                }
                Some(Output::Configure(config)) => {
                    let refused = self.app.borrow_mut().configure(&config).err();
                    self.leaf.borrow_mut().configured(refused, now_ms());
                }
            }
        }
    }

    fn local(&self) {
        let _ = self.outputs();
    }

    fn measure(&self) {
        let (readings, conditions) = self.app.borrow_mut().measure();
        self.leaf.borrow_mut().measured(readings, conditions, now_ms());
    }

    /// Waits, and goes on measuring.
    async fn pause(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            self.measure();
            self.leaf.borrow_mut().tick(now_ms());
            self.local();
            Timer::at(end.min(Instant::now() + MEASURE)).await;
        }
    }

    /// An address of this board's own.
    async fn network(&self) {
        self.net.wait_config_up().await;
        if let Some(config) = self.net.config_v4() {
            self.leaf.borrow_mut().moved(format!("{}", config.address.address()), now_ms());
        }
    }

    /// Asks every hub that is named, until one of them lets this board in.
    async fn join(&mut self, token: &str, instance: &[u8; 16]) -> Identity {
        let mut seed = [0; 32];
        let key = loop {
            self.rng.fill_bytes(&mut seed);
            if let Ok(key) = SigningKey::from_slice(&seed) {
                break key;
            }
        };
        let mut backoff = BACKOFF_S.0;
        loop {
            self.network().await;
            let wait = match self.join_once(token, &key, instance).await {
                Ok(identity) => {
                    let saved = self.store.borrow_mut().save(Record::Identity, &identity.encode());
                    match saved {
                        Ok(()) => return identity,
                        Err(error) => log::error!("the identity cannot be kept: {error:?}"),
                    }
                    Duration::from_secs(backoff)
                }
                Err(JoinError::Never(why)) => {
                    log::error!("{why}");
                    self.app.borrow_mut().state(State::Waiting(&why));
                    REFUSED
                }
                Err(JoinError::Later(why)) => {
                    log::warn!("{why}; again in {backoff} s");
                    self.app.borrow_mut().state(State::Waiting(&why));
                    Duration::from_secs(backoff)
                }
            };
            backoff = (backoff * 2).min(BACKOFF_S.1);
            self.pause(wait).await;
        }
    }

    async fn join_once(&mut self, token: &str, key: &SigningKey, instance: &[u8; 16]) -> Result<Identity, JoinError> {
        let (token, anchor) = join::parse_token(token)?;
        let node = self.facts.name.clone();
        let body = join::ask(&node, key, Some(&token), instance, &self.facts);
        let mut last = JoinError::Later("the token names no hub".into());
        for hub in &token.hubs {
            match self.post(hub, JOIN_PATH, anchor.clone(), &body).await {
                Err(why) => last = JoinError::Later(why),
                Ok((ca, status, answer)) => match join::answered(hub, key, &ca, status, &answer) {
                    Ok((identity, _)) => return Ok(identity),
                    Err(error) => return Err(error),
                },
            }
        }
        Err(last)
    }

    /// The next certificate with the same key; the present one may have ended.
    async fn renew(&mut self, identity: &Identity, instance: &[u8; 16]) -> Result<Identity, String> {
        let key = identity.signing_key().ok_or("the key in flash is damaged")?;
        let body = join::ask(&identity.node, &key, None, instance, &self.facts);
        let mut last = String::from("no hub is known");
        for hub in &identity.api {
            match self.post(hub, RENEW_PATH, Anchor::Ca(identity.ca.clone()), &body).await {
                Err(why) => last = why,
                Ok((ca, status, answer)) => match join::answered(hub, &key, &ca, status, &answer) {
                    Ok((new, _)) => return Ok(new),
                    Err(JoinError::Never(why) | JoinError::Later(why)) => last = why,
                },
            }
        }
        Err(last)
    }

    async fn post(&mut self, hub: &str, path: &str, anchor: Anchor, body: &[u8]) -> Result<(Vec<u8>, u16, Vec<u8>), String> {
        let mut buffers = (vec![0; SOCKET_BYTES], vec![0; SOCKET_BYTES]);
        let mut trust = Trust::new(anchor, self.leaf.borrow().floor_ms());
        let net = self.net;
        let talk = async {
            let at = resolve(net, hub).await?;
            let mut socket = open_socket(net, at, hub, &mut buffers).await?;
            let (read, write) = socket.split();
            let (read, write) = (RefCell::new(read), RefCell::new(write));
            let halves = Halves { read: &read, write: &write };
            let (mut tls_read, mut tls_write) = (vec![0; tls::READ_BYTES], vec![0; tls::WRITE_BYTES]);
            let records = (&mut tls_read[..], &mut tls_write[..]);
            let mut connection = tls::open(halves, records, &[b"http/1.1"], &mut self.rng, &mut trust, None).await?;
            http::post(&mut connection, hub, path, body).await
        };
        let answer = with_timeout(CONNECT, talk).await.map_err(|_| format!("no answer from {hub}"))?;
        let (status, body) = answer.map_err(|e| format!("{hub}: {e}"))?;
        Ok((trust.ca().to_vec(), status, body))
    }

    /// Connects, for ever.
    async fn live(&mut self, identity: &mut Identity, instance: &[u8; 16]) -> ! {
        let (mut round, mut backoff) = (0usize, BACKOFF_S.0);
        let mut renew_from_ms = 0;
        loop {
            self.network().await;
            while !self.leaf.borrow().is_ready() {
                self.pause(Duration::from_secs(5)).await;
            }
            if now_ms() >= renew_from_ms && (self.is_due(identity) || self.turned_away.take()) {
                renew_from_ms = now_ms() + HOUR_MS;
                match self.renew(identity, instance).await {
                    Ok(new) => self.take_over(identity, new),
                    Err(why) => log::warn!("the certificate is not renewed: {why}"),
                }
            }
            let hub = identity.mqtt[round % identity.mqtt.len()].clone();
            round += 1;
            let begun = Instant::now();
            let why = self.session(identity, &hub, renew_from_ms).await;
            self.leaf.borrow_mut().disconnected();
            self.app.borrow_mut().state(State::Offline);
            if begun.elapsed() > SOUND {
                backoff = BACKOFF_S.0;
            }
            // Boards that lose their hub at one moment do not come back at one moment.
            let wait = Duration::from_millis(backoff * 500 + u64::from(self.rng.next_u32()) % (backoff * 1000));
            log::info!("{hub}: {why}; again in {} ms", wait.as_millis());
            backoff = (backoff * 2).min(BACKOFF_S.1);
            self.pause(wait).await;
        }
    }

    fn take_over(&self, identity: &mut Identity, new: Identity) {
        let saved = self.store.borrow_mut().save(Record::Identity, &new.encode());
        match saved {
            Ok(()) => {
                log::info!("the certificate is renewed");
                *identity = new;
            }
            Err(error) => log::error!("the new certificate cannot be kept: {error:?}"),
        }
    }

    /// Whether two thirds of the certificate's life are over, as far as this board knows the time.
    fn is_due(&self, identity: &Identity) -> bool {
        let wall = self.leaf.borrow().wall_ms(now_ms());
        wall > 0 && wall >= identity.renew_at_ms()
    }

    /// One connection; why it ended.
    async fn session(&mut self, identity: &Identity, hub: &str, renew_from_ms: u64) -> String {
        let Some(key) = identity.signing_key() else { return "the key in flash is damaged".into() };
        let own = Own { key: &key, certificate: &identity.certificate };
        let mut trust = Trust::new(Anchor::Ca(identity.ca.clone()), self.leaf.borrow().floor_ms());
        let mut buffers = (vec![0; SOCKET_BYTES], vec![0; SOCKET_BYTES]);
        let (mut tls_read, mut tls_write) = (vec![0; tls::READ_BYTES], vec![0; tls::WRITE_BYTES]);
        let net = self.net;
        let socket = with_timeout(CONNECT, async {
            let at = resolve(net, hub).await?;
            open_socket(net, at, hub, &mut buffers).await
        });
        let mut socket = match socket.await {
            Ok(Ok(socket)) => socket,
            Ok(Err(why)) => return why,
            Err(_) => return "no answer in time".into(),
        };
        let (read, write) = socket.split();
        let (read, write) = (RefCell::new(read), RefCell::new(write));
        let halves = Halves { read: &read, write: &write };
        let mut parser = Parser::new(LEAF_ENVELOPE_BYTES_MAX + 512);
        let rng = &mut self.rng;
        let hardware = join::hardware(&self.facts.machine_id);
        let opened = with_timeout(CONNECT, async {
            let records = (&mut tls_read[..], &mut tls_write[..]);
            let mut connection = tls::open(halves, records, &[b"mqtt"], rng, &mut trust, Some(own)).await?;
            greet(&mut connection, &mut parser, &identity.node, &hardware).await?;
            Ok::<_, String>(connection)
        });
        let opened = opened.await;
        self.turned_away.set(trust.is_proven() && !matches!(opened, Ok(Ok(_))));
        let mut connection = match opened {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => return why,
            Err(_) => return "no answer in time".into(),
        };
        self.leaf.borrow_mut().connected(now_ms());
        let (mut from, mut to) = connection.split();
        let (board, pinged) = (&*self, Cell::new(None));
        let ends = async {
            // Looks now and then whether there is a reason to begin anew.
            loop {
                Timer::after(Duration::from_secs(60)).await;
                if now_ms() >= renew_from_ms && board.is_due(identity) {
                    return String::from("the certificate is to be renewed");
                }
            }
        };
        let talk = select(board.receive(&mut from, parser, &pinged), board.send(&mut to, &identity.node, &pinged));
        match select(talk, ends).await {
            Either::First(Either::First(why) | Either::Second(why)) | Either::Second(why) => why,
        }
    }

    async fn receive(
        &self,
        from: &mut impl Read<Error = TlsError>,
        mut parser: Parser,
        pinged: &Cell<Option<Instant>>,
    ) -> String {
        let mut piece = vec![0; 1024];
        loop {
            loop {
                match parser.next() {
                    Err(_) => return "the hub speaks broken MQTT".into(),
                    Ok(None) => break,
                    Ok(Some(Packet::Publish(bytes))) => {
                        if let Err(error) = self.leaf.borrow_mut().take(&bytes, now_ms()) {
                            return format!("a message that cannot be read: {error}");
                        }
                        self.news.signal(());
                    }
                    Ok(Some(_)) => {}
                }
            }
            match from.read(&mut piece).await {
                Ok(0) => return "the hub closed the connection".into(),
                Ok(n) => {
                    pinged.set(None);
                    parser.feed(&piece[..n]);
                }
                Err(error) => return tls::words(&error),
            }
        }
    }

    async fn send(&self, to: &mut impl Write<Error = TlsError>, node: &str, pinged: &Cell<Option<Instant>>) -> String {
        let topics = Channel::ALL.map(|c| topic::up(node, c));
        let (mut sent, mut measured, mut ready) = (Instant::now(), None::<Instant>, false);
        loop {
            let (messages, over) = self.outputs();
            let mut batch = Vec::new();
            for (channel, bytes) in messages {
                mqtt::publish(&mut batch, &topics[channel as usize], &bytes);
            }
            let now = Instant::now();
            if batch.is_empty() && now >= sent + PING {
                batch.extend(mqtt::PING);
                pinged.set(pinged.get().or(Some(now)));
            }
            if !batch.is_empty() {
                sent = now;
                for part in batch.chunks(BATCH_BYTES) {
                    if let Err(error) = to.write_all(part).await {
                        return tls::words(&error);
                    }
                }
                if let Err(error) = to.flush().await {
                    return tls::words(&error);
                }
            }
            if let Some(why) = over {
                return why;
            }
            if pinged.get().is_some_and(|at| now >= at + CONNECT) {
                return "the hub does not answer pings".into();
            }
            if !ready && self.leaf.borrow().is_up() {
                ready = true;
                self.app.borrow_mut().state(State::Ready);
            }
            if measured.is_none_or(|at| now >= at + MEASURE) {
                measured = Some(now);
                self.measure();
                continue;
            }
            let wake = self.leaf.borrow().wake_at().map_or(now + MEASURE, Instant::from_millis);
            let next = [Some(wake), measured.map(|m| m + MEASURE)].into_iter().flatten().fold(sent + PING, Instant::min);
            select(self.news.wait(), Timer::at(next)).await;
            self.leaf.borrow_mut().tick(now_ms());
        }
    }
}

async fn resolve(net: Stack<'_>, target: &str) -> Result<(IpAddress, u16), String> {
    let wrong = || format!("{target:?} is no address such as hub.example:8883");
    let (host, port) = target.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok((address.into(), port));
    }
    let found = net.dns_query(host, DnsQueryType::A).await;
    let found = found.map_err(|e| format!("{host} is not found: {e:?}"))?;
    found.first().map(|a| (*a, port)).ok_or_else(|| format!("{host} has no IPv4 address"))
}

async fn open_socket<'s>(
    net: Stack<'s>,
    at: (IpAddress, u16),
    target: &str,
    buffers: &'s mut (Vec<u8>, Vec<u8>),
) -> Result<TcpSocket<'s>, String> {
    let mut socket = TcpSocket::new(net, &mut buffers.0, &mut buffers.1);
    socket.set_timeout(Some(DEAD));
    socket.set_keep_alive(Some(PING));
    socket.set_nagle_enabled(false);
    socket.connect(at).await.map_err(|e| format!("{target} cannot be reached: {e:?}"))?;
    Ok(socket)
}

/// Up to the hub's confirmation of the subscription.
async fn greet(
    connection: &mut tls::Connection<'_, '_, '_>,
    parser: &mut Parser,
    node: &str,
    hardware: &str,
) -> Result<(), String> {
    let broke = |e: TlsError| tls::words(&e);
    let mut hello = mqtt::connect(hardware, KEEPALIVE_S);
    hello.extend(mqtt::subscribe(&topic::down_filter(node)));
    connection.write_all(&hello).await.map_err(broke)?;
    connection.flush().await.map_err(broke)?;
    let mut piece = vec![0; 256];
    loop {
        match parser.next() {
            Err(_) => return Err("the hub speaks broken MQTT".into()),
            Ok(Some(Packet::ConnAck(0))) => continue,
            Ok(Some(Packet::ConnAck(5))) => return Err("the hub does not let this board in (its log says why)".into()),
            Ok(Some(Packet::ConnAck(code))) => return Err(format!("the hub refuses the connection with code {code}")),
            Ok(Some(Packet::SubAck(0x80))) => return Err("the hub refused the subscription".into()),
            Ok(Some(Packet::SubAck(_))) => return Ok(()),
            Ok(Some(_)) => continue,
            Ok(None) => {}
        }
        match connection.read(&mut piece).await {
            Ok(n) if n > 0 => parser.feed(&piece[..n]),
            Ok(_) => return Err("the hub closed the connection".into()),
            Err(error) => return Err(tls::words(&error)),
        }
    }
}
