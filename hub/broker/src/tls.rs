//! TLS for connections that are quiet for days: what is not under way holds no buffer.
//!
//! In: a socket, the hub's TLS settings. Out: a stream of plain bytes, and who is at its other end. The protocol is rustls' own,
//! by its interface without buffers; here are only the bytes on their way. Its other interface keeps four KiB a connection for
//! the next read, and there are as many connections as boards.
//! Never: more than one write ahead of the socket, or more of a client than a handshake may need (`RECORDS_BYTES_MAX`).

use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As rustls has it for its own buffer: a handshake's message, such as a chain of certificates.
const RECORDS_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4096;
/// Plain bytes of one record.
const RECORD_BYTES: usize = 16 * 1024;
/// What a record adds, at most.
const RECORD_HEAD_BYTES: usize = 64;

pub(crate) struct Tls<S> {
    io: S,
    session: UnbufferedServerConnection,
    /// Records that are not whole yet.
    came: Vec<u8>,
    plain: Bytes,
    /// Encrypted, and not taken by the socket yet.
    goes: Bytes,
    /// Somebody waits until that is taken, and must stay who asked the socket last: it wakes nobody else.
    writes: bool,
    /// The protocol was broken, by whom ever: rustls is not asked again.
    failed: bool,
    /// The client has said that nothing more comes.
    closed: bool,
    said_goodbye: bool,
}

/// Bytes that are taken from their front; without memory when there are none.
#[derive(Default)]
struct Bytes {
    all: Vec<u8>,
    taken: usize,
}

impl Bytes {
    fn rest(&self) -> &[u8] {
        &self.all[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.all.len() {
            *self = Bytes::default();
        }
    }

    /// Appends what `fill` writes into room of that size; it may ask once for more.
    fn append<E>(&mut self, room: usize, mut fill: impl FnMut(&mut [u8]) -> Result<usize, Need<E>>) -> Result<(), E> {
        let start = self.all.len();
        self.all.resize(start + room, 0);
        loop {
            match fill(&mut self.all[start..]) {
                Ok(written) => {
                    self.all.truncate(start + written);
                    return Ok(());
                }
                Err(Need::Room(bytes)) if start + bytes > self.all.len() => self.all.resize(start + bytes, 0),
                Err(Need::Room(_)) => {
                    self.all.truncate(start);
                    return Ok(());
                }
                Err(Need::Other(error)) => {
                    self.all.truncate(start);
                    return Err(error);
                }
            }
        }
    }
}

enum Need<E> {
    Room(usize),
    Other(E),
}

/// What is to be said as soon as it can be.
enum Say<'b> {
    Nothing,
    Data(&'b [u8]),
    Goodbye,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tls<S> {
    /// Ends once both sides have finished the handshake.
    pub async fn accept(config: Arc<ServerConfig>, io: S) -> io::Result<Tls<S>> {
        let session = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (came, plain, goes) = (Vec::new(), Bytes::default(), Bytes::default());
        let mut tls = Tls { io, session, came, plain, goes, writes: false, failed: false, closed: false, said_goodbye: false };
        std::future::poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(tls)
    }

    /// Of the client; the first is its own.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.session.peer_certificates().unwrap_or_default()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.advance(cx, Say::Nothing)?;
            let sent = self.poll_send(cx)?;
            // That the hub may send is not enough: the client's certificate comes after that.
            if !self.session.is_handshaking() {
                // Tickets that the socket has no room for yet go with what is read or written next.
                return Poll::Ready(Ok(()));
            }
            ready!(sent);
            ready!(self.poll_fill(cx))?;
        }
    }

    /// As `process`; a client hears why it failed, if its socket takes that at once.
    fn advance(&mut self, cx: &mut Context<'_>, say: Say<'_>) -> io::Result<usize> {
        if self.failed {
            return Err(broken("the connection has failed"));
        }
        let outcome = self.process(say);
        if outcome.is_err() {
            self.failed = true;
            self.last_words();
            let _ = self.poll_send(cx);
        }
        outcome
    }

