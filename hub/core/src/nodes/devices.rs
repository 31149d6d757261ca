//! Devices of boards that pods claim (resource.k8s.io/v1).
//!
//! In: what a board says that it has; claims of its pods. Out: its ResourceSlices, written anew as a whole generation when
//! something of them changed; what the board must know of a claim. Source:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: believes a board about another node, or more devices than `DEVICES_MAX`.

use crate::{
    Change, ObjectStore,
    view::{Kind, Node, Pod, ResourceClaim, ResourceSlice},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// The driver's name in slices, claims and selectors.
pub const DRIVER: &str = "devices.limpet.dev";
/// As upstream, of one slice.
const SLICE_DEVICES_MAX: usize = 128;
const DEVICES_MAX: usize = 1024;
/// Of a string attribute, as upstream.
const TEXT_BYTES_MAX: usize = 64;
/// Items of claims on devices have this before the claim's name, which no claim on a volume can have in its own.
const ITEM: &str = "resourceclaims/";

/// What a board reports.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Reported {
    name: String,
    resource: String,
    path: String,
    cdi: String,
    /// Claims that may have it at the same time.
    shared: u32,
}

impl Reported {
    fn is_good(&self) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = self.name.starts_with('-') || self.name.ends_with('-');
        !self.name.is_empty() && self.name.len() <= 63 && !edge && self.name.bytes().all(plain)
    }

    fn device(&self) -> Value {
        let mut attributes = Map::new();
        for (name, text) in [("resource", &self.resource), ("path", &self.path), ("cdi", &self.cdi)] {
            if !text.is_empty() && text.len() <= TEXT_BYTES_MAX {
                attributes.insert(name.into(), json!({"string": text}));
            }
        }
        let mut device = json!({"name": self.name, "attributes": attributes});
        if self.shared > 1 {
            let policy = json!({"default": "1", "validRange": {"min": "1", "step": "1"}});
            device["allowMultipleAllocations"] = json!(true);
            device["capacity"] = json!({"shares": {"value": self.shared.to_string(), "requestPolicy": policy}});
        }
        device
    }
}

/// Makes the slices of a node say what it reports.
pub fn changes(view: &ObjectStore, node: &Node, reported: &Value) -> Vec<Change> {
    let all = reported.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names = BTreeSet::new();
    let read = all.iter().take(DEVICES_MAX).filter_map(|d| Reported::deserialize(d).ok());
    let devices: Vec<Value> =
        read.filter(|d| d.is_good() && names.insert(d.name.clone())).map(|d| d.device()).collect();
    let wanted: Vec<&[Value]> = devices.chunks(SLICE_DEVICES_MAX).collect();
    let own: Vec<&Arc<ResourceSlice>> = view.all::<ResourceSlice>().filter(|s| is_of(s, node)).collect();
    let name = |at: usize| format!("{}-{DRIVER}-{at}", node.meta.name);
    let as_wanted = |(at, devices): (usize, &&[Value])| {
        let found = own.iter().find(|s| *s.meta.name == *name(at));
        found.is_some_and(|s| {
            let count = s.spec.pool.resource_slice_count == wanted.len() as i64;
            count && s.field("/spec/devices").as_array().is_some_and(|old| *old.as_slice() == **devices)
        })
    };
    if own.len() == wanted.len() && wanted.iter().enumerate().all(as_wanted) {
        return Vec::new();
    }
    let generation = own.iter().map(|s| s.spec.pool.generation).max().unwrap_or(0) + 1;
    let mut changes = Vec::new();
    for (at, devices) in wanted.iter().enumerate() {
        let pool = json!({"name": node.meta.name, "generation": generation, "resourceSliceCount": wanted.len()});
        let spec = json!({"driver": DRIVER, "nodeName": node.meta.name, "pool": pool, "devices": devices});
        changes.push(match own.iter().find(|s| *s.meta.name == *name(at)) {
            Some(old) => patch(old, json!({"spec": {"pool": spec["pool"], "devices": devices}})),
            None => create(node, &name(at), spec),
        });
    }
    let left = own.iter().filter(|s| !(0..wanted.len()).any(|at| *s.meta.name == *name(at)));
    changes.extend(left.map(|s| delete(s)));
    changes
}

fn is_of(slice: &ResourceSlice, node: &Node) -> bool {
    &*slice.spec.driver == DRIVER && slice.spec.place.node_name.as_ref() == Some(&node.meta.name)
}

