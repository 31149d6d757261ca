//! Control groups: v1, hybrid and v2 behind one face.
//!
//! In: group names relative to every hierarchy, limits. Out: groups with exactly those controllers, counts of OOM
//! kills, usage. Never: enables a controller that it does not set, or touches a group outside its own parent.
//!
//! A controller that the machine does not offer is left out and shows in `Controllers`; it fails no container.

mod devices;
mod hierarchy;
mod limits;
mod stats;

pub use devices::DeviceRule;
pub use limits::Usage;
pub use stats::{DiskIo, Stats};

use crate::runtime::spec::{Qos, Resources};
use hierarchy::Hierarchies;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Result;
use std::path::PathBuf;

/// What this machine can limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Controllers {
    pub cpu: bool,
    pub memory: bool,
    pub pids: bool,
    pub devices: bool,
}

/// It can be handed to a helper, which then has no mount table to read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    parent: String,
}

impl Cgroups {
    /// Looks at /proc/self/mountinfo once. `parent` is this agent's own group (`limpet`, or another for a second
    /// agent on the machine).
    pub fn probe(parent: &str) -> Result<Cgroups> {
        let parent = parent.trim_matches('/');
        if parent.is_empty() || parent.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(std::io::Error::other(format!("`{parent}` cannot be the agent's cgroup")));
        }
        Ok(Cgroups { hierarchies: Hierarchies::find()?, parent: parent.to_owned() })
    }

    pub fn controllers(&self) -> Controllers {
        self.hierarchies.controllers()
    }

    /// The agent's own group, as given to `probe`.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    pub fn is_v2(&self) -> bool {
        self.hierarchies.is_v2()
    }

    /// Name of a pod's group, as kubelet's cgroupfs driver nests them.
    pub fn pod_group(&self, qos: Qos, pod_uid: &str) -> String {
        match qos {
            Qos::Guaranteed => format!("{}/pod{pod_uid}", self.parent),
            Qos::Burstable => format!("{}/burstable/pod{pod_uid}", self.parent),
            Qos::BestEffort => format!("{}/besteffort/pod{pod_uid}", self.parent),
        }
    }

    /// Makes the pod's group with its limits; containers come below.
    pub fn prepare_pod(&self, group: &str, resources: &Resources) -> Result<()> {
        self.hierarchies.create(group, true)?;
        limits::apply(&self.hierarchies, group, resources)?;
        self.weigh_classes();
        Ok(())
    }

    /// All pods together get this much memory: the rest is the system's and the agent's ("enforce node allocatable").
    pub fn limit_all(&self, memory_bytes: u64) -> Result<()> {
        self.hierarchies.create(&self.parent, true)?;
        let all = Resources { memory_limit_bytes: Some(memory_bytes), ..Resources::default() };
        limits::update(&self.hierarchies, &self.parent, &all)
    }

    /// What the classes weigh against each other and against guaranteed pods: besteffort the least there is, burstable what
    /// its pods ask for together. Without that each class would weigh as much as a pod of one CPU.
    pub fn weigh_classes(&self) {
        let v2 = self.is_v2();
        let place = |group: &str| self.hierarchies.dir("cpu", group);
        let burstable = format!("{}/burstable", self.parent);
        let pods = self.children(&burstable);
        let sum: u64 = pods.iter().filter_map(|pod| limits::shares(&place(pod)?, v2)).sum();
        for (group, shares) in [(format!("{}/besteffort", self.parent), 2), (burstable, sum.max(2))] {
            if let Some(dir) = place(&group).filter(|dir| dir.is_dir()) {
                let _ = limits::set_shares(&dir, v2, shares);
            }
        }
    }

    /// Makes a container's group (its pod's too when it is missing). `devices: None` allows every device.
    pub fn prepare_container(&self, group: &str, resources: &Resources, devices: Option<&[DeviceRule]>) -> Result<()> {
        self.hierarchies.create(group, false)?;
        limits::apply(&self.hierarchies, group, resources)?;
        limits::end_together(&self.hierarchies, group)?;
        devices::apply(&self.hierarchies, group, devices)
    }

    /// Other limits for a group that is in use.
    pub fn update(&self, group: &str, resources: &Resources) -> Result<()> {
        limits::update(&self.hierarchies, group, resources)
    }

    /// Moves a process into the group.
    pub fn attach(&self, group: &str, pid: i32) -> Result<()> {
        self.doors(group)?.iter().try_for_each(|door| enter(door, pid))
    }

    /// The open files that take pids into the group, one a hierarchy.
    pub fn doors(&self, group: &str) -> Result<Vec<File>> {
        let open = |place: PathBuf| File::options().write(true).open(place.join("cgroup.procs"));
        self.hierarchies.places(group).into_iter().map(open).collect()
    }

    /// The group's directory on v2, for a process to be born in.
    pub fn nursery(&self, group: &str) -> Option<File> {
        if !self.is_v2() {
            return None;
        }
        File::open(self.hierarchies.places(group).first()?).ok()
    }

    /// What a container shall see of its group on v1: names for it below /sys/fs/cgroup, and the directory.
    pub fn view_v1(&self, group: &str) -> Vec<(Vec<String>, PathBuf)> {
        self.hierarchies.view_v1(group)
    }

    /// SIGKILL to every process of the group and below.
    pub fn kill(&self, group: &str) {
        self.hierarchies.kill(group);
    }

    /// Pids in the group and below.
    pub fn pids(&self, group: &str) -> Vec<i32> {
        self.hierarchies.pids(group)
    }

    /// Removes the group and what is below from every hierarchy. An error while processes live in it.
    pub fn remove(&self, group: &str) -> Result<()> {
        self.hierarchies.remove(group)?;
        if group.rsplit('/').next().is_some_and(|name| name.starts_with("pod")) {
            self.weigh_classes();
        }
        Ok(())
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self, group: &str) -> u64 {
        limits::oom_kills(&self.hierarchies, group)
    }

    /// What a group uses now.
    pub fn usage(&self, group: &str) -> Usage {
        limits::usage(&self.hierarchies, group)
    }

    /// All that a group counts.
    pub fn stats(&self, group: &str) -> Stats {
        stats::stats(&self.hierarchies, group)
    }

    /// What a group has read and written, by disk.
    pub fn disks(&self, group: &str) -> Vec<DiskIo> {
        stats::disks(&self.hierarchies, group)
    }

    /// Every group that is a container's by its place.
    pub fn container_groups(&self) -> Vec<String> {
        self.pods().flat_map(|pod| self.children(&pod)).collect()
    }

    /// The groups of one pod (more than one only when its class changed).
    pub fn pod_groups(&self, pod_uid: &str) -> Vec<String> {
        let name = format!("pod{pod_uid}");
        self.pods().filter(|group| group.rsplit('/').next() == Some(&name)).collect()
    }

    fn pods(&self) -> impl Iterator<Item = String> {
        let classes = [self.parent.clone(), format!("{}/burstable", self.parent), format!("{}/besteffort", self.parent)];
        let found: Vec<String> = classes.iter().flat_map(|class| self.children(class)).collect();
        found.into_iter().filter(|group| group.rsplit('/').next().is_some_and(|name| name.starts_with("pod")))
    }

    fn children(&self, group: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .hierarchies
            .places(group)
            .iter()
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| Some(format!("{group}/{}", entry.file_name().to_str()?)))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Removes the agent's own group when it is empty (tests, and an agent that leaves a machine).
    pub fn remove_parent(&self) {
        let _ = self.hierarchies.remove(&self.parent);
    }
}

/// Moves a process through the door; 0 is the caller itself. On a machine where no process has moved for some
/// milliseconds the kernel first
/// waits for an RCU grace period (10 ms and more); the next moves are quick.
pub fn enter(door: &File, pid: i32) -> Result<()> {
    use std::io::Write;
    let mut door = door;
    door.write_all(pid.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
