//! Which program the agent is started from: the installed one, or one that came over the air.
//!
//! In: `<data>/update/state`, the files beside it. Out: a path whose content was just checked, the state on disk before that.
//! The keeper itself always runs the installed program: what brings a board back is not what an update changes.
//! Never: a program whose checksum is not the one that was signed for.

use crate::update::files;
use limpet_agent_core::update::{QUICK_ENDS_MAX, TRIAL_MS};
use std::path::{Path, PathBuf};

/// For tests: milliseconds that a trial lasts.
const TEST_TRIAL: &str = "LIMPET_FAKE_TRIAL_MS";

pub const INSTALLED: &str = env!("CARGO_PKG_VERSION");

pub struct Programs {
    installed: PathBuf,
    /// `None`: this keeper knows no other program than its own.
    dir: Option<PathBuf>,
    quick_ends: u32,
    /// The trial took too long; it counts once the agent has ended.
    overdue: bool,
}

pub struct Chosen {
    pub path: PathBuf,
    /// How long it may take until it has proved itself.
    pub trial_ms: Option<u64>,
    pub fetched: bool,
}

impl Programs {
    pub fn new(installed: &Path, data: Option<&Path>) -> Programs {
        let dir = data.map(files::dir);
        Programs { installed: installed.into(), dir, quick_ends: 0, overdue: false }
    }

    /// What to start now. Trouble with the disk leads to the installed program.
    pub fn next(&mut self) -> Chosen {
        let own = Chosen { path: self.installed.clone(), trial_ms: None, fetched: false };
        let Some(dir) = self.dir.as_deref().filter(|d| d.exists()) else { return own };
        let before = files::load(dir);
        let mut state = before.clone();
        if std::mem::take(&mut self.overdue) && state.on_trial() {
            state.overdue(INSTALLED);
        }
        if self.quick_ends >= QUICK_ENDS_MAX {
            self.quick_ends = 0;
            state.broken(format!("it ended {QUICK_ENDS_MAX} times in a row within half a minute"), INSTALLED);
        }
        let mut choice = state.start(INSTALLED);
        // At most: the one on trial, the current one, the one before.
        while let Some(why) = choice.as_ref().and_then(|f| files::check(dir, &f.sha256).err()) {
            eprintln!("keeper: the program fetched as version {}: {why}; taking another", state.version(INSTALLED));
            state.broken(why, INSTALLED);
            choice = state.start(INSTALLED);
        }
        // A start that is not on record is not made: it would not count.
        if state != before
            && let Err(e) = files::save(dir, &state)
        {
            eprintln!("keeper: {}: {e}; the installed program starts", dir.display());
            return own;
        }
        let trial_ms = state.on_trial().then(trial_ms);
        match choice {
            Some(f) => Chosen { path: dir.join(&f.sha256), trial_ms, fetched: true },
            None => Chosen { trial_ms, ..own },
        }
    }

    /// It does not start at all.
    pub fn unusable(&mut self, why: String) {
        let Some(dir) = &self.dir else { return };
        let mut state = files::load(dir);
        state.broken(why, INSTALLED);
        if let Err(e) = files::save(dir, &state) {
            eprintln!("keeper: {}: {e}", dir.display());
        }
    }

    pub fn ended(&mut self, quickly: bool) {
        self.quick_ends = if quickly { self.quick_ends + 1 } else { 0 };
    }

    /// Whether the trial that ran out of time is still one: then the agent has to go.
    pub fn is_overdue(&mut self) -> bool {
        self.overdue = self.dir.as_deref().is_some_and(|dir| files::load(dir).on_trial());
        self.overdue
    }
}

fn trial_ms() -> u64 {
    std::env::var(TEST_TRIAL).ok().and_then(|ms| ms.parse().ok()).unwrap_or(TRIAL_MS)
}
