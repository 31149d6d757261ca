//! What each volume of a pod holds.
//!
//! In: the pod's volumes, ConfigMaps, Secrets, tokens and the downward API. Out: directories to make, host paths to
//! bind, files with content and mode; or, per volume, kubelet's sentence why not.
//! Never: touches a file; a path that leaves the volume is refused.

mod released;

pub use released::{Released, released};

use crate::{
    api::{self, ConfigMap, DownwardSource, KeyToPath, Secret, Volume},
    plan::{Context, field_value, resource_value},
    pods::{
        PullPolicy,
        image::{pull_policy, pull_secrets},
    },
    sync::Items,
};
use limpet_protocol::{ItemHash, ItemKey, ItemKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One volume, ready to be made. The shell makes `Files` by an atomic swap of a link, as kubelet does (`..data`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumePlan {
    pub name: String,
    pub content: VolumeContent,
    /// Group that owns the files (`fsGroup`).
    pub group: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VolumeContent {
    /// `memory`: a tmpfs. Both limits in bytes.
    EmptyDir { memory: bool, limit_bytes: Option<u64> },
    /// Pages of this many bytes (0: the kernel's usual large ones), limited by the pod's own limit of them.
    HugePages { page_bytes: u64 },
    /// Files of an image, to read. `secrets` as of a container's image.
    Image { reference: String, policy: PullPolicy, secrets: Vec<Vec<u8>> },
    /// `kind` is the manifest's type: "", Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice.
    HostPath { path: String, kind: String },
    /// A directory that stays when the pod goes. `make`: it is this node's to make. `owned`: whether the group owns all of
    /// it is looked at `always`, or only when its top says otherwise.
    Persistent { path: String, make: bool, owned_always: bool },
    /// A block device.
    Block { path: String },
    /// `secret`: keep in memory only. Files in order of path.
    Files { files: Vec<VolumeFile>, secret: bool },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Relative, without `..`.
    pub path: String,
    pub mode: u32,
    /// User that owns it; the agent's own when absent.
    #[serde(default)]
    pub owner: Option<u32>,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:o}, {} bytes)", self.path, self.mode, self.bytes.len())
    }
}

/// A volume that cannot be made now. Tried again when the set changes, and from time to time.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeProblem {
    pub volume: String,
    pub message: String,
    /// Only a token is missing, which the hub sends a moment after the pod.
    pub token_missing: bool,
}

const TOKEN_MISSING: &str = "failed to fetch token: the hub has not sent one yet";

impl VolumePlan {
    /// Changes when the content does.
    pub fn hash(&self) -> ItemHash {
        ItemHash::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    pub fn is_files(&self) -> bool {
        matches!(self.content, VolumeContent::Files { .. })
    }
}

/// Plans of all volumes of the pod, and the problems of those that cannot be made.
pub fn plan(context: &Context<'_>, items: &Items) -> (Vec<VolumePlan>, Vec<VolumeProblem>) {
    let (mut plans, mut problems) = (Vec::new(), Vec::new());
    let group = context.pod.spec.security_context.fs_group.and_then(|g| u32::try_from(g).ok());
    for volume in &context.pod.spec.volumes {
        match content(context, items, volume) {
            Ok(content) => plans.push(VolumePlan { name: volume.name.clone(), content, group }),
            Err(message) => {
                let token_missing = message == TOKEN_MISSING;
                problems.push(VolumeProblem { volume: volume.name.clone(), message, token_missing });
            }
        }
    }
    (plans, problems)
}

/// Keys of the set that the pod's volumes read: a change in one of them means `plan` again.
pub fn reads(pod: &api::Pod, key: &ItemKey) -> bool {
    if key.kind == ItemKind::Token {
        return key.name.starts_with(&format!("{}.", pod.metadata.uid));
    }
    if key.namespace != pod.metadata.namespace {
        return false;
    }
    let config = |c: &Option<Box<api::ConfigMapSource>>| c.as_ref().is_some_and(|c| c.name == key.name);
    let secret = |s: &Option<Box<api::SecretSource>>| s.as_ref().is_some_and(|s| s.object_name() == key.name);
    let projections = |v: &Volume, is: &dyn Fn(&api::Projection) -> bool| {
        v.projected.as_ref().is_some_and(|p| p.sources.iter().any(is))
    };
    pod.spec.volumes.iter().any(|v| match key.kind {
        ItemKind::Claim => v.claim(&pod.metadata.name).is_some_and(|(name, _)| name == key.name),
        ItemKind::ConfigMap => config(&v.config_map) || projections(v, &|p| config(&p.config_map)),
        ItemKind::Secret => secret(&v.secret) || projections(v, &|p| secret(&p.secret)),
        _ => false,
    })
}

/// A volume of a pod that is a claim with a directory of this node behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// As in the pod's spec.
    pub volume: String,
    pub claim: String,
    pub path: String,
}

