//! Watches what the board has left, and what pods keep on its disk.
//!
//! In: the board's own figures every ten seconds, the pods' use when something is short. Out: conditions, and `Evict`.
//! Never: walks files on the loop, or evicts a second pod before the first has had time to go.

use super::{Config, Paths, node, state::Agent};
use crate::{device, logs, volumes};
use limpet_agent_core::{
    Input,
    api::PodSpec,
    plan::container_id,
    pods::{PodView, Uid},
    pressure::{self, PodUse, Pressure, Shortage, Signal, StorageUse, Threshold},
};
use std::collections::BTreeMap;

const PERIOD_MS: u64 = 10_000;
/// After an eviction: so long the pod has to give back what it used.
const RECLAIM_MS: u64 = 5_000;
const PAUSE_MS: u64 = 20_000;
/// Kubelet's default; on boards where that is much, less.
const MEMORY_KEPT_BYTES: u64 = 100 << 20;
const MEMORY_KEPT_SHARE: u64 = 20;

/// What the loop keeps about it.
pub struct Watch {
    pub pressure: Pressure,
    pub at_ms: u64,
    evict_after_ms: u64,
    /// Images were removed for this shortage of disk; what is still missing pods have.
    reclaimed: bool,
    measuring: std::rc::Rc<std::cell::Cell<bool>>,
    measure_after_ms: u64,
}

impl Watch {
    pub fn new(config: &Config, paths: &Paths) -> Watch {
        let transition_ms = config.eviction_pressure_transition_seconds * 1000;
        Watch {
            pressure: Pressure::new(thresholds(config, paths), transition_ms),
            at_ms: 0,
            evict_after_ms: 0,
            reclaimed: false,
            measuring: std::rc::Rc::default(),
            measure_after_ms: 0,
        }
    }
}

fn thresholds(config: &Config, paths: &Paths) -> Vec<(Signal, Threshold)> {
    let all = device::left(Signal::Memory, &paths.data).all;
    let defaults = [
        (Signal::Memory, Threshold::Amount((all / MEMORY_KEPT_SHARE).min(MEMORY_KEPT_BYTES))),
        (Signal::Disk, Threshold::Amount(node::disk_bytes_wanted(&paths.data))),
        (Signal::Inodes, Threshold::Thousandths(50)),
        (Signal::Pids, Threshold::Thousandths(50)),
    ];
    let own = |signal: Signal| config.eviction_hard.get(signal.name()).and_then(|text| Threshold::parse(text));
    defaults.into_iter().map(|(signal, usual)| (signal, own(signal).unwrap_or(usual))).collect()
}

/// One pod, owned, for a measurement away from the loop.
struct Candidate {
    uid: Uid,
    spec: PodSpec,
}

impl Agent {
    pub(super) fn watch_pressure(&mut self) {
        let now = self.clock.mono_ms();
        if now < self.watch.at_ms {
            return;
        }
        self.watch.at_ms = now + PERIOD_MS;
        let before = self.watch.pressure.problems();
        let data = self.options.paths.data.clone();
        let short = self.watch.pressure.look(now, |signal| device::left(signal, &data));
        if self.watch.pressure.problems() != before {
            self.look_soon();
        }
        if short.is_empty() {
            self.watch.reclaimed = false;
            self.measure_limits(now);
        } else if now >= self.watch.evict_after_ms {
            self.relieve(now, &short);
        }
    }

    /// When to look again although nothing happens: only pods can use something up.
    pub(super) fn pressure_at(&self) -> Option<u64> {
        let has_pods = self.pods.pods().next().is_some();
        let end = self.watch.pressure.wake_at();
        (has_pods || end.is_some()).then_some(self.watch.at_ms)
    }

    fn relieve(&mut self, now: u64, short: &[Shortage]) {
        let Some(worst) = short.first().copied() else { return };
        let of_disk = matches!(worst.signal, Signal::Disk | Signal::Inodes);
        if of_disk && !std::mem::replace(&mut self.watch.reclaimed, true) {
            self.collect_images();
            // Their registries are asked first.
            self.watch.evict_after_ms = now + RECLAIM_MS;
            return;
        }
        self.watch.evict_after_ms = now + PAUSE_MS;
        if of_disk {
            return self.evict_for_disk(worst);
        }
        let live: Vec<_> = self.pods.pods().filter(|pod| pod.sandbox_ready && !pod.is_static).collect();
        let cgroups = self.hands.runtime.cgroups();
        let uses: Vec<PodUse<'_>> = live
            .iter()
            .map(|pod| {
                let of_group = |group: &String| cgroups.usage(group);
                let whole = cgroups.pod_groups(pod.uid).first().map(of_group).unwrap_or_default();
                let containers = pod.object.spec.containers.iter().filter_map(|c| {
                    let attempt = self.pods.container(pod.uid, &c.name)?.attempt?;
                    let group = cgroups.pod_groups(pod.uid).first()?.clone();
                    let usage = cgroups.usage(&format!("{group}/{}", container_id(pod.uid, &c.name, attempt)));
                    Some((c.name.as_str(), usage.working_set_bytes?))
                });
                PodUse {
                    uid: pod.uid,
                    spec: &pod.object.spec,
                    memory_bytes: whole.working_set_bytes.unwrap_or(0),
                    disk_bytes: 0,
                    inodes: 0,
                    pids: whole.pids.unwrap_or(0),
                    containers: containers.collect(),
                }
            })
            .collect();
        match pressure::choose(worst, &uses) {
            Some((uid, message)) => {
                log::warn!("pod {uid} is evicted: {message}");
                self.pods_input(Input::Evict { uid, message });
            }
            None => log::warn!("the node is short of {}, and no pod would help by going", worst.signal.name()),
        }
    }

