//! New resources of a pod that runs (KEP-1287): whether the node has room, then container by container.
//!
//! In: what the manifest wants now, what the node has left, what the runtime answers. Out: actions, conditions, Events.
//! Never: gives one container its new size before the whole pod fits; a size that does not fit waits and is tried again.

use super::{
    Action,
    backoff::Backoff,
    container::{Container, Cx, Role, State},
    events::Kind,
    pod::{Goal, LivePod},
};
use crate::{
    api::{self, Pod, PodSpec, Resources},
    plan::{self, Requests},
};
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc};

/// Why the manifest's sizes are not the pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// `Deferred` (later perhaps) or `Infeasible` (never on this node).
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug)]
pub(super) struct Resize {
    pub pending: Option<Pending>,
    pub error: Option<String>,
    /// Containers are on their way to their new size.
    under_way: bool,
    again_at: u64,
    wait: Backoff,
}

impl Default for Resize {
    fn default() -> Resize {
        Resize { pending: None, error: None, under_way: false, again_at: 0, wait: Backoff::new(1000, 60_000) }
    }
}

impl Resize {
    pub fn in_progress(&self) -> bool {
        self.under_way
    }
}

/// What a pod asks the node for.
pub(super) fn requests_of(pod: &LivePod) -> Requests {
    plan::requests(&pod.sized())
}

fn wanted<'a>(object: &'a Pod, name: &str) -> Option<&'a Resources> {
    object.spec.init_containers.iter().chain(&object.spec.containers).find(|c| c.name == name).map(|c| &c.resources)
}

