//! A client's connection after its upgrade: WebSocket messages, or bare bytes.
//!
//! In: the upgraded connection. Out: bytes both ways; for WebSockets the messages' payloads, pings
//! answered.
//! Never: understands what the bytes mean.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::limits::MESSAGE_BYTES_MAX;

pub type Io = TokioIo<Upgraded>;
pub type Socket = WebSocketStream<Io>;

/// The server's end of a WebSocket whose handshake is done.
pub async fn socket(io: Io) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Says that all is well and over. Go's clients take a close without a code for a failure.
pub async fn goodbye<S>(sink: &mut S)
where
    S: futures_util::Sink<Message> + Unpin,
{
    let frame = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
    // The client may be gone already.
    let _ = sink.send(Message::Close(Some(frame))).await;
}

/// A stream of bytes.
pub enum Wire {
    /// Bytes in binary messages.
    Tunnel(Box<Socket>),
    Bare(Io),
}

impl Wire {
    pub fn split(self) -> (WireReader, WireWriter) {
        match self {
            Wire::Tunnel(socket) => {
                let (sink, stream) = socket.split();
                (WireReader::Tunnel(stream), WireWriter::Tunnel(sink))
            }
            Wire::Bare(io) => {
                let (read, write) = tokio::io::split(io);
                (WireReader::Bare(read), WireWriter::Bare(write))
            }
        }
    }
}

pub enum WireReader {
    Tunnel(SplitStream<Box<Socket>>),
    Bare(ReadHalf<Io>),
}

impl WireReader {
    /// The next bytes; None at the end, whatever its reason.
    pub async fn read(&mut self) -> Option<Bytes> {
        match self {
            WireReader::Tunnel(stream) => loop {
                match stream.next().await?.ok()? {
                    Message::Binary(bytes) => return Some(bytes),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            WireReader::Bare(io) => {
                let mut buffer = BytesMut::with_capacity(16 * 1024);
                match io.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => None,
                    Ok(_) => Some(buffer.freeze()),
                }
            }
        }
    }
}

pub enum WireWriter {
    Tunnel(SplitSink<Box<Socket>, Message>),
    Bare(WriteHalf<Io>),
}

impl WireWriter {
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            WireWriter::Tunnel(sink) => sink.send(Message::Binary(bytes)).await.map_err(io::Error::other),
            WireWriter::Bare(io) => {
                io.write_all(&bytes).await?;
                io.flush().await
            }
        }
    }

    pub async fn close(&mut self) {
        match self {
            WireWriter::Tunnel(sink) => goodbye(sink).await,
            WireWriter::Bare(io) => {
                // The client may be gone already.
                let _ = io.shutdown().await;
            }
        }
    }
}
