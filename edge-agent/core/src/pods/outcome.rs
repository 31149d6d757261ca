//! What came of a start, and of a container in the end.
//!
//! In: the shell's word on the attempt that is being started, or runs. Out: Events in kubelet's order, the container's next
//! state. Never: believes a word on another attempt.

use super::{
    Action, Exit, HookKind, StartStage, Terminated, check_of,
    container::{CONFIG_AGAIN_MS, CONFIG_ERROR, Container, Cx, FAULT_SHOWN_MS, Facts, Fault, HOOK_MS_MAX, State},
    events::Kind,
};
use crate::{clock::Now, plan};

impl Container {
    pub fn container_started(&mut self, pod: &Facts, attempt: u32, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Starting { attempt: a } if a == attempt) {
            return;
        }
        self.tell_pulled(pod, cx);
        pod.event(cx, self.field_path(), Kind::Normal, "Created", "Container created");
        pod.event(cx, self.field_path(), Kind::Normal, "Started", "Container started");
        if let Some(before) = self.ended.take() {
            self.last = Some(before);
        }
        self.actual = None;
        self.take_image();
        self.begin(attempt, cx.now.wall_ms, cx.now.mono_ms);
        if let Some(hook) = &self.spec.lifecycle.post_start {
            let check = check_of(hook, &self.spec);
            let at = self.at(&pod.uid);
            cx.out.push_back(Action::RunHook { at, hook: HookKind::PostStart, check, timeout_ms: HOOK_MS_MAX });
        }
    }

    /// What the status shows of the image that the newest attempt was made of.
    fn take_image(&mut self) {
        let image = self.image.take().map(|image| *image).unwrap_or_default();
        self.image_id = image.digest_ref.into();
        self.image_name = Some(image.name).filter(|name| *name != self.spec.image).unwrap_or_default().into();
    }

    pub fn container_failed(
        &mut self,
        pod: &Facts,
        attempt: u32,
        stage: StartStage,
        message: String,
        cx: &mut Cx<'_>,
    ) {
        if !matches!(self.state, State::Starting { attempt: a } if a == attempt) {
            return;
        }
        self.tell_pulled(pod, cx);
        if stage == StartStage::Run {
            // It was made; its program could not be run.
            pod.event(cx, self.field_path(), Kind::Normal, "Created", "Container created");
            self.take_image();
        }
        pod.event(cx, self.field_path(), Kind::Warning, "Failed", &format!("Error: {message}"));
        match stage {
            StartStage::Config => {
                let until = cx.now.mono_ms + CONFIG_AGAIN_MS;
                self.state = State::Refused { until, reason: CONFIG_ERROR, message };
            }
            StartStage::Create => {
                let until = self.pull_wait.fail(cx.now.mono_ms);
                self.state = State::Refused { until, reason: "CreateContainerError", message };
            }
            StartStage::Run => {
                if let Some(before) = self.ended.take() {
                    self.last = Some(before);
                }
                (self.attempt, self.waited) = (Some(attempt), None);
                self.started_ms = 0;
                self.faulted("RunContainerError", message.clone());
                self.ended = Some(Terminated {
                    code: 128,
                    reason: "StartError".into(),
                    message,
                    started_ms: 0,
                    finished_ms: cx.now.wall_ms,
                    id: plan::container_id(&pod.uid, &self.name, attempt),
                });
                self.end(pod, cx.now.mono_ms);
            }
        }
    }

    /// Shown when it has ended, if it is to run again.
    pub fn faulted(&mut self, reason: &'static str, message: String) {
        self.fault = Some(Box::new(Fault { reason, message, shown_until: 0 }));
    }

    /// `ended` says how.
    fn end(&mut self, pod: &Facts, mono_ms: u64) {
        self.state = State::Ended { at: mono_ms };
        self.fault = self.fault.take().filter(|_| self.wants_restart(pod.object.spec.restart_policy));
        if let Some(fault) = &mut self.fault {
            fault.shown_until = mono_ms + FAULT_SHOWN_MS;
        }
        self.judge();
    }

    pub fn container_exited(&mut self, pod: &Facts, attempt: u32, exit: Exit, now: Now) {
        let current = match &self.state {
            State::Running(r) | State::Stopping { running: r, .. } => r.attempt == attempt,
            _ => false,
        };
        if !current {
            return;
        }
        let reason = match (exit.oom_killed, exit.unknown, exit.code) {
            (true, _, _) => "OOMKilled",
            (_, true, _) => "Unknown",
            (_, _, 0) => "Completed",
            _ => "Error",
        };
        self.ended = Some(Terminated {
            code: exit.code,
            reason: reason.into(),
            message: exit.message,
            started_ms: self.started_ms,
            finished_ms: if exit.finished_ms == 0 { now.wall_ms } else { exit.finished_ms },
            id: plan::container_id(&pod.uid, &self.name, attempt),
        });
        self.probers.clear();
        self.end(pod, now.mono_ms);
    }
}
