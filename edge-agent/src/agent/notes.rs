//! Notes on pods for the agent that comes after this one: a JSON file each under `<run>/notes`, gone with the board's power.
//!
//! In: notes of the core. Out: files, replaced by rename; all that can be read, at the start.
//! Never: on the card; read when larger than a pod's can be.

use limpet_agent_core::pods::PodNote;
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

const NOTE_BYTES_MAX: u64 = 256 * 1024;
const NAME_BYTES_MAX: usize = 128;

/// `None`: a uid that is no file's name.
fn path(run_dir: &Path, uid: &str) -> Option<PathBuf> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let good = !uid.is_empty() && uid.len() <= NAME_BYTES_MAX && uid.bytes().all(fine);
    good.then(|| run_dir.join("notes").join(format!("{uid}.json")))
}

pub fn write(run_dir: &Path, note: &PodNote) -> io::Result<()> {
    let Some(path) = path(run_dir, &note.uid) else { return Ok(()) };
    let text = serde_json::to_vec(note)?;
    match crate::runtime::write_run_file(&path, &text, 0o600) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(run_dir.join("notes"))?;
            crate::runtime::write_run_file(&path, &text, 0o600)
        }
        other => other,
    }
}

pub fn remove(run_dir: &Path, uid: &str) {
    if let Some(path) = path(run_dir, uid) {
        let _ = fs::remove_file(path);
    }
}

pub fn read_all(run_dir: &Path) -> Vec<PodNote> {
    let Ok(entries) = fs::read_dir(run_dir.join("notes")) else { return Vec::new() };
    let read = |path: PathBuf| -> Option<PodNote> {
        let mut text = Vec::new();
        fs::File::open(path).ok()?.take(NOTE_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let named = |path: &PathBuf| path.extension().is_some_and(|x| x == "json");
    entries.flatten().map(|e| e.path()).filter(named).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_read_and_forgotten() {
        let dir = std::env::temp_dir().join(format!("limpet-notes-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        assert!(read_all(&dir).is_empty());
        let note = |uid: &str, since| PodNote {
            uid: uid.into(),
            conditions: vec![("Ready".into(), true, since)],
            containers: [("c".to_string(), (3, true, false))].into(),
        };
        for since in [7, 8] {
            write(&dir, &note("a-1", since)).unwrap();
        }
        write(&dir, &note("b", 9)).unwrap();
        write(&dir, &note("../c", 9)).unwrap();
        fs::write(dir.join("notes/d.json"), "{").unwrap();
        let mut all = read_all(&dir);
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        assert_eq!(all, [note("a-1", 8), note("b", 9)]);
        remove(&dir, "a-1");
        remove(&dir, "a-1");
        assert_eq!(read_all(&dir), [note("b", 9)]);
        let _ = fs::remove_dir_all(&dir);
    }
}
