//! The device's keys in a TPM 2.0: made there, and never outside.
//!
//! In: the board's TPM, `<data>/identity/node.tpm` (which TPM, and 32 random bytes of this installation). Out: signatures of the
//! device's P-256 key, and the key that seals its journal.
//! Both are primary keys of the owner's hierarchy: the TPM makes them anew from its own seed at each start, so nothing is stored
//! in it, and a card without its board opens nothing. Decision 0053.
//! Never: a key of another TPM taken for the device's own.

mod wire;

use crate::journal::write_private;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::{
    io::Error,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use wire::{Purpose, Wire};

/// The kernel manages who uses it at the same time.
const DEVICE: &str = "/dev/tpmrm0";
/// In the settings: keys are files.
pub const NONE: &str = "none";
/// In the settings: a TPM where there is one.
pub const AUTO: &str = "auto";
const FILE: &str = "node.tpm";
const FILE_BYTES_MAX: u64 = 4096;
/// What the journal's key is derived from.
const JOURNAL: &[u8] = b"limpet journal key 1";

/// What stands on the card.
struct Note {
    /// `/dev/tpmrm0`, or `unix:PATH` of a simulated one.
    tpm: String,
    /// Two installations on one board have two keys.
    unique: [u8; 32],
    /// The key's public point.
    point: Vec<u8>,
}

impl Note {
    fn parse(bytes: &[u8]) -> Option<Note> {
        let note: Value = serde_json::from_slice(bytes).ok()?;
        let text = |field: &str| note.get(field)?.as_str();
        let unique = unhex(text("unique")?)?.try_into().ok()?;
        Some(Note { tpm: text("tpm")?.into(), unique, point: unhex(text("point")?)? })
    }

    fn text(&self) -> String {
        format!("{:#}\n", json!({"tpm": self.tpm, "unique": hex(&self.unique), "point": hex(&self.point)}))
    }
}

struct Open {
    wire: Wire,
    handle: u32,
}

/// The device's key.
pub struct Tpm {
    place: String,
    unique: [u8; 32],
    point: [u8; 65],
    open: Mutex<Option<Open>>,
    journal_key: [u8; 32],
}

impl std::fmt::Debug for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tpm({})", self.place)
    }
}

/// One for the process: making the keys takes a TPM up to some seconds.
static KNOWN: Mutex<Option<(std::path::PathBuf, Arc<Tpm>)>> = Mutex::new(None);

/// The TPM that holds the keys of this data directory; `None`: they are files.
pub fn load(data: &Path) -> Result<Option<Arc<Tpm>>, Error> {
    let dir = data.join("identity");
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, tpm)) = &*known
        && of == data
    {
        return Ok(Some(tpm.clone()));
    }
    let (file, folder) = (path.display().to_string(), dir.display().to_string());
    let damaged = || Error::other(format!("{file} is damaged; this board has to join again: remove {folder}"));
    if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
        return Err(damaged());
    }
    let note = Note::parse(&std::fs::read(&path)?).ok_or_else(damaged)?;
    let tpm = Tpm::open(&note.tpm, note.unique)?;
    if tpm.point[..] != note.point {
        return Err(Error::other(format!(
            "the TPM at {} does not have this board's key: it was cleared, or the card is of another board. It has to join again \
             with a new token: remove {}/identity and {}/journal",
            note.tpm,
            data.display(),
            data.display()
        )));
    }
    let tpm = Arc::new(tpm);
    *known = Some((data.into(), tpm.clone()));
    Ok(Some(tpm))
}

/// As `load`; a board without keys gets them now, in a TPM where the settings (`auto`, `none`, a place) and the board allow it.
pub fn load_or_choose(data: &Path, wish: &str) -> Result<Option<Arc<Tpm>>, Error> {
    let dir = data.join("identity");
    let has_files = dir.join("node.key").exists() || data.join("device.key").exists();
    if dir.join(FILE).exists() || has_files || wish == NONE {
        return load(data);
    }
    let place = if wish == AUTO { DEVICE } else { wish };
    if wish == AUTO && !Path::new(DEVICE).exists() {
        return Ok(None);
    }
    let mut unique = [0; 32];
    getrandom::fill(&mut unique).map_err(|e| Error::other(e.to_string()))?;
    let tpm = match Tpm::open(place, unique) {
        Ok(tpm) => tpm,
        Err(e) if wish == AUTO => {
            log::warn!("the keys of this board are files and not in its TPM: {e}");
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let note = Note { tpm: place.into(), unique, point: tpm.point.to_vec() };
    std::fs::create_dir_all(&dir)?;
    write_private(&dir, FILE, note.text().as_bytes())?;
    log::info!("the keys of this board are in its TPM ({place})");
    let tpm = Arc::new(tpm);
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some((data.into(), tpm.clone()));
    Ok(Some(tpm))
}

impl Tpm {
    fn open(place: &str, unique: [u8; 32]) -> Result<Tpm, Error> {
        let named = |e: Error| Error::new(e.kind(), format!("the TPM at {place}: {e}"));
        let mut wire = Wire::open(place).map_err(named)?;
        let (handle, _) = wire.create_primary(Purpose::Mac, &unique).map_err(named)?;
        let journal_key = wire.hmac(handle, JOURNAL).map_err(named)?;
        wire.flush(handle).map_err(named)?;
        let (handle, point) = wire.create_primary(Purpose::Sign, &unique).map_err(named)?;
        let point = point.try_into().map_err(|_| Error::other("not a point of P-256"))?;
        let open = Mutex::new(Some(Open { wire, handle }));
        Ok(Tpm { place: place.into(), unique, point, open, journal_key })
    }

    /// 0x04, x, y.
    pub fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// The key that seals the journal; whoever has only the card does not get it.
    pub fn journal_key(&self) -> &[u8; 32] {
        &self.journal_key
    }

    /// ECDSA with SHA-256, DER. Waits for the TPM: some tenths of a second at most, once a connection.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let hash: [u8; 32] = digest(&SHA256, message).as_ref().try_into().map_err(Error::other)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signed = Err(Error::other("the TPM is closed"));
        // A device that was closed under us, by a suspend or a new driver, is opened again once.
        for _ in 0..2 {
            if open.is_none() {
                let mut wire = Wire::open(&self.place)?;
                let (handle, point) = wire.create_primary(Purpose::Sign, &self.unique)?;
                if point != self.point {
                    return Err(Error::other(format!("the TPM at {} was cleared", self.place)));
                }
                *open = Some(Open { wire, handle });
            }
            if let Some(Open { wire, handle }) = &mut *open {
                signed = wire.sign(*handle, &hash);
            }
            if signed.is_ok() {
                break;
            }
            *open = None;
        }
        let (r, s) = signed?;
        Ok(der(&r, &s))
    }
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3): two integers, which DER writes as short as they are and with a sign.
fn der(r: &[u8; 32], s: &[u8; 32]) -> Vec<u8> {
    let integer = |n: &[u8; 32]| {
        let from = n.iter().position(|b| *b != 0).unwrap_or(31);
        let mut digits = n[from..].to_vec();
        if digits[0] & 0x80 != 0 {
            digits.insert(0, 0);
        }
        [&[2, digits.len() as u8][..], &digits].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [&[0x30, both.len() as u8][..], &both].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests;
