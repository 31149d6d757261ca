//! Pods with users of their own: `hostUsers: false`.

use super::world::{World, read_all, read_until};
use crate::runtime::*;
use std::os::unix::fs::{MetadataExt, chown};

fn ready(tried: Result<(), RuntimeError>) -> bool {
    if let Err(why) = &tried {
        println!("skipped: this machine cannot give pods users of their own: {why}");
    }
    tried.is_ok()
}

/// Root inside is nobody outside; what it owns on a volume is root's on the disk.
pub async fn own(mut world: World) {
    if !ready(world.runtime.try_users().await) {
        return;
    }
    let data = world.base.join("volume");
    std::fs::create_dir_all(&data).unwrap();
    for (name, owner) in [("roots", 0), ("users", 1000)] {
        std::fs::write(data.join(name), "x").unwrap();
        chown(data.join(name), Some(owner), Some(owner)).unwrap();
    }
    for uid in ["pod-u", "pod-w"] {
        let sandbox = SandboxSpec { own_users: true, ..world.sandbox(uid) };
        let info = world.runtime.create_sandbox(&sandbox).await.unwrap();
        assert_eq!(world.runtime.create_sandbox(&sandbox).await.unwrap(), info, "a second call finds the same");
    }
    let script = "id -u; cat /proc/self/uid_map; stat -c '%u %g' / /etc/hosts /data/roots /data/users; \
                  touch /made /data/made; chown 7:8 /data/made; stat -c '%u %g' /made /data/made; \
                  grep -c . /proc/net/dev; test -r /proc/1/environ && echo own processes; hostname; exec sleep 1000";
    let mount = Mount { source: data.clone(), destination: "/data".into(), ..Mount::default() };
    let spec = ContainerSpec { mounts: vec![mount.clone()], ..world.container("pod-u", "u1", script) };
    let started = world.runtime.start_container(&spec).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    let text = read_until(&out, "pod-u\n").await;
    let words: Vec<&str> = text.lines().collect();
    let map: Vec<u32> = words[1].split_whitespace().map(|n| n.parse().unwrap()).collect();
    let first = map[1];
    assert!(map[0] == 0 && map[2] == 65_536 && first >= 65_536 && first.is_multiple_of(65_536), "{text}");
    assert_eq!(words[0], "0");
    assert_eq!(words[2..8], ["0 0", "0 0", "0 0", "1000 1000", "0 0", "7 8"], "{text}");
    assert_eq!(words[9..], ["own processes", "pod-u"], "{text}");
    // Outside they are others, and the disk never heard of them.
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    assert!(status.contains(&format!("Uid:\t{first}\t")), "{status}");
    let made = std::fs::metadata(data.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (7, 8));
    // libcontainer leaves an exec with the host's users; as what it would be outside is looked at from outside.
    let look = "id -u; cat /proc/self/uid_map; touch /data/by-exec; grep -E 'CapEff|Seccomp:' /proc/self/status; hostname x || echo no";
    let (text, code) = world.exec("u1", &["sh", "-c", look]).await;
    assert!(code == 0 && text.starts_with("0\n") && text.contains(&first.to_string()), "{code} {text}");
    assert!(text.contains("Seccomp:\t2\n") && text.contains("\nno\n"), "{text}");
    assert_eq!(std::fs::metadata(data.join("by-exec")).unwrap().uid(), 0);
    let tty = ExecSpec {
        container_id: "u1".into(),
        args: ["sh", "-c", "stat -c %u $(tty)"].map(String::from).into(),
        tty: true,
        ..ExecSpec::default()
    };
    let exec = world.runtime.exec(&tty).await.unwrap();
    assert_eq!(read_all(exec.streams.tty.unwrap()).await.trim(), "0", "the terminal is its user's");
    // The other pod has other users.
    let text = world.output(&world.container("pod-w", "w1", "cat /proc/self/uid_map")).await;
    assert!(!text.contains(&format!(" {first} ")), "{text}");
    // A user of the image writes to its own output, and no further id is there.
    let user = User { uid: 1000, gid: 1000, groups: vec![2000] };
    let line = "id -u; id -G; echo again > /proc/self/fd/1; cat /data/users; touch /data/no";
    let spec = ContainerSpec { user, mounts: vec![mount.clone()], ..world.container("pod-u", "u2", line) };
    let (text, _) = world.run(&spec).await;
    assert!(text.starts_with("1000\n1000 2000\nagain\nx"), "{text}");
    assert!(text.contains("/data/no: Permission denied"), "{text}");
    let far = ContainerSpec { user: User { uid: 70_000, ..User::default() }, ..world.container("pod-u", "u3", "true") };
    let why = world.runtime.start_container(&far).await.unwrap_err().to_string();
    assert!(why.contains("has users and groups 0 to 65535"), "{why}");
    // Without mapped owners there is no mount: the error says which and why.
    let proc = Mount { source: "/proc/sys".into(), destination: "/host".into(), ..Mount::default() };
    let spec = ContainerSpec { mounts: vec![proc], ..world.container("pod-u", "u4", "true") };
    let why = world.runtime.start_container(&spec).await.unwrap_err().to_string();
    assert!(why.contains("/host: /proc/sys with hostUsers: false"), "{why}");
    for id in ["u1", "u2", "u3", "u4"] {
        world.runtime.remove_container(id).await.unwrap();
    }
    for uid in ["pod-u", "pod-w"] {
        world.runtime.remove_sandbox(uid).await.unwrap();
    }
}

/// Every capability inside is none outside.
pub async fn powerless(mut world: World) {
    if !ready(world.runtime.try_users().await) {
        return;
    }
    let sandbox = SandboxSpec { own_users: true, share_pid: true, ..world.sandbox("pod-p") };
    world.runtime.create_sandbox(&sandbox).await.unwrap();
    let script = "ps | grep -q '^ *1 .*rt init' && echo a first process; grep CapEff /proc/self/status; mkdir /m && mount -t tmpfs none /m && echo mounts; \
                  hostname other && hostname; mknod /dev/x b 8 0 || echo no nodes; \
                  echo 1 > /proc/sys/kernel/panic || echo no panic; \
                  echo 1 > /proc/sys/net/ipv4/ip_forward && echo its own net";
    let spec = ContainerSpec { privileged: true, ..world.container("pod-p", "p1", script) };
    let (text, _) = world.run(&spec).await;
    for words in ["a first process\n", "mounts\n", "other\n", "no nodes\n", "no panic\n", "its own net\n"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    world.runtime.remove_container("p1").await.unwrap();
    world.runtime.remove_sandbox("pod-p").await.unwrap();
}
