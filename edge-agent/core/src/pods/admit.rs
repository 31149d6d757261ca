//! Whether this node can take a pod that it was given, before anything of it is made.
//!
//! In: the pod, facts of the host. Out: kubelet's reason and sentence for a pod that fails at once.
//! Never: a refusal of a pod that has begun; what may change by waiting is no refusal.

use super::Terminal;
use crate::{
    api::{Pod, PodSpec},
    plan::{self, AppArmorPlan, HostFacts, HostPort, Requests, requests},
};

/// System-critical pods are let in whatever room there is.
const CRITICAL: i64 = 2_000_000_000;

/// The last word on a pod that must not run here.
pub(super) fn refused(pod: &Pod, host: &HostFacts) -> Option<Terminal> {
    let first = os(pod).or_else(|| sysctls(pod, host));
    let (reason, why) = first.or_else(|| app_armor(pod, host)).or_else(|| host_users(pod, host))?;
    Some(Terminal { succeeded: false, reason: reason.into(), message: format!("Pod was rejected: {why}") })
}

/// What the pods that are here take, those that end included.
#[derive(Default)]
pub(super) struct Others {
    pub pods: u32,
    pub requests: Requests,
    pub ports: Vec<HostPort>,
}

/// As `refused`, for want of room. The scheduler has counted already; this is for pods that came past it
/// (`spec.nodeName`) and for a node that shrank. Static and critical pods always come in.
pub(super) fn no_room(pod: &Pod, others: &Others, host: &HostFacts) -> Option<Terminal> {
    if plan::host_ports(&pod.spec).any(|port| others.ports.iter().any(|taken| taken.collides(&port))) {
        let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Some(Terminal { succeeded: false, reason: "NodePorts".into(), message: format!("Pod was rejected: {why}") });
    }
    if pod.spec.priority.is_some_and(|p| p >= CRITICAL) || host.allocatable_cpu_milli <= 0 {
        return None;
    }
    let asked = requests(&pod.spec);
    let (used, pods_max) = (&others.requests, i64::from(host.pods_max));
    let rows = [
        ("pods", 1, i64::from(others.pods), if pods_max > 0 { pods_max } else { i64::MAX }),
        ("cpu", asked.cpu_milli, used.cpu_milli, host.allocatable_cpu_milli),
        ("memory", asked.memory_bytes, used.memory_bytes, host.allocatable_memory_bytes),
    ];
    let lacks = |(_, asked, used, there): &(&str, i64, i64, i64)| *asked > 0 && asked.saturating_add(*used) > *there;
    let (name, asked, used, there) = rows.into_iter().find(lacks)?;
    let why = format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {there}");
    Some(Terminal { succeeded: false, reason: format!("OutOf{name}"), message: format!("Pod was rejected: {why}") })
}

/// As `refused`, for a node that runs short: what comes now would be the next to go. Critical pods come in, and while only memory
/// is short also those that ask for some of what they use, or say that they bear it (kubelet's eviction manager).
pub(super) fn pressed(pod: &Pod, host: &HostFacts) -> Option<Terminal> {
    let critical = pod.spec.priority.is_some_and(|p| p >= CRITICAL);
    let bears = || pod.spec.bears_memory_pressure || plan::qos(&pod.spec) != plan::Qos::BestEffort;
    if host.pressed.is_empty() || critical || (host.pressed == ["MemoryPressure"] && bears()) {
        return None;
    }
    let message = format!("Pod was rejected: The node had condition: [{}]. ", host.pressed.join(" "));
    Some(Terminal { succeeded: false, reason: super::pod::EVICTED.into(), message })
}

/// Fields that a node of this kind cannot heed, and that are no reason not to run the pod: each with a sentence.
pub(super) fn without_effect(spec: &PodSpec) -> Vec<String> {
    let own = |pick: fn(&crate::api::SecurityContext) -> bool| spec.all_containers().any(|c| pick(&c.security_context));
    let mut said = Vec::new();
    if spec.security_context.se_linux_options.is_some() || own(|c| c.se_linux_options.is_some()) {
        said.push("securityContext.seLinuxOptions has no effect: this node's agent sets no SELinux labels".into());
    }
    if spec.security_context.se_linux_change_policy.is_some() {
        said.push("securityContext.seLinuxChangePolicy has no effect: this node's agent sets no SELinux labels".into());
    }
    if spec.security_context.windows_options.is_some() || own(|c| c.windows_options.is_some()) {
        said.push("securityContext.windowsOptions has no effect: this node runs Linux".into());
    }
    said
}

fn os(pod: &Pod) -> Option<(&'static str, String)> {
    let why = "Failed to admit pod as the OS field doesn't match node OS";
    let other = !pod.spec.os.name.is_empty() && pod.spec.os.name != "linux";
    other.then(|| ("PodOSNotSupported", why.to_string()))
}

fn sysctls(pod: &Pod, host: &HostFacts) -> Option<(&'static str, String)> {
    plan::sysctls::refused(&pod.spec, &host.unsafe_sysctls).map(|why| ("SysctlForbidden", why))
}

fn app_armor(pod: &Pod, host: &HostFacts) -> Option<(&'static str, String)> {
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let asks = |c| matches!(plan::app_armor(&pod.spec, c), AppArmorPlan::Localhost(_) | AppArmorPlan::RuntimeDefault);
    let wanted = all.into_iter().any(|c| asks(c));
    let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    (wanted && !host.app_armor).then(|| ("AppArmor", why.to_string()))
}

/// Who asks for users of its own must not get the host's without a word.
fn host_users(pod: &Pod, host: &HostFacts) -> Option<(&'static str, String)> {
    let lack = host.no_own_users.as_ref().filter(|_| pod.spec.host_users == Some(false))?;
    let why = format!(
        "hostUsers: false is not supported by this node's kernel or file systems, pods run with the users of the host: {lack}"
    );
    Some(("UserNamespacesNotSupported", why))
}
