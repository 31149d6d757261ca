//! Images that are volumes: on their way, here, or not to be had, and what containers that mount one wait for meanwhile.
//!
//! In: what the image store says. Out: Events of the pod in kubelet's words; the reason that those containers show.
//! Never: more than one that is missing: volumes are made one after the other.

use super::{
    ImageError,
    backoff::Backoff,
    container::{Container, Cx},
    events::Kind,
    image,
    pod::{LivePod, Step},
};

/// The image that did not come.
#[derive(Debug)]
pub(super) struct MissingImage {
    volume: Box<str>,
    image: Box<str>,
    error: ImageError,
    message: Box<str>,
    /// The error is shown until then, and after that the waiting.
    pub shown_until: Option<u64>,
    wait: Backoff,
}

impl MissingImage {
    fn is_mounted_by(&self, c: &Container) -> bool {
        c.spec.volume_mounts.iter().any(|m| m.name == *self.volume)
    }

    /// Reason and message for a container that mounts it.
    pub fn waiting(&self, c: &Container) -> Option<(&'static str, String)> {
        let shows_error = self.shown_until.is_some() || !self.error.is_of_registry();
        self.is_mounted_by(c).then(|| match shows_error {
            true => (self.error.reason(), self.message.to_string()),
            false => image::waits(&self.image, self.error, &self.message),
        })
    }
}

impl LivePod {
    pub fn volume_image_failed(&mut self, volume: &str, image: &str, error: ImageError, message: String, cx: &mut Cx<'_>) {
        let message = image::tell_failure(&self.facts, None, image, error, message, cx);
        let wait = self.facts.missing_image.take().filter(|m| *m.image == *image).map(|m| m.wait);
        let mut wait = wait.unwrap_or_else(Backoff::kubelet);
        let now = cx.now.mono_ms;
        self.volumes = Step::Failed { until: wait.fail(now) };
        self.facts.missing_image = Some(Box::new(MissingImage {
            volume: volume.into(),
            image: image.into(),
            error,
            message: message.into(),
            shown_until: Some(now + image::ERROR_SHOWN_MS),
            wait,
        }));
    }

    /// After the first sight of the error, that it is waited for.
    pub(super) fn step_volume_image(&mut self, cx: &mut Cx<'_>) {
        let due = |m: &&mut Box<MissingImage>| m.shown_until.is_some_and(|at| at <= cx.now.mono_ms);
        let Some(missing) = self.facts.missing_image.as_mut().filter(due) else { return };
        missing.shown_until = None;
        if missing.error.is_of_registry() {
            let name = missing.image.clone();
            image::tell_back_off(&self.facts, None, &name, cx);
        }
    }

    pub fn volume_image_pulling(&self, image: &str, cx: &mut Cx<'_>) {
        if self.volumes == Step::Asked {
            self.facts.event(cx, None, Kind::Normal, "Pulling", &image::pulling(image));
        }
    }

    pub fn volume_image_pulled(&self, image: &str, size_bytes: u64, took_ms: u64, cx: &mut Cx<'_>) {
        if self.volumes == Step::Asked {
            self.facts.event(cx, None, Kind::Normal, "Pulled", &image::pulled(image, size_bytes, took_ms));
        }
    }
}
