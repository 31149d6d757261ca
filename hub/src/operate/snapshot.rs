//! A hub in one file, and back.
//!
//! In: a data directory (of a running hub or not), or a snapshot. Out: a tar of mode 0600 with the objects at one revision,
//! the keys and the certificates; or a data directory that a hub starts on. Images in the registry are not part of it.
//! Never: touches a directory that holds a hub already, takes a file out of a snapshot that does not belong there, or leaves
//! half a hub behind: `store.redb` is put into place last, after every record was read.

use super::{Hub, OperateError, ask, with};
use crate::{hub::store_options, pki::hex};
use limpet_store::{Revision, Store};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const MANIFEST: &str = "limpet-snapshot.json";
/// 1: without sums.
const VERSION: u32 = 2;
/// The last file: `<SHA-256>  <name>` of all others, as sha256sum writes it.
const SUMS: &str = "limpet-snapshot.sha256";
const STORE: &str = "store.redb";
const KEYS: &str = "store.keys";
/// Plain files of the data directory that belong to a hub.
const FILES: [&str; 2] = ["hub.json", "admin.kubeconfig"];
const PKI: &str = "pki";
const SMALL_BYTES_MAX: u64 = 1024 * 1024;
const STORE_BYTES_MAX: u64 = 64 << 30;
const FILES_MAX: usize = 64;
/// Boards and watches have seen revisions behind the snapshot; none of those may be given again.
const REVISIONS_SKIPPED: u64 = 1 << 24;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    limpet: String,
    revision: Revision,
}

/// Where the hub has put a copy of its store.
#[derive(Debug, Serialize, Deserialize)]
pub struct Copied {
    pub dir: PathBuf,
    pub revision: Revision,
}

/// A copy of the store beside it, sealed with a key of its own. Blocks.
pub fn copy_store(store: &Store) -> Result<Copied, limpet_store::StoreError> {
    let dir = store.dir().join("snapshot.tmp");
    let _ = fs::remove_dir_all(&dir);
    let revision = store.copy_into(&dir)?;
    Ok(Copied { dir, revision })
}

/// Writes `file`; says which revision is in it.
pub fn snapshot(data_dir: &Path, file: &Path) -> Result<Revision, OperateError> {
    let copied: Copied = with(data_dir, async |hub| match hub {
        Hub::Here { store, .. } => Ok(copy_store(&store)?),
        Hub::Running(client) => ask(&client, "POST", "/limpet/v1/store/snapshot", None::<&()>).await,
    })?;
    let packed = pack(data_dir, &copied, file);
    let _ = fs::remove_dir_all(&copied.dir);
    packed?;
    Ok(copied.revision)
}

fn pack(data_dir: &Path, copied: &Copied, file: &Path) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let _ = fs::remove_file(&part);
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let mut tar = Packing { tar: tar::Builder::new(out), sums: String::new() };
    let manifest =
        Manifest { version: VERSION, limpet: env!("CARGO_PKG_VERSION").into(), revision: copied.revision };
    tar.add(MANIFEST, &serde_json::to_vec(&manifest)?)?;
    for name in FILES {
        match fs::read(data_dir.join(name)) {
            Ok(bytes) => tar.add(name, &bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let mut pki: Vec<PathBuf> = fs::read_dir(data_dir.join(PKI))?.flatten().map(|e| e.path()).collect();
    pki.sort();
    for path in pki.iter().filter(|p| p.is_file()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        tar.add(&format!("{PKI}/{name}"), &fs::read(path)?)?;
    }
    tar.add(KEYS, &fs::read(copied.dir.join(KEYS))?)?;
    let store = File::open(copied.dir.join(STORE))?;
    let bytes = store.metadata()?.len();
    tar.add_from(STORE, bytes, store)?;
    let sums = std::mem::take(&mut tar.sums);
    tar.add(SUMS, sums.as_bytes())?;
    let out = tar.tar.into_inner()?;
    out.sync_all()?;
    fs::rename(&part, file)
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header
}

struct Packing {
    tar: tar::Builder<File>,
    sums: String,
}

impl Packing {
    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.add_from(name, bytes.len() as u64, bytes)
    }

    fn add_from(&mut self, name: &str, bytes: u64, from: impl Read) -> io::Result<()> {
        let mut from = Summing { from, sum: Sha256::new() };
        self.tar.append_data(&mut header(bytes), name, &mut from)?;
        self.sums.push_str(&line(from.sum, name));
        Ok(())
    }
}

/// What is read, and its sum.
struct Summing<R> {
    from: R,
    sum: Sha256,
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(into)?;
        self.sum.update(&into[..bytes]);
        Ok(bytes)
    }
}

