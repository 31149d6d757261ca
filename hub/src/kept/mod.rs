//! Logs that boards delivered for keeping: the last lines of a container whose board is away, or whose pod is gone.
//!
//! In: `LogPiece`s of nodes. Out: how far each log is durable here; its text for `kubectl logs`.
//! Shape: `<data>/logs/<pod uid>/about.json`, `<container>.<attempt>.log` (CRI lines), `<container>.end` (how far it is).
//! Never: confirms what is not on the disk; lets one node write into another's logs; grows without a bound.

mod text;

pub use text::{Options, select};

use crate::relay::{KeptAsk, KeptFound};
use limpet_protocol::{LogPiece, LogPlace, LogTaken};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Of one container's log, whatever its node says.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Pods whose logs are kept, of one node and of all.
const PODS_PER_NODE_MAX: usize = 256;
const PODS_MAX: usize = 8192;
const BYTES_PER_NODE_MAX: u64 = 64 * 1024 * 1024;
const CONTAINERS_PER_POD_MAX: usize = 32;
/// Logs of pods that are gone stay so long.
const GONE_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Whose logs these are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    /// When something came last, milliseconds since 1970.
    pub at_ms: u64,
    #[serde(skip)]
    bytes: u64,
}

/// How far a container's log is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    attempt: u32,
    file: u32,
    offset: u64,
    lines: u64,
    /// Bytes of the newest attempt's file here.
    bytes: u64,
    /// Who counts attempts and lines. Empty: an older hub wrote this.
    #[serde(default)]
    device: String,
}

impl End {
    /// Another board or card knows nothing of what the one before has told: it begins anew.
    fn place(&self, device: &str) -> LogPlace {
        match self.is_of(device) {
            true => LogPlace { attempt: self.attempt, file: self.file, offset: self.offset, lines: self.lines },
            false => LogPlace::default(),
        }
    }

    fn is_of(&self, device: &str) -> bool {
        self.device.is_empty() || self.device == device
    }
}

pub struct KeptLogs {
    dir: PathBuf,
    pods: Mutex<BTreeMap<String, About>>,
}

impl KeptLogs {
    /// Reads what is there; a directory that cannot be read counts as nothing.
    pub fn open(data_dir: &Path) -> KeptLogs {
        let dir = data_dir.join("logs");
        let mut pods = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let about = std::fs::read(entry.path().join("about.json")).ok();
            let about = about.and_then(|bytes| serde_json::from_slice::<About>(&bytes).ok());
            if let (Some(mut about), Ok(uid)) = (about, entry.file_name().into_string()) {
                about.bytes = bytes_of(&entry.path());
                pods.insert(uid, about);
            }
        }
        KeptLogs { dir, pods: Mutex::new(pods) }
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, About>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node has brought logs of this pod before: then also after the pod's end.
    pub fn is_known(&self, node: &str, uid: &str) -> bool {
        self.pods().get(uid).is_some_and(|about| about.node == node)
    }

    /// Writes a piece down, or says how far its log is. Waits for the disk. `device`: which board and card the node is.
    /// `now_ms`: milliseconds since 1970. `lives`: whether the pod of a uid still exists. An error is about the disk: the node
    /// says it again.
    pub fn take(
        &self,
        (node, device): (&str, &str),
        piece: &LogPiece,
        now_ms: u64,
        lives: impl Fn(&str, &About) -> bool,
    ) -> io::Result<LogTaken> {
        let answer = |place, refused| LogTaken { uid: piece.uid.clone(), container: piece.container.clone(), place, refused };
        if !is_uid(&piece.uid) || !is_label(&piece.container) || !self.admit(node, piece, now_ms, lives)? {
            return Ok(answer(LogPlace::default(), true));
        }
        let dir = self.dir.join(&piece.uid);
        let log = Log { dir: &dir, container: &piece.container };
        let end = log.end();
        // Lines are what is counted through; files may have changed their names between two pieces.
        let at = end.place(device);
        let follows = piece.from.lines.checked_sub(piece.lost) == Some(at.lines) && piece.from.lines <= piece.to.lines;
        if piece.text.is_empty() || !follows {
            return Ok(answer(at, false));
        }
        let end = log.append(piece, &end, device)?;
        if let Some(about) = self.pods().get_mut(&piece.uid) {
            (about.at_ms, about.bytes) = (now_ms, bytes_of(&dir));
        }
        Ok(answer(end.place(device), false))
    }

