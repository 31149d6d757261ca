//! Which program the agent is: the installed one, or one that came over the air; and what happens when a new one is no good.
//!
//! In: what the hub wants, what was fetched, starts and ends as the keeper sees them. Out: what to start, what to fetch, what to
//! say. The state is one small file, replaced as a whole; keeper and agent never write it at the same time.
//! Never: a state from which no sound program starts. The installed program is always one.

#[cfg(test)]
mod tests;

use limpet_protocol::release::Version;
use serde::{Deserialize, Serialize};

/// Annotation of the node: the version that its agent should have.
pub const WANTED: &str = "limpet.dev/agent-version";
/// A new program is started so often before it counts as broken.
pub const STARTS_MAX: u32 = 3;
/// How long a new program may take until the hub has agreed with it.
pub const TRIAL_MS: u64 = 600_000;
/// A program that has passed its trial and then ends so often in a row, each time within half a minute, is left.
pub const QUICK_ENDS_MAX: u32 = 10;
/// So often one version is tried when what failed may have been the way to the hub.
const TRIES_MAX: u32 = 3;

/// A program that came over the air. Its file is named by its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    pub version: String,
    pub sha256: String,
    /// The version that was installed on the board when this came: an installed one that is newer than both wins.
    pub over: String,
}

/// `None`: the installed program.
pub type Choice = Option<Fetched>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    program: Choice,
    starts: u32,
}

/// A version that this board does not run although it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub version: String,
    pub why: String,
    /// It ran, and the board went back.
    pub ran: bool,
    /// Worth another try later.
    again: bool,
    tries: u32,
    told: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    current: Choice,
    /// What ran before; kept on disk for the way back.
    previous: Choice,
    trial: Option<Trial>,
    refused: Option<Refused>,
}

/// What follows from a wanted version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    /// The program is here already.
    Take(Choice),
    Fetch,
}

impl State {
    /// What is unreadable counts as nothing: the installed program starts.
    pub fn parse(bytes: &[u8]) -> State {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What to start now. The caller makes the state durable first, when it is another one than before.
    pub fn start(&mut self, installed: &str) -> Choice {
        let newer = |f: &Fetched| f.over != installed && older(&f.version, installed);
        if self.current.as_ref().is_some_and(newer) {
            *self = State::default();
        }
        match &mut self.trial {
            Some(trial) if trial.starts < STARTS_MAX => {
                trial.starts += 1;
                return trial.program.clone();
            }
            Some(_) => self.give_up(format!("it was started {STARTS_MAX} times and did not stay up"), false, installed),
            None => {}
        }
        self.current.clone()
    }

    pub fn on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The trial took too long.
    pub fn overdue(&mut self, installed: &str) {
        let why = format!("the hub did not hear from it within {} minutes", TRIAL_MS / 60_000);
        self.give_up(why, true, installed);
    }

    /// The program that is to start cannot: not what it was, or not a program.
    pub fn broken(&mut self, why: String, installed: &str) {
        if self.trial.is_some() {
            return self.give_up(why, false, installed);
        }
        if let Some(current) = self.current.take() {
            self.current = self.previous.take().filter(|f| f.sha256 != current.sha256);
            self.refused = Some(self.refusal(current.version, why, (true, false)));
        }
    }

    fn give_up(&mut self, why: String, again: bool, installed: &str) {
        if let Some(trial) = self.trial.take() {
            let version = version_of(&trial.program, installed).to_string();
            self.refused = Some(self.refusal(version, why, (true, again)));
        }
    }

    fn refusal(&self, version: String, why: String, (ran, again): (bool, bool)) -> Refused {
        let before = self.refused.as_ref().filter(|r| r.version == version).map_or(0, |r| r.tries);
        Refused { version, why, ran, again, tries: before + 1, told: false }
    }

    /// The version that runs, trials included.
    pub fn version<'a>(&'a self, installed: &'a str) -> &'a str {
        version_of(self.trial.as_ref().map_or(&self.current, |t| &t.program), installed)
    }

    /// The hub has heard from the new program. Whether it was on trial.
    pub fn confirm(&mut self) -> bool {
        let Some(trial) = self.trial.take() else { return false };
        self.previous = std::mem::replace(&mut self.current, trial.program);
        self.refused = None;
        true
    }

    /// What to do for the version that the node's object names.
    pub fn wish(&self, wanted: &str, installed: &str) -> Wish {
        let gone_wrong = |r: &Refused| r.version == wanted && !(r.again && r.tries < TRIES_MAX);
        if self.trial.is_some() || wanted == self.version(installed) || self.refused.as_ref().is_some_and(gone_wrong) {
            return Wish::Nothing;
        }
        match &self.previous {
            // The way back needs no signature for a downgrade: it ran here and was good.
            Some(previous) if previous.version == wanted => Wish::Take(Some(previous.clone())),
            _ if wanted == installed => Wish::Take(None),
            _ => Wish::Fetch,
        }
    }

    /// The program is on disk and checked: it is to be tried at the next start.
    pub fn stage(&mut self, program: Choice) {
        self.trial = Some(Trial { program, starts: 0 });
    }

    /// It was not even tried. `again`: the way may have been bad.
    pub fn refuse(&mut self, version: &str, why: String, again: bool) {
        self.refused = Some(Refused { tries: if again { 0 } else { 1 }, ..self.refusal(version.into(), why, (false, again)) });
    }

    /// Another version is wanted now, or none: what was refused does not matter any more.
    pub fn wanted(&mut self, wanted: Option<&str>) -> bool {
        let stale = self.refused.as_ref().is_some_and(|r| Some(r.version.as_str()) != wanted && r.told);
        if stale {
            self.refused = None;
        }
        stale
    }

    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// What went wrong since the last time that somebody asked.
    pub fn news(&mut self) -> Option<Refused> {
        let refused = self.refused.as_mut().filter(|r| !r.told)?;
        refused.told = true;
        Some(refused.clone())
    }

    /// Names of the files that must stay.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let trial = self.trial.iter().filter_map(|t| t.program.as_ref());
        let kept = self.current.iter().chain(&self.previous).chain(trial);
        kept.map(|f| f.sha256.as_str())
    }
}

fn version_of<'a>(choice: &'a Choice, installed: &'a str) -> &'a str {
    choice.as_ref().map_or(installed, |f| &f.version)
}

fn older(one: &str, than: &str) -> bool {
    matches!((Version::parse(one), Version::parse(than)), (Ok(a), Ok(b)) if a < b)
}
