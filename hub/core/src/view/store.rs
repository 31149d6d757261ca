//! The typed cache of all objects and its indexes.
//!
//! In: `apply` for every event, in the order of revisions. Out: look-ups by name, namespace, node, owner.
//! Never: partial updates of an index; every event removes the old entries and adds the new ones.

use super::{
    Changed, ControllerRevision, KINDS, Key, Kind, Node, Object, Pod, ReplicaSet, known_resource,
    previous::Previous,
    recent::{Recent, Sent, Which},
    used::{NodePods, Used, counts_as_anti_affine},
};
use crate::nodes::leaf;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

type Names = BTreeMap<Box<str>, Object>;
/// (resource, namespace)
type Place = (Arc<str>, Box<str>);
type Namespaces = BTreeMap<Box<str>, Names>;

/// All objects, by (resource, namespace, name), with indexes.
#[derive(Debug)]
pub struct ObjectStore {
    revision: u64,
    /// Where the objects of each resource are.
    resources: BTreeMap<Arc<str>, usize>,
    places: Vec<Namespaces>,
    /// The same, for kinds that the view knows by type.
    of_kinds: [Option<usize>; KINDS],
    /// Nodes with their pods, by name; pods without a node under "".
    pods_by_node: BTreeMap<Box<str>, NodePods>,
    uids: BTreeMap<Box<str>, Arc<Key>>,
    by_owner: BTreeMap<Box<str>, BTreeSet<Arc<Key>>>,
    /// Pods and ReplicaSets without a controller, by resource and namespace: what may be adopted.
    loose: BTreeMap<Place, BTreeSet<Arc<Key>>>,
    previous: Previous,
    recent: Recent,
    /// Names of nodes, by the ConfigMap (`namespace/name`) that their annotation for leaf boards names.
    leaves: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Default for ObjectStore {
    fn default() -> ObjectStore {
        ObjectStore {
            revision: 0,
            resources: BTreeMap::new(),
            places: Vec::new(),
            of_kinds: [None; KINDS],
            pods_by_node: BTreeMap::new(),
            uids: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            loose: BTreeMap::new(),
            previous: Previous::default(),
            recent: Recent::default(),
            leaves: BTreeMap::new(),
        }
    }
}

impl ObjectStore {
    pub fn new() -> ObjectStore {
        ObjectStore::default()
    }

    fn of(&self, resource: &str) -> Option<&Namespaces> {
        self.places.get(*self.resources.get(resource)?)
    }

    fn of_mut(&mut self, resource: &str) -> Option<&mut Namespaces> {
        self.places.get_mut(*self.resources.get(resource)?)
    }

    fn of_kind<K: Kind>(&self) -> Option<&Namespaces> {
        self.places.get(self.of_kinds[K::INDEX]?)
    }

    /// Newest revision that was applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes in one event: `raw` is the object's canonical JSON, `None` a deletion. Objects whose metadata cannot be
    /// read count as absent.
    pub fn apply(
        &mut self,
        revision: u64,
        resource: &str,
        namespace: &str,
        name: &str,
        raw: Option<Bytes>,
    ) -> Changed {
        self.revision = self.revision.max(revision);
        let old = self.of(resource).and_then(|namespaces| namespaces.get(namespace)?.get(name));
        let new = raw.and_then(|bytes| Object::parse_next(resource, bytes, old)).map(|new| self.still_assumed(new));
        let key = Arc::new(Key {
            resource: self.resource_id(resource),
            namespace: namespace.into(),
            name: name.into(),
        });
        self.replace(key, new)
    }

    /// As `apply`, with an object that was read before.
    #[cfg(any(test, feature = "world"))]
    pub fn apply_read(&mut self, revision: u64, key: &Key, object: Object) -> Changed {
        self.revision = self.revision.max(revision);
        self.resource_id(&key.resource);
        self.replace(Arc::new(key.clone()), Some(object))
    }

