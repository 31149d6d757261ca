//! The pod's sandbox: namespaces pinned by bind mounts, addresses, /etc files, shared memory. No process.
//!
//! In: the pod's spec and address. Out: `<run>/pods/<uid>/…`. Never: a half-made sandbox that looks whole:
//! `sandbox.json` is written last and read first.

use super::super::record;
use super::super::spec::{Dns, Resources, SandboxSpec};
use super::owner::{self, Owner};
use super::{Failure, Outcome};
use crate::device::cgroups::Cgroups;
use crate::net::{BRIDGE, Cidr, link, netlink::Socket};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The group of `rt init` in a pod that shares its process namespace.
pub const INIT_GROUP: &str = "init";
const HOSTNAME_BYTES_MAX: usize = 64;
const RESOLV_BYTES_MAX: u64 = 64 * 1024;
const NSFS_MAGIC: u32 = 0x6e73_6673;
const NONE: Option<&str> = None;

pub fn dir(run_dir: &Path, pod_uid: &str) -> PathBuf {
    run_dir.join("pods").join(pod_uid)
}

pub fn pin(run_dir: &Path, pod_uid: &str, namespace: &str) -> PathBuf {
    dir(run_dir, pod_uid).join("ns").join(namespace)
}

pub fn etc_dir(run_dir: &Path, pod_uid: &str) -> PathBuf {
    dir(run_dir, pod_uid).join("etc")
}

pub fn shm_dir(run_dir: &Path, spec: &SandboxSpec) -> PathBuf {
    if spec.host_ipc { "/dev/shm".into() } else { dir(run_dir, &spec.pod_uid).join("shm") }
}

/// The veth's name on the host: short, and the same for the same pod.
pub fn host_link(pod_uid: &str) -> String {
    format!("lp{:08x}", crc32fast::hash(pod_uid.as_bytes()))
}

pub fn is_host_link(name: &str) -> bool {
    name.strip_prefix("lp").is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub fn read(run_dir: &Path, pod_uid: &str) -> Result<SandboxSpec> {
    Ok(serde_json::from_slice(&std::fs::read(dir(run_dir, pod_uid).join("sandbox.json"))?)?)
}

/// Whether everything that was pinned is still there.
pub fn stands(run_dir: &Path, pod_uid: &str) -> bool {
    let Ok(spec) = read(run_dir, pod_uid) else { return false };
    namespaces(&spec).iter().all(|(name, _)| is_namespace(&pin(run_dir, pod_uid, name)))
        && (!spec.share_pid || spec.host_pid || is_namespace(&pin(run_dir, pod_uid, "pid")))
        && (spec.first_id.is_none() || is_namespace(&pin(run_dir, pod_uid, "user")))
}

fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 as u32 == NSFS_MAGIC)
}

fn namespaces(spec: &SandboxSpec) -> Vec<(&'static str, CloneFlags)> {
    let mut list = Vec::new();
    if !spec.host_network {
        list.push(("net", CloneFlags::CLONE_NEWNET));
        list.push(("uts", CloneFlags::CLONE_NEWUTS));
    }
    if !spec.host_ipc {
        list.push(("ipc", CloneFlags::CLONE_NEWIPC));
    }
    list
}

pub fn create(
    run_dir: &Path,
    cgroup_parent: &str,
    spec: &SandboxSpec,
    address: Option<(Ipv4Addr, Cidr)>,
) -> std::result::Result<Outcome, Failure> {
    if stands(run_dir, &spec.pod_uid) {
        write_files(run_dir, spec, address).map_err(|err| Failure::create("the pod's /etc files", err))?;
        return Ok(Outcome::default());
    }
    // What an earlier attempt or boot left is no use.
    tear_down(run_dir, &spec.pod_uid).map_err(|err| Failure::create("remove the old sandbox", err))?;
    let made = make(run_dir, cgroup_parent, spec, address);
    if made.is_err() {
        let _ = tear_down(run_dir, &spec.pod_uid);
    }
    made.map(|()| Outcome::default()).map_err(|err| Failure::create("sandbox", err))
}

