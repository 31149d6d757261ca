//! What every container must do.

use super::world::{World, read_all, read_until};
use crate::runtime::*;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

pub async fn writes_and_ends(mut world: World) {
    let info = world.pod("pod-a").await;
    assert_eq!(info.ip.map(|ip| ip.to_string()).as_deref(), Some("10.77.0.2"));
    assert_eq!(world.pod("pod-a").await, info, "a second call finds the same sandbox");
    let spec = world.container("pod-a", "c1", "echo out; echo err >&2; echo $GREETING $HOME; hostname; pwd; exit 7");
    let (text, ended) = world.run(&spec).await;
    assert_eq!(text, "out\nhello /root\npod-a\n/\nerr\n");
    assert_eq!((ended.code, ended.signal, ended.oom_killed), (7, None, false));
    let found = world.runtime.list();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].state, State::Exited(ended));
    let again = world.runtime.start_container(&spec).await;
    assert!(matches!(again, Err(RuntimeError::Invalid(_))), "an id is used once: {again:?}");
    assert!(world.runtime.signal("c1", libc::SIGTERM).is_err());
    world.runtime.remove_container("c1").await.unwrap();
    world.runtime.remove_container("c1").await.unwrap();
    assert!(world.runtime.list().is_empty());
    world.runtime.remove_sandbox("pod-a").await.unwrap();
    world.runtime.remove_sandbox("pod-a").await.unwrap();
    assert!(!world.runtime.sandbox_exists("pod-a"));
}

pub async fn share_the_pod(mut world: World) {
    let info = world.pod("pod-b").await;
    let server = world.container("pod-b", "server", "echo up; exec nc -ll -p 8080 -e echo served");
    let started = world.runtime.start_container(&server).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "up").await;
    let client = world.container("pod-b", "client", "while ! nc 127.0.0.1 8080; do :; done; cat /etc/hosts; ls /dev/shm");
    let text = world.output(&client).await;
    assert!(text.contains("served\n"), "{text}");
    assert!(text.contains("10.77.0.2\tpod-b"), "{text}");
    // From the node to the pod, over the bridge.
    let address = std::net::SocketAddr::from((info.ip.unwrap(), 8080));
    let mut stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert_eq!(text, "served\n");
    world.runtime.kill("server").unwrap();
    assert_eq!(world.ended("server").await.code, 137);
    world.runtime.remove_container("server").await.unwrap();
    world.runtime.remove_sandbox("pod-b").await.unwrap();
}

pub async fn exec(mut world: World) {
    world.pod("pod-c").await;
    let spec = world.container("pod-c", "main", "echo ready; exec sleep 1000");
    let started = world.runtime.start_container(&spec).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "ready").await;
    assert_eq!(world.exec("main", &["sh", "-c", "echo $GREETING; echo e >&2; exit 3"]).await, ("hello\ne\n".into(), 3));
    assert_eq!(world.exec("main", &["true"]).await, (String::new(), 0));
    // Sees the container's processes and group.
    let (text, _) = world.exec("main", &["ps"]).await;
    assert!(text.contains("sleep 1000"), "{text}");
    let with_stdin = ExecSpec {
        container_id: "main".into(),
        args: vec!["cat".into()],
        stdin: true,
        ..ExecSpec::default()
    };
    let exec = world.runtime.exec(&with_stdin).await.unwrap();
    nix::unistd::write(exec.streams.stdin.as_ref().unwrap(), b"through").unwrap();
    drop(exec.streams.stdin);
    assert_eq!(read_all(exec.streams.stdout.unwrap()).await, "through");
    assert_eq!(exec.exit.await.unwrap(), 0);
    let as_user = ExecSpec {
        container_id: "main".into(),
        args: ["sh", "-c", "id -u; echo $HOME"].map(String::from).into(),
        user: Some(User { uid: 1000, gid: 1000, groups: vec![] }),
        ..ExecSpec::default()
    };
    let exec = world.runtime.exec(&as_user).await.unwrap();
    assert_eq!(read_all(exec.streams.stdout.unwrap()).await, "1000\n/home\n");
    let missing = ExecSpec { container_id: "main".into(), args: vec!["nope".into()], ..ExecSpec::default() };
    let err = world.runtime.exec(&missing).await.unwrap_err();
    assert!(err.to_string().contains("exec: \"nope\": executable file not found in $PATH"), "{err}");
    let killed = world.exec("main", &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.1, 137);
    assert_eq!(std::fs::read_dir(world.base.join("run/execs")).unwrap().count(), 0, "no exec leaves a file behind");
    assert_eq!(std::fs::read_dir(world.base.join("run/state/main")).unwrap().count(), 3);
    world.runtime.kill("main").unwrap();
    world.ended("main").await;
    assert!(matches!(world.runtime.exec(&missing).await, Err(RuntimeError::NotFound(_))));
}

