//! A device in memory: answers actions, ends containers when asked, keeps what was reported.

use super::super::*;
use crate::{Items, Now, Record, clock};
use limpet_protocol::{Item, ItemKey, ItemKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub const START_MS: u64 = 1_795_431_600_000;

/// How a container behaves once started, and how the device misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// Ends by itself after so long with this code.
    pub exits: Option<(u64, i32)>,
    pub ignores_term: bool,
    pub start_fails: Option<StartStage>,
    pub image_fails: Option<ImageError>,
    pub hook_fails: bool,
    /// What probes find; `None` succeeds.
    pub probe_fails: Option<ProbeKind>,
    pub probes_are_not_made: bool,
    pub hook_takes_ms: u64,
    pub resize_fails: bool,
}

pub struct World {
    pub manager: PodManager,
    pub items: Items,
    pub now: Now,
    pub behave: BTreeMap<String, Behaviour>,
    pub status: BTreeMap<String, Value>,
    /// What the first container of whichever pod was reported to be, one report after the other.
    pub told: Vec<String>,
    /// Phases in the order in which they were reported.
    pub phases: Vec<String>,
    /// Uid that the last status of a pod went to.
    pub reported_to: BTreeMap<String, String>,
    pub events: Vec<(String, String)>,
    pub gone: Vec<String>,
    pub gone_uids: Vec<String>,
    pub memories: BTreeMap<String, PodMemory>,
    /// What the next agent finds, but for one that begins with the board.
    pub notes: BTreeMap<String, PodNote>,
    pub running: BTreeSet<ContainerRef>,
    /// What the runtime has on record: since when, and how it ended.
    pub records: BTreeMap<ContainerRef, (u64, Option<Exit>)>,
    pub sandboxes: BTreeSet<Uid>,
    pub log: Vec<String>,
    pub volumes: Vec<Vec<crate::volumes::VolumePlan>>,
    /// The volume whose image does not come.
    pub imageless: Option<String>,
    pub plans: Vec<crate::plan::ContainerPlan>,
    pub probes: u32,
    /// What each file of variables says.
    pub env_file: Option<String>,
    /// Limits of CPU, as the kernel has them: of pods' groups, of containers.
    pub group_quotas: BTreeMap<Uid, Option<i64>>,
    pub quotas: BTreeMap<ContainerRef, Option<i64>>,
    /// The agent is killed after so many actions: what it would do then does not happen.
    pub actions_left: Option<usize>,
    later: Vec<(u64, Input)>,
    generation: u64,
}

impl World {
    pub fn new() -> World {
        let mut world = World::blank();
        world.input(Input::Begin);
        world
    }

    pub fn blank() -> World {
        let mut world = World {
            manager: PodManager::new(),
            items: Items::default(),
            now: Now { mono_ms: 1_000_000, wall_ms: START_MS },
            behave: BTreeMap::new(),
            status: BTreeMap::new(),
            told: Vec::new(),
            phases: Vec::new(),
            reported_to: BTreeMap::new(),
            events: Vec::new(),
            gone: Vec::new(),
            gone_uids: Vec::new(),
            memories: BTreeMap::new(),
            notes: BTreeMap::new(),
            running: BTreeSet::new(),
            records: BTreeMap::new(),
            sandboxes: BTreeSet::new(),
            log: Vec::new(),
            imageless: None,
            volumes: Vec::new(),
            plans: Vec::new(),
            probes: 0,
            env_file: None,
            group_quotas: BTreeMap::new(),
            quotas: BTreeMap::new(),
            actions_left: None,
            later: Vec::new(),
            generation: 0,
        };
        let host = crate::plan::HostFacts {
            node_name: "n1".into(),
            ips: vec!["192.0.2.1".into()],
            cluster_domain: "cluster.local".into(),
            allocatable_cpu_milli: 4000,
            allocatable_memory_bytes: 1 << 30,
            no_own_users: Some("an old kernel".into()),
            ..Default::default()
        };
        world.input(Input::Host(host));
        world
    }

    pub fn put(&mut self, kind: ItemKind, name: &str, body: Value) {
        self.generation += 1;
        let key = ItemKey::new(kind, "default", name);
        let body = body.to_string().into_bytes();
        let item = Item { key: key.clone(), generation: self.generation, body: body.clone() };
        for record in self.manager.with_sizes(vec![Record::Put(item)]) {
            if let Record::Pod(memory) = record {
                self.memories.insert(memory.uid.clone(), memory);
            }
        }
        self.items.put(key.clone(), self.generation, &body);
        self.input(Input::Changed(vec![key]));
    }

    pub fn remove(&mut self, kind: ItemKind, name: &str) {
        let key = ItemKey::new(kind, "default", name);
        self.items.remove(&key);
        self.input(Input::Changed(vec![key]));
    }