/// The claims of a pod that are bound. Block devices are none: they have no file system of their own to tell of.
pub fn claimed(pod: &api::Pod, items: &Items) -> Vec<Claimed> {
    let one = |volume: &Volume| {
        let (claim, _) = volume.claim(&pod.metadata.name)?;
        let spec = items.read::<api::PersistentVolume>(ItemKind::Claim, &pod.metadata.namespace, &claim)?.spec;
        if spec.volume_mode == "Block" {
            return None;
        }
        let path = spec.host_path.map(|h| h.path).or_else(|| spec.local.map(|l| l.path))?;
        Some(Claimed { volume: volume.name.clone(), claim, path })
    };
    pod.spec.volumes.iter().filter_map(one).collect()
}

/// Name of the token item of a projection: `<pod uid>.<volume>.<index>`.
pub fn token_key(pod: &api::Pod, volume: &str, index: usize) -> ItemKey {
    let name = format!("{}.{volume}.{index}", pod.metadata.uid);
    ItemKey::new(ItemKind::Token, &pod.metadata.namespace, &name)
}

/// How much a volume in memory holds: what it says, but no more than its pod may have, or all pods of the node.
fn memory_of(context: &Context<'_>, own: Option<u64>) -> Option<u64> {
    let pod = crate::plan::pod_resources(&context.pod.spec).memory_limit_bytes;
    let all = [Some(context.host.allocatable_memory_bytes), pod].into_iter().flatten();
    all.filter_map(|bytes| u64::try_from(bytes).ok()).chain(own).filter(|bytes| *bytes > 0).min()
}

