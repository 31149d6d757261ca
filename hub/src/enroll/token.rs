//! A join token as the hub keeps it, and the rule whether it opens the door.
//!
//! In: a record, what a device shows, the time. Out: the record after use, or a refusal that says why.
//! Never: keeps the secret itself; only its SHA-256.

use crate::pki::hex;
use limpet_protocol::topic::valid_node_name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names of nodes that used a token, kept for `limpet token list`.
const USED_BY_MAX: usize = 100;

/// One join token. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    pub id: String,
    pub secret_sha256: String,
    pub created_ms: u64,
    pub expires_ms: u64,
    /// `None`: any number until it expires.
    pub uses_left: Option<u32>,
    /// Only this node name may join with it.
    pub node: Option<String>,
    /// Nodes that join with it get this label: `limpet.dev/pool`.
    #[serde(default)]
    pub pool: Option<String>,
    /// Devices wait until somebody approves them…
    #[serde(default)]
    pub wait: bool,
    /// …unless their name fits one of these: `*` stands for anything.
    #[serde(default)]
    pub approve: Vec<String>,
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// Why a device may not join. The device shows the sentence to its owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the join token is not known to this hub; make a new one with `limpet token create`")]
    Unknown,
    #[error("the join token {id} has expired; make a new one with `limpet token create`")]
    Expired { id: String },
    #[error("the join token {id} has been used as often as it may; make a new one with `limpet token create`")]
    UsedUp { id: String },
    #[error("the join token {id} is for the node {node}; start the agent with --node-name {node}")]
    OtherNode { id: String, node: String },
    #[error("{0:?} is not a node name: lower-case letters, digits, '-' and '.', at most 63 between dots")]
    NodeName(String),
    #[error(
        "a node named {0} has joined already with another key; make a token for it \
         with `limpet token create --node {0}` \
         or choose another --node-name"
    )]
    Taken(String),
    #[error("the operator of this hub has rejected this device; `limpet node approve {0}` would let it in")]
    Rejected(String),
    #[error("the node {0} is not known to this hub (any more); join again with a token: `limpet token create`")]
    Removed(String),
}

pub fn secret_hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

impl TokenRecord {
    /// Whether `secret` opens the door for `node` at `now_ms`. An unknown secret and an unknown id look the same.
    pub fn check(&self, secret: &str, node: &str, now_ms: u64) -> Result<(), Refusal> {
        let given = secret_hash(secret);
        let same = given.len() == self.secret_sha256.len()
            && given.bytes().zip(self.secret_sha256.bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
        if !same {
            return Err(Refusal::Unknown);
        }
        if !valid_node_name(node) {
            return Err(Refusal::NodeName(node.chars().take(300).collect()));
        }
        if now_ms >= self.expires_ms {
            return Err(Refusal::Expired { id: self.id.clone() });
        }
        if let Some(only) = &self.node
            && only != node
        {
            return Err(Refusal::OtherNode { id: self.id.clone(), node: only.clone() });
        }
        Ok(())
    }

    /// Whether there is a use left. `again`: this device, by its key, has joined with it and is there still: its answer may have
    /// been lost on the way. A name alone is no reason: another device may bear it.
    pub fn has_use(&self, again: bool) -> Result<(), Refusal> {
        match self.uses_left {
            Some(0) if !again => Err(Refusal::UsedUp { id: self.id.clone() }),
            _ => Ok(()),
        }
    }

    /// Whether a device of this name must wait for somebody's approval.
    pub fn waits(&self, node: &str) -> bool {
        self.wait && !self.approve.iter().any(|pattern| fits(pattern, node))
    }

    /// The record after `node` has joined with it.
    pub fn used(mut self, node: &str, again: bool) -> TokenRecord {
        if again {
            return self;
        }
        self.uses_left = self.uses_left.map(|n| n.saturating_sub(1));
        if self.used_by.len() < USED_BY_MAX && !self.used_by.iter().any(|n| n == node) {
            self.used_by.push(node.into());
        }
        self
    }
}

/// Whether a name fits a pattern in which `*` stands for any number of characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uses: Option<u32>, node: Option<&str>) -> TokenRecord {
        TokenRecord {
            id: "abc123".into(),
            secret_sha256: secret_hash("s3cret"),
            created_ms: 0,
            expires_ms: 1000,
            uses_left: uses,
            node: node.map(String::from),
            used_by: Vec::new(),
            pool: None,
            wait: false,
            approve: Vec::new(),
        }
    }

    #[test]
    fn names_that_fit_need_no_approval() {
        for (pattern, name, want) in [
            ("pi-1", "pi-1", true),
            ("pi-1", "pi-10", false),
            ("pi-*", "pi-10", true),
            ("*", "x", true),
            ("*.lab", "pi.lab", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
        let waits = TokenRecord { wait: true, approve: vec!["pi-*".into()], ..token(None, None) };
        assert!(waits.waits("nano") && !waits.waits("pi-3") && !token(None, None).waits("nano"));
    }

    #[test]
    fn the_door_opens_and_closes() {
        let t = token(Some(1), None);
        assert_eq!(t.check("s3cret", "pi-1", 999), Ok(()));
        assert_eq!(t.check("other", "pi-1", 999), Err(Refusal::Unknown));
        assert!(matches!(t.check("s3cret", "pi-1", 1000), Err(Refusal::Expired { .. })));
        assert!(matches!(t.check("s3cret", "a/b", 1), Err(Refusal::NodeName(_))));
        assert_eq!(t.has_use(false), Ok(()));
        let used = t.used("pi-1", false);
        assert!(matches!(used.has_use(false), Err(Refusal::UsedUp { .. })));
        assert_eq!(used.has_use(true), Ok(()), "a lost answer is not a lost board");
        assert_eq!(used.clone().used("pi-1", true), used);
        let bound = token(None, Some("pi-7"));
        assert!(matches!(bound.check("s3cret", "pi-1", 1), Err(Refusal::OtherNode { .. })));
        assert_eq!(bound.used("pi-7", false).uses_left, None);
    }
}
