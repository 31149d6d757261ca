//! Two writers on one etcd, and what may happen to an etcd: killed, stopped, compacted, out of space, spoilt.
//!
//! In: an etcd of each test's own. Out: assertions: nothing lost, nothing twice. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/proxy.rs"]
mod proxy;

use limpet_store::*;
use proxy::Proxy;
use std::{path::Path, sync::Arc, time::Duration};
use support::{EtcdServer, World, delete, put};
use tokio::time::timeout;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(dir: &Path, etcd: &EtcdServer, writer: &str) -> Store {
    std::fs::create_dir_all(dir).unwrap();
    Store::connect(dir, support::options(etcd, writer), Options::default()).await.unwrap()
}

async fn two() -> Option<(World, Store, Store)> {
    let world = World::etcd()?;
    let etcd = world.etcd.as_ref().unwrap();
    let a = connect(&world.dir.path().join("a"), etcd, "hub-a").await;
    let b = connect(&world.dir.path().join("b"), etcd, "hub-b").await;
    Some((world, a, b))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_hub_writes_the_other_sees_watches_and_conflicts_with() {
    let Some((_world, a, b)) = two().await else { return };
    let mut watch = b.watch("/pods", None, b.revision()).unwrap();
    for i in 0..50 {
        let name = format!("p{i}");
        let made = a.write(put("/pods", "d", &name, Expect::Absent, "1")).await.unwrap();
        b.catch_up().await.unwrap();
        assert_eq!(b.get(&Key::new("/pods", "d", &name)), Some(made.clone()), "read from b what a has acknowledged");
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((event.kind, &event.record), (EventKind::Put { created: true }, &made));
    }
    let first = a.write(put("/pods", "d", "p0", Expect::Any, "a")).await.unwrap();
    let stale = b.write(put("/pods", "d", "p0", Expect::Revision(first.revision - 1), "b")).await;
    assert!(matches!(stale, Err(StoreError::Conflict { current, .. }) if current == first.revision));
    assert_eq!(b.get(&first.key), Some(first), "who was refused reads what was faster");
    let gone = a.write(delete("/pods", "d", "p1")).await.unwrap();
    assert!(matches!(b.write(delete("/pods", "d", "p1")).await, Err(StoreError::NotFound(_))));
    b.reached(gone.revision).await;
    let mut last = None;
    while let Some(event) = watch.try_next() {
        last = Some(event.unwrap());
    }
    let last = last.unwrap();
    assert_eq!((last.kind, last.revision()), (EventKind::Delete, gone.revision));
    let text = String::from_utf8(last.record.bytes.to_vec()).unwrap();
    assert_eq!(text, format!(r#"{{"rv":"{}","v":"1"}}"#, gone.revision), "the last state, at the deletion's revision");
}

/// Adds one, again and again while others are faster.
async fn add(store: &Store, key: &Key) {
    loop {
        store.catch_up().await.unwrap();
        let record = store.get(key).unwrap();
        let text = String::from_utf8(record.bytes.to_vec()).unwrap();
        let count: u64 = text.rsplit('"').nth(1).unwrap().parse().unwrap();
        let write = put("/pods", "d", "count", Expect::Revision(record.revision), &(count + 1).to_string());
        match store.write(write).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hubs_count_together() {
    let Some((_world, a, b)) = two().await else { return };
    let key = Key::new("/pods", "d", "count");
    a.write(put("/pods", "d", "count", Expect::Absent, "0")).await.unwrap();
    let tasks: Vec<_> = [&a, &b, &a, &b]
        .into_iter()
        .map(|store| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    add(&store, &key).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    a.catch_up().await.unwrap();
    let text = String::from_utf8(a.get(&key).unwrap().bytes.to_vec()).unwrap();
    assert!(text.contains(r#""v":"100""#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_whose_answer_is_lost_is_made_once_and_acknowledged() {
    let Some(world) = World::etcd() else { return };
    let proxy = Proxy::start(world.etcd.as_ref().unwrap().port).await;
    let url = format!("etcd://127.0.0.1:{}", proxy.port);
    let options = EtcdOptions::new(&url, &EtcdFiles::default(), "/limpet", "hub-a").unwrap();
    let store = Store::connect(world.dir.path(), options, Options::default()).await.unwrap();
    let mut watch = store.watch("/pods", None, store.revision()).unwrap();
    for i in 0..40 {
        proxy.cut();
        // Were it made twice, the second time would say that it exists.
        let record = store.write(put("/pods", "d", &i.to_string(), Expect::Absent, "1")).await.unwrap();
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((&event.record, event.kind), (&record, EventKind::Put { created: true }));
        proxy.cut();
        let changed = store.write(put("/pods", "d", &i.to_string(), Expect::Any, "2")).await.unwrap();
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((&event.record, event.previous.as_ref()), (&changed, Some(&record)));
        assert_eq!(changed.created, record.created);
    }
    assert!(watch.try_next().is_none());
    assert_eq!(store.count("/pods"), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_etcd_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let Some((mut world, a, b)) = two().await else { return };
    let mut watch = b.watch("/pods", None, b.revision()).unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|t| {
            let store = if t % 2 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move {
                let mut made = Vec::new();
                for i in 0..60 {
                    // Away: certainly not made, so again. Anything else would be a promise broken.
                    let record = loop {
                        match store.write(put("/pods", "d", &format!("{t}-{i}"), Expect::Absent, "1")).await {
                            Ok(record) => break record,
                            Err(StoreError::Away(_)) => {}
                            Err(other) => panic!("{t}-{i}: {other}"),
                        }
                    };
                    made.push(record);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                made
            })
        })
        .collect();
    let etcd = world.etcd.as_mut().unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::block_in_place(|| {
            etcd.kill();
            etcd.again();
        });
    }
    let mut made = 0;
    for task in tasks {
        for record in task.await.unwrap() {
            a.catch_up().await.unwrap();
            assert_eq!(a.get(&record.key), Some(record));
            made += 1;
        }
    }
    let mut last = 0;
    for _ in 0..made {
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert!(event.revision() > last && event.kind == EventKind::Put { created: true });
        last = event.revision();
    }
    b.catch_up().await.unwrap();
    assert!(watch.try_next().is_none());
    assert_eq!((made, b.count("/pods")), (240, 240));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_missed_what_was_compacted_reads_everything_anew_and_its_watches_are_told() {
    let Some((world, a, _)) = two().await else { return };
    let etcd = world.etcd.as_ref().unwrap();
    let proxy = Proxy::start(etcd.port).await;
    let url = format!("etcd://127.0.0.1:{}", proxy.port);
    let options = EtcdOptions::new(&url, &EtcdFiles::default(), "/limpet", "hub-c").unwrap();
    let c = Store::connect(&world.dir.path().join("c"), options, Options::default()).await.unwrap();
    let kept = a.write(put("/pods", "d", "kept", Expect::Absent, "1")).await.unwrap();
    let from = a.write(put("/pods", "d", "gone", Expect::Absent, "1")).await.unwrap().revision;
    c.reached(from).await;
    let mut watch = c.watch("/pods", None, from).unwrap();
    let mut rounds = 0;
    // The connection breaks with the first news; what follows is compacted before it is back, mostly.
    let lagged = loop {
        rounds += 1;
        assert!(rounds < 50, "c was never behind the compaction");
        proxy.cut();
        for i in 0..20 {
            a.write(put("/pods", "d", &format!("n{i}"), Expect::Any, &rounds.to_string())).await.unwrap();
        }
        etcd.etcdctl(&["compact", &a.revision().to_string()]);
        c.catch_up().await.unwrap();
        match std::iter::from_fn(|| watch.try_next()).find(Result::is_err) {
            Some(lagged) => break lagged.unwrap_err(),
            None => assert_eq!(c.list("/pods", None).records, a.list("/pods", None).records),
        }
    };
    assert!(lagged.oldest > from);
    assert!(c.watch("/pods", None, from).is_err(), "410: list again");
    assert_eq!(c.list("/pods", None).records, a.list("/pods", None).records);
    assert_eq!(c.get(&kept.key), Some(kept));
    let after = a.write(delete("/pods", "d", "gone")).await.unwrap();
    c.catch_up().await.unwrap();
    assert_eq!(c.get(&after.key), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_and_writes_say_when_etcd_is_away_and_go_on_when_it_is_back() {
    let Some((mut world, a, b)) = two().await else { return };
    a.write(put("/pods", "d", "x", Expect::Absent, "1")).await.unwrap();
    let etcd = world.etcd.as_mut().unwrap();
    etcd.signal("-STOP");
    let (read, write) = tokio::join!(a.catch_up(), b.write(put("/pods", "d", "y", Expect::Absent, "1")));
    assert!(matches!(read, Err(StoreError::Away(_))), "{read:?}");
    // Its request stands in etcd's socket and will be read, or fenced off.
    assert!(matches!(write, Err(StoreError::Doubt(_) | StoreError::Away(_))), "{write:?}");
    assert_eq!(a.count("/pods"), 1, "what was seen last can still be read");
    etcd.signal("-CONT");
    let again = async {
        while a.catch_up().await.is_err() || b.catch_up().await.is_err() {}
    };
    timeout(PATIENCE, again).await.unwrap();
    b.write(put("/pods", "d", "z", Expect::Absent, "1")).await.unwrap();
    a.catch_up().await.unwrap();
    assert!(a.get(&Key::new("/pods", "d", "z")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn secrets_are_sealed_in_etcd_and_a_hub_with_other_keys_or_spoilt_values_is_refused() {
    let Some(world) = World::etcd() else { return };
    let etcd = world.etcd.as_ref().unwrap();
    let sealed = |dir: &Path| Options {
        sealed: vec!["/secrets"],
        keys: Some(dir.join("store.keys")),
        ..Options::default()
    };
    let dirs = ["a", "b", "c"].map(|name| world.dir.path().join(name));
    let a = Store::connect(&dirs[0], support::options(etcd, "hub-a"), sealed(&dirs[0])).await.unwrap();
    let secret = a.write(put("/secrets", "d", "s", Expect::Absent, "very hidden words")).await.unwrap();
    a.write(put("/pods", "d", "p", Expect::Absent, "open words")).await.unwrap();
    let all = etcd.etcdctl(&["get", "--prefix", "/limpet/"]);
    assert!(all.contains("open words") && !all.contains("hidden words"));
    let told = Store::connect(&dirs[1], support::options(etcd, "hub-b"), sealed(&dirs[1])).await.err().unwrap().to_string();
    assert!(told.contains("store.keys"), "{told}");
    std::fs::create_dir_all(&dirs[2]).unwrap();
    std::fs::copy(dirs[0].join("store.keys"), dirs[2].join("store.keys")).unwrap();
    let c = Store::connect(&dirs[2], support::options(etcd, "hub-c"), sealed(&dirs[2])).await.unwrap();
    assert_eq!(c.get(&secret.key), Some(secret));
    drop((a, c));
    etcd.etcdctl(&["put", "/limpet/objects/core/pods/d/p", "no value of a hub"]);
    let told = Store::connect(&dirs[2], support::options(etcd, "hub-c"), sealed(&dirs[2])).await.err().unwrap().to_string();
    assert!(told.contains("/limpet/objects/core/pods/d/p"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_etcd_refuses_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = EtcdServer::start(&dir.path().join("etcd"), &["--quota-backend-bytes=8000000"]) else { return };
    let store = connect(dir.path(), &etcd, "hub-a").await;
    let large = "x".repeat(2_000_000);
    let refused = store.write(put("/pods", "d", "large", Expect::Absent, &large)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge(_))), "{refused:?}");
    let mut kept = 0;
    let full = loop {
        match store.write(put("/pods", "d", &kept.to_string(), Expect::Absent, &large[..500_000])).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the quota never ended");
    };
    assert!(matches!(full, StoreError::Quota), "{full}");
    store.catch_up().await.unwrap();
    assert_eq!(store.count("/pods"), kept);
    let Err(nobody) = Store::connect(dir.path(), unreachable(), Options::default()).await else { panic!("connected") };
    assert!(matches!(nobody, StoreError::Away(ref why) if why.contains("127.0.0.1:1")), "{nobody}");
}

fn unreachable() -> EtcdOptions {
    EtcdOptions::new("etcd://127.0.0.1:1", &EtcdFiles::default(), "/limpet", "hub").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn prefixes_are_apart_and_copies_are_stores_of_their_own() {
    let Some(world) = World::etcd() else { return };
    let etcd = world.etcd.as_ref().unwrap();
    let a = connect(&world.dir.path().join("a"), etcd, "hub-a").await;
    let url = etcd.url();
    let options = EtcdOptions::new(&url, &EtcdFiles::default(), "/limpet-2", "hub-a").unwrap();
    let other = Store::connect(&world.dir.path().join("b"), options, Options::default()).await.unwrap();
    let made = a.write(put("/pods", "d", "x", Expect::Absent, "1")).await.unwrap();
    other.catch_up().await.unwrap();
    assert_eq!(other.count("/pods"), 0);
    a.compact(made.revision).await.unwrap();
    a.compact(made.revision).await.unwrap();
    let copy = world.dir.path().join("copy");
    let at = a.copy_into(&copy).unwrap();
    let store = Store::open(&copy, Options::default()).unwrap();
    assert_eq!((store.revision(), store.get(&made.key)), (at, Some(made)));
    let key = Arc::new(Key::new("/pods", "d/e", "x"));
    let write = Write::Put { key: (*key).clone(), expect: Expect::Any, draft: support::draft("") };
    assert!(matches!(a.write(write).await, Err(StoreError::BadKey)));
}
