//! What a container must not be able to do.

use super::world::{World, read_until};
use crate::runtime::*;
use std::os::unix::fs::PermissionsExt;

const STATUS: &str = "grep -E '^(SigIgn|SigBlk|Seccomp|NoNewPrivs|CapEff|CapBnd|CapInh|CapAmb):' /proc/self/status | tr -d '\\t'";

pub async fn locked_in(world: World) {
    world.pod("pod-l").await;
    let script = format!("{STATUS}; ls /proc/self/fd | wc -l; cat /proc/1/oom_score_adj; echo ready; exec sleep 1000");
    let mut spec = world.container("pod-l", "main", &script);
    spec.no_new_privileges = true;
    spec.oom_score_adj = 500;
    let started = world.runtime.start_container(&spec).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    let text = read_until(&out, "ready").await;
    let caps = "00000000a80425fb";
    let expect = format!(
        "SigBlk:0000000000000000\nSigIgn:0000000000000000\nCapInh:0000000000000000\nCapEff:{caps}\nCapBnd:{caps}\n\
         CapAmb:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n4\n500\nready\n"
    );
    assert_eq!(text, expect);
    let (text, code) = world.exec("main", &["sh", "-c", &format!("{STATUS}; ls /proc/self/fd | wc -l")]).await;
    assert_eq!((text.as_str(), code), (expect.trim_end_matches("500\nready\n"), 0), "exec is no weaker than init");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert!(["-999", "0"].contains(&own.trim()), "the agent's own is the keeper's, whatever a container has: {own}");

    let refused = [
        "mount -t tmpfs none /mnt",
        "unshare -n true",
        "grep -q . /proc/kcore",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "mknod /tmp/mem c 1 1 && cat /tmp/mem",
        "mknod /tmp/disk b 254 0 && cat /tmp/disk",
        "mkdir /sys/fs/cgroup/x",
        "mkdir /sys/fs/cgroup/memory/x",
        "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "hostname other",
        "chroot /proc/1/root/../..  cat /etc/shadow",
    ];
    for command in refused {
        let (text, code) = world.exec("main", &["sh", "-c", command]).await;
        assert_ne!(code, 0, "{command}: {text}");
    }
    let allowed = ["echo > /dev/null", "head -c 4 /dev/urandom", "chown 5:5 /tmp", "ls /proc/1/cwd", "test -w /dev/shm", "ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs | grep ."];
    for command in allowed {
        let (text, code) = world.exec("main", &["sh", "-c", command]).await;
        assert_eq!(code, 0, "{command}: {text}");
    }
    let masked = world.exec("main", &["sh", "-c", "ls /sys/firmware | wc -l; wc -c < /proc/keys"]).await;
    assert_eq!(masked.0, "0\n0\n");
    // What ran before the program was the agent's own binary, out of a read-only mount; now it is the image's.
    let (text, _) = world.exec("main", &["readlink", "/proc/1/exe"]).await;
    assert_eq!(text, "/bin/busybox\n");
}

pub async fn filter_without_nnp(mut world: World) {
    world.pod("pod-n").await;
    for (uid, effective) in [(0, "00000000a80425fb"), (1000, "0000000000000000")] {
        let mut spec = world.container("pod-n", &format!("u{uid}"), STATUS);
        spec.user = User { uid, gid: uid, groups: vec![2000] };
        let text = world.output(&spec).await;
        assert!(text.contains("Seccomp:2") && text.contains("NoNewPrivs:0"), "{uid}: {text}");
        assert!(text.contains(&format!("CapEff:{effective}")), "{uid}: {text}");
        assert!(text.contains("CapBnd:00000000a80425fb"), "{uid}: {text}");
    }
    let mut spec = world.container("pod-n", "user", "id; echo through > /dev/stdout; echo err > /dev/stderr");
    spec.user = User { uid: 1000, gid: 1000, groups: vec![2000, 3000] };
    let text = world.output(&spec).await;
    assert!(text.starts_with("uid=1000(user) gid=1000 groups=1000,2000,3000\nthrough\nerr"), "{text}");
    let mut spec = world.container("pod-n", "open", STATUS);
    spec.seccomp = Seccomp::Unconfined;
    spec.capabilities = CapabilityChange { add: vec!["NET_BIND_SERVICE".into()], drop: vec!["ALL".into()] };
    let text = world.output(&spec).await;
    assert!(text.contains("Seccomp:0") && text.contains("CapEff:0000000000000400"), "{text}");

    // Defect 3: an entrypoint that only its owner may execute.
    let program = world.base.join("layer/bin/private");
    std::fs::copy(world.base.join("layer/bin/busybox"), &program).unwrap();
    for (mode, uid, works) in [(0o750, 0, true), (0o700, 0, true), (0o750, 1000, false)] {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut spec = world.container("pod-n", &format!("m{mode:o}-{uid}"), "");
        spec.args = ["private", "true"].map(String::from).to_vec();
        spec.env.clear();
        spec.env.push("PATH=/nowhere:/bin".into());
        spec.user = User { uid, gid: uid, groups: vec![] };
        let got = world.runtime.start_container(&spec).await;
        assert_eq!(got.is_ok(), works, "{mode:o} as {uid}: {got:?}");
        if works {
            world.ended(&spec.id).await;
        }
    }
}

