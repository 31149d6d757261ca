//! MQTT packets over a stream of bytes.
//!
//! In: a stream, a bound. Out: its packets, and the way to write some. What waits for bytes holds no buffer.
//! Never: a packet over the bound; memory that a large packet needed once.

use crate::{connection::Stream, limits};
use bytes::BytesMut;
use rmqtt_codec::{
    error::DecodeError,
    v3::{Codec, Packet},
};
use std::{future::poll_fn, pin::Pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder};

/// A read buffer above this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 2 * limits::READ_BYTES;

/// Type and flags of a CONNECT packet (MQTT 3.1.1, section 3.1.1).
const CONNECT: u8 = 0x10;

pub(crate) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    codec: Codec,
    buffer: BytesMut,
}

pub(crate) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
    /// A write was given up in its middle: nothing may follow it.
    torn: bool,
}

/// Why there is no further packet.
#[derive(Debug)]
pub(crate) enum End {
    Closed,
    Broken(DecodeError),
}

pub(crate) fn split(stream: Box<dyn Stream>, packet_bytes_max: u32) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    (Reader { stream: read, codec: Codec::new(packet_bytes_max), buffer: BytesMut::new() }, Writer { stream: write, torn: false })
}

impl Reader {
    pub fn set_packet_bytes_max(&mut self, bytes: usize) {
        self.codec.set_max_size(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// May be dropped while it waits: nothing that was read is lost.
    pub async fn next(&mut self) -> Result<Packet, End> {
        loop {
            if let Some((packet, _)) = self.codec.decode(&mut self.buffer).map_err(End::Broken)? {
                // A packet keeps the memory that it was read into; small ones would keep that of large ones.
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
                return Ok(packet);
            }
            if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = BytesMut::new();
            }
            self.fill().await?;
        }
    }

    /// The first packet, which has to be CONNECT: what begins otherwise is not waited for.
    pub async fn first(&mut self) -> Result<Packet, End> {
        self.fill().await?;
        match self.buffer.first() {
            Some(&CONNECT) => self.next().await,
            _ => Err(End::Broken(DecodeError::InvalidProtocol)),
        }
    }

    /// Some bytes more.
    async fn fill(&mut self) -> Result<(), End> {
        let Reader { stream, buffer, .. } = self;
        let read = poll_fn(|cx| {
            let mut bytes = [0; limits::READ_BYTES];
            let mut into = ReadBuf::new(&mut bytes);
            let done = std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut into));
            buffer.extend_from_slice(into.filled());
            std::task::Poll::Ready(done.map(|()| into.filled().len()))
        });
        match read.await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(End::Closed),
        }
    }
}

impl Writer {
    /// Writes and pushes it onto the wire; the client has `limits::WRITE` to take it.
    pub async fn send(&mut self, packet: Packet) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        encode(packet, &mut bytes)?;
        self.write(&bytes).await
    }

    /// When this is dropped while it waits, nothing more can be written.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        if std::mem::replace(&mut self.torn, true) {
            return Err("the last message was cut".into());
        }
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(limits::WRITE, written).await {
            Ok(Ok(())) => {
                self.torn = false;
                Ok(())
            }
            Ok(Err(e)) => Err(format!("write failed: {e}")),
            Err(_) => Err("takes messages too slowly".into()),
        }
    }

    pub async fn close(&mut self) {
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}

pub(crate) fn encode(packet: Packet, into: &mut BytesMut) -> Result<(), String> {
    Codec::new(0).encode(packet, into).map_err(|e| format!("cannot be written: {e:?}"))
}
