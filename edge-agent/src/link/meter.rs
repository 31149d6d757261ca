//! Counts what this process sends and gets: the link to the hub, joining, and the images' registries.
//!
//! In: TCP streams. Out: the same streams, counted; sums. The headers of TCP and IPv4 are counted as they mostly are: one of 52
//! bytes for each full segment, an acknowledgement for every second one, seven packets for a beginning and an end.
//! `docs/link.md` says how near that is to a capture. What pods send themselves is not counted.
//! Never: looks at what is sent.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// TCP with time stamps, and IPv4.
const HEAD_BYTES: u64 = 52;
const SEGMENT_BYTES: u64 = 1448;

/// The one meter of this process.
pub static METER: Meter = Meter::new();

pub struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
    /// Somebody wants to know when so much has come together since the last `take`.
    news_at: AtomicU64,
    pub news: Notify,
}

impl Meter {
    const fn new() -> Meter {
        Meter {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            news_at: AtomicU64::new(u64::MAX),
            news: Notify::const_new(),
        }
    }

    /// Bytes of payload that went out, or came in.
    fn count(&self, sent: u64, received: u64) {
        let segments = |bytes: u64| bytes.div_ceil(SEGMENT_BYTES);
        let heads = |own: u64, other: u64| (segments(own) + segments(other).div_ceil(2)) * HEAD_BYTES;
        self.add(sent + heads(sent, received), received + heads(received, sent));
    }

    fn add(&self, sent: u64, received: u64) {
        let before = self.sent.fetch_add(sent, Ordering::Relaxed) + self.received.fetch_add(received, Ordering::Relaxed);
        if before + sent + received >= self.news_at.load(Ordering::Relaxed) {
            self.news.notify_one();
        }
    }

    /// What has come together since the last time: sent and received. `next`: `news` when so much more has.
    pub fn take(&self, next: u64) -> (u64, u64) {
        self.news_at.store(next, Ordering::Relaxed);
        (self.sent.swap(0, Ordering::Relaxed), self.received.swap(0, Ordering::Relaxed))
    }

    /// `news` when so much more has come together.
    pub fn look_again_after(&self, bytes: u64) {
        self.news_at.store(bytes, Ordering::Relaxed);
    }

    pub fn wrap(&'static self, tcp: TcpStream) -> Counted {
        // Three packets to begin, four to end, seen from this side.
        self.add(60 + 3 * HEAD_BYTES, 60 + 2 * HEAD_BYTES);
        Counted { tcp, meter: self }
    }
}

/// A TCP connection whose bytes are counted.
pub struct Counted {
    tcp: TcpStream,
    meter: &'static Meter,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.meter.count(0, read as u64);
        }
        done
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = &done {
            self.meter.count(*n as u64, 0);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    static OWN: Meter = Meter::new();

    #[tokio::test]
    async fn bytes_and_their_headers_are_counted_both_ways() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 76];
            socket.read_exact(&mut asked).await.unwrap();
            socket.write_all(&[7; 10]).await.unwrap();
        });
        OWN.take(1);
        let mut counted = OWN.wrap(TcpStream::connect(address).await.unwrap());
        counted.write_all(&[1; 76]).await.unwrap();
        let mut answer = [0; 10];
        counted.read_exact(&mut answer).await.unwrap();
        server.await.unwrap();
        // A ping and its acknowledgement are 128 and 52 bytes; so is the answer's way back.
        assert_eq!(OWN.take(u64::MAX), (216 + 128 + 52, 164 + 52 + 62));
        OWN.news.notified().await;
        assert_eq!(OWN.take(u64::MAX), (0, 0));
    }
}
