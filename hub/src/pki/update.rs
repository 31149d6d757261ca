//! The key that signs releases of the agent: Ed25519, made at the first start, or brought by the operator.
//!
//! In: the folder. Out: its public half, which devices get when they join; signatures for releases. The private half
//! (`update.key`, PKCS #8) may be kept elsewhere: the hub needs `update.pub` only.
//! Never: a new key where there was one; devices keep the first that they were given.

use super::{PkiError, files, hex};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::path::Path;

const PUBLIC: &str = "update.pub";
const PRIVATE: &str = "update.key";

fn broken(path: &Path, what: &str) -> PkiError {
    PkiError::Broken { path: path.into(), what: what.into() }
}

/// Hex of the public key.
pub(super) fn open(dir: &Path) -> Result<String, PkiError> {
    let (path, private) = (dir.join(PUBLIC), dir.join(PRIVATE));
    if let Some(text) = files::read(&path)? {
        let text = text.trim();
        let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        return if fits { Ok(text.to_ascii_lowercase()) } else { Err(broken(&path, "not a key of 32 bytes as hex")) };
    }
    if !private.exists() {
        let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
        let made = made.map_err(|_| broken(&private, "this machine gives no randomness"))?;
        files::write_private(&private, made.as_ref())?;
    }
    let public = public(&read(&private)?);
    files::write_private(&path, public.as_bytes())?;
    Ok(public)
}

/// A private key, from the hub's folder or from where the operator keeps it.
pub fn read(path: &Path) -> Result<Ed25519KeyPair, PkiError> {
    let bytes = std::fs::read(path).map_err(|source| PkiError::File { action: "read", path: path.into(), source })?;
    Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| broken(path, "not an Ed25519 key in PKCS #8, as `limpet image key` makes them"))
}

pub fn public(key: &Ed25519KeyPair) -> String {
    hex(key.public_key().as_ref())
}