    /// Makes room and a directory for a pod's logs; `false`: there is none for this node.
    fn admit(&self, node: &str, piece: &LogPiece, now_ms: u64, lives: impl Fn(&str, &About) -> bool) -> io::Result<bool> {
        let mut pods = self.pods();
        if let Some(about) = pods.get(&piece.uid) {
            let logs = std::fs::read_dir(self.dir.join(&piece.uid))?.flatten();
            let logs = logs.filter(|e| e.path().extension().is_some_and(|e| e == "end")).count();
            let new = !self.dir.join(&piece.uid).join(format!("{}.end", piece.container)).exists();
            return Ok(about.node == node && !(new && logs >= CONTAINERS_PER_POD_MAX));
        }
        let mut gone: Vec<(u64, String)> =
            pods.iter().filter(|(uid, about)| !lives(uid, about)).map(|(uid, about)| (about.at_ms, uid.clone())).collect();
        gone.sort();
        let full = |pods: &BTreeMap<String, About>, of: &dyn Fn(&About) -> bool| {
            let (mut count, mut bytes) = (0, 0);
            pods.values().filter(|a| of(a)).for_each(|a| (count, bytes) = (count + 1, bytes + a.bytes));
            (count, bytes)
        };
        for (at_ms, uid) in gone {
            let (own, bytes) = full(&pods, &|a: &About| a.node == node);
            let of_node = pods.get(&uid).is_some_and(|a| a.node == node);
            let crowded = (of_node && (own >= PODS_PER_NODE_MAX || bytes >= BYTES_PER_NODE_MAX)) || pods.len() >= PODS_MAX;
            if crowded || at_ms + GONE_MS_MAX < now_ms {
                let _ = std::fs::remove_dir_all(self.dir.join(&uid));
                pods.remove(&uid);
            }
        }
        let (own, bytes) = full(&pods, &|a: &About| a.node == node);
        if own >= PODS_PER_NODE_MAX || bytes >= BYTES_PER_NODE_MAX || pods.len() >= PODS_MAX {
            return Ok(false);
        }
        let about = About {
            node: node.into(),
            namespace: piece.namespace.clone(),
            pod: piece.pod.clone(),
            at_ms: now_ms,
            bytes: 0,
        };
        let dir = self.dir.join(&piece.uid);
        std::fs::create_dir_all(&dir)?;
        replace(&dir.join("about.json"), &serde_json::to_vec(&about)?)?;
        pods.insert(piece.uid.clone(), about);
        Ok(true)
    }

    /// The pod of this name that was heard of last, or the one with this uid.
    pub fn find(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Option<(String, About)> {
        let pods = self.pods();
        let named = pods.iter().filter(|(_, a)| a.namespace == namespace && a.pod == pod);
        let meant = named.filter(|(u, _)| uid.is_none_or(|uid| uid == *u));
        meant.max_by_key(|(_, a)| a.at_ms).map(|(uid, about)| (uid.clone(), about.clone()))
    }

    /// What is kept of the log that is meant, and its lines.
    pub fn answer(&self, ask: &KeptAsk) -> Option<(KeptFound, Vec<u8>)> {
        let (uid, about) = self.find(&ask.namespace, &ask.pod, ask.uid.as_deref())?;
        let containers = self.containers(&uid);
        let container = match (&ask.container, containers.as_slice()) {
            (Some(named), _) => Some(named),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let lines = container.and_then(|c| self.lines(&uid, c, ask.previous)).unwrap_or_default();
        let found = KeptFound { node: about.node, at_ms: about.at_ms, containers, has_lines: !lines.is_empty() };
        Some((found, lines))
    }

    /// Containers with a kept log.
    pub fn containers(&self, uid: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join(uid)).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".end")?.to_owned()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// The CRI lines that are kept of the newest attempt, or of the one before it. `None`: nothing was delivered.
    pub fn lines(&self, uid: &str, container: &str, previous: bool) -> Option<Vec<u8>> {
        if !is_uid(uid) || !is_label(container) {
            return None;
        }
        let log = Log { dir: &self.dir.join(uid), container };
        let end = log.end();
        let attempt = if previous { end.attempt.checked_sub(1)? } else { end.attempt };
        let mut bytes = Vec::new();
        File::open(log.path(attempt)).ok()?.take(LOG_BYTES_MAX * 3).read_to_end(&mut bytes).ok()?;
        if !previous {
            bytes.truncate(usize::try_from(end.bytes).unwrap_or(usize::MAX));
        }
        Some(bytes)
    }
}

/// The files of one container.
struct Log<'a> {
    dir: &'a Path,
    container: &'a str,
}

