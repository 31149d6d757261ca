//! One HTTP/1.1 request over a stream to a pod, and its answer.
//!
//! In: the stream, the request as it came. Out: the pod's answer; after a 101 both sides are joined.
//! Never: the caller's token, or headers that belong to one hop only.

use super::{rewrite, unreachable};
use crate::api::{Body, Reply, dispatch::Input};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, BodyStream};
use hyper::{
    body::Incoming,
    client::conn::http1,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use limpet_objects::status::Status;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

/// A page in which links are rewritten is held as a whole; longer ones go as they are.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// They are about this connection, or they prove who the caller is to us alone.
const NOT_SENT_ON: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

pub async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    front: &str,
    path: &str,
    input: Input,
) -> Result<Reply, Status> {
    let Input { mut parts, body, .. } = input;
    let Some(body) = body.take() else { return Err(Status::internal("the request's body is gone")) };
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| wants_upgrade(&parts.headers));
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let request = forwarded(parts, front, path, &host, upgrade.is_some(), body)?;
    let (mut sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(why) => return Ok(unreachable(&why.to_string())),
    };
    // Its end is the end of the answer's body, which says what went wrong.
    tokio::spawn(connection.with_upgrades());
    let mut response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(why) => return Ok(unreachable(&why.to_string())),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switched(&mut response, upgrade));
    }
    clean(response.headers_mut(), false);
    rewrite_location(response.headers_mut(), front, &host);
    if is_page(response.headers()) { page(response, front, &host).await } else { Ok(response.map(flow)) }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get(header::CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    headers.contains_key(header::UPGRADE) && connection.to_ascii_lowercase().contains("upgrade")
}

fn forwarded(
    mut parts: Parts,
    front: &str,
    path: &str,
    host: &str,
    upgrade: bool,
    body: Incoming,
) -> Result<Request<Incoming>, Status> {
    let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let uri: Uri = format!("{path}{query}").parse().map_err(|_| Status::bad_request("the path is malformed"))?;
    clean(&mut parts.headers, upgrade);
    parts.headers.retain_not_impersonation();
    for (name, value) in [
        ("host", host),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-uri", &format!("{front}{path}")),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.insert(HeaderName::from_static(name), value);
        }
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers;
    Ok(request)
}

/// Headers that ask to be somebody else are for us alone.
trait Impersonation {
    fn retain_not_impersonation(&mut self);
}

impl Impersonation for HeaderMap {
    fn retain_not_impersonation(&mut self) {
        let names: Vec<HeaderName> = self.keys().filter(|n| n.as_str().starts_with("impersonate-")).cloned().collect();
        for name in names {
            self.remove(name);
        }
    }
}

fn clean(headers: &mut HeaderMap, keep_upgrade: bool) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| name != "upgrade" && name != "close")
        .collect();
    NOT_SENT_ON.iter().for_each(|name| drop(headers.remove(name)));
    named.iter().for_each(|name| drop(headers.remove(name.as_str())));
    if !keep_upgrade {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
}

/// Joins the two connections once both have switched.
fn switched(response: &mut Response<Incoming>, client: Option<OnUpgrade>) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = std::mem::take(response.headers_mut());
    let Some(client) = client else { return unreachable("it switches protocols without being asked") };
    let pod = upgrade::on(response);
    tokio::spawn(async move {
        let (Ok(client), Ok(pod)) = (client.await, pod.await) else { return };
        // Either side may go at any time.
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(pod)).await;
    });
    reply
}

fn flow(body: Incoming) -> Body {
    Body::flow(data(body))
}

fn data(body: Incoming) -> impl Stream<Item = Bytes> + Send + 'static {
    // An answer that breaks off ends here; its length shows the client that it is not whole.
    BodyStream::new(body).filter_map(|frame| async { frame.ok()?.into_data().ok() })
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/html") && !headers.contains_key(header::CONTENT_ENCODING)
}

async fn page(response: Response<Incoming>, front: &str, host: &str) -> Result<Reply, Status> {
    let (mut parts, mut body) = response.into_parts();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Some(bytes) = frame.ok().and_then(|f| f.into_data().ok()) else { continue };
        all.extend_from_slice(&bytes);
        if all.len() > PAGE_BYTES_MAX {
            let rest = stream::once(async { all.freeze() }).chain(data(body));
            return Ok(Response::from_parts(parts, Body::flow(rest)));
        }
    }
    let Ok(text) = std::str::from_utf8(&all) else {
        return Ok(Response::from_parts(parts, Body::full(all.freeze())));
    };
    let rewritten = rewrite::page(text, front, host);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::full(rewritten)))
}

fn rewrite_location(headers: &mut HeaderMap, front: &str, host: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) else { return };
    if let Ok(value) = HeaderValue::from_str(&rewrite::link(location, front, host)) {
        headers.insert(header::LOCATION, value);
    }
}
