//! One-way streams over WebSocket: logs (bytes), and watches (one event a message).
//!
//! In: the request's head and a stream of bytes. Out: messages until the stream ends or the client leaves.
//! Never: reads anything from the client but its leaving.

use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use http::{Response, request::Parts};
use limpet_objects::status::Status;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::exec::beat;
use super::limits::{CLOSE_TIME, HEARTBEAT_EVERY};
use super::upgrade::{Speaks, negotiate};
use super::wire::{Socket, goodbye, socket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `binary.k8s.io` (also without a name) or `base64.binary.k8s.io`: pieces of bytes.
    Bytes,
    /// Each piece is one text message.
    Text,
}

const BYTES: Speaks = Speaks { websocket: &["binary.k8s.io", "base64.binary.k8s.io", ""], spdy: &[] };
const TEXT: Speaks = Speaks { websocket: &[""], spdy: &[] };

/// Answers a WebSocket request with a stream.
pub fn flow(
    parts: &mut Parts,
    framing: Framing,
    stream: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<()>, Status> {
    let offer = negotiate(parts, if framing == Framing::Text { &TEXT } else { &BYTES })?;
    let base64 = offer.protocol.starts_with("base64.");
    let encode = move |bytes: Bytes| match framing {
        Framing::Bytes if base64 => Message::text(STANDARD.encode(&bytes)),
        Framing::Bytes => Message::Binary(bytes),
        Framing::Text => Message::text(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
    };
    let (response, mut pending) = offer.accept();
    tokio::spawn(async move {
        let _record = pending.record();
        if let Some(io) = pending.connection().await {
            carry(socket(io).await, Box::pin(stream), encode).await;
        }
    });
    Ok(response)
}

async fn carry(
    socket: Socket,
    mut stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    encode: impl Fn(Bytes) -> Message,
) {
    let (mut sink, mut client) = socket.split();
    let leaving = async {
        while let Some(Ok(message)) = client.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
        }
    };
    let sending = async {
        let mut heartbeat = interval(HEARTBEAT_EVERY);
        loop {
            tokio::select! {
                piece = stream.next() => match piece {
                    Some(bytes) => {
                        if sink.send(encode(bytes)).await.is_err() {
                            return;
                        }
                    }
                    None => {
                        goodbye(&mut sink).await;
                        return;
                    }
                },
                _ = heartbeat.tick() => {
                    if !beat(&mut sink).await {
                        return;
                    }
                }
            }
        }
    };
    tokio::pin!(leaving);
    tokio::select! {
        () = &mut leaving => {}
        () = sending => {
            let _ = timeout(CLOSE_TIME, leaving).await;
        }
    }
}
