//! One pod: what is prepared, whose turn it is, when it is over.
//!
//! In: inputs about this pod. Out: actions through the context, and a status.
//! `sync` may be called at any time: it looks at what is, and does the next thing that is missing.

use super::{
    Action, PodMemory, Terminal, Uid, mark,
    backoff::Backoff,
    container::{Container, Cx, Facts, Role, State},
    events::Kind,
    policy::After,
    resize::Resize,
    status::Conditions,
};
use crate::{
    api::{self, Pod},
    clock::Now,
    plan::{self, HostFacts},
    volumes,
};
use limpet_protocol::{ItemHash, ItemKey};
use std::{collections::BTreeMap, sync::Arc};

pub(super) const EVICTED: &str = "Evicted";
const REJECTED: &str = "Pod was rejected: ";
/// As kubelet's for hard thresholds and limits of storage.
const EVICTION_GRACE_SECONDS: i64 = 1;
/// Something the shell makes for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Missing,
    Asked,
    Ready,
    /// Tried again at this time.
    Failed { until: u64 },
}

/// Why a pod stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Run,
    /// Another pod of its name, from an older file, is still here: it begins when that is gone.
    Wait,
    /// It has its last phase; the object stays.
    Finish,
    /// The object is being deleted: ends with `PodGone`.
    Delete,
    /// It is no longer in the set: ends in nothing.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teardown {
    None,
    /// The sandbox is being released (Finish).
    Sandbox,
    SandboxDone,
    /// Everything is being removed (Delete, Remove).
    All,
    Gone,
}

#[derive(Debug)]
pub(super) struct LivePod {
    pub facts: Facts,
    pub goal: Goal,
    pub volumes: Step,
    pub sandbox: Step,
    pub teardown: Teardown,
    pub containers: Vec<Container>,
    pub initialized: bool,
    pub start_ms: u64,
    /// When this machine began, on the monotonic clock.
    pub(super) since_ms: u64,
    pub terminal: Option<Terminal>,
    /// The hub says that the pod has ended, and nothing is known of it here: there is nothing to report.
    pub hearsay: bool,
    /// Everything is being stopped in order to begin again.
    pub(super) beginning_again: bool,
    pub resize: Resize,
    pub conditions: Conditions,
    /// Of the status that was reported last.
    pub reported: Option<u64>,
    /// Of the record that the journal has.
    pub(super) remembered: Option<u64>,
    /// The record of the agent before this one said so.
    pub(super) was_initialized: bool,
    /// Whether the node has looked at it and taken it.
    pub(super) admitted: bool,
    /// How long it had been active then.
    used_ms: u64,
    /// Of what the agent after this one is told.
    pub(super) noted: Option<u64>,
    pub(super) volume_backoff: Backoff,
    pub(super) sandbox_backoff: Backoff,
    /// Of what the files of its volumes show.
    pub(super) volume_hashes: Vec<(Box<str>, ItemHash)>,
}

impl LivePod {
    pub fn new(uid: Uid, object: Pod, memory: Option<PodMemory>, host: &HostFacts, now: Now) -> LivePod {
        let containers = containers_of(&object, host);
        let start_ms = memory.as_ref().map_or(now.wall_ms, |m| m.start_ms);
        let mut pod = LivePod {
            facts: Facts { uid, object, ips: Vec::new(), ids: BTreeMap::new(), missing_image: None },
            goal: Goal::Run,
            volumes: Step::Missing,
            sandbox: Step::Missing,
            teardown: Teardown::None,
            containers,
            initialized: false,
            start_ms,
            since_ms: now.mono_ms,
            terminal: None,
            hearsay: false,
            beginning_again: false,
            resize: Resize::default(),
            conditions: Conditions::default(),
            reported: None,
            remembered: None,
            was_initialized: false,
            admitted: false,
            used_ms: now.wall_ms.saturating_sub(start_ms),
            noted: None,
            volume_backoff: Backoff::new(1000, 120_000),
            sandbox_backoff: Backoff::new(1000, 60_000),
            volume_hashes: Vec::new(),
        };
        if let Some(memory) = memory {
            pod.remember_back(memory, now);
        }
        pod
    }

