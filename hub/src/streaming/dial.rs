//! A TCP connection into a pod's network, for the hub's own use.
//!
//! In: a pod, a port. Out: a stream of bytes both ways; the node connects, as for port-forward.
//! Never: connects anywhere from the hub itself.

use super::{PodPlace, forward::LANE, limits::CLOSE_TIME};
use crate::run::streams::{FromNode, StreamError, StreamHandle, Streams};
use bytes::BytesMut;
use limpet_protocol::StreamKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

/// What waits between the two sides, each way.
const BUFFER_BYTES: usize = 64 * 1024;

pub async fn dial(pod: &PodPlace, port: u16, streams: &Streams) -> Result<DuplexStream, StreamError> {
    let handle = pod.open(StreamKind::PortForward { port }, streams).await?;
    let (ours, theirs) = duplex(BUFFER_BYTES);
    tokio::spawn(carry(handle, theirs));
    Ok(ours)
}

/// Until the node ends the stream, or our side is dropped.
async fn carry(handle: StreamHandle, io: DuplexStream) {
    let (read, write) = split(io);
    let sending = async {
        send(&handle, read).await;
        // An answer may still be on its way.
        tokio::time::sleep(CLOSE_TIME).await;
    };
    tokio::select! {
        () = receive(&handle, write) => {}
        () = sending => {}
    }
}

async fn send(handle: &StreamHandle, mut read: ReadHalf<DuplexStream>) {
    loop {
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES / 2);
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) if handle.send(LANE, buffer.freeze()).await.is_err() => return,
            Ok(_) => {}
        }
    }
    // The stream may be over already.
    let _ = handle.eof(LANE).await;
}

async fn receive(handle: &StreamHandle, mut write: WriteHalf<DuplexStream>) {
    while let Some(said) = handle.recv().await {
        let written = match said {
            FromNode::Data { lane: LANE, bytes } => write.write_all(&bytes).await,
            FromNode::Eof { lane: LANE } => write.shutdown().await,
            FromNode::End { .. } => return,
            _ => Ok(()),
        };
        if written.is_err() {
            return;
        }
    }
}
