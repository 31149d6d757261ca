//! A pod's v1 PodStatus, as kubelet would write it.
//!
//! In: the pod's state. Out: JSON, written at once (`shown`): it is asked for after every event of a pod. The rules for phase and
//! conditions are kubelet's.
//! Never: a time that changes without the thing it dates.

use super::{
    Terminated,
    container::{Container, Facts, Role, State},
    image::{self, HELD},
    pod::{Goal, LivePod, Step, Teardown},
    shown,
};
use crate::{
    clock::{Now, rfc3339},
    plan::{HostFacts, container_id, qos},
};
use std::borrow::Cow;

/// All termination messages of a pod, shared evenly among its containers.
const MESSAGES_BYTES_MAX: usize = 12 * 1024;
const RESTARTING: &str = "AllContainersRestarting";
/// What a node says of its pods.
const KINDS: [&str; 9] = [
    "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "PodResizePending",
    "PodResizeInProgress", RESTARTING, "DisruptionTarget",
];

/// Since when each condition has its value.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Conditions(Vec<(&'static str, bool, u64)>);

impl Conditions {
    pub fn noted(&self) -> Vec<(String, bool, u64)> {
        self.0.iter().map(|(name, value, since)| (name.to_string(), *value, *since)).collect()
    }

    pub fn of_note(note: &[(String, bool, u64)]) -> Conditions {
        let known = |(name, value, since): &(String, bool, u64)| {
            Some((*KINDS.iter().find(|kind| *kind == name)?, *value, *since))
        };
        Conditions(note.iter().filter_map(known).collect())
    }

    /// What is no longer said is forgotten: said again, it is dated anew.
    fn keep(&mut self, names: &[&'static str]) {
        self.0.retain(|(name, ..)| names.contains(name));
        self.0.reserve_exact(names.len() - self.0.len());
    }

    fn set(&mut self, name: &'static str, value: bool, now_ms: u64) -> u64 {
        let Some(known) = self.0.iter_mut().find(|(known, ..)| *known == name) else {
            self.0.push((name, value, now_ms));
            return now_ms;
        };
        if known.1 != value {
            *known = (name, value, now_ms);
        }
        known.2
    }
}

pub(super) fn pod_status(pod: &mut LivePod, host: &HostFacts, now: Now) -> Vec<u8> {
    let mut dated = std::mem::take(&mut pod.conditions);
    let status = rendered(pod, &mut dated, host, now);
    pod.conditions = dated;
    status
}

/// What was reported last: with nothing changed since, it comes out the same.
pub(super) fn status_again(pod: &LivePod, host: &HostFacts, now: Now) -> Vec<u8> {
    rendered(pod, &mut pod.conditions.clone(), host, now)
}

fn rendered(pod: &LivePod, dated: &mut Conditions, host: &HostFacts, now: Now) -> Vec<u8> {
    let phase = phase(pod);
    let conditions = conditions(pod, dated, phase, now);
    // Why it ended is said when it has.
    let terminal = pod.terminal.as_ref().filter(|t| !t.reason.is_empty() && has_settled(pod));
    let (waiting, unseen) = (waits(pod), ended_unseen(pod));
    let rejected = pod.was_rejected();
    let host_ips: &[String] = if rejected { &[] } else { &host.ips };
    let of = |c: &&Container, role: Role| c.role == role && !rejected;
    let mut mains: Vec<&Container> = pod.containers.iter().filter(|c| of(c, Role::Main)).collect();
    mains.sort_by(|a, b| a.name.cmp(&b.name));
    let init = pod.containers.iter().filter(|c| is_before(c) && !rejected);
    let ephemeral = pod.containers.iter().filter(|c| of(c, Role::Ephemeral));
    // Only of pods that ask for something as a whole: others are the sum of their containers.
    let spec = &pod.facts.object.spec;
    let asks = !(spec.resources.limits.is_empty() && spec.resources.requests.is_empty());
    let whole = Some(spec).filter(|_| asks && pod.terminal.is_none());
    let status = shown::Status {
        allocated_resources: whole.map(|spec| &spec.resources.requests),
        conditions,
        container_statuses: mains.into_iter().map(|c| container_status(c, &pod.facts, waiting, unseen)).collect(),
        ephemeral_container_statuses: ephemeral.map(|c| container_status(c, &pod.facts, waiting, false)).collect(),
        host_ip: host_ips.first().map(String::as_str),
        host_ips: addresses(host_ips),
        init_container_statuses: init.map(|c| container_status(c, &pod.facts, waiting, false)).collect(),
        message: terminal.map(|t| t.message.as_str()),
        observed_generation: pod.facts.object.metadata.generation,
        phase,
        pod_ip: pod.facts.ips.first().map(String::as_str),
        pod_ips: addresses(&pod.facts.ips),
        qos_class: qos(&pod.facts.object.spec).name(),
        reason: terminal.map(|t| t.reason.as_str()),
        resources: whole.map(|spec| shown::Shown::from(pod.resize.actual(spec))),
        start_time: rfc3339(pod.start_ms),
    };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&status).unwrap_or_default()
}

