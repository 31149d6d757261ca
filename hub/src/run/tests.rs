//! The runners with the real core and a real store, and an API that only reads and writes.
//!
//! In: objects written to the store. Out: what the controllers and the scheduler made of them.

use super::*;
use limpet_hub_core::{Change, control, schedule::Scheduler};
use limpet_objects::status::Status;
use limpet_store::{Draft, Expect, Key, Options, Record, Store, StoreError, Write};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Every so many writes fail once.
const FAIL_EVERY: usize = 7;

pub(super) struct PlainApi {
    store: Store,
    uids: AtomicU64,
    writes: AtomicUsize,
    fail_every: usize,
    /// Pods that may still be created.
    room: AtomicUsize,
    /// Bindings say that they came, wait until they may go on, and are refused then.
    refusals: Option<[Notify; 2]>,
}

fn status(error: StoreError) -> Status {
    match error {
        StoreError::Exists(_) => Status::new(409, "AlreadyExists", "exists"),
        StoreError::NotFound(_) => Status::new(404, "NotFound", "gone"),
        StoreError::Conflict { .. } => Status::new(409, "Conflict", "conflict"),
        other => Status::internal(other.to_string()),
    }
}

fn put(key: Key, expect: Expect, mut object: Value) -> Write {
    object["metadata"]["resourceVersion"] = json!("@@revision@@");
    let draft = Draft::from_marked(object.to_string().as_bytes(), "@@revision@@").unwrap();
    Write::Put { key, expect, draft }
}

fn value(record: &Record) -> Value {
    serde_json::from_slice(&record.bytes).unwrap()
}

impl PlainApi {
    /// `fail_every` 0: never.
    pub fn new(store: Store, fail_every: usize) -> PlainApi {
        let (uids, writes, room) = (AtomicU64::new(1), AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
        PlainApi { store, uids, writes, fail_every, room, refusals: None }
    }

    fn trouble(&self) -> Result<(), Status> {
        match self.writes.fetch_add(1, Ordering::Relaxed).checked_rem(self.fail_every) {
            Some(0) => Err(Status::internal("trouble")),
            _ => Ok(()),
        }
    }

    async fn change(&self, key: Key, uid: &str, change: impl FnOnce(&mut Value)) -> Result<u64, Status> {
        self.trouble()?;
        let record = self.store.get(&key).ok_or(Status::new(404, "NotFound", "gone"))?;
        let mut object = value(&record);
        if !uid.is_empty() && object["metadata"]["uid"] != uid {
            return Err(Status::new(409, "Conflict", "another uid"));
        }
        change(&mut object);
        let written = self.store.write(put(key, Expect::Revision(record.revision), object)).await;
        written.map(|r| r.revision).map_err(status)
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            _ => merge(&mut into[name], value),
        }
    }
}

impl Api for PlainApi {
    fn create(&self, _: &'static str, resource: String, namespace: String, mut object: Value) -> Answer<'_, u64> {
        Box::pin(async move {
            self.trouble()?;
            let takes = |room: usize| room.checked_sub(1);
            if resource == "/pods" && self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes).is_err() {
                return Err(Status::new(403, "Forbidden", "no room"));
            }
            let name = object["metadata"]["name"].as_str().unwrap().to_string();
            object["metadata"]["uid"] = json!(format!("uid-{}", self.uids.fetch_add(1, Ordering::Relaxed)));
            object["metadata"]["creationTimestamp"] = json!("2026-11-23T00:00:00Z");
            if !namespace.is_empty() {
                object["metadata"]["namespace"] = json!(namespace);
            }
            let write = put(Key::new(resource, &namespace, &name), Expect::Absent, object);
            self.store.write(write).await.map(|r| r.revision).map_err(status)
        })
    }

