//! Rules for the securityContext of a pod and of a container (`ValidatePodSecurityContext`, `ValidateSecurityContext`).
//!
//! In: a defaulted spec or container and its path. Out: field errors. Never: judges by PodSecurity's levels (admission does).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::fill::{list, map, text};
use crate::kinds::rules::{Errors, join, one_of, required};

const PROFILE_BYTES_MAX: usize = 4095;
const SYSCTL_BYTES_MAX: usize = 253;
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// `spec.securityContext`, with the fields of the spec that belong to it.
pub fn of_pod(spec: &Value, path: &str, errors: &mut Errors) {
    let (context, at) = (&spec["securityContext"], join(path, "securityContext"));
    ids(context, &at, errors);
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        id(group, format!("{at}.supplementalGroups[{index}]"), errors);
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let words = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(join(&at, "shareProcessNamespace"), true, words));
    }
    sysctls(spec, &join(&at, "sysctls"), errors);
    one_of(context, "fsGroupChangePolicy", &at, &["Always", "OnRootMismatch"], errors);
    seccomp(context, &at, errors);
    one_of(context, "seLinuxChangePolicy", &at, &["MountOption", "Recursive"], errors);
    windows(context, &at, errors);
    app_armor(context, &at, errors);
    one_of(context, "supplementalGroupsPolicy", &at, &["Merge", "Strict"], errors);
    own_users(spec, path, errors);
}

/// `securityContext` of a container.
pub fn of_container(spec: &Value, context: &Value, path: &str, errors: &mut Errors) {
    ids(context, path, errors);
    one_of(context, "procMount", path, &["Default", "Unmasked"], errors);
    if context["procMount"] == "Unmasked" && spec["hostUsers"] != false {
        let words = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(join(path, "procMount"), "Unmasked", words));
    }
    seccomp(context, path, errors);
    if context["allowPrivilegeEscalation"] == false {
        let added = list(&context["capabilities"], "add");
        let reasons = [
            (context["privileged"] == true, "`privileged` to true"),
            (added.iter().any(|name| name == "CAP_SYS_ADMIN"), "`capabilities.Add` CAP_SYS_ADMIN"),
        ];
        for (_, reason) in reasons.iter().filter(|(holds, _)| *holds) {
            let words = format!("cannot set `allowPrivilegeEscalation` to false and {reason}");
            errors.push(FieldError::invalid(path, context.clone(), words));
        }
    }
    windows(context, path, errors);
    app_armor(context, path, errors);
}

fn ids(context: &Value, path: &str, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&context[field], join(path, field), errors);
    }
}

fn id(id: &Value, path: String, errors: &mut Errors) {
    if id.as_i64().is_some_and(|id| !(0..=2_147_483_647).contains(&id)) {
        errors.push(FieldError::invalid(path, id.clone(), "must be between 0 and 2147483647, inclusive"));
    }
}

fn seccomp(context: &Value, path: &str, errors: &mut Errors) {
    let (profile, path) = (&context["seccompProfile"], join(path, "seccompProfile"));
    if !profile.is_object() {
        return;
    }
    let (type_, local) = (text(profile, "type"), text(profile, "localhostProfile"));
    match type_ {
        "" => errors.push(FieldError::required(join(&path, "type"), "type is required when seccompProfile is set")),
        "Localhost" if local.is_empty() => {
            let words = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(join(&path, "localhostProfile"), words));
        }
        "Localhost" => super::mounts::descends(local, &join(&path, "localhostProfile"), errors),
        _ if !profile["localhostProfile"].is_null() => {
            let words = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(join(&path, "localhostProfile"), profile.clone(), words));
        }
        _ => {}
    }
    one_of(profile, "type", &path, &PROFILES, errors);
}

