//! What the helper mounts itself is what libcontainer would have mounted.

use super::world::World;
use crate::device::cdi::Hook;
use crate::runtime::ContainerSpec;
use crate::runtime::spec::{Mount, Propagation};
use std::path::Path;

/// The mounts with their options, everything in /dev, and whose namespaces show through.
const LOOK: &str = "awk '$2 != \"/\" { print $2, $3, $4 }' /proc/mounts | sort; \
    for f in /dev /dev/* /dev/pts/* /dev/shm /dev/mqueue /sys /sys/fs/cgroup /sys/fs/cgroup/* /etc/*; do \
        echo $(stat -c '%n %a %u:%g %t:%T %F' $f) $(readlink $f); done; \
    echo $(stat -c %d:%i /dev/mqueue /dev/shm /etc/hosts) $(ls /sys/class/net); \
    cat /etc/hosts /etc/hostname /etc/resolv.conf; cat /sys/fs/cgroup/pids/pids.max; \
    : >> /etc/hosts && echo written; echo x > /dev/shm/x && echo shared; mount -o remount,rw /sys && echo unlocked";

/// Hooks are run where the host's network is, so that libcontainer makes everything itself for such a container.
fn plain(spec: &ContainerSpec, id: &str) -> ContainerSpec {
    let hook = Hook { hook_name: "createRuntime".into(), path: "/bin/true".into(), ..Hook::default() };
    ContainerSpec { id: id.into(), hooks: vec![hook], ..spec.clone() }
}

pub async fn the_same(mut world: World) {
    world.pod("pod-s").await;
    let usual = world.container("pod-s", "usual", LOOK);
    let locked = ContainerSpec { id: "locked".into(), read_only_root: true, ..usual.clone() };
    let privileged = ContainerSpec { id: "privileged".into(), privileged: true, ..usual.clone() };
    for spec in [usual, locked, privileged] {
        let (ours, theirs) = (world.output(&spec).await, world.output(&plain(&spec, &format!("{}-plain", spec.id))).await);
        assert!(ours.contains("/dev/mqueue mqueue ") && ours.contains("eth0"), "{}: {ours}", spec.id);
        assert_eq!(ours.contains("unlocked"), spec.privileged, "{}: {ours}", spec.id);
        assert_eq!(ours.contains("written"), !spec.read_only_root, "{}: {ours}", spec.id);
        let missing: Vec<_> = theirs.lines().filter(|line| !ours.lines().any(|l| l == *line)).collect();
        let more: Vec<_> = ours.lines().filter(|line| !theirs.lines().any(|l| l == *line)).collect();
        assert!(missing.is_empty() && more.is_empty(), "{}: libcontainer alone has {missing:#?}, we have {more:#?}", spec.id);
    }
}

/// An image's links in the way of the pod's files lead where they lead inside the image, and nowhere else.
pub async fn links(mut world: World) {
    world.pod("pod-k").await;
    let (top, outside) = (world.base.join("links"), world.base.join("outside"));
    std::fs::create_dir_all(top.join("etc")).unwrap();
    std::fs::create_dir_all(top.join("over")).unwrap();
    std::fs::write(top.join("over/here"), "the image's").unwrap();
    std::fs::write(&outside, "the host's").unwrap();
    std::os::unix::fs::symlink("../over/here", top.join("etc/hosts")).unwrap();
    let mut spec = world.container("pod-k", "inside", "cat /over/here; cat /etc/resolv.conf; : >> /over/here && echo done");
    spec.layers.insert(0, top.clone());
    let text = world.output(&spec).await;
    assert!(text.contains("localhost") && text.contains("done") && !text.contains("the image's"), "{text}");
    assert_eq!(std::fs::read_to_string(top.join("over/here")).unwrap(), "the image's");
    let away = format!("../../../../../../../../../../{}", outside.display());
    std::os::unix::fs::symlink(&away, top.join("etc/hostname")).unwrap();
    let mut spec = world.container("pod-k", "outside", "echo changed > /etc/hostname");
    spec.layers.insert(0, top);
    let err = world.runtime.start_container(&spec).await.unwrap_err();
    assert!(err.to_string().contains("/etc/hostname"), "{err}");
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "the host's");
}

fn volume(source: &Path, destination: &str) -> Mount {
    Mount { source: source.into(), destination: destination.into(), ..Mount::default() }
}

