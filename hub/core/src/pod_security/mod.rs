//! Pod Security Standards: which pods a namespace takes.
//!
//! In: a namespace's labels, a pod's metadata and spec as JSON. Out: what the pod violates, in upstream's words.
//! Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and the admission controller's page beside it.
//! Never: changes a pod, or knows who asks.

mod checks;
mod containers;
mod policy;
#[cfg(test)]
mod tests;

pub use policy::{LABEL_PREFIX, Level, LevelVersion, Mode, Policy, Version, check_labels};

use serde_json::Value;

/// One rule that a pod breaks: `reason (detail)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

/// What `pod` (an object with `metadata` and `spec`, or a template) violates at this level, in the order of upstream's checks.
pub fn evaluate(at: LevelVersion, pod: &Value) -> Vec<Violation> {
    if at.level == Level::Privileged {
        return Vec::new();
    }
    let pod = checks::Pod::new(pod);
    let all = checks::ALL.iter().filter(|check| check.applies(at.level, at.version));
    all.filter_map(|check| (check.run)(&pod, at.version)).collect()
}

/// All violations as one sentence: `reason (detail), reason (detail)`.
pub fn sentence(violations: &[Violation]) -> String {
    let one = |v: &Violation| match v.detail.is_empty() {
        true => v.reason.clone(),
        false => format!("{} ({})", v.reason, v.detail),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The reasons alone, as a warning about many pods names them.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(", ")
}
