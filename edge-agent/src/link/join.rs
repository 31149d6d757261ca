//! From a join token to a certificate, and from a certificate to the next.
//!
//! In: the token, the device's key. Out: an identity on disk; or why not, and whether a later attempt can help.
//! Never: sends the token to a hub whose CA is not the one that the token names.

use super::{Identity, NodeKey, http, identity, road::Proxy, tls};
use crate::device::Clock;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::Full;
use hyper::{Request, body::Bytes};
use limpet_protocol::{
    join::{JOIN_PATH, JoinAnswer, JoinAsk, JoinToken, JoinWaits, RENEW_PATH, TOKEN_PREFIX},
    limits::JOIN_TOKEN_BYTES_MAX,
};
use std::{path::Path, sync::Arc, time::Duration};

const ANSWER_BYTES_MAX: usize = 256 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody retries: the operator has to do something else.
    #[error("{0}")]
    Never(String),
    /// The caller retries with back-off.
    #[error("{0}")]
    Later(String),
}

pub fn parse_token(text: &str) -> Result<JoinToken, JoinError> {
    let never = |why: &str| {
        JoinError::Never(format!("this is not a join token ({why}); make one with `limpet token create`"))
    };
    let text = text.trim();
    if text.len() > JOIN_TOKEN_BYTES_MAX {
        return Err(never("it is too long"));
    }
    let body = text.strip_prefix(TOKEN_PREFIX).ok_or_else(|| never("it does not begin with `limpet1.`"))?;
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| never("it is damaged; was all of it copied?"))?;
    let token: JoinToken = serde_json::from_slice(&json).map_err(|_| never("its content is damaged"))?;
    if token.hubs.is_empty() || token.ca_sha256.len() != 64 {
        return Err(never("it names no hub"));
    }
    Ok(token)
}

/// One round over all addresses of the token. On success the identity is on disk.
pub async fn join(
    data: &Path,
    token: &JoinToken,
    (node_name, description, hardware): (&str, &str, &str),
    (clock, proxy): (&Clock, Option<&Proxy>),
) -> Result<Identity, JoinError> {
    let local = |e: std::io::Error| JoinError::Later(format!("cannot write the device's identity: {e}"));
    let key = NodeKey::load_or_create(data).map_err(local)?;
    let instance = identity::instance(data).map_err(local)?;
    let csr_pem = key.request(node_name).map_err(|e| JoinError::Never(e.to_string()))?;
    let ask = JoinAsk {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        node_name: node_name.into(),
        csr_pem,
        instance: instance.iter().map(|b| format!("{b:02x}")).collect(),
        description: description.into(),
        hardware: hardware.into(),
    };
    let tls = tls::pinned(&token.ca_sha256, clock).map_err(|e| JoinError::Never(e.to_string()))?;
    let answer = post_to_any((&token.hubs, proxy), JOIN_PATH, Arc::new(tls), &ask).await?;
    clock.told(answer.time_ms);
    identity::store(data, &answer).map_err(local)?;
    Ok(Identity { answer, key, instance })
}

/// A new certificate with the same key: an ask without a token, whose request is signed with the key that the hub knows.
/// That works after the old certificate has ended, too. On success it is on disk.
pub async fn renew(data: &Path, old: &Identity, (clock, proxy): (&Clock, Option<&Proxy>)) -> Result<Identity, JoinError> {
    let ask = renewal(old)?;
    let tls = tls::with_ca(&old.answer.ca_pem, clock).map_err(|e| JoinError::Never(e.to_string()))?;
    let answer = post_to_any((&old.answer.api, proxy), RENEW_PATH, Arc::new(tls), &ask).await?;
    keep(data, old, answer, clock)
}

/// The ask for a renewal.
pub fn renewal(old: &Identity) -> Result<JoinAsk, JoinError> {
    let node_name = &old.answer.node_name;
    let csr_pem = old.key.request(node_name).map_err(|e| JoinError::Never(e.to_string()))?;
    Ok(JoinAsk {
        token_id: String::new(),
        token_secret: String::new(),
        node_name: node_name.clone(),
        csr_pem,
        instance: old.instance.iter().map(|b| format!("{b:02x}")).collect(),
        description: String::new(),
        hardware: String::new(),
    })
}

/// The answer to a renewal that came by another way than HTTPS.
pub fn take_renewal(data: &Path, old: &Identity, answer: &[u8], clock: &Clock) -> Result<Identity, JoinError> {
    match serde_json::from_slice::<JoinAnswer>(answer) {
        Ok(answer) => keep(data, old, answer, clock),
        Err(_) => Err(JoinError::Later(format!("the hub refused: {}", reason(answer)))),
    }
}

