//! From a join token to an identity, and to the next certificate.
//!
//! In: the token, a fresh key; later the identity. Out: what to ask and where; an identity to keep, or why not.
//! Never: the key in anything but the identity's record; a hub whose CA the token does not name.

use crate::{der, der::Certificate, pem, trust::Anchor};
use alloc::{format, string::String, vec::Vec};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use limpet_leaf_core::Facts;
use limpet_protocol::{
    join::{JoinAnswer, JoinAsk, JoinToken, JoinWaits, TOKEN_PREFIX},
    limits::JOIN_TOKEN_BYTES_MAX,
};
use p256::ecdsa::{DerSignature, SigningKey, signature::Signer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Who this board is to its hub: what the first record of the flash holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub node: String,
    pub key: [u8; 32],
    pub certificate: Vec<u8>,
    pub ca: Vec<u8>,
    pub mqtt: Vec<String>,
    pub api: Vec<String>,
}

/// Why a hub does not let this board in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// Nothing changes until somebody gives this board another token.
    Never(String),
    Later(String),
}

impl Identity {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Option<Identity> {
        let identity: Identity = postcard::from_bytes(bytes).ok()?;
        identity.signing_key()?;
        Some(identity)
    }

    pub fn signing_key(&self) -> Option<SigningKey> {
        SigningKey::from_slice(&self.key).ok()
    }

    /// After two thirds of the certificate's life.
    pub fn renew_at_ms(&self) -> u64 {
        let read = Certificate::read(&self.certificate);
        read.map_or(0, |c| (c.not_before_s + c.not_after_s.saturating_sub(c.not_before_s) / 3 * 2) * 1000)
    }
}

pub fn parse_token(text: &str) -> Result<(JoinToken, Anchor), JoinError> {
    let never = |why: &str| JoinError::Never(format!("this is no join token ({why}); make one with `limpet token create`"));
    let text = text.trim();
    if text.len() > JOIN_TOKEN_BYTES_MAX {
        return Err(never("it is too long"));
    }
    let body = text.strip_prefix(TOKEN_PREFIX).ok_or_else(|| never("it does not begin with `limpet1.`"))?;
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| never("it is damaged"))?;
    let token: JoinToken = serde_json::from_slice(&json).map_err(|_| never("its content is damaged"))?;
    let hash = hash(&token.ca_sha256).ok_or_else(|| never("it names no hub"))?;
    if token.hubs.is_empty() {
        return Err(never("it names no hub"));
    }
    Ok((token, Anchor::Sha256(hash)))
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(out)
}

/// The ask for a first certificate (`token`) or for the next one.
pub fn ask(node: &str, key: &SigningKey, token: Option<&JoinToken>, instance: &[u8; 16], facts: &Facts) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    let sign = |bytes: &[u8]| {
        let signature: DerSignature = key.sign(bytes);
        Some(signature.as_bytes().to_vec())
    };
    let request = der::request(&format!("system:node:{node}"), point.as_bytes(), sign).unwrap_or_default();
    let ask = JoinAsk {
        token_id: token.map(|t| t.id.clone()).unwrap_or_default(),
        token_secret: token.map(|t| t.secret.clone()).unwrap_or_default(),
        node_name: node.into(),
        csr_pem: pem::text("CERTIFICATE REQUEST", &request),
        instance: instance.iter().map(|b| format!("{b:02x}")).collect(),
        description: format!("{} (leaf {})", facts.board, facts.firmware),
        hardware: hardware(&facts.machine_id),
    };
    serde_json::to_vec(&ask).unwrap_or_default()
}