fn is_before(c: &Container) -> bool {
    matches!(c.role, Role::Init | Role::Sidecar)
}

/// It is over, and had come so far that its containers were to run: what never ran is not waited for any more
/// (`TerminatePod` of kubelet's status manager).
fn ended_unseen(pod: &LivePod) -> bool {
    pod.terminal.is_some() && pod.initialized && has_settled(pod)
}

/// What a container waits for of which nothing else is known.
fn waits(pod: &LivePod) -> &'static str {
    if pod.containers.iter().any(is_before) { "PodInitializing" } else { "ContainerCreating" }
}

/// The attempt whose log is meant, by what the status shows; the refusals are kubelet's (`validateContainerLogStatus`).
pub(super) fn logged(pod: &LivePod, c: &Container, previous: bool) -> Result<u32, String> {
    let waiting = if c.role == Role::Ephemeral { "ContainerCreating" } else { waits(pod) };
    let shown = states(c, &pod.facts, waiting).0.waiting;
    let this = format!("container \"{}\" in pod \"{}\"", c.name, pod.facts.object.metadata.name);
    match (c.attempt, shown) {
        // It has ended and the next one waits: it is the newest one, and the one before.
        (Some(newest), Some(_)) => Ok(newest),
        (Some(newest), None) if !previous => Ok(newest),
        (Some(newest @ 1..), None) => Ok(newest - 1),
        _ if previous => Err(format!("previous terminated {this} not found")),
        (_, waiting) => Err(match waiting.map_or("", |waiting| waiting.reason) {
            "ErrImagePull" => format!("{this} is waiting to start: image can't be pulled"),
            "ImagePullBackOff" => format!("{this} is waiting to start: trying and failing to pull image"),
            reason => format!("{this} is waiting to start: {reason}"),
        }),
    }
}

fn addresses(ips: &[String]) -> Vec<shown::Address<'_>> {
    ips.iter().map(|ip| shown::Address { ip }).collect()
}

/// Nothing of it runs.
fn has_settled(pod: &LivePod) -> bool {
    pod.containers.iter().all(|c| !c.alive())
}

