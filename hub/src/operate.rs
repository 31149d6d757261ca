//! The operator's commands on a hub's data directory.
//!
//! In: the directory. Out: join tokens, who joined and who waits, snapshots, a new key for Secrets. While a hub runs it holds
//! the store, so it is asked over HTTPS with the directory's own `admin.kubeconfig`; otherwise the store is opened here.
//! Never: both; the store's lock decides.

pub mod broker;
pub mod client;
pub mod os_release;
pub mod release;
pub mod snapshot;

use crate::{
    addresses,
    enroll::{Decision, Devices, Enroll, EnrollError, TokenMade, TokenRecord, TokenWish},
    hub::store_options,
    pki::{Pki, PkiError},
};
use limpet_store::{Store, StoreError};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::SystemTime,
};

const TOKENS_PATH: &str = "/limpet/v1/tokens";
const NODES_PATH: &str = "/limpet/v1/nodes";

/// Nobody retries; the operator mends what the sentence tells.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    #[error("{} holds no hub yet; start one first: limpet hub --data-dir {}", .0.display(), .0.display())]
    NoHub(PathBuf),
    #[error("the hub of this directory runs, but cannot be asked: {0}")]
    Client(String),
    #[error("the hub says no: {0}")]
    Answer(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    #[error("{} holds a hub already; restore into an empty directory, or move this one away", .0.display())]
    HubThere(PathBuf),
    #[error("{} is no snapshot that can be restored: {why}", path.display())]
    Snapshot { path: PathBuf, why: String },
    #[error("{0}")]
    Release(String),
    #[error("cannot read or write the hub's files: {0}")]
    Io(#[from] std::io::Error),
}

pub fn create_token(data_dir: &Path, wish: &TokenWish) -> Result<TokenMade, OperateError> {
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.create_token(wish, SystemTime::now()).await?),
        Hub::Running(client) => ask(&client, "POST", TOKENS_PATH, Some(wish)).await,
    })
}

/// All tokens without their secrets, oldest first.
pub fn list_tokens(data_dir: &Path) -> Result<Vec<TokenRecord>, OperateError> {
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.tokens()),
        Hub::Running(client) => ask(&client, "GET", TOKENS_PATH, None::<&()>).await,
    })
}

/// Whether there was such a token.
pub fn revoke_token(data_dir: &Path, id: &str) -> Result<bool, OperateError> {
    let known = list_tokens(data_dir)?.iter().any(|t| t.id == id);
    if !known {
        return Ok(false);
    }
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.revoke_token(id).await?),
        Hub::Running(client) => {
            let path = format!("{TOKENS_PATH}/{id}");
            ask::<serde_json::Value>(&client, "DELETE", &path, None::<&()>).await.map(|_| true)
        }
    })
}

/// A new key for Secrets on disk; says how many were sealed again.
pub fn rotate_key(data_dir: &Path) -> Result<usize, OperateError> {
    with(data_dir, async |hub| match hub {
        Hub::Here { store, .. } => Ok(store.rotate_key().await?),
        Hub::Running(client) => {
            let answer: serde_json::Value = ask(&client, "POST", "/limpet/v1/store/rotate-key", None::<&()>).await?;
            Ok(answer["records"].as_u64().unwrap_or(0) as usize)
        }
    })
}

/// Asks a running hub with a kubeconfig.
pub fn get(kubeconfig: &Path, path: &str) -> Result<serde_json::Value, OperateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = client::Client::from_kubeconfig(kubeconfig).map_err(OperateError::Client)?;
    runtime.block_on(ask(&client, "GET", path, None::<&()>))
}

/// Says something to a running hub with a kubeconfig.
pub fn post(kubeconfig: &Path, path: &str, body: Vec<u8>) -> Result<serde_json::Value, OperateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = client::Client::from_kubeconfig(kubeconfig).map_err(OperateError::Client)?;
    let (code, bytes) = runtime.block_on(client.request("POST", path, Some(body))).map_err(OperateError::Client)?;
    answered(code, &bytes)
}

/// An answer of lines, as they come, until the hub ends it or `take` says that it is enough.
pub fn lines(kubeconfig: &Path, path: &str, take: impl FnMut(&str) -> bool) -> Result<(), OperateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = client::Client::from_kubeconfig(kubeconfig).map_err(OperateError::Client)?;
    match runtime.block_on(client.lines(path, take)).map_err(OperateError::Client)? {
        None => Ok(()),
        Some((code, bytes)) => answered::<serde_json::Value>(code, &bytes).map(|_| ()),
    }
}

