//! A container's way to its image: asked, pulled, refused, waiting.
//!
//! In: what the image store says. Out: actions and Events in kubelet's words.
//! Never: talks to a registry, or decides whether a local image may be used; the store does.

use super::{
    Action, ImageError, PullPolicy,
    container::{Container, Cx, Facts, State},
    events::Kind,
};
use crate::{api, plan::ImageFacts, sync::Items};
use limpet_protocol::ItemKind;
use std::collections::BTreeMap;

/// How long `ErrImagePull` is shown before `ImagePullBackOff`.
const ERROR_SHOWN_MS: u64 = 2000;

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
            let words = format!("Back-off pulling image \"{}\"", self.spec.image);
            pod.event(cx, self.field_path(), Kind::Normal, "BackOff", &words);
            pod.event(cx, self.field_path(), Kind::Warning, "Failed", "Error: ImagePullBackOff");
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
            let message = format!("Pulling image \"{}\"", self.spec.image);
            pod.event(cx, self.field_path(), Kind::Normal, "Pulling", &message);
        }
    }

    pub(super) fn image_ready(&mut self, pod: &Facts, image: ImageFacts, pulled_in: Option<u64>, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Pulling) {
            return;
        }
        let name = &self.spec.image;
        let message = match pulled_in {
            Some(ms) => {
                let took = go_duration(ms);
                let size = image.size_bytes;
                format!(
                    "Successfully pulled image \"{name}\" in {took} ({took} including waiting). \
                     Image size: {size} bytes."
                )
            }
            None => format!("Container image \"{name}\" already present on machine and can be accessed by the pod"),
        };
        pod.event(cx, self.field_path(), Kind::Normal, "Pulled", &message);
        self.image_stop_signal = Some(image.stop_signal.as_str()).filter(|s| !s.is_empty()).map(Into::into);
        self.image = Some(Box::new(image));
        self.pull_wait.reset();
        self.state = State::Pulled;
    }

    pub(super) fn image_failed(&mut self, pod: &Facts, error: ImageError, message: String, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Pulling) {
            return;
        }
        let words = match error {
            ImageError::NeverPull => format!(
                "Container image \"{}\" is not present with pull policy of Never",
                self.spec.image
            ),
            ImageError::InvalidName => {
                format!("Failed to apply default image tag \"{}\": {message}", self.spec.image)
            }
            _ => format!("Failed to pull image \"{}\": {message}", self.spec.image),
        };
        let reason = match error {
            ImageError::NeverPull => "ErrImageNeverPull",
            ImageError::InvalidName => "InspectFailed",
            _ => "Failed",
        };
        pod.event(cx, self.field_path(), Kind::Warning, reason, &words);
        pod.event(cx, self.field_path(), Kind::Warning, "Failed", &format!("Error: {}", error.reason()));
        let until = self.pull_wait.fail(cx.now.mono_ms);
        let message = if error.is_of_registry() { message } else { words };
        let shown_until = Some(cx.now.mono_ms + ERROR_SHOWN_MS);
        self.state = State::PullFailed { until, error, message, shown_until };
    }
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
