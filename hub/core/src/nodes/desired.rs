//! What a node must know.
//!
//! In: the view. Out: the set of items of one node, each with generation and hash; bodies on demand.
//! Never: anything that the node's own pods do not reference.

use super::{devices, differs, leaf, schedules, volumes};
use crate::{
    Changed, ObjectStore,
    control::local_volume,
    view::{
        ConfigMap, CronJob, EndpointSlice, Key, Kind, Node, Obj, Object, PersistentVolume, PersistentVolumeClaim, Phase, Pod,
        PodRef, ResourceClaim, RuntimeClass, Secret, Service,
    },
};
use limpet_protocol::{ItemHash, ItemKey, ItemKind, RUNTIME_CLASS_ITEM, SetDigest};
use serde_json::{Map, Value, json};
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

impl Wanted {
    fn add<T>(&mut self, kind: ItemKind, object: &Obj<T>)
    where
        Obj<T>: Kind,
    {
        self.add_as(ItemKey::new(kind, &object.meta.namespace, &object.meta.name), object);
    }

    fn add_as<T>(&mut self, key: ItemKey, object: &Obj<T>)
    where
        Obj<T>: Kind,
    {
        let hash = *object.item_hash.get_or_init(|| ItemHash::of(&shape::<T>(object)));
        let state = ItemState { generation: object.meta.resource_version, hash };
        if self.items.insert(key.clone(), state).is_none() {
            self.digest.add(&key, hash);
        }
    }
}

impl Wanted {
    /// A schedule that the node follows, with what its pods will need; tokens are bound to pods and come with them.
    fn add_schedule(&mut self, view: &ObjectStore, cron: &CronJob) {
        let Some(body) = schedules::body(cron) else { return };
        let key = ItemKey::new(ItemKind::Schedule, &cron.meta.namespace, &cron.meta.name);
        let hash = ItemHash::of(&body);
        let state = ItemState { generation: cron.meta.resource_version, hash };
        if self.items.insert(key.clone(), state).is_none() {
            self.digest.add(&key, hash);
        }
        if let Some(pod) = schedules::pod(cron) {
            references(view, &pod, self);
            self.tokens.retain(|_, token| !token.pod_uid.is_empty());
        }
    }
}

/// What a node must know of a RuntimeClass: `{"handler"}`.
fn handler(class: &RuntimeClass) -> Vec<u8> {
    json!({"handler": class.handler}).to_string().into_bytes()
}

/// The Service that every pod may use, whatever its namespace.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");
/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What `node` must know now.
pub fn wanted(view: &ObjectStore, node: &str) -> Wanted {
    let mut wanted = Wanted::default();
    if let Some(object) = view.node(node) {
        if leaf::is_leaf(object) {
            return wanted_by_leaf(view, object);
        }
        wanted.add(ItemKind::Node, object);
    }
    let mut namespaces = BTreeSet::new();
    // A binding that is not durable is none: after a crash the pod may go elsewhere, and would run twice.
    for pod in view.pods_on(node).filter(|pod| !pod.assumed) {
        wanted.add(ItemKind::Pod, pod);
        if matches!(pod.status.phase, Phase::Succeeded | Phase::Failed) {
            continue;
        }
        namespaces.insert(&*pod.meta.namespace);
        references(view, pod, &mut wanted);
    }
    for cron in schedules::of_node(view, node) {
        wanted.add_schedule(view, cron);
        namespaces.insert(&*cron.meta.namespace);
    }
    for namespace in &namespaces {
        services(view, namespace, |_| true, &mut wanted);
    }
    if !namespaces.is_empty() && !namespaces.contains(API_SERVICE.0) {
        services(view, API_SERVICE.0, |name| name == API_SERVICE.1, &mut wanted);
    }
    for volume in volumes::to_remove(view, node) {
        wanted.add_as(ItemKey::new(ItemKind::Claim, "", &volume.meta.name), volume);
    }
    wanted
}

/// A leaf runs no pods, whatever is bound to it.
fn wanted_by_leaf(view: &ObjectStore, node: &std::sync::Arc<Node>) -> Wanted {
    let mut wanted = Wanted::default();
    if leaf::fits(&shape(&**node)) {
        wanted.add(ItemKind::Node, node);
    }
    if let Some(config) = leaf::config(view, node).filter(|c| leaf::fits(&shape(&***c))) {
        wanted.add(ItemKind::ConfigMap, config);
    }
    wanted
}

