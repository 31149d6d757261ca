//! How a container is asked, then made, to end.
//!
//! In: a running container, a grace period. Out: the preStop hook, the stop signal, at last SIGKILL.
//! Source: Kubernetes "Termination of Pods".
//! Never: waits longer than the grace period plus two seconds, or kills what was not asked.

use super::{
    Action, HookKind, check_of,
    container::{Container, Cx, Facts, Running, State},
    events::Kind,
};

/// What is left after a preStop hook that used up all the grace, and where there was none.
const LAST_CHANCE_MS: u64 = 2000;
/// Whoever asks for more has as good as none: ten years.
const GRACE_SECONDS_MAX: i64 = 315_360_000;
const KILL_AGAIN_MS: u64 = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopStep {
    /// The preStop hook runs.
    Hook { deadline: u64 },
    /// Others must end before it: a sidecar outlives the containers and the sidecars behind it.
    Turn { deadline: u64 },
    /// The stop signal was sent.
    Asked { kill_at: u64 },
    /// SIGKILL was sent; sent again in case it was lost.
    Killed { again_at: u64 },
}

impl StopStep {
    pub fn next_at(self) -> u64 {
        match self {
            StopStep::Hook { deadline } | StopStep::Turn { deadline } => deadline,
            StopStep::Asked { kill_at } => kill_at,
            StopStep::Killed { again_at } => again_at,
        }
    }
}

impl Container {
    /// Begins to stop it, or shortens the time of one that is being stopped. `message` becomes the Killing event.
    pub(super) fn stop(&mut self, pod: &Facts, grace_s: i64, message: &str, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ms;
        self.waited = None;
        let grace_ms = grace_s.clamp(0, GRACE_SECONDS_MAX) as u64 * 1000;
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.state = match state {
            State::Running(running) => {
                pod.event(cx, self.field_path(), Kind::Normal, "Killing", message);
                self.first_step(pod, running, grace_ms, cx)
            }
            State::Stopping { running, step } => {
                let step = match step {
                    StopStep::Hook { deadline } => StopStep::Hook { deadline: deadline.min(now + grace_ms) },
                    StopStep::Turn { deadline } => StopStep::Turn { deadline: deadline.min(now + grace_ms) },
                    StopStep::Asked { kill_at } => {
                        StopStep::Asked { kill_at: kill_at.min(now + grace_ms.max(LAST_CHANCE_MS)) }
                    }
                    killed => killed,
                };
                State::Stopping { running, step }
            }
            other => other,
        };
        self.step_stop(pod, cx);
    }

    fn first_step(&mut self, pod: &Facts, running: Running, grace_ms: u64, cx: &mut Cx<'_>) -> State {
        let now = cx.now.mono_ms;
        let at = self.at(&pod.uid);
        let deadline = now + grace_ms;
        if let Some(hook) = self.spec.lifecycle.pre_stop.as_ref().filter(|_| grace_ms > 0) {
            let check = check_of(hook, &self.spec);
            cx.out.push_back(Action::RunHook { at, hook: HookKind::PreStop, check, timeout_ms: grace_ms });
            return State::Stopping { running, step: StopStep::Hook { deadline } };
        }
        if !self.turn {
            return State::Stopping { running, step: StopStep::Turn { deadline } };
        }
        cx.out.push_back(Action::Signal { at, signal: self.stop_signal() });
        State::Stopping { running, step: StopStep::Asked { kill_at: deadline.max(now + LAST_CHANCE_MS) } }
    }

    fn stop_signal(&self) -> String {
        let own = self.spec.lifecycle.stop_signal.as_deref();
        own.or(self.image_stop_signal.as_deref()).filter(|s| !s.is_empty()).unwrap_or("SIGTERM").into()
    }

    /// Goes on when a time is over.
    pub(super) fn step_stop(&mut self, pod: &Facts, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ms;
        let at = self.at(&pod.uid);
        let (signal, turn) = (self.stop_signal(), self.turn);
        let State::Stopping { step, .. } = &mut self.state else { return };
        *step = match *step {
            StopStep::Turn { deadline } if turn && deadline > now => {
                cx.out.push_back(Action::Signal { at, signal });
                StopStep::Asked { kill_at: deadline.max(now + LAST_CHANCE_MS) }
            }
            StopStep::Hook { deadline } | StopStep::Turn { deadline } if deadline <= now => {
                cx.out.push_back(Action::Signal { at, signal });
                StopStep::Asked { kill_at: now + LAST_CHANCE_MS }
            }
            StopStep::Asked { kill_at } if kill_at <= now => {
                cx.out.push_back(Action::Signal { at, signal: "SIGKILL".into() });
                StopStep::Killed { again_at: now + KILL_AGAIN_MS }
            }
            StopStep::Killed { again_at } if again_at <= now => {
                cx.out.push_back(Action::Signal { at, signal: "SIGKILL".into() });
                StopStep::Killed { again_at: now + KILL_AGAIN_MS }
            }
            other => other,
        };
    }

    pub(super) fn hook_done(&mut self, pod: &Facts, hook: HookKind, error: Option<String>, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ms;
        match (&mut self.state, hook) {
            (State::Stopping { step, .. }, HookKind::PreStop) => {
                let StopStep::Hook { deadline } = *step else { return };
                // `step_stop` sends the signal as soon as it is its turn.
                *step = StopStep::Turn { deadline: deadline.max(now + 1) };
                self.step_stop(pod, cx);
                if let Some(error) = error {
                    let message = format!("PreStopHook failed: {error}");
                    pod.event(cx, self.field_path(), Kind::Warning, "FailedPreStopHook", &message);
                }
            }
            (State::Running(running), HookKind::PostStart) => {
                // One whose hook has failed never counts as started.
                running.hook_done = error.is_none();
                self.judge();
                if let Some(error) = error {
                    let message = format!("PostStartHook failed: {error}");
                    pod.event(cx, self.field_path(), Kind::Warning, "FailedPostStartHook", &message);
                    self.faulted("PostStartHookError", message);
                    let grace = pod.object.spec.termination_grace_period_seconds.unwrap_or(30);
                    self.stop(pod, grace, "FailedPostStartHook", cx);
                }
            }
            _ => {}
        }
    }
}
