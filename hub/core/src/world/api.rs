//! What the API server does with changes, as far as controllers can tell.
//!
//! In: `Change`s. Out: objects, and the events that follow; they wait in `changed`. The scheduler sees each at once.
//! Never: validation.

use crate::{
    Change, Changed, Key, ObjectStore, Propagation, Timestamp,
    canonical::merge,
    schedule::Scheduler,
    view::{Kind, Object, ResourceQuota, conditions::rfc3339, kind_of},
};
use limpet_objects::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Objects, and the view of them that controllers get.
pub struct Api {
    pub view: ObjectStore,
    pub now: Timestamp,
    pub objects: BTreeMap<Key, Value>,
    /// (kind, name, reason, message) of all Events.
    pub events: Vec<(String, String, String, String)>,
    /// A resource that the API lets nobody create, and why.
    pub refuse: Option<(&'static str, &'static str)>,
    /// So many of the refused resource are let in before the refusals begin.
    pub room: usize,
    /// Why the API lets nobody delete pods.
    pub keep_pods: Option<&'static str>,
    /// Resource and name of an object that the API lets nobody patch, and why.
    pub refuse_patches_of: Option<(&'static str, &'static str, &'static str)>,
    /// Boards whose pretend kubelets neither hear nor say anything; what they run goes on.
    pub away: BTreeSet<String>,
    /// What those kubelets run, by (node, uid of its pod): namespace and name of the pod, also of one that the API no
    /// longer knows.
    pub at_work: BTreeMap<(String, String), String>,
    pub revision: u64,
    /// What happened since somebody took it from here.
    pub changed: Vec<Changed>,
    /// Asked after every single change.
    pub always: Option<fn(&Api)>,
    pub scheduler: Scheduler,
    /// What the scheduler takes the time to be, where the wall clock is set now and then.
    pub steady: Option<Timestamp>,
    /// Quotas are not looked at: a mistake, in tests of the fleet simulator's judge.
    pub unlimited: bool,
    /// A change that changes nothing is a mistake: true where nobody else writes between a plan and its changes.
    pub strict: bool,
}

impl Api {
    pub fn new(now: Timestamp, scheduler: Scheduler) -> Api {
        Api {
            view: ObjectStore::new(),
            now,
            objects: BTreeMap::new(),
            events: vec![],
            refuse: None,
            room: 0,
            keep_pods: None,
            refuse_patches_of: None,
            away: BTreeSet::new(),
            at_work: BTreeMap::new(),
            revision: 0,
            changed: vec![],
            always: None,
            scheduler,
            steady: None,
            unlimited: false,
            strict: true,
        }
    }

    pub fn steady(&self) -> Timestamp {
        self.steady.unwrap_or(self.now)
    }

