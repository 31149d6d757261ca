//! Files that are not what they should be: cut, flipped, overwritten, of something else, of the future.
//!
//! In: a good file, spoilt on purpose. Out: a clear refusal or exactly what was written, and the file left as it is.
//! Never: a panic that leaves the store, an object that nobody wrote.

#![allow(clippy::unwrap_used)]

mod support;

use limpet_store::*;
use redb::{Database, TableDefinition};
use std::path::Path;
use support::put;

const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

/// A closed store's file and its objects.
async fn good() -> (Vec<u8>, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    for i in 0..40 {
        let text = "payload ".repeat(40);
        store.write(put("/pods", "d", &i.to_string(), Expect::Absent, &text)).await.unwrap();
    }
    let records = store.list("/pods", None).records;
    store.close().await.unwrap();
    drop(store);
    (std::fs::read(dir.path().join("store.redb")).unwrap(), records)
}

/// Opens a directory with these bytes as its store.
fn opened(bytes: &[u8]) -> Result<Store, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(&path, bytes).unwrap();
    let outcome = Store::open(dir.path(), Options::default());
    if let Err(error) = &outcome {
        let told = error.to_string();
        assert!(told.contains("store.redb"), "which file: {told}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64, "left as it is: {told}");
    }
    outcome
}

fn check(what: &str, bytes: &[u8], records: &[Record]) -> bool {
    match opened(bytes) {
        Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
        Ok(store) => {
            assert_eq!(store.list("/pods", None).records, records, "{what}");
            false
        }
    }
}

#[tokio::test]
async fn every_part_of_the_file_may_be_flipped() {
    support::the_engine_panics_silently();
    let (file, records) = good().await;
    // Every byte of the engine's own header, and places all over the rest.
    let places = (0..320).chain((320..file.len()).step_by(file.len() / 300));
    let refused = places
        .filter(|at| {
            let mut bad = file.clone();
            bad[*at] ^= 1 << (at % 8);
            check(&format!("byte {at}"), &bad, &records)
        })
        .count();
    assert!(refused > 50, "{refused}");
}

#[tokio::test]
async fn a_file_that_was_cut_or_overwritten_is_refused() {
    support::the_engine_panics_silently();
    let (file, records) = good().await;
    for at in [0, 1, 63, 64, 319, 320, 4095, 4096, 8192].into_iter().chain((16_384..file.len()).step_by(file.len() / 60)) {
        let what = format!("cut at {at}");
        assert!(check(&what, &file[..at], &records), "{what}");
    }
    // A page of zeros, of ones, and of another place: what a bad card gives.
    for at in (0..file.len() - 4096).step_by(4096) {
        for (what, page) in [("zeros", vec![0; 4096]), ("ones", vec![255; 4096]), ("another", file[..4096].to_vec())] {
            let mut bad = file.clone();
            bad[at..at + 4096].copy_from_slice(&page);
            check(&format!("{what} at {at}"), &bad, &records);
        }
    }
    let mut longer = file.clone();
    longer.extend_from_slice(&[7; 10_000]);
    check("longer", &longer, &records);
}

#[tokio::test]
async fn a_file_of_something_else_is_refused() {
    for (what, bytes) in [
        ("text", b"not a database\n".repeat(1000)),
        ("SQLite", [b"SQLite format 3\0".to_vec(), vec![0; 8192]].concat()),
        ("zeros", vec![0; 65_536]),
        ("one byte", vec![1]),
    ] {
        assert!(check(what, &bytes, &[]), "{what}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store.redb")).unwrap();
    assert!(Store::open(dir.path(), Options::default()).is_err(), "a directory");
    // A database of the same engine, but not a hub's.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(Database::create(&path).unwrap());
    let told = Store::open(dir.path(), Options::default()).err().unwrap().to_string();
    assert!(told.contains("store.redb"), "{told}");
}

fn write_state(path: &Path, row: &[u8]) {
    let db = Database::open(path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(STATE).unwrap().insert("state", row).unwrap();
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_limpet_is_left_to_it() {
    let (file, _) = good().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(&path, &file).unwrap();
    let mut row: Vec<u8> = [99u64, 1, 1, 1, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    row.extend_from_slice(&crc32fast::hash(&row).to_le_bytes());
    write_state(&path, &row);
    let error = Store::open(dir.path(), Options::default()).err().unwrap();
    assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("newer limpet"), "{error}");
    // A state row of another shape, or none that fits its checksum.
    let cases: [&[u8]; 4] = [b"", b"short", &row[..row.len() - 1], &[0; 52]];
    for (at, bad) in cases.into_iter().enumerate() {
        write_state(&path, bad);
        let error = Store::open(dir.path(), Options::default()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{at}: {error}");
    }
}