pub async fn privileged(mut world: World) {
    world.pod("pod-x").await;
    let script = format!("{STATUS}; mount -t tmpfs none /mnt && echo mounted; ls /dev/kmsg; test -w /proc/sys/kernel/panic && echo w");
    let mut spec = world.container("pod-x", "priv", &format!("mkdir -p /mnt; {script}"));
    spec.privileged = true;
    let text = world.output(&spec).await;
    assert!(text.contains("Seccomp:0") && text.contains("mounted") && text.contains("\nw"), "{text}");
    assert!(!text.contains("CapEff:00000000a80425fb"), "{text}");
}

pub async fn hostile_images(mut world: World) {
    world.pod("pod-i").await;
    for (name, target) in [("dev", "/tmp"), ("proc", "/tmp"), ("sys", "../../../../etc"), ("etc", "/")] {
        let top = world.base.join(format!("evil-{name}"));
        std::fs::create_dir_all(&top).unwrap();
        std::os::unix::fs::symlink(target, top.join(name)).unwrap();
        let mut spec = world.container("pod-i", &format!("evil-{name}"), "true");
        spec.layers.insert(0, top);
        let err = world.runtime.start_container(&spec).await.unwrap_err();
        assert!(err.to_string().contains("is not a directory"), "{name}: {err}");
    }
    // Links on the way to a mount are followed inside the root only.
    let top = world.base.join("evil-mount");
    std::fs::create_dir_all(top.join("var")).unwrap();
    std::os::unix::fs::symlink("../../../../../../tmp", top.join("mnt")).unwrap();
    std::fs::create_dir_all(top.join("run")).unwrap();
    std::os::unix::fs::symlink("/run", top.join("var/run")).unwrap();
    let volume = world.base.join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let mut spec = world.container("pod-i", "evil-mount", "ls -d /tmp/escaped /run/secrets/x");
    spec.layers.insert(0, top);
    let mount = |to: &str| Mount { source: volume.clone(), destination: to.into(), ..Mount::default() };
    spec.mounts = vec![mount("/mnt/escaped"), mount("/var/run/secrets/x")];
    let text = world.output(&spec).await;
    assert_eq!(text, "/run/secrets/x\n/tmp/escaped\n");
    assert!(!std::path::Path::new("/tmp/escaped").exists());
    // /proc of the container's first process leads to the agent's program only until it runs the image's.
    let script = "for p in /proc/[0-9]*; do (echo x 2>/dev/null >> $p/exe) 2>/dev/null && echo wrote $p; done; echo done";
    let text = world.output(&world.container("pod-i", "exe", script)).await;
    assert!(text.ends_with("done\n"), "{text}");
}

/// cgroup v2 alone: born in the group, a view of its own, devices by eBPF, everything killed at once.
pub async fn on_v2(mut world: World) {
    assert!(world.runtime.cgroups().is_v2());
    println!("controllers here: {:?}", world.runtime.cgroups().controllers());
    world.pod("pod-2").await;
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x; \
                  mknod /tmp/mem c 1 1; cat /tmp/mem; mknod /tmp/tun c 10 200; cat /tmp/tun; head -c 1 /dev/zero | wc -c; \
                  echo > /dev/null && echo ready; exec sleep 1000";
    let spec = world.container("pod-2", "main", &format!("exec 2>&1; {script}"));
    let started = world.runtime.start_container(&spec).await.unwrap();
    let text = read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    assert!(text.contains("0::/\n"), "a cgroup namespace of its own: {text}");
    assert!(text.contains("/sys/fs/cgroup/cgroup.procs\n"), "{text}");
    assert!(text.contains("mkdir: can't create directory '/sys/fs/cgroup/x': Read-only"), "{text}");
    assert!(text.contains("can't open '/tmp/mem': Operation not permitted"), "{text}");
    assert!(text.contains("can't open '/tmp/tun': Operation not permitted"), "{text}");
    assert!(text.contains("\n1\nready"), "{text}");
    let group = world.runtime.cgroups().container_groups();
    assert_eq!(group.len(), 1);
    // The helper was born in the group too and ends in its own time.
    for _ in 0..1000 {
        if world.runtime.cgroups().pids(&group[0]) == [started.pid] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(world.runtime.cgroups().pids(&group[0]), [started.pid]);
    let (text, code) = world.exec("main", &["sh", "-c", "cat /proc/self/cgroup; cat /tmp/mem || exit 6"]).await;
    assert!(text.contains("0::/\n") && code == 6, "{code}: {text}");
    let bad = ContainerSpec { args: vec!["nope".into()], ..world.container("pod-2", "bad", "") };
    assert!(matches!(world.runtime.start_container(&bad).await, Err(RuntimeError::Start(_))));
    assert_eq!(world.runtime.cgroups().container_groups().len(), 1, "a failed start leaves no group");
    world.runtime.remove_container("main").await.unwrap();
    assert_eq!(world.ended("main").await.code, 137);
    assert!(world.runtime.cgroups().container_groups().is_empty());
    world.runtime.remove_sandbox("pod-2").await.unwrap();
}
