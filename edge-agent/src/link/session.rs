//! The MQTT connection: connects, subscribes, carries bytes both ways, and says when it is gone.
//!
//! In: encoded envelopes for the hub, a lane each. Out: `LinkEvent`s. A new client for every connection: nothing of an
//! old session is ever sent in a new one; the outbox knows what must be said again.
//! Never: holds more than a few messages; waiting happens in the callers.

use super::{Identity, backoff::Backoff, http, tls};
use crate::device::Clock;
use bytes::Bytes;
use limpet_protocol::{limits::ENVELOPE_BYTES_MAX, topic, topic::Channel};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS, TlsConfiguration, Transport};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// Messages between the callers and the client; bulk waits here, and only here.
const OUT_MESSAGES_MAX: usize = 8;
const BULK_MESSAGES_MAX: usize = 2;
const IN_MESSAGES_MAX: usize = 32;
const CONNECT_TIMEOUT_S: u64 = 20;
/// A session of this length was a good one: the next attempt starts quickly again.
const SOUND: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed; messages of this connection go here.
    Up(Lanes),
    Message(Bytes),
    Down,
}

/// The ways to the hub. State never waits behind bulk.
#[derive(Clone, Debug)]
pub struct Lanes {
    pub state: mpsc::Sender<(Channel, Vec<u8>)>,
    pub bulk: mpsc::Sender<Vec<u8>>,
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
    pub keepalive_s: u64,
    pub backoff_s_max: u64,
    /// Used instead of the hub's own list when not empty.
    pub mqtt: Vec<String>,
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
    let mut round = 0usize;
    loop {
        let who = identity.borrow().clone();
        let hubs = if options.mqtt.is_empty() { &who.answer.mqtt } else { &options.mqtt };
        let Some(hub) = hubs.get(round % hubs.len().max(1)).cloned() else {
            log::error!("link: the hub named no MQTT address; join again");
            return;
        };
        round += 1;
        let begun = tokio::time::Instant::now();
        let end = tokio::select! {
            end = one_session(&who, &hub, &clock, &options, &tell) => end,
            () = hang_up.notified() => "hung up".to_string(),
        };
        if begun.elapsed() > SOUND {
            backoff.reset();
        }
        let wait = backoff.next();
        log::info!("link: {hub}: {end}; next attempt in {:.1} s", wait.as_secs_f32());
        if tell.send(LinkEvent::Down).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

async fn one_session(
    who: &Identity,
    hub: &str,
    clock: &Clock,
    options: &LinkOptions,
    tell: &mpsc::Sender<LinkEvent>,
) -> String {
    let answer = &who.answer;
    let config = match tls::with_certificate(&answer.ca_pem, &answer.certificate_pem, &who.key_pem, clock) {
        Ok(config) => config,
        Err(e) => return format!("the identity on disk cannot be used: {e}"),
    };
    let (client, mut connection) = client(&answer.node_name, hub, config, options);
    if let Err(end) = greet(&answer.node_name, &client, &mut connection).await {
        return end;
    }
    let (state, state_queue) = mpsc::channel(OUT_MESSAGES_MAX);
    let (bulk, bulk_queue) = mpsc::channel(BULK_MESSAGES_MAX);
    if tell.send(LinkEvent::Up(Lanes { state, bulk })).await.is_err() {
        return "the agent ends".into();
    }
    let send = send(&answer.node_name, &client, state_queue, bulk_queue);
    // Neither is ever cancelled before the session ends: rumqttc's poll is not made for that.
    tokio::select! {
        end = receive(&mut connection, tell) => end,
        end = send => end,
    }
}

fn client(
    node: &str,
    hub: &str,
    config: rustls::ClientConfig,
    options: &LinkOptions,
) -> (AsyncClient, EventLoop) {
    let port = http::port_of(hub).unwrap_or(8883);
    let mut mqtt = MqttOptions::new(node, http::host_of(hub), port);
    mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
    mqtt.set_keep_alive(Duration::from_secs(options.keepalive_s.max(5)));
    mqtt.set_clean_session(true);
    let limit = ENVELOPE_BYTES_MAX + 1024;
    mqtt.set_max_packet_size(limit, limit);
    mqtt.set_inflight(16);
    let (client, mut connection) = AsyncClient::new(mqtt, 1);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    network.set_tcp_nodelay(true);
    connection.set_network_options(network);
    (client, connection)
}

/// Up to the hub's confirmation of the subscription.
async fn greet(node: &str, client: &AsyncClient, connection: &mut EventLoop) -> Result<(), String> {
    let deadline = Duration::from_secs(CONNECT_TIMEOUT_S);
    let talk = async {
        loop {
            match connection.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filter = topic::down_filter(node);
                    client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|e| e.to_string())?;
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let refused = ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure);
                    return if refused { Err("the hub refused the subscription".into()) } else { Ok(()) };
                }
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    };
    tokio::time::timeout(deadline, talk).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Hands messages to the client one by one, state before bulk.
async fn send(
    node: &str,
    client: &AsyncClient,
    mut state: mpsc::Receiver<(Channel, Vec<u8>)>,
    mut bulk: mpsc::Receiver<Vec<u8>>,
) -> String {
    loop {
        let (channel, bytes) = tokio::select! {
            biased;
            message = state.recv() => match message {
                Some(message) => message,
                None => return "the agent closed the session".into(),
            },
            Some(bytes) = bulk.recv() => (Channel::Stream, bytes),
        };
        // The connection is one ordered stream; bulk needs no acknowledgement of its own.
        let qos = if channel == Channel::Stream { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        if client.publish(topic::up(node, channel), qos, false, bytes).await.is_err() {
            return "the client ended".into();
        }
    }
}

async fn receive(connection: &mut EventLoop, tell: &mpsc::Sender<LinkEvent>) -> String {
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if tell.send(LinkEvent::Message(publish.payload)).await.is_err() {
                    return "the agent ends".into();
                }
            }
            Ok(Event::Incoming(Packet::Disconnect)) => return "the hub closed the connection".into(),
            Ok(_) => {}
            Err(e) => return e.to_string(),
        }
    }
}