    pub fn pod(&mut self, name: &str, spec: Value) {
        self.put(ItemKind::Pod, name, object(name, spec, None));
    }

    pub fn delete(&mut self, name: &str, spec: Value, grace: i64) {
        self.put(ItemKind::Pod, name, object(name, spec, Some(grace)));
    }

    pub fn input(&mut self, input: Input) {
        self.manager.handle(self.now, &self.items, input);
        while let Some(action) = self.manager.poll() {
            self.act(action);
        }
    }

    /// Lets so much time pass, doing everything that falls due on the way.
    pub fn run(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        let mut idle = 0;
        loop {
            let timer = self.manager.wake_at().map(|(at, _)| at);
            let next = self.later.iter().map(|(at, _)| *at).chain(timer).min().unwrap_or(u64::MAX);
            if next > end {
                break;
            }
            self.to(next.max(self.now.mono_ms));
            match self.later.iter().position(|(at, _)| *at <= self.now.mono_ms) {
                Some(at) => {
                    let (_, input) = self.later.remove(at);
                    self.deliver(input);
                }
                None => self.input(Input::Tick),
            }
            // Whoever is woken has something to do, or sleeps on; else the board would never rest.
            let due = self.later.iter().any(|(at, _)| *at <= self.now.mono_ms);
            let woken = self.manager.wake_at().filter(|(at, _)| *at <= self.now.mono_ms && !due);
            idle = if woken.is_some() { idle + 1 } else { 0 };
            assert!(idle < 20, "woken again and again, without an end: {woken:?}");
        }
        self.to(end);
    }

    fn to(&mut self, mono_ms: u64) {
        let step = mono_ms - self.now.mono_ms;
        self.now.mono_ms += step;
        self.now.wall_ms += step;
    }

    fn deliver(&mut self, input: Input) {
        if let Input::ContainerExited { at, exit } = &input {
            if !self.running.remove(at) {
                return;
            }
            if let Some(record) = self.records.get_mut(at) {
                record.1 = Some(exit.clone());
            }
        }
        self.input(input);
    }

    fn soon(&mut self, input: Input) {
        self.later.push((self.now.mono_ms, input));
    }

    fn behaviour(&self, container: &str) -> Behaviour {
        self.behave.get(container).copied().unwrap_or_default()
    }

