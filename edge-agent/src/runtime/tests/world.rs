#![allow(unsafe_code)] // the test binary must act before its test harness
//! One test's world: keeper, agent, directories, namespaces, clean-up.

use super::super::*;
use crate::keeper::client::Keeper;
use crate::net::Cidr;
use std::ffi::OsString;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

pub type Case = fn(World) -> Pin<Box<dyn Future<Output = ()>>>;

const WORLD: &str = "limpet-world";
const WORLD_SECONDS_MAX: u32 = 120;

/// Runs before the test harness: this binary is also keeper, agent and helper.
#[used]
#[unsafe(link_section = ".init_array")]
static ROLES: extern "C" fn() = roles;

extern "C" fn roles() {
    let Ok(line) = std::fs::read("/proc/self/cmdline") else { return };
    let words: Vec<OsString> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(word).to_owned())
        .collect();
    let rest = words.get(2..).unwrap_or_default();
    let role: fn(&[OsString]) -> i32 = match words.get(1).and_then(|word| word.to_str()) {
        Some("rt") => rt::main,
        Some("agent") => agent,
        Some(WORLD) => keeper,
        _ => return,
    };
    // SAFETY: as Rust's own start-up does; containers must not inherit it, which is under test.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = std::panic::catch_unwind(|| role(rest)).unwrap_or(101);
    // SAFETY: ends this process without running the harness that follows.
    unsafe { libc::_exit(code) };
}

fn keeper(words: &[OsString]) -> i32 {
    // A world that hangs ends: the keeper dies of SIGALRM, its agent with it.
    nix::unistd::alarm::set(WORLD_SECONDS_MAX);
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let none: Option<&str> = None;
    if unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).is_err()
        || mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_err()
    {
        return 102;
    }
    if words[0].to_str().is_some_and(|name| name.starts_with("v2_")) && !only_v2() {
        eprintln!("skipped: this machine has no second version of cgroups");
        std::fs::write(PathBuf::from(&words[1]).join("passed"), "").unwrap();
        return 0;
    }
    crate::net::link::loopback_up(&mut crate::net::netlink::Socket::route().unwrap()).unwrap();
    crate::keeper::run(Path::new("/proc/self/exe"), words, None)
}

/// Shows this world the unified hierarchy only, with what controllers the machine left in it.
fn only_v2() -> bool {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    while umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).is_ok() {}
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).is_ok()
}

fn agent(words: &[OsString]) -> i32 {
    let name = words[0].to_str().unwrap().to_owned();
    let base = PathBuf::from(&words[1]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let world = World::open(&base).await;
            super::case(&name).expect("a case of this name")(world).await;
        });
    }));
    if done.is_ok() {
        std::fs::write(base.join("passed"), "").unwrap();
    }
    crate::keeper::EXIT_CONFIG
}

/// Runs the case of this name in a new world; panics when it fails.
pub fn in_world(name: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: containers need root");
        return;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("skipped: /bin/busybox is missing (apt-get install busybox-static)");
        return;
    }
    let base = std::env::temp_dir().join(format!("limpet-{}-{}", std::process::id(), &name[..name.len().min(24)]));
    let _ = std::fs::remove_dir_all(&base);
    make_image(&base.join("layer"));
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .arg0("limpet-agent")
        .args([WORLD, name])
        .arg(&base)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let passed = base.join("passed").exists();
    let cgroups = Cgroups::probe(&parent(&base)).unwrap();
    for _ in 0..500 {
        cgroups.kill(&parent(&base));
        cgroups.remove_parent();
        if cgroups.pids(&parent(&base)).is_empty() {
            break;
        }
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(10));
    }
    cgroups.remove_parent();
    remove_v2_group(&parent(&base));
    let _ = std::fs::remove_dir_all(&base);
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(passed, "{name} failed in its world ({}): see above", output.status);
}

