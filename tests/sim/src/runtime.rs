//! A board's pretend runtime: sandboxes and containers that outlive the agent, but not a reboot.
//!
//! In: the pod manager's actions. Out: what will come of them, and when. Containers named `job` end by themselves.
//! Never: starts a container whose predecessor runs without saying so.

use crate::{Rng, Sabotage, board::Wish};
use limpet_agent_core::{
    Action, Input, Now,
    plan::{ContainerPlan, ImageFacts},
    pods::{AdoptedContainer, AdoptedPod, ContainerRef, Exit, ImageError, StartStage, Uid},
};
use std::collections::{BTreeMap, BTreeSet};

/// A container of the pretend runtime.
#[derive(Clone, Debug)]
pub struct Running {
    pub attempt: u32,
    pub started_ms: u64,
    /// It ended while the agent may not have been told.
    pub exit: Option<Exit>,
}

#[derive(Default)]
pub struct Runtime {
    pub sandboxes: BTreeSet<String>,
    /// By uid and name.
    pub containers: BTreeMap<(String, String), Running>,
    /// Pods of which a container runs, with how many.
    pub running: BTreeMap<String, u32>,
    pub started: u64,
    /// Containers that were started beside a running predecessor.
    pub twice: Vec<ContainerRef>,
    /// Pods of which the first container began to run, to be looked at once.
    pub began: Vec<String>,
    /// One in so many steps fails; 0: none.
    pub clumsy: u64,
    pub mistake: Sabotage,
}

impl Runtime {
    pub fn reboot(&mut self) {
        self.sandboxes.clear();
        self.containers.clear();
        self.running.clear();
    }

    /// What an agent finds that starts now.
    pub fn found(&self) -> Vec<AdoptedPod> {
        let mut found: BTreeMap<String, AdoptedPod> = BTreeMap::new();
        for uid in &self.sandboxes {
            let sandbox = Some(vec!["10.42.0.2".to_string()]);
            found.insert(uid.clone(), AdoptedPod { uid: uid.clone(), sandbox, containers: Vec::new() });
        }
        for ((uid, name), running) in &self.containers {
            let pod = found.entry(uid.clone()).or_insert_with(|| AdoptedPod { uid: uid.clone(), ..AdoptedPod::default() });
            pod.containers.push(AdoptedContainer {
                name: name.clone(),
                attempt: running.attempt,
                started_ms: running.started_ms,
                exit: running.exit.clone(),
            });
        }
        found.into_values().collect()
    }

    pub fn act(&mut self, action: Action, now: Now, rng: &mut Rng, wishes: &mut Vec<Wish>) {
        let soon = rng.between(1, 80);
        let fails = self.clumsy > 0 && rng.one_in(self.clumsy);
        let why = || "the simulator says no".to_string();
        let mut later = |input| wishes.push(Wish::Later(soon, input));
        match action {
            Action::SetupVolumes { uid, .. } if fails => {
                later(Input::VolumesFailed { uid, volume: "v".into(), message: why() });
            }
            Action::SetupVolumes { uid, .. } => later(Input::VolumesReady { uid }),
            Action::CreateSandbox { uid, .. } if fails => later(Input::SandboxFailed { uid, message: why() }),
            Action::CreateSandbox { uid, .. } => {
                self.sandboxes.insert(uid.to_string());
                later(Input::SandboxReady { uid, ips: vec!["10.42.0.2".into()] });
            }
            Action::PullImage { uid, container, .. } if fails => {
                later(Input::ImageFailed { uid, container, error: ImageError::Pull, message: why() });
            }
            Action::PullImage { uid, container, .. } => {
                let image = ImageFacts { id: "sha256:0".into(), cmd: vec!["run".into()], ..ImageFacts::default() };
                later(Input::ImageReady { uid, container, image, pulled_in_ms: None });
            }
            Action::StartContainer { uid, plan } => self.start(&uid, &plan, fails, now, rng, wishes),
            Action::Signal { at, signal } => {
                let (after, code) = match signal.as_str() {
                    "SIGKILL" => (soon, 137),
                    _ => (rng.between(10, 2500), 143),
                };
                wishes.push(Wish::End(after, at, code));
            }
            Action::RunHook { at, hook, .. } => later(Input::HookDone { at, hook, error: None }),
            Action::RunProbe { at, kind, .. } => later(Input::Probed { at, kind, ok: !fails, output: String::new() }),
            Action::RemoveSandbox { uid } => {
                self.clear(&uid);
                later(Input::SandboxRemoved { uid });
            }
            Action::RemovePod { uid } => {
                self.clear(&uid);
                later(Input::PodRemoved { uid });
            }
            _ => {}
        }
    }

    fn start(&mut self, uid: &Uid, plan: &ContainerPlan, fails: bool, now: Now, rng: &mut Rng, wishes: &mut Vec<Wish>) {
        let at = ContainerRef { uid: uid.clone(), container: plan.name.as_str().into(), attempt: plan.attempt };
        let soon = rng.between(1, 80);
        let key = (uid.to_string(), plan.name.clone());
        if self.containers.get(&key).is_some_and(|r| r.exit.is_none()) {
            self.twice.push(at.clone());
        }
        if fails {
            let failed = Input::ContainerFailed { at, stage: StartStage::Create, message: "the simulator says no".into() };
            return wishes.push(Wish::Later(soon, failed));
        }
        self.started += 1;
        let running = Running { attempt: plan.attempt, started_ms: now.wall_ms, exit: None };
        self.containers.insert(key, running);
        let count = self.running.entry(uid.to_string()).or_default();
        *count += 1;
        if *count == 1 {
            self.began.push(uid.to_string());
        }
        wishes.push(Wish::Later(soon, Input::ContainerStarted(at.clone())));
        if plan.name == "job" {
            let code = if rng.one_in(8) { 1 } else { 0 };
            wishes.push(Wish::End(rng.between(500, 60_000), at, code));
        }
    }

    fn stopped(&mut self, uid: &str) {
        if let Some(count) = self.running.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(uid);
            }
        }
    }

    fn clear(&mut self, uid: &Uid) {
        self.sandboxes.remove(&**uid);
        if self.mistake != Sabotage::RunsOn {
            self.running.remove(&**uid);
        }
        self.containers.retain(|(owner, _), _| **owner != **uid);
    }

    /// A container ends. Returns the news for the agent, when it was that attempt and it ran.
    pub fn end(&mut self, now: Now, at: &ContainerRef, code: i32) -> Option<Input> {
        let running = self.containers.get_mut(&(at.uid.to_string(), at.container.to_string()))?;
        if running.attempt != at.attempt || running.exit.is_some() {
            return None;
        }
        let exit = Exit { code, finished_ms: now.wall_ms, ..Exit::default() };
        running.exit = Some(exit.clone());
        if self.mistake != Sabotage::RunsOn {
            self.stopped(&at.uid);
        }
        Some(Input::ContainerExited { at: at.clone(), exit })
    }
}