    /// An event of something else than its binding leaves a pod where it was assumed to be: a binding is never taken back, so
    /// a pod that was on a node here and is on none there is not bound yet.
    fn still_assumed(&self, new: Object) -> Object {
        let Object::Pod(pod) = &new else { return new };
        let before = self.pod(&pod.meta.namespace, &pod.meta.name).filter(|o| pod.node.is_none() && o.meta.uid == pod.meta.uid);
        match before.and_then(|o| o.node.clone()) {
            Some(node) => Object::Pod(Arc::new(pod.with(|p| (p.node, p.assumed) = (Some(node), true)))),
            None => new,
        }
    }

    fn resource_id(&mut self, resource: &str) -> Arc<str> {
        if let Some((id, _)) = self.resources.get_key_value(resource) {
            return id.clone();
        }
        let known = known_resource(resource);
        if let Some((kind, _)) = known {
            self.of_kinds[kind] = Some(self.places.len());
        }
        let id: Arc<str> = known.map_or_else(|| resource.into(), |(_, id)| id);
        self.resources.insert(id.clone(), self.places.len());
        self.places.push(Namespaces::new());
        id
    }

    fn replace(&mut self, key: Arc<Key>, new: Option<Object>) -> Changed {
        let old = match &new {
            Some(new) => self.swap(&key, new.clone()),
            None => self.take(&key),
        };
        let stays = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| same_entries(old, new));
        if let Some(old) = &old {
            if !stays {
                self.unindex(&key, old);
            }
            if new.is_some() {
                self.previous.keep(&key, old);
            }
        }
        if let Some(new) = &new {
            if !stays {
                self.index(&key, new);
            } else if let Some(pod) = Pod::of(new) {
                let node = pod.node.as_deref().unwrap_or_default();
                let pods = self.pods_by_node.get_mut(node);
                pods.into_iter().for_each(|pods| pods.insert(key.clone(), pod.clone()));
            }
        }
        Changed { key: (*key).clone(), old, new }
    }

    /// Puts an object into its place.
    fn swap(&mut self, key: &Key, new: Object) -> Option<Object> {
        // `resource_id` has made a place for all of its kind.
        let namespaces = self.of_mut(&key.resource)?;
        if let Some(there) = namespaces.get_mut(&key.namespace).and_then(|names| names.get_mut(&key.name)) {
            return Some(std::mem::replace(there, new));
        }
        namespaces.entry(key.namespace.clone()).or_default().insert(key.name.clone(), new)
    }

    fn take(&mut self, key: &Key) -> Option<Object> {
        let namespaces = self.of_mut(&key.resource)?;
        let names = namespaces.get_mut(&key.namespace)?;
        let old = names.remove(&key.name);
        if names.is_empty() {
            namespaces.remove(&key.namespace);
        }
        old
    }

    fn index(&mut self, key: &Arc<Key>, object: &Object) {
        let meta = object.meta();
        if !meta.uid.is_empty() {
            self.uids.insert(meta.uid.clone(), key.clone());
        }
        for owner in &meta.owners {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if meta.controller().is_none() && adoptable(&key.resource) {
            let place = (key.resource.clone(), key.namespace.clone());
            self.loose.entry(place).or_default().insert(key.clone());
        }
        if let Some(pod) = Pod::of(object) {
            let node = pod.node.clone().unwrap_or_default();
            self.pods_by_node.entry(node).or_default().insert(key.clone(), pod.clone());
        }
        if let Some(node) = Node::of(object) {
            self.pods_by_node.entry(key.name.clone()).or_default().node = Some(node.clone());
            if let Some(config) = node.meta.annotations.get(leaf::CONFIG) {
                self.leaves.entry(config.into()).or_default().insert(key.name.clone());
            }
        }
    }

    fn unindex(&mut self, key: &Arc<Key>, object: &Object) {
        let meta = object.meta();
        if self.uids.get(&meta.uid).is_some_and(|k| k == key) {
            self.uids.remove(&meta.uid);
        }
        for owner in &meta.owners {
            if let Some(children) = self.by_owner.get_mut(&owner.uid) {
                children.remove(key);
                if children.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
        let place = (key.resource.clone(), key.namespace.clone());
        if let Some(loose) = self.loose.get_mut(&place) {
            loose.remove(key);
            if loose.is_empty() {
                self.loose.remove(&place);
            }
        }
        if let Some(pod) = Pod::of(object) {
            let node = pod.node.clone().unwrap_or_default();
            if let Some(pods) = self.pods_by_node.get_mut(&node) {
                pods.remove(key);
                if pods.pods.is_empty() && pods.node.is_none() {
                    self.pods_by_node.remove(&node);
                }
            }
        }
        if let Some(config) = meta.annotations.get(leaf::CONFIG)
            && let Some(names) = self.leaves.get_mut(config).filter(|_| Node::of(object).is_some())
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.leaves.remove(config);
            }
        }
        if Node::of(object).is_some()
            && let Some(entry) = self.pods_by_node.get_mut(&key.name)
        {
            entry.node = None;
            if entry.pods.is_empty() {
                self.pods_by_node.remove(&key.name);
            }
        }
    }

    /// Any object by its key.
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.of(&key.resource)?.get(&key.namespace)?.get(&key.name)
    }

