//! Who may connect over MQTT.
//!
//! In: a certificate that TLS verified. Out: the node's name, when the enrolment office knows the key under that name.
//! Deleting the Node object closes the door at once; joining again with a token opens it.
//! Never: trusts the client id.

use crate::{enroll::Enroll, run::Nodes};
use limpet_broker::{Gate, PeerIdentity};
use limpet_protocol::topic::valid_node_name;
use std::sync::Arc;

pub struct NodeGate {
    enroll: Arc<Enroll>,
    nodes: Arc<Nodes>,
}

impl NodeGate {
    pub fn new(enroll: Arc<Enroll>, nodes: Arc<Nodes>) -> NodeGate {
        NodeGate { enroll, nodes }
    }
}

impl Gate for NodeGate {
    fn admit(&self, peer: &PeerIdentity, _client_id: &str) -> Result<String, String> {
        let name = peer.common_name.strip_prefix("system:node:").unwrap_or_default();
        if !valid_node_name(name) || !peer.organizations.iter().any(|o| o == "system:nodes") {
            return Err("the certificate is not a node's".into());
        }
        if self.nodes.is_leaving(name) {
            return Err("the node is being removed from the cluster".into());
        }
        self.enroll.admit(name, &peer.certificate).map_err(|e| e.to_string())?;
        Ok(name.into())
    }
}
