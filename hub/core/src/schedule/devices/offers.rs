//! Devices that are on offer.
//!
//! In: ResourceSlices. Out: the devices of complete pools that a node can use, and what is left of the counters that they
//! share. Never: a device of an old generation of its pool, of a pool with missing slices or with a name twice, or one that
//! takes from a counter that its pool has not.

use super::held::Held;
use crate::{
    ObjectStore,
    view::{Device, DevicePlace, Node, ResourceSlice, SliceSpec},
};
use limpet_objects::quantity::Quantity;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// (driver, pool, device)
pub type Id = (Box<str>, Box<str>, Box<str>);

/// (driver, pool)
type Pool = (Box<str>, Box<str>);

/// What is left, by counter set and counter.
pub type Counters = BTreeMap<(Box<str>, Box<str>), Quantity>;

#[derive(Clone, Debug)]
pub struct Offer<'a> {
    pub slice: &'a SliceSpec,
    pub device: &'a Device,
    /// Of the device's pool.
    pub left: Option<&'a Counters>,
}

impl Offer<'_> {
    pub fn id(&self) -> Id {
        id(self.slice, self.device)
    }

    pub fn place(&self) -> &DevicePlace {
        if self.slice.per_device_node_selection { &self.device.place } else { &self.slice.place }
    }

    pub fn same_pool(&self, other: &Offer<'_>) -> bool {
        self.slice.driver == other.slice.driver && self.slice.pool.name == other.slice.pool.name
    }

    fn reaches(&self, node: &Node) -> bool {
        let place = self.place();
        place.all_nodes
            || place.node_name.as_ref().is_some_and(|name| *name == node.meta.name)
            || place.node_selector.as_ref().is_some_and(|s| s.matches(&node.meta.name, &node.meta.labels))
    }

    /// Whether every counter that the device takes from is there.
    fn has_counters(&self) -> bool {
        self.device.consumes_counters.iter().all(|c| {
            c.counters.iter().all(|(name, amount)| {
                let known = self.left.is_some_and(|l| l.contains_key(&(c.counter_set.clone(), name.clone())));
                known && amount.value.parse::<Quantity>().is_ok()
            })
        })
    }
}

fn id(slice: &SliceSpec, device: &Device) -> Id {
    (slice.driver.clone(), slice.pool.name.clone(), device.name.clone())
}

/// What a device takes, by counter set and counter.
pub fn consumption(device: &Device) -> impl Iterator<Item = ((Box<str>, Box<str>), Quantity)> + '_ {
    device.consumes_counters.iter().flat_map(|c| {
        c.counters.iter().filter_map(|(name, amount)| {
            Some(((c.counter_set.clone(), name.clone()), amount.value.parse().ok()?))
        })
    })
}

/// The slices that count, by whom they are for.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    by_node: BTreeMap<Box<str>, Vec<Arc<ResourceSlice>>>,
    /// For more than one node.
    wide: Vec<Arc<ResourceSlice>>,
    left: BTreeMap<Pool, Counters>,
}

impl Offers {
    pub fn gather(view: &ObjectStore, held: &Held) -> Offers {
        let mut pools: BTreeMap<(&str, &str), Vec<&Arc<ResourceSlice>>> = BTreeMap::new();
        for slice in view.all::<ResourceSlice>() {
            pools.entry((&slice.spec.driver, &slice.spec.pool.name)).or_default().push(slice);
        }
        let mut offers = Offers::default();
        for ((driver, pool), slices) in pools {
            let newest = slices.iter().map(|s| s.spec.pool.generation).max().unwrap_or(0);
            let current: Vec<_> = slices.into_iter().filter(|s| s.spec.pool.generation == newest).collect();
            let mut names = BTreeSet::new();
            let once = current.iter().flat_map(|s| &s.spec.devices).all(|d| names.insert(&d.name));
            let complete = current.iter().all(|s| s.spec.pool.resource_slice_count == current.len() as i64);
            if !once || !complete {
                continue;
            }
            let left = left(&current, held);
            if !left.is_empty() {
                offers.left.insert((driver.into(), pool.into()), left);
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
            let left = match self.left.is_empty() {
                true => None,
                false => self.left.get(&(s.spec.driver.clone(), s.spec.pool.name.clone())),
            };
            s.spec.devices.iter().map(move |device| Offer { slice: &s.spec, device, left })
        });
        all.filter(|o| o.has_counters() && o.reaches(node)).collect()
    }
}

/// The counters of a pool without what its devices take that somebody has.
fn left(slices: &[&Arc<ResourceSlice>], held: &Held) -> Counters {
    let mut left = Counters::new();
    for set in slices.iter().flat_map(|s| &s.spec.shared_counters) {
        for (name, counter) in &set.counters {
            if let Ok(value) = counter.value.parse() {
                left.insert((set.name.clone(), name.clone()), value);
            }
        }
    }
    if left.is_empty() {
        return left;
    }
    for slice in slices {
        let taking = slice.spec.devices.iter().filter(|d| !d.consumes_counters.is_empty());
        for device in taking.filter(|d| held.has(&id(&slice.spec, d))) {
            for (counter, amount) in consumption(device) {
                if let Some(value) = left.get_mut(&counter) {
                    *value = value.minus(amount);
                }
            }
        }
    }
    left
}