fn line(sum: Sha256, name: &str) -> String {
    format!("{}  {name}\n", hex(&sum.finalize()))
}

/// Makes `data_dir` from a snapshot; says at which revision it goes on.
pub fn restore(data_dir: &Path, file: &Path) -> Result<Revision, OperateError> {
    if data_dir.join(STORE).exists() || data_dir.join("hub.id").exists() {
        return Err(OperateError::HubThere(data_dir.into()));
    }
    let snapshot = |why: String| OperateError::Snapshot { path: file.into(), why };
    let staged = data_dir.join("restore.tmp");
    let _ = fs::remove_dir_all(&staged);
    fs::create_dir_all(staged.join(PKI))?;
    let done = unpack(file, &staged).map_err(snapshot).and_then(|manifest| {
        let options = store_options(&staged);
        let revision = limpet_store::skip_revisions(&staged, options, REVISIONS_SKIPPED)
            .map_err(|e| snapshot(format!("its objects cannot be used: {e}")))?;
        tracing::debug!(from = %manifest.limpet, at = manifest.revision, "a snapshot was read");
        settle(&staged, data_dir)?;
        Ok(revision)
    });
    let _ = fs::remove_dir_all(&staged);
    done
}

/// Takes out what belongs to a hub, and nothing else. The error is a sentence.
fn unpack(file: &Path, into: &Path) -> Result<Manifest, String> {
    // Its own bytes may be in the words.
    let plain = |e: io::Error| e.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect::<String>();
    let wrong = |e: io::Error| format!("it cannot be read: {}", plain(e));
    let mut tar = tar::Archive::new(File::open(file).map_err(wrong)?);
    let mut manifest: Option<Manifest> = None;
    let (mut files, mut last, mut sums) = (0, String::new(), String::new());
    for entry in tar.entries().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        files += 1;
        let name = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        let is_plain = entry.header().entry_type() == tar::EntryType::Regular;
        let bytes_max = if name == STORE { STORE_BYTES_MAX } else { SMALL_BYTES_MAX };
        if !is_plain || !belongs(&name) || entry.size() > bytes_max || files > FILES_MAX {
            return Err(format!("{name:?} does not belong into a snapshot"));
        }
        last.clone_from(&name);
        let mut entry = Summing { from: entry, sum: Sha256::new() };
        if name == SUMS {
            let mut told = String::new();
            entry.read_to_string(&mut told).map_err(wrong)?;
            if told != sums {
                return Err("a file in it is not what it was when the snapshot was made (its SHA-256 differs)".into());
            }
            continue;
        }
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(wrong)?;
            sums.push_str(&line(entry.sum, &name));
            let read: Manifest = serde_json::from_slice(&text).map_err(|e| format!("its manifest: {e}"))?;
            if read.version > VERSION {
                return Err(format!("a newer limpet made it ({}); use that one", read.limpet));
            }
            manifest = Some(read);
            continue;
        }
        if manifest.is_none() {
            return Err("it is not a snapshot of a hub".into());
        }
        let mut out = OpenOptions::new();
        let mut out = out.write(true).create_new(true).mode(0o600).open(into.join(&name)).map_err(wrong)?;
        io::copy(&mut entry, &mut out).map_err(wrong)?;
        out.flush().and_then(|()| out.sync_all()).map_err(wrong)?;
        sums.push_str(&line(entry.sum, &name));
    }
    let manifest = manifest.ok_or_else(|| "it is empty".to_owned())?;
    match last == if manifest.version < 2 { STORE } else { SUMS } {
        true => Ok(manifest),
        false => Err("it ends before its end; it was cut short".into()),
    }
}

fn belongs(name: &str) -> bool {
    let plain = |name: &str| {
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    [MANIFEST, STORE, KEYS, SUMS].contains(&name)
        || FILES.contains(&name)
        || name.strip_prefix(PKI).and_then(|n| n.strip_prefix('/')).is_some_and(plain)
}

fn settle(staged: &Path, data_dir: &Path) -> io::Result<()> {
    let pki = data_dir.join(PKI);
    let _ = fs::remove_dir_all(&pki);
    fs::rename(staged.join(PKI), &pki)?;
    for name in FILES.into_iter().chain([KEYS, STORE]) {
        if staged.join(name).exists() {
            fs::rename(staged.join(name), data_dir.join(name))?;
        }
    }
    File::open(data_dir)?.sync_all()
}
