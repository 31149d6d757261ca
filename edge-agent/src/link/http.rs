//! One HTTP request and its answer over TCP or TLS, bounded in time and bytes.
//!
//! In: an address, a request. Out: status, body and where a redirect leads. Never: follows redirects, keeps connections,
//! reads without end.

use super::{meter::METER, road};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{io::Error, sync::Arc, time::Duration};

pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    /// The header `Location`, as it stands there.
    pub location: Option<String>,
}

/// How much of a body is wanted, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// All of it; a longer one is an error.
    Whole(usize),
    /// Its beginning; what comes after is not read.
    Beginning(usize),
}

/// `target` is `host:port`; IPv6 addresses stand in brackets. A proxy only carries what it cannot read.
pub async fn send(
    (target, proxy): (&str, Option<&road::Proxy>),
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Request<Full<Bytes>>,
    wanted: Body,
    timeout: Duration,
) -> Result<Answer, Error> {
    let talk = async {
        let tcp = road::connect(host_of(target), port_of(target).unwrap_or(443), proxy).await?;
        let _ = tcp.set_nodelay(true);
        let tcp = METER.wrap(tcp);
        match tls {
            None => exchange(TokioIo::new(tcp), request, wanted).await,
            Some(config) => {
                let host = host_of(target);
                let name = ServerName::try_from(host.to_string()).map_err(Error::other)?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
                exchange(TokioIo::new(stream), request, wanted).await
            }
        }
    };
    tokio::time::timeout(timeout, talk).await.unwrap_or_else(|_| {
        let text = format!("no answer from {target} in {} s", timeout.as_secs());
        Err(Error::new(std::io::ErrorKind::TimedOut, text))
    })
}

async fn exchange<T>(io: TokioIo<T>, request: Request<Full<Bytes>>, wanted: Body) -> Result<Answer, Error>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(Error::other)?;
    let connection = tokio::spawn(connection);
    let result = async {
        let answer = sender.send_request(request).await.map_err(Error::other)?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(hyper::header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(String::from);
        let body = match wanted {
            Body::Whole(limit) => {
                let body = Limited::new(answer.into_body(), limit).collect().await;
                body.map(|b| b.to_bytes()).map_err(|e| Error::other(e.to_string()))?
            }
            Body::Beginning(limit) => beginning(answer.into_body(), limit).await?,
        };
        Ok(Answer { status, body, location })
    };
    let result = result.await;
    connection.abort();
    result
}

async fn beginning(mut body: hyper::body::Incoming, limit: usize) -> Result<Bytes, Error> {
    let mut read = Vec::new();
    while read.len() < limit {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(Error::other)?.into_data() {
            read.extend_from_slice(&data[..data.len().min(limit - read.len())]);
        }
    }
    Ok(read.into())
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