    /// What an object was before its last change, when that is still known.
    pub fn previous(&self, key: &Key) -> Option<&Object> {
        self.previous.of(key)
    }

    /// What a node is sent of an object, made anew where no other node was sent the same just now.
    pub(crate) fn sent(&self, which: &Which, make: impl FnOnce() -> Option<Sent>) -> Option<Sent> {
        self.recent.get(which, make)
    }

    /// One object of a known kind; cluster-scoped kinds have an empty namespace.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        K::of(self.of_kind::<K>()?.get(namespace)?.get(name)?)
    }

    /// All objects of a kind in one namespace, by name.
    pub fn list<'a, K: Kind + 'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<K>> {
        let names = self.of_kind::<K>().and_then(|n| n.get(namespace));
        names.into_iter().flat_map(|n| n.values()).filter_map(K::of)
    }

    /// All objects of a kind, by namespace and name.
    pub fn all<'a, K: Kind + 'a>(&'a self) -> impl Iterator<Item = &'a Arc<K>> {
        let namespaces = self.of_kind::<K>();
        namespaces.into_iter().flat_map(|n| n.values()).flat_map(|n| n.values()).filter_map(K::of)
    }

    /// How many objects of a resource are in a namespace, whether or not the view knows their kind.
    pub fn count_in(&self, resource: &str, namespace: &str) -> usize {
        self.of(resource).and_then(|n| n.get(namespace)).map_or(0, BTreeMap::len)
    }

    /// Everything inside a namespace, of every resource.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a str, &'a Object)> {
        self.resources.iter().flat_map(move |(resource, place)| {
            let names = self.places[*place].get(namespace);
            names.into_iter().flat_map(|n| n.values()).map(move |o| (&**resource, o))
        })
    }

    /// Pods that are bound to a node, finished ones included.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods_by_node.get(node).into_iter().flat_map(|p| p.pods.values())
    }

    /// Pods without a node.
    pub fn pods_unbound(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_on("")
    }

    /// Names of nodes that pods are bound to, whether or not the nodes exist.
    pub fn nodes_with_pods(&self) -> impl Iterator<Item = &str> {
        let with_pods = self.pods_by_node.iter().filter(|(n, p)| !n.is_empty() && !p.pods.is_empty());
        with_pods.map(|(n, _)| &**n)
    }

    /// Names of nodes whose annotation for leaf boards names this ConfigMap.
    pub fn leaves_of(&self, namespace: &str, name: &str) -> impl Iterator<Item = &str> {
        // Mostly there are none, and then there is nothing to look up.
        let names = (!self.leaves.is_empty()).then(|| self.leaves.get(&*format!("{namespace}/{name}"))).flatten();
        names.into_iter().flatten().map(|n| &**n)
    }

    /// Nodes that exist, by name, with their pods and sums: one walk for the scheduler.
    pub fn nodes_and_pods(&self) -> impl Iterator<Item = (&Arc<Node>, &NodePods)> {
        self.pods_by_node.values().filter_map(|entry| Some((entry.node.as_ref()?, entry)))
    }

    /// The same, beginning with the first name that is not before `name`, and once around.
    pub fn nodes_and_pods_from(&self, name: &str) -> impl Iterator<Item = (&Arc<Node>, &NodePods)> + use<'_> {
        let rest = self.pods_by_node.range::<str, _>((Bound::Included(name), Bound::Unbounded));
        let before = self.pods_by_node.range::<str, _>((Bound::Unbounded, Bound::Excluded(name)));
        rest.chain(before).filter_map(|(_, entry)| Some((entry.node.as_ref()?, entry)))
    }

    /// One node with its pods and sums.
    pub fn node_and_pods(&self, name: &str) -> Option<(&Arc<Node>, &NodePods)> {
        let entry = self.pods_by_node.get(name)?;
        Some((entry.node.as_ref()?, entry))
    }

    /// What the unfinished pods of a node use.
    pub fn used_on(&self, node: &str) -> Used {
        self.pods_by_node.get(node).map(|p| p.used.clone()).unwrap_or_default()
    }

    /// Unfinished, bound pods that do not want others near them, with their nodes.
    pub fn pods_with_anti_affinity(&self) -> impl Iterator<Item = (&str, &Arc<Pod>)> {
        let bound =
            self.pods_by_node.iter().filter(|(node, pods)| !node.is_empty() && pods.used.anti_affine > 0);
        bound.flat_map(|(node, pods)| {
            pods.pods.values().filter(|p| counts_as_anti_affine(p)).map(|p| (&**node, p))
        })
    }

    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.pods_by_node.get(name)?.node.as_ref()
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.get::<Pod>(namespace, name)
    }

    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.uids.get(uid).map(|k| &**k)
    }

    /// Keys of all objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.by_owner.get(uid).into_iter().flatten().map(|k| &**k)
    }

    /// Objects of one kind that `uid` controls.
    pub fn controlled_by<'a, K: Kind + 'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.owned_by(uid)
            .filter(|k| &*k.resource == K::RESOURCE)
            .filter_map(|k| self.object(k))
            .filter(move |o| o.meta().controlled_by(uid))
            .filter_map(K::of)
    }

    /// Objects of a kind in a namespace that nothing controls (kinds that controllers adopt only).
    pub fn loose<'a, K: Kind + 'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<K>> {
        let keys = self.loose.get(&(K::RESOURCE.into(), namespace.into()));
        keys.into_iter().flatten().filter_map(|k| K::of(self.object(k)?))
    }

    /// Uids that some object names as its owner.
    pub fn owner_uids(&self) -> impl Iterator<Item = &str> {
        self.by_owner.keys().map(|u| &**u)
    }

    /// Counts a pod as bound to a node until the store's event about it comes. For the scheduler, which decides on
    /// the next pod before the binding of this one is durable. An empty node takes that back: what counts is what is stored.
    pub fn assume_bound(&mut self, namespace: &str, name: &str, uid: &str, node: &str) -> Option<Changed> {
        let pod = self.pod(namespace, name).filter(|p| &*p.meta.uid == uid)?;
        let stored: Option<Box<str>> = pod.field("/spec/nodeName").as_str().filter(|n| !n.is_empty()).map(Into::into);
        let node = if node.is_empty() { stored.clone() } else { Some(node.into()) };
        let bound = pod.with(|p| (p.assumed, p.node) = (node != stored, node));
        let key = Arc::new(Key::new(Pod::RESOURCE, namespace, name));
        Some(self.replace(key, Some(Object::Pod(Arc::new(bound)))))
    }

    /// Number of objects, by resource.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.resources.iter().map(|(r, place)| (&**r, self.places[*place].values().map(BTreeMap::len).sum()))
    }
}

