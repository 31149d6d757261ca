//! exec and attach over the WebSocket channel protocols.
//!
//! In: what to run and where, the client's WebSocket. Out: stdin and sizes of the terminal to the node;
//! stdout, stderr and the end to the client.
//! Never: buffers more than one message in each direction.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{Response, request::Parts};
use limpet_objects::status::Status;
use tokio::sync::Notify;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::channel::{CLOSE, ERROR, EXEC_PROTOCOLS, RESIZE, STDERR, STDIN, STDOUT, Version};
use super::limits::{CLOSE_TIME, HEARTBEAT_EVERY, LISTENS_TIME, STREAMS_MADE_TIME};
use super::options::ExecRequest;
use super::upgrade::{Speaks, Transport, negotiate};
use super::wire::{Socket, goodbye, socket};
use super::{PodPlace, exec_spdy, exit, unreachable};
use crate::run::streams::{FromNode, StreamHandle, Streams};

const SPEAKS: Speaks = Speaks {
    websocket: EXEC_PROTOCOLS,
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""],
};
/// A size of a terminal is some 30 bytes.
const RESIZE_BYTES_MAX: usize = 256;

/// Runs a command, or attaches to a container (`request.command` is None). The node's side is open when
/// this returns.
pub async fn exec(
    parts: &mut Parts,
    pod: &PodPlace,
    request: ExecRequest,
    streams: &Streams,
) -> Result<Response<()>, Status> {
    let offer = negotiate(parts, &SPEAKS)?;
    let handle = pod.open(request.kind(), streams).await.map_err(|e| unreachable(&e))?;
    let (transport, protocol) = (offer.transport, offer.protocol);
    let (response, mut pending) = offer.accept();
    tokio::spawn(async move {
        let _record = pending.record();
        let Some(io) = pending.connection().await else { return };
        match transport {
            Transport::WebSocket => carry(socket(io).await, Version::of(protocol), &request, handle).await,
            Transport::Spdy => exec_spdy::carry(io, Version::of(protocol), &request, handle).await,
        }
    });
    Ok(response)
}

async fn carry(socket: Socket, version: Version, request: &ExecRequest, handle: StreamHandle) {
    let (sink, stream) = socket.split();
    let listens = Notify::new();
    let up = up(stream, version, request, &handle, &listens);
    tokio::pin!(up);
    tokio::select! {
        // The client left: dropping the handle tells the node.
        () = &mut up => {}
        // The client reads the end and closes; what it still sends must be taken until then, or its system
        // would drop what it has not read yet.
        () = down(sink, version, request, &handle, &listens) => {
            let _ = timeout(CLOSE_TIME, up).await;
        }
    }
}

/// From the client to the node, until the client closes.
async fn up(
    mut stream: SplitStream<Socket>,
    version: Version,
    request: &ExecRequest,
    handle: &StreamHandle,
    listens: &Notify,
) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Close(_) => return,
            Message::Pong(_) => listens.notify_one(),
            _ => {}
        }
        // Errors of the node's side come to the client with the end, not here.
        let _ = match version.form.decode(message) {
            Some((STDIN, bytes)) if request.stdin && !bytes.is_empty() => handle.send(STDIN, bytes).await,
            Some((RESIZE, bytes)) if request.tty && bytes.len() <= RESIZE_BYTES_MAX => {
                handle.send(RESIZE, bytes).await
            }
            Some((CLOSE, bytes)) if version.close && bytes.as_ref() == [STDIN] => handle.eof(STDIN).await,
            _ => Ok(()),
        };
    }
}

/// From the node to the client, until the node says that it is over.
async fn down(
    mut sink: SplitSink<Socket, Message>,
    version: Version,
    request: &ExecRequest,
    handle: &StreamHandle,
    listens: &Notify,
) {
    if !until_it_listens(&mut sink, listens).await {
        return;
    }
    // Tells clients that the streams are up, as upstream does.
    let lowest = if request.stdout {
        STDOUT
    } else if request.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(version.form.encode(lowest, &[])).await.is_err() {
        return;
    }
    let mut heartbeat = interval(HEARTBEAT_EVERY);
    let mut next = Box::pin(handle.recv());
    loop {
        let from = tokio::select! {
            from = &mut next => from,
            _ = heartbeat.tick() => {
                if !beat(&mut sink).await {
                    return;
                }
                continue;
            }
        };
        let sent = match from {
            Some(FromNode::Data { lane: lane @ (STDOUT | STDERR), bytes }) => {
                sink.send(version.form.encode(lane, &bytes)).await
            }
            Some(FromNode::Data { .. } | FromNode::Eof { .. }) => Ok(()),
            Some(FromNode::End { exit_code, error }) => {
                if let Some(report) = exit::report(exit_code, &error, version.status) {
                    let _ = sink.send(version.form.encode(ERROR, &report)).await;
                }
                goodbye(&mut sink).await;
                return;
            }
            None => return,
        };
        if sent.is_err() {
            return;
        }
        next.set(handle.recv());
    }
}

/// kubectl before 1.33 begins to read before it has made its streams, drops what comes for one that it has not made yet, and ends
/// with code 0. It answers a ping once it reads; its streams follow in microseconds. False: the client is gone.
async fn until_it_listens(sink: &mut SplitSink<Socket, Message>, listens: &Notify) -> bool {
    if sink.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
        return false;
    }
    if timeout(LISTENS_TIME, listens.notified()).await.is_ok() {
        sleep(STREAMS_MADE_TIME).await;
    }
    true
}

/// A ping finds out whether the client is still there; a pong nobody asked for keeps its own timer from
/// running out while it is we who cannot take its data.
pub(super) async fn beat(sink: &mut SplitSink<Socket, Message>) -> bool {
    let empty = bytes::Bytes::new;
    sink.feed(Message::Ping(empty())).await.is_ok() && sink.send(Message::Pong(empty())).await.is_ok()
}
