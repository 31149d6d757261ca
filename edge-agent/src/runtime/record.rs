//! What is known of a container on disk: one JSON file each under `<run>/containers`, replaced by rename.
//!
//! In: the helper writes it before the program starts; the agent adds the end. Out: adoption by the next agent.
//! Never: believed without the process's start time and the boot's id.

use super::RuntimeError;
use super::spec::ContainerSpec;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const RECORD_BYTES_MAX: u64 = 8 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub spec: ContainerSpec,
    pub pid: i32,
    pub start_time: u64,
    pub boot_id: String,
    /// Relative to every hierarchy's mount point.
    pub cgroup: String,
    /// The agent's own group, above the container's.
    #[serde(default)]
    pub cgroup_parent: String,
    /// Milliseconds since 1970.
    pub started_ms: i64,
    pub exit: Option<Ended>,
}

/// How a container ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// As a shell counts: 128 + signal when killed.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub at_ms: i64,
    /// Nobody saw the end (the keeper was not there): `code` is 255.
    pub unseen: bool,
}

impl Record {
    /// The recorded process still runs: same boot, same pid, same start time, not a zombie.
    pub fn alive(&self) -> bool {
        self.exit.is_none() && self.boot_id == boot_id() && start_time(self.pid) == Some(self.start_time)
    }

    /// The recorded process is a child of this one, which has yet to collect it when it has ended.
    pub fn is_left_to(&self, keeper: i32) -> bool {
        self.boot_id == boot_id()
            && stat(self.pid).is_some_and(|(_, parent, start)| parent == keeper && start == self.start_time)
    }
}

pub fn path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("containers").join(format!("{id}.json"))
}

pub fn write(run_dir: &Path, record: &Record) -> std::io::Result<()> {
    let target = path(run_dir, &record.spec.id);
    let bytes = serde_json::to_vec(record)?;
    write_file(&target, &bytes, 0o600)
}

pub fn read(run_dir: &Path, id: &str) -> Result<Record, RuntimeError> {
    let path = path(run_dir, id);
    match read_path(&path) {
        Ok(record) => Ok(record),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            Err(RuntimeError::NotFound(format!("no container {id}")))
        }
        Err(err) => Err(RuntimeError::io(format!("read {}", path.display()), err)),
    }
}

/// Every readable record; the unreadable ones come back as paths with the reason.
pub fn read_all(run_dir: &Path) -> (Vec<Record>, Vec<(PathBuf, String)>) {
    let (mut records, mut bad) = (Vec::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(run_dir.join("containers")) else { return (records, bad) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_path(&path) {
            Ok(record) => records.push(record),
            Err(err) => bad.push((path, err.to_string())),
        }
    }
    records.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
    (records, bad)
}

fn read_path(path: &Path) -> std::io::Result<Record> {
    if std::fs::metadata(path)?.len() > RECORD_BYTES_MAX {
        return Err(std::io::Error::other("larger than a record can be"));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Writes a whole file under a temporary name and renames it. Run files only: no fsync.
pub fn write_file(target: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = target.with_extension("tmp");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, target)
}

/// Identifies this boot of the machine.
pub fn boot_id() -> &'static str {
    static ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ID.get_or_init(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned())
}

/// Field 22 of /proc/PID/stat; `None` when there is no such process or only its zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let (state, _, start) = stat(pid)?;
    (state != b'Z' && state != b'X').then_some(start)
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent, _)| parent)
}

fn stat(pid: i32) -> Option<(u8, i32, u64)> {
    // One read: the kernel makes the whole line anew for each, and it is shorter than this.
    let mut text = [0; 1024];
    let length = std::io::Read::read(&mut std::fs::File::open(format!("/proc/{pid}/stat")).ok()?, &mut text).ok()?;
    let text = text.get(..length)?;
    let after_name = text.iter().rposition(|&b| b == b')')? + 2;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some((*fields.first()?.as_bytes().first()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_found_with_a_start_time_and_a_parent() {
        let me = std::process::id() as i32;
        assert!(start_time(me).is_some_and(|ticks| ticks > 0));
        assert_eq!(parent(me), Some(std::os::unix::process::parent_id() as i32));
        assert_eq!(start_time(i32::MAX), None);
        assert_eq!(boot_id().len(), 36);
    }
}
