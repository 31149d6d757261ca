//! Stores for tests: over redb in a temporary directory, or over an etcd of the test's own.
//!
//! In: the installed `etcd`. Out: `World`s, whose stores can be closed and opened again.
//! Never: an etcd that outlives its test.

#![allow(clippy::unwrap_used, dead_code, unused_imports)]

pub mod etcd;

use limpet_store::*;
pub use etcd::EtcdServer;

/// The engine panics on some of what these tests give it, and the store makes an error of it: fifty traces would hide the one
/// that matters. Panics of anybody else are told as ever.
pub fn the_engine_panics_silently() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |told| {
            if !told.location().is_some_and(|at| at.file().contains("/redb-")) {
                usual(told);
            }
        }));
    });
}

pub fn draft(text: &str) -> Draft {
    Draft::from_marked(format!(r#"{{"rv":"@","v":"{text}"}}"#).as_bytes(), "@").unwrap()
}

pub fn put(resource: &str, ns: &str, name: &str, expect: Expect, text: &str) -> Write {
    Write::Put { key: Key::new(resource, ns, name), expect, draft: draft(text) }
}

pub fn delete(resource: &str, ns: &str, name: &str) -> Write {
    Write::Delete { key: Key::new(resource, ns, name), expect: Expect::Any, last: None }
}

/// Where a test's objects are kept.
pub struct World {
    pub dir: tempfile::TempDir,
    pub etcd: Option<EtcdServer>,
}

impl World {
    pub fn redb() -> World {
        World { dir: tempfile::tempdir().unwrap(), etcd: None }
    }

    /// `None`, and says so, when etcd is not installed.
    pub fn etcd() -> Option<World> {
        let dir = tempfile::tempdir().unwrap();
        let etcd = EtcdServer::start(&dir.path().join("etcd"), &[])?;
        Some(World { dir, etcd: Some(etcd) })
    }

    pub async fn open(&self) -> Store {
        self.open_with(Options::default()).await
    }

    pub async fn open_with(&self, asked: Options) -> Store {
        match &self.etcd {
            None => Store::open(self.dir.path(), asked).unwrap(),
            Some(etcd) => Store::connect(self.dir.path(), options(etcd, "hub-a"), asked).await.unwrap(),
        }
    }
}

pub fn options(etcd: &EtcdServer, writer: &str) -> EtcdOptions {
    let url = etcd.url();
    EtcdOptions::new(&url, &EtcdFiles::default(), "/limpet", writer).unwrap()
}
