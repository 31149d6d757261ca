//! Updates of this agent: what the node's object wants, and how far it is.
//!
//! In: the annotation `limpet.dev/agent-version`, the outcome of a fetch, the hub's confirmation of a report, locks. Out: a
//! staged program and the end of this process, from which the keeper starts the new one; Events; conditions of the node.
//! Never: an update while no hub is there to agree with it, or while a lock is held.

use super::{changes, state::Agent};
use crate::{
    keeper::INSTALLED,
    locks,
    update::{Ask, Failed, fetch, files},
};
use limpet_agent_core::{
    metered::Traffic,
    status::OwnCondition,
    update::{Choice, Fetched, State, WANTED, Wish},
};
use limpet_protocol::{ItemKind, release::Version};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Until a version that could not be fetched, or that the hub did not hear from, is tried again.
pub(super) const AGAIN_MS: u64 = 300_000;
const AGAIN_AFTER_TRIAL_MS: u64 = 3_600_000;

pub struct Updating {
    dir: PathBuf,
    state: State,
    /// The version that is being fetched.
    busy: Option<String>,
    tell: mpsc::Sender<Result<Fetched, Failed>>,
    pub done: mpsc::Receiver<Result<Fetched, Failed>>,
    again_at_ms: Option<u64>,
    /// The state on disk has a program that is to be started.
    staged: bool,
    /// Who holds updates of this board back, and why.
    locked: Option<String>,
}

impl Updating {
    pub fn new(data: &Path) -> Updating {
        let dir = files::dir(data);
        let state = files::load(&dir);
        if dir.exists() {
            files::clean(&dir, &state);
        }
        let (tell, done) = mpsc::channel(1);
        Updating { dir, state, busy: None, tell, done, again_at_ms: None, staged: false, locked: None }
    }

    /// As the hub is told: of the program that came over the air, or of the installed one.
    pub fn version(&self) -> String {
        self.state.version(INSTALLED).to_string()
    }

    pub fn wake_at(&self) -> Option<u64> {
        self.again_at_ms
    }

    /// Whether this process is to make room now.
    pub fn leaves(&self) -> bool {
        self.staged
    }

    fn save(&self) -> Result<(), String> {
        std::fs::create_dir_all(&self.dir)
            .and_then(|()| files::save(&self.dir, &self.state))
            .map_err(|e| format!("{}: {e}", self.dir.display()))
    }
}

impl Agent {
    fn wanted_version(&self) -> Option<String> {
        self.wanted_annotation(WANTED)
    }

    /// An annotation of the node's object.
    pub(super) fn wanted_annotation(&self, key: &str) -> Option<String> {
        let name = self.identity.borrow().answer.node_name.clone();
        let node: serde_json::Value = self.sync.items().read(ItemKind::Node, "", &name)?;
        Some(node.get("metadata")?.get("annotations")?.get(key)?.as_str()?.to_string())
    }

    /// Who holds updates of this board back, and why.
    pub(super) fn update_lock(&self) -> Option<&str> {
        self.updating.locked.as_deref()
    }

    /// A board that joined before there were updates gets the key with its next certificate: now, when one is wanted.
    pub(super) fn lacks_update_key(&self) -> bool {
        let wants = || self.wanted_version().is_some_and(|v| v != self.updating.version()) || self.wants_another_system();
        self.identity.borrow().answer.update_key.is_empty() && wants()
    }

    /// Something that may lead to an update: a new set, the hub's welcome, time.
    pub(super) fn look_at_update(&mut self) {
        self.tell_update_news();
        let wanted = self.wanted_version();
        if self.updating.state.wanted(wanted.as_deref()) && let Err(e) = self.updating.save() {
            log::warn!("update: {e}");
        }
        let now = self.clock.mono_ms();
        let early = self.updating.again_at_ms.is_some_and(|at| at > now);
        self.updating.again_at_ms = self.updating.again_at_ms.filter(|_| early);
        let idle = self.updating.busy.is_none() && !self.updating.staged && self.updating.locked.is_none();
        if let Some(wanted) = wanted.filter(|_| self.sync.welcomed() && idle) {
            let same = self.updating.state.refused().is_some_and(|r| r.version == wanted);
            if !(same && early) {
                self.begin_update(wanted);
            }
        }
        self.look_at_system();
        self.show_update();
    }

