//! What a container may do on the kernel: privileged, capabilities, escalation, users, /proc.
//!
//! In: a pod. Out: violations. Never: knows what the image itself would run as.

use super::{Pod, Version, Violation, violation};
use crate::pod_security::containers::{all, name, named, phrase, plural, quoted, sorted};
use serde_json::Value;

const FALSE: Value = Value::Bool(false);
const TRUE: Value = Value::Bool(true);

pub fn privileged(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names = named(pod.spec, |c| c["securityContext"]["privileged"] == TRUE);
    (!names.is_empty())
        .then(|| violation("privileged", format!("{} must not set securityContext.privileged=true", phrase(&names))))?
}

/// Not asked of Windows pods since 1.25.
pub fn allow_privilege_escalation(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version.has(25) && pod.is_windows() {
        return None;
    }
    let names = named(pod.spec, |c| c["securityContext"]["allowPrivilegeEscalation"] != FALSE);
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", phrase(&names));
    (!names.is_empty()).then(|| violation("allowPrivilegeEscalation != false", detail))?
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn words<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    let list = container["securityContext"]["capabilities"][list].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// Containers that add what is not allowed, and what they add.
fn added(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let of =
        |c: &Value| -> Vec<String> { words(c, "add").filter(|w| !allowed.contains(w)).map(str::to_owned).collect() };
    let names = named(pod.spec, |c| !of(c).is_empty());
    let bad = sorted(all(pod.spec).flat_map(of).collect());
    (!names.is_empty())
        .then(|| format!("{} must not include {} in securityContext.capabilities.add", phrase(&names), quoted(&bad)))
}

pub fn capabilities_baseline(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    added(pod, &DEFAULT_CAPABILITIES).and_then(|detail| violation("non-default capabilities", detail))
}

pub fn capabilities_restricted(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version.has(25) && pod.is_windows() {
        return None;
    }
    let names = named(pod.spec, |c| !words(c, "drop").any(|w| w == "ALL"));
    let mut details = Vec::new();
    if !names.is_empty() {
        details.push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, phrase(&names)));
    }
    details.extend(added(pod, &["NET_BIND_SERVICE"]));
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub fn proc_mount(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    // A pod with users of its own may see all of its /proc.
    if pod.has_own_users() && version.has(35) {
        return None;
    }
    let mount = |c: &Value| c["securityContext"]["procMount"].as_str().filter(|m| *m != "Default").map(str::to_owned);
    let names = named(pod.spec, |c| mount(c).is_some());
    let bad = sorted(all(pod.spec).filter_map(mount).collect());
    let detail = format!("{} must not set securityContext.procMount to {}", phrase(&names), quoted(&bad));
    (!names.is_empty()).then(|| violation("procMount", detail))?
}

pub fn run_as_non_root(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users() && version.has(35) {
        return None;
    }
    let of_pod = &pod.context()["runAsNonRoot"];
    let explicit = named(pod.spec, |c| c["securityContext"]["runAsNonRoot"] == FALSE);
    let silent = named(pod.spec, |c| c["securityContext"]["runAsNonRoot"].is_null());
    let mut details = Vec::new();
    // The pod's own word counts only for containers that say nothing.
    if *of_pod == FALSE && !silent.is_empty() {
        details.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !explicit.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", phrase(&explicit)));
    }
    if details.is_empty() && *of_pod != TRUE && !silent.is_empty() {
        details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", phrase(&silent)));
    }
    if details.is_empty() { None } else { violation("runAsNonRoot != true", details.join("; ")) }
}

pub fn run_as_user(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if pod.has_own_users() && version.has(35) {
        return None;
    }
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let mut who = Vec::new();
    let says = |c: &Value| !c["securityContext"]["runAsUser"].is_null();
    if is_root(pod.context()) && !all(pod.spec).all(says) {
        who.push("pod".to_owned());
    }
    let names: Vec<String> =
        all(pod.spec).filter(|c| is_root(&c["securityContext"])).map(|c| name(c).to_owned()).collect();
    if !names.is_empty() {
        who.push(format!("{} {}", plural("container", "containers", names.len()), quoted(&names)));
    }
    if who.is_empty() {
        None
    } else {
        violation("runAsUser=0", format!("{} must not set runAsUser=0", who.join(" and ")))
    }
}
