//! Parsing and arithmetic; the kernel's side is tested with containers in `runtime/tests`.

use super::*;

const HYBRID: &str = "\
25 20 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn hybrid_is_v1_with_joined_controllers() {
    let found = hierarchy::Hierarchies::parse(HYBRID).unwrap();
    assert!(!found.is_v2());
    let controllers = found.controllers();
    assert_eq!(controllers, Controllers { cpu: true, memory: true, pids: false, devices: false });
    assert_eq!(found.dir("cpuacct", "a/b"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b")));
    assert_eq!(found.dir("pids", "a"), None);
    assert_eq!(found.places("x").len(), 2);
}

#[test]
fn no_mount_at_all_says_what_to_do() {
    let err = hierarchy::Hierarchies::parse("1 1 0:1 / / rw - ext4 /dev/x rw\n").unwrap_err();
    assert!(err.to_string().contains("mount cgroup2"), "{err}");
}

#[test]
fn shares_become_weights() {
    let known = [(0, 1), (2, 1), (3, 2), (102, 17), (256, 35), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)];
    for (shares, weight) in known {
        assert_eq!(limits::weight(shares), weight, "{shares}");
    }
    // Sums of what groups weigh must not lose something each time they are read.
    for weight in 1..=10_000 {
        assert_eq!(limits::weight(limits::shares_of(weight)), weight);
    }
}

#[test]
fn parents_that_escape_are_refused() {
    for bad in ["", "/", "a//b", "../x", "a/../b"] {
        assert!(Cgroups::probe(bad).is_err(), "{bad}");
    }
}