    /// The alert, after a failure; what came with it is not looked at any more.
    fn last_words(&mut self) {
        let Tls { session, came, goes, .. } = self;
        while session.wants_write() {
            match session.process_tls_records(came).state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if goes.append(0, |room| data.encode(room).map_err(encoded)).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        *came = Vec::new();
    }

    /// Takes in what came, and says something when the protocol is so far. How many bytes of it were taken.
    fn process(&mut self, mut say: Say<'_>) -> io::Result<usize> {
        let Tls { session, came, plain, goes, closed, .. } = self;
        let mut said = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = session.process_tls_records(came);
            let mut done = false;
            match state.map_err(broken)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        plain.all.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    goes.append(0, |room| data.encode(room).map_err(encoded)).map_err(broken)?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => match std::mem::replace(&mut say, Say::Nothing) {
                    Say::Nothing => done = true,
                    Say::Data(data) => {
                        let data = &data[..data.len().min(RECORD_BYTES)];
                        let encrypt = |room: &mut [u8]| traffic.encrypt(data, room).map_err(encrypted);
                        goes.append(data.len() + RECORD_HEAD_BYTES, encrypt).map_err(broken)?;
                        said = data.len();
                    }
                    Say::Goodbye => {
                        let encrypt = |room: &mut [u8]| traffic.queue_close_notify(room).map_err(encrypted);
                        goes.append(RECORD_HEAD_BYTES, encrypt).map_err(broken)?;
                    }
                },
                ConnectionState::PeerClosed => *closed = true,
                ConnectionState::Closed => (*closed, done) = (true, true),
                // More of the handshake has to come. Early data is not allowed by the hub's settings.
                _ => done = true,
            }
            came.drain(..discard.min(came.len()));
            if came.is_empty() {
                *came = Vec::new();
            }
            if done {
                return Ok(said);
            }
        }
    }

    /// Until the socket has taken everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = loop {
            if self.goes.rest().is_empty() {
                break Ok(());
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, self.goes.rest())) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.goes.take(written),
                Err(error) => break Err(error),
            }
        };
        Poll::Ready(sent)
    }

    /// As `poll_send`, for who has something to write.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(cx);
        self.writes = sent.is_pending();
        sent
    }

    /// Some bytes of the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let mut into = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
        if into.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if self.came.len() + into.filled().len() > RECORDS_BYTES_MAX {
            return Poll::Ready(Err(broken("a message of the handshake is too long")));
        }
        self.came.extend_from_slice(into.filled());
        Poll::Ready(Ok(()))
    }
}

fn encoded(error: EncodeError) -> Need<EncodeError> {
    match error {
        EncodeError::InsufficientSize(need) => Need::Room(need.required_size),
        other => Need::Other(other),
    }
}

fn encrypted(error: EncryptError) -> Need<EncryptError> {
    match error {
        EncryptError::InsufficientSize(need) => Need::Room(need.required_size),
        other => Need::Other(other),
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tls<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        loop {
            let rest = tls.plain.rest();
            if !rest.is_empty() {
                let count = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..count]);
                tls.plain.take(count);
                return Poll::Ready(Ok(()));
            }
            if tls.closed {
                return Poll::Ready(Ok(()));
            }
            // Answers of the protocol's own; should the socket be full, the reader goes on all the same.
            if !tls.writes && let Poll::Ready(Err(error)) = tls.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(tls.poll_fill(cx))?;
            tls.advance(cx, Say::Nothing)?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tls<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let tls = self.get_mut();
        ready!(tls.poll_sent(cx))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = tls.advance(cx, Say::Data(buf))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // What does not fit now goes with the next write or flush.
        if let Poll::Ready(Err(error)) = tls.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        ready!(tls.poll_sent(cx))?;
        Pin::new(&mut tls.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        if !std::mem::replace(&mut tls.said_goodbye, true) && !tls.failed {
            tls.advance(cx, Say::Goodbye)?;
        }
        ready!(tls.poll_sent(cx))?;
        Pin::new(&mut tls.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
