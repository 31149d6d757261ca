//! What only the file can promise: relaxed writes, one hub at a time, damage.
//!
//! In: a temporary directory. Out: assertions. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

mod support;

use limpet_store::*;
use support::put;

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), Options::default()).unwrap()
}

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (dir, store)
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
    support::the_engine_panics_silently();
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
