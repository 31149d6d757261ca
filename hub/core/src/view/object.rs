//! One object of the view: its metadata, the fields that decisions read, and its bytes.
//!
//! In: canonical JSON. Out: `Obj<T>` and the enum over all kinds that are typed; everything else keeps metadata.
//! Never: fails on a field that it does not read; an object that cannot be read as its kind keeps its metadata.

use super::{
    beside,
    layout::Layout,
    kinds::*,
    meta::Meta,
    pick::pick,
};
use crate::canonical::strip_nulls;
use bytes::Bytes;
use limpet_protocol::ItemHash;
use memchr::memmem;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    cmp::Ordering,
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock, OnceLock},
};

/// Identity of an object. `resource` is a store id such as `apps/deployments` or `/pods`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Key {
        let resource = known_resource(resource).map_or_else(|| resource.into(), |(_, id)| id);
        Key { resource, namespace: namespace.into(), name: name.into() }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        // Of a kind that the view knows there is one text only.
        let resource = match Arc::ptr_eq(&self.resource, &other.resource) {
            true => Ordering::Equal,
            false => self.resource.cmp(&other.resource),
        };
        resource.then_with(|| self.namespace.cmp(&other.namespace)).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
    }
}

/// An object with the fields `T` that decisions read.
pub struct Obj<T> {
    pub meta: Meta,
    /// Canonical JSON, shared with the store.
    pub raw: Bytes,
    data: T,
    /// Hash of the form in which nodes get this object; filled when first asked for.
    pub(crate) item_hash: OnceLock<ItemHash>,
    /// Where it was found by comparing with the version before: then all else is the status.
    pub(crate) layout: Option<Layout>,
}

impl<T> Deref for Obj<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: fmt::Debug> fmt::Debug for Obj<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Obj").field("meta", &self.meta).field("data", &self.data).finish()
    }
}

impl<T> Obj<T> {
    /// The whole object. Null when the bytes are not JSON (which the store never holds).
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }

    /// One field of the object by JSON pointer, e.g. `/spec/template`; null when it is missing.
    pub fn field(&self, pointer: &str) -> Value {
        pick(&self.raw, pointer)
    }
}