fn content(context: &Context<'_>, items: &Items, volume: &Volume) -> Result<VolumeContent, String> {
    let mut files = Files::default();
    if let Some(e) = &volume.empty_dir {
        let limit_bytes = e.size_limit.as_ref().and_then(|q| q.value()).and_then(|v| u64::try_from(v).ok());
        if let Some(size) = e.medium.strip_prefix("HugePages") {
            let page_bytes = match size.strip_prefix('-') {
                None => Some(0),
                Some(size) => crate::quantity::value(size).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            };
            let page_bytes = page_bytes.ok_or_else(|| format!("medium \"{}\" names no page size", e.medium))?;
            return Ok(VolumeContent::HugePages { page_bytes });
        }
        let memory = e.medium == "Memory";
        let limit_bytes = if memory { memory_of(context, limit_bytes) } else { limit_bytes };
        return Ok(VolumeContent::EmptyDir { memory, limit_bytes });
    }
    if let Some(h) = &volume.host_path {
        return Ok(VolumeContent::HostPath { path: h.path.clone(), kind: h.type_.clone() });
    }
    if let Some(image) = &volume.image {
        return Ok(VolumeContent::Image {
            reference: image.reference.clone(),
            policy: pull_policy(&image.reference, image.pull_policy.as_deref()),
            secrets: pull_secrets(context.pod, items),
        });
    }
    if let Some((claim, _)) = volume.claim(&context.pod.metadata.name) {
        return persistent(context, items, &claim);
    }
    let mut secret = false;
    if let Some(source) = &volume.config_map {
        files.default_mode = source.default_mode.unwrap_or(0o644);
        files.config_map(context, items, source)?;
    } else if let Some(source) = &volume.secret {
        secret = true;
        files.default_mode = source.default_mode.unwrap_or(0o644);
        files.secret(context, items, source)?;
    } else if let Some(source) = &volume.downward_api {
        files.default_mode = source.default_mode.unwrap_or(0o644);
        files.downward(context, source)?;
    } else if let Some(projected) = &volume.projected {
        files.default_mode = projected.default_mode.unwrap_or(0o644);
        for (index, source) in projected.sources.iter().enumerate() {
            let bundle = source.cluster_trust_bundle.as_ref().map(|_| "clusterTrustBundle");
            if let Some(kind) = bundle.or(source.pod_certificate.as_ref().map(|_| "podCertificate")) {
                return Err(format!("projected source {kind} is not supported by this node's agent; use a configMap or a secret"));
            }
            secret |= source.secret.is_some() || source.service_account_token.is_some();
            if let Some(c) = &source.config_map {
                files.config_map(context, items, c)?;
            }
            if let Some(s) = &source.secret {
                files.secret(context, items, s)?;
            }
            if let Some(d) = &source.downward_api {
                files.downward(context, d)?;
            }
            if let Some(t) = &source.service_account_token {
                files.token(context, items, (&volume.name, index), &t.path)?;
            }
        }
    } else {
        return Err("this volume type is not supported by this node's agent; use emptyDir, hostPath, configMap, \
                    secret, downwardAPI, projected, image or a claim"
            .into());
    }
    Ok(VolumeContent::Files { files: files.map.into_values().collect(), secret })
}

/// The volume behind a claim. Until the hub has bound it, the pod waits.
fn persistent(context: &Context<'_>, items: &Items, claim: &str) -> Result<VolumeContent, String> {
    let volume: Option<api::PersistentVolume> = items.read(ItemKind::Claim, &context.pod.metadata.namespace, claim);
    let spec = volume.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" is not bound to a volume of this node"))?.spec;
    let policy = context.pod.spec.security_context.fs_group_change_policy.as_deref();
    let owned_always = policy != Some("OnRootMismatch");
    match (spec.host_path, spec.local) {
        (Some(host), _) if spec.volume_mode == "Block" => Ok(VolumeContent::Block { path: host.path }),
        (None, Some(local)) if spec.volume_mode == "Block" => Ok(VolumeContent::Block { path: local.path }),
        (Some(host), _) => match host.type_.as_str() {
            "DirectoryOrCreate" => Ok(VolumeContent::Persistent { path: host.path, make: true, owned_always }),
            _ => Ok(VolumeContent::HostPath { path: host.path, kind: host.type_ }),
        },
        (None, Some(local)) => Ok(VolumeContent::Persistent { path: local.path, make: false, owned_always }),
        (None, None) => Err(format!("the volume of claim \"{claim}\" is of a type that this node's agent cannot mount; \
                                     use hostPath or local")),
    }
}

#[derive(Default)]
struct Files {
    default_mode: u32,
    map: BTreeMap<String, VolumeFile>,
}