/// A world of v2 on a hybrid machine leaves its empty groups in the other hierarchy.
fn remove_v2_group(name: &str) {
    fn remove(dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = std::fs::remove_dir(dir);
    }
    let group = Path::new("/sys/fs/cgroup/unified").join(name);
    for _ in 0..500 {
        let _ = std::fs::write(group.join("cgroup.kill"), "1");
        remove(&group);
        if !group.exists() {
            return;
        }
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn parent(base: &Path) -> String {
    base.file_name().unwrap().to_str().unwrap().to_owned()
}

fn make_image(layer: &Path) {
    for dir in ["bin", "tmp", "etc", "root", "data"] {
        std::fs::create_dir_all(layer.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n").unwrap();
}

/// What a case works with.
pub struct World {
    pub runtime: Runtime,
    pub exits: mpsc::UnboundedReceiver<Exited>,
    pub base: PathBuf,
    pub restarts: u32,
    pub layers: Vec<PathBuf>,
}

impl World {
    async fn open(base: &Path) -> World {
        let (keeper, restored, exits) = Keeper::connect(sys::inherited(crate::keeper::AGENT_FD)).await.unwrap();
        let options = RuntimeOptions {
            run_dir: base.join("run"),
            data_dir: base.join("data"),
            cgroup_parent: parent(base),
            pod_cidr: Some("10.77.0.0/24".parse::<Cidr>().unwrap()),
            helper: None,
        };
        let restarts = restored.restarts;
        let (runtime, exits) = Runtime::open(options, keeper, restored, exits).await.unwrap();
        World { runtime, exits, base: base.to_owned(), restarts, layers: vec![base.join("layer")] }
    }

    pub async fn pod(&self, uid: &str) -> SandboxInfo {
        self.runtime.create_sandbox(&self.sandbox(uid)).await.unwrap()
    }

    pub fn sandbox(&self, uid: &str) -> SandboxSpec {
        SandboxSpec { pod_uid: uid.into(), pod_name: uid.into(), hostname: uid.into(), ..SandboxSpec::default() }
    }

    pub fn container(&self, pod: &str, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            pod_uid: pod.into(),
            name: id.into(),
            layers: self.layers.clone(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/bin".into(), "GREETING=hello".into()],
            ..ContainerSpec::default()
        }
    }

    /// Starts, and returns what it wrote with its end.
    pub async fn run(&mut self, spec: &ContainerSpec) -> (String, record::Ended) {
        let started = self.runtime.start_container(spec).await.unwrap_or_else(|err| panic!("{}: {err}", spec.id));
        let text = read_all(started.streams.stdout.unwrap()).await;
        let errors = read_all(started.streams.stderr.unwrap()).await;
        let ended = self.ended(&spec.id).await;
        (text + &errors, ended)
    }

    /// Runs a script in a new container of the pod and removes it; its output alone.
    pub async fn output(&mut self, spec: &ContainerSpec) -> String {
        let (text, _) = self.run(spec).await;
        self.runtime.remove_container(&spec.id).await.unwrap();
        text
    }

    pub async fn ended(&mut self, id: &str) -> record::Ended {
        let wait = async {
            loop {
                let exited = self.exits.recv().await.expect("the keeper is there");
                if exited.container_id == id {
                    return exited.ended;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{id} never ended"))
    }

    pub async fn exec(&self, id: &str, args: &[&str]) -> (String, i32) {
        let spec = ExecSpec {
            container_id: id.into(),
            args: args.iter().map(|arg| arg.to_string()).collect(),
            ..ExecSpec::default()
        };
        let exec = self.runtime.exec(&spec).await.unwrap_or_else(|err| panic!("{args:?}: {err}"));
        let text = read_all(exec.streams.stdout.unwrap()).await + &read_all(exec.streams.stderr.unwrap()).await;
        (text, exec.exit.await.unwrap())
    }
}

/// Everything until the last writer is gone.
pub async fn read_all(fd: OwnedFd) -> String {
    let mut text = Vec::new();
    let fd = sys::watch(fd).unwrap();
    while read_some(&fd, &mut text).await > 0 {}
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until the text contains a word.
pub async fn read_until(fd: &AsyncFd<OwnedFd>, word: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(word) {
        assert!(read_some(fd, &mut text).await > 0, "{word:?} never came: {}", String::from_utf8_lossy(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_some(fd: &AsyncFd<OwnedFd>, text: &mut Vec<u8>) -> usize {
    let read = async {
        loop {
            let mut chunk = [0u8; 4096];
            let mut ready = fd.readable().await.unwrap();
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut chunk)?)) {
                Ok(Ok(n)) => {
                    text.extend_from_slice(&chunk[..n]);
                    return n;
                }
                Ok(Err(err)) if err.raw_os_error() == Some(libc::EIO) => return 0, // the pty's other side closed
                Ok(Err(err)) => panic!("{err}"),
                Err(_would_block) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("output within 30 s")
}
