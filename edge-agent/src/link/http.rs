//! One HTTP request and its answer over TCP or TLS, bounded in time and bytes.
//!
//! In: an address, a request. Out: status and body. Never: follows redirects, keeps connections, reads without end.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{io::Error, sync::Arc, time::Duration};
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// `target` is `host:port`; IPv6 addresses stand in brackets.
pub async fn send(
    target: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
    timeout: Duration,
) -> Result<Answer, Error> {
    let talk = async {
        let tcp = TcpStream::connect(target).await?;
        let _ = tcp.set_nodelay(true);
        match tls {
            None => exchange(TokioIo::new(tcp), request, body_bytes_max).await,
            Some(config) => {
                let host = host_of(target);
                let name = ServerName::try_from(host.to_string()).map_err(Error::other)?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
                exchange(TokioIo::new(stream), request, body_bytes_max).await
            }
        }
    };
    tokio::time::timeout(timeout, talk).await.unwrap_or_else(|_| {
        let text = format!("no answer from {target} in {} s", timeout.as_secs());
        Err(Error::new(std::io::ErrorKind::TimedOut, text))
    })
}

async fn exchange<T>(io: TokioIo<T>, request: Request<Full<Bytes>>, limit: usize) -> Result<Answer, Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(Error::other)?;
    let connection = tokio::spawn(connection);
    let result = async {
        let answer = sender.send_request(request).await.map_err(Error::other)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map(|b| b.to_bytes()).map_err(|e| Error::other(e.to_string()))?;
        Ok(Answer { status, body })
    };
    let result = result.await;
    connection.abort();
    result
}

/// The host of `host:port`, without brackets.
pub fn host_of(target: &str) -> &str {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The port of `host:port`.
pub fn port_of(target: &str) -> Option<u16> {
    target.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}
