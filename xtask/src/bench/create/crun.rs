//! crun's side: the same container as a bundle.
//!
//! In: the program, the directory where Limpet's pod is pinned. Out: milliseconds from its start to the first byte,
//! of `crun run` and of the three commands that engines use.
//! Never: less work for Limpet than for crun: what the pod's containers get, the bundle asks for.

use nix::mount::{MsFlags, mount};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
    wait::waitpid,
};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// The agent's own list, so that both filters have the same calls.
const CALLS: &str = include_str!("../../../../edge-agent/src/runtime/seccomp/default.rs");
/// As the agent's `MASKED`.
const MASKED: [&str; 12] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
];

pub struct Crun {
    program: PathBuf,
    bundle: PathBuf,
    state: PathBuf,
    count: u32,
    pub version: String,
}

impl Crun {
    pub fn new(program: PathBuf, base: &Path) -> Result<Crun, String> {
        let said = Command::new(&program).arg("--version").output().map_err(|e| e.to_string())?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("crun").replace(" version", "");
        let bundle = base.join("crun");
        fs::write(bundle.join("config.json"), config(base).to_string()).map_err(|e| format!("crun's bundle: {e}"))?;
        let state = base.join("crun-state");
        fs::create_dir_all(&state).map_err(|e| format!("cannot make {}: {e}", state.display()))?;
        // As /run is, where crun has it.
        mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=700"))
            .map_err(|e| format!("crun's state directory: {e}"))?;
        Ok(Crun { program, bundle, state, count: 0, version })
    }

    /// One command, the least that crun can do. Returns when it has removed the container too.
    pub fn run(&mut self) -> Result<f64, String> {
        let id = self.next();
        let begun = Instant::now();
        let mut child = self.spawn(&["run", "--bundle"], &id, Stdio::piped())?;
        let took = first_byte(&mut child, begun);
        ended(&mut child, "run")?;
        took
    }

    /// Create, start, and delete afterwards: what containerd and CRI-O do, and like theirs (a shim, conmon) this process inherits
    /// the container's and collects it.
    pub fn steps(&mut self) -> Result<f64, String> {
        let id = self.next();
        let took = self.create_and_start(&id);
        // Also after a failure: a container that was created and not started waits for ever.
        let deleted = ended(&mut self.spawn(&["delete", "--force"], &id, Stdio::null())?, "delete");
        took.and_then(|took| deleted.map(|()| took))
    }

    fn create_and_start(&self, id: &str) -> Result<f64, String> {
        let begun = Instant::now();
        let pid_file = self.state.join("pid");
        let words = ["create", "--pid-file", pid_file.to_str().unwrap_or_default(), "--bundle"];
        let mut created = self.spawn(&words, id, Stdio::piped())?;
        ended(&mut created, "create")?;
        let mut started = self.spawn(&["start"], id, Stdio::null())?;
        let took = first_byte(&mut created, begun);
        ended(&mut started, "start")?;
        collect(&pid_file)?;
        took
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("limpet-bench-{}-{}", std::process::id(), self.count)
    }

    fn spawn(&self, words: &[&str], id: &str, stdout: Stdio) -> Result<Child, String> {
        let mut command = Command::new(&self.program);
        command.arg("--cgroup-manager=cgroupfs").arg("--root").arg(&self.state).args(words);
        if words.contains(&"--bundle") {
            command.arg(&self.bundle);
        }
        command.arg(id).stdin(Stdio::null()).stdout(stdout).spawn().map_err(|e| format!("cannot start crun: {e}"))
    }
}

/// Waits for the end of the container's process, which is this one's since crun ended: what it used counts from then on.
fn collect(pid_file: &Path) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("crun's container cannot be collected: {e}");
    let text = fs::read_to_string(pid_file).map_err(|e| told(&e))?;
    let pid = text.trim().parse().map_err(|_| told(&format!("its pid is `{text}`")))?;
    waitpid(Pid::from_raw(pid), None).map(drop).map_err(|e| told(&e))
}

fn first_byte(child: &mut Child, begun: Instant) -> Result<f64, String> {
    let mut byte = [0u8];
    match child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut byte)) {
        Ok(1) => Ok(begun.elapsed().as_secs_f64() * 1000.0),
        _ => Err("crun's container wrote nothing; what crun said is above".into()),
    }
}

fn ended(child: &mut Child, what: &str) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("crun {what} failed ({status}); what it said is above")),
        Err(e) => Err(format!("cannot wait for crun {what}: {e}")),
    }
}

/// What this process's children that ended have used: while containers are timed that is crun alone, and its containers.
pub fn cpu_ms() -> Result<f64, String> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("cannot ask for processor time: {e}"))?;
    let ms = |time: TimeVal| time.num_microseconds() as f64 / 1000.0;
    Ok(ms(used.user_time()) + ms(used.system_time()))
}

fn config(base: &Path) -> Value {
    let pod = base.join("run/pods/bench");
    let pinned = |kind: &str, file: &str| json!({ "type": kind, "path": pod.join("ns").join(file) });
    let name = base.file_name().unwrap_or_default().to_string_lossy();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": false },
        "process": {
            "terminal": false, "args": ["/bin/busybox", "echo", "x"], "env": ["PATH=/bin"], "cwd": "/",
            "user": { "uid": 0, "gid": 0 }, "oomScoreAdj": 0,
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
        },
        "mounts": mounts(&pod),
        "linux": {
            "cgroupsPath": format!("/{name}-crun"),
            "namespaces": [
                { "type": "mount" }, { "type": "pid" }, pinned("network", "net"), pinned("uts", "uts"), pinned("ipc", "ipc"),
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": {
                "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 },
                "memory": { "limit": 64 << 20 },
                "pids": { "limit": 100 },
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{ "names": calls(), "action": "SCMP_ACT_ALLOW" }],
            },
        },
    })
}

fn mounts(pod: &Path) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        json!({ "destination": destination, "type": kind, "source": kind, "options": options })
    };
    let bind = |source: &str, destination: &str| {
        json!({ "destination": destination, "type": "bind", "source": pod.join(source), "options": ["rbind", "rprivate"] })
    };
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        bind("etc/hosts", "/etc/hosts"),
        bind("etc/hostname", "/etc/hostname"),
        bind("etc/resolv.conf", "/etc/resolv.conf"),
        bind("shm", "/dev/shm"),
    ]
}

fn calls() -> Vec<&'static str> {
    let list = CALLS.split_once("const ALWAYS: &str = \"").and_then(|(_, rest)| rest.split_once('"'));
    let words = list.map_or("", |(list, _)| list).split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // These have conditions there; crun gets them without.
    let names = words.filter(|word| !word.is_empty()).chain(["clone", "socket", "personality"]);
    names.collect()
}
