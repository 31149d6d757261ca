//! One container of a pod: its states, from the image to the end, again and again.
//!
//! In: inputs about this container, and `drive` whenever it may proceed. Out: actions through the context.
//! Never: decides when it is its turn; that is the pod's.

use super::{
    Action, ContainerRef, ImageError, ProbeKind, RanAs, Terminated, Uid,
    backoff::Backoff,
    events::{Kind, Recorder, Subject},
    policy::{After, after},
    probe::Prober,
    status::waits_for,
    stop::StopStep,
    volume_images::MissingImage,
};
use crate::{
    api::{self, Pod, RestartPolicy},
    clock::Now,
    plan::{self, Context, EnvFiles, HostFacts, ImageFacts},
    sync::Items,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Kubernetes gives a postStart hook all the time in the world; the end of its container ends it.
pub(super) const HOOK_MS_MAX: u64 = 24 * 3600 * 1000;

/// How long before a container whose configuration was refused is tried again without a change of the set.
pub(super) const CONFIG_AGAIN_MS: u64 = 20_000;
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// So long it is told why a start came to nothing, before the next one or the waiting for it: about when a kubelet looks again.
pub(super) const FAULT_SHOWN_MS: u64 = 1000;

/// Everything a step may read, and where its actions go.
pub(super) struct Cx<'a> {
    pub now: Now,
    pub items: &'a Items,
    pub host: &'a HostFacts,
    pub out: &'a mut VecDeque<Action>,
    pub events: &'a mut Recorder,
}

/// The pod as its containers see it.
#[derive(Debug)]
pub(super) struct Facts {
    pub uid: Uid,
    pub object: Pod,
    pub ips: Vec<String>,
    /// Ids of the containers that run, by name: an ephemeral one may join the processes of another.
    pub ids: BTreeMap<String, String>,
    /// Of a volume.
    pub missing_image: Option<Box<MissingImage>>,
}