fn make(run_dir: &Path, cgroup_parent: &str, spec: &SandboxSpec, address: Option<(Ipv4Addr, Cidr)>) -> Result<()> {
    let cgroups = Cgroups::probe(cgroup_parent)?;
    let group = cgroups.pod_group(spec.qos, &spec.pod_uid);
    cgroups.prepare_pod(&group, &spec.resources)?;
    let base = dir(run_dir, &spec.pod_uid);
    std::fs::create_dir_all(base.join("ns"))?;
    std::fs::create_dir_all(base.join("etc"))?;
    if !spec.host_ipc {
        std::fs::create_dir_all(base.join("shm"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("shm"), &base.join("shm"), Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?;
    }
    write_files(run_dir, spec, address)?;
    // Of the host's network namespace, before it is left.
    let mut host = Socket::route()?;
    let wanted = namespaces(spec);
    let flags = wanted.iter().fold(CloneFlags::empty(), |flags, (_, flag)| flags | *flag);
    match spec.first_id {
        None => {
            unshare(flags)?;
            wanted.iter().try_for_each(|(name, _)| pin_one(&base, "self", name))?;
        }
        Some(first_id) => owned(&cgroups, &group, &base, spec, (first_id, flags))?,
    }
    if !spec.host_network {
        nix::unistd::sethostname(short(&spec.hostname))?;
        connect(&mut host, spec, address)?;
    }
    sysctls(spec)?;
    if spec.share_pid && !spec.host_pid && spec.first_id.is_none() {
        start_init(&cgroups, &group, &base)?;
    }
    let text = serde_json::to_vec(spec)?;
    record::write_file(&base.join("sandbox.json"), &text, 0o600)
}

fn pin_one(base: &Path, process: &str, name: &str) -> Result<()> {
    let target = base.join("ns").join(name);
    std::fs::write(&target, b"")?;
    Ok(mount(Some(format!("/proc/{process}/ns/{name}").as_str()), &target, NONE, MsFlags::MS_BIND, NONE)?)
}

/// Namespaces that belong to users of the pod's own: a process with those users makes them, this one joins them.
fn owned(cgroups: &Cgroups, group: &str, base: &Path, spec: &SandboxSpec, of: (u32, CloneFlags)) -> Result<()> {
    let ((first_id, flags), share_pid) = (of, spec.share_pid && !spec.host_pid);
    let owner = Owner::start(first_id, || {
        unshare(flags)?;
        if share_pid { owner::start_init() } else { Ok(0) }
    })?;
    let process = owner.pid.to_string();
    pin_one(base, &process, "user")?;
    for (name, flag) in namespaces(spec) {
        pin_one(base, &process, name)?;
        nix::sched::setns(std::fs::File::open(base.join("ns").join(name))?, flag)?;
    }
    if share_pid {
        let init_group = format!("{group}/{INIT_GROUP}");
        let small = Resources { pids_limit: Some(16), ..Resources::default() };
        cgroups.prepare_container(&init_group, &small, Some(&[]))?;
        cgroups.attach(&init_group, owner.said)?;
        pin_one(base, &owner.said.to_string(), "pid")?;
    }
    owner.end()
}

fn connect(host: &mut Socket, spec: &SandboxSpec, address: Option<(Ipv4Addr, Cidr)>) -> Result<()> {
    let mut pod = Socket::route()?;
    let Some((ip, cidr)) = address else { return link::loopback_up(&mut pod) };
    let namespace = std::fs::File::open("/proc/self/ns/net")?;
    let pair = link::Pair { host_name: &host_link(&spec.pod_uid), bridge: BRIDGE, address: ip, gateway: cidr.gateway() };
    link::attach_pod(host, &mut pod, namespace.as_fd(), &pair)
}

fn sysctls(spec: &SandboxSpec) -> Result<()> {
    let mut list: Vec<(String, String)> = Vec::new();
    if !spec.host_network {
        // As containerd: low ports and ping need no capability inside a pod.
        list.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
        list.push(("net.ipv4.ping_group_range".into(), "0 2147483647".into()));
    }
    list.extend(spec.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())));
    for (key, value) in list {
        let ours = key.starts_with("net.") && !spec.host_network
            || !spec.host_ipc
                && (key.starts_with("kernel.shm") || key.starts_with("kernel.msg") || key == "kernel.sem")
            || !spec.host_ipc && key.starts_with("fs.mqueue.");
        if !ours || key.contains("..") || key.contains('/') {
            return Err(Error::other(format!("sysctl \"{key}\" is not one of the pod's own namespaces")));
        }
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        std::fs::write(&path, &value).map_err(|err| Error::new(err.kind(), format!("sysctl {key}={value}: {err}")))?;
    }
    Ok(())
}

