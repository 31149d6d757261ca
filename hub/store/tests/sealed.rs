//! Secrets on disk, key rotation, files of older versions, copies.
//!
//! In: temporary directories. Out: assertions. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

use limpet_store::*;
use redb::{Database, TableDefinition};
use std::path::Path;

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

fn options(dir: &Path) -> Options {
    Options { sealed: vec!["/secrets"], keys: Some(dir.join("store.keys")), ..Options::default() }
}

fn put(resource: &str, name: &str, text: &str) -> Write {
    let json = format!(r#"{{"rv":"@","v":"{text}"}}"#);
    let draft = Draft::from_marked(json.as_bytes(), "@").unwrap();
    Write::Put { key: Key::new(resource, "d", name), expect: Expect::Any, draft }
}

fn file(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("store.redb")).unwrap()
}

fn holds(dir: &Path, word: &str) -> bool {
    file(dir).windows(word.len()).any(|w| w == word.as_bytes())
}

#[tokio::test]
async fn secrets_are_not_in_the_file_and_need_their_key() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("not/there/yet");
    let store = Store::open(&dir, options(&dir)).unwrap();
    store.write(put("/secrets", "pin", "xyzzy-secret")).await.unwrap();
    store.write(put("/configmaps", "c", "plain-config")).await.unwrap();
    let (before, listed) = (store.list("/secrets", None).records, store.list("/configmaps", None).records);
    store.close().await.unwrap();
    drop(store);
    assert!(holds(&dir, "plain-config") && !holds(&dir, "xyzzy-secret"));
    let store = Store::open(&dir, options(&dir)).unwrap();
    assert_eq!(store.list("/secrets", None).records, before);
    assert_eq!(store.list("/configmaps", None).records, listed);
    store.close().await.unwrap();
    std::fs::rename(dir.join("store.keys"), dir.join("away")).unwrap();
    let told = Store::open(&dir, options(&dir)).err().unwrap().to_string();
    assert!(told.contains("key"), "{told}");
    std::fs::rename(dir.join("away"), dir.join("store.keys")).unwrap();
    assert_eq!(Store::open(&dir, options(&dir)).unwrap().list("/secrets", None).records, before);
}

#[tokio::test]
async fn a_new_key_seals_everything_again_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options(dir.path())).unwrap();
    for n in 0..600 {
        store.write(put("/secrets", &n.to_string(), "xyzzy-secret")).await.unwrap();
    }
    let old_keys = std::fs::read_to_string(dir.path().join("store.keys")).unwrap();
    let (revision, before) = (store.revision(), store.list("/secrets", None).records);
    let mut watch = store.watch_all(revision).unwrap();
    assert_eq!(store.rotate_key().await.unwrap(), 600);
    assert_eq!(store.revision(), revision, "nobody sees it");
    store.write(put("/secrets", "late", "xyzzy-secret")).await.unwrap();
    assert_eq!(&*watch.next().await.unwrap().unwrap().record.key.name, "late");
    let after = store.list("/secrets", None).records;
    store.close().await.unwrap();
    drop(store);
    let new_keys = std::fs::read_to_string(dir.path().join("store.keys")).unwrap();
    let key = |text: &str| text.lines().last().unwrap().to_owned();
    assert!(new_keys.contains("\n2 ") && !new_keys.contains(&key(&old_keys)), "the old key is gone");
    let store = Store::open(dir.path(), options(dir.path())).unwrap();
    assert_eq!(store.list("/secrets", None).records, after);
    assert!(before.iter().all(|r| after.contains(r)));
    store.close().await.unwrap();
    // Killed between the new key and the sealing: both keys are in the file, and both kinds of records open.
    std::fs::write(dir.path().join("store.keys"), format!("{new_keys}3 {}\n", "ab".repeat(32))).unwrap();
    let store = Store::open(dir.path(), options(dir.path())).unwrap();
    assert_eq!(store.list("/secrets", None).records, after);
    assert_eq!(store.rotate_key().await.unwrap(), 601, "the next rotation goes on");
}

/// A file as format 1 was: the digest was made from the checksums, Secrets were plain.
fn write_format_1(dir: &Path, rows: &[(&str, &str)]) {
    let spread = |x: u64| {
        let mut x = x ^ 0x9e37_79b9_7f4a_7c15;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let db = Database::create(dir.join("store.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    let mut digest = 0u64;
    {
        let mut table = transaction.open_table(OBJECTS).unwrap();
        for (at, (resource, text)) in rows.iter().enumerate() {
            let revision = at as u64 + 1;
            let key = format!("{resource}\0d\0n{at}").into_bytes();
            let mut rest = [revision.to_le_bytes(), revision.to_le_bytes()].concat();
            rest.extend_from_slice(text.as_bytes());
            let mut crc = crc32fast::Hasher::new();
            crc.update(&(key.len() as u32).to_le_bytes());
            crc.update(&key);
            crc.update(&rest);
            let sum = crc.finalize();
            digest = digest.wrapping_add(spread((u64::from(sum) << 32) ^ revision));
            let value = [&sum.to_le_bytes()[..], &rest].concat();
            table.insert(&key[..], &value[..]).unwrap();
        }
        let count = rows.len() as u64;
        let mut state: Vec<u8> = [1, 7, count, count, count, digest].iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
        state.extend_from_slice(&crc32fast::hash(&state).to_le_bytes());
        transaction.open_table(STATE).unwrap().insert("state", &state[..]).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_format_is_taken_over_and_its_secrets_are_sealed() {
    let dir = tempfile::tempdir().unwrap();
    write_format_1(dir.path(), &[("/secrets", r#"{"v":"xyzzy"}"#), ("/pods", r#"{"v":"web"}"#)]);
    assert!(holds(dir.path(), "xyzzy"));
    for _ in 0..2 {
        let store = Store::open(dir.path(), options(dir.path())).unwrap();
        assert_eq!(&store.list("/secrets", None).records[0].bytes[..], br#"{"v":"xyzzy"}"#);
        assert_eq!(&store.list("/pods", None).records[0].bytes[..], br#"{"v":"web"}"#);
        assert_eq!(store.revision(), 2);
        store.close().await.unwrap();
        assert!(!holds(dir.path(), "xyzzy"), "not even in a free page");
    }
}

#[tokio::test]
async fn a_copy_is_a_store_of_its_own_and_goes_on_behind_what_was_given() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), options(dir.path())).unwrap();
    store.write(put("/secrets", "pin", "xyzzy-secret")).await.unwrap();
    let copied = store.copy_into(to.path()).unwrap();
    store.write(put("/pods", "later", "x")).await.unwrap();
    let keys = |dir: &Path| std::fs::read(dir.join("store.keys")).unwrap();
    assert_ne!(keys(dir.path()), keys(to.path()), "a key of its own");
    assert!(!holds(to.path(), "xyzzy-secret"));
    let raised = skip_revisions(to.path(), options(to.path()), 1000).unwrap();
    assert_eq!(raised, copied + 1000);
    let copy = Store::open(to.path(), options(to.path())).unwrap();
    assert_eq!(copy.list("/secrets", None).records, store.list("/secrets", None).records);
    assert_eq!((copy.count("/pods"), copy.revision()), (0, raised));
    assert!(copy.write(put("/pods", "new", "x")).await.unwrap().revision > raised);
}
