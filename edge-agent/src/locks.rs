//! Locks of this board: while there is one, no update is begun here.
//!
//! In: the directory `locks` of the data directory: a file a lock, its text the reason. `limpet-agent lock` and `unlock` make and
//! remove them, and so may a pod that mounts the directory. Out: who holds a lock, and why; news of changes.
//! Never: follows what lies there out of the directory, or reads more than a line of it.

use crate::agent::Paths;
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const FILES_MAX: usize = 256;
const NAME_CHARS_MAX: usize = 63;
const REASON_CHARS_MAX: usize = 200;
/// What a name is when none is given.
pub const NAME: &str = "operator";

pub fn dir(data: &Path) -> PathBuf {
    data.join("locks")
}

/// The first lock by name, `name: reason`, and how many more there are.
pub fn held(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.flatten().take(FILES_MAX);
    let mut names: Vec<String> = names.filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_name(n)).collect();
    names.sort();
    let first = names.first()?;
    let reason = reason(&dir.join(first));
    let more = if names.len() > 1 { format!(" (and {} more)", names.len() - 1) } else { String::new() };
    Some(format!("{first}: {reason}{more}"))
}

/// One line of text, whatever lies there.
fn reason(path: &Path) -> String {
    let mut bytes = Vec::new();
    // Neither a link nor a pipe is followed or waited for.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) {
        let _ = file.take(4 * REASON_CHARS_MAX as u64).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect();
    match line.trim() {
        "" => "locked, without a reason".into(),
        line => line.into(),
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && !name.starts_with('.') && name.chars().all(good)
}

/// `limpet-agent lock`.
pub fn lock(paths: &Paths, name: &str, why: &str) -> i32 {
    told(hold(&dir(&paths.data), name, why), &format!("{name} holds updates of this board back; limpet-agent unlock {name}"))
}

/// `limpet-agent unlock`.
pub fn unlock(paths: &Paths, name: &str) -> i32 {
    told(release(&dir(&paths.data), name), &format!("{name} holds updates of this board back no longer"))
}

fn told(result: Result<(), String>, good: &str) -> i32 {
    match result {
        Ok(()) => {
            println!("{good}");
            0
        }
        Err(why) => {
            eprintln!("limpet-agent: {why}");
            1
        }
    }
}

fn hold(dir: &Path, name: &str, why: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot make the lock {}: {e}", dir.join(name).display());
    if !is_name(name) {
        return Err(format!("{name:?} is no name for a lock: letters, digits, '-', '_' and '.', at most {NAME_CHARS_MAX}"));
    }
    fs::create_dir_all(dir).map_err(failed)?;
    // Complete or not at all: the agent reads it as soon as it has its name.
    let partial = dir.join(format!(".{name}.partial"));
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial).map_err(failed)?;
    file.write_all(why.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, dir.join(name)).map_err(failed)?;
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(failed)
}

fn release(dir: &Path, name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("{name:?} is no name of a lock"));
    }
    match fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => match held(dir) {
            Some(other) => Err(format!("there is no lock {name}; held is {other}")),
            None => Err(format!("there is no lock {name}, and no other")),
        },
        other => other.map_err(|e| format!("cannot remove the lock {}: {e}", dir.join(name).display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_held_and_released() {
        let dir = std::env::temp_dir().join(format!("limpet-locks-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        assert_eq!(held(&dir), None);
        assert!(release(&dir, "till").unwrap_err().contains("no other"));
        hold(&dir, "till", "a card\npayment").unwrap();
        assert_eq!(held(&dir).as_deref(), Some("till: a card payment"));
        hold(&dir, "backup", "").unwrap();
        assert_eq!(held(&dir).as_deref(), Some("backup: locked, without a reason (and 1 more)"));
        assert!(release(&dir, "other").unwrap_err().contains("held is backup"));
        release(&dir, "backup").unwrap();
        for bad in ["", ".hidden", "../up", "a/b", &"x".repeat(64)] {
            assert!(hold(&dir, bad, "").is_err() && release(&dir, bad).is_err(), "{bad}");
        }
        let _ = fs::remove_dir_all(&dir);
    }

    #[test]
    fn what_a_pod_puts_there_is_doubted() {
        let dir = std::env::temp_dir().join(format!("limpet-locks-bad-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("a")).unwrap();
        assert_eq!(held(&dir).as_deref(), Some("a: locked, without a reason"), "a link is not followed");
        fs::remove_file(dir.join("a")).unwrap();
        nix::unistd::mkfifo(&dir.join("a"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(held(&dir).as_deref(), Some("a: locked, without a reason"), "a pipe is not waited for");
        fs::remove_file(dir.join("a")).unwrap();
        fs::write(dir.join("a"), "x".repeat(1_000_000)).unwrap();
        assert_eq!(held(&dir).unwrap().len(), "a: ".len() + REASON_CHARS_MAX);
        fs::write(dir.join("a"), [0xff, 0, 0x1b]).unwrap();
        assert_eq!(held(&dir).as_deref(), Some("a: \u{fffd}"));
        let _ = fs::remove_dir_all(&dir);
    }
}
