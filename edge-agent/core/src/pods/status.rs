//! A pod's v1 PodStatus, as kubelet would write it.
//!
//! In: the pod's state. Out: JSON. The rules for phase and conditions are kubelet's.
//! Never: a time that changes without the thing it dates.

use super::{
    image::HELD,
    Terminated,
    container::{Container, Facts, Role, State},
    pod::{Goal, LivePod, Step, Teardown},
};
use crate::{
    api::{Quantity, Resources},
    clock::{Now, rfc3339},
    plan::{HostFacts, container_id, qos},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Since when each condition has its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<(&'static str, bool, u64)>);

impl Conditions {
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
    let mut status = Map::new();
    if let Some(generation) = pod.facts.object.metadata.generation {
        status.insert("observedGeneration".into(), generation.into());
    }
    status.insert("phase".into(), phase.into());
    if let Some(terminal) = pod.terminal.as_ref().filter(|t| !t.reason.is_empty()) {
        status.insert("reason".into(), terminal.reason.clone().into());
        status.insert("message".into(), terminal.message.clone().into());
    }
    status.insert("conditions".into(), conditions(pod, dated, phase, now));
    let address = |ips: &[String]| -> Vec<Value> { ips.iter().map(|ip| json!({"ip": ip})).collect() };
    if let Some(first) = host.ips.first() {
        status.insert("hostIP".into(), first.clone().into());
        status.insert("hostIPs".into(), address(&host.ips).into());
    }
    if let Some(first) = pod.facts.ips.first() {
        status.insert("podIP".into(), first.clone().into());
        status.insert("podIPs".into(), address(&pod.facts.ips).into());
    }
    status.insert("startTime".into(), rfc3339(pod.start_ms).into());
    status.insert("qosClass".into(), qos(&pod.facts.object.spec).name().into());
    let before = |c: &Container| matches!(c.role, Role::Init | Role::Sidecar);
    let waiting = if !pod.initialized && pod.containers.iter().any(before) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let render = |c: &Container| container_status(c, &pod.facts, waiting);
    let init: Vec<Value> = pod.containers.iter().filter(|c| before(c)).map(render).collect();
    if !init.is_empty() {
        status.insert("initContainerStatuses".into(), init.into());
    }
    let ephemeral = pod.containers.iter().filter(|c| c.role == Role::Ephemeral);
    let ephemeral: Vec<Value> = ephemeral.map(|c| container_status(c, &pod.facts, "ContainerCreating")).collect();
    if !ephemeral.is_empty() {
        status.insert("ephemeralContainerStatuses".into(), ephemeral.into());
    }
    let mut mains: Vec<&Container> = pod.containers.iter().filter(|c| c.role == Role::Main).collect();
    mains.sort_by(|a, b| a.name.cmp(&b.name));
    status.insert("containerStatuses".into(), mains.into_iter().map(render).collect::<Vec<_>>().into());
    Value::Object(status).to_string().into_bytes()
}

fn phase(pod: &LivePod) -> &'static str {
    if let Some(terminal) = &pod.terminal {
        let settled = pod.containers.iter().all(|c| !c.alive());
        if settled {
            return if terminal.succeeded { "Succeeded" } else { "Failed" };
        }
    }
    let mains = || pod.containers.iter().filter(|c| c.role == Role::Main);
    let dead = |c: &Container| c.ended.is_some() && !c.alive();
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
        if c.running().is_some() {
            running += 1;
        } else if dead(c) {
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

fn conditions(pod: &LivePod, dated: &mut Conditions, phase: &str, now: Now) -> Value {
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
    if let Some(evicted) = pod.evicted() {
        all.push(("DisruptionTarget", (true, "TerminationByKubelet", evicted.message.clone())));
    }
    dated.keep(&all.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let mut out = Vec::with_capacity(all.len());
    for (name, (value, reason, message)) in all {
        let at = if name == "PodScheduled" { pod.start_ms } else { now.wall_ms };
        let since = dated.set(name, value, at);
        let mut condition = json!({
            "type": name, "status": if value { "True" } else { "False" },
            "lastProbeTime": null, "lastTransitionTime": rfc3339(since),
        });
        if let Some(generation) = generation {
            condition["observedGeneration"] = generation.into();
        }
        if !reason.is_empty() {
            condition["reason"] = reason.into();
        }
        if !message.is_empty() {
            condition["message"] = message.into();
        }
        out.push(condition);
    }
    out.into()
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

fn container_status(c: &Container, pod: &Facts, waiting: &str) -> Value {
    let (state, last) = states(c, pod, waiting);
    let shown = c.attempt.filter(|_| c.running().is_some() || c.ended.is_some());
    let mut status = json!({
        "name": &*c.name, "image": c.spec.image, "imageID": &*c.image_id,
        "ready": c.ready, "restartCount": c.attempt.unwrap_or(0),
        "state": state, "lastState": last.map_or(json!({}), |l| json!({"terminated": terminated(l)})),
    });
    if c.role != Role::Ephemeral {
        status["started"] = c.started.into();
    }
    if let Some(signal) = c.spec.lifecycle.stop_signal.as_ref().filter(|_| c.running().is_some()) {
        status["stopSignal"] = signal.clone().into();
    }
    if let Some(attempt) = shown {
        status["containerID"] = format!("limpet://{}", container_id(&pod.uid, &c.name, attempt)).into();
    }
    if let Some((attempt, user)) = &c.ran_as
        && shown == Some(*attempt)
    {
        // The primary group is among them, as a runtime of Kubernetes' own interface says it.
        let mut groups: Vec<u32> = user.groups.iter().copied().chain([user.gid]).collect();
        groups.sort_unstable();
        groups.dedup();
        status["user"] = json!({"linux": {"uid": user.uid, "gid": user.gid, "supplementalGroups": groups}});
    }
    if c.running().is_some() {
        if !c.spec.resources.requests.is_empty() {
            status["allocatedResources"] = quantities(&c.spec.resources.requests);
        }
        status["resources"] = resources(c.actual());
    }
    if !c.spec.volume_mounts.is_empty() {
        let mounts = c.spec.volume_mounts.iter().map(|m| {
            let mut mount = json!({"name": m.name, "mountPath": m.mount_path});
            if m.read_only {
                mount["readOnly"] = true.into();
                mount["recursiveReadOnly"] = if m.recurses() { "Enabled" } else { "Disabled" }.into();
            }
            mount
        });
        status["volumeMounts"] = mounts.collect::<Vec<_>>().into();
    }
    status
}

fn quantities(map: &BTreeMap<String, Quantity>) -> Value {
    map.iter().map(|(k, v)| (k.clone(), Value::from(v.text()))).collect::<Map<_, _>>().into()
}

/// v1 ResourceRequirements.
pub(super) fn resources(r: &Resources) -> Value {
    let mut value = Map::new();
    for (key, map) in [("limits", &r.limits), ("requests", &r.requests)] {
        if !map.is_empty() {
            value.insert(key.into(), quantities(map));
        }
    }
    value.into()
}

fn states<'a>(c: &'a Container, pod: &Facts, waiting: &str) -> (Value, Option<&'a Terminated>) {
    let wait = |reason: &str, message: &str| {
        let mut state = json!({"waiting": {"reason": reason}});
        if !message.is_empty() {
            state["waiting"]["message"] = message.into();
        }
        state
    };
    let ended = c.ended.as_ref();
    match &c.state {
        State::Running(r) | State::Stopping { running: r, .. } => {
            (json!({"running": {"startedAt": rfc3339(r.started_ms)}}), c.last.as_ref())
        }
        State::Idle | State::Pulling | State::Pulled | State::Reading | State::Starting { .. } | State::Ended { .. } => {
            match ended {
                Some(e) => (json!({"terminated": terminated(e)}), c.last.as_ref()),
                None => match c.held.as_deref().filter(|_| matches!(c.state, State::Pulling)) {
                    Some(message) => (wait(HELD, message), c.last.as_ref()),
                    None => (wait(waiting, ""), c.last.as_ref()),
                },
            }
        }
        State::PullFailed { error, message, shown_until: Some(_), .. } => (wait(error.reason(), message), ended),
        State::PullFailed { error, message, .. } => match error {
            _ if error.is_of_registry() => {
                let text = format!("Back-off pulling image \"{}\": {}: {message}", c.spec.image, error.reason());
                (wait("ImagePullBackOff", &text), ended)
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
            (wait("CrashLoopBackOff", &text), ended)
        }
    }
}

fn terminated(t: &Terminated) -> Value {
    let mut value = json!({
        "exitCode": t.code, "reason": t.reason, "startedAt": rfc3339(t.started_ms),
        "finishedAt": rfc3339(t.finished_ms), "containerID": format!("limpet://{}", t.id),
    });
    if !t.message.is_empty() {
        value["message"] = t.message.clone().into();
    }
    value
}

/// `10s`, `1m20s`, `5m0s`.
fn minutes(ms: u64) -> String {
    let s = ms / 1000;
    if s < 60 { format!("{s}s") } else { format!("{}m{}s", s / 60, s % 60) }
}
