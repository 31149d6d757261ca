//! Plans of the core in the words of the runtime.
//!
//! In: a plan, the directories of layers and volumes, the host's resolver. Out: specs with nothing left to look up.
//! Never: decides anything that a plan has not decided.

use super::{Paths, devices::Given, users};
use crate::broker::{self, LocalBroker};
use crate::{
    runtime::spec as rt,
    volumes::{self, HostPathType},
};
use limpet_agent_core::{
    plan::{
        AppArmorPlan, ContainerPlan, DnsPlan, MountSource, PodResources, Propagation, Qos, ResourcePlan, SandboxPlan, SeccompPlan,
    },
    volumes::{VolumeContent, VolumePlan},
};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

pub fn sandbox(
    plan: &SandboxPlan,
    gateway: Option<Ipv4Addr>,
    host_resolv: &str,
    pids_limit: Option<u64>,
) -> rt::SandboxSpec {
    let host_ports = plan.host_ports.iter().map(|p| rt::HostPort {
        host_ip: p.host_ip.parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
        host_port: p.host_port,
        container_port: p.container_port,
        protocol: protocol(&p.protocol),
    });
    rt::SandboxSpec {
        pod_uid: plan.pod_uid.clone(),
        pod_name: plan.pod_name.clone(),
        namespace: plan.namespace.clone(),
        hostname: plan.hostname.clone(),
        short: plan.short.clone(),
        fqdn: plan.fqdn.clone(),
        host_network: plan.host_network,
        host_pid: plan.host_pid,
        host_ipc: plan.host_ipc,
        share_pid: plan.share_process_namespace,
        own_users: plan.own_users,
        first_id: None,
        qos: qos(plan.qos),
        resources: pod_resources(&plan.resources, pids_limit),
        sysctls: plan.sysctls.iter().cloned().collect(),
        host_aliases: plan.host_aliases.clone(),
        dns: dns(&plan.dns, gateway, host_resolv),
        host_ports: host_ports.collect(),
    }
}

pub fn protocol(word: &str) -> rt::Protocol {
    match word {
        "UDP" => rt::Protocol::Udp,
        "SCTP" => rt::Protocol::Sctp,
        _ => rt::Protocol::Tcp,
    }
}

fn qos(class: Qos) -> rt::Qos {
    match class {
        Qos::Guaranteed => rt::Qos::Guaranteed,
        Qos::Burstable => rt::Qos::Burstable,
        Qos::BestEffort => rt::Qos::BestEffort,
    }
}

/// The core works out the file; the runtime wants its parts.
fn dns(plan: &DnsPlan, gateway: Option<Ipv4Addr>, host_resolv: &str) -> rt::Dns {
    let responder = gateway.map(|ip| ip.to_string());
    let text = limpet_agent_core::plan::resolv_conf(plan, responder.as_deref(), host_resolv);
    let words = |word: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|l| l.strip_prefix(word)?.strip_prefix(' '));
        lines.flat_map(str::split_whitespace).map(String::from).collect()
    };
    rt::Dns { nameservers: words("nameserver"), searches: words("search"), options: words("options") }
}

fn bytes(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|n| u64::try_from(n).ok())
}

pub fn pod_resources(r: &PodResources, pids_limit: Option<u64>) -> rt::Resources {
    rt::Resources {
        cpu_shares: Some(r.cpu_shares),
        cpu_quota_us: r.cpu_quota_us,
        cpu_period_us: Some(r.cpu_period_us),
        memory_limit_bytes: bytes(r.memory_limit_bytes),
        pids_limit,
        hugepages: Some(r.hugepages.clone()),
    }
}

pub fn resources(r: &ResourcePlan) -> rt::Resources {
    rt::Resources {
        cpu_shares: Some(r.cpu_shares),
        cpu_quota_us: r.cpu_quota_us,
        cpu_period_us: Some(r.cpu_period_us),
        memory_limit_bytes: bytes(r.memory_limit_bytes),
        pids_limit: None,
        hugepages: Some(r.hugepages.clone()),
    }
}

/// Sources of a pod's volumes by name.
pub type VolumeSources = BTreeMap<String, PathBuf>;

