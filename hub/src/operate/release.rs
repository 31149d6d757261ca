//! Releases of the agent: signed here, kept in the hub's registry, fetched by boards.
//!
//! In: programs by processor, a version, a private key. Out: an artifact `limpet/agent:VERSION` in the registry of the running
//! hub. Never: another content under a version that is published already.

use super::{OperateError, client};
use crate::{
    addresses,
    pki::{hex, update},
};
use limpet_protocol::release::{
    self, ARTIFACT_TYPE, DOCUMENT_TYPE, PROGRAM_BYTES_MAX, PROGRAM_TYPE, Program, REPOSITORY, Release, Version,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::{Path, PathBuf}, time::Duration};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TIME: Duration = Duration::from_secs(300);

/// What is to be published.
pub struct Wish {
    pub version: String,
    pub allow_downgrade: bool,
    /// By processor, in Go's words.
    pub programs: BTreeMap<String, Vec<u8>>,
    /// Instead of the hub's own `pki/update.key`.
    pub key: Option<PathBuf>,
}

pub fn publish(data_dir: &Path, wish: &Wish) -> Result<(), OperateError> {
    let wrong = |why: String| OperateError::Release(why);
    Version::parse(&wish.version).map_err(wrong)?;
    if wish.programs.is_empty() || wish.programs.values().any(|p| p.is_empty() || p.len() as u64 > PROGRAM_BYTES_MAX) {
        return Err(wrong(format!("a program has at least one byte and at most {} MiB", PROGRAM_BYTES_MAX >> 20)));
    }
    let document = sign(data_dir, wish)?;
    exchange(data_dir, async |hub| {
        is_new(hub, REPOSITORY, &wish.version).await?;
        let mut layers = Vec::new();
        for (architecture, program) in &wish.programs {
            let mut layer = upload(hub, REPOSITORY, program, PROGRAM_TYPE).await?;
            layer["annotations"] = json!({"limpet.dev/architecture": architecture});
            layers.push(layer);
        }
        let config = upload(hub, REPOSITORY, &document, DOCUMENT_TYPE).await?;
        put(hub, (REPOSITORY, &wish.version), ARTIFACT_TYPE, &config, &layers).await
    })
}

/// Published versions, oldest first.
pub fn list(data_dir: &Path) -> Result<Vec<String>, OperateError> {
    exchange(data_dir, async |hub| {
        let tags = tags(hub, REPOSITORY).await?;
        let mut all: Vec<(Version, String)> = tags.into_iter().filter_map(|t| Some((Version::parse(&t).ok()?, t))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all.into_iter().map(|(_, text)| text).collect())
    })
}

/// Refuses a key that boards do not know: they would refuse the release.
fn sign(data_dir: &Path, wish: &Wish) -> Result<Vec<u8>, OperateError> {
    let pki = data_dir.join("pki");
    let known = std::fs::read_to_string(pki.join("update.pub")).map_err(|_| OperateError::NoHub(data_dir.into()))?;
    let key = update::read(&wish.key.clone().unwrap_or_else(|| pki.join("update.key")))?;
    if update::public(&key) != known.trim() {
        return Err(OperateError::Release(format!(
            "this key is not the one that boards of this hub got when they joined ({}); they would refuse what it signs",
            known.trim()
        )));
    }
    let programs = wish.programs.iter().map(|(architecture, bytes)| {
        (architecture.clone(), Program { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) })
    });
    let release =
        Release { version: wish.version.clone(), allow_downgrade: wish.allow_downgrade, programs: programs.collect() };
    let json = serde_json::to_vec(&release).map_err(|e| OperateError::Release(e.to_string()))?;
    Ok(release::document(&json, key.sign(&release::signed(&json)).as_ref()))
}

fn manifest(repository: &str, version: &str) -> String {
    format!("/v2/{repository}/manifests/{version}")
}

/// A version that was published stays what it is.
pub(super) async fn is_new(hub: &mut client::Connection, repository: &str, version: &str) -> Result<(), OperateError> {
    let asked = hub.request("GET", &manifest(repository, version), "application/json", None).await;
    match asked.map_err(OperateError::Client)?.0 {
        200 => {
            let why = format!("version {version} is published already; boards may have it: publish another");
            Err(OperateError::Release(why))
        }
        _ => Ok(()),
    }
}

/// The tags of a repository; none where it is not there.
pub(super) async fn tags(hub: &mut client::Connection, repository: &str) -> Result<Vec<String>, OperateError> {
    Ok(strings(&ask(hub, &format!("/v2/{repository}/tags/list")).await?["tags"]))
}

pub(super) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|t| t.as_str()).map(String::from).collect()
}

pub(super) async fn ask(hub: &mut client::Connection, path: &str) -> Result<Value, OperateError> {
    let (code, bytes) = hub.request("GET", path, "application/json", None).await.map_err(OperateError::Client)?;
    match code {
        200 => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        404 => Ok(Value::Null),
        code => Err(OperateError::Answer(format!("the registry answers {code}: {}", String::from_utf8_lossy(&bytes)))),
    }
}

pub(super) async fn upload(
    hub: &mut client::Connection,
    repository: &str,
    bytes: &[u8],
    media_type: &str,
) -> Result<Value, OperateError> {
    let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    send(hub, ("POST", &path), "application/octet-stream", bytes.to_vec()).await?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
}

/// The artifact itself, when all that it names is there.
pub(super) async fn put(
    hub: &mut client::Connection,
    (repository, version): (&str, &str),
    artifact_type: &str,
    config: &Value,
    layers: &[Value],
) -> Result<(), OperateError> {
    let body = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": config, "layers": layers,
    });
    send(hub, ("PUT", &manifest(repository, version)), MANIFEST, body.to_string().into_bytes()).await
}

async fn send(
    hub: &mut client::Connection,
    (method, path): (&str, &str),
    content_type: &str,
    body: Vec<u8>,
) -> Result<(), OperateError> {
    let (code, bytes) = hub.request(method, path, content_type, Some(body)).await.map_err(OperateError::Client)?;
    match code {
        201 => Ok(()),
        code => Err(OperateError::Answer(format!("the registry answers {code}: {}", String::from_utf8_lossy(&bytes)))),
    }
}

/// A conversation with the registry of the hub that runs on this directory.
pub(super) fn exchange<T>(
    data_dir: &Path,
    work: impl AsyncFnOnce(&mut client::Connection) -> Result<T, OperateError>,
) -> Result<T, OperateError> {
    let endpoints = addresses::recall(data_dir).ok_or_else(|| OperateError::NoHub(data_dir.into()))?;
    let port = endpoints.registry.first().and_then(|e| e.rsplit_once(':')?.1.parse().ok());
    let port = port.ok_or_else(|| OperateError::NoHub(data_dir.into()))?;
    let client = client::Client::from_kubeconfig(&data_dir.join("admin.kubeconfig")).map_err(OperateError::Client)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let talk = async {
        let asked = client.at_port(port).connect().await;
        let mut hub = asked.map_err(|e| OperateError::Client(format!("its registry is not there ({e}); start the hub")))?;
        work(&mut hub).await
    };
    let late = |_| OperateError::Client(format!("the registry did not take it within {} s", TIME.as_secs()));
    runtime.block_on(async { tokio::time::timeout(TIME, talk).await.map_err(late)? })
}