    fn begin_update(&mut self, wanted: String) {
        match self.updating.state.wish(&wanted, INSTALLED) {
            Wish::Nothing => {}
            Wish::Take(choice) => {
                self.say_update(false, "AgentUpdating", format!("going back to version {wanted} of the agent, which is here"));
                self.stage(choice);
            }
            Wish::Fetch if self.link_holds(Traffic::Updates).is_some() => {}
            Wish::Fetch => {
                if let Err(why) = Version::parse(&wanted) {
                    return self.refuse_update(wanted, why, false);
                }
                self.say_update(false, "AgentUpdating", format!("fetching version {wanted} of the agent"));
                let ask = Ask {
                    running: self.updating.version(),
                    installed: INSTALLED.into(),
                    architecture: self.facts.architecture.clone(),
                    key: self.identity.borrow().answer.update_key.clone(),
                    dir: self.updating.dir.clone(),
                    wanted: wanted.clone(),
                };
                self.updating.busy = Some(wanted);
                let (images, tell) = (self.hands.images.clone(), self.updating.tell.clone());
                tokio::task::spawn_local(async move {
                    let _ = tell.send(fetch(&images, &ask).await).await;
                });
            }
        }
    }

    pub(super) fn update_fetched(&mut self, result: Result<Fetched, Failed>) {
        let Some(wanted) = self.updating.busy.take() else { return };
        match result {
            // Somebody may have changed their mind meanwhile, or hold it back now.
            Ok(fetched)
                if self.wanted_version().as_deref() == Some(&fetched.version) && self.updating.locked.is_none() =>
            {
                self.stage(Some(fetched));
            }
            Ok(_) => self.look_at_update(),
            Err(Failed::Never(why)) => self.refuse_update(wanted, why, false),
            Err(Failed::Later(why)) => self.refuse_update(wanted, why, true),
        }
        self.show_update();
    }

    fn stage(&mut self, choice: Choice) {
        self.updating.state.stage(choice);
        match self.updating.save() {
            Ok(()) => {
                log::info!("update: version {} starts now; containers carry on", self.updating.version());
                self.updating.staged = true;
            }
            Err(why) => {
                let version = self.updating.version();
                self.updating.state = files::load(&self.updating.dir);
                self.refuse_update(version, why, true);
            }
        }
    }

    fn refuse_update(&mut self, version: String, why: String, again: bool) {
        let again_in = if again { AGAIN_MS } else { AGAIN_AFTER_TRIAL_MS };
        self.updating.again_at_ms = Some(self.clock.mono_ms() + again_in);
        let known = self.updating.state.refused().is_some_and(|r| r.version == version && r.why == why);
        if !known {
            self.updating.state.refuse(&version, why, again);
        }
        self.tell_update_news();
    }

    /// The hub has stored a report of this process.
    pub(super) fn update_heard(&mut self) {
        if self.updating.staged || !self.updating.state.confirm() {
            return;
        }
        match self.updating.save() {
            Ok(()) => {
                let version = self.updating.version();
                files::clean(&self.updating.dir, &self.updating.state);
                self.say_update(false, "AgentUpdated", format!("version {version} of the agent runs, and the hub has heard from it"));
            }
            // The trial goes on: the next report is another chance.
            Err(why) => {
                log::warn!("update: {why}");
                self.updating.state = files::load(&self.updating.dir);
            }
        }
        self.show_update();
    }

