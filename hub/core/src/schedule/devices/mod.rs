//! Claims on devices (dynamic resource allocation with structured parameters).
//!
//! In: a pod's ResourceClaims, classes and slices, what is allocated. Out: reasons against all nodes or one; the allocation
//! and reservation that go before the binding. Semantics:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: gives a device to two claims, but to administrators who only look.

mod offers;
mod search;
mod selector;
mod write;

use super::reason::{Plugin, Reason};
use crate::{
    Change, Changed, Key, ObjectStore,
    view::{DeviceClass, ExactDevices, Node, Pod, ResourceClaim},
};
use offers::{Id, Offers};
use search::{Alternative, Request, Wishes};
use selector::Selector;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// As upstream.
const CONSUMERS_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct DeviceRules {
    claims: Vec<Arc<ResourceClaim>>,
    /// What is to be allocated, if anything.
    todo: Option<Todo>,
}

#[derive(Debug)]
struct Todo {
    /// The claims without an allocation, in the pod's order.
    claims: Vec<Arc<ResourceClaim>>,
    classes: BTreeMap<Box<str>, Arc<DeviceClass>>,
    wishes: Wishes,
    offers: Offers,
    held: BTreeSet<Id>,
}

/// What is written before the binding.
#[derive(Debug, Default)]
pub struct Commitment {
    pub changes: Vec<Change>,
    /// Devices by uid of their claim.
    allocated: Vec<(Box<str>, Vec<Id>)>,
}

/// Allocations that are decided and not in the view yet.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    /// By uid of the claim: for which pod, and which devices.
    claims: BTreeMap<Box<str>, (Key, Vec<Id>)>,
}

impl InFlight {
    pub fn assume(&mut self, pod: &Key, commitment: &Commitment) {
        for (claim, devices) in &commitment.allocated {
            self.claims.insert(claim.clone(), (pod.clone(), devices.clone()));
        }
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
        }
    }

    /// The pod's plan could not be carried out.
    pub fn failed(&mut self, pod: &Key) {
        self.claims.retain(|_, (of, _)| of != pod);
    }
}

fn hopeless(text: impl Into<String>) -> Reason {
    Reason::hopeless(Plugin::DynamicResources, text.into())
}

impl DeviceRules {
    pub fn gather(view: &ObjectStore, pod: &Pod, in_flight: &InFlight) -> Result<DeviceRules, Reason> {
        let mut rules = DeviceRules::default();
        for (own_name, named) in &pod.spec.device_claims {
            let made = || pod.status.device_claims.iter().find(|c| c.0 == *own_name).map(|c| &c.1);
            let Some(name) = named.as_ref().or_else(made) else {
                return Err(hopeless(format!("waiting for dynamic resource controller to create the resourceclaim for \
                                             pod claim \"{own_name}\"")));
            };
            let Some(claim) = view.get::<ResourceClaim>(&pod.meta.namespace, name) else {
                return Err(hopeless(format!("resourceclaim.resource.k8s.io \"{name}\" not found")));
            };
            if claim.meta.deleting.is_some() {
                return Err(hopeless(format!("resourceclaim must not be used, \"{name}\" is being deleted")));
            }
            let users = &claim.status.reserved_for;
            if users.len() >= CONSUMERS_MAX && !users.iter().any(|c| c.uid == pod.meta.uid) {
                return Err(hopeless(format!("resourceclaim in use: \"{name}\"")));
            }
            let of_another = |f: &(Key, Vec<Id>)| f.0 != super::place::key_of(pod);
            if in_flight.claims.get(&claim.meta.uid).is_some_and(of_another) {
                return Err(hopeless(format!("resourceclaim \"{name}\" is being allocated for another pod")));
            }
            if !rules.claims.iter().any(|c| c.meta.uid == claim.meta.uid) {
                rules.claims.push(Arc::clone(claim));
            }
        }
        let open: Vec<_> = rules.claims.iter().filter(|c| c.status.allocation.is_none()).cloned().collect();
        if !open.is_empty() {
            rules.todo = Some(Todo::gather(view, open, in_flight)?);
        }
        Ok(rules)
    }

    pub fn against(&self, node: &Node) -> Option<Reason> {
        for allocation in self.claims.iter().filter_map(|c| c.status.allocation.as_ref()) {
            let terms = allocation.node_selector.as_ref();
            if terms.is_some_and(|t| !t.matches(&node.meta.name, &node.meta.labels)) {
                return Some(hopeless("resourceclaim not available on the node"));
            }
        }
        match self.todo.as_ref()?.wishes_on(node) {
            Ok(Some(_)) => None,
            Ok(None) => Some(hopeless("cannot allocate all claims")),
            Err(expression) => Some(hopeless(expression)),
        }
    }