/// `layers`: lowest first, as the image store has them. The error is a sentence for the container's status.
pub fn container(
    plan: &ContainerPlan,
    pod_qos: Qos,
    layers: &[PathBuf],
    sources: &VolumeSources,
    paths: &Paths,
) -> Result<rt::ContainerSpec, String> {
    let user = users::resolve(&plan.user, layers)?;
    let message = termination_file(&paths.data, &plan.pod_uid, &plan.name, plan.attempt);
    let mut mounts = Vec::new();
    for mount in &plan.mounts {
        let (source, sub_path) = match &mount.source {
            MountSource::Volume { name, sub_path } => {
                let source = sources.get(name).cloned();
                let source = source.ok_or_else(|| format!("volume \"{name}\" is not mounted on this node"))?;
                (source, Some(sub_path.clone()).filter(|s| !s.is_empty()))
            }
            MountSource::TerminationLog => (message.clone(), None),
            // The runtime adds these itself.
            MountSource::EtcHosts | MountSource::EtcHostname | MountSource::ResolvConf | MountSource::Shm => continue,
        };
        mounts.push(rt::Mount {
            source,
            sub_path,
            destination: PathBuf::from(&mount.destination),
            read_only: mount.read_only,
            recursive_read_only: mount.recursive_read_only,
            no_exec: mount.no_exec,
            propagation: match mount.propagation {
                Propagation::Private => rt::Propagation::None,
                Propagation::HostToContainer => rt::Propagation::HostToContainer,
                Propagation::Bidirectional => rt::Propagation::Bidirectional,
            },
            ..rt::Mount::default()
        });
    }
    let mut devices = Vec::new();
    for (name, path) in &plan.block_devices {
        let source = sources.get(name).ok_or_else(|| format!("volume \"{name}\" is not mounted on this node"))?;
        let (host_path, container_path) = (source.clone(), PathBuf::from(path));
        let access = if plan.blocks_read.contains(name) { "r" } else { "rwm" }.into();
        devices.push(rt::Device { host_path, container_path, access, ..rt::Device::default() });
    }
    let seccomp = match &plan.security.seccomp {
        SeccompPlan::RuntimeDefault => rt::Seccomp::RuntimeDefault,
        SeccompPlan::Unconfined => rt::Seccomp::Unconfined,
        SeccompPlan::Localhost(file) => rt::Seccomp::Localhost(file.clone()),
    };
    let add = plan.security.capabilities_add.clone();
    let drop = plan.security.capabilities_drop.clone();
    Ok(rt::ContainerSpec {
        id: plan.id.clone(),
        pod_uid: plan.pod_uid.clone(),
        pod_name: plan.pod_name.clone(),
        namespace: plan.namespace.clone(),
        name: plan.name.clone(),
        attempt: plan.attempt,
        layers: layers.iter().rev().cloned().collect(),
        args: plan.args.clone(),
        env: plan.env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        cwd: plan.cwd.clone(),
        user,
        first_id: None,
        mounts,
        devices,
        qos: qos(pod_qos),
        resources: resources(&plan.resources),
        privileged: plan.security.privileged,
        capabilities: rt::CapabilityChange { add, drop },
        no_new_privileges: plan.security.no_new_privileges,
        read_only_root: plan.security.read_only_root,
        unmasked_proc: plan.security.proc_unmasked,
        seccomp,
        app_armor: app_armor(&plan.security.app_armor)?,
        tty: plan.tty,
        stdin: plan.stdin,
        pid_of: plan.pid_of.clone(),
        oom_score_adj: plan.resources.oom_score_adj,
        hooks: Vec::new(),
        other_runtime: None,
        annotations: notes(plan),
    })
}

/// Profiles that may stand for "the runtime's", the first that the kernel has.
const APP_ARMOR_DEFAULTS: [&str; 3] = [crate::device::APP_ARMOR_DEFAULT, "cri-containerd.apparmor.d", "docker-default"];

fn app_armor(plan: &AppArmorPlan) -> Result<Option<String>, String> {
    if !crate::device::app_armor() {
        return Ok(None);
    }
    let loaded = crate::device::app_armor_profiles();
    let usual = APP_ARMOR_DEFAULTS.iter().find(|name| loaded.contains(**name)).map(|name| name.to_string());
    match plan {
        AppArmorPlan::Unconfined => Ok(Some("unconfined".into())),
        AppArmorPlan::Unsaid => Ok(usual),
        AppArmorPlan::RuntimeDefault => usual.map(Some).ok_or_else(|| {
            let names = APP_ARMOR_DEFAULTS.join(", ");
            format!("no AppArmor profile for RuntimeDefault is loaded on this node ({names}); the agent's log says why")
        }),
        AppArmorPlan::Localhost(name) if loaded.contains(name) => Ok(Some(name.clone())),
        AppArmorPlan::Localhost(name) => Err(format!("the AppArmor profile \"{name}\" is not loaded on this node")),
    }
}

