//! The node's own pods behind Services, as they are now.
//!
//! In: the pod machine's pods. Out: address and readiness of an endpoint that is one of them. The hub's word is about the past: a
//! board that has lost power while the hub was away gives its pods other addresses, and some are ready that were not.
//! Never: speaks of another node's pods.

use crate::{api::Endpoint, pods::PodView};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    node: String,
    /// Addresses and readiness by namespace and name.
    pods: BTreeMap<(String, String), (Vec<String>, bool)>,
}

impl Local {
    pub fn new<'a>(node: &str, pods: impl Iterator<Item = PodView<'a>>) -> Local {
        let one = |p: PodView<'_>| {
            let meta = &p.object.metadata;
            ((meta.namespace.clone(), meta.name.clone()), (p.ips.to_vec(), p.ready && p.sandbox_ready))
        };
        Local { node: node.into(), pods: pods.map(one).collect() }
    }

    fn find(&self, endpoint: &Endpoint) -> Option<&(Vec<String>, bool)> {
        let target = &endpoint.target_ref;
        if target.kind != "Pod" || endpoint.node_name.as_deref() != Some(self.node.as_str()) {
            return None;
        }
        self.pods.get(&(target.namespace.clone(), target.name.clone()))
    }

    /// `None`: it is no pod of this node, and what the hub says counts. A pod that is being deleted takes nothing new.
    pub fn is_ready(&self, endpoint: &Endpoint) -> Option<bool> {
        self.find(endpoint).map(|(_, ready)| *ready && endpoint.conditions.terminating != Some(true))
    }

    /// The present address in the family that the hub has named; `None` while the pod has none.
    pub fn address<'a>(&'a self, endpoint: &'a Endpoint) -> Option<&'a str> {
        let told = endpoint.addresses.first()?;
        match self.find(endpoint) {
            None => Some(told),
            Some((ips, _)) => ips.iter().find(|ip| ip.contains(':') == told.contains(':')).map(String::as_str),
        }
    }
}