/// A volume that is all of /etc or of /dev has the pod's own below it; the board's /dev gets nothing but their places, and loses
/// nothing.
pub async fn over_etc_and_dev(mut world: World) {
    world.pod("pod-o").await;
    let etc = world.base.join("volume-etc");
    std::fs::create_dir_all(&etc).unwrap();
    let mut spec = world.container("pod-o", "etc", "cat /etc/hosts; : >> /etc/mine; ls /etc");
    spec.mounts = vec![volume(&etc, "/etc")];
    let text = world.output(&spec).await;
    assert!(text.contains("localhost") && text.ends_with("\nhostname\nhosts\nmine\nresolv.conf\n"), "{text}");
    assert!(etc.join("mine").exists() && std::fs::read(etc.join("hosts")).unwrap().is_empty());

    let (dev, last) = (world.base.join("volume-dev"), world.base.join("last"));
    std::fs::create_dir_all(dev.join("shm")).unwrap();
    std::fs::write(&last, "").unwrap();
    for (name, of) in [("null", "/dev/null"), ("ptmx", "/dev/null")] {
        std::process::Command::new("/bin/busybox").args(["cp", "-a", of]).arg(dev.join(name)).status().unwrap();
    }
    std::os::unix::fs::symlink("/proc/self/fd", dev.join("fd")).unwrap();
    let look = "stat -c %t:%T /dev/null /dev/ptmx; readlink /dev/fd; ls /dev; echo bye > /dev/last; \
                echo x > /dev/shm/x && grep -c ' /dev/shm tmpfs ' /proc/mounts; echo $(mkdir /dev/made 2>&1)";
    let both = Mount { propagation: Propagation::Bidirectional, ..volume(&etc, "/both") };
    for (id, read_only, more, made) in [
        ("dev", false, vec![], ""),
        ("read", true, vec![], "mkdir: can't create directory '/dev/made': Read-only file system"),
        // Where mounts are shared with the board.
        ("shared", false, vec![both], ""),
    ] {
        let mut spec = world.container("pod-o", id, look);
        spec.privileged = id == "shared";
        spec.mounts = vec![volume(&last, "/dev/last"), Mount { read_only, ..volume(&dev, "/dev/") }];
        spec.mounts.extend(more);
        if id == "shared" {
            let none: Option<&str> = None;
            let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SHARED;
            nix::mount::mount(none, "/", none, flags, none).unwrap();
        }
        let text = world.output(&spec).await;
        let head = "1:3\n1:3\n/proc/self/fd\nfd\nlast\nnull\nptmx\nshm\n";
        let rest = text.strip_prefix(head).unwrap_or_else(|| panic!("{id}: {text}"));
        let (count, said) = rest.trim_end().split_once('\n').unwrap_or((rest.trim_end(), ""));
        assert!(count.parse::<u32>().is_ok_and(|n| n > 0) && said == made, "{id}: {text}");
        assert_eq!(std::fs::read_to_string(&last).unwrap(), "bye\n");
        let mut names: Vec<_> = std::fs::read_dir(&dev).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let _ = std::fs::remove_dir(dev.join("made"));
        names.retain(|name| name != "made");
        assert_eq!(names, ["fd", "last", "null", "ptmx", "shm"], "{id}");
        assert_eq!(std::fs::read_dir(dev.join("shm")).unwrap().count(), 0, "{id}: the pod's memory came out");
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!table.contains("volume-dev") && !table.contains("/dev/last"), "{id}: {table}");
    }
}

/// One device on another, as on those that every container has; for the privileged, who have the board's nodes besides, also on
/// directories of devices: the volume counts, and nothing is made in it.
pub async fn over_devices(mut world: World) {
    world.pod("pod-d").await;
    let (empty, look) = (world.base.join("empty"), "stat -c %t:%T /dev/random /dev/full; echo x > /dev/full && echo taken");
    std::fs::create_dir_all(&empty).unwrap();
    let in_dir = |entry: std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path());
    let known = ["pts", "shm", "fd", "mqueue"].map(|name| Path::new("/dev").join(name));
    let mut dirs: Vec<_> = std::fs::read_dir("/dev").unwrap().filter_map(|e| in_dir(e.unwrap())).collect();
    dirs.retain(|dir| !known.contains(dir));
    for privileged in [false, true] {
        let mut spec = world.container("pod-d", "devices", look);
        spec.privileged = privileged;
        let read = Mount { read_only: true, ..volume(Path::new("/dev/urandom"), "/dev/random") };
        spec.mounts = vec![read, volume(Path::new("/dev/null"), "/dev/full")];
        spec.mounts.extend(dirs.iter().map(|dir| volume(&empty, dir.to_str().unwrap())));
        assert_eq!(world.output(&spec).await, "1:9\n1:3\ntaken\n", "privileged: {privileged}");
        assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "{dirs:?}");
    }
}

/// Who mounts the board's groups, or what they are in, gets those of the board: libcontainer alone is shown others.
pub async fn groups_of_the_board(mut world: World) {
    world.pod("pod-g").await;
    let list = |path: &str| {
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join("\n") + "\n"
    };
    let here = list("/sys/fs/cgroup");
    for (source, inside) in [("/sys/fs/cgroup", ""), ("/sys", "/fs/cgroup"), ("/", "/sys/fs/cgroup")] {
        let mut spec = world.container("pod-g", "groups", &format!("ls /board{inside}"));
        spec.mounts = vec![volume(Path::new(source), "/board")];
        assert_eq!(world.output(&spec).await, here, "{source}");
    }
}