fn phase(pod: &LivePod) -> &'static str {
    if let Some(terminal) = pod.terminal.as_ref().filter(|_| has_settled(pod)) {
        return if terminal.succeeded { "Succeeded" } else { "Failed" };
    }
    let mains = || pod.containers.iter().filter(|c| c.role == Role::Main);
    // What is deleted has ended, also when nothing of it ever ran: a Job waits for that word.
    if pod.goal == Goal::Delete && matches!(pod.teardown, Teardown::All | Teardown::Gone) {
        let clean = mains().all(|c| c.ended.as_ref().is_some_and(|e| e.code == 0));
        return if clean { "Succeeded" } else { "Failed" };
    }
    if !pod.initialized {
        return "Pending";
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for c in mains() {
        if c.shows_running() {
            running += 1;
        } else if c.ended.is_some() {
            // Also while its next attempt is being started.
            stopped += 1;
            succeeded += i32::from(c.ended.as_ref().is_some_and(|e| e.code == 0));
        } else {
            waiting += 1;
        }
    }
    let policy = pod.facts.object.spec.restart_policy;
    match () {
        () if waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped == 0 => "Pending",
        // A pod is over when its sidecars are.
        () if !has_settled(pod) => "Running",
        // Those that ended are on their way to the next attempt.
        () if mains().any(|c| c.wants_restart(policy)) => "Running",
        () if stopped == succeeded => "Succeeded",
        () => "Failed",
    }
}

/// What the condition Ready says.
pub(super) fn is_ready(pod: &LivePod) -> bool {
    let counts = |c: &Container| matches!(c.role, Role::Main | Role::Sidecar);
    let all = pod.containers.iter().all(|c| c.ready || !counts(c));
    pod.terminal.is_none() && pod.initialized && all && shut_gates(pod).is_empty()
}

fn conditions(pod: &LivePod, dated: &mut Conditions, phase: &str, now: Now) -> Vec<shown::Condition<'static>> {
    let generation = pod.facts.object.metadata.generation;
    let list = |names: &[String]| format!("[{}]", names.join(" "));
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let counts = |c: &&Container| matches!(c.role, Role::Main | Role::Sidecar) && !c.ready;
    let not_ready: Vec<String> = pod.containers.iter().filter(counts).map(|c| c.name.to_string()).collect();
    let containers_ready = match over {
        Some(reason) => (false, reason, String::new()),
        None if not_ready.is_empty() && pod.initialized => (true, "", String::new()),
        None => (false, "ContainersNotReady", format!("containers with unready status: {}", list(&not_ready))),
    };
    let ready = match (&containers_ready, shut_gates(pod)) {
        ((true, ..), shut) if !shut.is_empty() => (false, "ReadinessGatesNotReady", shut),
        (other, _) => (*other).clone(),
    };
    let has_init = pod.containers.iter().any(|c| matches!(c.role, Role::Init | Role::Sidecar));
    let initialized = match over {
        _ if !has_init || pod.initialized => (true, over.filter(|o| *o == "PodCompleted").unwrap_or(""), String::new()),
        _ => {
            let names: Vec<String> = pod
                .containers
                .iter()
                .filter(|c| match c.role {
                    Role::Init => c.exit_code() != Some(0),
                    Role::Sidecar => !c.started,
                    Role::Main | Role::Ephemeral => false,
                })
                .map(|c| c.name.to_string())
                .collect();
            (false, "ContainersNotInitialized", format!("containers with incomplete status: {}", list(&names)))
        }
    };
    let sandbox = pod.sandbox == Step::Ready && pod.teardown == Teardown::None;
    let mut all = vec![
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, "", String::new())),
    ];
    if let Some(pending) = &pod.resize.pending {
        all.push(("PodResizePending", (true, pending.reason, pending.message.clone())));
    }
    match (&pod.resize.error, pod.resize.in_progress()) {
        (Some(error), _) => all.push(("PodResizeInProgress", (true, "Error", error.clone()))),
        (None, true) => all.push(("PodResizeInProgress", (true, "", String::new()))),
        (None, false) => {}
    }
    let rules = |c: &Container| c.spec.restart_policy_rules.iter().any(|rule| rule.action == "RestartAllContainers");
    if pod.containers.iter().any(rules) {
        let words = "container exited with restart policy rule";
        all.push(match over {
            None if pod.beginning_again => (RESTARTING, (true, "RestartAllContainersStarted", words.into())),
            _ => (RESTARTING, (false, over.unwrap_or(""), String::new())),
        });
    }
    if let Some(evicted) = pod.evicted() {
        all.push(("DisruptionTarget", (true, "TerminationByKubelet", evicted.message.clone())));
    }
    dated.keep(&all.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let mut out = Vec::with_capacity(all.len());
    for (name, (value, reason, message)) in all {
        let at = if name == "PodScheduled" { pod.start_ms } else { now.wall_ms };
        let since = dated.set(name, value, at);
        out.push(shown::Condition {
            last_probe_time: (),
            last_transition_time: rfc3339(since),
            message: Cow::Owned(message),
            observed_generation: generation,
            reason,
            status: if value { "True" } else { "False" },
            type_: name,
        });
    }
    out
}

