//! The files of updates: `<data>/update/state`, and each fetched program under its checksum.
//!
//! In: a directory. Out: states, checked programs. After a power cut a file is the old or the new one.
//! Never: a program in place before its bytes are on the disk.

use crate::journal::write_private;
use limpet_agent_core::update::State;
use limpet_protocol::release::PROGRAM_BYTES_MAX;
use ring::digest::{Context, SHA256};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const STATE: &str = "state";
const STATE_BYTES_MAX: u64 = 64 * 1024;

pub fn dir(data: &Path) -> PathBuf {
    data.join("update")
}

pub fn load(dir: &Path) -> State {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(dir.join(STATE)) {
        let _ = file.take(STATE_BYTES_MAX).read_to_end(&mut bytes);
    }
    State::parse(&bytes)
}

pub fn save(dir: &Path, state: &State) -> io::Result<()> {
    write_private(dir, STATE, &state.bytes())
}

/// Whether the program is what its name says.
pub fn check(dir: &Path, sha256: &str) -> Result<(), String> {
    let sum = || -> io::Result<String> {
        let mut file = File::open(dir.join(sha256))?.take(PROGRAM_BYTES_MAX);
        let (mut sum, mut buffer) = (Context::new(&SHA256), vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => sum.update(&buffer[..n]),
            }
        }
        Ok(sum.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect())
    };
    match sum() {
        Ok(got) if got == sha256 => Ok(()),
        Ok(_) => Err("its file is damaged: the checksum does not fit".into()),
        Err(e) => Err(format!("its file cannot be read: {e}")),
    }
}

/// Puts a downloaded file, which is on the disk, into its place.
pub fn put(dir: &Path, downloaded: &Path, sha256: &str) -> io::Result<()> {
    fs::set_permissions(downloaded, fs::Permissions::from_mode(0o755))?;
    fs::rename(downloaded, dir.join(sha256))?;
    File::open(dir)?.sync_all()
}

/// Removes programs that no step needs any more.
pub fn clean(dir: &Path, state: &State) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let needed = name == STATE || state.files().any(|f| name == *f);
        if !needed && let Err(e) = fs::remove_file(entry.path()) {
            log::warn!("update: {} cannot be removed: {e}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_agent_core::update::Fetched;

    #[test]
    fn what_is_kept_is_checked_and_the_rest_goes() {
        let temp = std::env::temp_dir().join(format!("limpet-update-{}", std::process::id()));
        let dir = dir(&temp);
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(load(&dir), State::default());
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(temp.join("down"), "abc").unwrap();
        put(&dir, &temp.join("down"), sha).unwrap();
        fs::write(dir.join("other"), "x").unwrap();
        let mut state = State::default();
        state.stage(Some(Fetched { version: "1.0.0".into(), sha256: sha.into(), over: "0.1.0".into() }));
        save(&dir, &state).unwrap();
        assert_eq!(load(&dir), state);
        clean(&dir, &state);
        assert!(check(&dir, sha).is_ok() && !dir.join("other").exists());
        fs::write(dir.join(sha), "abd").unwrap();
        assert!(check(&dir, sha).unwrap_err().contains("damaged"));
        clean(&dir, &State::default());
        assert!(check(&dir, sha).unwrap_err().contains("cannot be read"));
        fs::remove_dir_all(&temp).unwrap();
    }
}