impl Facts {
    pub fn event(&self, cx: &mut Cx<'_>, path: Option<String>, kind: Kind, reason: &str, message: &str) {
        let meta = &self.object.metadata;
        let subject =
            Subject { uid: &self.uid, namespace: &meta.namespace, name: &meta.name, field_path: path };
        cx.events.record(cx.now, &cx.host.node_name, subject, kind, reason, message, cx.out);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
    /// Added to a running pod (`kubectl debug`); runs once.
    Ephemeral,
}

#[derive(Debug)]
pub(super) enum State {
    /// Nothing is under way for the next attempt.
    Idle,
    /// The image store was asked.
    Pulling,
    /// The image cannot be had; tried again at `until`. The error itself is shown first, then the waiting.
    PullFailed { until: u64, error: ImageError, message: String, shown_until: Option<u64> },
    /// The image is there; waits for its turn, the sandbox and the volumes.
    Pulled,
    /// The shell was asked for files that variables are in.
    Reading,
    /// `CreateContainerConfigError` or `CreateContainerError`; tried again at `until`.
    Refused { until: u64, reason: &'static str, message: String },
    /// The runtime was asked.
    Starting { attempt: u32 },
    Running(Running),
    Stopping { running: Running, step: StopStep },
    /// `ended` says how; `at` is when, on the monotonic clock.
    Ended { at: u64 },
    /// CrashLoopBackOff.
    Crashed { until: u64, delay_ms: u64 },
}

/// Why a start came to nothing, in a kubelet's words.
#[derive(Debug)]
pub(super) struct Fault {
    pub reason: &'static str,
    pub message: String,
    /// Set once it has ended.
    pub shown_until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub attempt: u32,
    pub started_ms: u64,
    pub hook_done: bool,
}

#[derive(Debug)]
pub(super) struct Container {
    pub name: Arc<str>,
    pub spec: Arc<api::Container>,
    pub role: Role,
    pub state: State,
    /// From its arrival to the start of the attempt that wants it.
    pub image: Option<Box<ImageFacts>>,
    /// What the newest image names.
    pub image_stop_signal: Option<Box<str>>,
    /// What was read for the attempt that is to start.
    pub env_files: Option<EnvFiles>,
    /// How its image came, until that is told: right before what came of it, so that containers are told of in their order.
    pub pulled: Option<Box<str>>,
    /// Why the download of the image waits.
    pub held: Option<String>,
    /// Why it waited when the next try began: shown until it runs, as kubelet does, or it would come and go with each try.
    pub waited: Option<Box<(String, String)>>,
    /// Of the newest attempt, until the next one is made.
    pub fault: Option<Box<Fault>>,
    /// The newest attempt that was started.
    pub attempt: Option<u32>,
    pub started_ms: u64,
    /// How the newest attempt ended.
    pub ended: Option<Terminated>,
    /// How the one before ended.
    pub last: Option<Terminated>,
    pub image_id: Box<str>,
    /// The name of its image, when that is not written as in the pod.
    pub image_name: Box<str>,
    /// Who an attempt runs as.
    pub ran_as: Option<(u32, RanAs)>,
    pub started: bool,
    pub ready: bool,
    /// Whether the pod had it proceed when it was looked at last: else no time that passes changes anything.
    pub proceeds: bool,
    /// When it is stopped: whether those that must end before it have ended.
    pub turn: bool,
    /// The sizes that the running attempt has, when they are not `spec.resources`, those that it was given.
    pub(super) actual: Option<Box<api::Resources>>,
    pub resizing: bool,
    /// It was stopped to begin again, whatever its policy says.
    pub must_restart: bool,
    pub probers: Vec<Prober>,
    restart: Backoff,
    pub(super) pull_wait: Backoff,
}

impl Container {
    /// `restart`: the first and the longest wait of CrashLoopBackOff.
    pub fn new(spec: Arc<api::Container>, role: Role, restart: Backoff) -> Container {
        Container {
            name: Arc::from(spec.name.as_str()),
            actual: None,
            resizing: false,
            must_restart: false,
            spec,
            role,
            state: State::Idle,
            image: None,
            image_stop_signal: None,
            env_files: None,
            pulled: None,
            held: None,
            waited: None,
            fault: None,
            attempt: None,
            started_ms: 0,
            ended: None,
            last: None,
            image_id: "".into(),
            image_name: "".into(),
            ran_as: None,
            started: false,
            ready: false,
            proceeds: false,
            turn: true,
            probers: Vec::new(),
            restart,
            pull_wait: Backoff::kubelet(),
        }
    }

    pub fn at(&self, uid: &Uid) -> ContainerRef {
        ContainerRef { uid: uid.clone(), container: self.name.clone(), attempt: self.attempt.unwrap_or(0) }
    }

    pub fn field_path(&self) -> Option<String> {
        let list = match self.role {
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
            Role::Init | Role::Sidecar => "initContainers",
        };
        Some(format!("spec.{list}{{{}}}", self.name))
    }

