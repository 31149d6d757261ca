//! Which Limpet OS this board is to run, and how far it is: from the annotation to the system that has stayed up.
//!
//! In: the wanted version, what runs, what the first process says (`Said`), whether the file that was left for it is still there.
//! Out: whether to fetch, what to say. The state is one small file: what was left for the first process, and what went wrong.
//! Never: gives the first process one version twice, or calls a system good that is still on trial.

#[cfg(test)]
mod tests;

use limpet_protocol::os_update::{Said, same};
use serde::{Deserialize, Serialize};

/// The first process has so long for a file that lies there, and then for the restart.
pub const TAKEN_WITHIN_MS: u64 = 600_000;
/// So often it is looked for news while a file is on its way.
pub const LOOK_MS: u64 = 2_000;

/// A file that was left in the folder of the first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    pub version: String,
    /// The boot in which it was left there.
    pub boot: String,
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
    told: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    handed: Option<Handed>,
    refused: Option<Refused>,
    /// When this process first saw the file, or that it was taken.
    #[serde(skip)]
    since_ms: Option<u64>,
}

/// What the board looks like now.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What the first process says; one of an older image says nothing.
    pub said: Option<&'a Said>,
    /// From the kernel's command line.
    pub running: &'a str,
    pub boot: &'a str,
    /// The file that was left is still there.
    pub waits: bool,
    pub now_ms: u64,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody wants anything.
    Nothing,
    /// It runs, and has stayed up.
    Runs,
    /// In the hands of the first process; the sentence says how far.
    Underway(&'static str),
    /// Not taken, and not to be tried by itself now.
    Refused,
    Fetch,
}

/// The name under which a version is left for the first process.
pub fn file_name(version: &str) -> String {
    format!("limpet-{version}.update")
}

impl State {
    /// What is unreadable counts as nothing.
    pub fn parse(bytes: &[u8]) -> State {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The file that may still lie in the folder.
    pub fn handed(&self) -> Option<&str> {
        self.handed.as_ref().map(|h| h.version.as_str())
    }

    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// What follows; may change the state, which the caller then makes durable.
    pub fn look(&mut self, wanted: Option<&str>, seen: Seen<'_>) -> Step {
        if self.handed().is_some_and(|h| Some(h) != wanted) {
            (self.handed, self.since_ms) = (None, None);
        }
        if self.refused.as_ref().is_some_and(|r| Some(r.version.as_str()) != wanted && r.told) {
            self.refused = None;
        }
        let Some(wanted) = wanted else { return Step::Nothing };
        if same(wanted, seen.running) {
            return self.runs(seen.said);
        }
        if let Some(why) = self.failed(wanted, seen) {
            self.handed = None;
            let known = self.refused.as_ref().is_some_and(|r| r.version == wanted && r.ran == why.1 && r.why == why.0);
            if !known {
                self.refuse(wanted, why.0, (why.1, false));
            }
            return Step::Refused;
        }
        match (&self.handed, &self.refused) {
            (Some(_), _) if seen.waits => Step::Underway("waits for the board to install it"),
            (Some(_), _) => Step::Underway("is being installed; the board restarts"),
            (None, Some(r)) if r.version == wanted && !r.again => Step::Refused,
            (None, _) => Step::Fetch,
        }
    }

    fn runs(&mut self, said: Option<&Said>) -> Step {
        // Without a word it is an image that has none to say.
        if said.is_some_and(|s| !s.good) {
            return Step::Underway("runs, and is on trial");
        }
        (self.handed, self.refused, self.since_ms) = (None, None, None);
        Step::Runs
    }

    /// Why what was given to the first process does not run, and whether it ran.
    fn failed(&mut self, wanted: &str, seen: Seen<'_>) -> Option<(String, bool)> {
        let failed = seen.said.and_then(|s| s.failed.as_ref());
        if let Some(left) = failed.filter(|f| !f.version.is_empty() && same(&f.version, wanted)) {
            return Some((left.why.clone(), true));
        }
        let handed = self.handed.as_ref()?;
        if !seen.waits {
            if let Some(refused) = failed.filter(|f| f.file == file_name(wanted)) {
                return Some((refused.why.clone(), false));
            }
            if handed.boot != seen.boot {
                return Some((format!("the board was restarted with it, and came back with {}", seen.running), true));
            }
        }
        let since = *self.since_ms.get_or_insert(seen.now_ms);
        let late = seen.now_ms.saturating_sub(since) > TAKEN_WITHIN_MS;
        late.then(|| {
            let minutes = TAKEN_WITHIN_MS / 60_000;
            (format!("the board did not install it within {minutes} minutes; its console says why"), false)
        })
    }

    /// Before the file is put into the folder: what was written there without a note would be fetched again.
    pub fn hand(&mut self, version: &str, boot: &str) {
        self.handed = Some(Handed { version: version.into(), boot: boot.into() });
        self.since_ms = None;
    }

    /// It could not be put there.
    pub fn keep(&mut self) {
        self.handed = None;
    }

    pub fn refuse(&mut self, version: &str, why: String, (ran, again): (bool, bool)) {
        let known = self.refused.as_ref().is_some_and(|r| r.version == version && r.why == why && r.ran == ran);
        self.refused = Some(Refused { version: version.into(), why, ran, again, told: known });
    }

    /// What went wrong since the last time that somebody asked.
    pub fn news(&mut self) -> Option<Refused> {
        let refused = self.refused.as_mut().filter(|r| !r.told)?;
        refused.told = true;
        Some(refused.clone())
    }
}
