//! One HTTP/1.1 exchange: connect, send a request without a body, read the head of the answer.
//!
//! In: an authority, a TLS choice, a request. Out: a response whose body is read piece by piece, each with a time-out.
//! Never: keeps a connection that was not read to its end.

use super::endpoint::Authority;
use super::tls::TlsChoice;
use super::way::Way;
use crate::link::METER;
use crate::images::limits::{BODY_IDLE_TIMEOUT, CONNECT_TIMEOUT, HEAD_TIMEOUT, SLOW_BYTES_MIN, SLOW_WINDOW};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub type Sender = SendRequest<Full<Bytes>>;

/// Connections that have been read to the end, one per server, for the next request.
pub struct Pool {
    way: Way,
    idle: Mutex<HashMap<Authority, Sender>>,
}

/// The body of an answer, and the connection to give back after it.
pub struct Body {
    incoming: Incoming,
    back: Option<(Authority, Sender)>,
    /// Since when, and how many bytes have come since.
    window: (Instant, u64),
    too_slow: bool,
}

impl Pool {
    pub fn new(way: Way) -> Pool {
        Pool { way, idle: Mutex::default() }
    }

    pub async fn send(
        &self,
        authority: &Authority,
        tls: &TlsChoice,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, String> {
        if let Some(mut sender) = self.take(authority)
            && sender.ready().await.is_ok()
            && let Ok(response) = exchange(authority, sender, request.clone()).await
        {
            return Ok(response);
        }
        let connect = async { handshake(authority, tls, self.way.connect(authority).await?).await };
        let sender = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()))??;
        exchange(authority, sender, request).await
    }

    /// Reads a body to its end; more than `bytes_max` is an error.
    pub async fn read(&self, mut body: Body, bytes_max: usize) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        while let Some(chunk) = body.next().await? {
            if all.len() + chunk.len() > bytes_max {
                return Err(format!("the answer is longer than the {bytes_max} bytes allowed"));
            }
            all.extend_from_slice(&chunk);
        }
        self.give_back(body);
        Ok(all)
    }

    /// After the end of a body.
    pub fn give_back(&self, mut body: Body) {
        if let Some((authority, sender)) = body.back.take() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(authority, sender);
        }
    }

    fn take(&self, authority: &Authority) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(authority)
    }
}

impl Body {
    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(BODY_IDLE_TIMEOUT, self.incoming.frame())
                .await
                .map_err(|_| format!("nothing came for {} seconds", BODY_IDLE_TIMEOUT.as_secs()))?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(format!("the connection broke: {}", chain(&e))),
                Some(Ok(frame)) => {
                    self.count(frame.data_ref().map_or(0, Bytes::len))?;
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Body {
    /// An error when hardly anything has come for a long time.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.window.1 += bytes as u64;
        if self.window.0.elapsed() < SLOW_WINDOW {
            return Ok(());
        }
        let came = std::mem::replace(&mut self.window, (Instant::now(), 0)).1;
        self.too_slow = came < SLOW_BYTES_MIN;
        match self.too_slow {
            true => Err(format!("it is too slow: {came} bytes came in {} seconds", SLOW_WINDOW.as_secs())),
            false => Ok(()),
        }
    }

    /// The last error was about that: asking for the rest at once would bring no more.
    pub fn is_too_slow(&self) -> bool {
        self.too_slow
    }
}

async fn exchange(
    authority: &Authority,
    mut sender: Sender,
    request: Request<Full<Bytes>>,
) -> Result<Response<Body>, String> {
    let response = timeout(HEAD_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| format!("no answer within {} seconds", HEAD_TIMEOUT.as_secs()))?
        .map_err(|e| chain(&e))?;
    let back = Some((authority.clone(), sender));
    Ok(response.map(|incoming| Body { incoming, back, window: (Instant::now(), 0), too_slow: false }))
}

async fn handshake(authority: &Authority, tls: &TlsChoice, stream: TcpStream) -> Result<Sender, String> {
    let _ = stream.set_nodelay(true);
    let stream = METER.wrap(stream);
    let TlsChoice::Config(config) = tls else {
        return start(TokioIo::new(stream)).await;
    };
    let name = rustls::pki_types::ServerName::try_from(authority.host.clone())
        .map_err(|_| format!("{} is no name for a certificate", authority.host))?;
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    let stream = connector.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
    start(TokioIo::new(stream)).await
}

async fn start<S>(stream: TokioIo<S>) -> Result<Sender, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let (sender, connection) =
        builder.max_headers(64).max_buf_size(64 * 1024).handshake(stream).await.map_err(|e| chain(&e))?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// hyper's errors keep their cause to themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
