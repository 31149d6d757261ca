//! Claims on devices (dynamic resource allocation with structured parameters).
//!
//! In: a pod's ResourceClaims, classes and slices, what is allocated. Out: reasons against all nodes or one; the allocation
//! and reservation that go before the binding. Semantics:
//! https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
//! Never: gives a device to two claims, but to administrators who only look.

mod capacity;
mod extended;
mod held;
mod offers;
mod search;
mod selector;
mod write;

use super::reason::{Plugin, Reason};
use crate::{
    Change, Key, ObjectStore,
    view::{DeviceClass, ExactDevices, Node, Pod, ResourceClaim},
};
pub use held::InFlight;
use held::{Held, Taken};
use offers::Offers;
use search::{Alternative, Chosen, Request, Wishes};
use selector::Selector;
use std::{collections::BTreeMap, sync::Arc};

/// As upstream.
const CONSUMERS_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct DeviceRules {
    claims: Vec<Arc<ResourceClaim>>,
    /// What is to be allocated, if anything.
    todo: Option<Todo>,
    /// Extended resources that classes answer where nodes have them not.
    by_class: Vec<Box<str>>,
}

#[derive(Debug)]
struct Todo {
    /// The claims without an allocation, in the pod's order.
    claims: Vec<Arc<ResourceClaim>>,
    /// Requests of the claim that is still to be made; they come behind those of `claims`.
    extended: Vec<extended::Wish>,
    /// A claim of an attempt that came to nothing.
    leftover: Option<Arc<ResourceClaim>>,
    classes: BTreeMap<Box<str>, Arc<DeviceClass>>,
    wishes: Wishes,
    offers: Offers,
    held: Held,
}

/// What is written before the binding.
#[derive(Debug, Default)]
pub struct Commitment {
    pub changes: Vec<Change>,
    /// Devices by uid of their claim, or of the pod for the one that is made for it.
    allocated: Vec<(Box<str>, Vec<Taken>)>,
}

impl Commitment {
    pub fn assume(&self, pod: &Key, in_flight: &mut InFlight) {
        self.allocated.iter().for_each(|(claim, taken)| in_flight.assume(pod, claim, taken));
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
            if in_flight.of_another(&claim.meta.uid, &super::place::key_of(pod)) {
                return Err(hopeless(format!("resourceclaim \"{name}\" is being allocated for another pod")));
            }
            if !rules.claims.iter().any(|c| c.meta.uid == claim.meta.uid) {
                rules.claims.push(Arc::clone(claim));
            }
        }
        let mut wishes = extended::wishes(view, pod);
        rules.by_class = wishes.iter().map(|w| w.resource.clone()).collect();
        let mut leftover = if wishes.is_empty() { None } else { extended::of_pod(view, pod).cloned() };
        if let Some(made) = leftover.take_if(|c| c.status.allocation.is_some() && pod.status.extended_claim.is_some()) {
            rules.claims.push(made);
            wishes.clear();
        }
        let open: Vec<_> = rules.claims.iter().filter(|c| c.status.allocation.is_none()).cloned().collect();
        if !open.is_empty() || !wishes.is_empty() {
            let mut todo = Todo::gather(view, open, wishes, in_flight)?;
            todo.leftover = leftover;
            rules.todo = Some(todo);
        }
        Ok(rules)
    }

    /// Whether somebody else than the node answers for an extended resource that the node has not.
    pub fn answers(&self, resource: &str) -> bool {
        self.by_class.iter().any(|r| **r == *resource)
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
    pub fn commitment(&self, pod: &Pod, node: &Node, seed: u64) -> Commitment {
        let mut commitment = Commitment::default();
        if let Some(todo) = &self.todo {
            todo.commit(pod, node, seed, &mut commitment);
        }
        let reserved = |c: &&Arc<ResourceClaim>| c.status.reserved_for.iter().any(|u| u.uid == pod.meta.uid);
        let allocated = self.claims.iter().filter(|c| c.status.allocation.is_some());
        commitment.changes.extend(allocated.filter(|c| !reserved(c)).map(|c| write::reservation(c, pod)));
        commitment
    }
}

