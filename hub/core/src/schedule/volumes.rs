//! Whether a pod's volumes can be where a node is, and what must be asked for once a node is chosen.
//!
//! In: the pod's claims, volumes, classes. Out: reasons against all nodes or one; for claims that wait for their first
//! consumer, the changes that bind them. Semantics: kube-scheduler's VolumeBinding, VolumeZone, VolumeRestrictions and
//! NodeVolumeLimits. Never: makes a volume.

use super::{
    reason::{Plugin, Reason},
    room::Spot,
};
use crate::{
    Change, ObjectStore,
    view::{
        CSINode, ClaimRef, Kind, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodRef, StorageClass,
    },
};
use serde_json::json;
use std::sync::Arc;

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const ZONE_KEYS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// The volumes of one pod.
#[derive(Debug, Default)]
pub struct VolumeRules {
    bound: Vec<Arc<PersistentVolume>>,
    waiting: Vec<Waiting>,
    /// Claims that only one pod at a time may use.
    exclusive: Vec<Box<str>>,
    namespace: Box<str>,
}

#[derive(Debug)]
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    /// Volumes that exist and would do, smallest first.
    fitting: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
}

/// Names of the claims that a pod uses.
pub fn claims_of(pod: &Pod) -> Vec<Box<str>> {
    let named = pod.spec.refs.iter().filter_map(|r| match r {
        PodRef::Claim(name) => Some(name.clone()),
        _ => None,
    });
    let own = pod.spec.ephemeral_volumes.iter().map(|v| format!("{}-{v}", pod.meta.name).into());
    named.chain(own).collect()
}

impl VolumeRules {
    /// The rules, or why no node at all will do.
    pub fn gather(view: &ObjectStore, pod: &Pod) -> Result<VolumeRules, Reason> {
        let mut rules = VolumeRules { namespace: pod.meta.namespace.clone(), ..VolumeRules::default() };
        for name in claims_of(pod) {
            let Some(claim) = view.get::<PersistentVolumeClaim>(&pod.meta.namespace, &name) else {
                let own = pod.spec.ephemeral_volumes.iter().any(|v| *name == *format!("{}-{v}", pod.meta.name));
                return Err(everywhere(match own {
                    true => format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                    ),
                    false => format!("persistentvolumeclaim \"{name}\" not found"),
                }));
            };
            if claim.meta.deleting.is_some() {
                return Err(everywhere(format!("persistentvolumeclaim \"{name}\" is being deleted")));
            }
            if claim.spec.access_modes.iter().any(|m| &**m == "ReadWriteOncePod") {
                rules.exclusive.push(name);
            }
            rules.add(view, claim)?;
        }
        Ok(rules)
    }

    fn add(&mut self, view: &ObjectStore, claim: &Arc<PersistentVolumeClaim>) -> Result<(), Reason> {
        let volume_name = &claim.spec.volume_name;
        if &*claim.status.phase == "Lost" {
            let name = &claim.meta.name;
            let text = format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume_name}\""
            );
            return Err(everywhere(text));
        }
        if &*claim.status.phase == "Bound" {
            // A volume that nobody wrote down places nothing.
            self.bound.extend(view.get::<PersistentVolume>("", volume_name).cloned());
            return Ok(());
        }
        let class = match &claim.spec.storage_class_name {
            Some(name) if name.is_empty() => None,
            Some(name) => view.get::<StorageClass>("", name),
            None => default_class(view),
        };
        let Some(class) = class.filter(|c| c.waits_for_consumer() && volume_name.is_empty()) else {
            return Err(everywhere("pod has unbound immediate PersistentVolumeClaims"));
        };
        let mut fitting: Vec<_> = view.all::<PersistentVolume>().filter(|v| fits(v, claim, class)).cloned().collect();
        fitting.sort_by_key(|v| v.spec.capacity.get("storage"));
        let provisioned = (&*class.provisioner != NO_PROVISIONER).then(|| Arc::clone(class));
        self.waiting.push(Waiting { claim: Arc::clone(claim), fitting, class: provisioned });
        Ok(())
    }

    pub fn against(&self, view: &ObjectStore, spot: &Spot<'_>) -> Option<Reason> {
        if self.bound.is_empty() && self.waiting.is_empty() && self.exclusive.is_empty() {
            return None;
        }
        if self.in_use(spot) {
            let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Some(Reason::crowded(Plugin::VolumeRestrictions, text));
        }
        if self.too_many(view, spot) {
            return Some(Reason::crowded(Plugin::NodeVolumeLimits, "node(s) exceed max volume count"));
        }
        let node = spot.node;
        if !self.bound.iter().all(|v| reaches(v, node)) {
            let text = "node(s) didn't match PersistentVolume's node affinity";
            return Some(Reason::hopeless(Plugin::VolumeBinding, text));
        }
        let mut taken = Vec::new();
        if !self.waiting.iter().all(|w| w.way(node, &mut taken).is_some()) {
            let text = "node(s) didn't find available persistent volumes to bind";
            return Some(Reason::hopeless(Plugin::VolumeBinding, text));
        }
        if !self.bound.iter().all(|v| same_zone(v, node)) {
            return Some(Reason::hopeless(Plugin::VolumeZone, "node(s) had no available volume zone"));
        }
        None
    }

    fn in_use(&self, spot: &Spot<'_>) -> bool {
        !self.exclusive.is_empty()
            && spot.running().any(|p| {
                p.meta.namespace == self.namespace && claims_of(p).iter().any(|c| self.exclusive.contains(c))
            })
    }

    fn too_many(&self, view: &ObjectStore, spot: &Spot<'_>) -> bool {
        let Some(limits) = view.get::<CSINode>("", &spot.node.meta.name) else { return false };
        limits.spec.drivers.iter().any(|driver| {
            let Some(most) = driver.allocatable.count else { return false };
            let ours = |v: &&Arc<PersistentVolume>| v.spec.csi.as_ref().is_some_and(|c| c.driver == driver.name);
            let mut names: Vec<&str> = self.bound.iter().filter(ours).map(|v| &*v.meta.name).collect();
            if names.is_empty() {
                return false;
            }
            for pod in spot.running() {
                for claim in claims_of(pod) {
                    let claim = view.get::<PersistentVolumeClaim>(&pod.meta.namespace, &claim);
                    let volume = claim.and_then(|c| view.get::<PersistentVolume>("", &c.spec.volume_name));
                    names.extend(volume.iter().filter(|v| ours(v)).map(|v| &*v.meta.name));
                }
            }
            names.sort_unstable();
            names.dedup();
            names.len() as i64 > most
        })
    }

    /// What must be written before the pod can be bound to this node; empty: its volumes are there.
    pub fn to_bind(&self, node: &Node) -> Vec<Change> {
        let mut taken = Vec::new();
        let ways = self.waiting.iter().filter_map(|w| Some((w, w.way(node, &mut taken)?)));
        ways.filter_map(|(w, way)| change(&w.claim, way, node)).collect()
    }

    /// Claims that are not bound yet.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

