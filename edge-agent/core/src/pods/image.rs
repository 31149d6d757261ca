//! A container's way to its image: asked, pulled, refused, waiting.
//!
//! In: what the image store says. Out: actions and Events in kubelet's words.
//! Never: talks to a registry, or decides whether a local image may be used; the store does.

use super::{
    Action, ImageError, PullPolicy,
    container::{CONFIG_AGAIN_MS, Container, Cx, Facts, State},
    events::Kind,
};
use crate::{api, plan::ImageFacts, sync::Items};
use limpet_protocol::ItemKind;
use std::collections::BTreeMap;

/// How long `ErrImagePull` is shown before `ImagePullBackOff`.
pub(super) const ERROR_SHOWN_MS: u64 = 2000;

/// Why a container waits whose image may not travel now.
pub(super) const HELD: &str = "ImagePullHeld";

impl Container {
    pub(super) fn pull(&mut self, pod: &Facts, cx: &mut Cx<'_>) -> State {
        let image = self.spec.image.clone();
        let policy = pull_policy(&image, self.spec.image_pull_policy.as_deref());
        let secrets = pull_secrets(&pod.object, cx.items);
        let (uid, container) = (pod.uid.clone(), self.name.clone());
        self.held = None;
        cx.out.push_back(Action::PullImage { uid, container, image, policy, secrets });
        State::Pulling
    }

    /// After the first sight of the error, the state that waits.
    pub(super) fn back_off_pull(
        &mut self,
        pod: &Facts,
        cx: &mut Cx<'_>,
        until: u64,
        error: ImageError,
        message: String,
    ) -> State {
        if error.is_of_registry() {
            tell_back_off(pod, self.field_path(), &self.spec.image, cx);
        }
        State::PullFailed { until, error, message, shown_until: None }
    }

    pub(super) fn image_held(&mut self, pod: &Facts, message: String, cx: &mut Cx<'_>) {
        if matches!(self.state, State::Pulling) {
            let words = format!("Pulling image \"{}\" waits: {message}", self.spec.image);
            pod.event(cx, self.field_path(), Kind::Normal, HELD, &words);
            self.held = Some(message);
        }
    }

    pub(super) fn image_pulling(&mut self, pod: &Facts, cx: &mut Cx<'_>) {
        self.held = None;
        if matches!(self.state, State::Pulling) {
            pod.event(cx, self.field_path(), Kind::Normal, "Pulling", &pulling(&self.spec.image));
        }
    }

    pub(super) fn image_ready(&mut self, image: ImageFacts, pulled_in: Option<u64>) {
        if !matches!(self.state, State::Pulling) {
            return;
        }
        let name = &self.spec.image;
        let message = match pulled_in {
            Some(ms) => pulled(name, image.size_bytes, ms),
            None => format!("Container image \"{name}\" already present on machine and can be accessed by the pod"),
        };
        self.pulled = Some(message.into());
        self.image_stop_signal = Some(image.stop_signal.as_str()).filter(|s| !s.is_empty()).map(Into::into);
        self.image = Some(Box::new(image));
        self.pull_wait.reset();
        self.state = State::Pulled;
    }

    pub(super) fn tell_pulled(&mut self, pod: &Facts, cx: &mut Cx<'_>) {
        if let Some(words) = self.pulled.take() {
            pod.event(cx, self.field_path(), Kind::Normal, "Pulled", &words);
        }
    }

    pub(super) fn image_failed(&mut self, pod: &Facts, error: ImageError, message: String, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Pulling) {
            return;
        }
        let message = tell_failure(pod, self.field_path(), &self.spec.image, error, message, cx);
        let until = match error {
            // Nobody has to be spared: it is looked for on this board.
            ImageError::NeverPull => cx.now.mono_ms + CONFIG_AGAIN_MS,
            _ => self.pull_wait.fail(cx.now.mono_ms),
        };
        let shown_until = Some(cx.now.mono_ms + ERROR_SHOWN_MS);
        self.state = State::PullFailed { until, error, message, shown_until };
    }
}

pub(super) fn pulling(image: &str) -> String {
    format!("Pulling image \"{image}\"")
}

pub(super) fn pulled(image: &str, size_bytes: u64, took_ms: u64) -> String {
    let took = go_duration(took_ms);
    format!("Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size_bytes} bytes.")
}

/// Reason and message of what waits until it is tried again.
pub(super) fn waits(image: &str, error: ImageError, message: &str) -> (&'static str, String) {
    ("ImagePullBackOff", format!("Back-off pulling image \"{image}\": {}: {message}", error.reason()))
}

/// An image did not come. Out: what is shown of that in the status.
pub(super) fn tell_failure(
    pod: &Facts,
    path: Option<String>,
    image: &str,
    error: ImageError,
    message: String,
    cx: &mut Cx<'_>,
) -> String {
    let (reason, words) = match error {
        ImageError::NeverPull => {
            ("ErrImageNeverPull", format!("Container image \"{image}\" is not present with pull policy of Never"))
        }
        ImageError::InvalidName => {
            ("InspectFailed", format!("Failed to apply default image tag \"{image}\": {message}"))
        }
        _ => ("Failed", format!("Failed to pull image \"{image}\": {message}")),
    };
    pod.event(cx, path.clone(), Kind::Warning, reason, &words);
    pod.event(cx, path, Kind::Warning, "Failed", &format!("Error: {}", error.reason()));
    if error.is_of_registry() { message } else { words }
}

pub(super) fn tell_back_off(pod: &Facts, path: Option<String>, image: &str, cx: &mut Cx<'_>) {
    pod.event(cx, path.clone(), Kind::Normal, "BackOff", &format!("Back-off pulling image \"{image}\""));
    pod.event(cx, path, Kind::Warning, "Failed", "Error: ImagePullBackOff");
}

/// What the manifest says, or Kubernetes' default.
pub(crate) fn pull_policy(image: &str, said: Option<&str>) -> PullPolicy {
    match said {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if untagged_or_latest(image) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

/// Texts of the pod's pull secrets that are here.
pub(crate) fn pull_secrets(pod: &api::Pod, items: &Items) -> Vec<Vec<u8>> {
    let names = pod.spec.image_pull_secrets.iter();
    let texts = names.filter_map(|s| {
        let secret: api::Secret = items.read(ItemKind::Secret, &pod.metadata.namespace, &s.name)?;
        let entries: BTreeMap<&str, Vec<u8>> = secret.entries();
        entries.get(".dockerconfigjson").or(entries.get(".dockercfg")).cloned()
    });
    texts.collect()
}

/// `docker.io/library/nginx` and `nginx:latest` mean "what is newest", unless pinned by a digest.
fn untagged_or_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None => true,
        Some((_, tag)) => tag == "latest",
    }
}

/// A duration as Go prints it: `1.234s`, `56ms`.
fn go_duration(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (secs, frac) = (ms / 1000, ms % 1000);
    let mut text = if frac == 0 { format!("{}s", secs % 60) } else {
        format!("{}.{}s", secs % 60, format!("{frac:03}").trim_end_matches('0'))
    };
    if secs >= 60 {
        text = format!("{}m{text}", secs / 60);
    }
    text
}
