//! New resources of a pod that runs (KEP-1287): whether the node has room, then container by container.
//!
//! In: what the manifest wants now, of containers and of the pod as a whole (KEP-5419), what the node has left, what the runtime
//! answers. Out: actions, conditions, Events. The pod's own group is made wide first and gets its limits last, as a kernel takes
//! no group that is narrower than one in it.
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
    /// What the node had for the pod when it was looked at.
    pub free: Requests,
}

/// How far the pod's own group is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Group {
    /// It has its limits.
    #[default]
    Fine,
    /// Before anything else it gets room for what the containers have and for what they are given.
    Narrow,
    /// That has been asked of the runtime.
    Widening,
    /// It has that room: containers change.
    Wide,
    /// All containers have their sizes: its own limits have been asked of the runtime.
    Closing,
}

#[derive(Debug)]
pub(super) struct Resize {
    pub pending: Option<Pending>,
    pub error: Option<String>,
    /// What the manifest says of the pod as a whole, when that is not what the pod was given. The facts have the latter.
    wanted: Option<Box<Resources>>,
    /// What the group has of the pod as a whole, when that is not what the pod was given.
    actual: Option<Box<Resources>>,
    group: Group,
    /// The agent before this one had not come to the end.
    unfinished: bool,
    again_at: u64,
    wait: Backoff,
}

impl Default for Resize {
    fn default() -> Resize {
        let wait = Backoff::new(1000, 60_000);
        let (group, unfinished) = (Group::Fine, false);
        Resize { pending: None, error: None, wanted: None, actual: None, group, unfinished, again_at: 0, wait }
    }
}

impl Resize {
    pub fn in_progress(&self) -> bool {
        self.group != Group::Fine
    }

    /// The journal says that the last agent was at it.
    pub fn remember_back(&mut self, resizing: bool) {
        self.unfinished = resizing;
    }

    /// The pod's group is there as the last agent left it, perhaps wide.
    pub fn adopt(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            self.group = Group::Narrow;
        }
    }

    /// What the pod has as a whole. `spec`: with what it was given.
    pub fn actual<'a>(&'a self, spec: &'a PodSpec) -> &'a Resources {
        self.actual.as_deref().unwrap_or(&spec.resources)
    }

    pub fn whole_to_remember<'a>(&'a self, spec: &'a PodSpec) -> Option<&'a Resources> {
        let manifest = self.wanted.as_deref().unwrap_or(&spec.resources);
        Some(self.actual(spec)).filter(|actual| *actual != manifest)
    }
}

/// What a pod asks the node for.
pub(super) fn requests_of(pod: &LivePod) -> Requests {
    plan::requests(&pod.with_sizes(|c| &c.spec.resources, &pod.facts.object.spec.resources))
}

fn wanted<'a>(object: &'a Pod, name: &str) -> Option<&'a Resources> {
    object.spec.all_containers().find(|c| c.name == name).map(|c| &c.resources)
}