fn references(view: &ObjectStore, pod: &Pod, wanted: &mut Wanted) {
    let namespace = &*pod.meta.namespace;
    for reference in &pod.spec.refs {
        match reference {
            PodRef::ConfigMap(name) => {
                if let Some(object) = view.get::<ConfigMap>(namespace, name) {
                    wanted.add(ItemKind::ConfigMap, object);
                }
            }
            PodRef::Secret(name) => {
                if let Some(object) = view.get::<Secret>(namespace, name) {
                    wanted.add(ItemKind::Secret, object);
                }
            }
            PodRef::Token { volume, index, audience, expiration_s } => {
                let name = format!("{}.{volume}.{index}", pod.meta.uid);
                let key = ItemKey::new(ItemKind::Token, namespace, &name);
                let token = TokenWanted {
                    key: key.clone(),
                    namespace: namespace.into(),
                    service_account: pod.spec.service_account.to_string(),
                    pod_name: pod.meta.name.to_string(),
                    pod_uid: pod.meta.uid.to_string(),
                    audience: audience.to_string(),
                    expiration_s: *expiration_s,
                };
                wanted.tokens.insert(key, token);
            }
            PodRef::Claim(_) => {}
        }
    }
    if let Some(class) = view.get::<RuntimeClass>("", &pod.spec.runtime_class) {
        let state = ItemState { generation: class.meta.resource_version, hash: ItemHash::of(&handler(class)) };
        let key = ItemKey::new(ItemKind::Settings, "", &format!("{RUNTIME_CLASS_ITEM}{}", class.meta.name));
        if wanted.items.insert(key.clone(), state).is_none() {
            wanted.digest.add(&key, state.hash);
        }
    }
    for name in devices::claims_of(pod) {
        if let Some(claim) = view.get::<ResourceClaim>(namespace, name)
            && let Some(body) = devices::body(claim)
        {
            let state = ItemState { generation: claim.meta.resource_version, hash: ItemHash::of(&body) };
            let key = ItemKey::new(ItemKind::Claim, namespace, &devices::item_name(name));
            if wanted.items.insert(key.clone(), state).is_none() {
                wanted.digest.add(&key, state.hash);
            }
        }
    }
    for name in crate::schedule::claims_of(pod) {
        if let Some(volume) = volumes::of_claim(view, namespace, &name) {
            wanted.add_as(ItemKey::new(ItemKind::Claim, namespace, &name), volume);
        }
    }
}

fn services(view: &ObjectStore, namespace: &str, take: impl Fn(&str) -> bool, wanted: &mut Wanted) {
    for service in view.list::<Service>(namespace).filter(|s| take(&s.meta.name)) {
        wanted.add(ItemKind::Service, service);
    }
    for slice in view.list::<EndpointSlice>(namespace) {
        if slice.meta.labels.get(SERVICE_NAME).is_some_and(&take) {
            wanted.add(ItemKind::EndpointSlice, slice);
        }
    }
}

/// The content of an item as nodes get it: canonical JSON without status and managedFields. `None` when the object is
/// gone, and for tokens.
pub fn body(view: &ObjectStore, key: &ItemKey) -> Option<Vec<u8>> {
    let (namespace, name) = (&*key.namespace, &*key.name);
    match key.kind {
        ItemKind::Node => view.node(name).map(|o| shape(o)),
        ItemKind::Pod => view.pod(namespace, name).map(|o| shape(o)),
        ItemKind::ConfigMap => view.get::<ConfigMap>(namespace, name).map(|o| shape(o)),
        ItemKind::Secret => view.get::<Secret>(namespace, name).map(|o| shape(o)),
        ItemKind::Service => view.get::<Service>(namespace, name).map(|o| shape(o)),
        ItemKind::EndpointSlice => view.get::<EndpointSlice>(namespace, name).map(|o| shape(o)),
        ItemKind::Claim if namespace.is_empty() => volumes::removed_one(view, name).map(|o| shape(o)),
        ItemKind::Claim => match devices::claim_of(name) {
            Some(claim) => view.get::<ResourceClaim>(namespace, claim).and_then(|c| devices::body(c)),
            None => volumes::of_claim(view, namespace, name).map(|o| shape(o)),
        },
        ItemKind::Schedule => view.get::<CronJob>(namespace, name).and_then(|c| schedules::body(c)),
        ItemKind::Settings => {
            let class = view.get::<RuntimeClass>("", name.strip_prefix(RUNTIME_CLASS_ITEM)?)?;
            Some(handler(class))
        }
        ItemKind::Token => None,
    }
}

/// What an item was before its last change, when that had this hash: what a node may still hold.
pub fn previous(view: &ObjectStore, key: &ItemKey, hash: ItemHash) -> Option<Vec<u8>> {
    match before(view, key, hash)? {
        Object::ConfigMap(o) => Some(shape(&**o)),
        Object::Secret(o) => Some(shape(&**o)),
        Object::Service(o) => Some(shape(&**o)),
        Object::EndpointSlice(o) => Some(shape(&**o)),
        _ => None,
    }
}

