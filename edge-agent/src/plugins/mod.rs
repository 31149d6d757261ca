//! Device plugins of Kubernetes (`v1beta1`): programs on the board, mostly pods of a DaemonSet, that offer devices over gRPC.
//!
//! In: their registrations and lists, wishes of containers. Out: counts for the node, and for a container what its plugin says.
//! A plugin that has gone keeps what it gave; its resource has no allocatable devices until it is back.
//! Never: one device to two containers; a container without the devices that it asked for.
//! Source: kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins.

pub mod lister;
mod messages;
mod registry;
mod socket;
mod table;

use crate::{
    agent::devices::Given,
    device::cdi,
    grpc::Call,
    runtime::spec as rt,
};
use messages::Response;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use table::{Choice, Table};
use tokio::{net::UnixStream, sync::Notify, time::timeout};

pub use table::Owner;

/// Where plugins look for a kubelet.
pub const STANDARD_DIR: &str = "/var/lib/kubelet/device-plugins";
/// Names of resources that were a plugin's once.
const MEMORY: &str = "device-plugins.json";
const MEMORY_BYTES_MAX: u64 = 64 * 1024;
/// For one answer of a plugin, as kubelet gives it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// In the annotations of a container's record: which devices of a resource it has.
const NOTE: &str = "devices/";
const SERVICE: &str = "/v1beta1.DevicePlugin";

#[derive(Clone)]
pub struct Plugins(Arc<Inner>);

struct Inner {
    /// `None`: this board takes no plugins.
    dir: Option<PathBuf>,
    memory: PathBuf,
    cdi_dirs: Vec<PathBuf>,
    table: Mutex<Table>,
    changed: Arc<Notify>,
}

impl Plugins {
    /// `own`: resources that the board's configuration offers, which no plugin may take over.
    pub fn new(dir: Option<PathBuf>, data: &Path, cdi_dirs: Vec<PathBuf>, own: BTreeSet<String>) -> Plugins {
        let memory = data.join(MEMORY);
        let known: Vec<String> = if dir.is_some() { read_memory(&memory) } else { Vec::new() };
        let table = Mutex::new(Table::new(known, own));
        Plugins(Arc::new(Inner { dir, memory, cdi_dirs, table, changed: Arc::default() }))
    }

    /// Opens the socket at which plugins register, and looks for those that wait to be asked. An error is a sentence; the board
    /// works without.
    pub fn start(&self) -> Result<(), String> {
        match self.0.dir.clone() {
            Some(dir) => socket::open(self.clone(), &dir).and_then(|()| registry::open(self.clone(), &dir)),
            None => Ok(()),
        }
    }

    /// Something about the counts is other than it was.
    pub fn changed(&self) -> Arc<Notify> {
        self.0.changed.clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All devices and the healthy ones, by resource.
    pub fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        self.table().counts()
    }

    /// What a container has.
    pub fn held_by(&self, owner: &Owner) -> Vec<lister::Held> {
        self.table().held_by(owner)
    }

    /// What there is to be had, given away or not.
    pub fn healthy(&self) -> Vec<lister::Held> {
        self.table().healthy()
    }

    /// Whether this resource is, or was once, a plugin's.
    pub fn offers(&self, resource: &str) -> bool {
        self.table().knows(resource)
    }

    /// Gives a container `count` devices, the same again when it had them before.
    /// `live`: containers of its pod that run, or are being started; others give up what they had (init containers).
    pub async fn give(
        &self,
        owner: &Owner,
        live: &BTreeSet<String>,
        (resource, count): (&str, u64),
        into: &mut Given,
    ) -> Result<(), String> {
        let turn = self.table().turn(resource);
        let _turn = turn.lock().await;
        let Choice { plugin, mut chosen, kept, free } = self.table().choose(owner, live, resource, count)?;
        if plugin.preferred && kept.len() < chosen.len() {
            let available: Vec<String> = kept.iter().chain(&free).cloned().collect();
            match self.preferred(&plugin.endpoint, &available, &kept, count).await {
                Ok(wished) => chosen = wished,
                Err(why) => log::warn!("device plugin of {resource}: {why}: the agent chooses itself"),
            }
        }
        self.table().take(owner, resource, &chosen);
        match self.ask(&plugin, resource, &chosen, into).await {
            Ok(()) => {
                into.notes.insert(format!("{NOTE}{resource}"), chosen.join("\n"));
                Ok(())
            }
            Err(why) => {
                self.table().put_back(owner, resource, &kept);
                Err(format!("Allocate failed due to device plugin Allocate rpc failed for {resource}: {why}"))
            }
        }
    }

