//! Records that nobody should read from the disk: sealed with AES-256-GCM under a key of the hub.
//!
//! In: a key file of mode 0600, record bytes. Out: bytes for the disk, and back. The newest key seals, older ones open until
//! everything was sealed anew. A sealed value is bound to its key and revisions: it opens nowhere else.
//! Source of the parameters: NIST SP 800-38D (96-bit random nonces, at most 2^32 messages a key).
//! Never: writes a key anywhere but to its file, or an unsealed record of a sealed resource.

use crate::StoreError;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 4 + NONCE_LEN;
/// A key file holds the newest key and those that are being replaced.
const KEYS_MAX: usize = 64;
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The keys of one hub and what they seal.
pub struct Sealer {
    path: PathBuf,
    resources: Vec<String>,
    random: SystemRandom,
    /// Oldest first; never empty.
    keys: Mutex<Vec<NamedKey>>,
}

struct NamedKey {
    id: u32,
    bytes: [u8; KEY_BYTES],
    key: LessSafeKey,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).field("resources", &self.resources).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key file, or makes it with a first key.
    pub fn open(path: &Path, resources: &[&str]) -> Result<Sealer, StoreError> {
        let keys = match std::fs::metadata(path) {
            Ok(m) if m.len() > FILE_BYTES_MAX => return Err(bad(path, "it is larger than a key file can be")),
            Ok(_) => {
                let text = std::fs::read_to_string(path).map_err(|e| StoreError::io("read the key file", e))?;
                parse(&text).map_err(|why| bad(path, why))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(StoreError::io("read the key file", e)),
        };
        let is_new = keys.is_empty();
        let sealer = Sealer {
            path: path.into(),
            resources: resources.iter().map(|r| (*r).to_owned()).collect(),
            random: SystemRandom::new(),
            keys: Mutex::new(keys),
        };
        if is_new {
            sealer.add_key()?;
        }
        Ok(sealer)
    }

    fn keys(&self) -> MutexGuard<'_, Vec<NamedKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn seals(&self, resource: &str) -> bool {
        self.resources.iter().any(|r| r == resource)
    }

    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(String::as_str)
    }

    /// The key that seals from now on; the file has it before anything is sealed with it.
    pub fn add_key(&self) -> Result<u32, StoreError> {
        let mut keys = self.keys();
        if keys.len() >= KEYS_MAX {
            return Err(bad(&self.path, "it holds too many keys that were not retired"));
        }
        let mut bytes = [0; KEY_BYTES];
        self.random.fill(&mut bytes).map_err(|_| no_random())?;
        let id = keys.last().map_or(1, |k| k.id.wrapping_add(1).max(1));
        let named = named(id, bytes).ok_or_else(no_random)?;
        save(&self.path, keys.iter().chain([&named]))?;
        keys.push(named);
        Ok(id)
    }

    /// A new key that nobody knows yet; its number is one that no other hub draws.
    pub fn make_key(&self) -> Result<(u32, String), StoreError> {
        let (mut number, mut bytes) = ([0; 4], [0; KEY_BYTES]);
        self.random.fill(&mut number).and_then(|()| self.random.fill(&mut bytes)).map_err(|_| no_random())?;
        Ok((u32::from_le_bytes(number).max(1), hex(&bytes)))
    }

    /// A key that this hub or another one made opens, and seals once `seal_with` says so. To know it already is fine.
    pub fn learn(&self, id: u32, hex: &str) -> Result<(), StoreError> {
        let bytes = unhex(hex).filter(|_| id > 0).ok_or_else(|| bad(&self.path, "it was told a key that is none"))?;
        let mut keys = self.keys();
        match keys.iter().find(|k| k.id == id) {
            Some(known) if known.bytes == bytes => return Ok(()),
            Some(_) => return Err(bad(&self.path, format!("it holds another key of the number {id}"))),
            None if keys.len() >= KEYS_MAX => return Err(bad(&self.path, "it holds too many keys that were not retired")),
            None => {}
        }
        let named = named(id, bytes).ok_or_else(no_random)?;
        let (older, newest) = keys.split_at(keys.len().saturating_sub(1));
        save(&self.path, older.iter().chain([&named]).chain(newest))?;
        let at = older.len();
        keys.insert(at, named);
        Ok(())
    }

    /// A known key seals from now on.
    pub fn seal_with(&self, id: u32) -> Result<(), StoreError> {
        let mut keys = self.keys();
        let at = keys.iter().position(|k| k.id == id);
        let at = at.ok_or_else(|| bad(&self.path, format!("it does not hold key {id}")))?;
        save(&self.path, keys.iter().filter(|k| k.id != id).chain([&keys[at]]))?;
        let key = keys.remove(at);
        keys.push(key);
        Ok(())
    }

    /// As `retire_old`, if this key is the one that seals.
    pub fn retire_all_but(&self, id: u32) -> Result<(), StoreError> {
        if self.keys().last().is_none_or(|k| k.id != id) {
            return Err(bad(&self.path, format!("key {id} is not the one in use; somebody changes keys at the same time")));
        }
        self.retire_old()
    }

    /// Only the newest key is needed any more.
    pub fn retire_old(&self) -> Result<(), StoreError> {
        let mut keys = self.keys();
        let last = keys.len().saturating_sub(1);
        save(&self.path, keys.iter().skip(last))?;
        keys.drain(..last);
        Ok(())
    }

    /// Key id, nonce, ciphertext with its tag.
    pub fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let keys = self.keys();
        let Some(newest) = keys.last() else { return Err(bad(&self.path, "it holds no key")) };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| no_random())?;
        let mut out = Vec::with_capacity(HEAD_BYTES + plain.len() + TAG_BYTES);
        out.extend_from_slice(&newest.id.to_le_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let (head, body) = out.split_at_mut(HEAD_BYTES);
        let aad = Aad::from([&head[..4], bound_to].concat());
        let tag = newest.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body);
        let tag = tag.map_err(|_| StoreError::TooLarge("object"))?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// The plain bytes, or why not.
    pub fn open_sealed(&self, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, String> {
        let (id, rest) = sealed.split_first_chunk::<4>().ok_or("a sealed record is cut short")?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or("a sealed record is cut short")?;
        let keys = self.keys();
        let wanted = u32::from_le_bytes(*id);
        let key = keys.iter().find(|k| k.id == wanted).ok_or_else(|| {
            format!("a record is sealed with key {wanted}, which {} does not hold; put the right key file back", self.path.display())
        })?;
        let aad = Aad::from([&id[..], bound_to].concat());
        let mut body = body.to_vec();
        let plain = key.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body);
        let bytes = plain.map_err(|_| "a sealed record does not open: it was changed, or the key file is another's")?.len();
        body.truncate(bytes);
        Ok(body)
    }
}