    fn act(&mut self, action: Action) {
        match &mut self.actions_left {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        match action {
            Action::SetupVolumes { uid, volumes, .. } => {
                self.volumes.push(volumes);
                let Some(volume) = self.imageless.clone() else { return self.soon(Input::VolumesReady { uid }) };
                let (image, message) = ("v:1".to_string(), "no route".to_string());
                self.soon(Input::VolumeImagePulling { uid: uid.clone(), image: image.clone() });
                self.soon(Input::VolumeImageFailed { uid, volume, image, error: ImageError::Pull, message });
            }
            Action::UpdateVolumes { volumes, .. } => {
                self.log.push("update volumes".into());
                self.volumes.push(volumes);
            }
            Action::CreateSandbox { uid, plan } => {
                self.log.push("sandbox".into());
                self.group_quotas.insert(uid.clone(), plan.resources.cpu_quota_us);
                self.sandboxes.insert(uid.clone());
                self.soon(Input::SandboxReady { uid, ips: vec!["10.42.0.5".into()] });
            }
            Action::PullImage { uid, container, .. } => {
                if let Some(error) = self.behaviour(&container).image_fails {
                    return self.soon(Input::ImageFailed { uid, container, error, message: "no route".into() });
                }
                let image = ImageFacts { cmd: vec!["x".into()], digest_ref: "i@sha256:1".into(), ..Default::default() };
                self.soon(Input::ImageReady { uid, container, image, pulled_in_ms: None });
            }
            Action::ReadEnvFiles { uid, container, files } => {
                self.log.push(format!("read for {container}"));
                let files = files.into_iter().map(|key| (key, self.env_file.clone())).collect();
                self.soon(Input::EnvFilesRead { uid, container, files: Ok(files) });
            }
            Action::StartContainer { uid, plan } => self.start(uid, *plan),
            Action::Signal { at, signal } => self.signal(at, &signal),
            Action::RunHook { at, hook, .. } => {
                self.log.push(format!("{hook:?} {}", at.container));
                let when = self.now.mono_ms + self.behaviour(&at.container).hook_takes_ms;
                let error = self.behaviour(&at.container).hook_fails.then(|| "command exited with 1".to_string());
                self.later.push((when, Input::HookDone { at, hook, error }));
            }
            Action::RunProbe { at, kind, .. } if self.behaviour(&at.container).probes_are_not_made => {
                self.soon(Input::NotProbed { at, kind, why: "no such file".into() });
            }
            Action::RunProbe { at, kind, .. } => {
                self.probes += 1;
                let ok = self.behaviour(&at.container).probe_fails != Some(kind);
                let output = if ok { "" } else { "HTTP probe failed with statuscode: 500" };
                self.soon(Input::Probed { at, kind, ok, output: output.into() });
            }
            Action::Resize { at, resources } => {
                self.log.push(format!("resize {} {:?}", at.container, resources.cpu_quota_us));
                let error = self.behaviour(&at.container).resize_fails.then(|| "below current usage".to_string());
                if error.is_none() {
                    self.quotas.insert(at.clone(), resources.cpu_quota_us);
                }
                self.soon(Input::Resized { at, error });
            }
            Action::ResizePod { uid, resources, last } => {
                let word = if last { "last" } else { "first" };
                self.log.push(format!("resize {word} {:?}", resources.cpu_quota_us));
                let error = self.behaviour("the pod").resize_fails.then(|| "below current usage".to_string());
                if error.is_none() {
                    self.group_quotas.insert(uid.clone(), resources.cpu_quota_us);
                }
                self.soon(Input::PodResized { uid, last, error });
            }
            Action::RemoveSandbox { uid } => {
                self.log.push("remove sandbox".into());
                assert!(!self.running.iter().any(|r| r.uid == uid), "the sandbox of a running container");
                self.forget_records(&uid);
                self.soon(Input::SandboxRemoved { uid });
            }
            Action::RemovePod { uid } => {
                self.log.push("remove pod".into());
                self.running.retain(|r| r.uid != uid);
                self.forget_records(&uid);
                self.soon(Input::PodRemoved { uid });
            }
            Action::Report { name, status, uid, .. } => {
                self.reported_to.insert(name.clone(), uid.to_string());
                let status: Value = serde_json::from_slice(&status).unwrap();
                self.told.push(state_of(&status["containerStatuses"][0]["state"]));
                self.phases.push(status["phase"].as_str().unwrap().into());
                self.status.insert(name, status);
            }
            Action::PodGone { name, uid, .. } => {
                self.gone.push(name);
                self.gone_uids.push(uid.to_string());
            }
            Action::Event(event) => {
                let event: Value = serde_json::from_slice(&event).unwrap();
                let text = |k: &str| event[k].as_str().unwrap().to_string();
                self.events.push((text("reason"), text("message")));
            }
            Action::Remember(memory) => {
                self.memories.insert(memory.uid.clone(), memory);
            }
            Action::Note(note) => {
                self.notes.insert(note.uid.clone(), note);
            }
            Action::Forget { uid } => {
                self.memories.remove(&*uid);
                self.notes.remove(&*uid);
            }
            Action::RemoveContainer { at } => {
                assert!(!self.running.contains(&at), "{at:?} is removed while it runs");
                self.records.remove(&at);
            }
            Action::Remirror => self.log.push("remirror".into()),
            Action::AskToken(_) => {}
        }
    }

    fn start(&mut self, uid: Uid, plan: crate::plan::ContainerPlan) {
        let at = ContainerRef { uid, container: plan.name.as_str().into(), attempt: plan.attempt };
        self.log.push(format!("start {} {}", plan.name, plan.attempt));
        let behaviour = self.behaviour(&plan.name);
        self.quotas.insert(at.clone(), plan.resources.cpu_quota_us);
        self.plans.push(plan);
        if let Some(stage) = behaviour.start_fails {
            self.soon(Input::ContainerFailed { at, stage, message: "exec: no such file".into() });
            return;
        }
        let again = self.running.iter().any(|r| r.uid == at.uid && r.container == at.container);
        assert!(!again, "{at:?} while another attempt runs");
        self.running.insert(at.clone());
        self.records.insert(at.clone(), (self.now.wall_ms, None));
        self.soon(Input::ContainerStarted(at.clone()));
        if let Some((after, code)) = behaviour.exits {
            let exit = Exit { code, ..Exit::default() };
            self.later.push((self.now.mono_ms + after, Input::ContainerExited { at, exit }));
        }
    }

    fn forget_records(&mut self, uid: &Uid) {
        self.records.retain(|r, _| r.uid != *uid);
        self.sandboxes.remove(uid);
    }

    /// The agent is replaced by another one; the device goes on. With `reboot` nothing of the device is left.
    pub fn successor(self, reboot: bool) -> World {
        self.successor_with(reboot, Vec::new())
    }

    /// As `successor`, with manifests on the board.
    pub fn successor_with(mut self, reboot: bool, statics: Vec<StaticPod>) -> World {
        let mut w = World::blank();
        w.input(Input::Static(statics));
        w.items = std::mem::take(&mut self.items);
        w.generation = self.generation;
        w.now = Now { mono_ms: 5_000, wall_ms: self.now.wall_ms + 1000 };
        w.behave = std::mem::take(&mut self.behave);
        w.memories = self.memories.clone();
        for memory in self.memories.values() {
            w.input(Input::Remembered(memory.clone()));
        }
        if !reboot {
            w.running = self.running.clone();
            w.records = self.records.clone();
            w.sandboxes = self.sandboxes.clone();
            (w.group_quotas, w.quotas) = (self.group_quotas.clone(), self.quotas.clone());
            // Ends of containers that are still to come happen to the device, whoever watches.
            let exits = self.later.iter().filter(|(_, i)| matches!(i, Input::ContainerExited { .. }));
            w.later = exits.map(|(at, i)| (at.saturating_sub(self.now.mono_ms) + 5_000, i.clone())).collect();
            w.notes = self.notes.clone();
            self.notes.into_values().for_each(|note| w.input(Input::Noted(note)));
            w.found().into_iter().for_each(|f| w.input(Input::Adopted(f)));
        }
        w.input(Input::Begin);
        w
    }

    fn found(&self) -> Vec<AdoptedPod> {
        let mut pods: BTreeMap<Uid, AdoptedPod> = BTreeMap::new();
        let blank = |uid: &Uid| AdoptedPod { uid: uid.to_string(), ..AdoptedPod::default() };
        for uid in &self.sandboxes {
            pods.entry(uid.clone()).or_insert_with(|| blank(uid)).sandbox = Some(vec!["10.42.0.5".into()]);
        }
        for (at, (started_ms, exit)) in &self.records {
            let pod = pods.entry(at.uid.clone()).or_insert_with(|| blank(&at.uid));
            pod.containers.retain(|c| *c.name != *at.container);
            let (name, attempt) = (at.container.to_string(), at.attempt);
            pod.containers.push(AdoptedContainer { name, attempt, started_ms: *started_ms, exit: exit.clone() });
        }
        pods.into_values().collect()
    }

    /// A container ends by itself.
    pub fn end(&mut self, at: ContainerRef, code: i32) {
        self.soon(Input::ContainerExited { at, exit: Exit { code, ..Exit::default() } });
    }

    fn signal(&mut self, at: ContainerRef, signal: &str) {
        self.log.push(format!("{signal} {}", at.container));
        let code = match signal {
            "SIGKILL" => 137,
            _ if self.behaviour(&at.container).ignores_term => return,
            _ => 143,
        };
        let exit = Exit { code, ..Exit::default() };
        self.soon(Input::ContainerExited { at, exit });
    }

    pub fn phase(&self, pod: &str) -> &str {
        self.status[pod]["phase"].as_str().unwrap()
    }

    pub fn container(&self, pod: &str, name: &str) -> &Value {
        let status = &self.status[pod];
        let all = ["containerStatuses", "initContainerStatuses"].into_iter();
        all.filter_map(|list| status[list].as_array()).flatten().find(|c| c["name"] == name).unwrap()
    }

    /// The waiting or terminated reason, or `running`.
    pub fn state(&self, pod: &str, name: &str) -> String {
        state_of(&self.container(pod, name)["state"])
    }

    pub fn condition(&self, pod: &str, kind: &str) -> (String, String) {
        let all = self.status[pod]["conditions"].as_array().unwrap();
        let c = all.iter().find(|c| c["type"] == kind).unwrap();
        let text = |k: &str| c[k].as_str().unwrap_or("").to_string();
        (text("status"), text("reason"))
    }

    pub fn has_event(&self, reason: &str, message: &str) -> bool {
        self.events.iter().any(|(r, m)| r == reason && m.contains(message))
    }

    pub fn log_without_volumes(&self) -> Vec<&str> {
        self.log.iter().map(String::as_str).collect()
    }
}

pub fn object(name: &str, spec: Value, deletion: Option<i64>) -> Value {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1},
        "spec": spec,
    });
    if let Some(grace) = deletion {
        object["metadata"]["deletionTimestamp"] = clock::rfc3339(START_MS).into();
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
    object
}

/// A pod with one container `c`, extended by `more`.
pub fn one(policy: &str, more: Value) -> Value {
    let mut c = json!({"name": "c", "image": "i:1"});
    c.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"restartPolicy": policy, "containers": [c]})
}

fn state_of(state: &Value) -> String {
    let reason = ["waiting", "terminated"].iter().find_map(|kind| state[kind]["reason"].as_str());
    let running = if state["running"].is_object() { "running".into() } else { state.to_string() };
    reason.map_or(running, String::from)
}
