//! What a node must know.
//!
//! In: the view. Out: the set of items of one node, each with generation and hash; bodies on demand.
//! Never: anything that the node's own pods do not reference.

use crate::{Changed, ObjectStore};
use limpet_protocol::{ItemHash, ItemKey, SetDigest};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemState {
    pub generation: u64,
    pub hash: ItemHash,
}

/// A ServiceAccount token that a pod's projected volume asks for. The shell issues it (TokenRequest bound to the pod)
/// and answers the session with `SessionInput::Token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWanted {
    pub key: ItemKey,
    pub namespace: String,
    pub service_account: String,
    pub pod_name: String,
    pub pod_uid: String,
    /// Empty: the API server's own audience.
    pub audience: String,
    pub expiration_s: i64,
}

/// The desired set of one node, without the bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub items: BTreeMap<ItemKey, ItemState>,
    /// Tokens that pods of this node want, by item key.
    pub tokens: BTreeMap<ItemKey, TokenWanted>,
    /// Digest of `items` (tokens not included).
    pub digest: SetDigest,
}

/// What `node` must know now.
pub fn wanted(view: &ObjectStore, node: &str) -> Wanted {
    let _ = (view, node);
    Wanted::default()
}

/// The content of an item as nodes get it: canonical JSON without status and managedFields. `None` when the object is
/// gone, and for tokens.
pub fn body(view: &ObjectStore, key: &ItemKey) -> Option<Vec<u8>> {
    let _ = (view, key);
    None
}

/// Nodes whose desired set an event may have changed.
pub fn nodes_for(view: &ObjectStore, changed: &Changed) -> BTreeSet<String> {
    let _ = (view, changed);
    BTreeSet::new()
}