impl Todo {
    fn gather(
        view: &ObjectStore,
        claims: Vec<Arc<ResourceClaim>>,
        extended: Vec<extended::Wish>,
        in_flight: &InFlight,
    ) -> Result<Todo, Reason> {
        let (mut classes, mut wishes) = (BTreeMap::new(), Wishes::default());
        for (at, claim) in claims.iter().enumerate() {
            let devices = &claim.spec.devices;
            wishes.constraints.push(devices.constraints.clone());
            for request in &devices.requests {
                let exact = request.exactly.iter().map(|e| (request.name.to_string(), e));
                let first = request.first_available.iter().map(|e| (format!("{}/{}", request.name, e.name), e));
                let of = &claim.meta.name;
                let all: Result<Vec<_>, Reason> =
                    exact.chain(first).map(|(name, e)| alternative(view, of, name, e, &mut classes)).collect();
                wishes.requests.push(Request { claim: at, alternatives: all?, instead_of: None });
            }
        }
        wishes.constraints.push(Box::default());
        for wish in &extended {
            let exact = ExactDevices {
                device_class_name: wish.class.meta.name.clone(),
                count: wish.count,
                ..ExactDevices::default()
            };
            let one = alternative(view, "of extended resources", wish.request.clone(), &exact, &mut classes)?;
            let instead_of = Some(wish.resource.clone());
            wishes.requests.push(Request { claim: claims.len(), alternatives: vec![one], instead_of });
        }
        let held = Held::gather(view, in_flight);
        Ok(Todo { claims, extended, leftover: None, classes, wishes, offers: Offers::gather(view, &held), held })
    }

    fn wishes_on(&self, node: &Node) -> Result<Option<Vec<Chosen>>, String> {
        let has = |r: &Request| r.instead_of.as_ref().is_some_and(|resource| extended::has(node, resource));
        self.wishes.search(&self.offers.on(node), &self.held, has)
    }

    fn commit(&self, pod: &Pod, node: &Node, seed: u64, commitment: &mut Commitment) {
        let offers = self.offers.on(node);
        let Ok(Some(choices)) = self.wishes_on(node) else { return };
        let of = |claim: usize| -> Vec<write::Pick<'_>> {
            let own = choices.iter().filter(|c| self.wishes.requests[c.request].claim == claim);
            own.map(|c| write::Pick {
                wanted: &self.wishes.requests[c.request].alternatives[c.alternative],
                offer: &offers[c.offer],
                share: c.share.as_ref(),
            })
            .collect()
        };
        let taken = |picks: &[write::Pick<'_>]| -> Vec<Taken> {
            picks.iter().filter(|p| !p.wanted.admin).map(|p| (p.offer.id(), p.share.cloned())).collect()
        };
        for (at, claim) in self.claims.iter().enumerate() {
            let picks = of(at);
            commitment.allocated.push((claim.meta.uid.clone(), taken(&picks)));
            commitment.changes.extend(write::allocation(claim, &self.classes, &picks, node, pod));
        }
        if let Some(old) = &self.leftover {
            commitment.changes.push(write::removal(old));
        }
        let picks = of(self.claims.len());
        if !picks.is_empty() {
            let wishes: Vec<_> = self.extended.iter().filter(|w| !extended::has(node, &w.resource)).collect();
            let allocation = write::allocated(None, &self.classes, &picks, node, &pod.meta.uid);
            commitment.allocated.push((pod.meta.uid.clone(), taken(&picks)));
            commitment.changes.extend(extended::changes(pod, &wishes, allocation, seed));
        }
    }
}

fn alternative(
    view: &ObjectStore,
    claim: &str,
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
                hopeless(format!("claim {claim}: {source} {name}: selector #{at}: CEL compile error: {e}"))
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
        capacity: capacity::wanted(&wanted.capacity.requests),
    })
}

#[cfg(test)]
mod tests;
