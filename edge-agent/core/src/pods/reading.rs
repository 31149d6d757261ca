//! Before a container starts: the files that its variables are in, the container that it looks at.
//!
//! In: a container whose turn it is; what the shell has read. Out: the question for the files, or the way on.
//! Never: keeps what was read for another attempt: an init container may have written anew.

use super::{
    Action,
    container::{CONFIG_AGAIN_MS, CONFIG_ERROR, Container, Cx, Facts, State},
    events::Kind,
};
use crate::plan::{self, EnvFiles};

impl Container {
    /// Asks for the files, when there are some that were not read for this attempt.
    pub(super) fn ask_files(&self, pod: &Facts, cx: &mut Cx<'_>) -> Option<State> {
        let files = plan::env_files_wanted(&self.spec);
        if files.is_empty() || self.env_files.is_some() {
            return None;
        }
        cx.out.push_back(Action::ReadEnvFiles { uid: pod.uid.clone(), container: self.name.clone(), files });
        Some(State::Reading)
    }

    /// The container whose processes it is to see: one that runs.
    pub(super) fn target(&self, pod: &Facts) -> Result<Option<String>, String> {
        let Some(name) = &self.spec.target_container_name else { return Ok(None) };
        let id = pod.ids.get(name).cloned();
        id.map(Some).ok_or_else(|| format!("unable to find target container {name}"))
    }

    /// That one was waited for, and is here: perhaps for a moment only.
    pub(super) fn has_found_target(&self, pod: &Facts, message: &str) -> bool {
        let name = self.spec.target_container_name.as_deref().unwrap_or_default();
        message.ends_with(&format!("target container {name}")) && matches!(self.target(pod), Ok(Some(_)))
    }

    pub(super) fn files_read(&mut self, pod: &Facts, files: Result<EnvFiles, String>, cx: &mut Cx<'_>) {
        if !matches!(self.state, State::Reading) {
            return;
        }
        match files {
            Ok(files) => {
                self.env_files = Some(files);
                self.state = State::Pulled;
            }
            Err(message) => self.state = self.refuse_config(pod, message, cx),
        }
    }

    /// `CreateContainerConfigError`: tried again by and by, and when the set changes.
    pub(super) fn refuse_config(&mut self, pod: &Facts, message: String, cx: &mut Cx<'_>) -> State {
        self.tell_pulled(pod, cx);
        pod.event(cx, self.field_path(), Kind::Warning, "Failed", &format!("Error: {message}"));
        State::Refused { until: cx.now.mono_ms + CONFIG_AGAIN_MS, reason: CONFIG_ERROR, message }
    }
}