fn app_armor(context: &Value, path: &str, errors: &mut Errors) {
    let (profile, path) = (&context["appArmorProfile"], join(path, "appArmorProfile"));
    if !profile.is_object() {
        return;
    }
    let at = join(&path, "localhostProfile");
    let local = profile["localhostProfile"].as_str();
    match (text(profile, "type"), local) {
        ("Localhost", None) => errors.push(FieldError::required(at, "must be set when AppArmor type is Localhost")),
        ("Localhost", Some(local)) => {
            if local.trim() != local {
                errors.push(FieldError::invalid(at.as_str(), local, "must not be padded with whitespace"));
            } else if local.is_empty() {
                errors.push(FieldError::required(at.as_str(), "must be set when AppArmor type is Localhost"));
            }
            if local.len() > PROFILE_BYTES_MAX {
                errors.push(FieldError::too_long(at, PROFILE_BYTES_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            errors.push(FieldError::invalid(at, local, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            let words = "type is required when appArmorProfile is set";
            errors.push(FieldError::required(join(&path, "type"), words));
        }
        (other, _) => errors.push(FieldError::not_supported(join(&path, "type"), other, &PROFILES)),
    }
}

fn windows(context: &Value, path: &str, errors: &mut Errors) {
    let (options, path) = (&context["windowsOptions"], join(path, "windowsOptions"));
    for field in ["gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName"] {
        if options[field] == "" {
            errors.push(FieldError::invalid(join(&path, field), "", format!("{field} cannot be an empty string")));
        }
    }
}

fn sysctls(spec: &Value, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, sysctl) in list(&spec["securityContext"], "sysctls").iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Some(name) = required(sysctl, "name", &path, errors) else { continue };
        let path = join(&path, "name");
        if name.len() > SYSCTL_BYTES_MAX || !is_sysctl(name) {
            let rule = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            let words = format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {rule}");
            errors.push(FieldError::invalid(path.as_str(), name, words));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.as_str(), name));
        }
        let shared = [("hostNetwork", "net"), ("hostIPC", "kernel"), ("hostIPC", "fs")];
        for (field, space) in shared {
            let dotted = name.replace('/', ".");
            let inside = match space {
                "net" => dotted.starts_with("net."),
                "fs" => dotted.starts_with("fs.mqueue."),
                _ => ["kernel.shm", "kernel.msg", "kernel.sem"].iter().any(|start| dotted.starts_with(start)),
            };
            if inside && spec[field] == true {
                let words = format!("may not be specified when '{field}' is true");
                errors.push(FieldError::invalid(path.as_str(), name, words));
            }
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let word = |word: &str| {
        let bytes = word.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    name.split(['.', '/']).all(word)
}

/// What a pod with users of its own cannot share with its host.
fn own_users(spec: &Value, path: &str, errors: &mut Errors) {
    if spec["hostUsers"] != false {
        return;
    }
    const WORDS: &str = "when `hostUsers` is false";
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[field] == true {
            errors.push(FieldError::forbidden(join(path, field), WORDS));
        }
    }
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in list(spec, kind).iter().enumerate() {
            if !list(container, "volumeDevices").is_empty() {
                errors.push(FieldError::forbidden(format!("{path}.{kind}[{at}].volumeDevices"), WORDS));
            }
        }
    }
}

/// `spec.os`: its name, and what the other system's pods may not have.
pub fn system(spec: &Value, path: &str, errors: &mut Errors) {
    if !spec["os"].is_object() {
        return;
    }
    let at = join(path, "os.name");
    match text(&spec["os"], "name") {
        "" => errors.push(FieldError::required(at, "cannot be empty")),
        "linux" => linux(spec, path, errors),
        "windows" => {}
        other => errors.push(FieldError::not_supported(at, json!(other), &["linux", "windows"])),
    }
}

fn linux(spec: &Value, path: &str, errors: &mut Errors) {
    let words = "windows options cannot be set for a linux pod";
    let mut check = |holder: &Value, path: &str| {
        if !map(holder, "securityContext").get("windowsOptions").is_none_or(Value::is_null) {
            errors.push(FieldError::forbidden(format!("{path}.securityContext.windowsOptions"), words));
        }
    };
    check(spec, path);
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in list(spec, kind).iter().enumerate() {
            check(container, &format!("{path}.{kind}[{at}]"));
        }
    }
}
