//! The profiles that confine a container: seccomp, AppArmor, SELinux.
//!
//! In: a pod. Out: violations. Never: knows whether the board's kernel has them.

use super::{Pod, Version, Violation, violation};
use crate::pod_security::containers::{all, name, named, phrase, plural, quoted, sorted};
use serde_json::Value;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub fn app_armor(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let bad = |context: &Value| {
        let kind = context["appArmorProfile"]["type"].as_str()?;
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let mut details = Vec::new();
    if let Some(kind) = bad(pod.context()) {
        details.push(format!("pod must not set AppArmor profile type to {kind:?}"));
    }
    let names = named(pod.spec, |c| bad(&c["securityContext"]).is_some());
    if !names.is_empty() {
        let kinds = sorted(all(pod.spec).filter_map(|c| bad(&c["securityContext"])).collect());
        details.push(format!("{} must not set AppArmor profile type to {}", phrase(&names), quoted(&kinds)));
    }
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let mut forbidden: Vec<String> = annotations
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && !allowed(value.as_str().unwrap_or_default()))
        .map(|(key, value)| format!("{key}={:?}", value.as_str().unwrap_or_default()))
        .collect();
    forbidden.sort();
    if !forbidden.is_empty() {
        let noun = plural("annotation", "annotations", forbidden.len());
        details.push(format!("{noun} {}", forbidden.join(", ")));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", details.len());
    if details.is_empty() { None } else { violation(reason, details.join("; ")) }
}

pub fn selinux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let mut types = vec!["", "container_t", "container_init_t", "container_kvm_t"];
    if version.has(31) {
        types.push("container_engine_t");
    }
    let text = |context: &Value, field: &str| context["seLinuxOptions"][field].as_str().unwrap_or_default().to_owned();
    let contexts = || std::iter::once(pod.context()).chain(all(pod.spec).map(|c| &c["securityContext"]));
    let bad_type = |context: &Value| !types.contains(&text(context, "type").as_str());
    let is_bad =
        |context: &Value| bad_type(context) || !text(context, "user").is_empty() || !text(context, "role").is_empty();
    let mut who = Vec::new();
    if is_bad(pod.context()) {
        who.push("pod".to_owned());
    }
    let names = named(pod.spec, |c| is_bad(&c["securityContext"]));
    if !names.is_empty() {
        who.push(phrase(&names));
    }
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    let bad = sorted(contexts().filter(|c| bad_type(c)).map(|c| text(c, "type")).collect());
    if !bad.is_empty() {
        what.push(format!("{} {}", plural("type", "types", bad.len()), quoted(&bad)));
    }
    for field in ["user", "role"] {
        if contexts().any(|c| !text(c, field).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    violation(
        "seLinuxOptions",
        format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; ")),
    )
}

fn seccomp(context: &Value) -> Option<&str> {
    context["seccompProfile"]["type"].as_str()
}

fn is_confined(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// Before 1.19 profiles were annotations: a version that old has nothing left to forbid on this server.
pub fn seccomp_baseline(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if !version.has(19) {
        return None;
    }
    let bad = |context: &Value| seccomp(context).filter(|kind| !is_confined(kind)).map(str::to_owned);
    let mut who = Vec::new();
    if bad(pod.context()).is_some() {
        who.push("pod".to_owned());
    }
    let names = named(pod.spec, |c| bad(&c["securityContext"]).is_some());
    if !names.is_empty() {
        who.push(phrase(&names));
    }
    if who.is_empty() {
        return None;
    }
    let contexts = std::iter::once(pod.context()).chain(all(pod.spec).map(|c| &c["securityContext"]));
    let kinds = sorted(contexts.filter_map(bad).collect());
    let detail =
        format!("{} must not set securityContext.seccompProfile.type to {}", who.join(" and "), quoted(&kinds));
    violation("seccompProfile", detail)
}

pub fn seccomp_restricted(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version.has(25) && pod.is_windows() {
        return None;
    }
    let of_pod = seccomp(pod.context());
    let silent: Vec<String> =
        all(pod.spec).filter(|c| seccomp(&c["securityContext"]).is_none()).map(|c| name(c).to_owned()).collect();
    let explicit = named(pod.spec, |c| seccomp(&c["securityContext"]).is_some_and(|kind| !is_confined(kind)));
    let mut details = Vec::new();
    let bad_pod = of_pod.filter(|kind| !is_confined(kind));
    if let Some(kind) = bad_pod {
        details.push(format!("pod must not set securityContext.seccompProfile.type to {kind:?}"));
    }
    if !explicit.is_empty() {
        let kinds = all(pod.spec).filter_map(|c| seccomp(&c["securityContext"])).filter(|kind| !is_confined(kind));
        let kinds = sorted(kinds.map(str::to_owned).collect());
        details.push(format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            phrase(&explicit),
            quoted(&kinds)
        ));
    }
    if of_pod.is_none() && !silent.is_empty() {
        let must = r#"must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#;
        details.push(format!("pod or {} {must}", phrase(&silent)));
    }
    if details.is_empty() { None } else { violation("seccompProfile", details.join("; ")) }
}
