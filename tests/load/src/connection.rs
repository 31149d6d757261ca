//! One HTTPS connection and its requests.
//!
//! In: an `Access`. Out: answers, whole or as they come. Clones of an HTTP/2 connection share it.
//! Never: an answer of a failure that nobody notices: who asks says which codes are good.

use crate::access::Access;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;

pub const JSON: &str = "application/json";

/// Streams on one HTTP/2 connection; an API server allows 250 or less.
pub const STREAMS: usize = 100;

#[derive(Clone)]
struct Common {
    host: HeaderValue,
    authority: String,
    token: Option<HeaderValue>,
}

pub struct Connection {
    common: Common,
    way: Way,
}

enum Way {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub async fn open(access: &Access) -> Result<Connection, String> {
        let authority = format!("{}:{}", access.host, access.port);
        let wrong = |e: &dyn std::fmt::Display| format!("{authority}: {e}");
        let socket = TcpStream::connect((access.host.as_str(), access.port)).await.map_err(|e| wrong(&e))?;
        socket.set_nodelay(true).map_err(|e| wrong(&e))?;
        let name = ServerName::try_from(access.host.clone()).map_err(|e| wrong(&e))?;
        let mut tls = (*access.tls).clone();
        tls.alpn_protocols = vec![if access.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let io = TokioIo::new(connector.connect(name, socket).await.map_err(|e| wrong(&e))?);
        // What goes wrong with a connection is seen by whoever asks on it.
        let way = if access.http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(|e| wrong(&e))?;
            tokio::spawn(async move { drop(connection.await) });
            Way::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(|e| wrong(&e))?;
            tokio::spawn(async move { drop(connection.await) });
            Way::One(sender)
        };
        let host = HeaderValue::try_from(&authority).map_err(|e| wrong(&e))?;
        let token = access.token.as_ref().map(|t| HeaderValue::try_from(format!("Bearer {t}")));
        let token = token.transpose().map_err(|e| wrong(&e))?;
        Ok(Connection { common: Common { host, authority, token }, way })
    }

    /// As many as there are clients; over HTTP/2 several of them share one.
    pub async fn many(access: &Access, clients: usize) -> Result<Vec<Connection>, String> {
        let mut all: Vec<Connection> = Vec::with_capacity(clients);
        for at in 0..clients {
            let shared = if access.http2 && at % STREAMS != 0 { all.last().and_then(Connection::share) } else { None };
            all.push(match shared {
                Some(connection) => connection,
                None => Connection::open(access).await?,
            });
        }
        Ok(all)
    }

    fn share(&self) -> Option<Connection> {
        let Way::Two(sender) = &self.way else { return None };
        Some(Connection { common: self.common.clone(), way: Way::Two(sender.clone()) })
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(&mut self, ask: Ask<'_>) -> Result<Response<Incoming>, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{} {}: {e}", ask.method, ask.path);
        let http2 = matches!(self.way, Way::Two(_));
        let uri = if http2 { format!("https://{}{}", self.common.authority, ask.path) } else { ask.path.to_owned() };
        let mut request = Request::builder().method(&ask.method).uri(uri).header(header::ACCEPT, ask.accept);
        if !http2 {
            request = request.header(header::HOST, &self.common.host);
        }
        if let Some(token) = &self.common.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if ask.gzip {
            request = request.header(header::ACCEPT_ENCODING, "gzip");
        }
        if !ask.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, ask.content_type);
        }
        let request = request.header(header::USER_AGENT, "limpet-load").body(Full::new(ask.body.clone()));
        let request = request.map_err(|e| wrong(&e))?;
        let answer = match &mut self.way {
            // It may still be busy with the end of the last answer.
            Way::One(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            },
            Way::Two(sender) => sender.send_request(request).await,
        };
        answer.map_err(|e| wrong(&e))
    }

    /// Sends a request, reads the whole answer, and takes any code that is no success for an error.
    pub async fn ask(&mut self, ask: Ask<'_>) -> Result<Bytes, String> {
        let what = (ask.method.clone(), ask.path.to_owned());
        match self.try_ask(ask).await? {
            (code, body) if (200..300).contains(&code) => Ok(body),
            (code, body) => {
                Err(format!("{} {}: {code} {}", what.0, what.1, String::from_utf8_lossy(&body[..body.len().min(500)])))
            }
        }
    }

    pub async fn try_ask(&mut self, ask: Ask<'_>) -> Result<(u16, Bytes), String> {
        let path = ask.path.to_owned();
        let answer = self.send(ask).await?;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|e| format!("{path}: {e}"))?;
        Ok((code, body.to_bytes()))
    }
}

pub struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub accept: &'a str,
    pub gzip: bool,
    pub content_type: &'a str,
    pub body: Bytes,
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask::new(Method::GET, path, Bytes::new())
    }

    pub fn new(method: Method, path: &'a str, body: impl Into<Bytes>) -> Ask<'a> {
        Ask { method, path, accept: JSON, gzip: false, content_type: JSON, body: body.into() }
    }
}
