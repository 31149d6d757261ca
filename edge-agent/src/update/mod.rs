//! New versions of this agent over the air: from the hub's registry to a file that the keeper starts.
//!
//! In: a wanted version, the hub's update key. Out: a checked program in `<data>/update`, or a sentence why not.
//! The release is an artifact `hub.limpet/limpet/agent:VERSION` whose config is the signed description and whose layers are the
//! programs. Never: a byte of a program that the description, signed with the key that came at the join, does not name.

pub mod files;

use crate::images;
use limpet_agent_core::update::Fetched;
use limpet_protocol::release::{self, DOCUMENT_BYTES_MAX, Release};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::path::{Path, PathBuf};

/// What a fetch needs to know.
#[derive(Clone, Debug)]
pub struct Ask {
    pub wanted: String,
    /// What runs here.
    pub running: String,
    pub installed: String,
    pub architecture: String,
    /// The hub's Ed25519 key as hex; empty on a board that joined before there was one.
    pub key: String,
    pub dir: PathBuf,
}

/// Nobody retries `Never`; `Later` may do better at another time.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    Never(String),
    Later(String),
}

pub async fn fetch(images: &images::Store, ask: &Ask) -> Result<Fetched, Failed> {
    std::fs::create_dir_all(&ask.dir).map_err(|e| Failed::Later(format!("{}: {e}", ask.dir.display())))?;
    runs_programs(&ask.dir).map_err(Failed::Never)?;
    let name = format!("hub.limpet/{}:{}", release::REPOSITORY, ask.wanted);
    let document = images.document(&name, DOCUMENT_BYTES_MAX).await.map_err(|e| Failed::Later(e.to_string()))?;
    let release = verify(&document, &ask.key).map_err(Failed::Never)?;
    let program = release.admit(&ask.wanted, &ask.running, &ask.architecture).map_err(Failed::Never)?;
    if files::check(&ask.dir, &program.sha256).is_err() {
        let downloaded = images.file(&name, &program.sha256, program.bytes).await.map_err(failed)?;
        files::put(&ask.dir, &downloaded, &program.sha256)
            .map_err(|e| Failed::Later(format!("cannot put it into {}: {e}", ask.dir.display())))?;
    }
    Ok(Fetched { version: ask.wanted.clone(), sha256: program.sha256.clone(), over: ask.installed.clone() })
}

pub fn failed(error: images::ImageError) -> Failed {
    match error {
        images::ImageError::Refused { why, .. } => Failed::Never(format!("the hub's registry does not give it: {why}")),
        other => Failed::Later(other.to_string()),
    }
}

fn verify(document: &[u8], key: &str) -> Result<Release, String> {
    let key = from_hex(key).ok_or("this board has no key of the hub's to check it with; it comes when its certificate is renewed")?;
    let (signature, json) = release::split(document)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&release::signed(json), signature)
        .map_err(|_| "its signature is not by the key that this board got from its hub when it joined".to_string())?;
    serde_json::from_slice(json).map_err(|e| format!("its description cannot be read: {e}"))
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (text.len() == 64).then(|| (0..64).step_by(2).map(pair).collect()).flatten()
}

fn runs_programs(dir: &Path) -> Result<(), String> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let closed = statvfs(dir).is_ok_and(|s| s.flags().contains(FsFlags::ST_NOEXEC));
    match closed {
        true => Err(format!("programs cannot start from {}: mounted noexec; mount it without, or name another --data-dir", dir.display())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    #[test]
    fn only_documents_signed_with_the_hubs_key_are_believed() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let hex: String = key.public_key().as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let json = br#"{"version":"1.2.3","programs":{"arm64":{"bytes":3,"sha256":"00"}}}"#;
        let signature = key.sign(&release::signed(json));
        let document = release::document(json, signature.as_ref());
        assert_eq!(verify(&document, &hex).unwrap().version, "1.2.3");
        for at in 0..document.len() {
            let mut bad = document.clone();
            bad[at] ^= 1;
            assert!(verify(&bad, &hex).is_err(), "flipped at {at}");
        }
        assert!(verify(&document, &"ab".repeat(32)).unwrap_err().contains("its signature"));
        assert!(verify(&document, "").unwrap_err().contains("no key"));
        // A signature over the description alone, as other documents of the hub's have it, is not one of a release.
        let bare = release::document(json, key.sign(json).as_ref());
        assert!(verify(&bare, &hex).is_err());
    }
}
