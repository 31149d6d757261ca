//! Who this device is to the hub.
//!
//! In: `<data>/identity/`: `node.key` (made here, mode 0600) or `node.tpm`, `identity.json` (the hub's answer to the join),
//! `instance` (16 random bytes as hex). Out: an `Identity`.
//! Never: sends the private key anywhere.

use super::NodeKey;
use crate::journal::write_private;
use limpet_protocol::join::JoinAnswer;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct Identity {
    pub answer: JoinAnswer,
    pub key: NodeKey,
    pub instance: [u8; 16],
}

fn dir(data: &Path) -> PathBuf {
    data.join("identity")
}

/// `None` before the first join.
pub fn load(data: &Path) -> std::io::Result<Option<Identity>> {
    let dir = dir(data);
    let bytes = match std::fs::read(dir.join("identity.json")) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let answer: JoinAnswer = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
    Ok(Some(Identity { answer, key: NodeKey::load_or_create(data)?, instance: instance(data)? }))
}

pub fn store(data: &Path, answer: &JoinAnswer) -> std::io::Result<()> {
    let bytes = serde_json::to_vec_pretty(answer).map_err(std::io::Error::other)?;
    write_private(&dir(data), "identity.json", &bytes)
}

/// The device's P-256 key where it is a file, made when there is none.
pub(super) fn key_pem(data: &Path) -> std::io::Result<String> {
    let dir = dir(data);
    std::fs::create_dir_all(&dir)?;
    match std::fs::read_to_string(dir.join("node.key")) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let pem = rcgen::KeyPair::generate().map_err(std::io::Error::other)?.serialize_pem();
            write_private(&dir, "node.key", pem.as_bytes())?;
            Ok(pem)
        }
        other => other,
    }
}

/// Random bytes of this installation, which two cards copied from one another have in common only until one of them
/// has joined.
pub fn instance(data: &Path) -> std::io::Result<[u8; 16]> {
    let dir = dir(data);
    std::fs::create_dir_all(&dir)?;
    match std::fs::read(dir.join("instance")) {
        Ok(bytes) => bytes.try_into().map_err(|_| std::io::Error::other("identity/instance is damaged; remove it")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut fresh = [0u8; 16];
            getrandom::fill(&mut fresh).map_err(|e| std::io::Error::other(e.to_string()))?;
            write_private(&dir, "instance", &fresh)?;
            Ok(fresh)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_devices_key_is_made_once_and_nobody_else_reads_it() {
        let data = std::env::temp_dir().join(format!("limpet-identity-{}", std::process::id()));
        let made = key_pem(&data).unwrap();
        assert_eq!(key_pem(&data).unwrap(), made);
        let mode = dir(&data).join("node.key").metadata().unwrap().permissions().mode();
        std::fs::remove_dir_all(&data).unwrap();
        assert_eq!(mode & 0o7777, 0o600);
    }
}
