//! Updates: what `limpet-init` puts into the other slot, signed.
//!
//! In: kernel, initial file system, a key. Out: one file. Mirrors `images/init/src/update.rs`.
//! Never: a private key in an image.

use super::OsError;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Serialize;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"LIMPETU1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    board: &'a str,
    version: &'a str,
    options: &'a str,
    linux: Part,
    initrd: Part,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_tree: Option<Part>,
}

#[derive(Serialize)]
struct Part {
    bytes: u64,
    sha256: String,
}

/// A private key for updates, PKCS #8.
pub struct Key(Ed25519KeyPair);

impl Key {
    pub fn parse(pkcs8: &[u8]) -> Result<Key, OsError> {
        Ed25519KeyPair::from_pkcs8(pkcs8).map(Key).map_err(|_| OsError::Key("this is not a key of `limpet image key`".into()))
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    pub fn generate() -> Result<Vec<u8>, OsError> {
        let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
        made.map(|k| k.as_ref().to_vec()).map_err(|_| OsError::Key("this machine gives no randomness".into()))
    }
}

pub fn public_key(key: &Key) -> Vec<u8> {
    key.0.public_key().as_ref().to_vec()
}

/// What goes into a slot.
pub struct Parts<'a> {
    pub linux: &'a [u8],
    pub initrd: &'a [u8],
    pub tree: Option<&'a [u8]>,
}

pub fn bundle(key: &Key, board: &str, version: &str, options: &str, parts: &Parts<'_>) -> Result<Vec<u8>, OsError> {
    let part = |bytes: &[u8]| Part {
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect(),
    };
    let (linux, initrd, device_tree) = (part(parts.linux), part(parts.initrd), parts.tree.map(part));
    let manifest = Manifest { board, version, options, linux, initrd, device_tree };
    let manifest = serde_json::to_vec(&manifest).map_err(|e| OsError::Key(e.to_string()))?;
    let signature = key.0.sign(&manifest);
    let mut out = MAGIC.to_vec();
    out.extend((manifest.len() as u32).to_le_bytes());
    out.extend(&manifest);
    out.extend(signature.as_ref());
    [Some(parts.linux), Some(parts.initrd), parts.tree].into_iter().flatten().for_each(|p| out.extend(p));
    Ok(out)
}
