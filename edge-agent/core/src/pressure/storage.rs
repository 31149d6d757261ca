//! Pods that keep more on the disk than they may.
//!
//! In: limits of the pod's spec, what its containers and volumes use. Out: kubelet's sentence for the eviction.
//! Never: counts an emptyDir in memory (the kernel holds that limit).

use crate::{
    api::{Container, PodSpec, Quantity, Volume},
    plan::effective,
};
use std::collections::BTreeMap;

/// Bytes on disk, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageUse {
    /// Writable layer and logs.
    pub containers: BTreeMap<String, u64>,
    /// emptyDir volumes on disk.
    pub volumes: BTreeMap<String, u64>,
}

/// Whether it makes sense to measure this pod at all.
pub fn is_limited(spec: &PodSpec) -> bool {
    spec.volumes.iter().any(|v| size(v).is_some())
        || spec.containers.iter().chain(&spec.init_containers).any(|c| limit(c).is_some())
}

/// The first limit that is passed: of a volume, of the whole pod, of a container.
pub fn excess(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    volume(spec, used).or_else(|| pod(spec, used)).or_else(|| container(spec, used))
}

fn volume(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    spec.volumes.iter().find_map(|v| {
        let (most, text) = size(v)?;
        let over = *used.volumes.get(&v.name)? > most;
        over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{text}\". ", v.name))
    })
}

/// The pod's limit is what its containers' come to, also when some have none.
fn pod(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    let all = || spec.containers.iter().chain(&spec.init_containers);
    all().find_map(|c| limit(c))?;
    let bytes = |c: &Container| limit(c).and_then(|(bytes, _)| i64::try_from(bytes).ok()).unwrap_or(0);
    let sum = u64::try_from(effective(spec, &bytes)).unwrap_or(0);
    let total = used.containers.values().chain(used.volumes.values()).sum::<u64>();
    (total > sum).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {}. ", crate::quantity::binary(sum))
    })
}

fn container(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    spec.containers.iter().find_map(|c| {
        let (most, text) = limit(c)?;
        let over = *used.containers.get(&c.name)? > most;
        over.then(|| format!("Container {} exceeded its local ephemeral storage limit \"{text}\". ", c.name))
    })
}

fn limit(container: &Container) -> Option<(u64, String)> {
    container.resources.limits.get("ephemeral-storage").and_then(amount)
}

fn size(volume: &Volume) -> Option<(u64, String)> {
    volume.empty_dir.as_ref().filter(|e| e.medium != "Memory")?.size_limit.as_ref().and_then(amount)
}

/// Nought is no limit.
fn amount(of: &Quantity) -> Option<(u64, String)> {
    Some((u64::try_from(of.value()?).ok().filter(|bytes| *bytes > 0)?, of.text()))
}
