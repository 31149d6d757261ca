//! Cuts at every byte, flipped bits, secrets at rest, compaction.

use super::*;
use limpet_agent_core::pods::PodMemory;
use limpet_protocol::{Item, ItemKey, ItemKind};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("limpet-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key() -> DeviceKey {
    DeviceKey::from_bytes(&[7; 32]).unwrap()
}

fn put(kind: ItemKind, name: &str, body: &[u8]) -> Record {
    Record::Put(Item { key: ItemKey::new(kind, "default", name), generation: 3, body: body.to_vec() })
}

fn batches() -> Vec<Vec<Record>> {
    vec![
        vec![put(ItemKind::Pod, "a", b"{}"), put(ItemKind::Secret, "s", b"TOPSECRET")],
        vec![Record::Remove(ItemKey::new(ItemKind::Pod, "default", "a")), Record::SessionCeiling(64)],
        vec![
            Record::Pod(PodMemory { uid: "u".into(), start_ms: 5, ..PodMemory::default() }),
            Record::VersionCeiling(9),
            Record::TimeFloor(1),
            Record::LinkUse(1_795_000_000, 7, u64::MAX),
            Record::ForgetPod("u".into()),
        ],
    ]
}

#[test]
fn a_cut_at_any_byte_gives_a_prefix_of_the_batches() {
    let dir = Dir::new("cut");
    let (mut journal, empty) = Journal::open(&dir.0, key()).unwrap();
    assert!(empty.is_empty());
    let mut prefixes = vec![Vec::new()];
    for batch in batches() {
        journal.append(&batch).unwrap();
        prefixes.push([prefixes.last().unwrap().clone(), batch].concat());
    }
    let whole = std::fs::read(dir.0.join("journal")).unwrap();
    for cut in MAGIC.len()..=whole.len() {
        std::fs::write(dir.0.join("journal"), &whole[..cut]).unwrap();
        let (mut journal, records) = Journal::open(&dir.0, key()).unwrap();
        assert!(prefixes.contains(&records), "cut at {cut}");
        journal.append(&[Record::TimeFloor(77)]).unwrap();
        let (_, again) = Journal::open(&dir.0, key()).unwrap();
        assert_eq!(again, [records, vec![Record::TimeFloor(77)]].concat(), "appended after cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_never_gives_something_that_was_not_written() {
    let dir = Dir::new("flip");
    let (mut journal, _) = Journal::open(&dir.0, key()).unwrap();
    let mut prefixes = vec![Vec::new()];
    for batch in batches() {
        journal.append(&batch).unwrap();
        prefixes.push([prefixes.last().unwrap().clone(), batch].concat());
    }
    let whole = std::fs::read(dir.0.join("journal")).unwrap();
    for at in MAGIC.len()..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(dir.0.join("journal"), &bytes).unwrap();
        let (_, records) = Journal::open(&dir.0, key()).unwrap();
        assert!(prefixes.contains(&records), "flip at {at}");
    }
}

#[test]
fn secrets_are_not_readable_in_the_file_nor_with_another_key() {
    let dir = Dir::new("secret");
    let (mut journal, _) = Journal::open(&dir.0, key()).unwrap();
    journal.append(&batches().concat()).unwrap();
    let file = std::fs::read(dir.0.join("journal")).unwrap();
    assert!(!file.windows(9).any(|w| w == b"TOPSECRET"));
    let (_, records) = Journal::open(&dir.0, DeviceKey::from_bytes(&[8; 32]).unwrap()).unwrap();
    assert_eq!(records.len(), batches().concat().len() - 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.0.join("journal")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn compaction_keeps_the_state_and_goes_on() {
    let dir = Dir::new("compact");
    let (mut journal, _) = Journal::open(&dir.0, key()).unwrap();
    let big = vec![b'x'; 4096];
    while !journal.wants_compaction() {
        journal.append(&[put(ItemKind::ConfigMap, "c", &big)]).unwrap();
    }
    let state = vec![put(ItemKind::ConfigMap, "c", &big), Record::SessionCeiling(5)];
    journal.compact(&state).unwrap();
    assert!(!journal.wants_compaction());
    journal.append(&[Record::TimeFloor(2)]).unwrap();
    let (_, records) = Journal::open(&dir.0, key()).unwrap();
    assert_eq!(records, [state, vec![Record::TimeFloor(2)]].concat());
}

#[test]
fn a_foreign_file_is_left_alone() {
    let dir = Dir::new("foreign");
    std::fs::write(dir.0.join("journal"), b"somebody else's").unwrap();
    assert!(matches!(Journal::open(&dir.0, key()), Err(JournalError::Foreign { .. })));
}
