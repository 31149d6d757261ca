//! The store against its promises: expectations, lists, watches, restarts, damage.
//!
//! In: a temporary directory. Out: assertions. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

use limpet_store::*;
use std::{collections::HashMap, sync::Arc};

fn draft(text: &str) -> Draft {
    Draft::from_marked(format!(r#"{{"rv":"@","v":"{text}"}}"#).as_bytes(), "@").unwrap()
}

fn put(resource: &str, ns: &str, name: &str, expect: Expect, text: &str) -> Write {
    Write::Put { key: Key::new(resource, ns, name), expect, draft: draft(text) }
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), Options::default()).unwrap()
}

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (dir, store)
}

#[tokio::test]
async fn expectations_are_checked_and_the_revision_is_in_the_bytes() {
    let (_dir, store) = fresh();
    let a = store.write(put("/pods", "d", "a", Expect::Absent, "1")).await.unwrap();
    assert_eq!(&a.bytes[..], format!(r#"{{"rv":"{}","v":"1"}}"#, a.revision).as_bytes());
    assert_eq!((a.created, store.revision()), (a.revision, a.revision));
    let again = store.write(put("/pods", "d", "a", Expect::Absent, "2")).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let b = store.write(put("/pods", "d", "a", Expect::Revision(a.revision), "2")).await.unwrap();
    assert_eq!((b.created, b.revision), (a.revision, a.revision + 1));
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

#[tokio::test]
async fn write_all_is_all_or_nothing_and_sees_its_own_writes() {
    let (dir, store) = fresh();
    let before = store.revision();
    let failed = store
        .write_all(vec![
            put("/pods", "d", "a", Expect::Absent, "1"),
            put("/pods", "d", "b", Expect::Absent, "1"),
            put("/pods", "d", "a", Expect::Absent, "2"),
        ])
        .await;
    assert!(matches!(failed, Err(StoreError::Exists(_))));
    assert_eq!((store.revision(), store.list("/pods", None).records.len()), (before, 0));
    let records = store
        .write_all(vec![
            put("/pods", "d", "a", Expect::Absent, "1"),
            put("/pods", "d", "a", Expect::Any, "2"),
            put("/pods", "d", "b", Expect::Absent, "1"),
            Write::Delete { key: Key::new("/pods", "d", "b"), expect: Expect::Any, last: None },
        ])
        .await
        .unwrap();
    let revisions: Vec<_> = records.iter().map(|r| r.revision - before).collect();
    assert_eq!(revisions, [1, 2, 3, 4]);
    let mut watch = store.watch("/pods", None, before).unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = watch.try_next() {
        kinds.push(event.unwrap().kind);
    }
    use EventKind::{Delete, Put};
    let expect = [Put { created: true }, Put { created: false }, Put { created: true }, Delete];
    assert_eq!(kinds, expect);
    let listed = store.list("/pods", None).records;
    store.close().await.unwrap();
    drop(store);
    assert_eq!(open(&dir).list("/pods", None).records, listed);
}

#[tokio::test]
async fn lists_are_sorted_cut_and_continued() {
    let (_dir, store) = fresh();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_see_every_event_once_and_in_order_while_many_write() {
    let (_dir, store) = fresh();
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

#[tokio::test]
async fn what_left_the_window_is_too_old_and_slow_watches_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { window_events: 10, ..Options::default() };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let start = store.revision();
    let mut slow = store.watch("/pods", None, start).unwrap();
    let mut rare = store.watch("/nodes", None, start).unwrap();
    for i in 0..20 {
        store.write(put("/pods", "d", &i.to_string(), Expect::Absent, "")).await.unwrap();
    }
    assert_eq!(store.watch("/pods", None, start + 9).err().map(|e| e.oldest), Some(start + 10));
    assert!(store.watch("/pods", None, start + 10).is_ok());
    assert!(store.watch_all(start + 9).is_err());
    assert!(slow.try_next().unwrap().is_err());
    assert!(rare.try_next().is_none(), "a quiet resource does not lag behind a busy one");
    assert!(store.watch("/nodes", None, start).is_ok());
    let revision = store.revision();
    store.close().await.unwrap();
    assert!(matches!(store.write(put("/pods", "d", "z", Expect::Any, "")).await, Err(StoreError::Closed)));
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(store.revision(), revision, "a clean restart skips no revision");
    assert!(store.watch("/pods", None, revision - 1).is_err(), "history does not outlive the process");
    assert!(store.watch("/nodes", None, start).is_err());
    assert!(store.watch("/pods", None, revision).is_ok());
}

#[tokio::test]
async fn watches_end_with_the_store_and_wake_for_late_resources() {
    let (_dir, store) = fresh();
    let mut watch = store.watch("late/things", None, store.revision()).unwrap();
    store.write(put("late/things", "", "a", Expect::Absent, "")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().record.key.name, "a");
    drop(store);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn snapshot_and_watch_have_no_gap() {
    let (_dir, store) = fresh();
    store.write(put("/pods", "d", "a", Expect::Absent, "")).await.unwrap();
    let (listing, mut watch) = store.snapshot();
    store.write(put("/nodes", "", "n", Expect::Absent, "")).await.unwrap();
    assert_eq!(listing.records.len(), 1);
    assert_eq!(watch.next().await.unwrap().unwrap().revision(), listing.revision + 1);
}

#[tokio::test]
async fn relaxed_writes_survive_a_clean_close_and_never_give_a_revision_twice() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { relaxed: vec!["c/leases"], ..Options::default() };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let lease = store.write(put("c/leases", "n", "a", Expect::Absent, "1")).await.unwrap();
    let crash = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("store.redb"), crash.path().join("store.redb")).unwrap();
    let after_crash = Store::open(crash.path(), options.clone()).unwrap();
    assert_eq!(after_crash.get(&lease.key), None, "not yet flushed");
    assert!(after_crash.revision() >= lease.revision, "its revision is not given again");
    let gone = Write::Delete { key: Key::new("c/leases", "n", "a"), expect: Expect::Any, last: None };
    store.write(put("c/leases", "n", "b", Expect::Absent, "1")).await.unwrap();
    store.write(gone).await.unwrap();
    let revision = store.revision();
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(store.revision(), revision);
    let names: Vec<_> = store.list("c/leases", None).records.iter().map(|r| r.key.name.clone()).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test]
async fn one_hub_at_a_time_and_unfinished_creation_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb.new"), b"half a file").unwrap();
    let store = open(&dir);
    assert!(!dir.path().join("store.redb.new").exists());
    let second = Store::open(dir.path(), Options::default());
    assert!(matches!(second, Err(StoreError::InUse(_))), "{:?}", second.err());
    store.close().await.unwrap();
    assert!(Store::open(dir.path(), Options::default()).is_ok());
}

/// Flips bits all over the file: opening must either fail or give exactly what was written.
#[tokio::test]
async fn no_flipped_bit_gives_wrong_data() {
    let (dir, store) = fresh();
    for i in 0..40 {
        let text = "payload ".repeat(40);
        store.write(put("/pods", "d", &i.to_string(), Expect::Absent, &text)).await.unwrap();
    }
    let expect = store.list("/pods", None).records;
    store.close().await.unwrap();
    drop(store);
    let file = std::fs::read(dir.path().join("store.redb")).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for n in 0..300usize {
        let at = n.wrapping_mul(2_654_435_761) % file.len();
        let mut bad = file.clone();
        bad[at] ^= 1 << (n % 8);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.redb"), bad).unwrap();
        match Store::open(dir.path(), Options::default()) {
            Err(_) => refused += 1,
            Ok(store) => {
                assert_eq!(store.list("/pods", None).records, expect, "byte {at}");
                harmless += 1;
            }
        }
    }
    println!("{refused} refused, {harmless} in unused places");
    // Aimed at the data itself.
    let place = file.windows(8).position(|w| w == b"payload ").unwrap();
    let mut bad = file.clone();
    bad[place] ^= 1;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb"), bad).unwrap();
    match Store::open(dir.path(), Options::default()) {
        Err(StoreError::Damaged { .. }) => {}
        Err(other) => panic!("{other}"),
        // The place may be a page that is no longer part of the tree.
        Ok(store) => assert_eq!(store.list("/pods", None).records, expect),
    }
}

/// What a list holds, as text.
fn shown(listing: &Listing) -> Vec<String> {
    let text = |r: &Record| format!("{}/{}={}", r.key.namespace, r.key.name, String::from_utf8_lossy(&r.bytes));
    listing.records.iter().map(text).collect()
}

#[tokio::test]
async fn the_past_can_be_listed_as_it_was() {
    let (_dir, store) = fresh();
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

#[tokio::test]
async fn what_has_left_the_window_cannot_be_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { window_events: 3, ..Options::default() }).unwrap();
    let mut revisions = Vec::new();
    for step in 0..6 {
        revisions.push(store.write(put("/pods", "a", "x", Expect::Any, &step.to_string())).await.unwrap().revision);
    }
    let at = |revision| store.list_at("/pods", None, None, 9, revision).map(|l| shown(&l).len());
    assert_eq!(at(revisions[5]), Ok(1));
    assert_eq!(at(revisions[2]), Ok(1));
    assert!(at(revisions[1]).is_err());
}