/// Whether two versions of an object have the same entries in all indexes: nearly every change is one of a status.
fn same_entries(old: &Object, new: &Object) -> bool {
    let (before, after) = (old.meta(), new.meta());
    let (pods, nodes) = ([old, new].map(Pod::of), [old, new].map(|o| Node::of(o).is_some()));
    let place = |pod: Option<&Arc<Pod>>| pod.map(|p| p.node.clone());
    let [pod_before, pod_after] = pods.map(place);
    nodes == [false; 2] && pod_before == pod_after && before.uid == after.uid && before.owners == after.owners
}

fn adoptable(resource: &str) -> bool {
    [Pod::RESOURCE, ReplicaSet::RESOURCE, ControllerRevision::RESOURCE].contains(&resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Deployment, Phase, PodRef};
    use serde_json::{Value, json};

    fn put(view: &mut ObjectStore, resource: &str, object: Value) -> Changed {
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (ns, name) = (at("/metadata/namespace"), at("/metadata/name"));
        view.apply(1, resource, &ns, &name, Some(serde_json::to_vec(&object).unwrap().into()))
    }

    fn pod(name: &str, node: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}"),
                "ownerReferences": [{"kind": "ReplicaSet", "uid": "rs", "controller": true}]},
            "spec": {"nodeName": node, "containers": [
                {"name": "c", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
                 "envFrom": [{"secretRef": {"name": "s"}}]}],
                "volumes": [{"name": "v", "configMap": {"name": "m"}}]},
            "status": null})
    }

    #[test]
    fn indexes_follow_events() {
        let mut view = ObjectStore::new();
        put(&mut view, "/pods", pod("p", Value::Null));
        assert_eq!(view.pods_unbound().count(), 1);
        let changed = put(&mut view, "/pods", pod("p", json!("n1")));
        assert!(changed.old_as::<Pod>().unwrap().node.is_none());
        assert_eq!((view.pods_unbound().count(), view.pods_on("n1").count()), (0, 1));
        assert_eq!(view.controlled_by::<Pod>("rs").count(), 1);
        assert_eq!(view.by_uid("u-p").unwrap().to_string(), "/pods/a/p");
        let p = view.pod("a", "p").unwrap();
        assert_eq!(*p.spec.refs, [PodRef::ConfigMap("m".into()), PodRef::Secret("s".into())]);
        assert_eq!((p.spec.requests.cpu_milli, p.spec.requests.memory), (100, 1 << 30));
        assert_eq!(p.status.phase, Phase::Pending);
        view.apply(2, "/pods", "a", "p", None);
        assert_eq!((view.pods_on("n1").count(), view.owned_by("rs").count()), (0, 0));
        assert!(view.by_uid("u-p").is_none());
        assert_eq!(view.revision(), 2);
    }

    #[test]
    fn unknown_kinds_and_broken_fields_keep_metadata() {
        let mut view = ObjectStore::new();
        put(
            &mut view,
            "x.io/things",
            json!({"metadata": {"name": "t", "namespace": "a", "uid": "1"}, "spec": 5}),
        );
        put(
            &mut view,
            "apps/deployments",
            json!({"metadata": {"name": "d", "namespace": "a", "uid": "2"}, "spec": 5}),
        );
        assert_eq!(view.in_namespace("a").count(), 2);
        assert!(view.get::<Deployment>("a", "d").is_none());
    }

    #[test]
    fn an_assumed_node_counts_until_the_event() {
        let mut view = ObjectStore::new();
        put(&mut view, "/pods", pod("p", Value::Null));
        view.assume_bound("a", "p", "u-p", "n2");
        assert_eq!(view.pods_on("n2").count(), 1);
        put(&mut view, "/pods", pod("p", json!("n3")));
        assert_eq!((view.pods_on("n2").count(), view.pods_on("n3").count()), (0, 1));
        // Another decision that was refused, because it is bound, takes nothing back.
        view.assume_bound("a", "p", "u-p", "n2");
        view.assume_bound("a", "p", "u-p", "");
        assert_eq!((view.pods_on("n2").count(), view.pods_on("n3").count()), (0, 1));
    }

    #[test]
    fn what_is_said_of_an_assumed_pod_leaves_it_where_it_is() {
        let mut view = ObjectStore::new();
        put(&mut view, "/pods", pod("p", Value::Null));
        view.assume_bound("a", "p", "u-p", "n2");
        let mut said = pod("p", Value::Null);
        said["status"]["message"] = json!("something else");
        let changed = put(&mut view, "/pods", said);
        assert_eq!(changed.new_as::<Pod>().unwrap().node.as_deref(), Some("n2"));
        assert_eq!(view.pods_on("n2").count(), 1);
        view.assume_bound("a", "p", "u-p", "");
        assert_eq!(view.pods_on("n2").count(), 0, "not bound at all");
        // Another pod of that name was never assumed to be anywhere.
        view.assume_bound("a", "p", "u-p", "n2");
        let mut another = pod("p", Value::Null);
        another["metadata"]["uid"] = json!("other");
        put(&mut view, "/pods", another);
        assert_eq!(view.pods_on("n2").count(), 0);
    }
}
