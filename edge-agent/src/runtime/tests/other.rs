//! Containers that another OCI runtime of the machine makes: crun, where it is installed.

use super::world::{World, read_all, read_until};
use crate::runtime::*;
use std::path::Path;

fn crun() -> Option<spec::OtherRuntime> {
    let program = Path::new("/usr/bin/crun");
    if !program.exists() {
        println!("skipped: crun is missing (apt-get install crun)");
        return None;
    }
    Some(spec::OtherRuntime { program: program.into(), arguments: vec!["--cgroup-manager=disabled".into()] })
}

pub async fn of_crun(mut world: World) {
    let Some(crun) = crun() else { return };
    let info = world.pod("pod-r").await;
    let by_crun = |spec: ContainerSpec| ContainerSpec { other_runtime: Some(crun.clone()), ..spec };
    let limits = Resources { memory_limit_bytes: Some(64 << 20), pids_limit: Some(50), ..Resources::default() };
    let script = "echo $GREETING; hostname; id -u; id -G; echo e >&2; grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; \
                  grep -c pod-r /etc/hosts; exit 9";
    let mut spec = by_crun(world.container("pod-r", "r1", script));
    spec.resources = limits;
    spec.user = User { uid: 1000, gid: 1000, groups: vec![5] };
    spec.no_new_privileges = true;
    let (text, ended) = world.run(&spec).await;
    assert!(text.starts_with("hello\npod-r\n1000\n1000 5\n"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1\n") && text.contains("Seccomp:\t2\n"), "{text}");
    assert!(text.ends_with("e\n") && ended.code == 9, "{text} {ended:?}");
    world.runtime.remove_container("r1").await.unwrap();
    assert!(!world.base.join("run/oci/r1").exists(), "crun forgot it");

    // A long life: the same network, exec, signals, groups, a terminal.
    let main = by_crun(world.container("pod-r", "main", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    let started = world.runtime.start_container(&main).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "ready").await;
    let group = world.runtime.cgroups().pids(&record::read(&world.base.join("run"), "main").unwrap().cgroup);
    assert!(group.contains(&started.pid), "{group:?}");
    let (text, code) = world.exec("main", &["sh", "-c", "echo $GREETING; ip addr; grep Seccomp: /proc/self/status; exit 4"]).await;
    let ip = info.ip.unwrap().to_string();
    assert!(code == 4 && text.contains("hello") && text.contains(&ip) && text.contains("Seccomp:\t2"), "{code} {text}");
    let tty = ExecSpec { container_id: "main".into(), args: vec!["tty".into()], tty: true, ..ExecSpec::default() };
    let exec = world.runtime.exec(&tty).await.unwrap();
    assert!(read_all(exec.streams.tty.unwrap()).await.contains("/dev/pts/"));
    assert_eq!(exec.exit.await.unwrap(), 0);
    let (_, code) = world.exec("main", &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(code, 137);
    world.runtime.signal("main", libc::SIGTERM).unwrap();
    assert_eq!(world.ended("main").await.code, 3);
    world.runtime.remove_container("main").await.unwrap();

    // What cannot be run is said, and leaves nothing.
    let missing = ContainerSpec { args: vec!["nothing".into()], ..by_crun(world.container("pod-r", "r2", "")) };
    let why = world.runtime.start_container(&missing).await.unwrap_err();
    assert!(matches!(&why, RuntimeError::Start(text) if text.contains("nothing")), "{why:?}");
    let gone = spec::OtherRuntime { program: "/usr/bin/no-such-runtime".into(), arguments: Vec::new() };
    let spec = ContainerSpec { other_runtime: Some(gone), ..world.container("pod-r", "r3", "true") };
    let why = world.runtime.start_container(&spec).await.unwrap_err().to_string();
    assert!(why.contains("/usr/bin/no-such-runtime cannot be started"), "{why}");
    assert!(world.runtime.list().is_empty());
    world.runtime.remove_sandbox("pod-r").await.unwrap();
}