    fn candidates(&self, wanted: impl Fn(&PodSpec) -> bool) -> Vec<Candidate> {
        let may_go = |pod: &PodView<'_>| pod.sandbox_ready && !pod.is_static;
        let live = self.pods.pods().filter(|pod| may_go(pod) && wanted(&pod.object.spec));
        live.map(|pod| Candidate { uid: pod.uid.clone(), spec: pod.object.spec.clone() }).collect()
    }

    /// Which attempt of each container is there.
    fn attempts_of(&self, pods: &[Candidate]) -> Vec<BTreeMap<String, u32>> {
        let of_one = |pod: &Candidate| {
            let names = pod.spec.init_containers.iter().chain(&pod.spec.containers);
            names.filter_map(|c| Some((c.name.clone(), self.pods.container(&pod.uid, &c.name)?.attempt?))).collect()
        };
        pods.iter().map(of_one).collect()
    }

    fn evict_for_disk(&self, worst: Shortage) {
        let (paths, pods) = (self.options.paths.clone(), self.candidates(|_| true));
        let (attempts, tell) = (self.attempts_of(&pods), self.hands.teller());
        tokio::task::spawn_blocking(move || {
            let sums: Vec<(u64, u64)> =
                pods.iter().map(|pod| device::disk_use(&paths.data.join("pods").join(&*pod.uid))).collect();
            let of_containers: Vec<StorageUse> =
                pods.iter().zip(&attempts).map(|(pod, of)| storage_of(&paths, &pod.uid, &pod.spec, of)).collect();
            let uses: Vec<PodUse<'_>> = pods
                .iter()
                .zip(&sums)
                .zip(&of_containers)
                .map(|((pod, (disk_bytes, inodes)), own)| PodUse {
                    uid: &pod.uid,
                    spec: &pod.spec,
                    memory_bytes: 0,
                    disk_bytes: *disk_bytes,
                    inodes: *inodes,
                    pids: 0,
                    containers: own.containers.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect(),
                })
                .collect();
            if let Some((uid, message)) = pressure::choose(worst, &uses) {
                log::warn!("pod {uid} is evicted: {message}");
                let _ = tell.send(Input::Evict { uid, message });
            }
        });
    }

    /// Pods with limits of storage, one measurement at a time; large trees are measured less often.
    fn measure_limits(&mut self, now: u64) {
        if self.watch.measuring.get() || now < self.watch.measure_after_ms {
            return;
        }
        let pods = self.candidates(pressure::is_limited);
        if pods.is_empty() {
            return;
        }
        let attempts = self.attempts_of(&pods);
        let (paths, tell) = (self.options.paths.clone(), self.hands.teller());
        let (flag, clock) = (self.watch.measuring.clone(), self.clock.clone());
        flag.set(true);
        // Not more than a hundredth of the time goes into it.
        self.watch.measure_after_ms = now + PERIOD_MS - 1;
        tokio::task::spawn_local(async move {
            let begun = clock.mono_ms();
            let measure = move || {
                for (pod, attempts) in pods.iter().zip(&attempts) {
                    let used = storage_of(&paths, &pod.uid, &pod.spec, attempts);
                    if let Some(message) = pressure::excess(&pod.spec, &used) {
                        log::warn!("pod {} is evicted: {message}", pod.uid);
                        let _ = tell.send(Input::Evict { uid: pod.uid.clone(), message });
                    }
                }
            };
            let _ = tokio::task::spawn_blocking(measure).await;
            let rest = (clock.mono_ms() - begun).saturating_mul(100).saturating_sub(PERIOD_MS);
            tokio::time::sleep(std::time::Duration::from_millis(rest)).await;
            flag.set(false);
        });
    }
}

fn storage_of(paths: &Paths, uid: &str, spec: &PodSpec, attempts: &BTreeMap<String, u32>) -> StorageUse {
    let mut used = StorageUse::default();
    for (name, attempt) in attempts {
        let layer = crate::runtime::writable_layer(&paths.data, uid, &container_id(uid, name, *attempt));
        let logs = logs::container_dir(&paths.data, uid, name);
        used.containers.insert(name.clone(), device::disk_use(&layer).0 + device::disk_use(&logs).0);
    }
    for volume in spec.volumes.iter().filter(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium != "Memory")) {
        let dir = volumes::dir(&paths.data, uid, "empty-dir", &volume.name);
        used.volumes.insert(volume.name.clone(), device::disk_use(&dir).0);
    }
    used
}
