//! From a PodSpec to what the runtime must do: one plan a sandbox, one a container.
//!
//! In: the pod, the image's config, the desired set (ConfigMaps, Secrets, Services), facts of the host.
//! Out: plain data without Kubernetes words in it, or a sentence why a container cannot be configured.
//! Never: touches the host; a plan holds no file handles and no paths outside the container, save hostPath's.

mod claimed;
mod env;
mod env_files;
mod etc;
mod expand;
mod fields;
mod mounts;
mod resources;
mod security;
pub mod sysctls;

pub use claimed::claimed;
pub use env_files::{ENV_FILE_BYTES_MAX, EnvFiles, NO_ENV_FILES, wanted as env_files_wanted};
pub use etc::{DnsPlan, etc_hosts, resolv_conf};
pub use fields::{Context, field_value, resource_value};
pub use mounts::{MountPlan, MountSource, Propagation};
pub use resources::{
    PodResources, Qos, Requests, ResourcePlan, container as container_resources, limits, pod_resources, qos, requests,
};
pub(crate) use resources::effective;
pub(crate) use security::app_armor;
pub use security::{AppArmorPlan, SeccompPlan, SecurityPlan, UserPlan};

use crate::{
    api::{Container, Pod, PodSpec},
    sync::Items,
};
use limpet_protocol::{ItemHash, ItemKind, RUNTIME_CLASS_ITEM};
use serde::{Deserialize, Serialize};

/// What the image store says about an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFacts {
    /// What the store finds its layers by (a digest).
    pub id: String,
    /// `repository@sha256:…` for `imageID`; the id when there is none.
    pub digest_ref: String,
    /// As the status names it: `docker.io/library/nginx:1.27`, the id of one without a tag.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
    pub size_bytes: u64,
}

/// Facts of the host that plans and statuses need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    pub node_name: String,
    /// First is the primary address.
    pub ips: Vec<String>,
    pub memory_bytes: u64,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    /// 0: no limit is known.
    pub pods_max: u32,
    pub allocatable_storage_bytes: i64,
    /// Host and port of the API, for pods when no `kubernetes` Service is known.
    pub api: Option<(String, u16)>,
    /// Name of the cluster's DNS domain.
    pub cluster_domain: String,
    /// The kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// Sysctls that this node allows besides the safe ones; `name.*` is all of a family.
    pub unsafe_sysctls: Vec<String>,
    /// Handlers of RuntimeClasses that this node has, besides its own.
    pub runtime_handlers: Vec<String>,
    /// Why no pod can have users of its own (`hostUsers: false`); `None`: pods can.
    pub no_own_users: Option<String>,
    /// Conditions under which kubelet takes no further pod (`MemoryPressure`, …).
    pub pressed: Vec<&'static str>,
    /// CrashLoopBackOff: the first wait and the longest; 0 is Kubernetes' default.
    pub restart_wait_ms_first: u64,
    pub restart_wait_ms_max: u64,
}

/// Everything that one container is started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub pod_uid: String,
    pub pod_name: String,
    pub namespace: String,
    pub name: String,
    /// Equals the restart count.
    pub attempt: u32,
    /// 64 hex characters, the same for the same pod, container and attempt.
    pub id: String,
    pub image: ImageFacts,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub hostname: String,
    pub user: UserPlan,
    pub security: SecurityPlan,
    pub resources: ResourcePlan,
    pub mounts: Vec<MountPlan>,
    /// Volumes of mode Block: name of the volume, path in the container.
    #[serde(default)]
    pub block_devices: Vec<(String, String)>,
    /// Those of them, by their volume's name, that are only read.
    #[serde(default)]
    pub blocks_read: Vec<String>,
    /// Devices of the node, by their names, that claims give the container.
    #[serde(default)]
    pub claimed: Vec<String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// Path in the container of the file whose content becomes the termination message.
    pub termination_message_path: String,
    /// Use the end of the log when the file is empty and the container failed.
    pub termination_message_from_log: bool,
    pub stop_signal: String,
    pub host_pid: bool,
    pub share_process_namespace: bool,
    /// Id of the container whose processes this one sees (`kubectl debug --target`).
    pub pid_of: Option<String>,
    /// Another runtime of this node, by its RuntimeClass's handler; empty is the node's own.
    #[serde(default)]
    pub handler: String,
}

