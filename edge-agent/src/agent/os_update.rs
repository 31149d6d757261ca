//! Updates of Limpet OS: what the node's object wants, and how far it is.
//!
//! In: the annotation `limpet.dev/os-version`, the outcome of a fetch, what `limpet-init` says, locks. Out: a file in the
//! folder of `limpet-init`, which restarts the board; Events; the node's condition `OsUpToDate`.
//! Never: an update while no hub is there to agree with it, or while a lock is held.

use super::{state::Agent, update::AGAIN_MS};
use crate::{
    journal::write_private,
    os_update::{Ask, Os, fetch},
    update::Failed,
};
use limpet_agent_core::{
    metered::Traffic,
    os_update::{LOOK_MS, Seen, State, Step},
    status::OwnCondition,
};
use limpet_protocol::os_update::{COMES, CONDITION, WAITS, WANTED};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

const STATE: &str = "state";
const STATE_BYTES_MAX: u64 = 16 * 1024;
const NO_LIMPET_OS: &str = "this board does not run Limpet OS: its system is updated by its own means; take the annotation away";

type Outcome = Result<String, (String, Failed)>;

pub struct Systems {
    os: Option<Os>,
    dir: PathBuf,
    state: State,
    step: Step,
    /// The version that is being fetched.
    busy: Option<String>,
    tell: mpsc::Sender<Outcome>,
    pub done: mpsc::Receiver<Outcome>,
    at_ms: Option<u64>,
}

impl Systems {
    pub fn new(data: &Path) -> Systems {
        let (os, dir) = (Os::here(), data.join("os-update"));
        if let Some(os) = &os {
            os.clean();
        }
        let mut bytes = Vec::new();
        if let Ok(file) = File::open(dir.join(STATE)) {
            let _ = file.take(STATE_BYTES_MAX).read_to_end(&mut bytes);
        }
        let (tell, done) = mpsc::channel(1);
        Systems { os, dir, state: State::parse(&bytes), step: Step::Nothing, busy: None, tell, done, at_ms: None }
    }

    pub fn wake_at(&self) -> Option<u64> {
        self.at_ms
    }

    fn look(&mut self, wanted: Option<&str>, now_ms: u64) -> Step {
        let Some(os) = &self.os else {
            if let Some(wanted) = wanted.filter(|w| self.state.refused().is_none_or(|r| r.version != *w)) {
                self.state.refuse(wanted, NO_LIMPET_OS.into(), (false, false));
            }
            let seen = Seen { said: None, running: "", boot: "", waits: false, now_ms };
            return self.state.look(wanted, seen);
        };
        let (said, boot) = (os.said(), os.boot());
        let waits = self.state.handed().is_some_and(|version| os.waits(version));
        self.state.look(wanted, Seen { said: said.as_ref(), running: &os.running, boot: &boot, waits, now_ms })
    }

    /// A note that could not be written costs a fetch after a restart.
    fn save(&self) {
        let written = fs::create_dir_all(&self.dir).and_then(|()| write_private(&self.dir, STATE, &self.state.bytes()));
        if let Err(e) = written {
            log::warn!("update: {}: {e}", self.dir.display());
        }
    }
}

impl Agent {
    /// Something that may lead to an update: a new set, the hub's welcome, time, news of the first process.
    pub(super) fn look_at_system(&mut self) {
        let (wanted, now) = (self.wanted_annotation(WANTED), self.clock.mono_ms());
        let before = self.systems.state.clone();
        let early = self.systems.at_ms.filter(|at| *at > now);
        self.systems.step = self.systems.look(wanted.as_deref(), now);
        self.systems.at_ms = match self.systems.step {
            Step::Underway(_) => Some(now + LOOK_MS),
            Step::Fetch => early,
            _ => None,
        };
        if self.systems.step == Step::Runs && before.handed().is_some() {
            let version = wanted.clone().unwrap_or_default();
            self.say_update(false, "OsUpdated", format!("version {version} of Limpet OS runs, and has stayed up"));
        }
        if let Some(wanted) = wanted.filter(|_| self.systems.step == Step::Fetch) {
            let same = self.systems.state.refused().is_some_and(|r| r.version == wanted);
            if !(same && early.is_some()) {
                self.begin_system(wanted);
            }
        }
        self.tell_system_news();
        if self.systems.state != before {
            self.systems.save();
        }
    }

