//! New limits for a container that runs (in-place resize).
//!
//! In: the container's id, its limits and its pod's. Out: changed groups, and the record that says so.
//! Never: half a change: when the container's group refuses, its pod's goes back to what it had.

use super::spec::Resources;
use super::{Runtime, RuntimeError, check_id, record};

impl Runtime {
    /// Sets the limits of a running container and of its pod's group. The error is a sentence for the pod's condition.
    pub fn resize(&self, container_id: &str, container: &Resources, pod: &Resources) -> Result<(), RuntimeError> {
        check_id(container_id)?;
        let found = record::read(&self.shared.options.run_dir, container_id)?;
        // The pod's own limits step aside while a container grows or shrinks below them.
        let aside = Resources { memory_limit_bytes: None, cpu_quota_us: None, ..pod.clone() };
        self.update_pod(&found.spec.pod_uid, &aside)?;
        if let Err(err) = self.update_container(container_id, container) {
            self.update_pod(&found.spec.pod_uid, &before(&found.spec.resources, container, pod))?;
            return Err(err);
        }
        self.update_pod(&found.spec.pod_uid, pod)
    }
}

/// The pod's limits before this container's change.
fn before(old: &Resources, new: &Resources, pod: &Resources) -> Resources {
    let back = |pod: u64, new: Option<u64>, old: Option<u64>| Some(pod.saturating_sub(new?).saturating_add(old?));
    let (new_quota, old_quota) = (new.cpu_quota_us.unwrap_or(0), old.cpu_quota_us.unwrap_or(0));
    Resources {
        memory_limit_bytes: pod
            .memory_limit_bytes
            .and_then(|bytes| back(bytes, new.memory_limit_bytes, old.memory_limit_bytes)),
        cpu_quota_us: pod.cpu_quota_us.map(|quota| quota.saturating_sub(new_quota).saturating_add(old_quota)),
        ..pod.clone()
    }
}
