//! The handshake: which upgrade a client asks for, and the answer to it.
//!
//! In: the head of a request, the protocols that an endpoint speaks. Out: the chosen protocol, the 101
//! answer and the connection to come; or a metav1.Status.
//! Never: answers 101 before the caller has what it needs (the node's stream is open by then).

use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use limpet_objects::status::Status;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::wire::Io;
use crate::audit::Trail;
use std::sync::Arc;

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Protocols of one request that are looked at.
const OFFERS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Spdy,
}

/// A request that can be upgraded, before the answer.
pub struct Offer {
    pub transport: Transport,
    /// Empty when the client named none.
    pub protocol: &'static str,
    accept_key: String,
    upgrade: OnUpgrade,
    trail: Option<Arc<Trail>>,
}

/// The protocols of an endpoint, best first. An empty name stands for clients that name none.
pub struct Speaks {
    pub websocket: &'static [&'static str],
    pub spdy: &'static [&'static str],
}

/// Reads the offer. The first protocol of the client's that the endpoint speaks is taken.
pub fn negotiate(parts: &mut Parts, speaks: &Speaks) -> Result<Offer, Status> {
    let headers = &parts.headers;
    let wants = tokens(headers, &UPGRADE);
    let asks = tokens(headers, &CONNECTION).iter().any(|t| t.eq_ignore_ascii_case("upgrade"));
    let transport = match wants.first() {
        Some(t) if asks && t.eq_ignore_ascii_case("websocket") => Transport::WebSocket,
        Some(t) if asks && t.eq_ignore_ascii_case(SPDY) => Transport::Spdy,
        _ => return Err(Status::bad_request("Upgrade request required")),
    };
    let (name, spoken) = match transport {
        Transport::WebSocket => (&SEC_WEBSOCKET_PROTOCOL, speaks.websocket),
        Transport::Spdy => (&STREAM_PROTOCOL, speaks.spdy),
    };
    let protocol = choose(&tokens(headers, name), spoken)?;
    let accept_key = if transport == Transport::WebSocket { websocket_key(headers)? } else { String::new() };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade =
        upgrade.ok_or_else(|| Status::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    let trail = parts.extensions.remove::<Arc<Trail>>();
    Ok(Offer { transport, protocol, accept_key, upgrade, trail })
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty()).take(OFFERS_MAX).collect()
}

fn choose(offered: &[&str], spoken: &'static [&'static str]) -> Result<&'static str, Status> {
    // A token may travel as a protocol of its own; it is not one.
    let offered: Vec<&&str> =
        offered.iter().filter(|o| !o.starts_with("base64url.bearer.authorization.k8s.io.")).collect();
    if offered.is_empty()
        && let Some(unnamed) = spoken.iter().find(|s| s.is_empty())
    {
        return Ok(unnamed);
    }
    let found = offered.iter().find_map(|o| spoken.iter().find(|s| s.eq_ignore_ascii_case(o)));
    found.copied().ok_or_else(|| {
        let list = |all: Vec<&str>| all.join(", ");
        let client = list(offered.iter().map(|o| **o).collect());
        let server = list(spoken.iter().copied().filter(|s| !s.is_empty()).collect());
        Status::bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{client}], server accepts \
                [{server}]"
        ))
    })
}

fn websocket_key(headers: &HeaderMap) -> Result<String, Status> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v.as_bytes() != b"13") {
        return Err(Status::bad_request("unable to upgrade: Sec-WebSocket-Version must be 13"));
    }
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) if !key.is_empty() => Ok(derive_accept_key(key.as_bytes())),
        _ => Err(Status::bad_request("unable to upgrade: Sec-WebSocket-Key is missing")),
    }
}

impl Offer {
    /// The 101 answer, and the connection that there will be once it is sent.
    pub fn accept(self) -> (Response<()>, Pending) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let protocol = HeaderValue::from_static(self.protocol);
        match self.transport {
            Transport::WebSocket => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                // Base64 text is always a header value.
                if let Ok(key) = HeaderValue::from_str(&self.accept_key) {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
                }
                if !self.protocol.is_empty() {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
                }
            }
            Transport::Spdy => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                if !self.protocol.is_empty() {
                    headers.insert(STREAM_PROTOCOL, protocol);
                }
            }
        }
        (response, Pending { upgrade: self.upgrade, trail: self.trail })
    }
}

pub struct Pending {
    upgrade: OnUpgrade,
    trail: Option<Arc<Trail>>,
}

impl Pending {
    /// The request's record in the audit log ends when this is dropped.
    pub fn record(&mut self) -> Option<Arc<Trail>> {
        self.trail.take()
    }

    /// The connection; None when the client left before.
    pub async fn connection(self) -> Option<Io> {
        match self.upgrade.await {
            Ok(upgraded) => Some(TokioIo::new(upgraded)),
            Err(error) => {
                tracing::debug!(%error, "a client left during its upgrade");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKS: Speaks =
        Speaks { websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io", ""], spdy: &["v4.channel.k8s.io"] };

    fn refusal(headers: &[(&'static str, &'static str)]) -> String {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        negotiate(&mut parts, &SPEAKS).err().unwrap().message
    }

    #[test]
    fn refusals_before_the_upgrade() {
        let up = ("connection", "keep-alive, Upgrade");
        let ws = ("upgrade", "websocket");
        let version = ("sec-websocket-version", "13");
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], "Upgrade request required"),
            (&[ws], "Upgrade request required"),
            (&[up, ("upgrade", "h2c")], "Upgrade request required"),
            (&[up, ws], "unable to upgrade: Sec-WebSocket-Version must be 13"),
            (&[up, ws, version], "unable to upgrade: Sec-WebSocket-Key is missing"),
            (
                &[up, ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9.channel.k8s.io")],
                "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], \
                    server accepts [v4.channel.k8s.io]",
            ),
        ];
        for (headers, words) in cases {
            assert_eq!(refusal(headers), words);
        }
    }

    #[test]
    fn the_first_common_protocol_is_taken() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], Some("")),
            (&["v4.channel.k8s.io", "v5.channel.k8s.io"], Some("v4.channel.k8s.io")),
            (&["x", "v5.channel.k8s.io"], Some("v5.channel.k8s.io")),
            (&["base64url.bearer.authorization.k8s.io.abc"], Some("")),
            (&["x"], None),
        ];
        for (offered, expected) in cases {
            assert_eq!(choose(offered, SPEAKS.websocket).ok(), expected, "{offered:?}");
        }
    }
}