    /// A newer version of the same pod object.
    pub fn update(&mut self, object: Pod, cx: &mut Cx<'_>) {
        let images: BTreeMap<String, String> =
            object.spec.all_containers().map(|c| (c.name.clone(), c.image.clone())).collect();
        let whole = std::mem::replace(&mut self.facts.object, object).spec.resources;
        self.keep_whole(whole);
        self.share_containers();
        self.add_ephemeral(cx.host);
        let grace = self.grace();
        for c in &mut self.containers {
            let Some(image) = images.get(&*c.name).filter(|i| **i != c.spec.image) else { continue };
            Arc::make_mut(&mut c.spec).image = image.clone();
            c.wait_for_nothing();
            // Whatever its policy says of ends.
            c.must_restart |= matches!(c.state, State::Running(_));
            let message = match c.role {
                Role::Sidecar => format!("Init container {} definition changed", c.name),
                _ => format!("Container {} definition changed, will be restarted", c.name),
            };
            c.stop(&self.facts, grace, &message, cx);
            if matches!(c.state, State::Pulled | State::Reading | State::PullFailed { .. } | State::Refused { .. }) {
                c.state = State::Idle;
            }
        }
        self.refresh_volumes(cx);
    }

    /// What has not changed is held once.
    fn share_containers(&mut self) {
        for c in &mut self.containers {
            let same = self.facts.object.spec.shared_containers().find(|new| ***new == *c.spec);
            if let Some(new) = same {
                c.spec = new.clone();
            }
        }
    }

    /// Ephemeral containers only ever come.
    fn add_ephemeral(&mut self, host: &HostFacts) {
        for spec in &self.facts.object.spec.ephemeral_containers {
            if !self.containers.iter().any(|c| *c.name == *spec.name) {
                self.containers.push(Container::new(spec.clone(), Role::Ephemeral, Backoff::restart(host)));
            }
        }
    }

    /// There is no room for it, or it may not be here: it ends before it begins.
    pub fn refuse(&mut self, refusal: Terminal, cx: &mut Cx<'_>) {
        let said = refusal.message.trim_start_matches(REJECTED);
        self.facts.event(cx, None, Kind::Warning, &refusal.reason, said);
        self.terminal = Some(refusal);
    }

    pub fn deleting(&self) -> bool {
        self.facts.object.metadata.deletion_timestamp.is_some()
    }

    /// The pod fails at once and for good; its controller makes another, elsewhere.
    pub fn evict(&mut self, message: &str, cx: &mut Cx<'_>) {
        if self.terminal.is_none() && self.goal == Goal::Run {
            self.facts.event(cx, None, Kind::Warning, EVICTED, message);
            self.terminal = Some(Terminal { succeeded: false, reason: EVICTED.into(), message: message.into() });
        }
    }

    /// It was not let in: there is nothing of it to show.
    pub fn was_rejected(&self) -> bool {
        self.terminal.as_ref().is_some_and(|t| t.message.starts_with(REJECTED))
    }

    /// It was here and had to go; one that was not let in has the same reason.
    pub fn evicted(&self) -> Option<&Terminal> {
        self.terminal.as_ref().filter(|t| t.reason == EVICTED && !self.was_rejected())
    }

    /// Seconds that containers have to end.
    pub fn grace(&self) -> i64 {
        if self.evicted().is_some() && !self.deleting() {
            return EVICTION_GRACE_SECONDS;
        }
        let spec = self.facts.object.spec.termination_grace_period_seconds.unwrap_or(30);
        match self.facts.object.metadata.deletion_grace_period_seconds {
            Some(grace) if self.deleting() => grace,
            _ => spec,
        }
    }

    /// When its `activeDeadlineSeconds` are over. By the monotonic clock: a board may be told the time while a pod runs.
    fn deadline(&self) -> Option<u64> {
        let seconds = self.facts.object.spec.active_deadline_seconds?;
        let ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        Some(self.since_ms.saturating_add(ms.saturating_sub(self.used_ms)))
    }

    /// Keys of the set changed: refused configurations and volumes are tried again, files are refreshed.
    /// Whether the pod has to be looked at again.
    pub fn set_changed(&mut self, keys: &[ItemKey], cx: &mut Cx<'_>) -> bool {
        let ours = |k: &&ItemKey| {
            k.namespace == self.facts.object.metadata.namespace || volumes::reads(&self.facts.object, k)
        };
        if !keys.iter().any(|k| ours(&k)) {
            return false;
        }
        let waits = self.volumes != Step::Ready || self.containers.iter().any(Container::is_refused);
        self.containers.iter_mut().for_each(Container::retry_refused);
        if let Step::Failed { until } = &mut self.volumes {
            *until = 0;
        }
        let reads = keys.iter().any(|k| volumes::reads(&self.facts.object, k));
        if reads {
            self.refresh_volumes(cx);
        }
        waits || reads
    }

