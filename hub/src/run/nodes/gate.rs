//! Who may connect over MQTT.
//!
//! In: a certificate that TLS verified, and the hardware that the client id names. Out: the node's name, when the enrolment
//! office knows the key under that name and no other device with the same key is the node.
//! Deleting the Node object closes the door at once; joining again with a token opens it.
//! Never: lets the client id widen a right: it can only tell two holders of one key apart.

use crate::{
    enroll::{Copy, Enroll, Identity},
    run::{Nodes, clock},
};
use limpet_broker::{Gate, Office, PeerIdentity};
use limpet_hub_core::{
    Timestamp,
    nodes::holder::{self, Seen, Verdict},
};
use limpet_protocol::{
    join::{JoinAsk, JoinWaits, is_hardware},
    topic::valid_node_name,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// A copy that goes on trying is noted this often.
const NOTED_EVERY_MS: u64 = 3_600_000;

pub struct NodeGate {
    enroll: Arc<Enroll>,
    nodes: Arc<Nodes>,
    presence: Arc<Presence>,
}

/// Which devices are connected, by node.
pub struct Presence {
    started: Timestamp,
    seen: Mutex<BTreeMap<String, There>>,
}

/// A device, and the key (its SHA-256 in hex) by which it came.
struct There {
    seen: Seen,
    key: String,
}

impl Presence {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Presence {
        Presence { started: clock::even(), seen: Mutex::default() }
    }

    /// The node has no connection any more.
    pub(super) fn left(&self, node: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(There { seen, .. }) = seen.get_mut(node) {
            (seen.connected, seen.at) = (false, clock::even());
        }
    }

    /// Names who counts as this node: a board with a card. Copies of a card differ by the board, cards that were written anew by
    /// the installation.
    pub(super) fn device(&self, node: &str, instance: Option<[u8; 16]>) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let hardware = seen.get(node).map_or("", |there| there.seen.hardware.as_str());
        let mut hash = Sha256::new();
        hash.update(instance.unwrap_or_default());
        hash.update(hardware);
        hash.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn forget(&self, node: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// The verdict, and whether the node joined anew since its last connection: with a key of another card. On admission the
    /// new state is kept.
    fn ask(&self, node: &str, record: &Identity, hardware: &str) -> (Verdict, bool) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (clock::even(), all.get(node));
        let other_card = before.is_some_and(|before| before.key != record.key_sha256);
        let verdict = holder::verdict(&record.hardware, before.map(|b| &b.seen), hardware, self.started, now);
        if verdict != Verdict::KeepOut {
            let seen = Seen { hardware: hardware.into(), connected: true, at: now };
            all.insert(node.into(), There { seen, key: record.key_sha256.clone() });
        }
        (verdict, other_card)
    }
}

impl NodeGate {
    pub fn new(enroll: Arc<Enroll>, nodes: Arc<Nodes>, presence: Arc<Presence>) -> NodeGate {
        NodeGate { enroll, nodes, presence }
    }

    /// Keeps the record of the node's hardware, in the background: the device does not wait for it.
    fn record(&self, node: &str, hardware: &str) {
        let (enroll, node, hardware) = (Arc::clone(&self.enroll), node.to_string(), hardware.to_string());
        tokio::spawn(async move {
            let note = enroll.note(&node, |identity| {
                identity.copy = None;
                identity.hardware = hardware;
            });
            if let Err(error) = note.await {
                tracing::warn!(node, "the node's hardware is not on record yet: {error}");
            }
        });
    }

    fn copy_seen(&self, node: &str, hardware: &str, known: Option<&Copy>, address: Option<SocketAddr>) {
        let seen_ms = u64::try_from(clock::now().as_millisecond()).unwrap_or(0);
        if known.is_some_and(|k| k.hardware == hardware && seen_ms < k.seen_ms + NOTED_EVERY_MS) {
            return;
        }
        let address = address.map_or_else(|| "the broker".into(), |a| a.ip().to_string());
        self.nodes.copy_noticed(node, hardware, &address);
        let copy = Copy { hardware: hardware.into(), address, seen_ms };
        let (enroll, node) = (Arc::clone(&self.enroll), node.to_string());
        tokio::spawn(async move {
            if let Err(error) = enroll.note(&node, |identity| identity.copy = Some(copy)).await {
                tracing::warn!(node, "the copy is not on record yet: {error}");
            }
        });
    }
}

impl Gate for NodeGate {
    fn admit(&self, peer: &PeerIdentity, client_id: &str) -> Result<String, String> {
        let name = peer.common_name.strip_prefix("system:node:").unwrap_or_default();
        if !valid_node_name(name) || !peer.organizations.iter().any(|o| o == "system:nodes") {
            return Err("the certificate is not a node's".into());
        }
        self.enroll.admit(name, &peer.certificate).map_err(|e| e.to_string())?;
        self.holder(name, client_id, peer.address)?;
        Ok(name.into())
    }
}

impl Office for NodeGate {
    fn knows(&self, node: &str) -> bool {
        !self.nodes.is_leaving(node) && self.enroll.identity(node).is_some()
    }

    fn nodes(&self) -> Vec<String> {
        self.enroll.identities().into_iter().map(|i| i.node).collect()
    }

    fn admit(&self, node: &str, key: &limpet_sealed::Point, hardware: &str) -> Result<(), String> {
        self.enroll.admit_key(node, key).map_err(|e| e.to_string())?;
        self.holder(node, hardware, None)
    }

    fn renew(&self, node: &str, ask: &[u8]) -> Vec<u8> {
        let answer = match serde_json::from_slice::<JoinAsk>(ask) {
            Ok(ask) if ask.node_name == node => self.enroll.renew_by_key(&ask, SystemTime::now()).map_err(|e| e.to_string()),
            Ok(_) => Err("a node renews its own certificate only".into()),
            Err(e) => Err(format!("unreadable: {e}")),
        };
        let bytes = match answer {
            Ok(answer) => serde_json::to_vec(&answer),
            Err(message) => serde_json::to_vec(&JoinWaits { message }),
        };
        bytes.unwrap_or_default()
    }
}

impl NodeGate {
    /// Whether the device that holds the node's key is the node, and not a copy of its card.
    fn holder(&self, name: &str, client_id: &str, address: Option<SocketAddr>) -> Result<(), String> {
        if self.nodes.is_leaving(name) {
            return Err("the node is being removed from the cluster".into());
        }
        let hardware = if is_hardware(client_id) { client_id } else { "" };
        let identity = self.enroll.identity(name).unwrap_or_default();
        let (verdict, other_card) = self.presence.ask(name, &identity, hardware);
        if verdict == Verdict::KeepOut {
            self.copy_seen(name, hardware, identity.copy.as_ref(), address);
            return Err(format!(
                "device {hardware} has a copy of the card of {name}, which is device {}; give it a name of its \
                 own: remove its data directory and join it again",
                identity.hardware
            ));
        }
        if verdict == Verdict::AdmitAndRecord || other_card {
            self.nodes.other_device(name);
        }
        if verdict == Verdict::AdmitAndRecord {
            self.record(name, hardware);
        }
        Ok(())
    }
}
