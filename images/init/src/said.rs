//! What this process says of updates, for the agent, which tells the hub.
//!
//! In: what runs, whether it stayed up, what was refused or left. Out: `/data/os/said.json`, small, replaced as a whole and only
//! when it says something else.
//! Never: keeps this board from working: what cannot be written is said on the console.

use crate::{log::say, slots, update};
use limpet_protocol::os_update::{FailedUpdate, Said};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

pub const FILE: &str = "/data/os/said.json";
const BYTES_MAX: u64 = 4096;
const WHY_CHARS_MAX: usize = 300;
const NAME_CHARS_MAX: usize = 255;

pub struct Voice {
    path: PathBuf,
    said: Said,
}

impl Voice {
    /// `left`: the version in the other slot that has no tries any more and is newer than what runs.
    pub fn new(path: &Path, running: &str, left: Option<String>, good: bool) -> Voice {
        let mut text = String::new();
        let read = File::open(path).and_then(|f| f.take(BYTES_MAX).read_to_string(&mut text));
        let before: Said = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
        let gone_by = |f: &FailedUpdate| !f.version.is_empty() && update::wanted(&f.version, running).is_err();
        let failed = match left {
            Some(version) => {
                let why = format!("it was started {} times and did not stay up", slots::TRIES);
                Some(FailedUpdate { version, why, ..FailedUpdate::default() })
            }
            None => before.failed.clone().filter(|f| !gone_by(f)),
        };
        let voice = Voice { path: path.into(), said: Said { running: running.into(), good, failed } };
        if voice.said != before {
            voice.write();
        }
        voice
    }

    fn change(&mut self, to: Said) {
        if self.said != to {
            self.said = to;
            self.write();
        }
    }

    fn write(&self) {
        let text = serde_json::to_vec(&self.said).unwrap_or_default();
        if let Err(why) = fs::create_dir_all(self.path.parent().unwrap_or(&self.path))
            .map_err(|e| e.to_string())
            .and_then(|()| slots::replace(&self.path, &text))
        {
            say!("the agent cannot be told of updates: {why}");
        }
    }

    pub fn good(&mut self) {
        self.change(Said { good: true, ..self.said.clone() });
    }

    /// What was left in the folder goes into the other slot: what was said of an earlier one is over.
    pub fn taken(&mut self) {
        self.change(Said { failed: None, ..self.said.clone() });
    }

    pub fn refused(&mut self, file: &Path, why: &str) {
        let name = file.file_name().map(|n| n.to_string_lossy().chars().take(NAME_CHARS_MAX).collect()).unwrap_or_default();
        let failed = FailedUpdate { file: name, version: String::new(), why: why.chars().take(WHY_CHARS_MAX).collect() };
        self.change(Said { failed: Some(failed), ..self.said.clone() });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_reads_what_runs_and_what_was_refused_or_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os/said.json");
        let read = || fs::read_to_string(&path).unwrap();
        let mut voice = Voice::new(&path, "0.1.0", None, false);
        assert_eq!(read(), r#"{"running":"0.1.0","good":false,"failed":null}"#);
        voice.good();
        let why = "x".repeat(1000);
        voice.refused(Path::new("/data/os/incoming/a.update"), &why);
        let refused = format!(r#"{{"file":"a.update","version":"","why":"{}"}}"#, &why[..300]);
        assert_eq!(read(), format!(r#"{{"running":"0.1.0","good":true,"failed":{refused}}}"#));
        // It is still known after a restart, and nothing is written that is there already.
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let mut voice = Voice::new(&path, "0.1.0", None, true);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        voice.taken();
        assert!(read().contains(r#""failed":null"#));
        // A system that was left; then one that is newer than it.
        Voice::new(&path, "0.1.0", Some("0.2.0".into()), true);
        assert!(read().contains(r#""version":"0.2.0","why":"it was started 3 times and did not stay up""#));
        Voice::new(&path, "0.1.0", None, true);
        assert!(read().contains("0.2.0"));
        Voice::new(&path, "0.3.0", None, true);
        assert_eq!(read(), r#"{"running":"0.3.0","good":true,"failed":null}"#);
        fs::write(&path, "{").unwrap();
        Voice::new(&path, "0.3.0", None, true);
        assert!(read().contains("0.3.0"));
    }
}
