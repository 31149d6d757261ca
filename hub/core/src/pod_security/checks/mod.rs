//! All checks, in the order in which upstream reports them.
//!
//! In: a pod. Out: at most one violation a check. Adding a check is adding a row here and a function in its file.
//! Never: looks at anything but the pod.

mod host;
mod privilege;
mod profiles;
mod volumes;

use super::{Level, Version, Violation};
use serde_json::Value;

/// The parts of a pod that checks look at.
pub struct Pod<'a> {
    pub annotations: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    pub fn new(pod: &'a Value) -> Pod<'a> {
        Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
    }

    pub fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// The pod's own users are not those of the host.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == Value::Bool(false)
    }

    pub fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

/// Which levels a check belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Belongs {
    /// Baseline, and restricted too.
    Baseline,
    /// Baseline only: the restricted level has a stricter one in its place.
    BaselineOnly,
    Restricted,
}

pub struct Check {
    belongs: Belongs,
    /// The minor it came with.
    since: u32,
    pub run: fn(&Pod<'_>, Version) -> Option<Violation>,
}

impl Check {
    const fn new(belongs: Belongs, since: u32, run: fn(&Pod<'_>, Version) -> Option<Violation>) -> Check {
        Check { belongs, since, run }
    }

    pub fn applies(&self, level: Level, version: Version) -> bool {
        let belongs = match self.belongs {
            Belongs::Baseline => level >= Level::Baseline,
            Belongs::BaselineOnly => level == Level::Baseline,
            Belongs::Restricted => level == Level::Restricted,
        };
        belongs && version.has(self.since)
    }
}

use Belongs::{Baseline, BaselineOnly, Restricted};

pub const ALL: &[Check] = &[
    Check::new(Restricted, 8, privilege::allow_privilege_escalation),
    Check::new(Baseline, 0, profiles::app_armor),
    Check::new(BaselineOnly, 0, privilege::capabilities_baseline),
    Check::new(Restricted, 22, privilege::capabilities_restricted),
    Check::new(Baseline, 0, host::namespaces),
    Check::new(BaselineOnly, 0, volumes::host_path),
    Check::new(Baseline, 0, host::ports),
    Check::new(Baseline, 34, host::probes),
    Check::new(Baseline, 0, privilege::privileged),
    Check::new(Baseline, 0, privilege::proc_mount),
    Check::new(Restricted, 0, volumes::restricted),
    Check::new(Restricted, 0, privilege::run_as_non_root),
    Check::new(Restricted, 23, privilege::run_as_user),
    Check::new(Baseline, 0, profiles::selinux),
    Check::new(BaselineOnly, 0, profiles::seccomp_baseline),
    Check::new(Restricted, 19, profiles::seccomp_restricted),
    Check::new(Baseline, 0, host::sysctls),
    Check::new(Baseline, 0, host::windows_process),
];

pub(super) fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}
