//! gRPC over one HTTP/2 connection: a question and an answer, or one question and a stream of answers.
//!
//! In: an endpoint, messages. Out: messages, or why not and whether it may have happened after all.
//! Source: gRPC over HTTP2 (length-prefixed messages, `grpc-status` in the trailers). Never: compression, retries.

use super::EtcdOptions;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::http2,
    http::HeaderMap,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::pki_types::ServerName;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// One message. etcd takes requests up to 1.5 MiB by default; a page of a range is many objects.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Not below five seconds: etcd ends connections that ping more often.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME: Duration = Duration::from_secs(5);
const WINDOW_BYTES: u32 = 1024 * 1024;

/// gRPC's codes that tell that a request was refused before it did anything.
const REFUSED: [u32; 8] = [3, 5, 7, 8, 9, 11, 12, 16];

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// etcd's own answer.
    #[error("etcd says: {message}")]
    Status { code: u32, message: String },
    #[error("{0}")]
    Transport(String),
}

impl CallError {
    /// Whether it is certain that the request did nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, CallError::Status { code, .. } if REFUSED.contains(code))
    }
}

fn transport(what: &str, why: impl std::fmt::Display) -> CallError {
    CallError::Transport(format!("{what}: {why}"))
}

/// A request's body: one message; a stream's stays open behind it.
pub(super) struct Question {
    message: Option<Bytes>,
    stays_open: bool,
}

impl Body for Question {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.message.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            // Nothing will ever wake this; the stream ends when the answer is dropped.
            None if self.stays_open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.stays_open
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Channel {
    sender: http2::SendRequest<Question>,
    base: String,
}

impl Channel {
    pub async fn connect(options: &EtcdOptions, turn: usize) -> Result<Channel, CallError> {
        let (host, port) = &options.endpoints[turn % options.endpoints.len()];
        let at = format!("{host}:{port}");
        let connecting = timeout(CONNECT_TIME, Channel::open(options, host, *port));
        match connecting.await {
            Ok(outcome) => outcome.map_err(|e| transport(&at, e)),
            Err(_) => Err(transport(&at, format!("no connection within {} s", CONNECT_TIME.as_secs()))),
        }
    }

    async fn open(options: &EtcdOptions, host: &str, port: u16) -> Result<Channel, CallError> {
        let wrong = |e: &dyn std::fmt::Display| CallError::Transport(e.to_string());
        let socket = TcpStream::connect((host, port)).await.map_err(|e| wrong(&e))?;
        socket.set_nodelay(true).map_err(|e| wrong(&e))?;
        let (stream, scheme): (Box<dyn Stream>, _) = match &options.tls {
            None => (Box::new(socket), "http"),
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|e| wrong(&e))?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                (Box::new(connector.connect(name, socket).await.map_err(|e| wrong(&e))?), "https")
            }
        };
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| wrong(&e))?;
        tokio::spawn(async move {
            // What goes wrong here is seen by whoever waits for an answer.
            let _ = connection.await;
        });
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Channel { sender, base: format!("{scheme}://{bracketed}:{port}") })
    }

    async fn send(
        &self,
        path: &str,
        message: &impl Message,
        stays_open: bool,
    ) -> Result<Response<Incoming>, CallError> {
        let mut framed = BytesMut::with_capacity(message.encoded_len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).map_err(|e| transport("a message", e))?);
        message.encode(&mut framed).map_err(|e| transport("a message", e))?;
        let request = Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            // A member that lost its cluster says so instead of being silent.
            .header("hasleader", "true")
            .body(Question { message: Some(framed.freeze()), stays_open })
            .map_err(|e| transport("a request", e))?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|e| transport("the connection to etcd is closed", e))?;
        let response = sender.send_request(request).await.map_err(|e| transport("the connection to etcd broke", e))?;
        if response.status() != 200 {
            return Err(transport("the answer is not etcd's", response.status()));
        }
        status(response.headers())?;
        Ok(response)
    }

    /// One question, one answer.
    pub async fn ask<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        time: Duration,
    ) -> Result<A, CallError> {
        let answer = async {
            let mut answers = Answers { body: self.send(path, message, false).await?.into_body(), read: BytesMut::new() };
            let answer = answers.next::<A>().await?.ok_or_else(|| transport("etcd", "the answer is empty"))?;
            // The status stands behind the message.
            while answers.next::<A>().await?.is_some() {}
            Ok(answer)
        };
        match timeout(time, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(transport("etcd", format!("no answer within {} s", time.as_secs()))),
        }
    }

    /// One question, many answers; ends when the answers are dropped.
    pub async fn stream(&self, path: &str, message: &impl Message) -> Result<Answers, CallError> {
        let response = self.send(path, message, true);
        let response = timeout(CONNECT_TIME, response).await;
        let response = response.map_err(|_| transport("etcd", "no answer to the start of a watch"))??;
        Ok(Answers { body: response.into_body(), read: BytesMut::new() })
    }
}

/// The messages of an answer.
pub(super) struct Answers {
    body: Incoming,
    read: BytesMut,
}

impl Answers {
    /// `None`: it ended well. May be dropped while it waits; nothing is lost.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.take()? {
                return A::decode(message).map(Some).map_err(|e| transport("an answer of etcd cannot be read", e));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(transport("the connection to etcd broke", e)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => frame.trailers_ref().map_or(Ok(()), status)?,
                },
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(head) = self.read.first_chunk::<5>() else { return Ok(None) };
        let bytes = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || bytes > MESSAGE_BYTES_MAX {
            return Err(transport("an answer of etcd", "it is compressed or too large"));
        }
        if self.read.len() < 5 + bytes {
            return Ok(None);
        }
        self.read.advance(5);
        Ok(Some(self.read.split_to(bytes).freeze()))
    }
}

/// Zero, or the error that it stands for.
fn status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(code) = text("grpc-status") else { return Ok(()) };
    match code.parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(CallError::Status { code, message: text("grpc-message").unwrap_or("no reason").into() }),
        Err(_) => Err(transport("etcd", "the status of an answer is not a number")),
    }
}
