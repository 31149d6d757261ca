//! What an input says of one pod, and what it changes there.
//!
//! In: inputs about one pod, whether or not it still waits for them. Out: the pod's next state, actions through the context.
//! Never: believes what is about another attempt than the one that runs.

use super::{
    Action, ContainerRef, Input, Uid,
    container::{Container, Cx, Facts},
    pod::{Goal, LivePod, Step, Teardown},
    status::pod_status,
};

pub(super) fn uid_of(input: &Input) -> Option<Uid> {
    Some(match input {
        Input::VolumesReady { uid }
        | Input::VolumesFailed { uid, .. }
        | Input::VolumeImagePulling { uid, .. }
        | Input::VolumeImagePulled { uid, .. }
        | Input::VolumeImageFailed { uid, .. }
        | Input::SandboxReady { uid, .. }
        | Input::SandboxFailed { uid, .. }
        | Input::ImagePulling { uid, .. }
        | Input::ImageHeld { uid, .. }
        | Input::ImageReady { uid, .. }
        | Input::ImageFailed { uid, .. }
        | Input::EnvFilesRead { uid, .. }
        | Input::Evict { uid, .. }
        | Input::PodResized { uid, .. }
        | Input::SandboxRemoved { uid }
        | Input::PodRemoved { uid } => uid.clone(),
        Input::ContainerStarted(at)
        | Input::ContainerUser { at, .. }
        | Input::ContainerFailed { at, .. }
        | Input::ContainerExited { at, .. }
        | Input::Probed { at, .. }
        | Input::NotProbed { at, .. }
        | Input::Resized { at, .. }
        | Input::HookDone { at, .. } => at.uid.clone(),
        _ => return None,
    })
}

pub(super) fn apply(pod: &mut LivePod, input: Input, cx: &mut Cx<'_>) {
    match input {
        Input::VolumesReady { .. } if pod.volumes == Step::Asked => {
            pod.volumes = Step::Ready;
            pod.facts.missing_image = None;
        }
        Input::VolumeImagePulling { image, .. } => pod.volume_image_pulling(&image, cx),
        Input::VolumeImagePulled { image, size_bytes, took_ms, .. } => {
            pod.volume_image_pulled(&image, size_bytes, took_ms, cx);
        }
        Input::VolumeImageFailed { volume, image, error, message, .. } if pod.volumes == Step::Asked => {
            pod.volume_image_failed(&volume, &image, error, message, cx);
        }
        Input::VolumesFailed { volume, message, .. } if pod.volumes == Step::Asked => {
            pod.volume_failed(&volume, &message, cx);
        }
        Input::SandboxReady { ips, .. } => pod.sandbox_ready(ips),
        Input::SandboxFailed { message, .. } => pod.sandbox_failed(&message, cx),
        Input::Evict { message, .. } => pod.evict(&message, cx),
        Input::SandboxRemoved { .. } if pod.teardown == Teardown::Sandbox => {
            pod.teardown = Teardown::SandboxDone;
        }
        Input::PodRemoved { .. } if pod.teardown == Teardown::All => {
            pod.teardown = Teardown::Gone;
            if pod.goal == Goal::Delete {
                let m = &pod.facts.object.metadata;
                let (uid, namespace, name) = (pod.facts.uid.clone(), m.namespace.clone(), m.name.clone());
                // The last status goes out before the farewell.
                let status = pod_status(pod, cx.host, cx.now);
                if pod.is_news(&status) {
                    let (uid, namespace, name) = (uid.clone(), namespace.clone(), name.clone());
                    cx.out.push_back(Action::Report { uid, namespace, name, status });
                }
                cx.out.push_back(Action::PodGone { uid, namespace, name });
            }
        }
        Input::ImagePulling { container, .. } => with(pod, &container, |c, facts| c.image_pulling(facts, cx)),
        Input::ImageHeld { container, message, .. } => {
            with(pod, &container, |c, facts| c.image_held(facts, message, cx));
        }
        Input::ImageReady { container, image, pulled_in_ms, .. } => {
            with(pod, &container, |c, _| c.image_ready(image, pulled_in_ms));
        }
        Input::ImageFailed { container, error, message, .. } => {
            with(pod, &container, |c, facts| c.image_failed(facts, error, message, cx));
        }
        Input::EnvFilesRead { container, files, .. } => {
            with(pod, &container, |c, facts| c.files_read(facts, files, cx));
        }
        Input::ContainerStarted(at) => {
            with(pod, &at.container, |c, facts| c.container_started(facts, at.attempt, cx));
        }
        Input::ContainerUser { at, user } => with(pod, &at.container, |c, _| c.ran_as = Some((at.attempt, user))),
        Input::ContainerFailed { at, stage, message } => {
            with(pod, &at.container, |c, facts| c.container_failed(facts, at.attempt, stage, message, cx));
        }
        Input::ContainerExited { at, exit } => with(pod, &at.container, |c, facts| {
            // A short life can be over before the news of its beginning has come.
            c.container_started(facts, at.attempt, cx);
            c.container_exited(facts, at.attempt, exit, cx.now);
        }),
        Input::Probed { at, kind, ok, output } => probed(pod, &at, kind, ok, &output, cx),
        Input::NotProbed { at, kind, why } => with_attempt(pod, &at, |c, facts| c.not_probed(facts, kind, &why, cx)),
        Input::Resized { at, error } => pod.resized(&at.container, at.attempt, error, cx),
        Input::PodResized { last, error, .. } => pod.group_resized(last, error, cx),
        Input::HookDone { at, hook, error } => {
            with_attempt(pod, &at, |c, facts| c.hook_done(facts, hook, error, cx));
        }
        _ => {}
    }
}

fn probed(
    pod: &mut LivePod,
    at: &ContainerRef,
    kind: super::ProbeKind,
    ok: bool,
    output: &str,
    cx: &mut Cx<'_>,
) {
    let grace = pod.grace();
    with_attempt(pod, at, |c, facts| {
        if let Some((message, own_grace)) = c.probed(facts, kind, ok, output, cx) {
            c.probers.iter_mut().for_each(super::probe::Prober::hold);
            c.stop(facts, own_grace.unwrap_or(grace), &message, cx);
        }
    });
}

fn with(pod: &mut LivePod, name: &str, f: impl FnOnce(&mut Container, &Facts)) {
    if let Some(c) = pod.containers.iter_mut().find(|c| *c.name == *name) {
        f(c, &pod.facts);
    }
}

/// As `with`, but only when the attempt is the one that runs now.
fn with_attempt(
    pod: &mut LivePod,
    at: &ContainerRef,
    f: impl FnOnce(&mut Container, &Facts),
) {
    let same = |c: &Container| c.running().is_some_and(|r| r.attempt == at.attempt);
    if let Some(c) = pod.containers.iter_mut().find(|c| *c.name == *at.container && same(c)) {
        f(c, &pod.facts);
    }
}
