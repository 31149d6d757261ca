//! TLS sessions of boards, remembered over a restart of the hub: a resumed handshake is a third of a whole one.
//!
//! In: what rustls keeps of a session. Out: the same to the board's next handshake, also after a death of the hub.
//! Shape: `<data>/tls-sessions`, mode 0600: records of length, nonce and what is sealed with `pki/sessions.key` (id, second,
//! value).
//! Never: a session that another CA let in, or older than a day; a handshake that waits for the disk. Decision 0052.

use super::{PkiError, files};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::StoresServerSessions;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Boards whose last session is remembered, about 1 KiB each.
const SESSIONS_MAX: usize = 16_384;
/// As long as rustls tells clients to keep them.
const LIFE_S: u64 = 24 * 3600;
const ID_BYTES: usize = 32;
/// A session is some 800 bytes: the board's certificate and a secret.
const VALUE_BYTES_MAX: usize = 8 * 1024;
const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + 256;
/// The file is written anew when it is this much longer than what it holds.
const SLACK_BYTES: u64 = 1024 * 1024;
const FILE_BYTES_MAX: u64 = (SESSIONS_MAX * RECORD_BYTES_MAX) as u64 * 2;
/// Sessions on their way to the file; who finds no place has a whole handshake after a restart.
const QUEUE_MAX: usize = 1024;
/// Says what is sealed; with a rustls that writes sessions in another way this has to change.
const PURPOSE: &[u8] = b"limpet tls sessions 1, of rustls 0.23";

type Id = [u8; ID_BYTES];

#[derive(Clone, PartialEq, Eq)]
struct Session {
    /// When it was made, seconds since 1970.
    at_s: u64,
    value: Vec<u8>,
}

/// All sessions, and the order in which they came.
#[derive(Default)]
struct Known {
    sessions: BTreeMap<Id, (u64, Session)>,
    order: BTreeMap<u64, Id>,
    next: u64,
}

impl Known {
    fn put(&mut self, id: Id, session: Session) {
        self.take(&id);
        self.order.insert(self.next, id);
        self.sessions.insert(id, (self.next, session));
        self.next += 1;
        while self.order.len() > SESSIONS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.sessions.remove(&oldest);
        }
    }

    fn take(&mut self, id: &Id) -> Option<Session> {
        let (number, session) = self.sessions.remove(id)?;
        self.order.remove(&number);
        Some(session)
    }
}

/// What seals records: the key, and the CA whose boards they are of.
struct Seal {
    key: LessSafeKey,
    about: Vec<u8>,
}

impl Seal {
    fn new(key: &[u8], ca: &str) -> Option<Seal> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        Some(Seal { key, about: [PURPOSE, ca.as_bytes()].concat() })
    }

    fn record(&self, id: &Id, session: &Session) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut inside = [&id[..], &session.at_s.to_be_bytes(), &session.value].concat();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_of, Aad::from(&self.about), &mut inside).ok()?;
        let len = u32::try_from(NONCE_LEN + inside.len()).ok()?;
        Some([&len.to_be_bytes()[..], &nonce, &inside].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<(Id, Session)> {
        let (nonce, inside) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut inside = inside.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(&self.about), &mut inside).ok()?;
        let (id, rest) = plain.split_first_chunk::<ID_BYTES>()?;
        let (at_s, value) = rest.split_first_chunk()?;
        Some((*id, Session { at_s: u64::from_be_bytes(*at_s), value: value.to_vec() }))
    }
}