/// Why the pod is not ready although its containers are; empty when all gates are open.
fn shut_gates(pod: &LivePod) -> String {
    let object = &pod.facts.object;
    let shut = object.spec.readiness_gates.iter().filter_map(|gate| {
        let kind = &gate.condition_type;
        match object.status.conditions.iter().find(|c| c.type_ == *kind) {
            None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(c) if c.status == "True" => None,
            Some(c) => {
                Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
            }
        }
    });
    shut.collect::<Vec<_>>().join(", ")
}

/// `unseen`: what has not ended by now was never seen.
fn container_status<'a>(
    c: &'a Container,
    pod: &Facts,
    waiting: &'static str,
    unseen: bool,
) -> shown::ContainerStatus<'a> {
    let (state, last) = match &c.ended {
        Some(e) if unseen => (has_ended(terminated(e, pod)), c.last.as_ref()),
        None if unseen => (has_ended(never_seen()), None),
        _ => states(c, pod, waiting),
    };
    let runs = c.shows_running();
    let shown = c.attempt.filter(|_| runs || c.ended.is_some());
    let user = c.ran_as.as_ref().filter(|(attempt, _)| shown == Some(*attempt)).map(|(_, user)| {
        // The primary group is among them, as a runtime of Kubernetes' own interface says it.
        let mut supplemental_groups: Vec<u32> = user.groups.iter().copied().chain([user.gid]).collect();
        supplemental_groups.sort_unstable();
        supplemental_groups.dedup();
        shown::User { linux: shown::LinuxUser { gid: user.gid, supplemental_groups, uid: user.uid } }
    });
    let mounts = c.spec.volume_mounts.iter().map(|m| shown::Mount {
        mount_path: &m.mount_path,
        name: &m.name,
        read_only: m.read_only.then_some(true),
        recursive_read_only: m.read_only.then(|| if m.recurses() { "Enabled" } else { "Disabled" }),
    });
    let requests = &c.spec.resources.requests;
    shown::ContainerStatus {
        allocated_resources: Some(requests).filter(|r| runs && !r.is_empty()),
        container_id: shown.map(|attempt| format!("limpet://{}", container_id(&pod.uid, &c.name, attempt))),
        image: if c.image_name.is_empty() { &c.spec.image } else { &c.image_name },
        image_id: &c.image_id,
        last_state: last.map(|t| has_ended(terminated(t, pod))).unwrap_or_default(),
        name: &c.name,
        ready: c.ready,
        resources: runs.then(|| shown::Shown::from(c.actual())),
        restart_count: c.attempt.unwrap_or(0),
        started: (c.role != Role::Ephemeral).then_some(c.started),
        state,
        stop_signal: c.spec.lifecycle.stop_signal.as_deref().filter(|_| runs),
        user,
        volume_mounts: mounts.collect(),
    }
}

