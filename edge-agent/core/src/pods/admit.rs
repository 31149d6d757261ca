//! Whether this node can take a pod that it was given, before anything of it is made.
//!
//! In: the pod, facts of the host. Out: kubelet's reason and sentence for a pod that fails at once.
//! Never: a refusal of a pod that has begun; what may change by waiting is no refusal.

use super::Terminal;
use crate::{
    api::Pod,
    plan::{self, AppArmorPlan, HostFacts},
};

/// The last word on a pod that must not run here.
pub(super) fn refused(pod: &Pod, host: &HostFacts) -> Option<Terminal> {
    let (reason, why) = sysctls(pod, host).or_else(|| app_armor(pod, host)).or_else(|| host_users(pod))?;
    Some(Terminal { succeeded: false, reason: reason.into(), message: format!("Pod was rejected: {why}") })
}

fn sysctls(pod: &Pod, host: &HostFacts) -> Option<(&'static str, String)> {
    plan::sysctls::refused(&pod.spec, &host.unsafe_sysctls).map(|why| ("SysctlForbidden", why))
}

fn app_armor(pod: &Pod, host: &HostFacts) -> Option<(&'static str, String)> {
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let asks = |c| matches!(plan::app_armor(&pod.spec, c), AppArmorPlan::Localhost(_) | AppArmorPlan::RuntimeDefault);
    let wanted = all.into_iter().any(asks);
    let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    (wanted && !host.app_armor).then(|| ("AppArmor", why.to_string()))
}

/// Who asks for users of its own must not get the host's without a word.
fn host_users(pod: &Pod) -> Option<(&'static str, String)> {
    let why = "hostUsers: false is not supported by this node's agent: pods run with the users of the host";
    (pod.spec.host_users == Some(false)).then(|| ("UserNamespacesNotSupported", why.to_string()))
}