    pub fn create(&mut self, resource: &str, object: Value) -> Key {
        self.try_create(resource, object).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_create(&mut self, resource: &str, mut object: Value) -> Result<Key, String> {
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = Key::new(resource, &text("/metadata/namespace"), &text("/metadata/name"));
        if self.objects.contains_key(&key) {
            return Err(format!("{resource} \"{}\" already exists", key.name));
        }
        let namespace = Key::new("/namespaces", "", &key.namespace);
        if self.objects.get(&namespace).is_some_and(|n| n["metadata"]["deletionTimestamp"].is_string()) {
            return Err(format!("namespace {} is being terminated", key.namespace));
        }
        if let Some((version, kind)) = kind_of(resource) {
            object["apiVersion"] = json!(version);
            object["kind"] = json!(kind);
        }
        if let Some(refusal) = self.over_quota(resource, &key.namespace, &object) {
            return Err(refusal);
        }
        let serial = self.revision + 1;
        if resource != "/pods" || !object["metadata"]["uid"].is_string() {
            object["metadata"]["uid"] = json!(format!("{serial:08x}-0000-4000-8000-000000000000"));
        }
        object["metadata"]["creationTimestamp"] = json!(rfc3339(self.now));
        object["metadata"]["generation"] = json!(1);
        self.default(resource, &mut object);
        self.put(key.clone(), object);
        Ok(key)
    }

    /// As the API's admission counts.
    fn over_quota(&self, resource: &str, namespace: &str, object: &Value) -> Option<String> {
        self.view.list::<ResourceQuota>(namespace).next().filter(|_| !self.unlimited)?;
        let new = Object::parse(resource, object.to_string().into_bytes().into())?;
        for quota in self.view.list::<ResourceQuota>(namespace) {
            let (spec, used) = (quota.field("/spec"), crate::quota::used(&self.view, quota));
            for (name, hard) in spec["hard"].as_object().into_iter().flatten() {
                let [hard, used] = [hard, &used[name]].map(|q| Quantity::from_json(q).ok());
                let more = crate::quota::takes(&spec, resource, &new, name);
                if !more.is_zero() && hard?.minus(used?.plus(more)).is_negative() {
                    return Some(format!("exceeded quota: {}", quota.meta.name));
                }
            }
        }
        None
    }

    fn default(&mut self, resource: &str, o: &mut Value) {
        let mut set = |path: &[&str], v: Value| {
            let mut at = &mut *o;
            for p in path {
                at = &mut at[*p];
            }
            if at.is_null() {
                *at = v;
            }
        };
        match resource {
            "/pods" => {
                set(&["spec", "schedulerName"], json!("default-scheduler"));
                set(&["spec", "restartPolicy"], json!("Always"));
                set(&["status", "phase"], json!("Pending"));
            }
            "apps/deployments" => {
                set(&["spec", "replicas"], json!(1));
                set(&["spec", "progressDeadlineSeconds"], json!(600));
                set(&["spec", "strategy", "type"], json!("RollingUpdate"));
            }
            "batch/jobs" => {
                let uid = o["metadata"]["uid"].clone();
                o["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
                o["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = uid;
            }
            "/namespaces" => {
                set(&["spec", "finalizers"], json!(["kubernetes"]));
                set(&["status", "phase"], json!("Active"));
            }
            _ => {}
        }
    }

    pub fn put(&mut self, key: Key, mut object: Value) {
        crate::canonical::strip_nulls(&mut object);
        self.put_whole(&key, object);
    }

    /// As `put`, an object without nulls.
    fn put_whole(&mut self, key: &Key, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let mut raw = Vec::with_capacity(self.view.object(key).map_or(0, |o| o.raw().len()) + 256);
        let _ = serde_json::to_writer(&mut raw, &object);
        let changed =
            self.view.apply(self.revision, &key.resource, &key.namespace, &key.name, Some(raw.into()));
        self.scheduler.observe(&self.view, &changed, self.steady());
        self.changed.push(changed);
        match self.objects.get_mut(key) {
            Some(place) => *place = object,
            None => _ = self.objects.insert(key.clone(), object),
        }
        if let Some(always) = self.always {
            always(self);
        }
    }

    pub fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.objects.remove(key);
        let changed = self.view.apply(self.revision, &key.resource, &key.namespace, &key.name, None);
        self.scheduler.observe(&self.view, &changed, self.steady());
        self.changed.push(changed);
        if let Some(always) = self.always {
            always(self);
        }
    }

    /// As a hub that starts: the view is read anew, and all there is counts as new.
    pub fn reload(&mut self, scheduler: Scheduler) {
        let before = std::mem::take(&mut self.view);
        self.scheduler = scheduler;
        self.changed.clear();
        for (key, object) in &self.objects {
            let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(1);
            // Reading the same bytes again gives the same; a binding that was only assumed is not in them.
            let bound = object["spec"]["nodeName"].is_string();
            let assumed = |o: &Object| matches!(o, Object::Pod(p) if p.node.is_some() && !bound);
            let same = |o: &&Object| o.meta().resource_version == version && !assumed(o);
            let changed = match before.object(key).filter(same) {
                Some(read) => self.view.apply_read(version, key, read.clone()),
                None => {
                    let raw = serde_json::to_vec(object).unwrap_or_default();
                    self.view.apply(version, &key.resource, &key.namespace, &key.name, Some(raw.into()))
                }
            };
            self.changed.push(changed);
        }
        // The newest revision may have been a deletion.
        self.changed.push(self.view.apply(self.revision, "world/marker", "", "start", None));
        let now = self.steady();
        self.changed.iter().for_each(|c| self.scheduler.observe(&self.view, c, now));
    }

    pub fn get(&self, resource: &str, ns: &str, name: &str) -> &Value {
        let key = Key::new(resource, ns, name);
        self.objects.get(&key).unwrap_or_else(|| panic!("no {key}"))
    }

    pub fn exists(&self, resource: &str, ns: &str, name: &str) -> bool {
        self.objects.contains_key(&Key::new(resource, ns, name))
    }

    pub fn list(&self, resource: &str) -> Vec<&Value> {
        self.objects.iter().filter(|(k, _)| &*k.resource == resource).map(|(_, v)| v).collect()
    }

    /// As `kubectl patch --type=merge`.
    pub fn patch(&mut self, resource: &str, ns: &str, name: &str, patch: Value) {
        self.edit(&Key::new(resource, ns, name), &patch);
    }

    pub fn edit(&mut self, key: &Key, patch: &Value) {
        let Some(place) = self.objects.get_mut(key) else { panic!("no {key}") };
        let spec = patch.get("spec").is_some_and(|spec| merges(place, &json!({"spec": spec})));
        if !merges(place, patch) && !spec {
            return;
        }
        let mut new = place.take();
        if spec {
            new["metadata"]["generation"] = json!(new["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let going = !new["metadata"]["deletionTimestamp"].is_null();
        let pod_waits = &*key.resource == "/pods" && new["metadata"]["deletionGracePeriodSeconds"] != 0;
        if going && !pod_waits && no_finalizers(&new) && &*key.resource != "/namespaces" {
            return self.remove(key);
        }
        if going && &*key.resource == "/namespaces" && is_empty(&new["spec"]["finalizers"]) {
            return self.remove(key);
        }
        self.put_whole(key, new);
    }

    pub fn delete(&mut self, resource: &str, ns: &str, name: &str) {
        self.delete_with(&Key::new(resource, ns, name), None, None);
    }

    pub fn delete_with(&mut self, key: &Key, grace: Option<i64>, propagation: Option<Propagation>) {
        let Some(old) = self.objects.get(key) else { return };
        let extra = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        let bound = &*key.resource == "/pods" && old["spec"]["nodeName"].is_string();
        let done = ["Succeeded", "Failed"].contains(&old["status"]["phase"].as_str().unwrap_or(""));
        let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        let grace = if bound && !done { grace.unwrap_or(own) } else { 0 };
        let namespace = &*key.resource == "/namespaces" && !is_empty(&old["spec"]["finalizers"]);
        if grace == 0 && extra.is_none() && no_finalizers(old) && !namespace {
            return self.remove(key);
        }
        let mut new = old.clone();
        if let Some(f) = extra {
            let mut list = new["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            list.push(json!(f));
            new["metadata"]["finalizers"] = json!(list);
        }
        new["metadata"]["deletionTimestamp"] = json!(rfc3339(self.now));
        new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if namespace {
            new["status"]["phase"] = json!("Terminating");
        }
        if new != *old {
            self.put_whole(key, new);
        }
    }

    /// As a shell does it for a `Bind` that is on its way.
    pub fn assume(&mut self, change: &Change) {
        if let Change::Bind { namespace, name, uid, node } = change {
            let assumed = self.view.assume_bound(namespace, name, uid, node);
            let now = self.steady();
            assumed.iter().for_each(|c| self.scheduler.observe(&self.view, c, now));
        }
    }

    pub fn apply(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Create { resource, .. } if self.room == 0 && self.refuse.is_some_and(|(r, _)| r == resource) => {
                Err(self.refuse.map(|(_, why)| why.to_owned()).unwrap_or_default())
            }
            Change::Create { resource, object, .. } => {
                self.room -= usize::from(self.refuse.is_some_and(|(r, _)| r == resource));
                self.try_create(resource, object.clone()).map(|_| ())
            }
            Change::Patch { resource, name, .. }
                if self.refuse_patches_of.is_some_and(|(r, n, _)| r == resource && n == name) =>
            {
                Err(self.refuse_patches_of.map(|(_, _, why)| why.to_owned()).unwrap_or_default())
            }
            Change::Patch { resource, namespace, name, uid, resource_version, subresource, merge } => {
                let key = Key::new(resource, namespace, name);
                let old = self.objects.get(&key).ok_or(format!("{key} not found"))?;
                if !uid.is_empty() && old["metadata"]["uid"] != **uid {
                    return Err(format!("uid of {key} differs"));
                }
                let version = old["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
                if resource_version.is_some() && *resource_version != version {
                    return Err(format!("conflict on {key}"));
                }
                assert_eq!(*subresource == Some("status"), merge.get("status").is_some(), "{key} {merge}");
                let before = self.revision;
                self.edit(&key, merge);
                assert!(!self.strict || before != self.revision, "a patch of {key} that changes nothing: {merge}");
                Ok(())
            }
            Change::Delete { resource, .. } if resource == "/pods" && self.keep_pods.is_some() => {
                Err(self.keep_pods.unwrap_or_default().to_owned())
            }
            Change::Delete { resource, namespace, name, uid, grace, propagation } => {
                let key = Key::new(resource, namespace, name);
                let before = self.revision;
                if self.objects.get(&key).is_some_and(|o| o["metadata"]["uid"] == **uid || uid.is_empty()) {
                    self.delete_with(&key, *grace, *propagation);
                    assert!(!self.strict || before != self.revision, "a delete of {key} that changes nothing");
                }
                Ok(())
            }
            Change::Event { regarding, reason, message, .. } => {
                let r = regarding;
                self.events.push((r.kind.clone(), r.name.clone(), reason.clone(), message.clone()));
                Ok(())
            }
            Change::Bind { namespace, name, uid, node } => {
                let key = Key::new(crate::view::Pod::RESOURCE, namespace, name);
                let pod = self.objects.get(&key).filter(|p| p["metadata"]["uid"] == **uid);
                if pod.is_none_or(|p| p["spec"]["nodeName"].is_string() || p["metadata"]["deletionTimestamp"].is_string()) {
                    return Err(format!("{key} is not there to be bound"));
                }
                let since = rfc3339(self.now);
                let bound = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": since});
                let patch = json!({"spec": {"nodeName": node}, "status": {"conditions": [bound]}});
                self.edit(&key, &patch);
                Ok(())
            }
        }
    }
}

/// As `merge`, on an object without nulls; whether it is another one afterwards.
fn merges(target: &mut Value, patch: &Value) -> bool {
    let (Value::Object(fields), Value::Object(patch)) = (&mut *target, patch) else {
        let mut new = Value::Null;
        merge(&mut new, patch);
        crate::canonical::strip_nulls(&mut new);
        let differs = new != *target;
        *target = new;
        return differs;
    };
    let mut differs = false;
    for (name, value) in patch {
        differs |= match fields.get_mut(name) {
            _ if value.is_null() => fields.remove(name).is_some(),
            Some(field) => merges(field, value),
            None => {
                let mut new = Value::Null;
                merge(&mut new, value);
                crate::canonical::strip_nulls(&mut new);
                fields.insert(name.clone(), new);
                true
            }
        };
    }
    differs
}

fn is_empty(v: &Value) -> bool {
    v.as_array().is_none_or(Vec::is_empty)
}

fn no_finalizers(o: &Value) -> bool {
    is_empty(&o["metadata"]["finalizers"])
}
