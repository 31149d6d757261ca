//! Port-forward: the entry, and the `v4.channel.k8s.io` protocol (two channels a port: data and error).
//!
//! In: a request that wants its connection upgraded, the pod. Out: one node stream for each forwarded
//! connection.
//! Never: connects anywhere itself; the node does, inside the pod's network.

use futures_util::stream::{FuturesUnordered, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{Response, request::Parts};
use limpet_objects::status::Status;
use limpet_protocol::StreamKind;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::channel::{Form, Version};
use super::exec::beat;
use super::limits::{CLOSE_TIME, HEARTBEAT_EVERY};
use super::options::PortForwardRequest;
use super::upgrade::{Speaks, Transport, negotiate};
use super::wire::{Socket, Wire, goodbye, socket};
use super::{PodPlace, forward_spdy, unreachable};
use crate::run::streams::{FromNode, StreamHandle, Streams};

/// SPDY frames in WebSocket messages: what kubectl uses.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPEAKS: Speaks = Speaks {
    websocket: &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""],
    spdy: &["portforward.k8s.io", ""],
};
/// The one lane of a forwarded connection.
pub(super) const LANE: u8 = 0;
/// Messages of all ports that wait for the client.
const QUEUE: usize = 16;

/// Forwards connections to ports of a pod.
pub async fn port_forward(
    parts: &mut Parts,
    pod: &PodPlace,
    request: &PortForwardRequest,
    streams: &Streams,
) -> Result<Response<()>, Status> {
    let offer = negotiate(parts, &SPEAKS)?;
    let tunnel = offer.transport == Transport::Spdy || offer.protocol == TUNNEL;
    if !tunnel && request.ports.is_empty() {
        return Err(Status::bad_request("you must specify at least one port: ports=NUMBER"));
    }
    // Else kubectl listens, and everybody who connects to it waits for what cannot come.
    streams.reach(&pod.node).map_err(|e| unreachable(&e))?;
    let (pod, ports, streams) = (pod.clone(), request.ports.clone(), streams.clone());
    let (transport, version) = (offer.transport, Version::of(offer.protocol));
    let (response, mut pending) = offer.accept();
    tokio::spawn(async move {
        let _record = pending.record();
        let Some(io) = pending.connection().await else { return };
        match transport {
            Transport::Spdy => forward_spdy::carry(Wire::Bare(io), pod, streams).await,
            Transport::WebSocket if tunnel => {
                forward_spdy::carry(Wire::Tunnel(Box::new(socket(io).await)), pod, streams).await;
            }
            Transport::WebSocket => carry(socket(io).await, version.form, &pod, &ports, &streams).await,
        }
    });
    Ok(response)
}

/// What the client reads when a port cannot be reached; kubectl prints it.
pub(super) fn failure(port: u16, pod: &PodPlace, why: &str) -> String {
    format!("error forwarding port {port} to pod {}/{}, uid {}: {why}", pod.namespace, pod.name, pod.uid)
}

struct Port {
    number: u16,
    data: u8,
    error: u8,
    handle: Result<StreamHandle, String>,
}

async fn carry(socket: Socket, form: Form, pod: &PodPlace, numbers: &[u16], streams: &Streams) {
    let mut ports = Vec::with_capacity(numbers.len());
    for (i, number) in numbers.iter().enumerate() {
        let opened = pod.open(StreamKind::PortForward { port: *number }, streams).await;
        let handle = opened.map_err(|e| failure(*number, pod, &e.to_string()));
        ports.push(Port { number: *number, data: 2 * i as u8, error: 2 * i as u8 + 1, handle });
    }
    let (mut sink, client) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(QUEUE);
    let writing = async {
        let mut heartbeat = interval(HEARTBEAT_EVERY);
        loop {
            let sent = tokio::select! {
                message = queue.recv() => match message {
                    Some(message) => sink.send(message).await.is_ok(),
                    None => {
                        goodbye(&mut sink).await;
                        return;
                    }
                },
                _ = heartbeat.tick() => beat(&mut sink).await,
            };
            if !sent {
                return;
            }
        }
    };
    let reading = up(client, form, &ports);
    let all = async {
        let mut each: FuturesUnordered<_> =
            ports.iter().map(|port| down(port, form, pod, out.clone())).collect();
        while each.next().await.is_some() {}
        drop(each);
        drop(out);
        // The writer ends the rest when it has written everything.
        std::future::pending::<()>().await;
    };
    tokio::pin!(reading);
    tokio::select! {
        () = &mut reading => {}
        () = all => {}
        () = writing => {
            let _ = timeout(CLOSE_TIME, reading).await;
        }
    }
}

async fn up(mut client: SplitStream<Socket>, form: Form, ports: &[Port]) {
    while let Some(Ok(message)) = client.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        let Some((channel, bytes)) = form.decode(message) else { continue };
        if let Some(Port { handle: Ok(handle), .. }) = ports.iter().find(|p| p.data == channel) {
            let _ = handle.send(LANE, bytes).await;
        }
    }
}

async fn down(port: &Port, form: Form, pod: &PodPlace, out: mpsc::Sender<Message>) {
    let say = async |channel: u8, bytes: &[u8]| out.send(form.encode(channel, bytes)).await.is_ok();
    // Each channel begins with the port's number.
    let number = port.number.to_le_bytes();
    if !say(port.data, &number).await || !say(port.error, &number).await {
        return;
    }
    let handle = match &port.handle {
        Ok(handle) => handle,
        Err(why) => {
            say(port.error, why.as_bytes()).await;
            return;
        }
    };
    while let Some(from) = handle.recv().await {
        let sent = match from {
            FromNode::Data { lane: LANE, bytes } => say(port.data, &bytes).await,
            FromNode::End { error, .. } if !error.is_empty() => {
                say(port.error, failure(port.number, pod, &error).as_bytes()).await
            }
            _ => true,
        };
        if !sent {
            return;
        }
    }
}
