//! What the helper mounts itself is what libcontainer would have mounted.

use super::world::World;
use crate::device::cdi::Hook;
use crate::runtime::ContainerSpec;

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
