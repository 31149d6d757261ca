//! The device's own key: seals what is secret in the journal.
//!
//! In: `<dir>/device.key` (32 random bytes, mode 0600), made at the first start. Out: AES-256-GCM with a random nonce.
//! Never: leaves the device. A key in a TPM or in OTP takes this file's place one day.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

pub struct DeviceKey {
    key: LessSafeKey,
}

impl DeviceKey {
    pub fn load_or_create(dir: &Path) -> std::io::Result<DeviceKey> {
        let path = dir.join("device.key");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut fresh = [0u8; 32];
                getrandom::fill(&mut fresh).map_err(|e| std::io::Error::other(e.to_string()))?;
                write_private(dir, "device.key", &fresh)?;
                fresh.to_vec()
            }
            Err(e) => return Err(e),
        };
        DeviceKey::from_bytes(&bytes)
            .ok_or_else(|| std::io::Error::other(format!("{} is not a key of 32 bytes", path.display())))
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<DeviceKey> {
        Some(DeviceKey { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?) })
    }

    /// Nonce, then ciphertext and tag. Empty when there is no randomness: unreadable, but never open.
    pub fn seal(&self, mut plain: Vec<u8>) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        if getrandom::fill(&mut nonce).is_err() {
            return Vec::new();
        }
        let unique = Nonce::assume_unique_for_key(nonce);
        match self.key.seal_in_place_append_tag(unique, Aad::empty(), &mut plain) {
            Ok(()) => [&nonce[..], &plain].concat(),
            Err(_) => Vec::new(),
        }
    }

    pub fn open(&self, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(sealed.get(..NONCE_LEN)?).ok()?;
        let plain = self.key.open_within(nonce, Aad::empty(), &mut sealed, NONCE_LEN..).ok()?;
        Some(plain.to_vec())
    }
}

/// Writes a file with mode 0600 under a temporary name, then renames it: it is whole or not there.
pub fn write_private(dir: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}