fn named(id: u32, bytes: [u8; KEY_BYTES]) -> Option<NamedKey> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
    Some(NamedKey { id, bytes, key })
}

fn no_random() -> StoreError {
    StoreError::io("draw a random number", std::io::Error::other("the kernel's generator failed"))
}

fn bad(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Keys { path: path.into(), why: why.into() }
}

/// Lines `<id> <64 hex digits>`, oldest first; `#` begins a comment.
fn parse(text: &str) -> Result<Vec<NamedKey>, String> {
    let mut keys: Vec<NamedKey> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let key = || {
            let (id, hex) = line.split_once(' ')?;
            named(id.parse().ok().filter(|id| *id > 0)?, unhex(hex.trim())?)
        };
        let key = key().ok_or("a line is not `<number> <64 hexadecimal digits>`")?;
        if keys.iter().any(|k| k.id == key.id) || keys.len() >= KEYS_MAX {
            return Err("a key stands twice, or there are too many".into());
        }
        keys.push(key);
    }
    if keys.is_empty() { Err("it holds no key".into()) } else { Ok(keys) }
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut out = [0; KEY_BYTES];
    if text.len() != KEY_BYTES * 2 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn save<'k>(path: &Path, keys: impl Iterator<Item = &'k NamedKey>) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut text = String::from("# Keys that seal Secrets in the store. Without this file they cannot be read. The last key is in use.\n");
    for key in keys {
        text.push_str(&format!("{} {}\n", key.id, hex(&key.bytes)));
    }
    let write = || -> std::io::Result<()> {
        // The first start of a hub: its data directory is made by whoever writes there first.
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let temporary = path.with_extension("keys.new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|e| StoreError::io("write the key file", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_opens_and_rotates() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.keys");
        let sealer = Sealer::open(&path, &["/secrets"]).expect("a first key");
        let sealed = sealer.seal(b"k", b"plain words").expect("sealed");
        assert!(!sealed.windows(5).any(|w| w == b"plain"));
        assert_eq!(sealer.open_sealed(b"k", &sealed).as_deref(), Ok(&b"plain words"[..]));
        assert!(sealer.open_sealed(b"other", &sealed).is_err(), "bound to its place");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(sealer.open_sealed(b"k", &bad).is_err(), "byte {at}");
            assert!(sealer.open_sealed(b"k", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(sealer.add_key().expect("a second key"), 2);
        let again = Sealer::open(&path, &["/secrets"]).expect("read again");
        assert_eq!(again.open_sealed(b"k", &sealed).as_deref(), Ok(&b"plain words"[..]), "older keys still open");
        again.retire_old().expect("retired");
        let told = Sealer::open(&path, &["/secrets"]).expect("read again").open_sealed(b"k", &sealed).expect_err("gone");
        assert!(told.contains("key 1"), "{told}");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).expect("there"));
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_hub_opens_first_and_seals_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("store.keys"), dir.path().join("other.keys"));
        let a = Sealer::open(&path, &[]).expect("a first key");
        std::fs::copy(&path, &other).expect("shared");
        let b = Sealer::open(&other, &[]).expect("the same key");
        let (id, text) = a.make_key().expect("a new key");
        a.learn(id, &text).expect("known");
        let old = a.seal(b"k", b"old").expect("sealed");
        b.learn(id, &text).expect("told");
        b.learn(id, &text).expect("told again");
        assert!(b.learn(id, &"0".repeat(64)).is_err() && b.learn(0, &text).is_err() && b.learn(9, "x").is_err());
        assert_eq!(b.open_sealed(b"k", &old).as_deref(), Ok(&b"old"[..]), "the old one still seals");
        a.seal_with(id).expect("in use");
        let new = a.seal(b"k", b"new").expect("sealed");
        assert_eq!(b.open_sealed(b"k", &new).as_deref(), Ok(&b"new"[..]), "known before it is in use");
        assert!(b.retire_all_but(id).is_err(), "not in use here yet");
        b.seal_with(id).expect("in use");
        b.retire_all_but(id).expect("retired");
        let again = Sealer::open(&other, &[]).expect("read again");
        assert!(again.open_sealed(b"k", &old).is_err() && again.open_sealed(b"k", &new).is_ok());
    }

    #[test]
    fn bad_key_files_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.keys");
        for text in ["", "1 abc", "x y", &format!("0 {}", "a".repeat(64)), &format!("1 {0}\n1 {0}", "a".repeat(64))] {
            std::fs::write(&path, text).expect("written");
            let told = Sealer::open(&path, &[]).expect_err("refused").to_string();
            assert!(told.contains("store.keys"), "{told}");
        }
    }
}