enum Way {
    Volume(Arc<PersistentVolume>),
    Provision,
}

impl Waiting {
    fn way(&self, node: &Node, taken: &mut Vec<Box<str>>) -> Option<Way> {
        let free = |v: &&Arc<PersistentVolume>| reaches(v, node) && !taken.contains(&v.meta.name);
        let chosen = self.claim.meta.annotations.get(SELECTED_NODE);
        if chosen.is_none()
            && let Some(volume) = self.fitting.iter().find(free)
        {
            taken.push(volume.meta.name.clone());
            return Some(Way::Volume(Arc::clone(volume)));
        }
        let class = self.class.as_ref()?;
        let here = chosen.is_none_or(|n| n == &*node.meta.name);
        let allowed = class.allowed_topologies.is_empty()
            || class.allowed_topologies.iter().any(|t| {
                t.match_label_expressions
                    .iter()
                    .all(|e| node.meta.labels.get(&e.key).is_some_and(|v| e.values.iter().any(|x| &**x == v)))
            });
        (here && allowed).then_some(Way::Provision)
    }
}

fn change(claim: &PersistentVolumeClaim, way: Way, node: &Node) -> Option<Change> {
    let (resource, meta, merge) = match &way {
        Way::Provision if claim.meta.annotations.get(SELECTED_NODE) == Some(&*node.meta.name) => return None,
        Way::Provision => {
            let annotations = json!({SELECTED_NODE: node.meta.name});
            (PersistentVolumeClaim::RESOURCE, &claim.meta, json!({"metadata": {"annotations": annotations}}))
        }
        Way::Volume(volume) if volume.spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.meta.uid) => return None,
        Way::Volume(volume) => {
            let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.meta.uid,
                "namespace": claim.meta.namespace, "name": claim.meta.name});
            let merge = json!({"metadata": {"annotations": {BOUND_BY_US: "yes"}}, "spec": {"claimRef": reference}});
            (PersistentVolume::RESOURCE, &volume.meta, merge)
        }
    };
    Some(Change::Patch {
        resource: resource.into(),
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        uid: meta.uid.to_string(),
        resource_version: Some(meta.resource_version),
        subresource: None,
        merge,
    })
}

fn everywhere(text: impl Into<std::borrow::Cow<'static, str>>) -> Reason {
    Reason::hopeless(Plugin::VolumeBinding, text)
}

/// The newest class that is marked as the default.
fn default_class(view: &ObjectStore) -> Option<&Arc<StorageClass>> {
    let marked = view.all::<StorageClass>().filter(|c| c.meta.annotations.get(DEFAULT_CLASS) == Some("true"));
    marked.max_by_key(|c| c.meta.created_at())
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim, class: &StorageClass) -> bool {
    let mode = |m: &str| if m.is_empty() { "Filesystem" } else { m }.to_owned();
    let ours = |r: &ClaimRef| r.namespace == claim.meta.namespace && r.name == claim.meta.name;
    let spec = &volume.spec;
    volume.meta.deleting.is_none()
        && spec.claim_ref.as_ref().is_none_or(ours)
        && *spec.storage_class_name == *class.meta.name
        && mode(&spec.volume_mode) == mode(&claim.spec.volume_mode)
        && claim.spec.access_modes.iter().all(|m| spec.access_modes.contains(m))
        && claim.spec.selector.as_ref().is_none_or(|s| s.matches(&volume.meta.labels))
        && spec.capacity.get("storage") >= claim.spec.resources.requests.get("storage")
}

fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    required.is_none_or(|terms| terms.matches(&node.meta.name, &node.meta.labels))
}

/// Labels of a volume may list several zones, joined by two underscores.
fn same_zone(volume: &PersistentVolume, node: &Node) -> bool {
    ZONE_KEYS.iter().all(|key| {
        volume.meta.labels.get(key).is_none_or(|zones| {
            node.meta.labels.get(key).is_some_and(|zone| zones.split("__").any(|z| z == zone))
        })
    })
}