/// The object of `previous`.
pub fn before<'a>(view: &'a ObjectStore, key: &ItemKey, hash: ItemHash) -> Option<&'a Object> {
    let object = view.previous(&object_key(key))?;
    let known = match object {
        Object::ConfigMap(o) => o.item_hash.get(),
        Object::Secret(o) => o.item_hash.get(),
        Object::Service(o) => o.item_hash.get(),
        Object::EndpointSlice(o) => o.item_hash.get(),
        _ => None,
    };
    // Filled when it was first wanted; what nobody was sent is nobody's base.
    (known == Some(&hash)).then_some(object)
}

/// The object as nodes get it. Of a pod's status they get what others decided (`told`).
pub(super) fn shape<T>(object: &Obj<T>) -> Vec<u8>
where
    Obj<T>: Kind,
{
    let resource = <Obj<T> as Kind>::RESOURCE;
    let cut = (resource != Node::RESOURCE).then(|| differs::cut(&object.raw, resource == Pod::RESOURCE)).flatten();
    cut.unwrap_or_else(|| written_anew(object))
}

/// The same by reading all of it.
pub(super) fn written_anew<T>(object: &Obj<T>) -> Vec<u8>
where
    Obj<T>: Kind,
{
    let mut value = object.value();
    let told = if <Obj<T> as Kind>::RESOURCE == Pod::RESOURCE { told(&value) } else { Map::new() };
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
        if !told.is_empty() {
            fields.insert("status".into(), Value::Object(told));
        }
    }
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "selfLink"] {
            meta.remove(field);
        }
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        if <Obj<T> as Kind>::RESOURCE == Node::RESOURCE {
            // Written by the hub while the board is away; the board has no use for it.
            if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(super::offline::OFFLINE_SINCE);
                annotations.remove(super::offline::QUEUED);
            }
        }
    }
    if <Obj<T> as Kind>::RESOURCE == Node::RESOURCE
        && let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("taints");
    }
    serde_json::to_vec(&value).unwrap_or_default()
}

/// Nodes that follow a schedule of a namespace.
fn followers(view: &ObjectStore, namespace: &str) -> Vec<String> {
    let bound = view.list::<CronJob>(namespace).filter_map(|c| schedules::node_of(view, c));
    bound.map(|n| n.meta.name.to_string()).collect()
}

/// What a node is told of a pod's status: that it has finished, so that a board without memory does not run it again;
/// and the conditions that its readiness gates name, which others set.
fn told(pod: &Value) -> Map<String, Value> {
    let mut told = Map::new();
    let status = &pod["status"];
    if matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")) {
        for field in ["phase", "reason", "message"] {
            if status[field].is_string() {
                told.insert(field.into(), status[field].clone());
            }
        }
    }
    for field in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
        if !status[field].is_null() {
            told.insert(field.into(), status[field].clone());
        }
    }
    let gates = pod["spec"]["readinessGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |c: &&Value| gates.iter().any(|g| g["conditionType"] == c["type"]);
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let open: Vec<Value> =
        conditions.iter().filter(named).map(|c| json!({"type": c["type"], "status": c["status"]})).collect();
    if !open.is_empty() {
        told.insert("conditions".into(), open.into());
    }
    told
}

/// Nodes whose desired set an event may have changed.
pub fn nodes_for(view: &ObjectStore, changed: &Changed) -> BTreeSet<String> {
    let mut nodes = BTreeSet::new();
    let namespace = &*changed.key.namespace;
    let name = &*changed.key.name;
    if changed.is::<Node>() {
        nodes.insert(name.to_string());
    } else if changed.is::<Pod>() {
        let (old, new) = (changed.old_as::<Pod>(), changed.new_as::<Pod>());
        nodes.extend([old, new].into_iter().flatten().filter_map(|p| p.node.as_deref()).map(String::from));
    } else if changed.is::<ConfigMap>() {
        nodes.extend(users(view, namespace, &PodRef::ConfigMap(name.into())));
        nodes.extend(followers(view, namespace));
        nodes.extend(view.leaves_of(namespace, name).map(String::from));
    } else if changed.is::<Secret>() {
        nodes.extend(users(view, namespace, &PodRef::Secret(name.into())));
        nodes.extend(followers(view, namespace));
    } else if changed.is::<CronJob>() {
        let both = [changed.old_as::<CronJob>(), changed.new_as::<CronJob>()];
        let bound = both.into_iter().flatten().filter_map(|c| schedules::node_of(view, c));
        nodes.extend(bound.map(|n| n.meta.name.to_string()));
    } else if changed.is::<ResourceClaim>() {
        let users = pods_in(view, namespace).filter(|pod| devices::claims_of(pod).any(|claim| claim == name));
        nodes.extend(users.filter_map(|p| p.node.as_deref()).map(String::from));
    } else if changed.is::<RuntimeClass>() {
        let all = view.nodes_with_pods().filter(|node| view.pods_on(node).any(|pod| *pod.spec.runtime_class == *name));
        nodes.extend(all.map(String::from));
    } else if changed.is::<PersistentVolumeClaim>() {
        nodes.extend(users_of_claim(view, namespace, name));
    } else if changed.is::<PersistentVolume>() {
        let both = [changed.old_as::<PersistentVolume>(), changed.new_as::<PersistentVolume>()];
        for volume in both.into_iter().flatten() {
            if let Some(claim) = &volume.spec.claim_ref {
                nodes.extend(users_of_claim(view, &claim.namespace, &claim.name));
            }
            if volume.meta.deleting.is_some() {
                nodes.extend(local_volume::node_of(volume).map(String::from));
            }
        }
    } else if changed.is::<Service>() || changed.is::<EndpointSlice>() {
        let api = namespace == API_SERVICE.0 && service_of(changed).is_some_and(|s| s == API_SERVICE.1);
        match api {
            true => nodes.extend(view.nodes_with_pods().map(String::from)),
            false => {
                let with_pods: BTreeSet<&str> = pods_in(view, namespace).filter_map(|p| p.node.as_deref()).collect();
                nodes.extend(with_pods.into_iter().map(String::from));
            }
        }
    }
    nodes
}

