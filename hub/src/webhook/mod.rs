//! The hub as a client of webhooks: admission and conversion.
//!
//! In: a `clientConfig`, a review, a time. Out: the reviewed review, or why there is none.
//! A URL is reached from the hub's own network; a Service through the link to the node of one of its ready pods, as
//! the hub needs no place in the pods' network.
//! Never: trusts a certificate that `caBundle` does not vouch for; follows redirects; waits longer than the time.

pub mod client;
pub mod kubeconfig;
pub mod tls;

use crate::{
    api::{Api, proxy},
    streaming,
};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// An answer holds at most an object and a patch of it.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where a webhook is.
struct Place {
    host: String,
    port: u16,
    path: String,
    /// Namespace, name and port of a Service.
    service: Option<(String, String, u16)>,
}

/// Sends a review and reads the answer, all within `time`.
pub async fn call(api: &Arc<Api>, config: &Value, review: &Value, time: Duration) -> Result<Value, String> {
    let place = place(config, time)?;
    let shown = format!("https://{}:{}{}", place.host, place.port, place.path);
    match tokio::time::timeout(time, send(api, config, &place, review)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(format!("failed to call webhook: Post {shown:?}: {why}")),
        Err(_) => Err(format!(
            "failed to call webhook: Post {shown:?}: context deadline exceeded"
        )),
    }
}

fn place(config: &Value, time: Duration) -> Result<Place, String> {
    let query = format!("?timeout={}s", time.as_secs().max(1));
    if let Some(url) = config["url"].as_str() {
        let uri: http::Uri = url
            .parse()
            .map_err(|why| format!("the webhook's URL is malformed: {why}"))?;
        let host = uri
            .host()
            .ok_or("the webhook's URL has no host")?
            .trim_matches(['[', ']'])
            .to_owned();
        let path = format!("{}{query}", if uri.path().is_empty() { "/" } else { uri.path() });
        return Ok(Place {
            host,
            port: uri.port_u16().unwrap_or(443),
            path,
            service: None,
        });
    }
    let service = &config["service"];
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(443);
    let path = match text("path") {
        empty if empty.is_empty() => format!("/{query}"),
        path => format!("{path}{query}"),
    };
    Ok(Place {
        host: format!("{name}.{namespace}.svc"),
        port,
        path,
        service: Some((namespace, name, port)),
    })
}

async fn send(api: &Arc<Api>, config: &Value, place: &Place, review: &Value) -> Result<Value, String> {
    let tls = trust(config)?;
    let name = ServerName::try_from(place.host.clone()).map_err(|why| why.to_string())?;
    match &place.service {
        Some((namespace, service, port)) => {
            let route =
                proxy::service_route(api, namespace, service, *port).map_err(|status| status.message)?;
            let streams = crate::api::subresources::streams(api).map_err(|status| status.message)?;
            let stream = streaming::dial(&route.place, route.port, &streams).await;
            let stream = stream.map_err(|why| why.to_string())?;
            let stream = tls.connect(name, stream).await.map_err(|why| why.to_string())?;
            exchange(stream, place, review).await
        }
        None => {
            let stream = TcpStream::connect((place.host.as_str(), place.port)).await;
            let stream = stream.map_err(|why| format!("dial tcp: {why}"))?;
            let stream = tls.connect(name, stream).await.map_err(|why| why.to_string())?;
            exchange(stream, place, review).await
        }
    }
}

/// Nobody but the bundle's authorities.
fn trust(config: &Value) -> Result<TlsConnector, String> {
    let bundle = config["caBundle"].as_str().unwrap_or_default();
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bundle)
        .map_err(|why| format!("caBundle: {why}"))?;
    let roots = tls::roots(&pem).map_err(|why| format!("caBundle: {why}"))?;
    if roots.is_empty() {
        return Err("x509: certificate signed by unknown authority (caBundle is empty, and this hub trusts nobody else)".into());
    }
    tls::connector(roots, None)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    review: &Value,
) -> Result<Value, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|why| why.to_string())?;
    // It ends with the sender.
    let connection = tokio::spawn(connection);
    let body = Bytes::from(review.to_string());
    let request = Request::post(&place.path)
        .header(header::HOST, format!("{}:{}", place.host, place.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "limpet-hub-admission")
        .body(Full::new(body))
        .map_err(|why| why.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|why| why.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    if status != http::StatusCode::OK {
        return Err(format!("the server answered with {status}"));
    }
    let bytes = body.map_err(|why| why.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|why| format!("the answer is no JSON: {why}"))
}
