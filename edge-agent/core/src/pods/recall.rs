//! What a pod takes over from the agent before this one.
//!
//! In: the journal's record, what the runtime still has. Out: the pod as it was, and what ended meanwhile as ended.
//! Never: starts again what runs, or what is over.

use super::{
    AdoptedPod, PodMemory, PodNote,
    container::{Role, State},
    mark,
    pod::{LivePod, Step},
};
use crate::{clock::Now, plan};
use std::sync::Arc;

impl LivePod {
    /// What the journal knows, as if nothing runs any more (a reboot); `adopt` corrects it.
    pub(super) fn remember_back(&mut self, memory: PodMemory, now: Now) {
        self.terminal = memory.terminal.clone();
        if let Some(whole) = memory.resources.clone() {
            self.keep_whole(whole);
        }
        self.resize.remember_back(memory.resizing);
        self.initialized = memory.initialized && memory.terminal.is_some();
        for container in &mut self.containers {
            let Some(m) = memory.containers.get(&*container.name) else { continue };
            container.attempt = m.attempt;
            container.started_ms = m.started_ms;
            container.image_id = m.image_id.as_str().into();
            container.image_name = m.image_name.as_str().into();
            container.last = m.last.clone();
            container.ended = m.ended.clone();
            if let Some(actual) = &m.resources {
                Arc::make_mut(&mut container.spec).resources = actual.clone();
            }
            if let Some(attempt) = m.attempt {
                if m.ended.is_none() {
                    container.ended = Some(super::Terminated {
                        code: 255,
                        reason: "Unknown".into(),
                        message: String::new(),
                        started_ms: m.started_ms,
                        finished_ms: now.wall_ms,
                        id: plan::container_id(&self.facts.uid, &container.name, attempt),
                    });
                }
                // An init container that had done its work does so again for a new sandbox. What was cut short goes by its
                // policy.
                let told = container.role == Role::Main || (container.role == Role::Init && m.ended.is_none());
                let over = memory.terminal.is_some()
                    || container.role == Role::Ephemeral
                    || (told && !container.wants_restart(self.facts.object.spec.restart_policy));
                if over {
                    container.state = State::Ended { at: now.mono_ms };
                }
            }
            container.judge();
        }
        self.admitted = true;
        self.was_initialized = memory.initialized;
        self.remembered = Some(mark(&memory));
    }

    /// What the runtime still has: running containers go on, ended ones are over.
    pub fn adopt(&mut self, found: AdoptedPod, note: Option<&PodNote>, now: Now) {
        if self.terminal.is_none()
            && let Some(ips) = found.sandbox
        {
            self.sandbox = Step::Ready;
            self.facts.ips = ips;
            self.initialized = self.was_initialized;
            self.resize.adopt();
        }
        for a in found.containers {
            let Some(c) = self.containers.iter_mut().find(|c| *c.name == *a.name) else { continue };
            let same = c.attempt == Some(a.attempt);
            if !same {
                // Started, but the power went before the journal knew.
                c.last = c.ended.take();
            } else if c.ended.as_ref().is_some_and(|e| e.code == 255 && e.reason == "Unknown") {
                c.ended = None;
            }
            // What was told of this start stays: the record is older by what the start itself took, and a second may begin in it.
            let started_ms = if same && c.started_ms > 0 { c.started_ms } else { a.started_ms };
            let noted = note.and_then(|note| note.of(&a.name, a.attempt));
            c.adopt(a.attempt, started_ms, now, noted);
            self.initialized |= c.role == Role::Main;
            if let Some(exit) = a.exit {
                if same && c.ended.is_some() {
                    c.state = State::Ended { at: now.mono_ms };
                    c.probers.clear();
                    c.judge();
                } else {
                    c.container_exited(&self.facts, a.attempt, exit, now);
                }
            }
        }
        // Init containers that had done their work leave no process behind.
        if self.sandbox == Step::Ready {
            for c in self.containers.iter_mut().filter(|c| c.role == Role::Init) {
                if matches!(c.state, State::Idle) && c.ended.as_ref().is_some_and(|e| e.code == 0) {
                    c.state = State::Ended { at: now.mono_ms };
                    c.judge();
                }
            }
        }
    }
}