/// What the pod's sandbox (its namespaces, network and cgroup) is made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxPlan {
    pub pod_uid: String,
    pub pod_name: String,
    pub namespace: String,
    pub hostname: String,
    /// Its first part, also where the kernel is told the whole.
    #[serde(default)]
    pub short: String,
    /// `hostname.subdomain.namespace.svc.domain`, when the pod has a subdomain.
    pub fqdn: Option<String>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    /// `hostUsers: false`.
    #[serde(default)]
    pub own_users: bool,
    pub sysctls: Vec<(String, String)>,
    pub qos: Qos,
    pub resources: PodResources,
    pub host_ports: Vec<HostPort>,
    pub dns: DnsPlan,
    pub host_aliases: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPort {
    pub host_ip: String,
    pub host_port: u16,
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

impl HostPort {
    /// Whether both cannot be had on one host.
    pub fn collides(&self, other: &HostPort) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        let same_ip = self.host_ip == other.host_ip || any(&self.host_ip) || any(&other.host_ip);
        same_ip && (self.host_port, &self.protocol) == (other.host_port, &other.protocol)
    }
}

/// 64 hex characters that name one attempt of one container.
pub fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    let mut text = String::with_capacity(64);
    for half in 0..2 {
        for byte in ItemHash::of(format!("{half}/{uid}/{container}/{attempt}").as_bytes()).0 {
            text.extend([byte >> 4, byte & 15].map(|half| char::from_digit(u32::from(half), 16).unwrap_or_default()));
        }
    }
    text
}

/// The name that the pod has for itself.
pub fn hostname(pod: &Pod) -> String {
    if let Some(own) = pod.spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return own.to_string();
    }
    let name = pod.spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(&pod.metadata.name);
    let mut name: String = name.chars().take(63).collect();
    while name.ends_with(['-', '.']) {
        name.pop();
    }
    name
}

/// The name in full, when there is one, and the one that the kernel is told.
fn names(pod: &Pod, host: &HostFacts) -> (Option<String>, String) {
    let spec = &pod.spec;
    let short = hostname(pod);
    let overridden = spec.hostname_override.as_deref().is_some_and(|h| !h.is_empty());
    let fqdn = spec.subdomain.as_deref().filter(|s| !s.is_empty() && !overridden).map(|subdomain| {
        format!("{short}.{subdomain}.{}.svc.{}", pod.metadata.namespace, host.cluster_domain)
    });
    let hostname = match (&fqdn, spec.set_hostname_as_fqdn) {
        _ if spec.host_network => host.node_name.clone(),
        (Some(full), true) => full.clone(),
        _ => short,
    };
    (fqdn, hostname)
}

pub fn sandbox(pod: &Pod, host: &HostFacts) -> SandboxPlan {
    let (meta, spec) = (&pod.metadata, &pod.spec);
    let (fqdn, hostname) = names(pod, host);
    SandboxPlan {
        short: self::hostname(pod),
        pod_uid: meta.uid.clone(),
        pod_name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        hostname,
        fqdn,
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_process_namespace: spec.share_process_namespace,
        own_users: spec.host_users == Some(false),
        sysctls: spec.security_context.sysctls.iter().map(|s| (sysctls::name(&s.name), s.value.clone())).collect(),
        qos: qos(spec),
        resources: pod_resources(spec),
        host_ports: if spec.host_network { Vec::new() } else { host_ports(spec).collect() },
        dns: etc::dns_plan(pod, host),
        host_aliases: spec.host_aliases.iter().map(|a| (a.ip.clone(), a.hostnames.clone())).collect(),
    }
}