/// The one user that all containers and init containers of the pod are set to run as. `None`: one of them says nothing, or
/// they differ. Ephemeral containers do not count: they come later.
fn one_user(spec: &api::PodSpec) -> Option<u32> {
    let of = |c: &api::Container| c.security_context.run_as_user.or(spec.security_context.run_as_user);
    let mut all = spec.init_containers.iter().chain(&spec.containers).map(|c| of(c));
    let first = all.next()??;
    all.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

impl Files {
    fn add(&mut self, path: &str, mode: Option<u32>, bytes: Vec<u8>) -> Result<&mut VolumeFile, String> {
        // `./a`, `a//b` and `a/` are what they mean.
        let clean = path.split('/').filter(|p| !matches!(*p, "" | ".")).collect::<Vec<_>>().join("/");
        let hostile = clean.is_empty()
            || path.starts_with('/')
            || path.len() > 4096
            || clean.split('/').any(|p| p == "..")
            || clean.starts_with("..");
        if hostile {
            return Err(format!("invalid path \"{path}\" in volume: must be relative, without '..'"));
        }
        let mode = mode.unwrap_or(self.default_mode) & 0o777;
        let file = self.map.entry(clean.clone()).or_default();
        *file = VolumeFile { path: clean, mode, owner: None, bytes };
        Ok(file)
    }

    /// All keys, or the chosen ones. `what` names the object in errors.
    fn pick(
        &mut self,
        mut entries: BTreeMap<&str, Vec<u8>>,
        wanted: &[KeyToPath],
        optional: bool,
    ) -> Result<(), String> {
        if wanted.is_empty() {
            return entries.into_iter().try_for_each(|(key, bytes)| self.add(key, None, bytes).map(|_| ()));
        }
        for item in wanted {
            match entries.get_mut(item.key.as_str()) {
                Some(bytes) => drop(self.add(&item.path, item.mode, bytes.clone())?),
                None if optional => {}
                None => return Err(format!("references non-existent config key: {}", item.key)),
            }
        }
        Ok(())
    }

    fn config_map(
        &mut self,
        context: &Context<'_>,
        items: &Items,
        source: &api::ConfigMapSource,
    ) -> Result<(), String> {
        match items.read::<ConfigMap>(ItemKind::ConfigMap, &context.pod.metadata.namespace, &source.name) {
            Some(map) => self
                .pick(map.entries(), &source.items, source.optional)
                .map_err(|e| format!("configmap {e}")),
            None if source.optional => Ok(()),
            None => Err(format!("configmap \"{}\" not found", source.name)),
        }
    }

    fn secret(&mut self, context: &Context<'_>, items: &Items, source: &api::SecretSource) -> Result<(), String> {
        let name = source.object_name();
        match items.read::<Secret>(ItemKind::Secret, &context.pod.metadata.namespace, name) {
            Some(secret) => self
                .pick(secret.entries(), &source.items, source.optional)
                .map_err(|e| e.replace("config key", "secret key")),
            None if source.optional => Ok(()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    fn downward(&mut self, context: &Context<'_>, source: &DownwardSource) -> Result<(), String> {
        for item in &source.items {
            let value = if let Some(field) = &item.field_ref {
                field_value(context, &field.field_path)
                    .ok_or_else(|| format!("unsupported fieldPath: {}", field.field_path))?
            } else if let Some(resource) = &item.resource_field_ref {
                let name = resource.container_name.clone().unwrap_or_default();
                let all = context.pod.spec.containers.iter().chain(&context.pod.spec.init_containers);
                let container = all.into_iter().find(|c| c.name == name);
                container
                    .and_then(|c| resource_value((context.pod, context.host), c, resource))
                    .ok_or_else(|| format!("cannot read {} of container \"{name}\"", resource.resource))?
            } else {
                continue;
            };
            self.add(&item.path, item.mode, value.into_bytes())?;
        }
        Ok(())
    }

    fn token(
        &mut self,
        context: &Context<'_>,
        items: &Items,
        (volume, index): (&str, usize),
        path: &str,
    ) -> Result<(), String> {
        let key = token_key(context.pod, volume, index);
        // An expired token is still mounted: the pod starts offline, and the hub sends a fresh one when it can.
        let token: Option<api::Token> = items.by_key(&key).and_then(|held| api::parse(&held.body()).ok());
        let token = token.ok_or(TOKEN_MISSING)?;
        // As kubelet: only its one user's where there is one; a group that owns the volume may read it besides.
        let owner = one_user(&context.pod.spec);
        let private = owner.is_some() || context.pod.spec.security_context.fs_group.is_some();
        self.add(path, private.then_some(0o600), token.token.into_bytes())?.owner = owner;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