    pub(super) fn wants_another_system(&self) -> bool {
        self.systems.os.is_some() && matches!(self.systems.step, Step::Fetch)
    }

    fn begin_system(&mut self, wanted: String) {
        let free = self.systems.busy.is_none() && !self.updating.leaves() && self.update_lock().is_none();
        let Some(os) = self.systems.os.clone().filter(|_| free && self.sync.welcomed()) else { return };
        if self.link_holds(Traffic::Updates).is_some() {
            return;
        }
        self.say_update(false, "OsUpdating", format!("fetching version {wanted} of Limpet OS"));
        let ask = Ask { os, wanted: wanted.clone(), key: self.identity.borrow().answer.update_key.clone() };
        self.systems.busy = Some(wanted.clone());
        let (images, tell) = (self.hands.images.clone(), self.systems.tell.clone());
        tokio::task::spawn_local(async move {
            let outcome = fetch(&images, &ask).await.map(|()| wanted.clone());
            let _ = tell.send(outcome.map_err(|e| (wanted, e))).await;
        });
    }

    pub(super) fn system_fetched(&mut self, outcome: Outcome) {
        self.systems.busy = None;
        match outcome {
            // Somebody may have changed their mind meanwhile, or hold it back now.
            Ok(version) if self.wanted_annotation(WANTED).as_ref() == Some(&version) && self.update_lock().is_none() => {
                self.hand_over(&version);
            }
            Ok(_) => self.systems.os.iter().for_each(Os::clean),
            Err((version, Failed::Never(why))) => self.refuse_system(&version, why, false),
            Err((version, Failed::Later(why))) => self.refuse_system(&version, why, true),
        }
        self.look_at_update();
    }

    /// File first, note second: without the note it is fetched once more, without the file it would count as tried.
    fn hand_over(&mut self, version: &str) {
        let Some(os) = &self.systems.os else { return };
        let (put, boot) = (os.put(version), os.boot());
        match put {
            Ok(()) => {
                self.systems.state.hand(version, &boot);
                self.systems.save();
                self.say_update(false, "OsUpdating", format!("version {version} of Limpet OS is here; the board installs it and restarts"));
            }
            Err(why) => self.refuse_system(version, why, true),
        }
    }

    fn refuse_system(&mut self, version: &str, why: String, again: bool) {
        self.systems.at_ms = again.then(|| self.clock.mono_ms() + AGAIN_MS);
        self.systems.state.refuse(version, why, (false, again));
        self.systems.save();
    }

    fn tell_system_news(&mut self) {
        let Some(refused) = self.systems.state.news() else { return };
        let (version, why) = (&refused.version, &refused.why);
        let (reason, text) = match refused.ran {
            true => ("OsRolledBack", format!("version {version} of Limpet OS was left: {why}")),
            false => ("OsUpdateRefused", format!("version {version} of Limpet OS is not taken: {why}")),
        };
        self.say_update(true, reason, text);
    }

    pub(super) fn system_condition(&self) -> Option<OwnCondition> {
        let wanted = self.wanted_annotation(WANTED)?;
        let refused = self.systems.state.refused().filter(|r| r.version == wanted);
        let locked = || self.update_lock().map(|who| ("Locked", format!("held back by {who}")));
        let held = || self.link_holds(Traffic::Updates).map(|why| ("HeldByLinkPolicy", why));
        let wrong = || refused.map(|r| (if r.ran { "RolledBack" } else { "Refused" }, r.why.clone()));
        let waits = || ("Updating", WAITS.to_string());
        let (reason, message) = match (&self.systems.busy, &self.systems.step) {
            (Some(version), _) if *version == wanted => ("Updating", COMES.into()),
            (_, Step::Runs) => ("AsWanted", "runs".into()),
            (_, Step::Underway(how)) => ("Updating", (*how).into()),
            (_, Step::Nothing) => return None,
            (_, Step::Refused) => wrong().unwrap_or_else(waits),
            (_, Step::Fetch) => locked().or_else(held).or_else(wrong).unwrap_or_else(waits),
        };
        let holds = self.systems.step == Step::Runs;
        Some(OwnCondition { kind: CONDITION, holds, reason, message: format!("{wanted}: {message}") })
    }
}