impl LivePod {
    /// The manifest with the sizes that the containers were given.
    fn sized(&self) -> Cow<'_, PodSpec> {
        let spec = &self.facts.object.spec;
        let given = |c: &Arc<api::Container>| self.containers.iter().find(|k| *k.name == *c.name).map(|k| &k.spec);
        let mut all = spec.containers.iter().chain(&spec.init_containers);
        if all.all(|c| given(c).is_none_or(|given| given.resources == c.resources)) {
            return Cow::Borrowed(spec);
        }
        let mut spec = spec.clone();
        for c in spec.containers.iter_mut().chain(&mut spec.init_containers) {
            if let Some(given) = given(c) {
                Arc::make_mut(c).resources = given.resources.clone();
            }
        }
        Cow::Owned(spec)
    }

    /// The manifest names other sizes than the pod was given.
    pub fn wants_resize(&self) -> bool {
        let differs = |c: &Container| wanted(&self.facts.object, &c.name).is_some_and(|r| *r != c.spec.resources);
        self.goal == Goal::Run && self.containers.iter().any(differs)
    }

    /// Gives the pod its new sizes when they fit. `free`: what the node has for this pod, its present share included.
    pub fn try_resize(&mut self, free: Requests, cx: &mut Cx<'_>) {
        let asked = plan::requests(&self.facts.object.spec);
        let all = Requests { cpu_milli: cx.host.allocatable_cpu_milli, memory_bytes: cx.host.allocatable_memory_bytes };
        let lacks = |room: Requests| asked.first_beyond(room);
        let pending = match (lacks(all), lacks(free)) {
            (Some((name, asked, capacity)), _) => Some(Pending {
                reason: "Infeasible",
                message: format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"),
            }),
            (None, Some((name, asked, free))) => Some(Pending {
                reason: "Deferred",
                message: format!("Node didn't have enough resource: {name}, requested: {asked}, available: {free}"),
            }),
            (None, None) => None,
        };
        if let Some(now) = &pending
            && self.resize.pending.as_ref().is_none_or(|before| before.reason != now.reason)
        {
            let reason = format!("Resize{}", now.reason);
            let words = self.resize_words(now.reason, Some(&now.message));
            self.facts.event(cx, None, Kind::Warning, &reason, &words);
        }
        let fits = pending.is_none();
        self.resize.pending = pending;
        if !fits {
            return;
        }
        for c in &mut self.containers {
            if let Some(new) = wanted(&self.facts.object, &c.name) {
                c.give(new);
            }
        }
        (self.resize.error, self.resize.again_at) = (None, 0);
        let words = self.resize_words("started", None);
        self.facts.event(cx, None, Kind::Normal, "ResizeStarted", &words);
        self.resize.under_way = true;
    }

    /// Brings running containers to the sizes that they were given.
    pub fn drive_resize(&mut self, cx: &mut Cx<'_>) {
        if self.goal != Goal::Run {
            return;
        }
        let differs = |c: &Container| *c.actual() != c.spec.resources;
        if !self.resize.under_way && !self.containers.iter().any(differs) {
            return;
        }
        let grace = self.grace();
        let pod = self.sized().into_owned();
        let mut open = false;
        for c in &mut self.containers {
            if !differs(c) || !matches!(c.state, State::Running(_)) {
                open |= differs(c) && c.alive();
                continue;
            }
            open = true;
            if c.resize_needs_restart() {
                c.must_restart = true;
                let message = format!("Container {} resize requires restart", c.name);
                c.stop(&self.facts, grace, &message, cx);
            } else if !c.resizing && self.resize.again_at <= cx.now.mono_ms {
                c.resizing = true;
                cx.out.push_back(Action::Resize {
                    at: c.at(&self.facts.uid),
                    container: plan::container_resources(&pod, &c.spec, cx.host),
                    pod: plan::pod_resources(&pod),
                });
            }
        }
        if self.resize.under_way && !open {
            self.resize.under_way = false;
            let words = self.resize_words("completed", None);
            self.facts.event(cx, None, Kind::Normal, "ResizeCompleted", &words);
        }
    }

    /// The runtime has set new limits, or why not.
    pub fn resized(&mut self, name: &str, attempt: u32, error: Option<String>, cx: &mut Cx<'_>) {
        let same = |c: &&mut Container| *c.name == *name && c.running().is_some_and(|r| r.attempt == attempt);
        let Some(c) = self.containers.iter_mut().find(same) else { return };
        if !std::mem::take(&mut c.resizing) {
            return;
        }
        match error {
            None => {
                c.is_given();
                self.resize.error = None;
                self.resize.wait.reset();
            }
            Some(why) => {
                if self.resize.error.as_ref() != Some(&why) {
                    let words = self.resize_words("error", Some(&why));
                    self.facts.event(cx, None, Kind::Warning, "ResizeError", &words);
                }
                self.resize.error = Some(why);
                self.resize.again_at = self.resize.wait.fail(cx.now.mono_ms);
            }
        }
    }

    /// When a size that could not be set is tried again.
    pub fn resize_wake(&self) -> Option<(u64, &'static str)> {
        self.resize.error.as_ref().map(|_| (self.resize.again_at, "resize a container again"))
    }

    fn resize_words(&self, what: &str, error: Option<&str>) -> String {
        let containers: Vec<Value> = self
            .containers
            .iter()
            .filter(|c| matches!(c.role, Role::Main | Role::Sidecar))
            .filter_map(|c| {
                let r = wanted(&self.facts.object, &c.name)?;
                Some(json!({"name": &*c.name, "resources": super::shown::Shown::from(r)}))
            })
            .collect();
        let mut facts = json!({"containers": containers, "generation": self.facts.object.metadata.generation});
        if let Some(error) = error {
            facts["error"] = error.into();
        }
        format!("Pod resize {what}: {facts}")
    }
}

impl Container {
    /// A resource changed whose policy says so.
    fn resize_needs_restart(&self) -> bool {
        let (old, new) = (self.actual(), &self.spec.resources);
        self.spec.resize_policy.iter().filter(|p| p.restart_policy == "RestartContainer").any(|p| {
            let name = &p.resource_name;
            old.limits.get(name) != new.limits.get(name) || old.requests.get(name) != new.requests.get(name)
        })
    }
}
