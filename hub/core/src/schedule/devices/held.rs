//! What claims hold already.
//!
//! In: allocations in the view, and those that are decided and on their way there. Out: devices that somebody has for
//! itself, and how much is taken of those that several share. Never: counts administrators, who only look.

use super::{capacity::Amounts, offers::Id};
use crate::{
    Changed, Key, ObjectStore,
    view::{AllocatedDevice, ResourceClaim},
};
use limpet_objects::quantity::Quantity;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One device of an allocation; `Some`: a share of it.
pub type Taken = (Id, Option<Amounts>);

#[derive(Clone, Debug, Default)]
pub struct Held {
    whole: BTreeSet<Id>,
    shares: BTreeMap<Id, Amounts>,
}

impl Held {
    pub fn gather(view: &ObjectStore, in_flight: &InFlight) -> Held {
        let mut held = Held::default();
        let allocations = view.all::<ResourceClaim>().filter_map(|c| c.status.allocation.as_ref());
        for result in allocations.flat_map(|a| &a.devices.results).filter(|r| !r.admin_access) {
            held.add(&of_result(result));
        }
        in_flight.claims.values().flat_map(|(_, taken)| taken).for_each(|t| held.add(t));
        held
    }

    fn add(&mut self, (id, share): &Taken) {
        match share {
            None => drop(self.whole.insert(id.clone())),
            Some(amounts) => {
                let sums = self.shares.entry(id.clone()).or_default();
                for (name, amount) in amounts {
                    let sum = sums.entry(name.clone()).or_insert(Quantity::ZERO);
                    *sum = sum.plus(*amount);
                }
            }
        }
    }

    /// Somebody has it for itself.
    pub fn whole(&self, id: &Id) -> bool {
        self.whole.contains(id)
    }

    /// What is taken of a shared device.
    pub fn share(&self, id: &Id) -> Option<&Amounts> {
        self.shares.get(id)
    }

    pub fn has(&self, id: &Id) -> bool {
        self.whole(id) || self.shares.contains_key(id)
    }
}

fn of_result(result: &AllocatedDevice) -> Taken {
    let id = (result.driver.clone(), result.pool.clone(), result.device.clone());
    let amounts = || {
        let each = result.consumed_capacity.iter();
        each.filter_map(|(name, amount)| Some((name.clone(), amount.parse().ok()?))).collect()
    };
    (id, result.share_id.is_some().then(amounts))
}

/// Allocations that are decided and not in the view yet.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    /// By uid of the claim (of the pod, when its claim is still to be made): for which pod, and what.
    claims: BTreeMap<Box<str>, (Key, Vec<Taken>)>,
}

impl InFlight {
    pub fn assume(&mut self, pod: &Key, claim: &str, taken: &[Taken]) {
        self.claims.insert(claim.into(), (pod.clone(), taken.to_vec()));
    }

    pub fn observe(&mut self, changed: &Changed) {
        if !changed.is::<ResourceClaim>() {
            return;
        }
        let uid = |c: &Arc<ResourceClaim>| c.meta.uid.clone();
        let now = changed.new_as::<ResourceClaim>();
        if let Some(old) = changed.old_as::<ResourceClaim>().map(uid).filter(|o| now.is_none_or(|n| n.meta.uid != *o)) {
            self.claims.remove(&old);
        }
        if let Some(done) = now.filter(|c| c.status.allocation.is_some()) {
            self.claims.remove(&done.meta.uid);
            if super::extended::is_one(done)
                && let Some(owner) = done.meta.controller()
            {
                self.claims.remove(&owner.uid);
            }
        }
    }

    /// The pod's plan could not be carried out.
    pub fn failed(&mut self, pod: &Key) {
        self.claims.retain(|_, (of, _)| of != pod);
    }

    /// Whether a claim is being allocated for another pod.
    pub fn of_another(&self, claim: &str, pod: &Key) -> bool {
        self.claims.get(claim).is_some_and(|(of, _)| of != pod)
    }
}