    fn tell_update_news(&mut self) {
        let Some(refused) = self.updating.state.news() else { return };
        let (version, why) = (&refused.version, &refused.why);
        if refused.ran {
            let wait = self.clock.mono_ms() + AGAIN_AFTER_TRIAL_MS;
            self.updating.again_at_ms = Some(wait);
        }
        let (reason, text) = match refused.ran {
            true => {
                let runs = self.updating.version();
                ("AgentRolledBack", format!("version {version} of the agent was left: {why}; {runs} runs"))
            }
            false => ("AgentUpdateRefused", format!("version {version} of the agent is not taken: {why}")),
        };
        self.say_update(true, reason, text);
        if let Err(e) = self.updating.save() {
            log::warn!("update: {e}");
        }
    }

    pub(super) fn say_update(&mut self, warning: bool, reason: &str, text: String) {
        match warning {
            true => log::warn!("update: {text}"),
            false => log::info!("update: {text}"),
        }
        self.say_of_node(&[(warning, reason.into(), text)]);
    }

    /// The node's conditions of its own: `AgentUpToDate`, `OsUpToDate`, locks, the link.
    pub(super) fn show_update(&mut self) {
        let others = [self.lock_condition()].into_iter().chain(self.meters.core.condition());
        let own: Vec<OwnCondition> = self.update_condition().into_iter().chain(self.system_condition()).chain(others).collect();
        if self.facts.own != own {
            self.facts.own = own;
            self.tell_node(false);
        }
    }

    /// Told always: the hub would keep the last one.
    fn lock_condition(&self) -> OwnCondition {
        let (reason, message) = match &self.updating.locked {
            Some(who) => ("Locked", who.clone()),
            None => ("NoLock", "nobody holds updates back".into()),
        };
        OwnCondition { kind: "UpdateLocked", holds: self.updating.locked.is_some(), reason, message }
    }

    /// Changes in the directory of locks.
    pub(super) fn lock_changes(&self) -> mpsc::Receiver<()> {
        let dir = locks::dir(&self.options.paths.data);
        match std::fs::create_dir_all(&dir).and_then(|()| changes::watch(&dir)) {
            Ok(changes) => changes,
            Err(e) => {
                log::error!("locks: {} is not watched, changes count at the next start: {e}", dir.display());
                mpsc::channel(1).1
            }
        }
    }

    pub(super) fn read_locks(&mut self) {
        let held = locks::held(&locks::dir(&self.options.paths.data));
        if held != self.updating.locked {
            match &held {
                Some(who) => log::info!("updates are held back by {who}"),
                None => log::info!("nobody holds updates back any more"),
            }
            self.updating.locked = held;
        }
        self.look_at_update();
    }

    fn update_condition(&self) -> Option<OwnCondition> {
        let wanted = self.wanted_version();
        let held = self.link_holds(Traffic::Updates);
        let (holds, reason, message) = match (&self.updating.busy, self.updating.state.refused()) {
            (Some(version), _) => (false, "Updating", format!("{version}: being fetched")),
            (None, _) if self.updating.state.on_trial() => {
                (false, "Updating", format!("{}: waiting for the hub to hear from it", self.updating.version()))
            }
            (None, Some(r)) if Some(&r.version) == wanted.as_ref() => {
                (false, if r.ran { "RolledBack" } else { "Refused" }, format!("{}: {}", r.version, r.why))
            }
            (None, _) if wanted.as_ref().is_some_and(|w| *w != self.updating.version()) && self.updating.locked.is_some() => {
                let who = self.updating.locked.as_deref().unwrap_or_default();
                (false, "Locked", format!("{}: held back by {who}", wanted.as_deref().unwrap_or_default()))
            }
            (None, _) if wanted.as_ref().is_some_and(|w| *w != self.updating.version()) && held.is_some() => {
                let why = held.as_deref().unwrap_or_default();
                (false, "HeldByLinkPolicy", format!("{}: {why}", wanted.as_deref().unwrap_or_default()))
            }
            _ if wanted.as_ref() == Some(&self.updating.version()) => {
                (true, "AsWanted", format!("{}: runs", self.updating.version()))
            }
            _ => return None,
        };
        Some(OwnCondition { kind: "AgentUpToDate", holds, reason, message })
    }
}