/// The sessions of one door. rustls asks it in each handshake.
pub struct Sessions {
    known: Arc<Mutex<Known>>,
    to_file: SyncSender<(Id, Session)>,
    now_s: fn() -> u64,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Sessions {
    /// What was remembered comes back; the key is a new one. `ca`: the hash of the CA that lets boards in.
    pub(super) fn open(pki: &Path, path: PathBuf, ca: &str) -> Result<Arc<Sessions>, PkiError> {
        let key_path = pki.join("sessions.key");
        let old = files::read(&key_path).ok().flatten().and_then(|hex| unhex(hex.trim())).and_then(|key| Seal::new(&key, ca));
        let mut known = Known::default();
        if let Some(old) = old {
            // A file that cannot be read costs whole handshakes and nothing else.
            let _ = read(&path, &old, now_s(), &mut known);
        }
        let mut key = [0; 32];
        let no_random = || PkiError::Tls("no randomness".into());
        SystemRandom::new().fill(&mut key).map_err(|_| no_random())?;
        let seal = Seal::new(&key, ca).ok_or_else(no_random)?;
        files::write_private(&key_path, super::hex(&key).as_bytes())?;
        let known = Arc::new(Mutex::new(known));
        let (to_file, queue) = sync_channel(QUEUE_MAX);
        let mut keeper = Keeper { path, seal, known: Arc::clone(&known), file: None, bytes: 0, whole: 0 };
        keeper.anew();
        let thread = std::thread::Builder::new().name("tls-sessions".into()).stack_size(128 * 1024);
        let started = thread.spawn(move || keeper.run(queue));
        started.map_err(|e| PkiError::Tls(format!("cannot start a thread: {e}")))?;
        Ok(Arc::new(Sessions { known, to_file, now_s }))
    }

    fn fresh(&self, session: Session) -> Option<Vec<u8>> {
        let age = (self.now_s)().checked_sub(session.at_s)?;
        (age < LIFE_S).then_some(session.value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let Ok(id) = Id::try_from(key) else { return false };
        if value.len() > VALUE_BYTES_MAX {
            return false;
        }
        let session = Session { at_s: (self.now_s)(), value };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(id, session.clone());
        if is_tls13(&session.value) {
            let _ = self.to_file.try_send((id, session));
        }
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let id = Id::try_from(key).ok()?;
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).sessions.get(&id)?.1.clone();
        self.fresh(found)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let id = Id::try_from(key).ok()?;
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).take(&id)?;
        self.fresh(found)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// A resumed session of TLS 1.2 has no fresh key agreement: its secret on a disk would open what was recorded of it. rustls
/// writes the server's name (0, or 1 and a short text) and then the version.
fn is_tls13(value: &[u8]) -> bool {
    let at = match value {
        [1, len, ..] => 2 + usize::from(*len),
        _ => 1,
    };
    value.get(at..at + 2) == Some(&[0x03, 0x04])
}

/// Writes what is new behind what was there, and everything anew now and then.
struct Keeper {
    path: PathBuf,
    seal: Seal,
    known: Arc<Mutex<Known>>,
    file: Option<File>,
    /// In the file, and in it when it was last written anew.
    bytes: u64,
    whole: u64,
}

impl Keeper {
    /// Until nobody remembers sessions any more.
    fn run(mut self, queue: Receiver<(Id, Session)>) {
        while let Ok((id, session)) = queue.recv() {
            let written = self.seal.record(&id, &session).map(|record| self.append(&record));
            if !matches!(written, Some(Ok(()))) {
                // A full disk is told elsewhere; half a record would hide those behind it.
                self.file = None;
            }
            if self.file.is_none() || self.bytes > 2 * self.whole + SLACK_BYTES {
                self.anew();
            }
        }
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(record)?;
        self.bytes += record.len() as u64;
        Ok(())
    }

    fn anew(&mut self) {
        match self.write_all() {
            Ok((file, bytes)) => (self.file, self.bytes, self.whole) = (Some(file), bytes, bytes),
            Err(error) => tracing::debug!("{}: {error}; boards greet in full after a restart", self.path.display()),
        }
    }

    fn write_all(&self) -> io::Result<(File, u64)> {
        let all: Vec<(Id, Session)> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let in_order = known.order.values().filter_map(|id| Some((*id, known.sessions.get(id)?.1.clone())));
            in_order.filter(|(_, session)| is_tls13(&session.value)).collect()
        };
        let temporary = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut bytes = 0;
        for row in all.chunks(256) {
            let text: Vec<u8> = row.iter().filter_map(|(id, session)| self.seal.record(id, session)).flatten().collect();
            file.write_all(&text)?;
            bytes += text.len() as u64;
        }
        // Not synced: after a power cut whole handshakes are no loss.
        fs::rename(&temporary, &self.path)?;
        Ok((file, bytes))
    }
}

/// Up to the end, or to what is spoiled.
fn read(path: &Path, seal: &Seal, now_s: u64, known: &mut Known) -> io::Result<()> {
    let file = File::open(path)?;
    let mut input = io::BufReader::new(file.take(FILE_BYTES_MAX));
    loop {
        let mut len = [0; 4];
        input.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > RECORD_BYTES_MAX {
            return Ok(());
        }
        let mut sealed = vec![0; len];
        input.read_exact(&mut sealed)?;
        let Some((id, session)) = seal.open(&sealed) else { return Ok(()) };
        if now_s.checked_sub(session.at_s).is_some_and(|age| age < LIFE_S) {
            known.put(id, session);
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | d)).collect())
}

#[cfg(test)]
mod tests;