/// The name of this piece of hardware: 16 hex digits of what its maker gave it. MQTT's client id carries it.
pub fn hardware(machine_id: &str) -> String {
    let sum = Sha256::digest(machine_id.as_bytes());
    sum.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// What the hub's answer means. `ca`: the CA that proved itself on the way.
pub fn answered(hub: &str, key: &SigningKey, ca: &[u8], status: u16, body: &[u8]) -> Result<(Identity, u64), JoinError> {
    match status {
        200 | 201 => {}
        202 => {
            let waits = serde_json::from_slice::<JoinWaits>(body).map(|w| w.message).unwrap_or_default();
            return Err(JoinError::Later(format!("the hub {hub} has not let this board in yet: {waits}")));
        }
        400..=499 if status != 429 && status != 408 => {
            return Err(JoinError::Never(format!("the hub {hub} refused: {}", reason(body))));
        }
        _ => return Err(JoinError::Later(format!("the hub {hub} answered {status}: {}", reason(body)))),
    }
    let unreadable = || JoinError::Later(format!("the hub {hub} answered with something unreadable"));
    let answer: JoinAnswer = serde_json::from_slice(body).map_err(|_| unreadable())?;
    if answer.broker.is_some() {
        return Err(JoinError::Never(format!("the hub {hub} meets its boards at a broker, which a leaf cannot do yet")));
    }
    let certificate = pem::first(&answer.certificate_pem).ok_or_else(unreadable)?;
    let own = key.verifying_key().to_encoded_point(false);
    let is_ours = Certificate::read(&certificate).is_some_and(|c| c.point == own.as_bytes());
    if !is_ours || answer.mqtt.is_empty() {
        return Err(unreadable());
    }
    let identity = Identity {
        node: answer.node_name,
        key: key.to_bytes().into(),
        certificate,
        ca: ca.to_vec(),
        mqtt: answer.mqtt,
        api: answer.api,
    };
    Ok((identity, answer.time_ms))
}

/// The message of a metav1.Status, or the text itself.
fn reason(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|v| v["message"].as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), Into::into);
    text.trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    #[test]
    fn a_request_is_one_that_others_sign() {
        let asked = ask("pico", &key(), None, &[1; 16], &Facts { machine_id: "e6".into(), ..Facts::default() });
        let asked: JoinAsk = serde_json::from_slice(&asked).unwrap();
        assert!(limpet_protocol::join::is_hardware(&asked.hardware));
        let params = rcgen::CertificateSigningRequestParams::from_pem(&asked.csr_pem).unwrap();
        let name = params.params.distinguished_name.get(&rcgen::DnType::CommonName);
        assert_eq!(name, Some(&rcgen::DnValue::Utf8String("system:node:pico".into())));
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), ca_key);
        let pem = params.signed_by(&issuer).unwrap().pem();
        let answer = |mqtt: &[&str], pem: &str| {
            let answer = serde_json::json!({"node_name": "pico", "certificate_pem": pem, "ca_pem": "", "mqtt": mqtt,
                "registry": [], "api": ["h:6443"], "cluster_name": "c", "time_ms": 5});
            serde_json::to_vec(&answer).unwrap()
        };
        let (identity, time) = answered("h", &key(), b"ca", 200, &answer(&["h:8883"], &pem)).ok().unwrap();
        assert_eq!((identity.node.as_str(), identity.mqtt[0].as_str(), time), ("pico", "h:8883", 5));
        assert!(Identity::decode(&identity.encode()).unwrap() == identity);
        assert!(Identity::decode(&identity.encode()[1..]).is_none() && Identity::decode(&[]).is_none());
        let other = SigningKey::from_slice(&[8; 32]).unwrap();
        for (key, answer) in [(other, answer(&["h:8883"], &pem)), (key(), answer(&[], &pem)), (key(), answer(&["h:1"], "x"))] {
            assert!(matches!(answered("h", &key, b"ca", 200, &answer), Err(JoinError::Later(_))));
        }
        let refused = answered("h", &key(), b"ca", 403, br#"{"message":"the join token has expired"}"#);
        assert_eq!(refused.err(), Some(JoinError::Never("the hub h refused: the join token has expired".into())));
        assert!(matches!(answered("h", &key(), b"ca", 202, br#"{"message":"compare"}"#), Err(JoinError::Later(_))));
    }

    #[test]
    fn damaged_tokens_are_named() {
        let good = JoinToken { hubs: std::vec!["h:6443".into()], ca_sha256: "ab".repeat(32), id: "i".into(), secret: "s".into() };
        let text = |t: &JoinToken| format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(t).unwrap()));
        assert!(parse_token(&text(&good)).is_ok());
        let no_hub = JoinToken { hubs: Vec::new(), ..good.clone() };
        let no_hash = JoinToken { ca_sha256: "ä".repeat(32), ..good.clone() };
        for bad in [text(&no_hub), text(&no_hash), text(&good)[..40].into(), "limpet2.x".into(), "x".repeat(3000)] {
            assert!(matches!(parse_token(&bad), Err(JoinError::Never(why)) if why.contains("limpet token create")), "{bad}");
        }
    }
}
