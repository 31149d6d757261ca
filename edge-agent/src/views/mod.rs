//! What a node shows of itself: the pages behind `nodes/NAME/proxy`, in kubelet's paths and words.
//!
//! In: a path, the pods as the agent's loop knows them now, counters of the kernel. Out: one page.
//! Never: runs by itself: an idle node measures nothing and sends nothing. A question that needs a rate measures twice.

mod cadvisor;
mod files;
mod own;
mod probes;
pub mod query;
mod resource;
mod samples;
mod summary;
mod text;
mod took;
mod volumes;

pub use files::LogFiles;
pub use own::Counters;
pub use samples::Samples;
pub use took::{Operation, Took};
pub use volumes::VolumeSubject;

use crate::{
    device::{
        cgroups::{Cgroups, DiskIo, Stats},
        machine::{self, Fs, Interface, Machine},
    },
    logs,
    runtime::rt,
};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// The node and its pods at the time of the question.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub node: String,
    pub version: String,
    pub data_dir: PathBuf,
    pub now_ms: u64,
    /// When this agent began.
    pub began_ms: u64,
    pub pods: Vec<PodSubject>,
    pub counters: Counters,
    pub took: Took,
    /// By kubelet's names of their kinds: how many pods want, and how many are there.
    pub volumes: BTreeMap<&'static str, (u32, u32)>,
    /// Until the node's certificate ends.
    pub certificate_ms: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct PodSubject {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub host_network: bool,
    /// The pod's cgroup, relative to each hierarchy.
    pub group: String,
    pub start_ms: u64,
    pub containers: Vec<ContainerSubject>,
    pub volumes: Vec<VolumeSubject>,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerSubject {
    pub name: String,
    pub id: String,
    pub image: String,
    pub attempt: u32,
    pub started_ms: u64,
    pub running: bool,
    /// Kind of a probe, and how many of its tries succeeded, failed, came to nothing.
    pub probes: Vec<(&'static str, [u32; 3])>,
}

/// Which page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/stats/summary`; `true`: only CPU and memory.
    Summary(bool),
    /// `/metrics`
    Own,
    /// `/metrics/resource`
    Resource,
    /// `/metrics/cadvisor`
    Cadvisor,
    /// `/metrics/probes`
    Probes,
    /// Limpet's own, for the hub's metrics.k8s.io: as small as it can be.
    Usage,
}

impl Page {
    /// `query`: what follows the question mark.
    pub fn of(path: &str, query: &str) -> Option<Page> {
        Some(match path {
            "/stats/summary" => Page::Summary(query.split('&').any(|q| q == "only_cpu_and_memory=true")),
            "/metrics" => Page::Own,
            "/metrics/resource" => Page::Resource,
            "/metrics/cadvisor" => Page::Cadvisor,
            "/metrics/probes" => Page::Probes,
            "/limpet/usage" => Page::Usage,
            _ => return None,
        })
    }

    fn wants_rates(self) -> bool {
        matches!(self, Page::Summary(_) | Page::Usage)
    }
}

/// Everything measured for one answer.
pub struct Measured {
    pub machine: Machine,
    pub interfaces: Vec<Interface>,
    pub fs: Fs,
    /// The disk of the agent's data; empty where it is none.
    pub disk: String,
    pub pods: Vec<PodMeasured>,
}

#[derive(Default)]
pub struct PodMeasured {
    pub stats: Stats,
    pub more: More,
    pub network: Option<Interface>,
    /// In the order of the subject's containers; those that do not run are empty.
    pub containers: Vec<ContainerMeasured>,
    /// In the order of the subject's volumes.
    pub volumes: Vec<Option<Fs>>,
}

/// What takes walks through /proc to know; only for `/metrics/cadvisor`.
#[derive(Default)]
pub struct More {
    /// With the disk's name.
    pub disks: Vec<(String, DiskIo)>,
    pub processes: u64,
    pub descriptors: u64,
    pub sockets: u64,
}

impl More {
    fn of(cgroups: &Cgroups, group: &str) -> More {
        let pids = cgroups.pids(group);
        let (descriptors, sockets) = machine::open_files(&pids);
        let named = |disk: DiskIo| (machine::disk_name(disk.major, disk.minor), disk);
        let disks = cgroups.disks(group).into_iter().map(named).collect();
        More { disks, processes: pids.len() as u64, descriptors, sockets }
    }
}

#[derive(Default)]
pub struct ContainerMeasured {
    pub stats: Stats,
    pub more: More,
    pub root_bytes: u64,
    pub log_bytes: u64,
}

/// The page's text. Takes a second when it needs a rate and nobody asked lately.
pub async fn render(page: Page, subject: Subject, cgroups: Cgroups, samples: &Samples) -> Result<Vec<u8>, String> {
    let disks = match page {
        Page::Probes => return Ok(probes::page(&subject)),
        Page::Summary(false) => Disks::Walk,
        Page::Cadvisor => Disks::All,
        Page::Own => Disks::Claims,
        _ => Disks::None,
    };
    let mut measured = blocking(&subject, &cgroups, disks).await?;
    if page.wants_rates() && !samples.add(&subject, &measured) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        measured = blocking(&subject, &cgroups, disks).await?;
        samples.add(&subject, &measured);
    }
    let rates = samples.rates();
    Ok(match page {
        Page::Summary(small) => summary::page(&subject, &measured, &rates, small),
        Page::Usage => summary::usage(&subject, &measured, &rates),
        Page::Own => own::page(&subject, &measured),
        Page::Resource => resource::page(&subject, &measured),
        Page::Cadvisor => cadvisor::page(&subject, &measured),
        Page::Probes => probes::page(&subject),
    })
}