fn service_of(changed: &Changed) -> Option<String> {
    if changed.is::<Service>() {
        return Some(changed.key.name.to_string());
    }
    changed.metas().find_map(|m| m.labels.get(SERVICE_NAME)).map(String::from)
}

fn pods_in<'a>(view: &'a ObjectStore, namespace: &str) -> impl Iterator<Item = &'a std::sync::Arc<Pod>> {
    view.list::<Pod>(namespace)
}

fn users(view: &ObjectStore, namespace: &str, reference: &PodRef) -> Vec<String> {
    let uses = |pod: &&std::sync::Arc<Pod>| pod.spec.refs.contains(reference);
    pods_in(view, namespace).filter(uses).filter_map(|p| p.node.as_deref()).map(String::from).collect()
}

fn users_of_claim(view: &ObjectStore, namespace: &str, claim: &str) -> Vec<String> {
    let users = pods_in(view, namespace).filter(|pod| volumes::uses(pod, claim));
    users.filter_map(|p| p.node.as_deref()).map(String::from).collect()
}

/// Whether an event leaves what nodes see of the object as it was (a status, mostly).
pub fn looks_the_same(changed: &Changed) -> bool {
    fn same<T>(old: Option<&std::sync::Arc<Obj<T>>>, new: Option<&std::sync::Arc<Obj<T>>>) -> bool
    where
        Obj<T>: Kind,
    {
        let (Some(old), Some(new)) = (old, new) else { return false };
        if differs::only_in_status(old, new) {
            old.item_hash.get().into_iter().for_each(|hash| _ = new.item_hash.set(*hash));
            return true;
        }
        let hash = |o: &Obj<T>| *o.item_hash.get_or_init(|| ItemHash::of(&shape::<T>(o)));
        hash(old) == hash(new)
    }
    match &changed.new {
        Some(Object::Pod(new)) => {
            let moved = changed.old_as::<Pod>().is_none_or(|old| (&old.node, old.assumed) != (&new.node, new.assumed));
            !moved && same(changed.old_as::<Pod>(), Some(new))
        }
        Some(Object::Node(new)) => same(changed.old_as::<Node>(), Some(new)),
        _ => false,
    }
}

/// Key of an item's object in the store, for messages to people.
pub fn object_key(key: &ItemKey) -> Key {
    if let (ItemKind::Claim, Some(claim)) = (key.kind, devices::claim_of(&key.name)) {
        return Key::new(ResourceClaim::RESOURCE, &key.namespace, claim);
    }
    if let (ItemKind::Settings, Some(class)) = (key.kind, key.name.strip_prefix(RUNTIME_CLASS_ITEM)) {
        return Key::new(RuntimeClass::RESOURCE, "", class);
    }
    let resource = match key.kind {
        ItemKind::Node => Node::RESOURCE,
        ItemKind::Pod => Pod::RESOURCE,
        ItemKind::ConfigMap => ConfigMap::RESOURCE,
        ItemKind::Secret => Secret::RESOURCE,
        ItemKind::Service => Service::RESOURCE,
        ItemKind::EndpointSlice => EndpointSlice::RESOURCE,
        ItemKind::Token => "limpet/tokens",
        ItemKind::Settings => "limpet/settings",
        ItemKind::Claim if key.namespace.is_empty() => PersistentVolume::RESOURCE,
        ItemKind::Claim => PersistentVolumeClaim::RESOURCE,
        ItemKind::Schedule => CronJob::RESOURCE,
    };
    Key::new(resource, &key.namespace, &key.name)
}

#[cfg(test)]
mod tests;
