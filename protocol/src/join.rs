//! The join token and the words of enrolment.
//!
//! In: a token as text (`limpet1.<base64url of JSON>`; base64 and JSON are the caller's). Out: its parts.
//! Enrolment is one HTTPS POST of `JoinAsk` as JSON to `https://<hub>/limpet/v1/join`, answered with `JoinAnswer`.
//! The certificate of the hub is checked against `ca_sha256`, so a token is enough to trust the hub.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Text in front of the base64url part of a token.
pub const TOKEN_PREFIX: &str = "limpet1.";
/// Path of the enrolment door on the API port.
pub const JOIN_PATH: &str = "/limpet/v1/join";
/// Path of the renewal door: a `JoinAsk` without a token, whose request is signed with the key that the node joined with.
/// That signature is the right to enter, so a device renews also after its certificate has ended.
pub const RENEW_PATH: &str = "/limpet/v1/renew";

/// Path of MQTT in a WebSocket on the API port (`Sec-WebSocket-Protocol: mqtt`).
pub const MQTT_PATH: &str = "/limpet/v1/mqtt";

/// The content of a join token, as compact JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinToken {
    /// `host:port` of the hub's API, in order of preference.
    pub hubs: Vec<String>,
    /// Lower-case hex of SHA-256 over the DER of the hub's CA certificate.
    pub ca_sha256: String,
    /// Public part: names the token in lists and logs.
    pub id: String,
    /// Secret part.
    pub secret: String,
}

/// What a device sends to join or to renew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinAsk {
    pub token_id: String,
    pub token_secret: String,
    /// RFC 1123 name that the device wants.
    pub node_name: String,
    /// PEM of a PKCS#10 request; only its public key is used.
    pub csr_pem: String,
    /// `Hello::instance` as hex.
    pub instance: String,
    /// Free text for people: board model, OS.
    #[serde(default)]
    pub description: String,
    /// What distinguishes this piece of hardware from another one with a copy of its card; hex, empty when unknown.
    #[serde(default)]
    pub hardware: String,
}

/// The hub's answer (HTTP 202) to a device that somebody has to let in first: it asks again later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinWaits {
    /// A sentence for whoever stands at the device.
    pub message: String,
}

/// Whether a text is the name of a piece of hardware: 16 hex digits. MQTT's client id carries it.
pub fn is_hardware(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What the hub gives a device that may join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    pub node_name: String,
    /// Client certificate (CN `system:node:<name>`, O `system:nodes`), PEM.
    pub certificate_pem: String,
    /// The hub's CA, PEM.
    pub ca_pem: String,
    /// `host:port` of the MQTT listener, in order of preference.
    pub mqtt: Vec<String>,
    /// `host:port` of the hub's image registry.
    pub registry: Vec<String>,
    /// `host:port` of the API, for pods (KUBERNETES_SERVICE_HOST/PORT).
    pub api: Vec<String>,
    pub cluster_name: String,
    /// The hub's time, milliseconds since 1970.
    pub time_ms: u64,
    /// Ed25519 key, as hex, with which releases of the agent are signed. A device keeps the first that it was given.
    #[serde(default)]
    pub update_key: String,
    /// The broker at which hub and devices meet, when that is not the hub itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<JoinBroker>,
}

impl JoinAnswer {
    /// Where the device connects to, and what the certificate there comes from.
    pub fn meets_at(&self) -> (&[String], &str) {
        match &self.broker {
            Some(broker) => (&broker.addresses, &broker.ca_pem),
            None => (&self.mqtt, &self.ca_pem),
        }
    }
}

/// How a device gets to a broker that is not the hub's own. What goes by way of it is sealed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JoinBroker {
    /// `host:port`, or `wss://host/path`, in order of preference.
    pub addresses: Vec<String>,
    /// What the broker's certificate comes from, PEM.
    pub ca_pem: String,
    /// Empty when the device's certificate says all.
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub password: String,
}