    /// The allocations on a node that `against` found good, and the pod's name on each of its claims.
    pub fn commitment(&self, pod: &Pod, node: &Node) -> Commitment {
        let mut commitment = Commitment::default();
        if let Some(todo) = &self.todo {
            todo.commit(pod, node, &mut commitment);
        }
        let reserved = |c: &&Arc<ResourceClaim>| c.status.reserved_for.iter().any(|u| u.uid == pod.meta.uid);
        let allocated = self.claims.iter().filter(|c| c.status.allocation.is_some());
        commitment.changes.extend(allocated.filter(|c| !reserved(c)).map(|c| write::reservation(c, pod)));
        commitment
    }
}

impl Todo {
    fn gather(view: &ObjectStore, claims: Vec<Arc<ResourceClaim>>, in_flight: &InFlight) -> Result<Todo, Reason> {
        let (mut classes, mut wishes) = (BTreeMap::new(), Wishes::default());
        for (at, claim) in claims.iter().enumerate() {
            let devices = &claim.spec.devices;
            wishes.constraints.push(devices.constraints.clone());
            for request in &devices.requests {
                let exact = request.exactly.iter().map(|e| (request.name.to_string(), e));
                let first = request.first_available.iter().map(|e| (format!("{}/{}", request.name, e.name), e));
                let all: Result<Vec<_>, Reason> =
                    exact.chain(first).map(|(name, e)| alternative(view, claim, name, e, &mut classes)).collect();
                wishes.requests.push(Request { claim: at, alternatives: all? });
            }
        }
        let allocations = view.all::<ResourceClaim>().filter_map(|c| c.status.allocation.as_ref());
        let results = allocations.flat_map(|a| &a.devices.results).filter(|r| !r.admin_access);
        let held = results.map(|r| (r.driver.clone(), r.pool.clone(), r.device.clone()));
        let assumed = in_flight.claims.values().flat_map(|(_, devices)| devices.iter().cloned());
        Ok(Todo { claims, classes, wishes, offers: Offers::gather(view), held: held.chain(assumed).collect() })
    }

    fn wishes_on(&self, node: &Node) -> Result<Option<Vec<search::Choice>>, String> {
        self.wishes.search(&self.offers.on(node), &self.held)
    }

    fn commit(&self, pod: &Pod, node: &Node, commitment: &mut Commitment) {
        let offers = self.offers.on(node);
        let Ok(Some(choices)) = self.wishes.search(&offers, &self.held) else { return };
        for (at, claim) in self.claims.iter().enumerate() {
            let own: Vec<_> = choices.iter().filter(|c| self.wishes.requests[c.request].claim == at).collect();
            let chosen: Vec<_> = own
                .into_iter()
                .map(|c| (&self.wishes.requests[c.request].alternatives[c.alternative], &offers[c.offer]))
                .collect();
            let devices = chosen.iter().filter(|(a, _)| !a.admin).map(|(_, offer)| offer.id()).collect();
            commitment.allocated.push((claim.meta.uid.clone(), devices));
            commitment.changes.extend(write::allocation(claim, &self.classes, &chosen, node, pod));
        }
    }
}

fn alternative(
    view: &ObjectStore,
    claim: &ResourceClaim,
    name: String,
    wanted: &ExactDevices,
    classes: &mut BTreeMap<Box<str>, Arc<DeviceClass>>,
) -> Result<Alternative, Reason> {
    let class_name = &wanted.device_class_name;
    let Some(class) = view.get::<DeviceClass>("", class_name) else {
        return Err(hopeless(format!("request {name}: device class {class_name} does not exist")));
    };
    classes.insert(class_name.clone(), Arc::clone(class));
    let mut selectors = Vec::new();
    for (source, list) in [("class", &class.spec.selectors), ("request", &wanted.selectors)] {
        for (at, selector) in list.iter().enumerate() {
            let compiled = Selector::compile(&selector.cel.expression).map_err(|e| {
                hopeless(format!("claim {}: {source} {name}: selector #{at}: CEL compile error: {e}", claim.meta.name))
            })?;
            selectors.push(compiled);
        }
    }
    Ok(Alternative {
        name,
        class: class_name.clone(),
        selectors,
        tolerations: wanted.tolerations.clone(),
        count: (&*wanted.allocation_mode != "All").then(|| usize::try_from(wanted.count.max(1)).unwrap_or(usize::MAX)),
        admin: wanted.admin_access,
    })
}

#[cfg(test)]
mod tests;
