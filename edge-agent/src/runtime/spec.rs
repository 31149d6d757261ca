//! What the agent says to the runtime, and what the helper process reads as JSON.
//!
//! In: plans of `limpet-agent-core`, with everything resolved (ids are numbers, layers are directories). Out: the
//! same types on the helper's socket and in the records. Never: Kubernetes objects, or names that need a look-up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// How many users and groups a pod with `hostUsers: false` has: 0 to 65535.
pub const IDS_PER_POD: u32 = 65_536;

/// Quality of service class of a pod; decides its cgroup's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Qos {
    Guaranteed,
    Burstable,
    #[default]
    BestEffort,
}

/// Limits of a cgroup; absent means no limit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, 2 to 262144 (1024 is one CPU's request).
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    /// 100000 when absent.
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub pids_limit: Option<u64>,
    /// Bytes by the kernel's name of the page size (`2MB`); every size that is not named is 0.
    pub hugepages: Option<BTreeMap<String, u64>>,
}

/// What a pod's containers share.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    pub pod_uid: String,
    pub pod_name: String,
    pub namespace: String,
    /// Kernel host name; at most 63 bytes are used.
    pub hostname: String,
    /// Its first part, also where the kernel is told the whole; empty is `hostname`.
    pub short: String,
    /// Full name for /etc/hosts (`host.subdomain.ns.svc.cluster.local`), when the pod has a subdomain.
    pub fqdn: Option<String>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// `shareProcessNamespace`: a tiny init of our own binary keeps the namespace.
    pub share_pid: bool,
    /// `hostUsers: false`: the pod's users are not the host's.
    pub own_users: bool,
    /// The host's id of the pod's user 0; the runtime fills it in.
    pub first_id: Option<u32>,
    pub qos: Qos,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// Namespaced sysctls, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// Lines `ip name name…` of `spec.hostAliases`.
    pub host_aliases: Vec<(String, Vec<String>)>,
    pub dns: Dns,
    pub host_ports: Vec<HostPort>,
}

/// Contents of the pod's /etc/resolv.conf; empty name servers copy the host's file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostPort {
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SandboxInfo {
    /// `None` with the host's network.
    pub ip: Option<Ipv4Addr>,
}

/// One container; `id` is new for every attempt.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Letters, digits, `-`, `_`, `.`; at most 128 bytes.
    pub id: String,
    pub pod_uid: String,
    pub pod_name: String,
    pub namespace: String,
    /// The name in the pod's spec.
    pub name: String,
    pub attempt: u32,
    /// Directories of the unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Entrypoint and arguments, nothing left to expand.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty is `/`.
    pub cwd: String,
    pub user: User,
    /// The host's id of the pod's user 0, with users of its own; the runtime fills it in.
    pub first_id: Option<u32>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub qos: Qos,
    pub resources: Resources,
    pub privileged: bool,
    pub capabilities: CapabilityChange,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    pub seccomp: Seccomp,
    /// An AppArmor profile that is loaded in the kernel.
    pub app_armor: Option<String>,
    pub tty: bool,
    /// The container's stdin is open (`stdin: true`); otherwise it is /dev/null.
    pub stdin: bool,
    /// Id of a running container of this pod whose process namespace this one joins.
    pub pid_of: Option<String>,
    pub oom_score_adj: i32,
    /// Of vendors' CDI files: programs of the host.
    pub hooks: Vec<crate::device::cdi::Hook>,
    /// Who makes the container, when it is not libcontainer.
    pub other_runtime: Option<OtherRuntime>,
    /// Kept in the record for adoption; the runtime does not read it.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// The container's user as the host counts.
    pub fn host_uid(&self) -> u32 {
        self.first_id.unwrap_or(0) + self.user.uid
    }

    /// Whether one of its volumes is mounted there.
    pub fn mounts_on(&self, destination: &str) -> bool {
        self.mounts.iter().any(|mount| mount.destination == std::path::Path::new(destination))
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups (fsGroup included).
    pub groups: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub source: PathBuf,
    /// Path inside `source`, resolved without following a link out of it; created as a directory when absent.
    pub sub_path: Option<String>,
    pub destination: PathBuf,
    pub read_only: bool,
    pub propagation: Propagation,
    /// With `read_only`: also what is mounted below the source.
    pub recursive_read_only: bool,
    /// And neither devices nor programs that change who they are.
    pub no_exec: bool,
    pub no_suid: bool,
    pub no_dev: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

/// An OCI runtime of this board, as its configuration names it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherRuntime {
    /// Absolute.
    pub program: PathBuf,
    /// Before the command's own words.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// A device node of the host to make in the container.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Some of `rwm`.
    pub access: String,
    /// What it is, where somebody says so; else as the host's node.
    pub number: Option<DeviceNumber>,
    /// Permissions and owner of the node in the container; else as the host's.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceNumber {
    pub block: bool,
    pub major: u32,
    pub minor: u32,
}

/// Names without `CAP_`; `ALL` is every capability.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CapabilityChange {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A file below `<data>/seccomp`.
    Localhost(String),
}

/// A process in a running container.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    pub container_id: String,
    pub args: Vec<String>,
    /// Added to the container's own environment.
    pub env: Vec<String>,
    /// The container's own when absent.
    pub cwd: Option<String>,
    pub user: Option<User>,
    pub tty: bool,
    pub stdin: bool,
    /// First size of the terminal (columns, rows).
    pub size: Option<(u16, u16)>,
}
