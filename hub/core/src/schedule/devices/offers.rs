//! Devices that are on offer.
//!
//! In: ResourceSlices. Out: the devices of complete pools that a node can use.
//! Never: a device of an old generation of its pool, of a pool with missing slices or with a name twice, or one that shares
//! counters with others.

use crate::{
    ObjectStore,
    view::{Device, DevicePlace, Node, ResourceSlice, SliceSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// (driver, pool, device)
pub type Id = (Box<str>, Box<str>, Box<str>);

#[derive(Clone, Debug)]
pub struct Offer<'a> {
    pub slice: &'a SliceSpec,
    pub device: &'a Device,
}

impl Offer<'_> {
    pub fn id(&self) -> Id {
        (self.slice.driver.clone(), self.slice.pool.name.clone(), self.device.name.clone())
    }

    pub fn place(&self) -> &DevicePlace {
        if self.slice.per_device_node_selection { &self.device.place } else { &self.slice.place }
    }

    fn reaches(&self, node: &Node) -> bool {
        let place = self.place();
        place.all_nodes
            || place.node_name.as_ref().is_some_and(|name| *name == node.meta.name)
            || place.node_selector.as_ref().is_some_and(|s| s.matches(&node.meta.name, &node.meta.labels))
    }
}

/// The slices that count, by whom they are for.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    by_node: BTreeMap<Box<str>, Vec<Arc<ResourceSlice>>>,
    /// For more than one node.
    wide: Vec<Arc<ResourceSlice>>,
}

impl Offers {
    pub fn gather(view: &ObjectStore) -> Offers {
        let mut pools: BTreeMap<(&str, &str), Vec<&Arc<ResourceSlice>>> = BTreeMap::new();
        for slice in view.all::<ResourceSlice>() {
            pools.entry((&slice.spec.driver, &slice.spec.pool.name)).or_default().push(slice);
        }
        let mut offers = Offers::default();
        for slices in pools.into_values() {
            let newest = slices.iter().map(|s| s.spec.pool.generation).max().unwrap_or(0);
            let current: Vec<_> = slices.into_iter().filter(|s| s.spec.pool.generation == newest).collect();
            let mut names = BTreeSet::new();
            let once = current.iter().flat_map(|s| &s.spec.devices).all(|d| names.insert(&d.name));
            let complete = current.iter().all(|s| s.spec.pool.resource_slice_count == current.len() as i64);
            if !once || !complete {
                continue;
            }
            for slice in current {
                match &slice.spec.place.node_name {
                    Some(node) => offers.by_node.entry(node.clone()).or_default().push(Arc::clone(slice)),
                    None => offers.wide.push(Arc::clone(slice)),
                }
            }
        }
        offers
    }

    /// What a node can use: its own devices first.
    pub fn on(&self, node: &Node) -> Vec<Offer<'_>> {
        let own = self.by_node.get(&node.meta.name).into_iter().flatten();
        let all = own.chain(&self.wide).flat_map(|s| {
            s.spec.devices.iter().map(|device| Offer { slice: &s.spec, device })
        });
        all.filter(|o| o.device.shared_counters == 0 && o.reaches(node)).collect()
    }
}