/// The socket of the board's broker. Other pods' sockets are not in the directory.
pub fn broker_mount(run: &Path, uid: &str) -> rt::Mount {
    rt::Mount {
        source: LocalBroker::dir_of(run, uid),
        destination: PathBuf::from(broker::MOUNT),
        read_only: true,
        no_exec: true,
        ..rt::Mount::default()
    }
}

/// What devices bring along.
pub fn add_devices(spec: &mut rt::ContainerSpec, given: Given) {
    spec.devices.extend(given.devices);
    // Who is not root has a vendor's node for its own, unless the vendor says whose it is.
    let (uid, gid) = (Some(spec.user.uid).filter(|id| *id > 0), Some(spec.user.gid).filter(|id| *id > 0));
    spec.devices.extend(given.described.into_iter().map(|device| rt::Device {
        uid: device.uid.or(uid),
        gid: device.gid.or(gid),
        ..device
    }));
    spec.mounts.extend(given.mounts);
    spec.env.extend(given.env);
    spec.user.groups.extend(given.groups);
    spec.hooks.extend(given.hooks);
    spec.annotations.extend(given.notes);
}

/// The last words of a container are the end of its log when it wrote none; the next agent must know that too.
pub const MESSAGE_FROM_LOG: &str = "message-from-log";

fn notes(plan: &ContainerPlan) -> BTreeMap<String, String> {
    let from_log = plan.termination_message_from_log.then(|| (MESSAGE_FROM_LOG.to_string(), String::new()));
    from_log.into_iter().collect()
}

pub fn termination_file(data: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    data.join("pods").join(uid).join("termination").join(format!("{container}.{attempt}"))
}

/// The directory or file that a volume is mounted from.
pub fn volume_source(data: &Path, uid: &str, volume: &VolumePlan) -> PathBuf {
    match &volume.content {
        VolumeContent::EmptyDir { .. } | VolumeContent::HugePages { .. } => {
            volumes::dir(data, uid, "empty-dir", &volume.name)
        }
        VolumeContent::Image { .. } => volumes::dir(data, uid, "image", &volume.name),
        VolumeContent::HostPath { path, .. } | VolumeContent::Persistent { path, .. } | VolumeContent::Block { path } => {
            PathBuf::from(path)
        }
        VolumeContent::Files { .. } => volumes::dir(data, uid, "files", &volume.name),
    }
}

/// Makes one volume; done twice it changes nothing but what differs.
pub fn set_up_volume(data: &Path, uid: &str, volume: &VolumePlan) -> std::io::Result<()> {
    let dir = volume_source(data, uid, volume);
    match &volume.content {
        VolumeContent::EmptyDir { memory, limit_bytes } => {
            let medium = match memory {
                true => volumes::Medium::Memory { bytes: *limit_bytes },
                false => volumes::Medium::Disk,
            };
            volumes::emptydir::set_up(&dir, medium, volume.group)
        }
        VolumeContent::HugePages { page_bytes } => {
            let medium = volumes::Medium::HugePages { page_bytes: *page_bytes };
            volumes::emptydir::set_up(&dir, medium, volume.group)
        }
        VolumeContent::Persistent { make, owned_always, .. } => {
            volumes::persistent::set_up(&dir, *make, volume.group, *owned_always)
        }
        VolumeContent::Block { .. } => volumes::hostpath::set_up(&dir, HostPathType::BlockDevice),
        // Its layers come from the image store: see `Hands::set_up_volumes`.
        VolumeContent::Image { .. } => Ok(()),
        VolumeContent::HostPath { kind, .. } => {
            let kind = HostPathType::parse(kind)
                .ok_or_else(|| std::io::Error::other(format!("hostPath type \"{kind}\" is not known")))?;
            volumes::hostpath::set_up(&dir, kind)
        }
        VolumeContent::Files { files, secret } => {
            if *secret {
                std::fs::create_dir_all(&dir)?;
                if !volumes::is_mount_point(&dir)? {
                    volumes::emptydir::mount_tmpfs(&dir, None, 0o755)?;
                }
            }
            let file = |f: &limpet_agent_core::volumes::VolumeFile| {
                (f.path.clone(), volumes::File { bytes: f.bytes.clone(), mode: f.mode, owner: f.owner })
            };
            volumes::atomic::write(&dir, &files.iter().map(file).collect(), volume.group).map(|_| ())
        }
    }
}
