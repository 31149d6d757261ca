//! The helper: `limpet-agent rt`, one process, one thread, one request.
//!
//! In: a frame of JSON on fd 0 and the container's fds beside it. Out: a frame of JSON, and a pty's master.
//! Never: started by hand, kept alive after its reply, or run inside the agent (libcontainer forks).

mod blame;
mod caps;
pub mod console;
mod devices;
mod exec;
mod executor;
pub mod external;
mod furnish;
mod group;
mod guard;
mod home;
mod init;
pub(super) mod oci;
mod over_dev;
mod owner;
mod rootfs;
pub mod sandbox;
mod start;
mod workdir;

use super::helper::{receive_some, whole_frame};
use super::spec::{ContainerSpec, ExecSpec, SandboxSpec};
use super::sys;
use crate::device::cgroups::Cgroups;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
pub enum Request {
    Sandbox {
        run_dir: PathBuf,
        cgroup_parent: String,
        spec: SandboxSpec,
        address: Option<(Ipv4Addr, crate::net::Cidr)>,
    },
    Start { run_dir: PathBuf, data_dir: PathBuf, cgroups: Cgroups, spec: ContainerSpec },
    Exec { run_dir: PathBuf, spec: ExecSpec },
    /// Whether user namespaces work on these file systems.
    TryUsers { run_dir: PathBuf, data_dir: PathBuf },
}

#[derive(Serialize, Deserialize)]
pub enum Reply {
    Done { pid: i32, start_time: u64 },
    /// Mounts, groups, namespaces: before the program had its turn.
    NotCreated(String),
    /// The program itself could not be run.
    NotStarted(String),
    Invalid(String),
}

/// Why a request failed.
pub enum Failure {
    Create(String),
    Start(String),
}

impl Failure {
    pub fn create(what: impl std::fmt::Display, err: impl std::fmt::Display) -> Failure {
        Failure::Create(format!("{what}: {err}"))
    }
}

/// What a request leaves behind.
#[derive(Default)]
pub struct Outcome {
    pub pid: i32,
    pub start_time: u64,
    pub master: Option<OwnedFd>,
}

/// The body of `limpet-agent rt [init]`; returns the exit code.
pub fn main(args: &[std::ffi::OsString]) -> i32 {
    if args.first().is_some_and(|word| word == "init") {
        return init::main();
    }
    let socket = sys::inherited(0);
    // Not where the agent was started: that may be a drive that somebody wants to pull.
    let _ = std::env::set_current_dir("/");
    let (request, fds) = match receive(&socket) {
        Ok(got) => got,
        Err(err) => {
            eprintln!("rt: this command is started by the agent itself ({err})");
            return 2;
        }
    };
    let blame = blame::Blame::collect();
    let outcome = match request {
        Request::Sandbox { run_dir, cgroup_parent, spec, address } => {
            sandbox::create(&run_dir, &cgroup_parent, &spec, address)
        }
        Request::Start { run_dir, data_dir, cgroups, spec } => {
            start::start(&run_dir, &data_dir, &cgroups, &spec, fds)
        }
        Request::Exec { run_dir, spec } => exec::exec(&run_dir, &spec, fds),
        Request::TryUsers { run_dir, data_dir } => owner::attempt(&run_dir, &data_dir),
    };
    let (reply, master) = match outcome {
        Ok(done) => (Reply::Done { pid: done.pid, start_time: done.start_time }, done.master),
        Err(Failure::Create(why)) => match blame.and_then(|blame| blame.first()) {
            // Its own error has only the outermost words, and the noise of a clean-up that is ours.
            Some(cause) => (Reply::NotCreated(format!("failed to create container: {cause}")), None),
            None => (Reply::NotCreated(why), None),
        },
        Err(Failure::Start(why)) => (Reply::NotStarted(why), None),
    };
    i32::from(send(&socket, &reply, master.as_ref()).is_err())
}

fn receive(socket: &OwnedFd) -> std::io::Result<(Request, Vec<OwnedFd>)> {
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    loop {
        if receive_some(socket, &mut bytes, &mut fds)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(body) = whole_frame(&bytes)? {
            return Ok((serde_json::from_slice(body)?, fds));
        }
    }
}

fn send(socket: &OwnedFd, reply: &Reply, fd: Option<&OwnedFd>) -> std::io::Result<()> {
    let body = serde_json::to_vec(reply)?;
    let mut frame = (body.len() as u32).to_ne_bytes().to_vec();
    frame.extend_from_slice(&body);
    let mut sent = 0;
    while sent < frame.len() {
        let raw = [fd.map_or(-1, AsRawFd::as_raw_fd)];
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if fd.is_some() && sent == 0 { &rights } else { &[] };
        let iov = [IoSlice::new(&frame[sent..])];
        sent += sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)?;
    }
    Ok(())
}

/// Where config.json and the mount point of the root are.
pub fn bundle(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("bundles").join(id)
}

/// Where helpers keep what they made of the default profile.
pub fn seccomp_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("seccomp")
}

/// Where the container's own files live; gone with the container.
pub fn writable_layer(data_dir: &Path, pod_uid: &str, id: &str) -> PathBuf {
    data_dir.join("pods").join(pod_uid).join("containers").join(id)
}

/// Name of a container's group below its pod's.
pub fn group_of(cgroups: &Cgroups, spec: &ContainerSpec) -> String {
    format!("{}/{}", cgroups.pod_group(spec.qos, &spec.pod_uid), spec.id)
}

/// A capability's bit by its name without `CAP_`.
pub fn cap_bit(name: &str) -> u64 {
    caps::bit(name)
}

/// An error with all its causes, in one line.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        let word = cause.to_string();
        if !text.contains(&word) {
            text.push_str(": ");
            text.push_str(&word);
        }
        next = cause.source();
    }
    text
}
