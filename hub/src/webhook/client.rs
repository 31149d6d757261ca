//! A small HTTP client for what an operator names in a file: webhooks of audit, tokens and rights, OIDC issuers.
//!
//! In: a URL, whom to believe, credentials; a body and a time. Out: the bytes of an answer with status 2xx, or why not.
//! One connection a call. Never: follows a redirect, reads more than `ANSWER_BYTES_MAX`, waits longer than the time.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Answers are reviews, keys and the like.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Trying again may help.
    #[error("{0}")]
    Unreachable(String),
    /// 429 and 5xx may pass; others will not.
    #[error("the server answered with {0}")]
    Status(u16),
}

impl CallError {
    pub fn is_passing(&self) -> bool {
        match self {
            CallError::Unreachable(_) => true,
            CallError::Status(code) => *code == 429 || *code >= 500,
        }
    }
}

/// How the hub shows who it is, beside a certificate.
pub enum Credentials {
    None,
    /// The value of the Authorization header.
    Fixed(HeaderValue),
    /// A token in a file that somebody renews.
    TokenFile(PathBuf),
}

pub struct Client {
    url: Uri,
    /// None: plain HTTP.
    tls: Option<TlsConnector>,
    /// The name in the server's certificate.
    name: String,
    credentials: Credentials,
}

impl Client {
    /// `tls` is for `https`. `name` is another name than the URL's host, when the certificate has another.
    pub fn new(
        url: &str,
        tls: TlsConnector,
        name: Option<&str>,
        credentials: Credentials,
    ) -> Result<Client, String> {
        let url: Uri = url.parse().map_err(|why| format!("the URL {url:?} is malformed: {why}"))?;
        let tls = match url.scheme_str() {
            Some("https") => Some(tls),
            Some("http") => None,
            _ => return Err(format!("the URL {:?} must begin with https:// or http://", url.to_string())),
        };
        let host = url.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
        Ok(Client { url, tls, name: name.map_or(host, str::to_owned), credentials })
    }

    pub async fn post(&self, body: Bytes, time: Duration) -> Result<Bytes, CallError> {
        self.call(Method::POST, body, time).await
    }

    pub async fn get(&self, time: Duration) -> Result<Bytes, CallError> {
        self.call(Method::GET, Bytes::new(), time).await
    }

    async fn call(&self, method: Method, body: Bytes, time: Duration) -> Result<Bytes, CallError> {
        match tokio::time::timeout(time, self.send(method, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.failed("context deadline exceeded")),
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> CallError {
        CallError::Unreachable(format!("{}: {why}", self.url))
    }

    async fn send(&self, method: Method, body: Bytes) -> Result<Bytes, CallError> {
        let host = self.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|why| self.failed(why))?;
        match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(self.name.clone()).map_err(|why| self.failed(why))?;
                let stream = tls.connect(name, stream).await.map_err(|why| self.failed(why))?;
                self.exchange(stream, method, body).await
            }
            None => self.exchange(stream, method, body).await,
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|why| self.failed(why))?;
        // It ends with the sender.
        let connection = tokio::spawn(connection);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "limpet-hub");
        match &self.credentials {
            Credentials::None => {}
            Credentials::Fixed(value) => request = request.header(header::AUTHORIZATION, value),
            Credentials::TokenFile(path) => {
                let token = std::fs::read_to_string(path).map_err(|why| self.failed(why))?;
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
            }
        }
        let request = request.body(Full::new(body)).map_err(|why| self.failed(why))?;
        let answer = sender.send_request(request).await.map_err(|why| self.failed(why))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        if !status.is_success() {
            return Err(CallError::Status(status.as_u16()));
        }
        Ok(body.map_err(|why| self.failed(why))?.to_bytes())
    }
}
