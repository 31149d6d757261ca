//! Runs containers: sandboxes, starts, execs, stops, adoption.
//!
//! In: specs with everything resolved, exits from the keeper. Out: running processes, their pipes, `Exited`.
//! Never: decides whether a container should run, reads Kubernetes objects, or calls libcontainer in this process
//! (the helper `limpet-agent rt …` does, single-threaded and short-lived).

pub mod adopt;
pub mod bench;
mod detached;
mod exits;
mod helper;
mod ids;
mod network;
pub mod outside;
mod record;
pub mod rt;
pub mod seccomp;
pub mod spec;
mod stop;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

pub use adopt::{Found, State};
pub use exits::Exited;
pub use record::write_file as write_run_file;
pub use rt::writable_layer;
#[cfg(test)]
pub use spec::{CapabilityChange, Mount, Propagation, Protocol, Seccomp};
pub use spec::{ContainerSpec, ExecSpec, Qos, Resources, SandboxInfo, SandboxSpec, User};

use crate::device::cgroups::Cgroups;
use crate::keeper::client::{Exit, Keeper, KeeperError, Restored};
use exits::Exits;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Most bytes of JSON on the helper's socket, either way.
pub const SPEC_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a container's id.
pub const ID_BYTES_MAX: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The container could not be made (mounts, cgroups, rootfs): the pod's back-off retries.
    #[error("{0}")]
    Create(String),
    /// The container was made but its program could not be run; text as runc's.
    #[error("{0}")]
    Start(String),
    /// No such container or sandbox, or it does not run.
    #[error("{0}")]
    NotFound(String),
    /// A spec that cannot be right; a retry does not help.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The machine's own trouble (files, processes): a retry may help.
    #[error("{what}: {err}")]
    Io { what: String, err: std::io::Error },
}

impl RuntimeError {
    pub(crate) fn io(what: impl Into<String>, err: impl Into<std::io::Error>) -> RuntimeError {
        RuntimeError::Io { what: what.into(), err: err.into() }
    }
}

#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// `--run-dir`: records, pinned namespaces, FIFOs. A tmpfs.
    pub run_dir: PathBuf,
    /// `--data-dir`: writable layers.
    pub data_dir: PathBuf,
    /// Name of the agent's group in every cgroup hierarchy; agents on one machine need different ones.
    pub cgroup_parent: String,
    /// Pod addresses; `None` until the hub gave the node a range (only host-network pods then).
    pub pod_cidr: Option<crate::net::Cidr>,
    /// The program to start helpers with; `None` is this program itself.
    pub helper: Option<PathBuf>,
}

/// What a start gives back. Pipes are the ends of this side.
#[derive(Debug)]
pub struct Started {
    #[cfg(test)]
    pub pid: i32,
    pub streams: Streams,
}

/// Ends of a container's or exec's stdio; all non-blocking.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// The pty's master, instead of the other three.
    pub tty: Option<OwnedFd>,
}

/// A running exec.
#[derive(Debug)]
pub struct ExecStarted {
    pub pid: i32,
    pub streams: Streams,
    /// Exit code (128 + signal when killed).
    pub exit: tokio::sync::oneshot::Receiver<i32>,
}

/// Kills an exec's process when whoever wanted it is gone before its end: a command that hangs must not pile up.
pub struct Leash(Option<i32>);

impl Leash {
    pub fn new(pid: i32) -> Leash {
        Leash(Some(pid))
    }

    /// The process has ended by itself.
    pub fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(pid) = self.0.filter(|pid| *pid > 1) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Handle to the runtime; cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    options: RuntimeOptions,
    network: Mutex<network::Network>,
    ids: Mutex<ids::Ids>,
    no_own_users: Mutex<Option<String>>,
    cgroups: Cgroups,
    keeper: Keeper,
    helper: helper::Helper,
    exits: Exits,
}

