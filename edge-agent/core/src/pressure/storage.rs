//! Pods that keep more on the disk than they may.
//!
//! In: limits of the pod's spec, what its containers and volumes use. Out: kubelet's sentence for the eviction.
//! Never: counts an emptyDir in memory (the kernel holds that limit).

use crate::api::{Container, PodSpec, Quantity};
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
    spec.volumes.iter().any(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium != "Memory" && e.size_limit.is_some()))
        || spec.containers.iter().chain(&spec.init_containers).any(|c| limit(c).is_some())
}

/// The first limit that is passed: of a volume, of the whole pod, of a container.
pub fn excess(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    volume(spec, used).or_else(|| pod(spec, used)).or_else(|| container(spec, used))
}

fn volume(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    spec.volumes.iter().find_map(|v| {
        let wanted = v.empty_dir.as_ref().filter(|e| e.medium != "Memory")?.size_limit.as_ref()?;
        let most = u64::try_from(wanted.value()?).ok()?;
        let over = *used.volumes.get(&v.name)? > most;
        over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", v.name, wanted.text()))
    })
}

/// Only when every container has a limit is there one of the pod.
fn pod(spec: &PodSpec, used: &StorageUse) -> Option<String> {
    let sum: u64 = spec.containers.iter().map(|c| limit(c).map(|(bytes, _)| bytes)).sum::<Option<u64>>()?;
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
    let wanted = container.resources.limits.get("ephemeral-storage")?;
    Some((u64::try_from(Quantity::value(wanted)?).ok()?, wanted.text()))
}
