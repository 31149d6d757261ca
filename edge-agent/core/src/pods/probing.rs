//! The probes of one container: when they run, and what their results do to it.
//!
//! In: time, results. Out: `RunProbe`, Events, whether the container must be stopped.
//! Never: counts a probe's failures; that is `probe`.

use super::{
    Action, ProbeKind,
    container::{Container, Cx, Facts, Role, State},
    events::Kind,
    policy::{After, after},
    probe::{Prober, Verdict},
};

impl Container {
    /// Starts the probes that are due.
    pub fn run_probes(&mut self, pod: &Facts, cx: &mut Cx<'_>) {
        let stopping = matches!(self.state, State::Stopping { .. });
        if self.running().is_none_or(|r| !r.hook_done) {
            return;
        }
        let at = self.at(&pod.uid);
        let started = self.started;
        for prober in &mut self.probers {
            let turn = match prober.kind {
                ProbeKind::Startup => !started && !stopping,
                ProbeKind::Liveness => started && !stopping,
                ProbeKind::Readiness => started,
            };
            if turn && prober.take_due(cx.now.mono_ms) {
                cx.out.push_back(Action::RunProbe {
                    at: at.clone(),
                    kind: prober.kind,
                    check: prober.check.clone(),
                    timeout_ms: prober.timeout_ms,
                });
            }
        }
    }

    /// A probe's result. `Some((message, grace))`: the container must be stopped for it.
    pub fn probed(
        &mut self,
        pod: &Facts,
        kind: ProbeKind,
        ok: bool,
        output: &str,
        cx: &mut Cx<'_>,
    ) -> Option<(String, Option<i64>)> {
        let now = cx.now.mono_ms;
        let path = self.field_path();
        let prober = self.probers.iter_mut().find(|p| p.kind == kind)?;
        let news = !prober.is_early();
        let verdict = prober.result(now, ok);
        let grace = prober.grace_s;
        if !ok && news {
            let message = format!("{} probe failed: {output}", kind.title());
            pod.event(cx, path, Kind::Warning, "Unhealthy", &message);
        }
        let was_started = self.started;
        self.judge();
        if self.started && !was_started {
            self.probers.iter_mut().for_each(|p| p.hurry(now));
        }
        match (verdict, kind) {
            (Verdict::Decided(false), ProbeKind::Liveness | ProbeKind::Startup) => {
                let word = kind.word();
                // A probe's failure counts as a failure of the container, whatever code it ends with.
                let again = after(self.role, &self.spec, pod.object.spec.restart_policy, 1) != After::Rest;
                let (who, tail) = match self.role {
                    Role::Sidecar => ("Init container", ""),
                    _ => ("Container", if again { ", will be restarted" } else { "" }),
                };
                Some((format!("{who} {} failed {word} probe{tail}", self.name), grace))
            }
            _ => None,
        }
    }

    /// A probe that could not be made says nothing of the container: it is told, and made again after its period.
    pub fn not_probed(&mut self, pod: &Facts, kind: ProbeKind, why: &str, cx: &mut Cx<'_>) {
        let path = self.field_path();
        let Some(prober) = self.probers.iter_mut().find(|p| p.kind == kind) else { return };
        if prober.no_result() {
            let message = format!("{} probe errored and resulted in unknown state: {why}", kind.title());
            pod.event(cx, path, Kind::Warning, "Unhealthy", &message);
        }
    }

    pub fn next_probe(&self) -> Option<(u64, &'static str)> {
        let stopping = matches!(self.state, State::Stopping { .. });
        if self.running().is_none_or(|r| !r.hook_done) {
            return None;
        }
        let turn = |p: &&Prober| match p.kind {
            ProbeKind::Startup => !self.started && !stopping,
            ProbeKind::Liveness => self.started && !stopping,
            ProbeKind::Readiness => self.started,
        };
        let at = self.probers.iter().filter(turn).filter_map(Prober::next_at).min()?;
        Some((at, "probe a container"))
    }
}