impl Runtime {
    /// Opens the runtime over what the keeper handed back. What ended before this call is in `list()`; what ends
    /// later comes out of the channel, each end once and already on record. Must run inside a tokio runtime.
    pub async fn open(
        options: RuntimeOptions,
        keeper: Keeper,
        restored: Restored,
        mut exits: mpsc::UnboundedReceiver<Exit>,
    ) -> Result<(Runtime, mpsc::UnboundedReceiver<Exited>), RuntimeError> {
        // Of an agent before this one, maybe of another version.
        let kept = rt::seccomp_dir(&options.run_dir);
        let _ = std::fs::remove_dir_all(&kept);
        let dirs = ["containers", "pods", "bundles", "fifos"].map(|dir| options.run_dir.join(dir));
        for path in dirs.into_iter().chain([kept]) {
            std::fs::create_dir_all(&path).map_err(|err| RuntimeError::io(format!("create {}", path.display()), err))?;
        }
        let cgroups = Cgroups::probe(&options.cgroup_parent).map_err(|err| RuntimeError::io("probe cgroups", err))?;
        let helper = helper::Helper::new(options.helper.clone());
        let (registry, exited) = Exits::new(restored.fds);
        let (network, pod_cidr) = (Mutex::default(), options.pod_cidr);
        let (ids, no_own_users) = (Mutex::default(), Mutex::new(Some("it was not tried".to_string())));
        let shared = Arc::new(Shared { options, network, ids, no_own_users, cgroups, keeper, helper, exits: registry });
        let runtime = Runtime { shared };
        runtime.restore_ids();
        if let Some(cidr) = pod_cidr {
            runtime.set_pod_cidr(cidr)?;
        }
        runtime.adopt_records(restored.exits, &mut exits).await;
        tokio::spawn(exits::pump(runtime.shared.clone(), exits));
        Ok((runtime, exited))
    }

    /// Which controllers this machine offers, for node conditions.
    pub fn cgroups(&self) -> &Cgroups {
        &self.shared.cgroups
    }

    /// Makes the pod's cgroup, namespaces, network and /etc files. Again for the same pod it repairs and returns the
    /// same address.
    pub async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxInfo, RuntimeError> {
        check_id(&spec.pod_uid)?;
        let address = if spec.host_network { None } else { Some(self.lease(&spec.pod_uid)?) };
        let first_id = spec.own_users.then(|| self.lease_ids(&spec.pod_uid)).transpose()?;
        let request = rt::Request::Sandbox {
            run_dir: self.shared.options.run_dir.clone(),
            cgroup_parent: self.shared.options.cgroup_parent.clone(),
            spec: SandboxSpec { first_id, ..spec.clone() },
            address,
        };
        self.shared.helper.call(&request, &[]).await?;
        if !spec.host_ports.is_empty() {
            self.apply_rules(true)?;
        }
        Ok(SandboxInfo { ip: address.map(|(ip, _)| ip) })
    }

    /// Tries whether this machine can give pods users of their own; the error says what it lacks.
    pub async fn try_users(&self) -> Result<(), RuntimeError> {
        let options = &self.shared.options;
        let request = rt::Request::TryUsers { run_dir: options.run_dir.clone(), data_dir: options.data_dir.clone() };
        let tried = self.shared.helper.call(&request, &[]).await;
        *lock(&self.shared.no_own_users) = tried.as_ref().err().map(ToString::to_string);
        tried.map(|_| ())
    }

    /// What the trial found to be missing; `None`: pods can have users of their own.
    pub fn no_own_users(&self) -> Option<String> {
        lock(&self.shared.no_own_users).clone()
    }

    /// Whether the pod's sandbox stands (namespaces pinned); false after a reboot.
    pub fn sandbox_exists(&self, pod_uid: &str) -> bool {
        rt::sandbox::stands(&self.shared.options.run_dir, pod_uid)
    }