impl LivePod {
    /// The manifest with these sizes of the containers and of the pod as a whole.
    fn with_sizes<'a>(&'a self, of: impl Fn(&'a Container) -> &'a Resources, whole: &Resources) -> Cow<'a, PodSpec> {
        let spec = &self.facts.object.spec;
        let sizes = |c: &api::Container| self.containers.iter().find(|k| *k.name == *c.name).map(&of);
        if spec.resources == *whole && spec.all_containers().all(|c| sizes(c).is_none_or(|r| *r == c.resources)) {
            return Cow::Borrowed(spec);
        }
        let mut spec = PodSpec { resources: whole.clone(), ..spec.clone() };
        for c in spec.containers.iter_mut().chain(&mut spec.init_containers) {
            if let Some(sizes) = sizes(c) {
                Arc::make_mut(c).resources = sizes.clone();
            }
        }
        Cow::Owned(spec)
    }

    /// A newer manifest is here: until there is room for what it says, the pod has as a whole what it had.
    pub fn keep_whole(&mut self, had: Resources) {
        let wanted = std::mem::replace(&mut self.facts.object.spec.resources, had);
        self.resize.wanted = (wanted != self.facts.object.spec.resources).then(|| Box::new(wanted));
    }

    /// The manifest names other sizes than the pod was given.
    pub fn wants_resize(&self) -> bool {
        let differs = |c: &Container| wanted(&self.facts.object, &c.name).is_some_and(|r| *r != c.spec.resources);
        self.goal == Goal::Run && (self.resize.wanted.is_some() || self.containers.iter().any(differs))
    }

    /// Gives the pod its new sizes when they fit. `free`: what the node has for this pod, its present share included.
    pub fn try_resize(&mut self, free: Requests, cx: &mut Cx<'_>) {
        let manifest = self.resize.wanted.as_deref().unwrap_or(&self.facts.object.spec.resources);
        let asked = plan::requests(&PodSpec { resources: manifest.clone(), ..self.facts.object.spec.clone() });
        let all = Requests { cpu_milli: cx.host.allocatable_cpu_milli, memory_bytes: cx.host.allocatable_memory_bytes };
        let lacks = |room: Requests| asked.first_beyond(room);
        let pending = match (lacks(all), lacks(free)) {
            (Some((name, asked, capacity)), _) => Some(Pending {
                reason: "Infeasible",
                message: format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"),
                free,
            }),
            (None, Some((name, asked, left))) => Some(Pending {
                reason: "Deferred",
                message: format!("Node didn't have enough resource: {name}, requested: {asked}, available: {left}"),
                free,
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
        // What is just being started has been told its old sizes.
        let starts = self.containers.iter().any(|c| matches!(c.state, State::Starting { .. }));
        if !fits || starts {
            return;
        }
        self.give();
        (self.resize.error, self.resize.again_at) = (None, 0);
        let words = self.resize_words("started", None);
        self.facts.event(cx, None, Kind::Normal, "ResizeStarted", &words);
        self.resize.group = Group::Narrow;
    }

    /// From now on the pod and its containers are to have what the manifest says.
    fn give(&mut self) {
        let mut had = None;
        if let Some(wanted) = self.resize.wanted.take() {
            had = Some(std::mem::replace(&mut self.facts.object.spec.resources, *wanted));
        }
        let object = &self.facts.object;
        let whole = &object.spec.resources;
        for c in &mut self.containers {
            let Some(new) = wanted(object, &c.name) else { continue };
            let before = plan::limits(had.as_ref().unwrap_or(whole), &c.spec.resources);
            if *new != c.spec.resources || plan::limits(whole, new) != before {
                c.wait_for_nothing();
                c.give(new);
            }
        }
        if let Some(had) = had {
            self.resize.actual.get_or_insert_with(|| Box::new(had));
        }
    }

    /// Brings the pod's group and running containers to the sizes that they were given.
    pub fn drive_resize(&mut self, cx: &mut Cx<'_>) {
        if self.goal != Goal::Run || self.resize.group == Group::Fine {
            return;
        }
        let due = self.resize.again_at <= cx.now.mono_ms;
        let gets = self.with_sizes(|c| &c.spec.resources, &self.facts.object.spec.resources).into_owned();
        if self.resize.group == Group::Narrow && due {
            let had = self.with_sizes(Container::actual, self.resize.actual(&self.facts.object.spec));
            let room = plan::pod_resources(&had).or_more(&plan::pod_resources(&gets));
            self.resize_group(room, false, cx);
            self.resize.group = Group::Widening;
        }
        if self.resize.group != Group::Wide {
            return;
        }
        let grace = self.grace();
        let had = self.resize.actual(&self.facts.object.spec);
        let mut open = false;
        for c in self.containers.iter_mut().filter(|c| c.awaits_sizes()) {
            open |= c.alive();
            if !matches!(c.state, State::Running(_)) {
                continue;
            }
            if c.resize_needs_restart(had, &gets.resources) {
                c.must_restart = true;
                let message = format!("Container {} resize requires restart", c.name);
                c.stop(&self.facts, grace, &message, cx);
            } else if !c.resizing && due {
                c.resizing = true;
                let resources = plan::container_resources(&gets, &c.spec, cx.host);
                cx.out.push_back(Action::Resize { at: c.at(&self.facts.uid), resources });
            }
        }
        if !open && due {
            self.resize_group(plan::pod_resources(&gets), true, cx);
            self.resize.group = Group::Closing;
        }
    }

    fn resize_group(&self, resources: plan::PodResources, last: bool, cx: &mut Cx<'_>) {
        cx.out.push_back(Action::ResizePod { uid: self.facts.uid.clone(), resources, last });
    }

    /// The runtime has set new limits of the pod's group, or why not.
    pub fn group_resized(&mut self, last: bool, error: Option<String>, cx: &mut Cx<'_>) {
        match (error, last, self.resize.group) {
            (None, true, Group::Closing) => {
                (self.resize.group, self.resize.actual, self.resize.error) = (Group::Fine, None, None);
                self.resize.wait.reset();
                let words = self.resize_words("completed", None);
                self.facts.event(cx, None, Kind::Normal, "ResizeCompleted", &words);
            }
            (Some(why), true, Group::Closing) => {
                self.resize.group = Group::Wide;
                self.resize_failed(why, cx);
            }
            (None, false, Group::Widening) => self.resize.group = Group::Wide,
            (Some(why), false, Group::Widening) => {
                self.resize.group = Group::Narrow;
                self.resize_failed(why, cx);
            }
            // Of a resize that was overtaken by another one.
            _ => {}
        }
    }

    /// The runtime has set new limits of a container, or why not.
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
            Some(why) => self.resize_failed(why, cx),
        }
    }

    fn resize_failed(&mut self, why: String, cx: &mut Cx<'_>) {
        if self.resize.error.as_ref() != Some(&why) {
            let words = self.resize_words("error", Some(&why));
            self.facts.event(cx, None, Kind::Warning, "ResizeError", &words);
        }
        self.resize.error = Some(why);
        self.resize.again_at = self.resize.wait.fail(cx.now.mono_ms);
    }

    /// When a size that could not be set is tried again.
    pub fn resize_wake(&self) -> Option<(u64, &'static str)> {
        self.resize.error.as_ref().map(|_| (self.resize.again_at, "resize a pod again"))
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
        let whole = self.resize.wanted.as_deref().unwrap_or(&self.facts.object.spec.resources);
        if *whole != Resources::default() {
            facts["resources"] = json!(super::shown::Shown::from(whole));
        }
        if let Some(error) = error {
            facts["error"] = error.into();
        }
        format!("Pod resize {what}: {facts}")
    }
}

impl Container {
    /// A resource changed whose policy says so; a limit also when it is the pod's, which counts where the container has none.
    fn resize_needs_restart(&self, pod_had: &Resources, pod_gets: &Resources) -> bool {
        let (old, new) = (self.actual(), &self.spec.resources);
        let (had, gets) = (plan::limits(pod_had, old), plan::limits(pod_gets, new));
        self.spec.resize_policy.iter().filter(|p| p.restart_policy == "RestartContainer").any(|p| {
            let name = &p.resource_name;
            let limit = if name == "cpu" { had.0 != gets.0 } else { had.1 != gets.1 };
            limit || old.requests.get(name) != new.requests.get(name)
        })
    }
}