    /// Does the next thing that is missing.
    pub fn sync(&mut self, cx: &mut Cx<'_>) {
        self.choose_goal(cx);
        self.containers.iter_mut().for_each(|c| c.proceeds = false);
        match self.goal {
            Goal::Wait => {}
            Goal::Run => {
                self.prepare(cx);
                if !self.begin_again(cx) {
                    self.advance(cx);
                }
                self.drive_resize(cx);
            }
            Goal::Finish | Goal::Delete | Goal::Remove => self.wind_down(cx),
        }
        for c in &mut self.containers {
            c.step_stop(&self.facts, cx);
            c.run_probes(&self.facts, cx);
        }
    }

    fn choose_goal(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.goal, Goal::Remove | Goal::Wait) {
            return;
        }
        if self.deleting() {
            self.goal = Goal::Delete;
            return;
        }
        if !std::mem::replace(&mut self.admitted, true) {
            self.admit(cx);
        }
        let late = self.deadline().is_some_and(|at| at <= cx.now.mono_ms);
        if late && self.terminal.is_none() && self.finished().is_none() {
            let message = "Pod was active on the node longer than the specified deadline";
            self.facts.event(cx, None, Kind::Normal, "DeadlineExceeded", message);
            self.terminal = Some(Terminal {
                succeeded: false,
                reason: "DeadlineExceeded".into(),
                message: message.into(),
            });
        }
        if self.terminal.is_none() {
            self.terminal = self.finished().or_else(|| self.told());
        }
        if self.terminal.is_some() {
            self.goal = Goal::Finish;
        }
    }

    /// The node looks at it for the first time: takes it or not, and says what it cannot do for it.
    fn admit(&mut self, cx: &mut Cx<'_>) {
        if let Some(refusal) = super::admit::refused(&self.facts.object, cx.host) {
            self.refuse(refusal, cx);
            return;
        }
        for words in super::admit::without_effect(&self.facts.object.spec) {
            self.facts.event(cx, None, Kind::Warning, "FieldWithoutEffect", &words);
        }
    }

    /// The hub holds the pod for ended: another controller said so, or this board has forgotten it.
    fn told(&mut self) -> Option<Terminal> {
        let status = &self.facts.object.status;
        let succeeded = match status.phase.as_str() {
            "Succeeded" => true,
            "Failed" => false,
            _ => return None,
        };
        self.hearsay = self.containers.iter().all(|c| c.attempt.is_none());
        Some(Terminal { succeeded, reason: status.reason.clone(), message: status.message.clone() })
    }

    /// Whether others must count it. The hub does not once its last container has ended, though it is still here to be removed.
    pub fn takes_room(&self) -> bool {
        let goes = self.deleting() || matches!(self.goal, Goal::Delete | Goal::Remove);
        self.terminal.is_none() && (!goes || self.containers.iter().any(Container::alive))
    }

    /// The last phase, once no container will run again.
    fn finished(&self) -> Option<Terminal> {
        let policy = self.facts.object.spec.restart_policy;
        let terminal = |succeeded| Some(Terminal { succeeded, ..Terminal::default() });
        let over = |c: &Container| matches!(c.state, State::Ended { .. }) && !c.wants_restart(policy);
        let failed = |c: &Container| over(c) && c.exit_code().is_some_and(|code| code != 0);
        if self.containers.iter().any(|c| c.role == Role::Init && failed(c)) {
            return terminal(false);
        }
        let mut mains = self.containers.iter().filter(|c| c.role == Role::Main).peekable();
        mains.peek()?;
        if !mains.clone().all(over) {
            return None;
        }
        terminal(mains.all(|c| c.exit_code() == Some(0)))
    }

    /// `RestartAllContainers`: stops what runs, then has everything begin again, init containers included. True while
    /// something still has to end.
    fn begin_again(&mut self, cx: &mut Cx<'_>) -> bool {
        let policy = self.facts.object.spec.restart_policy;
        let cause = |c: &Container| matches!(c.state, State::Ended { .. }) && c.after(policy) == After::RestartAll;
        self.beginning_again |= self.containers.iter().any(cause);
        if !self.beginning_again {
            return false;
        }
        let ours = |c: &&mut Container| c.role != Role::Ephemeral;
        for c in &mut self.containers {
            let message = format!("Stopping container {}", c.name);
            // Without preStop hooks, as on a kubelet.
            c.stop(&self.facts, 0, &message, cx);
        }
        if self.containers.iter().any(Container::alive) {
            return true;
        }
        for c in self.containers.iter_mut().filter(ours) {
            c.begin_again(&self.facts, cx);
        }
        (self.initialized, self.beginning_again) = (false, false);
        false
    }

    /// Init containers one by one, then all others; sidecars for as long as there are others.
    fn advance(&mut self, cx: &mut Cx<'_>) {
        let prepared = self.volumes == Step::Ready && self.sandbox == Step::Ready;
        let initialized = self.initialized;
        let mut open = true;
        // A container starts when the one before it has started and its postStart hook is done.
        let mut clear = true;
        let mut ids = BTreeMap::new();
        for c in &mut self.containers {
            if let (Some(running), true) = (c.running(), c.role != Role::Ephemeral) {
                let id = plan::container_id(&self.facts.uid, &c.name, running.attempt);
                ids.insert(c.name.to_string(), id);
            }
            match c.role {
                Role::Init if initialized => {}
                Role::Init => {
                    if open {
                        c.drive(&self.facts, prepared, cx);
                    }
                    open &= c.exit_code() == Some(0);
                }
                Role::Sidecar => {
                    if open || initialized {
                        c.drive(&self.facts, prepared, cx);
                    }
                    open &= c.started;
                }
                Role::Main if open || initialized => {
                    c.drive(&self.facts, prepared && clear, cx);
                    clear &= !c.launching();
                }
                Role::Main => {}
                // Also while an init container fails: that is what one wants to look into.
                Role::Ephemeral => {
                    self.facts.ids = ids.clone();
                    c.drive(&self.facts, prepared, cx);
                }
            }
        }
        self.initialized |= open && prepared;
    }

    /// Stops what runs, then releases what the goal says. All are told at once; a sidecar gets its signal when the
    /// containers and the sidecars behind it have ended.
    fn wind_down(&mut self, cx: &mut Cx<'_>) {
        // A hook has a second at the least.
        let grace = self.grace().max(1);
        let mut others = self.containers.iter().any(|c| c.role != Role::Sidecar && c.alive());
        for c in self.containers.iter_mut().rev() {
            c.turn = c.role != Role::Sidecar || !others;
            let message = format!("Stopping container {}", c.name);
            c.stop(&self.facts, grace, &message, cx);
            others |= c.alive();
        }
        let busy = self.volumes == Step::Asked || self.sandbox == Step::Asked;
        if busy || self.containers.iter().any(Container::alive) {
            return;
        }
        let uid = self.facts.uid.clone();
        match (self.goal, self.teardown) {
            (Goal::Finish, Teardown::None) => {
                self.teardown = Teardown::Sandbox;
                cx.out.push_back(Action::RemoveSandbox { uid });
            }
            (Goal::Delete | Goal::Remove, Teardown::None | Teardown::SandboxDone) => {
                self.teardown = Teardown::All;
                cx.out.push_back(Action::RemovePod { uid });
            }
            _ => {}
        }
    }

    /// Whether a status is another than the one that was reported last; it counts as reported then.
    pub fn is_news(&mut self, status: &[u8]) -> bool {
        let mark = Some(mark(&status));
        std::mem::replace(&mut self.reported, mark) != mark
    }

    /// The image that the manifest names for a container.
    pub fn spec_image(&self, name: &str) -> &str {
        let mut all = self.facts.object.spec.all_containers();
        all.find(|c| c.name == name).map_or("", |c| &c.image)
    }

    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        let failed = |step: Step, why| match step {
            Step::Failed { until } => Some((until, why)),
            _ => None,
        };
        let own = [
            failed(self.volumes, "mount volumes again"),
            failed(self.sandbox, "create a sandbox again"),
            self.facts.missing_image.as_ref().and_then(|m| m.shown_until).map(|at| (at, "an image that did not come")),
            self.deadline().map(|at| (at, "a pod's deadline")),
            self.resize_wake(),
        ];
        let own = own.into_iter().filter(|_| self.goal == Goal::Run);
        let timers = self.containers.iter().flat_map(|c| [c.next_timer(), c.next_probe()]);
        own.chain(timers).flatten().min()
    }
}

fn containers_of(object: &Pod, host: &HostFacts) -> Vec<Container> {
    let spec = &object.spec;
    let role = |c: &Arc<api::Container>| if c.is_restartable_init() { Role::Sidecar } else { Role::Init };
    let init = spec.init_containers.iter().map(|c| (c, role(c)));
    let main = spec.containers.iter().map(|c| (c, Role::Main));
    let ephemeral = spec.ephemeral_containers.iter().map(|c| (c, Role::Ephemeral));
    let all = init.chain(main).chain(ephemeral);
    all.map(|(c, role)| Container::new(c.clone(), role, Backoff::restart(host))).collect()
}