impl Log<'_> {
    fn path(&self, attempt: u32) -> PathBuf {
        self.dir.join(format!("{}.{attempt}.log", self.container))
    }

    fn end_path(&self) -> PathBuf {
        self.dir.join(format!("{}.end", self.container))
    }

    fn end(&self) -> End {
        std::fs::read(self.end_path()).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
    }

    fn append(&self, piece: &LogPiece, end: &End, device: &str) -> io::Result<End> {
        let bytes_max = u64::from(piece.bytes_max).clamp(4096, LOG_BYTES_MAX);
        let path = self.path(piece.to.attempt);
        let other = !end.is_of(device);
        if other {
            self.hand_over(end.attempt, piece.to.attempt)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        if other || end.attempt == piece.to.attempt && end.lines > 0 {
            // What was written and never noted comes again.
            file.set_len(end.bytes.min(file.metadata()?.len()))?;
        }
        if piece.lost > 0 {
            file.write_all(&text::lost_line(&piece.text, piece.lost))?;
        }
        file.write_all(&piece.text)?;
        file.sync_data()?;
        let mut bytes = file.metadata()?.len();
        if bytes > bytes_max * 2 {
            bytes = shorten(&path, bytes_max)?;
        }
        let to = piece.to;
        let (attempt, device) = (to.attempt, device.into());
        let end = End { attempt, file: to.file, offset: to.offset, lines: to.lines, bytes, device };
        replace(&self.end_path(), &serde_json::to_vec(&end)?)?;
        self.forget_older(to.attempt);
        Ok(end)
    }

    /// The newest lines of the device before go on in front of those of the new one, which counts attempts by itself; the rest
    /// goes.
    fn hand_over(&self, newest: u32, attempt: u32) -> io::Result<()> {
        if newest != attempt {
            let moved = std::fs::rename(self.path(newest), self.path(attempt));
            // Not there: it was moved before a power cut.
            moved.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        }
        self.forget(|n| n != attempt);
        Ok(())
    }

    /// `--previous` is all that anybody can ask for.
    fn forget_older(&self, attempt: u32) {
        self.forget(|n| n + 1 < attempt);
    }

    fn forget(&self, which: impl Fn(u32) -> bool) {
        for entry in std::fs::read_dir(self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix(self.container)?.strip_prefix('.')?.strip_suffix(".log"));
            if number.and_then(|n| n.parse::<u32>().ok()).is_some_and(&which) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Leaves the newest whole lines of at most so many bytes.
fn shorten(path: &Path, bytes_max: u64) -> io::Result<u64> {
    let all = std::fs::read(path)?;
    let from = all.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    let from = all[from..].iter().position(|b| *b == b'\n').map_or(all.len(), |at| from + at + 1);
    replace(path, &all[from..])?;
    Ok((all.len() - from) as u64)
}

/// The whole file or none of it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn bytes_of(dir: &Path) -> u64 {
    std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

/// Uids are names of directories here.
fn is_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(inner)
}

#[cfg(test)]
mod tests;
