//! What a container sees mounted.
//!
//! In: volumeMounts, the variables for `subPathExpr`. Out: mounts in the order in which they are made.
//! Never: a subPath that climbs out; the runtime checks again against links.

use super::expand::expand_or;
use crate::api::{Container, PodSpec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute path in the container.
    pub destination: String,
    pub source: MountSource,
    pub read_only: bool,
    pub propagation: Propagation,
    /// What is mounted below is read-only too.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// Files of images are not executed from volumes.
    #[serde(default)]
    pub no_exec: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A volume of the pod by name; `sub_path` is relative and empty for the whole volume.
    Volume { name: String, sub_path: String },
    EtcHosts,
    EtcHostname,
    ResolvConf,
    TerminationLog,
    /// The pod's shared memory.
    Shm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

pub(super) fn plan(
    spec: &PodSpec,
    container: &Container,
    variables: &[(String, String)],
) -> Result<Vec<MountPlan>, String> {
    let mut mounts = Vec::new();
    for mount in &container.volume_mounts {
        let Some(volume) = spec.volumes.iter().find(|v| v.name == mount.name) else {
            return Err(format!("volume mount \"{}\" has no volume in the pod", mount.name));
        };
        let sub_path = match mount.sub_path_expr.as_str() {
            "" => mount.sub_path.clone(),
            expr => expanded(expr, variables)?,
        };
        if sub_path.starts_with('/') {
            return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
        }
        if sub_path.split('/').any(|part| part == "..") {
            return Err(format!("unable to provision SubPath `{sub_path}`: must not contain '..'"));
        }
        mounts.push(MountPlan {
            destination: absolute(&mount.mount_path),
            source: MountSource::Volume { name: mount.name.clone(), sub_path },
            read_only: mount.read_only || volume.is_only_read() || volume.claim("").is_some_and(|(_, only)| only),
            recursive_read_only: mount.recurses(),
            no_exec: volume.image.is_some(),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    let message = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    let own = [
        ("/etc/hosts", MountSource::EtcHosts),
        ("/etc/hostname", MountSource::EtcHostname),
        ("/etc/resolv.conf", MountSource::ResolvConf),
        ("/dev/shm", MountSource::Shm),
        (message.unwrap_or("/dev/termination-log"), MountSource::TerminationLog),
    ];
    for (path, source) in own {
        if !mounts.iter().any(|m| m.destination == path) {
            let propagation = Propagation::Private;
            mounts.push(MountPlan {
                destination: path.into(),
                source,
                read_only: false,
                propagation,
                recursive_read_only: false,
                no_exec: false,
            });
        }
    }
    // A mount below another must come after it.
    mounts.sort_by_key(|m| m.destination.split('/').filter(|p| !p.is_empty()).count());
    Ok(mounts)
}

/// An empty value is as good as none: it would be the whole volume, which others may share.
fn expanded(expr: &str, variables: &[(String, String)]) -> Result<String, String> {
    let mut missing = std::collections::BTreeSet::new();
    let given: Vec<(String, String)> = variables.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    let path = expand_or(expr, &given, &mut |name| {
        missing.insert(name.to_string());
    });
    match missing.is_empty() {
        true => Ok(path),
        false => Err(format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", "))),
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
}
