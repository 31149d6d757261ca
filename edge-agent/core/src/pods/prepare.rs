//! What a pod needs before its containers: volumes and a sandbox, made, tried again, and kept up to date.
//!
//! In: the set, outcomes of the shell. Out: `SetupVolumes`, `UpdateVolumes`, `CreateSandbox`, Events of what failed.
//! Never: makes a volume again that shows what it should.

use super::{
    Action,
    container::Cx,
    events::Kind,
    pod::{Goal, LivePod, Step},
};
use crate::{
    plan::{self, Context},
    volumes::{self, VolumePlan},
};

/// So long a missing token is not worth an Event.
const TOKEN_PATIENCE_MS: u64 = 5000;
/// What the kernel takes as a host's name.
const HOSTNAME_BYTES_MAX: usize = 64;

impl LivePod {
    pub(super) fn prepare(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ms;
        self.step_volume_image(cx);
        let due = |step: Step| matches!(step, Step::Missing) || matches!(step, Step::Failed { until } if until <= now);
        if due(self.volumes) {
            let (plans, problems) = self.volume_plans(cx);
            if let Some(problem) = problems.into_iter().next() {
                if problem.token_missing && now < self.since_ms + TOKEN_PATIENCE_MS {
                    self.volumes = Step::Failed { until: self.since_ms + TOKEN_PATIENCE_MS };
                } else {
                    self.volume_failed(&problem.volume, &problem.message, cx);
                }
            } else {
                self.volumes = Step::Asked;
                for plan in plans.iter().filter(|p| p.is_files()) {
                    self.shows(plan);
                }
                let m = &self.facts.object.metadata;
                let (namespace, name) = (m.namespace.clone(), m.name.clone());
                let uid = self.facts.uid.clone();
                cx.out.push_back(Action::SetupVolumes { uid, namespace, name, volumes: plans });
            }
        }
        let handler = plan::handler(&self.facts.object.spec, cx.items);
        let missing = |h: &String| h != plan::OWN_HANDLER && !cx.host.runtime_handlers.contains(h);
        if due(self.sandbox)
            && let Some(handler) = handler.as_ref().filter(|h| missing(h))
        {
            self.sandbox = Step::Asked;
            let why = format!("failed to get sandbox runtime: no runtime for \"{handler}\" is configured");
            self.sandbox_failed(&why, cx);
        } else if due(self.sandbox)
            && self.facts.object.spec.host_users == Some(false)
            && let Some(other) = handler.filter(|h| h != plan::OWN_HANDLER)
        {
            self.sandbox = Step::Asked;
            let words = "can't set `spec.hostUsers: false`, RuntimeClass handler";
            self.sandbox_failed(&format!("{words} \"{other}\" does not support user namespaces"), cx);
        } else if due(self.sandbox) {
            if self.sandbox == Step::Missing && self.containers.iter().any(|c| c.attempt.is_some()) {
                let words = "Pod sandbox changed, it will be killed and re-created.";
                self.facts.event(cx, None, Kind::Normal, "SandboxChanged", words);
            }
            self.sandbox = Step::Asked;
            let plan = Box::new(plan::sandbox(&self.facts.object, cx.host));
            if plan.hostname.len() > HOSTNAME_BYTES_MAX && self.facts.object.spec.set_hostname_as_fqdn {
                let words = format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {} is too long ({HOSTNAME_BYTES_MAX} \
                     characters is the max, {} characters requested)",
                    plan.hostname,
                    plan.hostname.len()
                );
                return self.sandbox_failed(&words, cx);
            }
            cx.out.push_back(Action::CreateSandbox { uid: self.facts.uid.clone(), plan });
        }
    }

    pub fn volume_failed(&mut self, volume: &str, message: &str, cx: &mut Cx<'_>) {
        let words = format!("MountVolume.SetUp failed for volume \"{volume}\" : {message}");
        self.facts.event(cx, None, Kind::Warning, "FailedMount", &words);
        self.facts.missing_image = None;
        self.volumes = Step::Failed { until: self.volume_backoff.fail(cx.now.mono_ms) };
    }

    pub fn sandbox_ready(&mut self, ips: Vec<String>) {
        if self.sandbox == Step::Asked {
            self.sandbox = Step::Ready;
            self.sandbox_backoff.reset();
            self.facts.ips = ips;
        }
    }

    pub fn sandbox_failed(&mut self, message: &str, cx: &mut Cx<'_>) {
        if self.sandbox == Step::Asked {
            let words = format!("Failed to create pod sandbox: {message}");
            self.facts.event(cx, None, Kind::Warning, "FailedCreatePodSandBox", &words);
            self.sandbox = Step::Failed { until: self.sandbox_backoff.fail(cx.now.mono_ms) };
        }
    }

    pub(super) fn volume_plans(&self, cx: &Cx<'_>) -> (Vec<VolumePlan>, Vec<volumes::VolumeProblem>) {
        let (pod, pod_ips) = (&self.facts.object, &self.facts.ips);
        let context = Context { pod, host: cx.host, pod_ips, env_files: &plan::NO_ENV_FILES };
        volumes::plan(&context, cx.items)
    }

    pub(super) fn refresh_volumes(&mut self, cx: &mut Cx<'_>) {
        if self.volumes != Step::Ready || self.goal != Goal::Run {
            return;
        }
        let (plans, _) = self.volume_plans(cx);
        let mut changed = Vec::new();
        for plan in plans.into_iter().filter(VolumePlan::is_files) {
            if self.shows(&plan) {
                changed.push(plan);
            }
        }
        if !changed.is_empty() {
            cx.out.push_back(Action::UpdateVolumes { uid: self.facts.uid.clone(), volumes: changed });
        }
    }

    /// Whether a volume is to show something else than before.
    fn shows(&mut self, plan: &VolumePlan) -> bool {
        let hash = plan.hash();
        match self.volume_hashes.iter_mut().find(|(name, _)| **name == *plan.name) {
            Some((_, before)) => std::mem::replace(before, hash) != hash,
            None => {
                self.volume_hashes.reserve_exact(1);
                self.volume_hashes.push((plan.name.as_str().into(), hash));
                true
            }
        }
    }
}