/// A process namespace lives as long as its process 1: the smallest one there is, in a group of its own.
fn start_init(cgroups: &Cgroups, pod_group: &str, base: &Path) -> Result<()> {
    let group = format!("{pod_group}/{INIT_GROUP}");
    let small = Resources { pids_limit: Some(16), ..Resources::default() };
    cgroups.prepare_container(&group, &small, Some(&[]))?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = Command::new("/proc/self/exe")
        .arg0("limpet-agent")
        .args(["rt", "init"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    cgroups.attach(&group, child.id() as i32)?;
    pin_one(base, &child.id().to_string(), "pid")
}

fn write_files(run_dir: &Path, spec: &SandboxSpec, address: Option<(Ipv4Addr, Cidr)>) -> Result<()> {
    let etc = etc_dir(run_dir, &spec.pod_uid);
    let hosts = if spec.host_network {
        host_hosts(spec)
    } else {
        pod_hosts(spec, address.map(|(ip, _)| ip))
    };
    let resolv = match resolv(&spec.dns) {
        Some(text) => text,
        None => host_resolv(),
    };
    for (name, text) in [("hosts", hosts), ("hostname", format!("{}\n", short(&spec.hostname))), ("resolv.conf", resolv)] {
        // In place: running containers have this very file bound.
        std::fs::write(etc.join(name), text)?;
    }
    Ok(())
}

fn pod_hosts(spec: &SandboxSpec, ip: Option<Ipv4Addr>) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    if let Some(ip) = ip {
        let name = if spec.short.is_empty() { short(&spec.hostname) } else { &spec.short };
        match &spec.fqdn {
            Some(fqdn) => text.push_str(&format!("{ip}\t{fqdn}\t{name}\n")),
            None => text.push_str(&format!("{ip}\t{name}\n")),
        }
    }
    aliases(spec, &mut text);
    text
}

fn host_hosts(spec: &SandboxSpec) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file (host network).\n");
    text.push_str(&std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1\tlocalhost\n".into()));
    aliases(spec, &mut text);
    text
}

fn aliases(spec: &SandboxSpec, text: &mut String) {
    if spec.host_aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for (ip, names) in &spec.host_aliases {
        text.push_str(&format!("{ip}\t{}\n", names.join("\t")));
    }
}

fn resolv(dns: &Dns) -> Option<String> {
    if dns.nameservers.is_empty() {
        return None;
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Some(text)
}

fn host_resolv() -> String {
    let path = Path::new("/etc/resolv.conf");
    match std::fs::metadata(path) {
        Ok(found) if found.len() <= RESOLV_BYTES_MAX => std::fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    }
}

fn short(hostname: &str) -> &str {
    let mut end = hostname.len().min(HOSTNAME_BYTES_MAX);
    while !hostname.is_char_boundary(end) {
        end -= 1;
    }
    hostname[..end].trim_end_matches(['-', '.'])
}

/// Removes what `create` made, as far as it is there. The cgroup is the caller's.
pub fn tear_down(run_dir: &Path, pod_uid: &str) -> Result<()> {
    let base = dir(run_dir, pod_uid);
    if !base.exists() {
        return Ok(());
    }
    for name in ["net", "uts", "ipc", "pid", "user"] {
        unmount(&base.join("ns").join(name))?;
    }
    unmount(&base.join("shm"))?;
    // The veth dies with the namespace, but later: its name is wanted at once by a new sandbox.
    if let Ok(mut socket) = Socket::route() {
        link::delete(&mut socket, &host_link(pod_uid))?;
    }
    match std::fs::remove_dir_all(&base) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {} // mounted more than once: until nothing is left
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_look_as_kubelet_writes_them() {
        let spec = SandboxSpec {
            hostname: "web-0".into(),
            fqdn: Some("web-0.web.default.svc.cluster.local".into()),
            host_aliases: vec![("10.1.2.3".into(), vec!["foo".into(), "bar".into()])],
            ..SandboxSpec::default()
        };
        let hosts = pod_hosts(&spec, Some(Ipv4Addr::new(10, 42, 0, 5)));
        assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(hosts.contains("10.42.0.5\tweb-0.web.default.svc.cluster.local\tweb-0\n"));
        assert!(hosts.ends_with("# Entries added by HostAliases.\n10.1.2.3\tfoo\tbar\n"));
        let dns = Dns {
            nameservers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let expect = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv(&dns).as_deref(), Some(expect));
        assert_eq!(short(&format!("{}-x", "a".repeat(63))), "a".repeat(63));
        assert_eq!(host_link("abc").len(), 10);
    }
}
