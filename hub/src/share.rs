//! One of several hubs on one etcd: its identity, its own directory, the CA that all have in common.
//!
//! In: the options. Out: the connected store; a clear refusal when this directory belongs to another cluster. The leader lets
//! etcd forget its past. Never: two processes with one identity.

use crate::{
    hub::{HubError, HubOptions, store_options},
    run::Lead,
};
use limpet_store::{Draft, EtcdOptions, Expect, Key, Store, StoreError, Write};
use serde_json::{Value, json};
use std::{
    fs::{File, TryLockError},
    io::Write as _,
    path::Path,
    time::Duration,
};

const LOCK: &str = "hub.lock";
const IDENTITY: &str = "hub.id";
const IDENTITY_BYTES_MAX: usize = 64;
const CLUSTER: &str = "limpet/cluster";

/// What a hub with an etcd has besides.
pub(crate) struct Shared {
    pub store: Store,
    /// Unique, and the same at each start.
    pub identity: String,
    /// Held while the hub runs.
    _lock: File,
}

/// `None` for a hub with a store of its own.
pub(crate) async fn open(options: &HubOptions) -> Result<Option<Shared>, HubError> {
    let Some(settings) = &options.etcd else { return Ok(None) };
    let dir = options.data_dir.as_path();
    let io = |what| move |source| HubError::Io { what, source };
    std::fs::create_dir_all(dir).map_err(io("make the data directory"))?;
    if dir.join("store.redb").exists() {
        return Err(HubError::Etcd(format!(
            "{} holds a store of its own, which would not be used; take another --data-dir",
            dir.display()
        )));
    }
    let lock = File::create(dir.join(LOCK)).map_err(io("make the lock file"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(HubError::InUse(dir.into())),
        Err(TryLockError::Error(source)) => return Err(HubError::Io { what: "lock the data directory", source }),
    }
    let identity = identity(dir).map_err(io("keep the hub's identity"))?;
    let etcd = EtcdOptions::new(&settings.url, &settings.files, &settings.prefix, &identity).map_err(HubError::Etcd)?;
    let store = Store::connect(dir, etcd, store_options(dir)).await?;
    Ok(Some(Shared { store, identity, _lock: lock }))
}

/// The machine's name for people, and random letters because machines are copied.
fn identity(dir: &Path) -> std::io::Result<String> {
    let path = dir.join(IDENTITY);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() && text.len() <= IDENTITY_BYTES_MAX => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    let made = format!("{}-{}", if host.is_empty() { "hub" } else { &host }, crate::api::random_hex(8));
    let temporary = dir.join("hub.id.new");
    let mut file = File::create(&temporary)?;
    file.write_all(made.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    Ok(made)
}

/// The first hub records its CA; all others must have the same.
pub(crate) async fn check_ca(store: &Store, ca_sha256: &str, dir: &Path) -> Result<(), HubError> {
    let key = Key::new(CLUSTER, "", "ca");
    let draft = Draft::opaque(json!({"caSha256": ca_sha256}).to_string().into_bytes());
    match store.write(Write::Put { key: key.clone(), expect: Expect::Absent, draft }).await {
        Ok(_) => return Ok(()),
        Err(StoreError::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let known = store.get(&key).and_then(|r| serde_json::from_slice::<Value>(&r.bytes).ok()).unwrap_or_default();
    if known["caSha256"] == ca_sha256 { Ok(()) } else { Err(HubError::OtherCa(dir.join("pki"))) }
}

/// Lets etcd forget what was before the last turn, while this hub leads.
pub(crate) async fn compact(store: Store, lead: Lead, every: Duration) {
    if every.is_zero() {
        return;
    }
    let mut before = store.revision();
    loop {
        tokio::time::sleep(every).await;
        lead.wait().await;
        if let Err(error) = store.compact(before).await {
            tracing::debug!(%error, "etcd was not compacted");
        }
        before = store.revision();
    }
}