    /// Starts a container in its pod's sandbox. When this returns the program runs (execve succeeded).
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<Started, RuntimeError> {
        check_id(&spec.id)?;
        check_id(&spec.pod_uid)?;
        if !self.sandbox_exists(&spec.pod_uid) {
            return Err(RuntimeError::NotFound(format!("pod {} has no sandbox", spec.pod_uid)));
        }
        if record::path(&self.shared.options.run_dir, &spec.id).exists() {
            return Err(RuntimeError::Invalid(format!("there is a container {} already", spec.id)));
        }
        let spec = &ContainerSpec { first_id: self.ids_of(&spec.pod_uid), ..spec.clone() };
        let mut pipes = helper::Pipes::for_container(&self.shared.options.run_dir, spec)
            .map_err(|err| RuntimeError::io("make the container's pipes", err))?;
        let request = rt::Request::Start {
            run_dir: self.shared.options.run_dir.clone(),
            data_dir: self.shared.options.data_dir.clone(),
            cgroups: self.shared.cgroups.clone(),
            spec: spec.clone(),
        };
        let keys = pipes.keys(&spec.id);
        let kept = async { Ok(self.shared.keeper.put_fds(&keys).await?) };
        let reply = self.shared.helper.call_after(kept, &request, &pipes.theirs()).await;
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(err) => {
                self.forget_failed(spec).await;
                return Err(err);
            }
        };
        if let Some(master) = reply.fds.pop() {
            helper::set_nonblocking(&master).map_err(|err| RuntimeError::io("the pty", err))?;
            self.shared.keeper.put_fd(&format!("{}/tty", spec.id), master.as_fd()).await?;
            pipes.streams.tty = Some(master);
        }
        self.shared.exits.register_container(reply.pid, &spec.id);
        Ok(Started {
            #[cfg(test)]
            pid: reply.pid,
            streams: std::mem::take(&mut pipes.streams),
        })
    }

    /// Runs a program in a running container. Dropping the streams does not end it. Who goes away before the answer (a probe
    /// whose time is up) leaves nothing behind: the program ends as soon as it has begun.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<ExecStarted, RuntimeError> {
        check_id(&spec.container_id)?;
        let record = record::read(&self.shared.options.run_dir, &spec.container_id)?;
        if !record.alive() {
            return Err(RuntimeError::NotFound(format!("container {} does not run", spec.container_id)));
        }
        let turn = self.shared.helper.turn().await;
        // A task of its own: what is being started has no number yet by which it could be ended.
        let (runtime, spec) = (self.clone(), spec.clone());
        let begun = tokio::spawn(async move { runtime.begin_exec(turn, spec, record.spec.first_id).await });
        let broken = |err| RuntimeError::Create(format!("the start of the command broke off: {err}"));
        let (started, mut leash) = begun.await.map_err(broken)??;
        leash.let_go();
        Ok(started)
    }

    async fn begin_exec(
        &self,
        turn: helper::Turn,
        spec: ExecSpec,
        first_id: Option<u32>,
    ) -> Result<(ExecStarted, Leash), RuntimeError> {
        let mut pipes =
            helper::Pipes::for_exec(&spec, first_id).map_err(|err| RuntimeError::io("make the exec's pipes", err))?;
        let request = rt::Request::Exec { run_dir: self.shared.options.run_dir.clone(), spec };
        let now = std::future::ready(Ok(()));
        let mut reply = self.shared.helper.call_in(turn, now, &request, &pipes.theirs()).await?;
        let leash = Leash::new(reply.pid);
        if let Some(master) = reply.fds.pop() {
            helper::set_nonblocking(&master).map_err(|err| RuntimeError::io("the pty", err))?;
            pipes.streams.tty = Some(master);
        }
        let exit = self.shared.exits.register_exec(reply.pid);
        Ok((ExecStarted { pid: reply.pid, streams: std::mem::take(&mut pipes.streams), exit }, leash))
    }

    /// Other limits for a running container, at once (in-place resize). They stay on its record.
    pub fn update_container(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        check_id(id)?;
        let mut record = record::read(&self.shared.options.run_dir, id)?;
        if !record.alive() {
            return Err(RuntimeError::NotFound(format!("container {id} does not run")));
        }
        let group = &record.cgroup;
        self.shared.cgroups.update(group, resources).map_err(|err| RuntimeError::io(format!("cgroup {group}"), err))?;
        record.spec.resources = Resources { pids_limit: record.spec.resources.pids_limit, ..resources.clone() };
        record::write(&self.shared.options.run_dir, &record).map_err(|err| RuntimeError::io("the container's record", err))
    }

    /// As `update_container` for the pod's own group: before its containers' when limits grow, after them when they shrink.
    pub fn update_pod(&self, pod_uid: &str, resources: &Resources) -> Result<(), RuntimeError> {
        check_id(pod_uid)?;
        let groups = self.shared.cgroups.pod_groups(pod_uid);
        groups.iter().try_for_each(|group| {
            self.shared.cgroups.update(group, resources).map_err(|err| RuntimeError::io(format!("cgroup {group}"), err))
        })
    }

    /// Host paths of the devices that a container was started with.
    pub fn devices_of(&self, container_id: &str) -> Vec<PathBuf> {
        let record = record::read(&self.shared.options.run_dir, container_id);
        record.map_or_else(|_| Vec::new(), |r| r.spec.devices.into_iter().map(|d| d.host_path).collect())
    }

    /// The pipes that the keeper held for this container when the agent came (once).
    pub fn take_streams(&self, container_id: &str) -> Streams {
        self.shared.exits.take_streams(container_id)
    }
}

/// Sets the size of a pty (columns, rows); its foreground process gets SIGWINCH.
pub fn resize(tty: impl AsFd, columns: u16, rows: u16) -> std::io::Result<()> {
    rt::console::set_size(tty.as_fd(), columns, rows)
}

fn check_id(id: &str) -> Result<(), RuntimeError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.starts_with('.') || !id.bytes().all(fine) {
        return Err(RuntimeError::Invalid(format!("`{}` is not an id", id.escape_default())));
    }
    Ok(())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) type FdMap = HashMap<String, OwnedFd>;
