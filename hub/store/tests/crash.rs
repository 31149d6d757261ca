//! kill -9 in the middle of writing, and a disk that fills up.
//!
//! In: this test's own binary, started again as the writer. Out: no acknowledged write is lost.
//! Never: depends on timing; the child is killed at an arbitrary moment and everything it printed must be there.

#![allow(clippy::unwrap_used)]

use limpet_store::*;
use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

const CHILD_DIR: &str = "LIMPET_TEST_STORE_DIR";

fn put(name: &str, expect: Expect, body: &str) -> Write {
    let json = format!(r#"{{"rv":"@","v":"{body}"}}"#);
    Write::Put { key: Key::new("/pods", "d", name), expect, draft: Draft::from_marked(json.as_bytes(), "@").unwrap() }
}

/// Not a test of its own: the writer that `killed_writers_lose_nothing` kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_writer() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = Store::open(Path::new(&dir), Options::default()).unwrap();
    println!("\nopen {}", store.revision());
    let tasks: Vec<_> = (0..4)
        .map(|t| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0u64.. {
                    let name = format!("{t}-{}", i % 50);
                    let record = store.write(put(&name, Expect::Any, &i.to_string())).await.unwrap();
                    let line = format!("ack {} {} {i}\n", record.revision, name);
                    let mut out = std::io::stdout().lock();
                    out.write_all(line.as_bytes()).unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn killed_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writer", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acks = std::collections::HashMap::new();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["open", revision] => assert!(revision.parse::<u64>().unwrap() >= newest),
                ["ack", revision, name, value] => {
                    let revision: u64 = revision.parse().unwrap();
                    newest = newest.max(revision);
                    let ack = acks.entry(name.to_string()).or_insert((revision, value.to_string()));
                    if revision > ack.0 {
                        *ack = (revision, value.to_string());
                    }
                    seen += 1;
                    if seen == round * 37 {
                        child.kill().unwrap();
                    }
                }
                _ => {}
            }
        }
        child.wait().unwrap();
        assert!(seen >= round * 37);
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert!(store.revision() >= newest);
        for (name, (revision, value)) in acks {
            let record = store.get(&Key::new("/pods", "d", &name)).unwrap();
            assert!(record.revision >= revision, "{name} fell back from {revision} to {}", record.revision);
            if record.revision == revision {
                let text = String::from_utf8(record.bytes.to_vec()).unwrap();
                assert_eq!(text, format!(r#"{{"rv":"{revision}","v":"{value}"}}"#));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.close()).unwrap();
    }
}

/// A small file system of its own; needs the right to mount.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "limpet-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|s| s.success()).then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_everything_and_recovers() {
    let Some(disk) = Tmpfs::mount() else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let dir = disk.0.path().join("data");
    let store = Store::open(&dir, Options::default()).unwrap();
    let ballast = disk.0.path().join("ballast");
    store.write(put("first", Expect::Absent, "1")).await.unwrap();
    std::fs::write(&ballast, vec![1; 1024 * 1024]).unwrap();
    let big = "x".repeat(20_000);
    let mut kept = vec!["first".to_string()];
    let error = loop {
        let name = format!("n{}", kept.len());
        match store.write(put(&name, Expect::Absent, &big)).await {
            Ok(_) => kept.push(name),
            Err(error) => break error,
        }
        assert!(kept.len() < 1000, "the disk never filled up");
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    let mut watch = store.watch("/pods", None, store.revision()).unwrap();
    assert_eq!(store.count("/pods"), kept.len());
    assert!(store.write(put("more", Expect::Absent, &big)).await.is_err());
    assert!(watch.try_next().is_none(), "a refused write is not seen");
    std::fs::remove_file(&ballast).unwrap();
    let after = store.write(put("after", Expect::Absent, "2")).await.unwrap();
    kept.push("after".into());
    assert_eq!(watch.next().await.unwrap().unwrap().revision(), after.revision);
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(&dir, Options::default()).unwrap();
    assert_eq!(store.count("/pods"), kept.len());
    assert!(kept.iter().all(|n| store.get(&Key::new("/pods", "d", n)).is_some()));
    store.close().await.unwrap();
}
