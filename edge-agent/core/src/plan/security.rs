//! Who a container runs as and what the kernel lets it do.
//!
//! In: pod and container securityContext, the image's user. Out: plain settings, container before pod.
//! Never: guesses numbers for names; the runtime resolves a user name inside the container's root.

use super::ImageFacts;
use crate::api::{Container, Pod, PodSpec, SeccompProfile};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserPlan {
    /// From the manifest; wins over `image_user`.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// `user`, `user:group`, `uid`, `uid:gid` or empty, as the image says.
    pub image_user: String,
    pub supplemental_groups: Vec<u32>,
    pub fs_group: Option<u32>,
    /// `supplementalGroupsPolicy: Strict`: the image's /etc/group adds none.
    pub strict_groups: bool,
    /// The runtime refuses to start as user 0 once it has resolved names.
    pub must_not_be_root: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SecurityPlan {
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    /// Names without `CAP_`, upper case; `ALL` is possible.
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub seccomp: SeccompPlan,
    pub app_armor: AppArmorPlan,
    /// /proc without masked and read-only paths.
    pub proc_unmasked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum SeccompPlan {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A file below the agent's directory of profiles.
    Localhost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AppArmorPlan {
    /// Nothing was said: the runtime's profile where there is one.
    #[default]
    Unsaid,
    /// The runtime's profile, or no container.
    RuntimeDefault,
    Unconfined,
    /// A profile that is loaded in the kernel.
    Localhost(String),
}

fn id(what: &str, number: i64) -> Result<u32, String> {
    // User ids past i32 wrapped to root in other runtimes.
    u32::try_from(number)
        .ok()
        .filter(|n| *n <= i32::MAX as u32)
        .ok_or_else(|| format!("{what} {number} must be between 0 and 2147483647"))
}

pub(super) fn user(pod: &Pod, container: &Container, image: &ImageFacts) -> Result<UserPlan, String> {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let uid = own.run_as_user.or(shared.run_as_user).map(|n| id("runAsUser", n)).transpose()?;
    let gid = own.run_as_group.or(shared.run_as_group).map(|n| id("runAsGroup", n)).transpose()?;
    let must_not_be_root = own.run_as_non_root.or(shared.run_as_non_root).unwrap_or(false);
    if must_not_be_root {
        let m = &pod.metadata;
        let whose = format!("(pod: \"{}_{}({})\", container: {})", m.name, m.namespace, m.uid, container.name);
        let name = image.user.split(':').next().unwrap_or("");
        match (uid, name.parse::<u32>()) {
            (Some(0), _) => return Err(format!("container's runAsUser breaks non-root policy {whose}")),
            (Some(_), _) => {}
            (None, Ok(0)) => {
                return Err(format!("container has runAsNonRoot and image will run as root {whose}"));
            }
            (None, Ok(_)) => {}
            (None, Err(_)) if name.is_empty() => {
                return Err(format!("container has runAsNonRoot and image will run as root {whose}"));
            }
            (None, Err(_)) => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is \
                     non-root {whose}"
                ));
            }
        }
    }
    let mut groups = Vec::new();
    for group in shared.supplemental_groups.iter().chain(&shared.fs_group) {
        groups.push(id("group", *group)?);
    }
    Ok(UserPlan {
        uid,
        gid,
        image_user: image.user.clone(),
        supplemental_groups: groups,
        strict_groups: shared.supplemental_groups_policy.as_deref() == Some("Strict"),
        fs_group: shared.fs_group.map(|n| id("fsGroup", n)).transpose()?,
        must_not_be_root,
    })
}

pub(super) fn plan(spec: &PodSpec, container: &Container) -> SecurityPlan {
    let own = &container.security_context;
    let privileged = own.privileged.unwrap_or(false);
    let clean = |list: &[String]| -> Vec<String> {
        let upper = list.iter().map(|c| c.to_ascii_uppercase());
        upper.map(|c| c.strip_prefix("CAP_").map(String::from).unwrap_or(c)).collect()
    };
    let profile = own.seccomp_profile.as_ref().or(spec.security_context.seccomp_profile.as_ref());
    SecurityPlan {
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        capabilities_add: clean(&own.capabilities.add),
        capabilities_drop: clean(&own.capabilities.drop),
        seccomp: seccomp(profile, privileged),
        app_armor: app_armor(spec, container),
        proc_unmasked: own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

/// Without a word in the manifest the runtime's profile holds: safer than kubelet's default, and Docker's.
fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> SeccompPlan {
    match profile {
        _ if privileged => SeccompPlan::Unconfined,
        Some(p) if p.type_ == "Unconfined" => SeccompPlan::Unconfined,
        Some(p) if p.type_ == "Localhost" => {
            SeccompPlan::Localhost(p.localhost_profile.clone().unwrap_or_default())
        }
        _ => SeccompPlan::RuntimeDefault,
    }
}

/// As kubelet: the container's field, the pod's, and the annotation of the years before 1.30 is read by the hub.
pub(crate) fn app_armor(spec: &PodSpec, container: &Container) -> AppArmorPlan {
    let privileged = container.security_context.privileged.unwrap_or(false);
    let own = container.security_context.app_armor_profile.as_ref();
    match own.or(spec.security_context.app_armor_profile.as_ref()) {
        Some(p) if p.type_ == "Localhost" => AppArmorPlan::Localhost(p.localhost_profile.clone().unwrap_or_default()),
        Some(p) if p.type_ == "Unconfined" => AppArmorPlan::Unconfined,
        _ if privileged => AppArmorPlan::Unconfined,
        Some(_) => AppArmorPlan::RuntimeDefault,
        None => AppArmorPlan::Unsaid,
    }
}
