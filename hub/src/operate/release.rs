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
        let manifest = format!("/v2/{REPOSITORY}/manifests/{}", wish.version);
        if hub.request("GET", &manifest, "application/json", None).await.map_err(OperateError::Client)?.0 == 200 {
            return Err(wrong(format!("version {} is published already; boards may have it: publish another", wish.version)));
        }
        let mut layers = Vec::new();
        for (architecture, program) in &wish.programs {
            let mut layer = upload(hub, program, PROGRAM_TYPE).await?;
            layer["annotations"] = json!({"limpet.dev/architecture": architecture});
            layers.push(layer);
        }
        let config = upload(hub, &document, DOCUMENT_TYPE).await?;
        let body = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT_TYPE, "config": config, "layers": layers,
        });
        send(hub, ("PUT", &manifest), MANIFEST, body.to_string().into_bytes()).await
    })
}

/// Published versions, oldest first.
pub fn list(data_dir: &Path) -> Result<Vec<String>, OperateError> {
    exchange(data_dir, async |hub| {
        let path = format!("/v2/{REPOSITORY}/tags/list");
        let (code, bytes) = hub.request("GET", &path, "application/json", None).await.map_err(OperateError::Client)?;
        if code == 404 {
            return Ok(Vec::new());
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let tags = answer["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut all: Vec<(Version, String)> =
            tags.iter().filter_map(|t| t.as_str()).filter_map(|t| Some((Version::parse(t).ok()?, t.to_string()))).collect();
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

async fn upload(hub: &mut client::Connection, bytes: &[u8], media_type: &str) -> Result<Value, OperateError> {
    let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    send(hub, ("POST", &path), "application/octet-stream", bytes.to_vec()).await?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
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
fn exchange<T>(
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
