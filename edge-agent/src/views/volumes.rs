//! What is left in the pods' volumes, in kubelet's names: `kubelet_volume_stats_*` of claims, `volume` of `/stats/summary`.
//!
//! In: the directories of volumes, their file systems. Out: samples and JSON. Never: walks the files of a claim: those may be
//! many and the page is asked for often; as with kubelet's `local` volumes the figures are those of the file system.

use super::{PodMeasured, PodSubject, text::Text};
use crate::device::{
    disk_use,
    machine::{self, Fs},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf};

/// A volume of a pod that has a directory on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeSubject {
    /// As in the pod's spec.
    pub name: String,
    /// The claim that it is, in the pod's namespace. `None`: it is the pod's own and goes with it.
    pub claim: Option<String>,
    pub dir: PathBuf,
}

/// `None` where there is nothing to measure. `walk`: also what is in directories of pods' own.
pub fn measure(volume: &VolumeSubject, walk: bool) -> Option<Fs> {
    if !walk && volume.claim.is_none() {
        return None;
    }
    let mut fs = Some(machine::file_system(&volume.dir)).filter(|fs| fs.capacity > 0)?;
    if volume.claim.is_none() {
        (fs.used, fs.inodes_used) = disk_use(&volume.dir);
    }
    Some(fs)
}

type Family = (&'static str, &'static str, fn(&Fs) -> u64);

const FAMILIES: [Family; 6] = [
    ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Size of the claim's volume in bytes.", |fs| fs.capacity),
    ("kubelet_volume_stats_available_bytes", "[ALPHA] Bytes that can still be written to it.", |fs| fs.available),
    ("kubelet_volume_stats_used_bytes", "[ALPHA] Bytes in use.", |fs| fs.used),
    ("kubelet_volume_stats_inodes", "[ALPHA] Most files that it can hold.", |fs| fs.inodes),
    ("kubelet_volume_stats_inodes_free", "[ALPHA] Files that can still be made.", |fs| fs.inodes_free),
    ("kubelet_volume_stats_inodes_used", "[ALPHA] Files that it has.", |fs| fs.inodes_used),
];

/// One line for each claim, however many pods have it.
pub fn metrics(t: &mut Text, pods: &[PodSubject], measured: &[PodMeasured]) {
    let mut seen = BTreeSet::new();
    let mut claims = Vec::new();
    for (pod, m) in pods.iter().zip(measured) {
        for (volume, fs) in pod.volumes.iter().zip(&m.volumes) {
            if let (Some(claim), Some(fs)) = (&volume.claim, fs)
                && seen.insert((&pod.namespace, claim))
            {
                claims.push(([("namespace", pod.namespace.as_str()), ("persistentvolumeclaim", claim.as_str())], fs));
            }
        }
    }
    for (name, help, of) in FAMILIES.into_iter().filter(|_| !claims.is_empty()) {
        t.family(name, "gauge", help);
        claims.iter().for_each(|(labels, fs)| t.sample(name, labels, of(fs)));
    }
}

/// The pod's `volume` list.
pub fn summary(pod: &PodSubject, measured: &PodMeasured, time: &str) -> Vec<Value> {
    let one = |(volume, fs): (&VolumeSubject, &Option<Fs>)| {
        let fs = fs.as_ref()?;
        let mut value = json!({
            "time": time, "name": volume.name, "availableBytes": fs.available, "capacityBytes": fs.capacity,
            "usedBytes": fs.used, "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": fs.inodes_used,
        });
        if let Some(claim) = &volume.claim {
            value["pvcRef"] = json!({"name": claim, "namespace": pod.namespace});
        }
        Some(value)
    };
    pod.volumes.iter().zip(&measured.volumes).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_once_and_own_directories_by_what_is_in_them() {
        let dir = std::env::temp_dir().join(format!("limpet-volume-stats-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/file"), vec![7; 100_000]).unwrap();
        let volume = |name: &str, claim: Option<&str>, dir: &PathBuf| VolumeSubject {
            name: name.into(),
            claim: claim.map(String::from),
            dir: dir.clone(),
        };
        let gone = volume("gone", Some("x"), &dir.join("none"));
        let all = vec![volume("data", Some("shelf"), &dir), volume("own", None, &dir), gone];
        let pod = |name: &str| PodSubject {
            namespace: "farm".into(),
            name: name.into(),
            volumes: all.clone(),
            ..PodSubject::default()
        };
        let pods = [pod("a"), pod("b")];
        let look = |walk| {
            let one = |pod: &PodSubject| PodMeasured {
                volumes: pod.volumes.iter().map(|v| measure(v, walk)).collect(),
                ..PodMeasured::default()
            };
            pods.iter().map(one).collect::<Vec<_>>()
        };
        let few = look(false);
        assert!(few[0].volumes[0].is_some() && few[0].volumes[1].is_none() && few[0].volumes[2].is_none());
        let mut text = Text::default();
        metrics(&mut text, &pods, &few);
        let text = String::from_utf8(text.into_bytes()).unwrap();
        let labels = "{namespace=\"farm\",persistentvolumeclaim=\"shelf\"} ";
        let value = |name: &str| -> u64 {
            let lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(&format!("{name}{labels}"))).collect();
            assert_eq!(lines.len(), 1, "{name}: {text}");
            lines[0].parse().unwrap()
        };
        let [capacity, available, used, inodes, free, taken] = FAMILIES.map(|(name, ..)| value(name));
        assert!(capacity >= used + available && used > 0 && inodes == free + taken, "{text}");
        assert!(!text.contains("\"x\""), "{text}");

        let told = summary(&pods[0], &look(true)[0], "T");
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((&told[0]["name"], &told[0]["pvcRef"]), (&json!("data"), &json!({"name": "shelf", "namespace": "farm"})));
        assert_eq!((&told[1]["name"], &told[1]["pvcRef"], &told[1]["inodesUsed"]), (&json!("own"), &Value::Null, &json!(2)));
        let bytes = told[1]["usedBytes"].as_u64().unwrap();
        assert!((100_000..200_000).contains(&bytes), "{told:?}");
        let mut none = Text::default();
        metrics(&mut none, &[], &[]);
        assert!(none.into_bytes().is_empty(), "a node without claims has no such family");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