impl<T: Clone> Obj<T> {
    /// A copy with other data and the same bytes: for assumptions until the store's event comes.
    pub(crate) fn with(&self, change: impl FnOnce(&mut T)) -> Obj<T> {
        let mut data = self.data.clone();
        change(&mut data);
        Obj { meta: self.meta.clone(), raw: self.raw.clone(), data, item_hash: OnceLock::new(), layout: self.layout }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OnlyMeta {
    metadata: Meta,
}

fn read<T: DeserializeOwned + Default>(raw: &[u8]) -> Option<(Meta, T)> {
    if let Ok(both) = beside::read(raw) {
        return Some(both);
    }
    let mut value: Value = serde_json::from_slice(raw).ok()?;
    strip_nulls(&mut value);
    let meta = serde_json::from_value::<OnlyMeta>(value.clone()).ok()?.metadata;
    serde_json::from_value::<T>(value).ok().map(|data| (meta, data))
}

/// A kind whose spec is most of what is read, and stays the same while its status changes all the time.
trait KeepsSpec: DeserializeOwned {
    /// Whether more than the spec depends on it.
    fn is_tied(&self, _spec: &[u8]) -> bool {
        false
    }

    fn take_over(&mut self, old: &Self);
}

macro_rules! keeps_spec {
    ($($data:ident)*) => {
        $(impl KeepsSpec for $data {
            fn take_over(&mut self, old: &Self) {
                self.spec.clone_from(&old.spec);
            }
        })*
    };
}

keeps_spec! { DeploymentData ReplicaSetData StatefulSetData DaemonSetData }

impl KeepsSpec for PodData {
    fn is_tied(&self, spec: &[u8]) -> bool {
        // Who counts as a sidecar is in the status, too.
        self.assumed || memmem::find(spec, b"\"initContainers\"").is_some()
    }

    fn take_over(&mut self, old: &Self) {
        self.node.clone_from(&old.node);
        self.spec.clone_from(&old.spec);
    }
}

/// The next version of an object whose spec is as it was to the byte.
fn next<T: KeepsSpec>(old: &Obj<T>, raw: &Bytes) -> Option<Arc<Obj<T>>> {
    let before = old.layout.or_else(|| Layout::of(&old.raw))?;
    let (layout, status) = before.next(&old.raw, raw)?;
    let [_, metadata, spec, _] = layout.parts(raw)?;
    if old.data.is_tied(spec) {
        return None;
    }
    let meta = serde_json::from_slice(metadata).ok()?;
    let mut data: T = beside::read_field("status", status).ok()?;
    data.take_over(&old.data);
    Some(Arc::new(Obj { meta, raw: raw.clone(), data, item_hash: OnceLock::new(), layout: Some(layout) }))
}

/// A kind that the view knows by type.
pub trait Kind: Sized {
    const RESOURCE: &'static str;
    const API_VERSION: &'static str;
    const KIND: &'static str;
    /// Its place among the kinds that the view knows by type, below `KINDS`.
    const INDEX: usize;
    fn of(object: &Object) -> Option<&Arc<Self>>;
}

macro_rules! kinds {
    ($($name:ident, $data:ident, $resource:literal, $version:literal;)*) => {
        $(pub type $name = Obj<$data>;
        impl Kind for Obj<$data> {
            const RESOURCE: &'static str = $resource;
            const API_VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($name);
            const INDEX: usize = Index::$name as usize;
            fn of(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$name(o) => Some(o),
                    _ => None,
                }
            }
        })*

        /// Any object of the view.
        #[derive(Clone, Debug)]
        pub enum Object {
            $($name(Arc<Obj<$data>>),)*
            /// A kind that decisions know only by its metadata (no bytes are kept).
            Other(Arc<Obj<()>>),
        }

        impl Object {
            pub fn meta(&self) -> &Meta {
                match self {
                    $(Object::$name(o) => &o.meta,)*
                    Object::Other(o) => &o.meta,
                }
            }

            /// Canonical JSON; empty for kinds that are not typed.
            pub fn raw(&self) -> &Bytes {
                match self {
                    $(Object::$name(o) => &o.raw,)*
                    Object::Other(o) => &o.raw,
                }
            }

            /// Reads an object; `None` when not even its metadata can be read.
            pub fn parse(resource: &str, raw: Bytes) -> Option<Object> {
                match resource {
                    $($resource => {
                        if let Some((meta, data)) = read::<$data>(&raw) {
                            let item_hash = OnceLock::new();
                            return Some(Object::$name(Arc::new(Obj { meta, raw, data, item_hash, layout: None })));
                        }
                    })*
                    _ => {}
                }
                let meta = read::<Nothing>(&raw)?.0;
                let item_hash = OnceLock::new();
                Some(Object::Other(Arc::new(Obj { meta, raw: Bytes::new(), data: (), item_hash, layout: None })))
            }
        }

        enum Index {
            $($name,)*
        }

        /// How many kinds the view knows by type.
        pub(super) const KINDS: usize = [$(Index::$name as usize,)*].len();

        /// Place and store id of a kind that the view knows by type: the same text for all keys.
        pub(super) fn known_resource(resource: &str) -> Option<(usize, Arc<str>)> {
            match resource {
                $($resource => {
                    static ID: LazyLock<Arc<str>> = LazyLock::new(|| $resource.into());
                    Some((Index::$name as usize, ID.clone()))
                })*
                _ => None,
            }
        }

        /// (API version, kind) of a resource that the view knows by type.
        pub fn kind_of(resource: &str) -> Option<(&'static str, &'static str)> {
            match resource {
                $($resource => Some(($version, stringify!($name))),)*
                _ => None,
            }
        }
    };
}

impl Object {
    /// As `parse`, where the version before is at hand.
    pub fn parse_next(resource: &str, raw: Bytes, old: Option<&Object>) -> Option<Object> {
        let next = match old {
            Some(Object::Pod(old)) => next(old, &raw).map(Object::Pod),
            Some(Object::Deployment(old)) => next(old, &raw).map(Object::Deployment),
            Some(Object::ReplicaSet(old)) => next(old, &raw).map(Object::ReplicaSet),
            Some(Object::StatefulSet(old)) => next(old, &raw).map(Object::StatefulSet),
            Some(Object::DaemonSet(old)) => next(old, &raw).map(Object::DaemonSet),
            _ => None,
        };
        next.or_else(|| Object::parse(resource, raw))
    }
}

#[derive(Deserialize, Default)]
struct Nothing {}

kinds! {
    Pod, PodData, "/pods", "v1";
    Node, NodeData, "/nodes", "v1";
    Namespace, NamespaceData, "/namespaces", "v1";
    Service, ServiceData, "/services", "v1";
    Endpoints, EndpointsData, "/endpoints", "v1";
    EndpointSlice, EndpointSliceData, "discovery.k8s.io/endpointslices", "discovery.k8s.io/v1";
    ConfigMap, ConfigMapData, "/configmaps", "v1";
    Secret, SecretData, "/secrets", "v1";
    ServiceAccount, ServiceAccountData, "/serviceaccounts", "v1";
    Deployment, DeploymentData, "apps/deployments", "apps/v1";
    ReplicaSet, ReplicaSetData, "apps/replicasets", "apps/v1";
    StatefulSet, StatefulSetData, "apps/statefulsets", "apps/v1";
    DaemonSet, DaemonSetData, "apps/daemonsets", "apps/v1";
    ReplicationController, ReplicationControllerData, "/replicationcontrollers", "v1";
    ControllerRevision, ControllerRevisionData, "apps/controllerrevisions", "apps/v1";
    Job, JobData, "batch/jobs", "batch/v1";
    CronJob, CronJobData, "batch/cronjobs", "batch/v1";
    PersistentVolumeClaim, PersistentVolumeClaimData, "/persistentvolumeclaims", "v1";
    PersistentVolume, PersistentVolumeData, "/persistentvolumes", "v1";
    StorageClass, StorageClassData, "storage.k8s.io/storageclasses", "storage.k8s.io/v1";
    CSINode, CsiNodeData, "storage.k8s.io/csinodes", "storage.k8s.io/v1";
    PodDisruptionBudget, PodDisruptionBudgetData, "policy/poddisruptionbudgets", "policy/v1";
    ResourceClaim, ResourceClaimData, "resource.k8s.io/resourceclaims", "resource.k8s.io/v1";
    ResourceSlice, ResourceSliceData, "resource.k8s.io/resourceslices", "resource.k8s.io/v1";
    DeviceClass, DeviceClassData, "resource.k8s.io/deviceclasses", "resource.k8s.io/v1";
    ResourceQuota, ResourceQuotaData, "/resourcequotas", "v1";
    HorizontalPodAutoscaler, HorizontalPodAutoscalerData, "autoscaling/horizontalpodautoscalers", "autoscaling/v2";
    CertificateSigningRequest, CertificateSigningRequestData, "certificates.k8s.io/certificatesigningrequests",
        "certificates.k8s.io/v1";
    ResourceClaimTemplate, ResourceClaimTemplateData, "resource.k8s.io/resourceclaimtemplates", "resource.k8s.io/v1";
    ServiceCIDR, ServiceCidrData, "networking.k8s.io/servicecidrs", "networking.k8s.io/v1";
    IPAddress, IpAddressData, "networking.k8s.io/ipaddresses", "networking.k8s.io/v1";
    NodePool, NodePoolData, "limpet.dev/nodepools", "limpet.dev/v1";
    FleetRollout, FleetRolloutData, "limpet.dev/fleetrollouts", "limpet.dev/v1";
    PriorityClass, PriorityClassData, "scheduling.k8s.io/priorityclasses", "scheduling.k8s.io/v1";
    RuntimeClass, RuntimeClassData, "node.k8s.io/runtimeclasses", "node.k8s.io/v1";
    Lease, LeaseData, "coordination.k8s.io/leases", "coordination.k8s.io/v1";
    Role, RoleData, "rbac.authorization.k8s.io/roles", "rbac.authorization.k8s.io/v1";
    ClusterRole, ClusterRoleData, "rbac.authorization.k8s.io/clusterroles", "rbac.authorization.k8s.io/v1";
    RoleBinding, RoleBindingData, "rbac.authorization.k8s.io/rolebindings", "rbac.authorization.k8s.io/v1";
    ClusterRoleBinding, ClusterRoleBindingData, "rbac.authorization.k8s.io/clusterrolebindings",
        "rbac.authorization.k8s.io/v1";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whatever came before: an object is what its bytes say.
    #[test]
    fn the_next_version_is_as_if_it_were_the_first() {
        let template = |image: &str| {
            json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
        };
        let set = |replicas: u32, image: &str, ready: u32| {
            json!({"metadata": {"name": "s", "uid": "u", "generation": ready},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template(image)},
                "status": {"readyReplicas": ready, "observedGeneration": ready}})
        };
        let pod = |spec: Value, status: Value| {
            json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec, "status": status})
        };
        let ports = json!([{"name": "http", "containerPort": 80}]);
        let plain = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": ports}]});
        let unbound = json!({"containers": [{"name": "c", "image": "i"}]});
        let sidecar = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}]});
        let restarts = |n: u32| json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": n}],
            "initContainerStatuses": [{"name": "s", "restartCount": n}]});
        let pods = [
            pod(unbound.clone(), json!({})),
            pod(plain.clone(), json!({"phase": "Pending"})),
            pod(plain.clone(), restarts(1)),
            pod(plain, json!({"phase": "Failed", "reason": "Evicted"})),
            pod(sidecar.clone(), restarts(1)),
            pod(sidecar, restarts(3)),
            json!({"metadata": {"name": "p"}}),
            json!({"metadata": {"name": "p"}, "spec": null, "status": {"phase": null}}),
        ];
        let sets = [set(1, "a", 0), set(1, "a", 1), set(2, "a", 1), set(2, "b", 2), json!({"metadata": {"name": "s"}})];
        let all = ["apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets"];
        for (resource, versions) in all.map(|r| (r, &sets[..])).into_iter().chain([("/pods", &pods[..])]) {
            let bytes = |value: &Value| Bytes::from(value.to_string());
            for old in versions {
                let mut old = Object::parse(resource, bytes(old)).unwrap();
                for new in versions {
                    let first = Object::parse(resource, bytes(new));
                    let next = Object::parse_next(resource, bytes(new), Some(&old));
                    assert_eq!(format!("{first:?}"), format!("{next:?}"), "{resource}: {new}");
                }
                // A node that is only assumed is in no bytes.
                if let Object::Pod(pod) = &old {
                    old = Object::Pod(Arc::new(pod.with(|p| (p.node, p.assumed) = (Some("elsewhere".into()), true))));
                    let next = Object::parse_next(resource, old.raw().clone(), Some(&old));
                    assert_eq!(format!("{next:?}"), format!("{:?}", Object::parse(resource, old.raw().clone())));
                }
            }
        }
    }
}
