//! Which pod has which users of the host, for pods with `hostUsers: false`.
//!
//! In: sandboxes, the ranges that others have by /etc/subuid and /etc/subgid. Out: the first of 65,536 ids for a pod.
//! As kubelet: every pod its own, aligned, nothing below 65,536. Nothing on a disk belongs to them (mounts are mapped), so
//! that a range means nothing any more when its pod is gone. Never: the same range twice.

use super::spec::{IDS_PER_POD, SandboxSpec};
use super::{Runtime, RuntimeError, lock, rt};
use std::collections::BTreeMap;

/// The last one holds ids that are no ids (-1) or past i32, which programs cannot be trusted with.
const RANGES: std::ops::Range<u32> = 1..0x7fff;

pub type Ids = BTreeMap<String, u32>;

impl Runtime {
    /// The first id of a pod; the same again for the same pod.
    pub(super) fn lease_ids(&self, pod_uid: &str) -> Result<u32, RuntimeError> {
        let mut ids = lock(&self.shared.ids);
        if let Some(first) = ids.get(pod_uid) {
            return Ok(*first);
        }
        let files = ["/etc/subuid", "/etc/subgid"];
        let foreign: Vec<(u32, u32)> = files.iter().flat_map(|path| ranges(&crate::device::host_file(path))).collect();
        let first = free(&ids, &foreign).ok_or_else(|| {
            RuntimeError::Create("every range of 65536 user ids is taken: see /etc/subuid and /etc/subgid".into())
        })?;
        ids.insert(pod_uid.to_owned(), first);
        Ok(first)
    }

    pub(super) fn ids_of(&self, pod_uid: &str) -> Option<u32> {
        lock(&self.shared.ids).get(pod_uid).copied()
    }

    pub(super) fn release_ids(&self, pod_uid: &str) {
        lock(&self.shared.ids).remove(pod_uid);
    }

    /// What the sandboxes of the agent before this one have.
    pub(super) fn restore_ids(&self) {
        let run_dir = &self.shared.options.run_dir;
        let specs = self.list_sandboxes().into_iter().filter_map(|uid| rt::sandbox::read(run_dir, &uid).ok());
        let held = specs.filter_map(|spec: SandboxSpec| Some((spec.pod_uid.clone(), spec.first_id?)));
        lock(&self.shared.ids).extend(held);
    }
}

fn free(taken: &Ids, foreign: &[(u32, u32)]) -> Option<u32> {
    let firsts = RANGES.map(|index| index * IDS_PER_POD);
    let overlaps = |first: u32| {
        foreign.iter().any(|(start, count)| *start < first + IDS_PER_POD && first < start.saturating_add(*count))
    };
    let mut free = firsts.filter(|first| !taken.values().any(|held| held == first) && !overlaps(*first));
    free.next()
}

/// Lines `name:first:count` of subuid(5).
fn ranges(text: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut parts = line.trim().split(':').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_nobody_elses() {
        let foreign = ranges("# who: what\nann:100000:65536\nbroken\nbob:1:x\nlong:4294967295:9\n");
        assert_eq!(foreign, [(100_000, 65_536), (u32::MAX, 9)]);
        // 65536.. and 131072.. both hold a part of ann's.
        assert_eq!(free(&Ids::new(), &foreign), Some(196_608));
        assert_eq!(free(&Ids::new(), &[]), Some(65_536));
        let taken = Ids::from([("a".into(), 65_536), ("b".into(), 196_608)]);
        assert_eq!(free(&taken, &[]), Some(131_072));
        assert_eq!(free(&taken, &[(0, u32::MAX)]), None);
    }
}