fn keep(data: &Path, old: &Identity, mut answer: JoinAnswer, clock: &Clock) -> Result<Identity, JoinError> {
    if !old.answer.update_key.is_empty() {
        answer.update_key.clone_from(&old.answer.update_key);
    }
    clock.told(answer.time_ms);
    identity::store(data, &answer).map_err(|e| JoinError::Later(e.to_string()))?;
    Ok(Identity { answer, key: old.key.clone(), instance: old.instance })
}

/// When to renew: after two thirds of the certificate's life. `None` when it cannot be read.
pub fn renew_at_ms(identity: &Identity) -> Option<u64> {
    let (before, after) = validity(identity)?;
    Some(before + (after.saturating_sub(before)) / 3 * 2)
}

/// Not before and not after of the node's certificate, milliseconds since 1970.
pub fn validity(identity: &Identity) -> Option<(u64, u64)> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let der = CertificateDer::from_pem_slice(identity.answer.certificate_pem.as_bytes()).ok()?;
    super::der::validity(&der)
}

async fn post_to_any(
    (hubs, proxy): (&[String], Option<&Proxy>),
    path: &str,
    tls: Arc<rustls::ClientConfig>,
    ask: &JoinAsk,
) -> Result<JoinAnswer, JoinError> {
    let body = serde_json::to_vec(ask).map_err(|e| JoinError::Never(e.to_string()))?;
    let mut last = JoinError::Later("the token names no hub".into());
    for hub in hubs {
        match post((hub, proxy), path, tls.clone(), body.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(JoinError::Never(why)) => return Err(JoinError::Never(why)),
            Err(later) => last = later,
        }
    }
    Err(last)
}

async fn post(
    (hub, proxy): (&str, Option<&Proxy>),
    path: &str,
    tls: Arc<rustls::ClientConfig>,
    body: Vec<u8>,
) -> Result<JoinAnswer, JoinError> {
    let request = Request::post(path)
        .header("host", hub)
        .header("content-type", "application/json")
        .header("user-agent", concat!("limpet-agent/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| JoinError::Never(e.to_string()))?;
    let answer = http::send((hub, proxy), Some(tls), request, http::Body::Whole(ANSWER_BYTES_MAX), TIMEOUT).await;
    let answer = answer.map_err(|e| explain(hub, &e))?;
    match answer.status {
        200 | 201 => serde_json::from_slice(&answer.body)
            .map_err(|e| JoinError::Later(format!("the hub {hub} answered with something unreadable: {e}"))),
        202 => {
            let waits = serde_json::from_slice::<JoinWaits>(&answer.body).map(|w| w.message).unwrap_or_default();
            Err(JoinError::Later(format!("the hub {hub} has not let this board in yet: {waits}")))
        }
        400..=499 if answer.status != 429 && answer.status != 408 => {
            Err(JoinError::Never(format!("the hub {hub} refused: {}", reason(&answer.body))))
        }
        status => Err(JoinError::Later(format!("the hub {hub} answered {status}: {}", reason(&answer.body)))),
    }
}

/// The message of a metav1.Status, or the text itself.
pub(super) fn reason(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|v| v.get("message")).and_then(|m| m.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), ToString::to_string);
    text.trim().chars().take(500).collect()
}

fn explain(hub: &str, error: &std::io::Error) -> JoinError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            JoinError::Never(format!(
                "the hub at {hub} is not the one that made this token: its CA has another key; make a new token there"
            ))
        }
        Some(other) => JoinError::Later(format!("no secure connection to the hub at {hub}: {other}")),
        None => JoinError::Later(format!("the hub at {hub} cannot be reached: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_or_refused_with_a_sentence() {
        let token = JoinToken {
            hubs: vec!["192.0.2.1:6443".into()],
            ca_sha256: "a".repeat(64),
            id: "abc".into(),
            secret: "s".into(),
        };
        let text = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap()));
        assert_eq!(parse_token(&format!(" {text}\n")).unwrap(), token);
        for bad in ["", "limpet2.x", "limpet1.???", "limpet1.e30", &text[..text.len() - 9], &"x".repeat(9000)] {
            let error = parse_token(bad).unwrap_err();
            assert!(matches!(&error, JoinError::Never(why) if why.contains("limpet token create")), "{bad}");
        }
    }

    #[test]
    fn reasons_come_from_the_status_or_the_text() {
        assert_eq!(reason(br#"{"kind":"Status","message":"the token is used up"}"#), "the token is used up");
        assert_eq!(reason(b"plain\n"), "plain");
    }
}