/// Whose home it is, the image says, in one file alone: who reads a pipe waits for its writer.
pub async fn homes(mut world: World) {
    world.pod("pod-h").await;
    let mut spec = world.container("pod-h", "named", "echo home=$HOME");
    spec.user = User { uid: 1000, gid: 1000, groups: vec![] };
    assert_eq!(world.output(&spec).await, "home=/home\n");
    spec.id = "own".into();
    spec.env.push("HOME=/data".into());
    assert_eq!(world.output(&spec).await, "home=/data\n");
    let mut spec = world.container("pod-h", "nobody", "echo home=$HOME");
    spec.user.uid = 4711;
    assert_eq!(world.output(&spec).await, "home=/\n");
    let etc = world.layers[0].join("etc");
    for name in ["passwd", "nsswitch.conf"] {
        let _ = std::fs::remove_file(etc.join(name));
        nix::unistd::mkfifo(&etc.join(name), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    }
    let spec = world.container("pod-h", "pipes", "echo home=$HOME; exec sleep 1000");
    let started = world.runtime.start_container(&spec).await.unwrap();
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "home=/\n").await;
    assert_eq!(world.exec("pipes", &["sh", "-c", "echo home=$HOME"]).await, ("home=/\n".into(), 0));
}

pub async fn terminal(mut world: World) {
    world.pod("pod-t").await;
    let mut spec = world.container("pod-t", "tty", "tty; read line; stty size; echo got $line");
    (spec.tty, spec.stdin) = (true, true);
    let started = world.runtime.start_container(&spec).await.unwrap();
    let tty = sys::watch(started.streams.tty.unwrap()).unwrap();
    read_until(&tty, "/dev/pts/0").await;
    resize(tty.get_ref().as_fd(), 123, 45).unwrap();
    nix::unistd::write(tty.get_ref(), b"word\n").unwrap();
    let text = read_until(&tty, "got word").await;
    assert!(text.contains("45 123"), "{text}");
    assert_eq!(world.ended("tty").await.code, 0);
    let main = world.container("pod-t", "main", "echo ready; exec sleep 1000");
    let started = world.runtime.start_container(&main).await.unwrap();
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    let exec = ExecSpec {
        container_id: "main".into(),
        args: ["sh", "-c", "stty size; tty; exit 4"].map(String::from).to_vec(),
        tty: true,
        size: Some((99, 33)),
        ..ExecSpec::default()
    };
    let exec = world.runtime.exec(&exec).await.unwrap();
    let text = read_all(exec.streams.tty.unwrap()).await;
    assert!(text.contains("/dev/pts/"), "{text}");
    assert_eq!(exec.exit.await.unwrap(), 4);
    // A pod's uid and a long container's name together are longer than the address of a socket may be.
    let long = "n".repeat(110);
    let mut spec = world.container("pod-t", &long, "tty; echo ready; exec sleep 1000");
    spec.tty = true;
    let started = world.runtime.start_container(&spec).await.unwrap();
    let text = read_until(&sys::watch(started.streams.tty.unwrap()).unwrap(), "ready").await;
    assert!(text.contains("/dev/pts/0"), "{text}");
    let exec = ExecSpec { container_id: long, args: vec!["tty".into()], tty: true, ..ExecSpec::default() };
    let exec = world.runtime.exec(&exec).await.unwrap();
    assert!(read_all(exec.streams.tty.unwrap()).await.contains("/dev/pts/"));
}