fn create(node: &Node, name: &str, spec: Value) -> Change {
    let owner = json!({"apiVersion": Node::API_VERSION, "kind": Node::KIND, "name": node.meta.name, "uid": node.meta.uid,
        "controller": true});
    Change::Create {
        resource: ResourceSlice::RESOURCE.into(),
        namespace: String::new(),
        object: json!({"apiVersion": ResourceSlice::API_VERSION, "kind": ResourceSlice::KIND,
            "metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec}),
    }
}

fn patch(slice: &ResourceSlice, merge: Value) -> Change {
    Change::Patch {
        resource: ResourceSlice::RESOURCE.into(),
        namespace: String::new(),
        name: slice.meta.name.to_string(),
        uid: slice.meta.uid.to_string(),
        resource_version: None,
        subresource: None,
        merge,
    }
}

fn delete(slice: &ResourceSlice) -> Change {
    Change::Delete {
        resource: ResourceSlice::RESOURCE.into(),
        namespace: String::new(),
        name: slice.meta.name.to_string(),
        uid: slice.meta.uid.to_string(),
        grace: None,
        propagation: None,
    }
}

/// Names of the ResourceClaims that a pod uses.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let made = |own: &str| pod.status.device_claims.iter().find(|c| *c.0 == *own).map(|c| &*c.1);
    let named = pod.spec.device_claims.iter().filter_map(move |(own, named)| named.as_deref().or_else(|| made(own)));
    named.chain(pod.status.extended_claim.as_deref())
}

/// The name under which a claim travels to its node.
pub fn item_name(claim: &str) -> String {
    format!("{ITEM}{claim}")
}

/// The claim behind such a name.
pub fn claim_of(item: &str) -> Option<&str> {
    item.strip_prefix(ITEM)
}

/// What a node must know of a claim: `{"results": [{"request","driver","pool","device"}]}`. `None`: not allocated.
pub fn body(claim: &ResourceClaim) -> Option<Vec<u8>> {
    let allocation = claim.status.allocation.as_ref()?;
    let result = |r: &crate::view::AllocatedDevice| {
        json!({"request": r.request, "driver": r.driver, "pool": r.pool, "device": r.device})
    };
    let results: Vec<Value> = allocation.devices.results.iter().map(result).collect();
    serde_json::to_vec(&json!({"results": results})).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const SLICES: &str = "resource.k8s.io/resourceslices";

    fn report(w: &mut World, devices: Value) -> usize {
        let node = Arc::clone(w.view.node("n0").unwrap());
        let changes = changes(&w.view, &node, &devices);
        changes.iter().for_each(|c| w.apply(c).unwrap());
        changes.len()
    }

    #[test]
    fn slices_follow_what_the_board_has() {
        let mut w = World::with_nodes(2);
        let gpio = |n: usize| {
            json!({"name": format!("gpiochip{n}"), "resource": "board.example/gpio", "path": "/dev/x", "shared": 1})
        };
        assert_eq!(report(&mut w, json!([])), 0);
        assert_eq!(report(&mut w, json!([gpio(0)])), 1);
        assert_eq!(report(&mut w, json!([gpio(0)])), 0, "the same again");
        let slice = w.list(SLICES)[0].clone();
        assert_eq!(slice["spec"]["devices"], json!([{"name": "gpiochip0",
            "attributes": {"path": {"string": "/dev/x"}, "resource": {"string": "board.example/gpio"}}}]));
        assert_eq!(slice["metadata"]["ownerReferences"][0]["name"], "n0");
        let many: Vec<Value> = (0..130).map(gpio).collect();
        assert_eq!(report(&mut w, json!(many)), 2);
        let pools: Vec<&Value> = w.list(SLICES).iter().map(|s| &s["spec"]["pool"]).collect();
        assert!(pools.iter().all(|p| p["generation"] == 2 && p["resourceSliceCount"] == 2), "{pools:?}");
        // What cannot be a device is passed over: a board is not trusted.
        let bad = json!([{"name": "Bad_Name"}, {"name": ""}, 7, {"name": "-x"}, gpio(1), gpio(1), {"name": "y", "shared": 3}]);
        report(&mut w, bad);
        let left = w.list(SLICES);
        let names: Vec<&Value> = left.iter().flat_map(|s| s["spec"]["devices"].as_array().unwrap()).map(|d| &d["name"]).collect();
        assert_eq!((left.len(), names), (1, vec![&json!("gpiochip1"), &json!("y")]));
        assert_eq!(left[0]["spec"]["devices"][1]["capacity"]["shares"]["value"], "3");
        report(&mut w, Value::Null);
        assert!(w.list(SLICES).is_empty());
    }

    #[test]
    fn a_pods_claims_are_those_it_names_those_made_for_it_and_that_of_its_resources() {
        let mut w = World::new();
        w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"resourceClaims": [
            {"name": "x", "resourceClaimName": "own"}, {"name": "y", "resourceClaimTemplateName": "t"},
            {"name": "z", "resourceClaimTemplateName": "t"}]}, "status": {
            "resourceClaimStatuses": [{"name": "y", "resourceClaimName": "p-y-1"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "p-e-1", "requestMappings": []}}}));
        let pod = w.view.pod("a", "p").unwrap();
        assert_eq!(claims_of(pod).collect::<Vec<_>>(), ["own", "p-y-1", "p-e-1"]);
        assert_eq!(claim_of(&item_name("own")), Some("own"));
        assert_eq!(claim_of("own"), None);
    }
}
