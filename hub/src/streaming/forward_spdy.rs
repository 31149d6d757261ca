//! Port-forward over SPDY streams, tunnelled in a WebSocket or on the bare connection.
//!
//! In: pairs of streams that the client opens, one pair a forwarded connection: headers `streamtype`
//! (error, data), `port`, `requestid`. Out: one node stream a pair; many at the same time.
//! Never: keeps a half pair longer than `STREAMS_TIME`.

use std::collections::HashMap;

use limpet_protocol::StreamKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::PodPlace;
use super::forward::{LANE, failure};
use super::limits::STREAMS_TIME;
use super::spdy::{Connection, Incoming, Piece, Stream, StreamWriter};
use super::wire::Wire;
use crate::run::streams::{FromNode, StreamHandle, Streams};

struct Half {
    port: u16,
    is_data: bool,
    stream: Stream,
    since: Instant,
}

/// Serves until the client closes its connection; then everything that it forwarded ends.
pub async fn carry(wire: Wire, pod: PodPlace, streams: Streams) {
    let Ok(mut connection) = Connection::serve(wire) else { return };
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    while let Some(incoming) = connection.accept().await {
        while forwards.try_join_next().is_some() {}
        halves.retain(|_, half| half.since.elapsed() < STREAMS_TIME);
        let writer = incoming.stream.writer();
        let Some((id, half)) = half(incoming) else {
            writer.reset().await;
            continue;
        };
        match halves.remove(&id) {
            Some(other) if other.is_data != half.is_data && other.port == half.port => {
                let (data, error) = if half.is_data { (half, other) } else { (other, half) };
                let (pod, streams) = (pod.clone(), streams.clone());
                forwards.spawn(
                    async move { forward(data.port, data.stream, error.stream, &pod, &streams).await },
                );
            }
            Some(other) => {
                other.stream.writer().reset().await;
                half.stream.writer().reset().await;
            }
            None => {
                halves.insert(id, half);
            }
        }
    }
}

/// None when the headers do not make sense.
fn half(incoming: Incoming) -> Option<(String, Half)> {
    let Incoming { headers, stream } = incoming;
    let is_data = match headers.get("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    // Old clients send no id: the error stream comes first and the data stream right behind it.
    let by_order = || (stream.id() - if is_data { 2.min(stream.id()) } else { 0 }).to_string();
    let id = headers.get("requestid").map_or_else(by_order, str::to_owned);
    Some((id, Half { port, is_data, stream, since: Instant::now() }))
}

/// One forwarded connection.
async fn forward(port: u16, data: Stream, error: Stream, pod: &PodPlace, streams: &Streams) {
    let (mut to_client, mut errors) = (data.writer(), error.writer());
    let why = match pod.open(StreamKind::PortForward { port }, streams).await {
        Ok(handle) => {
            tokio::select! {
                why = down(&handle, &mut to_client) => why,
                () = up(data, &handle) => None,
            }
        }
        Err(why) => Some(why.to_string()),
    };
    if let Some(why) = why {
        errors.write(failure(port, pod, &why).into()).await;
    }
    to_client.finish().await;
    errors.finish().await;
}

/// Returns when the client resets the stream; after its orderly end the other direction goes on.
async fn up(mut data: Stream, handle: &StreamHandle) {
    loop {
        let sent = match data.read().await {
            Piece::Data(bytes) => handle.send(LANE, bytes).await,
            Piece::End => {
                let _ = handle.eof(LANE).await;
                break;
            }
            Piece::Reset => return,
        };
        if sent.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// What went wrong, if anything did.
async fn down(handle: &StreamHandle, to_client: &mut StreamWriter) -> Option<String> {
    while let Some(from) = handle.recv().await {
        match from {
            FromNode::Data { lane: LANE, bytes } => {
                if !to_client.write(bytes).await {
                    return None;
                }
            }
            FromNode::Eof { lane: LANE } => to_client.finish().await,
            FromNode::Data { .. } | FromNode::Eof { .. } => {}
            FromNode::End { error, .. } => return (!error.is_empty()).then_some(error),
        }
    }
    None
}