/// How much of the disk is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disks {
    None,
    /// The file systems of claims.
    Claims,
    /// And what containers and pods have written.
    Walk,
    /// And what each container does with disks and files.
    All,
}

/// Many small reads: beside the loop, not in it.
async fn blocking(subject: &Subject, cgroups: &Cgroups, disks: Disks) -> Result<Measured, String> {
    let (subject, cgroups) = (subject.clone(), cgroups.clone());
    let work = tokio::task::spawn_blocking(move || measure(&subject, &cgroups, disks));
    work.await.map_err(|e| format!("the node's counters cannot be read: {e}"))
}

fn measure(subject: &Subject, cgroups: &Cgroups, disks: Disks) -> Measured {
    let mut interfaces = machine::interfaces();
    let pods = subject.pods.iter().map(|pod| {
        let one = |c: &ContainerSubject| {
            let mut measured = ContainerMeasured::default();
            if c.running {
                let group = format!("{}/{}", pod.group, c.id);
                measured.stats = cgroups.stats(&group);
                if disks == Disks::All {
                    measured.more = More::of(cgroups, &group);
                }
            }
            if matches!(disks, Disks::Walk | Disks::All) {
                let root = rt::writable_layer(&subject.data_dir, &pod.uid, &c.id);
                measured.root_bytes = files::bytes_below(&root);
                let log = logs::file(&subject.data_dir, &pod.uid, &c.name, c.attempt);
                measured.log_bytes = logs::files_of(&log).iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
            }
            measured
        };
        PodMeasured {
            stats: cgroups.stats(&pod.group),
            more: if disks == Disks::All { More::of(cgroups, &pod.group) } else { More::default() },
            network: machine::pod_interface(&interfaces, &rt::sandbox::host_link(&pod.uid)).filter(|_| !pod.host_network),
            containers: pod.containers.iter().map(one).collect(),
            volumes: match disks {
                Disks::None => Vec::new(),
                _ => pod.volumes.iter().map(|volume| volumes::measure(volume, disks != Disks::Claims)).collect(),
            },
        }
    });
    let pods = pods.collect();
    interfaces.retain(|i| !rt::sandbox::is_host_link(&i.name));
    Measured {
        pods,
        machine: machine::machine(),
        interfaces,
        fs: machine::file_system(&subject.data_dir),
        disk: machine::disk_of(&subject.data_dir),
    }
}
