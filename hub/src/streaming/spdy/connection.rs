//! One SPDY connection: reads and writes frames, keeps the streams that the client opened.
//!
//! In: a `Wire`. Out: `Incoming` streams. A stream whose reader is slow holds up the connection, as
//! upstream.
//! Never: holds more than the bounds say; ends streams that the client did not end.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::super::limits::{CLOSE_TIME, SPDY_OUT_QUEUE, SPDY_QUEUE, SPDY_STREAMS_MAX, STREAMS_TIME};
use super::super::wire::{Wire, WireReader, WireWriter};
use super::SpdyError;
use super::frame::{CANCEL, Decoder, Encoder, Frame, PROTOCOL_ERROR, REFUSED_STREAM};
use super::headers::Headers;

/// A stream that the client opened.
pub struct Incoming {
    pub headers: Headers,
    pub stream: Stream,
}

pub enum Piece {
    Data(Bytes),
    /// The client has said all that it had to say.
    End,
    /// The client wants nothing more of this stream, in either direction; or its connection is lost.
    Reset,
}

/// Both directions of one stream.
pub struct Stream {
    id: u32,
    pieces: mpsc::Receiver<Piece>,
    out: mpsc::Sender<Frame>,
}

impl Stream {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the client sends. Nothing comes after `End` or `Reset`.
    pub async fn read(&mut self) -> Piece {
        self.pieces.recv().await.unwrap_or(Piece::Reset)
    }

    pub fn writer(&self) -> StreamWriter {
        StreamWriter { id: self.id, out: self.out.clone(), finished: false }
    }
}

/// There is one for each stream.
pub struct StreamWriter {
    id: u32,
    out: mpsc::Sender<Frame>,
    finished: bool,
}

impl StreamWriter {
    /// False when the connection is gone.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        !self.finished && self.out.send(Frame::Data { id: self.id, fin: false, bytes }).await.is_ok()
    }

    /// Nothing more comes from this side. A second time does nothing.
    pub async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let _ = self.out.send(Frame::Data { id: self.id, fin: true, bytes: Bytes::new() }).await;
        }
    }

    /// Ends both directions at once.
    pub async fn reset(mut self) {
        self.finished = true;
        let _ = self.out.send(Frame::Reset { id: self.id, status: CANCEL }).await;
    }
}

/// The server's end. Dropping it ends the connection; `close` does so after what was written is out.
pub struct Connection {
    incoming: mpsc::Receiver<Incoming>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Connection {
    pub fn serve(wire: Wire) -> Result<Connection, SpdyError> {
        let (read, write) = wire.split();
        let (opened, incoming) = mpsc::channel(SPDY_STREAMS_MAX);
        let (out, frames) = mpsc::channel(SPDY_OUT_QUEUE);
        let (stop, stopped) = oneshot::channel();
        let writer = tokio::spawn(write_frames(write, Encoder::new()?, frames, stopped));
        let reader = Reader { decoder: Decoder::new(), streams: HashMap::new(), opened, out, last: 0 };
        Ok(Connection { incoming, reader: tokio::spawn(reader.run(read)), writer, stop: Some(stop) })
    }

    /// The next stream that the client opens; None when the connection has ended.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Writes what is queued, closes this direction, and takes what the client still sends until it closes
    /// too: its system would otherwise drop what it has not read yet. A client that does not read is not
    /// waited for for ever.
    pub async fn close(mut self) {
        drop(self.stop.take());
        self.incoming.close();
        let both = async {
            let _ = (&mut self.writer).await;
            let _ = (&mut self.reader).await;
        };
        let _ = tokio::time::timeout(CLOSE_TIME, both).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn write_frames(
    mut wire: WireWriter,
    mut encoder: Encoder,
    mut frames: mpsc::Receiver<Frame>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut stopping = false;
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => frame,
            _ = &mut stopped, if !stopping => {
                stopping = true;
                frames.close();
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let Ok(bytes) = encoder.frame(&frame) else { break };
        if wire.write(bytes.freeze()).await.is_err() {
            return;
        }
    }
    wire.close().await;
}

struct Reader {
    decoder: Decoder,
    /// Open for reading.
    streams: HashMap<u32, mpsc::Sender<Piece>>,
    opened: mpsc::Sender<Incoming>,
    out: mpsc::Sender<Frame>,
    last: u32,
}

/// The connection is over.
struct Over;

impl Reader {
    async fn run(mut self, mut wire: WireReader) {
        while let Some(bytes) = wire.read().await {
            self.decoder.push(&bytes);
            loop {
                match self.decoder.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if self.frame(frame).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a client's SPDY connection is closed");
                        let _ =
                            self.out.send(Frame::GoAway { last: self.last, status: PROTOCOL_ERROR }).await;
                        return;
                    }
                }
            }
        }
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Over> {
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => {
                if let Some(stream) = self.streams.get(&id) {
                    // Whoever read this stream may be gone; then the data is nobody's.
                    let taken = bytes.is_empty() || stream.send(Piece::Data(bytes)).await.is_ok();
                    if fin && taken {
                        let _ = stream.send(Piece::End).await;
                    }
                    if fin || !taken {
                        self.streams.remove(&id);
                    }
                }
                Ok(())
            }
            Frame::Reset { id, .. } => {
                if let Some(stream) = self.streams.remove(&id) {
                    let _ = stream.send(Piece::Reset).await;
                }
                Ok(())
            }
            // Clients' pings have odd numbers; even ones would be answers to ours.
            Frame::Ping { id } if id % 2 == 1 => self.send(Frame::Ping { id }).await,
            Frame::Ping { .. } | Frame::GoAway { .. } | Frame::SynReply { .. } | Frame::Ignored { .. } => {
                Ok(())
            }
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), Over> {
        self.streams.retain(|_, stream| !stream.is_closed());
        if id.is_multiple_of(2) || id <= self.last {
            return self.send(Frame::Reset { id, status: PROTOCOL_ERROR }).await;
        }
        self.last = id;
        if self.streams.len() >= SPDY_STREAMS_MAX {
            return self.send(Frame::Reset { id, status: REFUSED_STREAM }).await;
        }
        let (sender, pieces) = mpsc::channel(SPDY_QUEUE);
        if fin {
            let _ = sender.send(Piece::End).await;
        } else {
            self.streams.insert(id, sender);
        }
        self.send(Frame::SynReply { id, fin: false, headers: Headers::default() }).await?;
        let stream = Stream { id, pieces, out: self.out.clone() };
        let handed = tokio::time::timeout(STREAMS_TIME, self.opened.send(Incoming { headers, stream })).await;
        if matches!(handed, Ok(Ok(()))) { Ok(()) } else { Err(Over) }
    }

    async fn send(&self, frame: Frame) -> Result<(), Over> {
        self.out.send(frame).await.map_err(|_| Over)
    }
}