    async fn ask(&self, plugin: &table::Plugin, resource: &str, ids: &[String], into: &mut Given) -> Result<(), String> {
        let answer = self.unary(&plugin.endpoint, "Allocate", &messages::allocate(ids)).await?;
        let response = messages::response(&answer).ok_or("its answer is not an AllocateResponse for one container")?;
        if plugin.pre_start {
            self.unary(&plugin.endpoint, "PreStartContainer", &messages::pre_start(ids)).await?;
        }
        log::info!("device plugin of {resource}: gives {}", ids.join(", "));
        self.add(response, into)
    }

    fn add(&self, response: Response, into: &mut Given) -> Result<(), String> {
        into.env.extend(response.envs.iter().map(|(name, value)| format!("{name}={value}")));
        into.devices.extend(response.devices);
        into.mounts.extend(response.mounts.into_iter().map(|(source, destination, read_only)| rt::Mount {
            source,
            destination,
            read_only,
            ..rt::Mount::default()
        }));
        let dirs: Vec<&Path> = self.0.cdi_dirs.iter().map(PathBuf::as_path).collect();
        response.cdi.iter().try_for_each(|name| cdi::find(&dirs, name).map(|edits| into.edit(edits)))
    }

    /// What the plugin would rather give; an error when that is nothing that can be given.
    async fn preferred(&self, endpoint: &str, all: &[String], must: &[String], count: u64) -> Result<Vec<String>, String> {
        let answer = self.unary(endpoint, "GetPreferredAllocation", &messages::preferred(all, must, count)).await?;
        let ids = messages::preferred_ids(&answer).ok_or("its answer is no PreferredAllocationResponse")?;
        let distinct: BTreeSet<&String> = ids.iter().collect();
        let good = distinct.len() as u64 == count
            && ids.len() as u64 == count
            && ids.iter().all(|id| all.contains(id))
            && must.iter().all(|id| distinct.contains(id));
        if good { Ok(ids) } else { Err(format!("it prefers {ids:?}, which is no choice of {count}")) }
    }

    async fn unary(&self, endpoint: &str, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.ask_at(endpoint, &format!("{SERVICE}/{method}"), message).await
    }

    async fn ask_at(&self, endpoint: &str, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let work = async {
            let mut call = self.call(endpoint, method, message).await.map_err(|e| e.to_string())?;
            call.next().await?.ok_or_else(|| "no message came".to_string())
        };
        let done = timeout(ANSWER_TIMEOUT, work).await;
        done.map_err(|_| format!("no answer to {method} within {} seconds", ANSWER_TIMEOUT.as_secs()))?
    }

    /// `endpoint`: the name of a socket in the plugins' directory, or its whole path.
    async fn call(&self, endpoint: &str, method: &str, message: &[u8]) -> io::Result<Call> {
        let dir = self.0.dir.as_deref().ok_or(io::ErrorKind::NotFound)?;
        let stream = UnixStream::connect(dir.join(endpoint)).await?;
        Call::begin(Box::new(stream), "localhost", method, message).await
    }

    /// What a container has that was started before this agent, by the annotations of its record.
    pub fn held(&self, owner: &Owner, notes: &BTreeMap<String, String>) {
        for (name, ids) in notes {
            if let Some(resource) = name.strip_prefix(NOTE) {
                let ids: Vec<String> = ids.split('\n').map(String::from).collect();
                self.table().take(owner, resource, &ids);
            }
        }
    }

    pub fn release(&self, pod_uid: &str) {
        self.table().release(pod_uid);
    }

    /// A new name is kept: after a reboot its pods wait for the plugin instead of starting without their devices.
    fn remember(&self) {
        let names = serde_json::json!(self.table().names()).to_string();
        let new = self.0.memory.with_extension("new");
        let written = std::fs::write(&new, names).and_then(|()| std::fs::rename(&new, &self.0.memory));
        if let Err(e) = written {
            log::warn!("device plugins: {} cannot be written: {e}", self.0.memory.display());
        }
    }
}

fn read_memory(path: &Path) -> Vec<String> {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(MEMORY_BYTES_MAX).read_to_end(&mut text));
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