    fn patch(&self, _: &'static str, ask: Patch) -> Answer<'_, u64> {
        Box::pin(async move {
            let key = Key::new(ask.resource, &ask.namespace, &ask.name);
            self.change(key, &ask.uid, |object| merge(object, &ask.merge)).await
        })
    }

    fn delete(&self, _: &'static str, ask: Delete) -> Answer<'_, u64> {
        Box::pin(async move {
            self.trouble()?;
            let key = Key::new(ask.resource, &ask.namespace, &ask.name);
            let write = Write::Delete { key, expect: Expect::Any, last: None };
            self.store.write(write).await.map(|r| r.revision).map_err(status)
        })
    }

    fn bind(&self, _: &'static str, namespace: String, name: String, uid: String, node: String) -> Answer<'_, u64> {
        Box::pin(async move {
            if let Some([came, go_on]) = &self.refusals {
                came.notify_one();
                go_on.notified().await;
                return Err(Status::new(409, "Conflict", "the pod is being deleted"));
            }
            let key = Key::new("/pods", &namespace, &name);
            self.change(key, &uid, |pod| pod["spec"]["nodeName"] = json!(node)).await
        })
    }

    fn token(&self, _: String, _: String, _: Value) -> Answer<'_, Value> {
        Box::pin(async { Err(Status::internal("no tokens here")) })
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    store: Store,
    api: Arc<PlainApi>,
    world: Arc<World>,
}

fn start(options: Options, refusals: Option<[Notify; 2]>) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options).unwrap();
    let api = Arc::new(PlainApi { refusals, ..PlainApi::new(store.clone(), FAIL_EVERY) });
    let (world, feed) = World::load(&store);
    let applier = Arc::new(Applier::new(api.clone(), store.clone(), Arc::clone(&world)));
    let controllers = Controllers::new(control::all(&control::Settings::default()), applier.clone());
    let scheduling = Scheduling::new(Scheduler::default(), applier, vec![controllers.clone()]);
    tokio::spawn(feed.run(vec![controllers.clone(), scheduling.clone()]));
    controllers.start();
    scheduling.start();
    Stage { _dir: dir, store, api, world }
}

impl Stage {
    async fn create(&self, resource: &str, namespace: &str, object: Value) {
        while self.api.create("test", resource.into(), namespace.into(), object.clone()).await.is_err() {}
    }

    /// Waits for a state; the watch tells when to look again.
    async fn until(&self, what: &str, holds: impl Fn(&Store) -> bool) {
        let mut watch = self.store.watch_all(self.store.revision()).unwrap();
        let looking = async {
            while !holds(&self.store) {
                match watch.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => watch = self.store.watch_all(self.store.revision()).unwrap(),
                    None => panic!("the store closed"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn pods(&self) -> Vec<Value> {
        self.store.list("/pods", None).records.iter().map(value).collect()
    }
}

fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
        "status": {
            "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                },
            },
        },
    })
}

async fn world_with(options: Options, refusals: Option<[Notify; 2]>) -> Stage {
    let stage = start(options, refusals);
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}, "status": {"phase": "Active"},
    });
    stage.create("/namespaces", "", namespace).await;
    stage.create("/nodes", "", node("a")).await;
    stage.create("/nodes", "", node("b")).await;
    stage
}

