//! Updates of Limpet OS: signed by `limpet image update`, kept in the hub's registry, fetched by boards.
//!
//! In: the file. Out: an artifact `limpet/os/BOARD:VERSION` in the registry of the running hub: its config is the file's head,
//! its layers are the parts, each under the checksum that the signed head names. A kernel that two versions share is there once.
//! Never: a file that boards would refuse; another content under a version that is published already.

use super::{
    OperateError,
    release::{ask, exchange, is_new, put, strings, tags, upload},
};
use crate::pki::{hex, update};
use limpet_protocol::os_update::{self, ARTIFACT_TYPE, HEAD_TYPE, Manifest, PART_TYPE, REPOSITORY};
use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use std::{cmp::Ordering, path::Path};

/// Repositories that are looked through.
const CATALOG: &str = "/v2/_catalog?n=1000";

/// An update that is whole, and whose signature boards know.
#[derive(Debug)]
pub struct Update<'a> {
    pub manifest: Manifest,
    head: &'a [u8],
    parts: Vec<&'a [u8]>,
}

pub fn is_update(bytes: &[u8]) -> bool {
    bytes.starts_with(os_update::MAGIC)
}

impl<'a> Update<'a> {
    /// `key`: the public key that has signed it.
    pub fn read(bytes: &'a [u8], key: &[u8]) -> Result<Update<'a>, String> {
        let head = os_update::split(bytes)?;
        UnparsedPublicKey::new(&ED25519, key).verify(head.manifest, head.signature).map_err(|_| {
            "it is not signed with the key of this hub, so its boards would refuse it; make it with `limpet image update` on the \
             hub's machine, or name the private key with --update-key where the boards' images were built with one"
        })?;
        let manifest: Manifest = serde_json::from_slice(head.manifest).map_err(|e| format!("its manifest: {e}"))?;
        manifest.check()?;
        let mut rest = &bytes[head.whole.len()..];
        let mut parts = Vec::new();
        for part in manifest.parts() {
            let size = usize::try_from(part.bytes).unwrap_or(usize::MAX);
            let (this, behind) = rest.split_at_checked(size).ok_or("it is cut off")?;
            if hex(&Sha256::digest(this)) != part.sha256 {
                return Err("it is damaged: the checksum of a part does not fit".into());
            }
            parts.push(this);
            rest = behind;
        }
        match rest.is_empty() {
            true => Ok(Update { head: head.whole, manifest, parts }),
            false => Err("something follows that does not belong to it".into()),
        }
    }
}

/// The public key that updates are to be signed with: of the private one that is named, else the hub's own.
pub fn key(data_dir: &Path, private: Option<&Path>) -> Result<Vec<u8>, OperateError> {
    if let Some(path) = private {
        return Ok(update::read(path)?.public_key().as_ref().to_vec());
    }
    let text = std::fs::read_to_string(data_dir.join("pki/update.pub")).map_err(|_| OperateError::NoHub(data_dir.into()))?;
    let text = text.trim();
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let key = (0..text.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>();
    key.ok_or_else(|| OperateError::Release("the hub's pki/update.pub is not a key".into()))
}

pub fn publish(data_dir: &Path, update: &Update<'_>) -> Result<(), OperateError> {
    let (repository, version) = (os_update::repository(&update.manifest.board), &update.manifest.version);
    exchange(data_dir, async |hub| {
        // 0.2 and 0.2.0 are one version, and boards go by the number.
        let there = tags(hub, &repository).await?;
        is_new(hub, &repository, there.iter().find(|t| os_update::same(t, version)).unwrap_or(version)).await?;
        let mut layers = Vec::new();
        for part in &update.parts {
            layers.push(upload(hub, &repository, part, PART_TYPE).await?);
        }
        let config = upload(hub, &repository, update.head, HEAD_TYPE).await?;
        put(hub, (&repository, version), ARTIFACT_TYPE, &config, &layers).await
    })
}

/// Boards and their published versions, oldest first.
pub fn list(data_dir: &Path) -> Result<Vec<(String, Vec<String>)>, OperateError> {
    exchange(data_dir, async |hub| {
        let mut all = Vec::new();
        for repository in strings(&ask(hub, CATALOG).await?["repositories"]) {
            let Some(board) = repository.strip_prefix(REPOSITORY).and_then(|r| r.strip_prefix('/')) else { continue };
            let mut versions = tags(hub, &repository).await?;
            versions.retain(|v| os_update::is_version(v).is_ok());
            versions.sort_by(|a, b| os_update::compare(a, b).unwrap_or(Ordering::Equal));
            all.push((board.to_string(), versions));
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::Ed25519KeyPair;

    fn file(key: &Ed25519KeyPair) -> Vec<u8> {
        let sum = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        let manifest = format!(
            r#"{{"board":"rock-5","version":"0.2.0","options":"quiet","linux":{{"bytes":6,"sha256":"{}"}},
                "initrd":{{"bytes":5,"sha256":"{}"}},"deviceTree":{{"bytes":4,"sha256":"{}"}}}}"#,
            sum(b"kernel"),
            sum(b"files"),
            sum(b"tree")
        );
        let length = u32::try_from(manifest.len()).unwrap().to_le_bytes();
        let signature = key.sign(manifest.as_bytes());
        [os_update::MAGIC.as_slice(), &length, manifest.as_bytes(), signature.as_ref(), b"kernelfilestree"].concat()
    }

    #[test]
    fn only_what_boards_would_take_is_published() {
        let [key, other] = [1, 2].map(|n| Ed25519KeyPair::from_seed_unchecked(&[n; 32]).unwrap());
        let read = |bytes: &[u8], key: &Ed25519KeyPair| Update::read(bytes, key.public_key().as_ref()).map(|u| u.manifest.board);
        let good = file(&key);
        assert_eq!(read(&good, &key).unwrap(), "rock-5");
        assert!(read(&good, &other).unwrap_err().contains("not signed with the key of this hub"));
        assert!(read(&[good.as_slice(), b"x"].concat(), &key).unwrap_err().contains("does not belong"));
        assert!(read(b"LIMPETA1", &key).unwrap_err().contains("not an update of Limpet OS"));
        for cut in 0..good.len() {
            assert!(read(&good[..cut], &key).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad, &key).is_err(), "flipped at {at}");
        }
        let whole = Update::read(&good, key.public_key().as_ref()).unwrap();
        assert_eq!([whole.head, &whole.parts.concat()].concat(), good);
    }
}
