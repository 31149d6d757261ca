//! Builds config.json of the OCI runtime specification for one container.
//!
//! In: the container's spec, its sandbox. Out: a JSON value; libcontainer reads it from the bundle.
//! Never: resources (our own cgroups code sets them) or seccomp (our executor loads it).

use super::super::record::Record;
use super::super::spec::{ContainerSpec, ExecSpec, Mount, Propagation, SandboxSpec, User};
use super::{caps, executor, furnish, home, sandbox};
use serde_json::{Value, json};
use std::path::Path;

pub const MASKED: [&str; 12] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub struct Parts<'a> {
    pub spec: &'a ContainerSpec,
    pub sandbox: &'a SandboxSpec,
    pub run_dir: &'a Path,
    /// Where the root is mounted.
    pub root: &'a Path,
    /// Where the pod's /etc files are.
    pub etc: &'a Path,
    pub group: &'a str,
    pub caps: u64,
    /// Sources with sub paths resolved, in the order of `spec.mounts`.
    pub sources: Vec<std::path::PathBuf>,
    pub devices: Vec<Value>,
    pub cgroup_v2: bool,
    /// The helper is in the group already and has hidden the cgroup file systems.
    pub joined: bool,
    /// Destinations that are mounted already (`furnish`).
    pub furnished: &'a [&'static str],
    /// A prepared directory for /sys/fs/cgroup (v1); libcontainer mounts it itself otherwise.
    pub cgroup_view: Option<&'a Path>,
    /// The process namespace of another container, instead of one of its own.
    pub pid_namespace: Option<std::path::PathBuf>,
}

pub fn config(parts: &Parts<'_>) -> Value {
    let spec = parts.spec;
    let (masked, read_only): (&[&str], &[&str]) =
        if spec.privileged || spec.unmasked_proc { (&[], &[]) } else { (&MASKED, &READ_ONLY) };
    // Of a pod with users of its own those are mounts: `own_users_devices`.
    let mounted = parts.sandbox.first_id.is_some() && !spec.privileged;
    let devices: &[Value] = if mounted { &[] } else { &parts.devices };
    let shared = spec.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": parts.root, "readonly": spec.read_only_root },
        "process": process(&Process {
            tty: spec.tty, args: &spec.args, env: &spec.env, cwd: &spec.cwd, user: &spec.user, caps: parts.caps,
            no_new_privileges: spec.no_new_privileges, app_armor: spec.app_armor.as_deref(),
            oom_score_adj: Some(spec.oom_score_adj), borrows: spec.other_runtime.is_none(),
        }),
        "mounts": mounts(parts),
        "linux": {
            "cgroupsPath": format!("/{}", parts.group),
            "namespaces": namespaces(parts),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "devices": devices,
        },
    });
    for hook in &spec.hooks {
        let mut value = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
        if let Some(timeout) = hook.timeout {
            value["timeout"] = json!(timeout);
        }
        let stage = config["hooks"][hook.hook_name.as_str()].as_array().cloned().unwrap_or_default();
        config["hooks"][hook.hook_name.as_str()] = stage.into_iter().chain([value]).collect();
    }
    if shared {
        config["linux"]["rootfsPropagation"] = json!("shared");
    }
    config
}

struct Process<'a> {
    tty: bool,
    args: &'a [String],
    env: &'a [String],
    cwd: &'a str,
    user: &'a super::super::spec::User,
    caps: u64,
    no_new_privileges: bool,
    app_armor: Option<&'a str>,
    oom_score_adj: Option<i32>,
    /// Our own executor lends itself capabilities until the program starts; other runtimes have their own ways.
    borrows: bool,
}