/// Who joined and who waits.
pub fn list_nodes(data_dir: &Path) -> Result<Devices, OperateError> {
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.devices()),
        Hub::Running(client) => ask(&client, "GET", NODES_PATH, None::<&()>).await,
    })
}

/// Decides about a waiting device; whether there was one.
pub fn decide_node(data_dir: &Path, node: &str, decision: Decision) -> Result<bool, OperateError> {
    if !list_nodes(data_dir)?.waiting.iter().any(|w| w.node == node) {
        return Ok(false);
    }
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.decide(node, decision).await?),
        Hub::Running(client) => {
            let verb = if decision == Decision::Approved { "approve" } else { "reject" };
            let path = format!("{NODES_PATH}/{node}/{verb}");
            ask::<serde_json::Value>(&client, "POST", &path, None::<&()>).await.map(|_| true)
        }
    })
}

/// Closes the door to a node that joined; whether it had. Its Node object goes too, when the hub runs.
pub fn remove_node(data_dir: &Path, node: &str) -> Result<bool, OperateError> {
    if !list_nodes(data_dir)?.joined.iter().any(|i| i.node == node) {
        return Ok(false);
    }
    with(data_dir, async |hub| match hub {
        Hub::Here { enroll, .. } => Ok(enroll.remove(node).await?),
        Hub::Running(client) => {
            let path = format!("{NODES_PATH}/{node}");
            ask::<serde_json::Value>(&client, "DELETE", &path, None::<&()>).await.map(|_| true)
        }
    })
}

enum Hub {
    Here { store: Store, enroll: Enroll },
    Running(client::Client),
}

fn with<T>(data_dir: &Path, work: impl AsyncFnOnce(Hub) -> Result<T, OperateError>) -> Result<T, OperateError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if data_dir.join("hub.id").exists() {
            // Its objects are in an etcd: the running hub is asked.
            let client = client::Client::from_kubeconfig(&data_dir.join("admin.kubeconfig"));
            return work(Hub::Running(client.map_err(OperateError::Client)?)).await;
        }
        if !data_dir.join("store.redb").exists() {
            return Err(OperateError::NoHub(data_dir.into()));
        }
        match Store::open(data_dir, store_options(data_dir)) {
            Ok(store) => {
                let endpoints =
                    addresses::recall(data_dir).ok_or_else(|| OperateError::NoHub(data_dir.into()))?;
                let names = endpoints.api.iter().filter_map(|e| Some(e.rsplit_once(':')?.0.into()));
                let names: Vec<String> = names.collect();
                let pki = Pki::open(&data_dir.join("pki"), &names, SystemTime::now())?;
                let enroll = Enroll::new(store.clone(), Arc::new(RwLock::new(pki)), endpoints);
                let outcome = work(Hub::Here { store: store.clone(), enroll }).await;
                store.close().await?;
                outcome
            }
            Err(StoreError::InUse(_)) => {
                let client = client::Client::from_kubeconfig(&data_dir.join("admin.kubeconfig"));
                work(Hub::Running(client.map_err(OperateError::Client)?)).await
            }
            Err(other) => Err(other.into()),
        }
    })
}

async fn ask<T: DeserializeOwned>(
    client: &client::Client,
    method: &str,
    path: &str,
    body: Option<&(impl Serialize + ?Sized)>,
) -> Result<T, OperateError> {
    let body = body.map(serde_json::to_vec).transpose().map_err(|e| OperateError::Client(e.to_string()))?;
    let (code, bytes) = client.request(method, path, body).await.map_err(OperateError::Client)?;
    answered(code, &bytes)
}

fn answered<T: DeserializeOwned>(code: u16, bytes: &[u8]) -> Result<T, OperateError> {
    if !(200..300).contains(&code) {
        let status: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = status["message"].as_str().map(String::from);
        return Err(OperateError::Answer(text.unwrap_or_else(|| format!("HTTP {code}"))));
    }
    serde_json::from_slice(bytes).map_err(|e| OperateError::Client(format!("unreadable answer: {e}")))
}
