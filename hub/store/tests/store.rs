//! The store against its promises, over redb and over etcd: expectations, lists, watches, restarts.
//!
//! In: worlds of either sort. Out: assertions. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

mod support;

use limpet_store::*;
use std::{collections::HashMap, sync::Arc};
use support::{World, delete, draft, put};

/// Every test over both backends.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod redb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(super::World::redb()).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                if let Some(world) = super::World::etcd() {
                    super::$name(world).await;
                }
            })*
        }
    };
}

both!(
    expectations_are_checked_and_the_revision_is_in_the_bytes,
    write_all_is_all_or_nothing,
    lists_are_sorted_cut_and_continued,
    watches_see_every_event_once_and_in_order_while_many_write,
    what_left_the_window_is_too_old_and_slow_watches_are_told,
    watches_end_with_the_store_and_wake_for_late_resources,
    snapshot_and_watch_have_no_gap,
    the_past_can_be_listed_as_it_was,
    what_has_left_the_window_cannot_be_listed,
    checks_hold_in_the_same_moment,
    who_was_refused_finds_what_refused_him,
);

async fn expectations_are_checked_and_the_revision_is_in_the_bytes(world: World) {
    let store = world.open().await;
    let a = store.write(put("/pods", "d", "a", Expect::Absent, "1")).await.unwrap();
    assert_eq!(&a.bytes[..], format!(r#"{{"rv":"{}","v":"1"}}"#, a.revision).as_bytes());
    assert_eq!((a.created, store.revision()), (a.revision, a.revision));
    let again = store.write(put("/pods", "d", "a", Expect::Absent, "2")).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let b = store.write(put("/pods", "d", "a", Expect::Revision(a.revision), "2")).await.unwrap();
    assert_eq!(b.created, a.revision);
    assert!(b.revision > a.revision);
    let stale = store.write(put("/pods", "d", "a", Expect::Revision(a.revision), "3")).await;
    assert!(matches!(stale, Err(StoreError::Conflict { current, .. }) if current == b.revision));
    let missing = store.write(put("/pods", "d", "x", Expect::Revision(1), "3")).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    let key = Key::new("/pods", "d", "a");
    let gone = Write::Delete { key: key.clone(), expect: Expect::Any, last: Some(draft("bye")) };
    let gone = store.write(gone).await.unwrap();
    assert_eq!(&gone.bytes[..], format!(r#"{{"rv":"{}","v":"bye"}}"#, gone.revision).as_bytes());
    assert_eq!(store.get(&key), None);
    let twice = Write::Delete { key, expect: Expect::Any, last: None };
    assert!(matches!(store.write(twice).await, Err(StoreError::NotFound(_))));
    for bad in [Key::new("", "", "a"), Key::new("/pods", "", ""), Key::new("/pods", "a\0b", "c")] {
        let write = Write::Put { key: bad, expect: Expect::Any, draft: draft("") };
        assert!(matches!(store.write(write).await, Err(StoreError::BadKey)));
    }
}

async fn write_all_is_all_or_nothing(world: World) {
    let store = world.open().await;
    store.write(put("/pods", "d", "old", Expect::Absent, "1")).await.unwrap();
    let before = store.revision();
    let failed = store
        .write_all(vec![
            put("/pods", "d", "a", Expect::Absent, "1"),
            put("/pods", "d", "b", Expect::Absent, "1"),
            put("/pods", "d", "old", Expect::Absent, "2"),
        ])
        .await;
    assert!(matches!(failed, Err(StoreError::Exists(_))));
    let twice = vec![put("/pods", "d", "a", Expect::Absent, "1"), delete("/pods", "d", "a")];
    assert!(matches!(store.write_all(twice).await, Err(StoreError::Twice(_))));
    assert_eq!((store.revision(), store.list("/pods", None).records.len()), (before, 1));
    let records = store
        .write_all(vec![
            put("/pods", "d", "a", Expect::Absent, "1"),
            put("/pods", "d", "b", Expect::Absent, "1"),
            delete("/pods", "d", "old"),
        ])
        .await
        .unwrap();
    // With etcd they share one revision.
    assert!(records[0].revision > before && records.is_sorted_by_key(|r| r.revision));
    let mut watch = store.watch("/pods", None, before).unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = watch.try_next() {
        kinds.push(event.unwrap().kind);
    }
    use EventKind::{Delete, Put};
    // Those of one revision come in the order of their keys.
    assert_eq!(kinds, [Put { created: true }, Put { created: true }, Delete]);
    let listed = store.list("/pods", None).records;
    store.close().await.unwrap();
    drop(store);
    assert_eq!(world.open().await.list("/pods", None).records, listed);
}

async fn lists_are_sorted_cut_and_continued(world: World) {
    let store = world.open().await;
    for (ns, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("c", "1")] {
        store.write(put("/pods", ns, name, Expect::Absent, "")).await.unwrap();
    }
    store.write(put("/podsx", "a", "1", Expect::Absent, "")).await.unwrap();
    let name = |r: &Record| format!("{}/{}", r.key.namespace, r.key.name);
    let names = |l: &Listing| l.records.iter().map(name).collect::<Vec<_>>();
    assert_eq!(names(&store.list("/pods", None)), ["a/1", "a/2", "b/1", "c/1"]);
    assert_eq!(names(&store.list("/pods", Some("a"))), ["a/1", "a/2"]);
    assert_eq!(names(&store.list("/none", None)), [""; 0]);
    let first = store.list_from("/pods", None, None, 2);
    assert_eq!((names(&first), first.remaining), (vec!["a/1".into(), "a/2".into()], 2));
    let second = store.list_from("/pods", None, Some(("a", "2")), 2);
    assert_eq!((names(&second), second.remaining), (vec!["b/1".into(), "c/1".into()], 0));
    let inside = store.list_from("/pods", Some("a"), Some(("a", "1")), 5);
    assert_eq!((names(&inside), inside.remaining), (vec!["a/2".into()], 0));
    assert_eq!(store.count("/pods"), 4);
}

async fn watches_see_every_event_once_and_in_order_while_many_write(world: World) {
    let store = world.open().await;
    let start = store.revision();
    let mut watches: Vec<Watch> = vec![
        store.watch("/pods", None, start).unwrap(),
        store.watch("/pods", Some("n1"), start).unwrap(),
        store.watch_all(start).unwrap(),
    ];
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    let resource = if i % 5 == 0 { "/nodes" } else { "/pods" };
                    let name = format!("{w}-{}", i % 7);
                    store.write(put(resource, &format!("n{}", w % 2), &name, Expect::Any, "x")).await.unwrap();
                }
            })
        })
        .collect();
    for (watch, expect) in watches.iter_mut().zip([320, 160, 400]) {
        let mut last = start;
        let mut state: HashMap<Arc<Key>, Record> = HashMap::new();
        for _ in 0..expect {
            let event = watch.next().await.unwrap().unwrap();
            assert!(event.revision() > last);
            last = event.revision();
            assert_eq!(event.previous, state.insert(Arc::clone(&event.record.key), event.record.clone()));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for watch in &mut watches {
        assert!(watch.try_next().is_none());
        assert_eq!(watch.revision(), store.revision());
    }
}

async fn what_left_the_window_is_too_old_and_slow_watches_are_told(world: World) {
    let options = Options { window_events: 10, ..Options::default() };
    let store = world.open_with(options.clone()).await;
    let start = store.revision();
    let mut slow = store.watch("/pods", None, start).unwrap();
    let mut rare = store.watch("/nodes", None, start).unwrap();
    let mut given = Vec::new();
    for i in 0..20 {
        given.push(store.write(put("/pods", "d", &i.to_string(), Expect::Absent, "")).await.unwrap().revision);
    }
    assert_eq!(store.watch("/pods", None, given[8]).err().map(|e| e.oldest), Some(given[9]));
    assert!(store.watch("/pods", None, given[9]).is_ok());
    assert!(store.watch_all(given[8]).is_err());
    assert!(slow.try_next().unwrap().is_err());
    assert!(rare.try_next().is_none(), "a quiet resource does not lag behind a busy one");
    assert!(store.watch("/nodes", None, start).is_ok());
    let revision = store.revision();
    store.close().await.unwrap();
    assert!(matches!(store.write(put("/pods", "d", "z", Expect::Any, "")).await, Err(StoreError::Closed)));
    drop(store);
    let store = world.open_with(options).await;
    match world.etcd.is_some() {
        true => assert!(store.revision() >= revision),
        false => assert_eq!(store.revision(), revision, "a clean restart skips no revision"),
    }
    assert!(store.watch("/pods", None, revision - 1).is_err(), "history does not outlive the process");
    assert!(store.watch("/nodes", None, start).is_err());
    assert!(store.watch("/pods", None, store.revision()).is_ok());
}

async fn watches_end_with_the_store_and_wake_for_late_resources(world: World) {
    let store = world.open().await;
    let mut watch = store.watch("late/things", None, store.revision()).unwrap();
    store.write(put("late/things", "", "a", Expect::Absent, "")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().record.key.name, "a");
    drop(store);
    assert!(watch.next().await.is_none());
}

async fn snapshot_and_watch_have_no_gap(world: World) {
    let store = world.open().await;
    store.write(put("/pods", "d", "a", Expect::Absent, "")).await.unwrap();
    let (listing, mut watch) = store.snapshot();
    store.write(put("/nodes", "", "n", Expect::Absent, "")).await.unwrap();
    assert_eq!(listing.records.len(), 1);
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((&*event.record.key.name, event.revision()), ("n", store.revision()));
}




/// What a list holds, as text.
fn shown(listing: &Listing) -> Vec<String> {
    let text = |r: &Record| format!("{}/{}={}", r.key.namespace, r.key.name, String::from_utf8_lossy(&r.bytes));
    listing.records.iter().map(text).collect()
}

async fn the_past_can_be_listed_as_it_was(world: World) {
    let store = world.open().await;
    let start = store.revision();
    assert!(store.list_at("/pods", None, None, 9, start).unwrap().records.is_empty());
    let mut states = Vec::new();
    // A small walk that creates, changes, deletes and creates again, in two namespaces and two resources.
    for step in 0..60u64 {
        let (ns, name) = (["a", "b"][step as usize % 2], format!("n{}", step * 7 % 5));
        let resource = if step % 11 == 0 { "/nodes" } else { "/pods" };
        let key = Key::new(resource, ns, &name);
        if step % 3 == 0 && store.get(&key).is_some() {
            store.write(Write::Delete { key, expect: Expect::Any, last: None }).await.unwrap();
        } else {
            store.write(put(resource, ns, &name, Expect::Any, &step.to_string())).await.unwrap();
        }
        let listings = [None, Some("a"), Some("b")].map(|ns| shown(&store.list("/pods", ns)));
        states.push((store.revision(), listings));
    }
    for (revision, expect) in &states {
        for (ns, expect) in [None, Some("a"), Some("b")].into_iter().zip(expect) {
            let whole = store.list_at("/pods", ns, None, usize::MAX, *revision).unwrap();
            assert_eq!((&shown(&whole), whole.revision, whole.remaining), (expect, *revision, 0));
            // The same in pages of two.
            let (mut pages, mut after) = (Vec::new(), None::<(String, String)>);
            loop {
                let position = after.as_ref().map(|(ns, name)| (ns.as_str(), name.as_str()));
                let page = store.list_at("/pods", ns, position, 2, *revision).unwrap();
                pages.extend(shown(&page));
                assert_eq!(pages.len() + page.remaining, expect.len());
                after = page.records.last().map(|r| (r.key.namespace.clone(), r.key.name.clone()));
                if page.remaining == 0 {
                    break;
                }
            }
            assert_eq!(&pages, expect);
        }
    }
}

async fn what_has_left_the_window_cannot_be_listed(world: World) {
    let store = world.open_with(Options { window_events: 3, ..Options::default() }).await;
    let mut revisions = Vec::new();
    for step in 0..6 {
        revisions.push(store.write(put("/pods", "a", "x", Expect::Any, &step.to_string())).await.unwrap().revision);
    }
    let at = |revision| store.list_at("/pods", None, None, 9, revision).map(|l| shown(&l).len());
    assert_eq!(at(revisions[5]), Ok(1));
    assert_eq!(at(revisions[2]), Ok(1));
    assert!(at(revisions[1]).is_err());
}

async fn checks_hold_in_the_same_moment(world: World) {
    let store = world.open().await;
    let term = store.write(put("limpet/terms", "", "leader", Expect::Absent, "1")).await.unwrap();
    let held = || vec![Check { key: Key::new("limpet/terms", "", "leader"), expect: Expect::Revision(term.revision) }];
    store.write_if(held(), vec![put("/pods", "d", "a", Expect::Absent, "1")]).await.unwrap();
    store.write(put("limpet/terms", "", "leader", Expect::Any, "2")).await.unwrap();
    let late = store.write_if(held(), vec![put("/pods", "d", "b", Expect::Absent, "1")]).await;
    assert!(matches!(late, Err(StoreError::Conflict { key, .. }) if key.name == "leader"));
    assert_eq!(store.count("/pods"), 1);
    let absent = Check { key: Key::new("/pods", "d", "a"), expect: Expect::Absent };
    let there = store.write_if(vec![absent], vec![put("/pods", "d", "c", Expect::Absent, "1")]).await;
    assert!(matches!(there, Err(StoreError::Exists(_))));
    let gone = Check { key: Key::new("/pods", "d", "z"), expect: Expect::Revision(1) };
    let missing = store.write_if(vec![gone], vec![put("/pods", "d", "c", Expect::Absent, "1")]).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    assert_eq!(store.count("/pods"), 1);
}

/// Who tries again at once, by what can be read then, must not run against the same wall until the disk is ready.
async fn who_was_refused_finds_what_refused_him(world: World) {
    let store = world.open().await;
    for round in 0..20 {
        let name = format!("n{round}");
        let key = Key::new("/pods", "d", &name);
        let asks = |write: &dyn Fn(usize) -> Write| {
            let asks = (0..20).map(|at| tokio::spawn({
                let (store, key, write) = (store.clone(), key.clone(), write(at));
                async move {
                    let answer = store.write(write).await;
                    (answer, store.get(&key).map(|record| record.revision))
                }
            }));
            asks.collect::<Vec<_>>()
        };
        for ask in asks(&|_| put("/pods", "d", &name, Expect::Absent, "1")) {
            let (answer, seen) = ask.await.unwrap();
            assert!(matches!(answer, Ok(_) | Err(StoreError::Exists(_))), "{answer:?}");
            assert!(seen.is_some(), "refused by what cannot be read: {answer:?}");
        }
        let first = store.get(&key).unwrap().revision;
        for ask in asks(&|_| put("/pods", "d", &name, Expect::Revision(first), "2")) {
            let (answer, seen) = ask.await.unwrap();
            assert!(matches!(answer, Ok(_) | Err(StoreError::Conflict { .. })), "{answer:?}");
            assert!(seen > Some(first), "refused by what cannot be read: {answer:?}");
        }
        for ask in asks(&|_| delete("/pods", "d", &name)) {
            let (answer, seen) = ask.await.unwrap();
            assert!(matches!(answer, Ok(_) | Err(StoreError::NotFound(_))), "{answer:?}");
            assert_eq!(seen, None, "refused by what can still be read: {answer:?}");
        }
    }
}