fn process(process: &Process<'_>) -> Value {
    let names = caps::names(if process.borrows { executor::during_setup(process.caps) } else { process.caps });
    // The primary group is a supplementary one too, so that dropping it takes nothing away (CVE-2022-2989).
    let mut groups = vec![process.user.gid];
    groups.extend(process.user.groups.iter().filter(|gid| **gid != process.user.gid));
    // Our own executor finds the home itself.
    let home = (process.borrows && home::is_missing(process.env)).then_some(home::NONE);
    let env: Vec<&str> = process.env.iter().map(String::as_str).chain(home).collect();
    let mut value = json!({
        "terminal": process.tty,
        "args": process.args,
        "env": env,
        "cwd": if process.cwd.is_empty() { "/" } else { process.cwd },
        "user": { "uid": process.user.uid, "gid": process.user.gid, "additionalGids": groups },
        "capabilities": { "bounding": names, "effective": names, "permitted": names },
    });
    // Explicit `false` is not the same as absence in libcontainer.
    if process.no_new_privileges {
        value["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = process.app_armor {
        value["apparmorProfile"] = json!(profile);
    }
    if let Some(score) = process.oom_score_adj {
        value["oomScoreAdj"] = json!(allowed_oom_score(score));
    }
    value
}

/// Going below our own score needs CAP_SYS_RESOURCE, which an agent in a container may not have: then ours is the lowest.
fn allowed_oom_score(wanted: i32) -> i32 {
    if caps::of_this_process() & caps::bit("SYS_RESOURCE") != 0 {
        return wanted;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
    wanted.max(own)
}

/// As the host counts: the process gets these before it joins the pod's own users (`Program::users`).
fn on_the_host(user: &User, first_id: Option<u32>) -> User {
    let first_id = first_id.unwrap_or(0);
    let groups = user.groups.iter().map(|gid| gid.saturating_add(first_id)).collect();
    User { uid: user.uid.saturating_add(first_id), gid: user.gid.saturating_add(first_id), groups }
}

/// process.json of an exec; `borrows` when our own executor starts it.
pub fn exec_process(record: &Record, exec: &ExecSpec, caps: u64, env: &[String], borrows: bool) -> Value {
    let user = on_the_host(exec.user.as_ref().unwrap_or(&record.spec.user), record.spec.first_id);
    process(&Process {
        tty: exec.tty,
        args: &exec.args,
        env,
        cwd: exec.cwd.as_deref().unwrap_or(&record.spec.cwd),
        user: &user,
        caps,
        no_new_privileges: record.spec.no_new_privileges,
        app_armor: record.spec.app_armor.as_deref(),
        oom_score_adj: Some(record.spec.oom_score_adj),
        borrows,
    })
}

fn namespaces(parts: &Parts<'_>) -> Vec<Value> {
    let pinned = |kind: &str, file: &str| {
        json!({ "type": kind, "path": sandbox::pin(parts.run_dir, &parts.spec.pod_uid, file) })
    };
    let sandbox = parts.sandbox;
    let mut list = vec![json!({ "type": "mount" })];
    if sandbox.first_id.is_some() {
        list.push(pinned("user", "user"));
    }
    if !sandbox.host_network {
        list.push(pinned("network", "net"));
        list.push(pinned("uts", "uts"));
    }
    if !sandbox.host_ipc {
        list.push(pinned("ipc", "ipc"));
    }
    if sandbox.share_pid && !sandbox.host_pid {
        list.push(pinned("pid", "pid"));
    } else if let (Some(path), false) = (&parts.pid_namespace, sandbox.host_pid) {
        list.push(json!({ "type": "pid", "path": path }));
    } else if !sandbox.host_pid {
        list.push(json!({ "type": "pid" }));
    }
    if parts.cgroup_v2 && (!parts.spec.privileged || sandbox.first_id.is_some()) {
        list.push(json!({ "type": "cgroup" }));
    }
    list
}

fn mounts(parts: &Parts<'_>) -> Vec<Value> {
    let spec = parts.spec;
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        json!({ "destination": destination, "type": kind, "source": kind, "options": options })
    };
    let access = if spec.privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        match parts.cgroup_view {
            Some(view) => bind(view, Path::new("/sys/fs/cgroup"), &Mount::default(), !spec.privileged),
            None => {
                let kind = if parts.joined { "cgroup2" } else { "cgroup" };
                mount("/sys/fs/cgroup", kind, &["nosuid", "noexec", "nodev", "relatime", access])
            }
        },
    ];
    for (name, path) in furnish::ETC {
        if !spec.mounts_on(path) {
            list.push(bind(&parts.etc.join(name), Path::new(path), &Mount::default(), spec.read_only_root));
        }
    }
    if !spec.mounts_on("/dev/shm") {
        let shm = sandbox::shm_dir(parts.run_dir, parts.sandbox);
        list.push(bind(&shm, Path::new("/dev/shm"), &Mount::default(), false));
    }
    list.retain(|mount| !parts.furnished.iter().any(|done| mount["destination"] == *done));
    for (wish, source) in spec.mounts.iter().zip(&parts.sources) {
        list.push(bind(source, &wish.destination, wish, wish.read_only));
    }
    // Parents before children, whatever the order in the pod's spec; also a volume on /etc before the pod's files there.
    list.sort_by_key(|mount| Path::new(mount["destination"].as_str().unwrap_or_default()).components().count());
    list.extend(own_users_devices(parts));
    list
}

/// Nobody but the host's root may make device nodes: those of the host are mounted one by one.
fn own_users_devices(parts: &Parts<'_>) -> Vec<Value> {
    let wanted = if parts.sandbox.first_id.is_some() { parts.spec.devices.as_slice() } else { &[] };
    wanted.iter().map(|device| bind(&device.host_path, &device.container_path, &Mount::default(), false)).collect()
}

fn bind(source: &Path, destination: &Path, wish: &Mount, read_only: bool) -> Value {
    let propagation = match wish.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = if read_only { "ro" } else { "rw" };
    let mut options = vec!["rbind", propagation, access];
    if read_only && wish.recursive_read_only {
        options.push("rro");
    }
    let wished = [(wish.no_exec, "noexec"), (wish.no_exec || wish.no_suid, "nosuid"), (wish.no_exec || wish.no_dev, "nodev")];
    options.extend(wished.iter().filter(|(wish, _)| *wish).map(|(_, word)| *word));
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}