    pub fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) | State::Stopping { running, .. } => Some(running),
            _ => None,
        }
    }

    /// Whether something of it may still live.
    pub fn alive(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Stopping { .. } | State::Starting { .. })
    }

    /// Exit code, once this attempt is over.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            State::Ended { .. } | State::Crashed { .. } => self.ended.as_ref().map(|e| e.code),
            _ => None,
        }
    }

    /// What its end means, once it has ended.
    pub fn after(&self, policy: RestartPolicy) -> After {
        if self.must_restart {
            return After::Restart;
        }
        after(self.role, &self.spec, policy, self.ended.as_ref().map_or(0, |e| e.code))
    }

    pub fn wants_restart(&self, policy: RestartPolicy) -> bool {
        self.after(policy) != After::Rest
    }

    /// Between its turn and the end of its postStart hook: those behind it wait.
    pub fn launching(&self) -> bool {
        match &self.state {
            State::Idle | State::Pulling | State::Pulled | State::Reading | State::Starting { .. } => true,
            State::Running(running) => !running.hook_done,
            _ => false,
        }
    }

    /// Proceeds towards running. Called when it is this container's turn.
    pub fn drive(&mut self, pod: &Facts, prepared: bool, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ms;
        self.proceeds = true;
        if let State::PullFailed { until, .. } | State::Refused { until, .. } | State::Crashed { until, .. } = &self.state
            && *until <= now
        {
            self.waited = waits_for(self, pod);
        }
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.state = match state {
            State::Idle => self.pull(pod, cx),
            State::PullFailed { until, .. } if until <= now => self.pull(pod, cx),
            State::PullFailed { until, error, message, shown_until: Some(at) } if at <= now => {
                self.back_off_pull(pod, cx, until, error, message)
            }
            State::Refused { until, .. } if until <= now => self.pull(pod, cx),
            State::Refused { message, .. } if self.has_found_target(pod, &message) => self.pull(pod, cx),
            State::Pulled if prepared => self.start(pod, cx),
            State::Ended { at } if self.wants_restart(pod.object.spec.restart_policy) => {
                match self.fault.as_ref().is_some_and(|fault| now < fault.shown_until) {
                    true => State::Ended { at },
                    false => self.restart(pod, at, cx),
                }
            }
            State::Crashed { until, .. } if until <= now => {
                self.restart.next(until, now);
                self.pull(pod, cx)
            }
            other => other,
        };
        if matches!(self.state, State::Pulled) && prepared {
            self.state = self.start(pod, cx);
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused { .. })
    }

    /// It is told to be another one: what the one before did is no reason to wait.
    pub fn wait_for_nothing(&mut self) {
        self.restart.reset();
        self.pull_wait.reset();
        if let State::Crashed { until, .. } = &mut self.state {
            *until = 0;
        }
    }

    /// The set changed: what was refused for its configuration may be right now.
    pub fn retry_refused(&mut self) {
        if let State::Refused { until, .. } = &mut self.state {
            *until = 0;
        }
    }

    /// Its pod begins again from the first init container: nothing of the last round counts but its failures.
    pub fn begin_again(&mut self, pod: &Facts, cx: &mut Cx<'_>) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.env_files = None;
        self.state = match state {
            State::Ended { at } if self.after(pod.object.spec.restart_policy) == After::RestartAll => {
                self.restart(pod, at, cx)
            }
            State::Ended { .. } => State::Idle,
            other => other,
        };
        self.judge();
    }

    fn restart(&mut self, pod: &Facts, ended_at: u64, cx: &mut Cx<'_>) -> State {
        let now = cx.now.mono_ms;
        self.fault = None;
        match self.restart.wait(ended_at) {
            Some((until, delay_ms)) if until > now => {
                let m = &pod.object.metadata;
                let message = format!(
                    "Back-off restarting failed container {} in pod {}_{}({})",
                    self.name, m.name, m.namespace, m.uid
                );
                pod.event(cx, self.field_path(), Kind::Warning, "BackOff", &message);
                State::Crashed { until, delay_ms }
            }
            _ => {
                self.restart.next(ended_at, now);
                self.pull(pod, cx)
            }
        }
    }

    fn start(&mut self, pod: &Facts, cx: &mut Cx<'_>) -> State {
        if let Some(reading) = self.ask_files(pod, cx) {
            return reading;
        }
        let env_files = &self.env_files.take().unwrap_or_default();
        let image = self.image.as_deref().cloned().unwrap_or_default();
        let attempt = self.attempt.map_or(0, |n| n.saturating_add(1));
        let pid_of = match self.target(pod) {
            Ok(id) => id,
            Err(message) => return self.refuse_config(pod, message, cx),
        };
        let context = Context { pod: &pod.object, host: cx.host, pod_ips: &pod.ips, env_files };
        match plan::container(&context, cx.items, &self.spec, &image, attempt) {
            Ok(mut plan) => {
                plan.pid_of = pid_of;
                if self.attempt.is_some() {
                    cx.out.push_back(Action::RemoveContainer { at: self.at(&pod.uid) });
                }
                cx.out.push_back(Action::StartContainer { uid: pod.uid.clone(), plan: Box::new(plan) });
                State::Starting { attempt }
            }
            Err(message) => self.refuse_config(pod, message, cx),
        }
    }

    /// It runs, and its postStart hook is over: before that, a kubelet does not say so.
    pub fn shows_running(&self) -> bool {
        self.running().is_some_and(|running| running.hook_done)
    }

    /// Enters `Running` with fresh probes.
    pub fn begin(&mut self, attempt: u32, started_ms: u64, mono_ms: u64) {
        self.attempt = Some(attempt);
        self.started_ms = started_ms;
        (self.resizing, self.must_restart, self.waited, self.fault) = (false, false, None, None);
        let hook_done = self.spec.lifecycle.post_start.is_none();
        self.state = State::Running(Running { attempt, started_ms, hook_done });
        self.probers.clear();
        let spec = &self.spec;
        let probes = [
            (ProbeKind::Startup, &spec.startup_probe),
            (ProbeKind::Liveness, &spec.liveness_probe),
            (ProbeKind::Readiness, &spec.readiness_probe),
        ];
        let probed = matches!(self.role, Role::Main | Role::Sidecar);
        let probes = probes.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_deref().filter(|_| probed)?)));
        self.probers.reserve_exact(probes.clone().count());
        self.probers.extend(probes.map(|(kind, probe)| Prober::new(kind, probe, spec, mono_ms)));
        self.judge();
    }

    /// It was running before this agent was: goes on where it was. `noted`: whether it had started up and was ready; who has no
    /// note of it takes both for granted until a probe says otherwise.
    pub fn adopt(&mut self, attempt: u32, started_ms: u64, now: Now, noted: Option<(bool, bool)>) {
        let ran_ms = now.wall_ms.saturating_sub(started_ms);
        self.begin(attempt, started_ms, now.mono_ms.saturating_sub(ran_ms));
        if let State::Running(running) = &mut self.state {
            running.hook_done = true;
        }
        let (started, ready) = noted.unwrap_or((true, true));
        self.probers.retain(|p| p.kind != ProbeKind::Startup || !started);
        for prober in self.probers.iter_mut().filter(|p| p.kind == ProbeKind::Readiness) {
            prober.result = ready.then_some(true);
        }
        self.judge();
    }

    /// The sizes that the running attempt has.
    pub fn actual(&self) -> &api::Resources {
        self.actual.as_deref().unwrap_or(&self.spec.resources)
    }

    /// It is to have other sizes; the running attempt still has the ones before.
    pub fn give(&mut self, sizes: &api::Resources) {
        let spec = Arc::make_mut(&mut self.spec);
        let before = std::mem::replace(&mut spec.resources, sizes.clone());
        self.actual.get_or_insert_with(|| Box::new(before));
    }

    /// The running attempt has the sizes that it was given.
    pub fn is_given(&mut self) {
        self.actual = None;
    }

    /// The running attempt is to get other limits: its own, or those that it has of its pod.
    pub fn awaits_sizes(&self) -> bool {
        self.actual.is_some()
    }

    /// Works out `started` and `ready` from the state and the probes.
    pub fn judge(&mut self) {
        let result = |kind| self.probers.iter().find(|p| p.kind == kind).map(|p| p.result);
        let (up, hook_done) = match &self.state {
            State::Running(r) => (true, r.hook_done),
            State::Stopping { running, .. } => (true, running.hook_done),
            _ => (false, false),
        };
        self.started = up && hook_done && result(ProbeKind::Startup).is_none_or(|r| r == Some(true));
        self.ready = match self.role {
            Role::Init => self.ended.as_ref().is_some_and(|e| e.code == 0) && !up,
            Role::Ephemeral => false,
            _ => self.started && result(ProbeKind::Readiness).is_none_or(|r| r == Some(true)),
        };
    }

    pub fn next_timer(&self) -> Option<(u64, &'static str)> {
        match &self.state {
            State::Stopping { step, .. } => Some((step.next_at(), "stop a container")),
            _ if !self.proceeds => None,
            State::PullFailed { until, shown_until, .. } => {
                Some((shown_until.unwrap_or(*until), "pull an image again"))
            }
            State::Refused { until, .. } => Some((*until, "create a container again")),
            State::Crashed { until, .. } => Some((*until, "restart a container")),
            State::Ended { .. } => self.fault.as_ref().map(|fault| (fault.shown_until, "say why a start came to nothing")),
            _ => None,
        }
    }
}