fn states<'a>(c: &'a Container, pod: &Facts, waiting: &'static str) -> (shown::State<'a>, Option<&'a Terminated>) {
    fn wait<'a>(reason: &'a str, message: impl Into<Cow<'a, str>>) -> shown::State<'a> {
        let waiting = shown::Waiting { message: message.into(), reason };
        shown::State { waiting: Some(waiting), ..shown::State::default() }
    }
    let ended = c.ended.as_ref();
    match &c.state {
        State::Running(r) | State::Stopping { running: r, .. } if r.hook_done => {
            let running = shown::Running { started_at: rfc3339(r.started_ms) };
            (shown::State { running: Some(running), ..shown::State::default() }, c.last.as_ref())
        }
        State::Idle
        | State::Pulling
        | State::Pulled
        | State::Reading
        | State::Starting { .. }
        | State::Running(_)
        | State::Stopping { .. }
        | State::Ended { .. } => {
            let before_start = matches!(c.state, State::Idle | State::Pulling | State::Pulled | State::Reading);
            let missing = pod.missing_image.as_ref().filter(|_| before_start);
            if let Some((reason, message)) = missing.and_then(|m| m.waiting(c)) {
                return (wait(reason, message), ended.or(c.last.as_ref()));
            }
            let tries = c.held.is_none() && !matches!(c.state, State::Ended { .. });
            if let Some(waited) = c.waited.as_deref().filter(|_| tries) {
                return (wait(&waited.0, waited.1.as_str()), ended.or(c.last.as_ref()));
            }
            if let (State::Ended { .. }, Some(fault)) = (&c.state, c.fault.as_deref()) {
                return (wait(fault.reason, fault.message.as_str()), ended);
            }
            match ended {
                Some(e) => (has_ended(terminated(e, pod)), c.last.as_ref()),
                None => match c.held.as_deref().filter(|_| matches!(c.state, State::Pulling)) {
                    Some(message) => (wait(HELD, message), c.last.as_ref()),
                    None => (wait(waiting, ""), c.last.as_ref()),
                },
            }
        }
        State::PullFailed { error, message, shown_until: Some(_), .. } => (wait(error.reason(), message), ended),
        State::PullFailed { error, message, .. } => match error {
            _ if error.is_of_registry() => {
                let (reason, text) = image::waits(&c.spec.image, *error, message);
                (wait(reason, text), ended)
            }
            _ => (wait(error.reason(), message), ended),
        },
        State::Refused { reason, message, .. } => (wait(reason, message), ended),
        State::Crashed { delay_ms, .. } => {
            let m = &pod.object.metadata;
            let text = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                minutes(*delay_ms),
                c.name,
                m.name,
                m.namespace,
                m.uid
            );
            (wait("CrashLoopBackOff", text), ended)
        }
    }
}

/// Reason and message of what it waits for now.
pub(super) fn waits_for(c: &Container, pod: &Facts) -> Option<Box<(String, String)>> {
    let waiting = states(c, pod, "").0.waiting?;
    Some(Box::new((waiting.reason.into(), waiting.message.into_owned())))
}

fn has_ended(ended: shown::Ended<'_>) -> shown::State<'_> {
    shown::State { terminated: Some(ended), ..shown::State::default() }
}

fn terminated<'a>(t: &'a Terminated, pod: &Facts) -> shown::Ended<'a> {
    let spec = &pod.object.spec;
    let containers = spec.containers.len() + spec.init_containers.len() + spec.ephemeral_containers.len();
    shown::Ended {
        container_id: format!("limpet://{}", t.id),
        exit_code: t.code,
        finished_at: Some(rfc3339(t.finished_ms)),
        message: start_of(&t.message, MESSAGES_BYTES_MAX / containers.max(1)),
        reason: &t.reason,
        started_at: Some(rfc3339(t.started_ms)),
    }
}

/// A container of which nothing was ever seen, when its pod is over.
fn never_seen() -> shown::Ended<'static> {
    shown::Ended {
        container_id: String::new(),
        exit_code: 137,
        finished_at: None,
        message: "The container could not be located when the pod was terminated",
        reason: "ContainerStatusUnknown",
        started_at: None,
    }
}

fn start_of(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// `10s`, `1m20s`, `5m0s`.
fn minutes(ms: u64) -> String {
    let s = ms / 1000;
    if s < 60 { format!("{s}s") } else { format!("{}m{}s", s / 60, s % 60) }
}