fn bound(store: &Store) -> usize {
    let pods = store.list("/pods", None).records;
    pods.iter().map(value).filter(|p| p["spec"]["nodeName"].is_string()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_bound_pods_although_writes_fail_now_and_then() {
    let stage = world_with(Options::default(), None).await;
    stage.create("apps/deployments", "default", deployment(20)).await;
    stage.until("20 bound pods", |store| bound(store) == 20).await;
    assert_eq!(stage.pods().len(), 20, "none twice");
    assert_eq!(stage.store.list("apps/replicasets", None).records.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_fell_behind_is_loaded_anew() {
    let stage = world_with(Options { window_events: 1, ..Options::default() }, None).await;
    stage.create("apps/deployments", "default", deployment(30)).await;
    stage.until("30 bound pods", |store| bound(store) == 30).await;
    assert_eq!(stage.pods().len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_hear_of_a_binding_that_is_refused() {
    let stage = world_with(Options::default(), Some([Notify::new(), Notify::new()])).await;
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "schedulerName": "default-scheduler"});
    let metadata = json!({"name": "p", "finalizers": ["x.io/y"]});
    stage.create("/pods", "default", json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})).await;
    let [came, go_on] = stage.api.refusals.as_ref().unwrap();
    came.notified().await;
    // It is deleted while its binding is under way: for all that a controller knows its board may have it.
    let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T00:00:00Z");
    let key = || Key::new("/pods", "default", "p");
    let revision = loop {
        if let Ok(revision) = stage.api.change(key(), "", deleted).await {
            break revision;
        }
    };
    stage.world.reached(revision).await;
    assert!(stage.world.read().pod("default", "p").unwrap().assumed);
    go_on.notify_one();
    // Nothing else will ever happen to it.
    stage.until("a pod that has failed", |store| value(&store.get(&key()).unwrap())["status"]["phase"] == "Failed").await;
}

#[tokio::test]
async fn where_there_is_no_room_few_try() {
    let pods = |n: usize| -> Vec<Change> {
        let object = |i| json!({"metadata": {"name": format!("p{i}")}});
        let resource = || "/pods".to_string();
        (0..n).map(|i| Change::Create { resource: resource(), namespace: "a".into(), object: object(i) }).collect()
    };
    // (room, asked for, tried): batches of 1, 2, 4, 8, 16, 32, 32; a batch with a failure is the last one.
    let cases = [(100, 100, 100), (0, 100, 1), (1, 100, 3), (3, 100, 7), (8, 100, 15), (9, 10, 10), (63, 500, 95)];
    for (room, asked, tried) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let api = Arc::new(PlainApi::new(store.clone(), 0));
        api.room.store(room, Ordering::Relaxed);
        let (world, feed) = World::load(&store);
        tokio::spawn(feed.run(vec![]));
        let applier = Applier::new(api.clone(), store.clone(), world);
        let outcome = applier.try_apply("test", pods(asked)).await;
        assert_eq!(outcome.is_ok(), room >= asked, "{room} of {asked}");
        assert_eq!(api.writes.load(Ordering::Relaxed) - 1, tried, "{room} of {asked}");
        assert_eq!(store.list("/pods", None).records.len(), room.min(asked));
    }
}

/// What a node tells again has the same name and a higher count; nothing of another Event changes.
#[tokio::test]
async fn a_nodes_event_that_happens_again_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let (world, feed) = World::load(&store);
    tokio::spawn(feed.run(vec![]));
    let applier = Applier::new(Arc::new(PlainApi::new(store.clone(), 0)), store.clone(), world);
    let told = async |host: &str, count: u32, at: &str| {
        let object = json!({"metadata": {"name": "p.1"}, "involvedObject": {"uid": "u"}, "source": {"host": host},
            "reason": "Started", "message": "m", "count": count, "firstTimestamp": "T1", "lastTimestamp": at});
        let create = Change::Create { resource: "/events".into(), namespace: "a".into(), object };
        applier.apply("test", vec![create]).await.unwrap();
        let event = value(&store.list("/events", None).records[0]);
        (event["count"].as_u64().unwrap(), event["lastTimestamp"].as_str().unwrap().to_owned())
    };
    for (host, count, at, want) in [
        ("n1", 1, "T1", (1, "T1")),
        ("n1", 2, "T2", (2, "T2")),
        ("n1", 5, "T5", (5, "T5")),
        // Said again, because its confirmation was lost; and of somebody else.
        ("n1", 2, "T2", (5, "T5")),
        ("n2", 9, "T9", (5, "T5")),
    ] {
        assert_eq!(told(host, count, at).await, (want.0, want.1.to_owned()), "{host} {count}");
    }
}