pub async fn stop(mut world: World) {
    world.pod("pod-s").await;
    let spec = world.container("pod-s", "trap", "trap 'echo bye; exit 9' TERM; echo ready; while true; do sleep 0.01; done");
    let started = world.runtime.start_container(&spec).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "ready").await;
    world.runtime.signal("trap", libc::SIGTERM).unwrap();
    assert_eq!(world.ended("trap").await.code, 9);
    read_until(&out, "bye").await;
    let deaf = world.container("pod-s", "deaf", "trap '' TERM; echo ready; (sleep 1000 &) ; while true; do sleep 1; done");
    let started = world.runtime.start_container(&deaf).await.unwrap();
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    world.runtime.signal("deaf", libc::SIGTERM).unwrap();
    world.runtime.signal("deaf", libc::SIGKILL).unwrap();
    let ended = world.ended("deaf").await;
    assert_eq!((ended.code, ended.signal, ended.oom_killed), (137, Some(9), false));
    // Whoever removes does not wait for the end's report any more.
    world.runtime.remove_container("deaf").await.unwrap();
}

pub async fn out_of_memory(mut world: World) {
    world.pod("pod-m").await;
    if !world.runtime.cgroups().controllers().memory {
        println!("skipped: no memory controller");
        return;
    }
    let mut spec = world.container("pod-m", "eater", "cat /dev/zero | head -c 100000000 | tail -c 100000000 | wc -c");
    spec.args = ["tail", "-c", "200000000", "/dev/zero"].map(String::from).to_vec();
    spec.resources = Resources {
        memory_limit_bytes: Some(16 << 20),
        cpu_quota_us: Some(50_000),
        cpu_shares: Some(512),
        pids_limit: Some(50),
        ..Resources::default()
    };
    let (_, ended) = world.run(&spec).await;
    assert_eq!((ended.code, ended.signal, ended.oom_killed), (137, Some(9), true));
    world.runtime.remove_container("eater").await.unwrap();
    let mut forks = world.container("pod-m", "forks", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo $?");
    forks.resources.pids_limit = Some(5);
    let started = world.runtime.start_container(&forks).await.unwrap();
    let text = read_until(&sys::watch(started.streams.stderr.unwrap()).unwrap(), "fork").await;
    assert!(text.contains("can't fork"), "{text}");
    world.runtime.remove_container("forks").await.unwrap();
}

pub async fn start_errors(world: World) {
    world.pod("pod-e").await;
    let layer = world.base.join("layer");
    std::fs::write(layer.join("bin/text"), "no program").unwrap();
    std::fs::write(layer.join("bin/strange"), "no program").unwrap();
    std::fs::set_permissions(layer.join("bin/strange"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["nope"], "exec: \"nope\": executable file not found in $PATH"),
        (&["/nope"], "exec: \"/nope\": stat /nope: no such file or directory"),
        (&["text"], "exec: \"text\": permission denied"),
        (&["/etc"], "exec: \"/etc\": is a directory"),
        (&["strange"], "exec /bin/strange: exec format error"),
        (&[], "no command specified"),
    ];
    for (index, (args, expect)) in cases.into_iter().enumerate() {
        let mut spec = world.container("pod-e", &format!("bad{index}"), "");
        spec.args = args.iter().map(|arg| arg.to_string()).collect();
        let err = world.runtime.start_container(&spec).await.unwrap_err();
        assert!(matches!(err, RuntimeError::Start(_)), "{args:?}: {err:?}");
        assert_eq!(err.to_string(), format!("unable to start container process: {expect}"), "{args:?}");
    }
    let mut spec = world.container("pod-e", "badmount", "true");
    spec.mounts = vec![Mount { source: "/does/not/exist".into(), destination: "/mnt".into(), ..Mount::default() }];
    let err = world.runtime.start_container(&spec).await.unwrap_err();
    assert!(matches!(err, RuntimeError::Create(_)), "{err:?}");
    println!("a missing mount source: {err}");
    let mut spec = world.container("pod-e", "badcwd", "true");
    spec.cwd = "relative".into();
    println!("a relative cwd: {}", world.runtime.start_container(&spec).await.unwrap_err());
    let spec = world.container("no-pod", "nopod", "true");
    assert!(matches!(world.runtime.start_container(&spec).await, Err(RuntimeError::NotFound(_))));
    for id in ["", "../x", "a/b", ".hidden"] {
        let spec = world.container("pod-e", id, "true");
        assert!(matches!(world.runtime.start_container(&spec).await, Err(RuntimeError::Invalid(_))), "{id}");
    }
    assert!(world.runtime.list().is_empty(), "a failed start leaves no record");
    for dir in ["run/bundles", "run/state", "run/fifos", "run/containers", "data/pods/pod-e/containers"] {
        let left = std::fs::read_dir(world.base.join(dir)).unwrap().count();
        assert_eq!(left, 0, "{dir}");
    }
}

pub async fn mounts(mut world: World) {
    world.pod("pod-v").await;
    let volume = world.base.join("volume");
    std::fs::create_dir_all(volume.join("inner")).unwrap();
    std::fs::write(volume.join("inner/file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("trap")).unwrap();
    let mount = |destination: &str, sub_path: Option<&str>, read_only| Mount {
        source: volume.clone(),
        sub_path: sub_path.map(str::to_owned),
        destination: destination.into(),
        read_only,
        propagation: Propagation::None,
        ..Mount::default()
    };
    let script = "cat /whole/inner/file /sub/file /one; echo; echo w > /whole/new && echo rw; \
                  echo w > /ro/new || echo ro; ls -d /sub/made; grep ' /ro ' /proc/mounts | cut -d' ' -f4 | cut -c1-2";
    let mut spec = world.container("pod-v", "mounts", script);
    spec.mounts = vec![
        mount("/sub/made", Some("made/here"), false),
        mount("/sub", Some("inner"), false),
        mount("/whole", None, false),
        mount("/one", Some("inner/file"), false),
        mount("/ro", None, true),
    ];
    let text = world.output(&spec).await;
    assert!(text.starts_with("contentcontentcontent\nrw\nro\n/sub/made\nro\n"), "{text}");
    assert!(volume.join("new").exists() && volume.join("made/here").is_dir());
    let mut spec = world.container("pod-v", "escape", "true");
    spec.mounts = vec![mount("/x", Some("trap"), false)];
    let err = world.runtime.start_container(&spec).await.unwrap_err();
    assert!(err.to_string().contains("leads out of the volume"), "{err}");
    let mut spec = world.container("pod-v", "readonly", "echo x > /file || echo refused; echo y > /tmp/file || echo refused");
    spec.read_only_root = true;
    assert!(world.output(&spec).await.starts_with("refused\nrefused\n"));
    // Two layers: the upper one hides and adds; writes do not reach them.
    let top = world.base.join("top");
    std::fs::create_dir_all(top.join("data")).unwrap();
    std::fs::write(top.join("data/from-top"), "top").unwrap();
    let mut spec = world.container("pod-v", "layers", "cat /data/from-top; echo changed > /data/from-top; cat /data/from-top");
    spec.layers.insert(0, top.clone());
    assert_eq!(world.output(&spec).await, "topchanged\n");
    assert_eq!(std::fs::read_to_string(top.join("data/from-top")).unwrap(), "top");
    // The power went while a container of this name ran: the kernel mounts what it left no more, and it begins anew.
    let spec = world.container("pod-v", "torn", "ls / | grep half || echo clean");
    let left = writable_layer(&world.base.join("data"), "pod-v", "torn");
    std::fs::create_dir_all(left.join("upper")).unwrap();
    std::fs::write(left.join("upper/half"), "").unwrap();
    std::fs::create_dir_all(left.join("work/work/incompat/volatile")).unwrap();
    assert_eq!(world.output(&spec).await, "clean\n");
}

pub async fn propagation(mut world: World) {
    use nix::mount::{MntFlags, MsFlags, mount as mount_now, umount2};
    let none: Option<&str> = None;
    world.pod("pod-w").await;
    let volume = world.base.join("volume");
    std::fs::create_dir_all(volume.join("late")).unwrap();
    std::fs::create_dir_all(volume.join("up")).unwrap();
    mount_now(Some(&volume), &volume, none, MsFlags::MS_BIND, none).unwrap();
    mount_now(none, &volume, none, MsFlags::MS_SHARED, none).unwrap();
    let mount = |propagation| Mount { source: volume.clone(), destination: "/v".into(), propagation, ..Mount::default() };

    // Nothing travels; then what the host mounts; then both ways.
    let mut spec = world.container("pod-w", "none", "echo ready; read go; ls /v/late; echo done");
    let table = [("none", Propagation::None, "done"), ("down", Propagation::HostToContainer, "proof")];
    for (id, propagation, expect) in table {
        (spec.id, spec.mounts, spec.stdin) = (id.into(), vec![mount(propagation)], true);
        let started = world.runtime.start_container(&spec).await.unwrap();
        let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
        read_until(&out, "ready\n").await;
        mount_now(Some("none"), &volume.join("late"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::write(volume.join("late/proof"), "").unwrap();
        nix::unistd::write(started.streams.stdin.as_ref().unwrap(), b"go\n").unwrap();
        let text = read_until(&out, "done").await;
        assert!(text.starts_with(expect), "{id}: {text}");
        umount2(&volume.join("late"), MntFlags::MNT_DETACH).unwrap();
        world.ended(id).await;
    }
    let script = "mount -t tmpfs none /v/up && echo up > /v/up/proof; echo ready; exec sleep 1000";
    let mut spec = world.container("pod-w", "both", script);
    (spec.mounts, spec.privileged) = (vec![mount(Propagation::Bidirectional)], true);
    let started = world.runtime.start_container(&spec).await.unwrap_or_else(|err| panic!("{err}"));
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    assert_eq!(std::fs::read_to_string(volume.join("up/proof")).unwrap(), "up\n", "the host sees the mount");
    assert_eq!(world.exec("both", &["cat", "/v/up/proof"]).await, ("up\n".into(), 0));
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let overlays = table.matches("/bundles/").count() + table.matches("/run/root ").count();
    assert_eq!(overlays, 0, "the root itself is not left on the host");
    world.runtime.remove_container("both").await.unwrap();
    world.ended("both").await;
}

pub async fn nothing_left(mut world: World) {
    let counts = |world: &World| {
        let files = |dir: &str| std::fs::read_dir(world.base.join(dir)).map_or(0, Iterator::count);
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let keeper = std::os::unix::process::parent_id();
        let keeper_fds = std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
        let dirs = ["run/containers", "run/bundles", "run/state", "run/fifos", "run/pods", "run/execs", "data/pods"];
        (dirs.map(files), fds, keeper_fds)
    };
    // Mounts of the machine may go meanwhile, when others remove what they are mounted on.
    let mounts = || -> std::collections::BTreeSet<String> {
        std::fs::read_to_string("/proc/self/mounts").unwrap().lines().map(String::from).collect()
    };
    let round = async |world: &mut World, n: usize| {
        let (pod, id) = (format!("pod-{n}"), format!("c-{n}"));
        world.pod(&pod).await;
        let spec = world.container(&pod, &id, "echo ready; exec sleep 1000");
        let started = world.runtime.start_container(&spec).await.unwrap();
        read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
        assert_eq!(world.exec(&id, &["true"]).await.1, 0);
        world.runtime.remove_container(&id).await.unwrap();
        world.ended(&id).await;
        world.runtime.remove_sandbox(&pod).await.unwrap();
        let _ = std::fs::remove_dir_all(world.base.join("data/pods").join(&pod));
    };
    round(&mut world, 0).await;
    let (before, mounted) = (counts(&world), mounts());
    for n in 1..8 {
        round(&mut world, n).await;
    }
    assert_eq!(counts(&world), before);
    assert_eq!(mounts().difference(&mounted).collect::<Vec<_>>(), Vec::<&String>::new());
}

pub async fn other_namespaces(mut world: World) {
    let host = SandboxSpec { host_network: true, host_pid: true, host_ipc: true, ..world.sandbox("pod-h") };
    assert_eq!(world.runtime.create_sandbox(&host).await.unwrap().ip, None);
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let spec = world.container("pod-h", "host", "for n in net uts ipc pid; do readlink /proc/self/ns/$n; done");
    let expect = ["net", "uts", "ipc", "pid"].map(own).join("\n") + "\n";
    assert_eq!(world.output(&spec).await, expect);
    world.runtime.remove_sandbox("pod-h").await.unwrap();

    let shared = SandboxSpec { share_pid: true, ..world.sandbox("pod-p") };
    world.runtime.create_sandbox(&shared).await.unwrap();
    assert!(world.runtime.sandbox_exists("pod-p"));
    let first = world.container("pod-p", "first", "echo ready; exec sleep 1234");
    let started = world.runtime.start_container(&first).await.unwrap();
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    let second = world.container("pod-p", "second", "ps; echo > /proc/1/exe && echo wri''tten; readlink /proc/1/exe");
    let text = world.output(&second).await;
    assert!(text.contains("sleep 1234") && !text.contains("written"), "{text}");
    world.runtime.remove_container("first").await.unwrap();
    world.runtime.remove_sandbox("pod-p").await.unwrap();

    let sysctl = SandboxSpec {
        sysctls: [("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())].into(),
        ..world.sandbox("pod-y")
    };
    world.runtime.create_sandbox(&sysctl).await.unwrap();
    let text = world.output(&world.container("pod-y", "sys", "cat /proc/sys/net/ipv4/tcp_syncookies")).await;
    assert_eq!(text, "0\n");
    let bad = SandboxSpec {
        sysctls: [("kernel.panic".to_owned(), "1".to_owned())].into(),
        ..world.sandbox("pod-z")
    };
    let err = world.runtime.create_sandbox(&bad).await.unwrap_err();
    assert!(err.to_string().contains("kernel.panic"), "{err}");
    assert!(!world.runtime.sandbox_exists("pod-z"));
}

/// The first of these files that the group has: v2's name, then v1's in the hierarchies where they may be.
fn group_file(group: &str, v2: &str, v1: &str) -> Option<String> {
    let of_v1 = ["memory", "cpu", "cpu,cpuacct"].map(|c| format!("/sys/fs/cgroup/{c}/{group}/{v1}"));
    let places = std::iter::once(format!("/sys/fs/cgroup/{group}/{v2}")).chain(of_v1);
    let text = places.into_iter().find_map(|path| std::fs::read_to_string(path).ok());
    text.map(|t| t.trim().to_string())
}

/// In-place resize: other limits, the same process.
pub async fn resized(mut world: World) {
    if !world.runtime.cgroups().controllers().memory {
        println!("skipped: no memory controller");
        return;
    }
    world.pod("pod-z").await;
    let mut spec = world.container("pod-z", "main", "exec sleep 1000");
    spec.resources = Resources { memory_limit_bytes: Some(32 << 20), cpu_quota_us: Some(50_000), ..Resources::default() };
    let started = world.runtime.start_container(&spec).await.unwrap();
    let group = world.runtime.cgroups().container_groups().pop().unwrap();
    let v2 = world.runtime.cgroups().is_v2();
    let memory = || group_file(&group, "memory.max", "memory.limit_in_bytes");
    let quota = || group_file(&group, "cpu.max", "cpu.cfs_quota_us");
    let shares = || group_file(&group, "cpu.weight", "cpu.shares");
    let expect = |of_v2: &str, of_v1: &str| Some(if v2 { of_v2 } else { of_v1 }.to_string());
    assert_eq!(memory().as_deref(), Some("33554432"));
    assert_eq!(quota(), expect("50000 100000", "50000"));
    let grown = Resources { memory_limit_bytes: Some(64 << 20), cpu_quota_us: Some(80_000), ..Resources::default() };
    world.runtime.update_container("main", &grown).unwrap();
    assert_eq!(memory().as_deref(), Some("67108864"));
    assert_eq!(quota(), expect("80000 100000", "80000"));
    let shrunk = Resources { memory_limit_bytes: Some(16 << 20), cpu_shares: Some(2048), ..Resources::default() };
    world.runtime.update_container("main", &shrunk).unwrap();
    assert_eq!(memory().as_deref(), Some("16777216"));
    assert_eq!(quota(), expect("max 100000", "-1"), "what is absent is unlimited");
    assert_eq!(shares(), expect("174", "2048"));
    let err = world.runtime.update_container("main", &Resources { memory_limit_bytes: Some(4096), ..Resources::default() });
    assert!(err.unwrap_err().to_string().contains("below what is used"), "a limit that would kill is refused");
    world.runtime.update_pod("pod-z", &grown).unwrap();
    let found = world.runtime.list();
    assert_eq!((found.len(), &found[0].state), (1, &State::Running));
    assert!(std::path::Path::new(&format!("/proc/{}", started.pid)).exists(), "the same process");
    world.runtime.remove_container("main").await.unwrap();
    world.ended("main").await;
}

/// Classes weigh what their pods ask for; all pods together have a limit.
pub async fn classes(world: World) {
    let cgroups = world.runtime.cgroups();
    if !cgroups.controllers().cpu {
        println!("skipped: no cpu controller");
        return;
    }
    let shares = |group: &str| group_file(&format!("{}/{group}", cgroups.parent()), "cpu.weight", "cpu.shares");
    // 2, 500 and 200 shares.
    let expect = |of_v2: &str, of_v1: &str| Some(if cgroups.is_v2() { of_v2 } else { of_v1 }.to_string());
    world.pod("pod-b").await;
    assert_eq!(shares("besteffort"), expect("1", "2"));
    for (uid, asked) in [("pod-c", 300), ("pod-d", 200)] {
        let resources = Resources { cpu_shares: Some(asked), ..Resources::default() };
        let spec = SandboxSpec { qos: Qos::Burstable, resources, ..world.sandbox(uid) };
        world.runtime.create_sandbox(&spec).await.unwrap();
    }
    // What v2 rounds is added up there: 39 and 29 stand for 493 shares.
    assert_eq!(shares("burstable"), expect("57", "500"));
    world.runtime.remove_sandbox("pod-c").await.unwrap();
    assert_eq!(shares("burstable"), expect("29", "200"));
    if cgroups.controllers().memory {
        cgroups.limit_all(1 << 30).unwrap();
        let limit = group_file(cgroups.parent(), "memory.max", "memory.limit_in_bytes");
        assert_eq!(limit.as_deref(), Some("1073741824"));
    }
    for uid in ["pod-b", "pod-d"] {
        world.runtime.remove_sandbox(uid).await.unwrap();
    }
}

/// A container that writes nothing makes nothing on the disk: what is mounted over has its place below all layers.
pub async fn writes_nothing(mut world: World) {
    world.pod("pod-a").await;
    let started = world.runtime.start_container(&world.container("pod-a", "quiet", "echo up; exec sleep 1000")).await.unwrap();
    read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "up").await;
    let upper = rt::writable_layer(&world.base.join("data"), "pod-a", "quiet").join("upper");
    let made: Vec<_> = std::fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(made.is_empty(), "{} has {made:?}", upper.display());
    let (text, code) = world.exec("quiet", &["sh", "-c", "cat /etc/hosts; ls -d /dev/shm /proc/1 /sys/fs"]).await;
    assert!(code == 0 && text.contains("pod-a"), "{code}: {text}");
    // Where a power cut left a part of it, the rest is made.
    let places = world.base.join("data/places");
    std::fs::remove_file(places.join("etc/resolv.conf")).unwrap();
    std::fs::remove_file(places.join("etc/hosts")).unwrap();
    let text = world.output(&world.container("pod-a", "again", "cat /etc/hosts")).await;
    assert!(text.contains("pod-a"), "{text}");
    assert!(places.join("etc/hosts").exists() && places.join("etc/resolv.conf").exists());
    world.runtime.remove_container("quiet").await.unwrap();
    world.ended("quiet").await;
}