/// Ports of the host that a pod has for itself.
pub fn host_ports(spec: &PodSpec) -> impl Iterator<Item = HostPort> + '_ {
    let all = spec.init_containers.iter().chain(&spec.containers);
    all.flat_map(|c| &c.ports).filter_map(|p| {
        Some(HostPort {
            host_ip: p.host_ip.clone().unwrap_or_default(),
            host_port: p.host_port.filter(|port| *port != 0)?,
            container_port: p.container_port,
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
        })
    })
}

/// The plan of one attempt of one container. The error is kubelet's message of `CreateContainerConfigError`.
pub fn container(
    context: &Context<'_>,
    items: &Items,
    container: &Container,
    image: &ImageFacts,
    attempt: u32,
) -> Result<ContainerPlan, String> {
    let (meta, spec) = (&context.pod.metadata, &context.pod.spec);
    let variables = env::build(context, items, container)?;
    let expand = |words: &[String]| words.iter().map(|w| expand::expand(w, &variables)).collect();
    let command: Vec<String> = expand(&container.command);
    let given: Vec<String> = expand(&container.args);
    let args = match (command.is_empty(), given.is_empty()) {
        (true, true) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
        (true, false) => [image.entrypoint.clone(), given].concat(),
        (false, _) => [command, given].concat(),
    };
    if args.is_empty() {
        return Err("no command specified".into());
    }
    let (_, hostname) = names(context.pod, context.host);
    let sandbox_env = env::merge_image(&image.env, &variables, &hostname);
    let working_dir = container.working_dir.as_deref().filter(|d| !d.is_empty());
    let lifecycle_signal = container.lifecycle.stop_signal.as_deref().filter(|s| !s.is_empty());
    let message_path = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    Ok(ContainerPlan {
        pod_uid: meta.uid.clone(),
        pod_name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        name: container.name.clone(),
        attempt,
        id: container_id(&meta.uid, &container.name, attempt),
        image: image.clone(),
        args,
        env: sandbox_env,
        cwd: working_dir.or(Some(&image.working_dir).filter(|d| !d.is_empty()).map(|d| &**d)).unwrap_or("/").into(),
        hostname,
        user: security::user(context.pod, container, image)?,
        security: security::plan(spec, container),
        resources: resources::container(spec, container, context.host),
        mounts: mounts::plan(spec, container, &variables)?,
        block_devices: container.volume_devices.iter().map(|d| (d.name.clone(), d.device_path.clone())).collect(),
        blocks_read: blocks_read(spec, container),
        claimed: claimed::devices(context, items, container)?,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        termination_message_path: message_path.unwrap_or("/dev/termination-log").into(),
        termination_message_from_log: container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        stop_signal: lifecycle_signal.unwrap_or(&image.stop_signal).into(),
        host_pid: spec.host_pid,
        share_process_namespace: spec.share_process_namespace,
        pid_of: None,
        handler: handler(spec, items).filter(|h| h != OWN_HANDLER).unwrap_or_default(),
    })
}

/// `persistentVolumeClaim.readOnly` of a volume of mode Block.
fn blocks_read(spec: &PodSpec, container: &Container) -> Vec<String> {
    let read = |name: &String| spec.volumes.iter().any(|v| v.name == *name && v.claim("").is_some_and(|(_, only)| only));
    container.volume_devices.iter().map(|d| &d.name).filter(|name| read(name)).cloned().collect()
}

/// The handler that names the runtime which every pod has without a class.
pub const OWN_HANDLER: &str = "limpet";

/// The handler of the pod's RuntimeClass. Pods of the board itself may name a handler where no class is known.
pub fn handler(spec: &PodSpec, items: &Items) -> Option<String> {
    #[derive(Deserialize)]
    struct Class {
        handler: String,
    }
    let name = spec.runtime_class_name.as_deref().filter(|name| !name.is_empty())?;
    let class: Option<Class> = items.read(ItemKind::Settings, "", &format!("{RUNTIME_CLASS_ITEM}{name}"));
    Some(class.map_or_else(|| name.to_string(), |class| class.handler))
}

#[cfg(test)]
mod tests;
