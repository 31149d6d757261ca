//! What the OCI runtime specification asks of a container, as far as no other case looks: `docs/RUNTIME.md` has the whole list.
//!
//! In: containers that look at themselves. Out: what they saw, compared with the specification's words.

use super::world::World;
use crate::device::cdi::Hook;
use crate::runtime::rt::oci::{MASKED, READ_ONLY};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Devices, links, namespaces' names, masks and read-only paths one by one, limits of the process, flags of the kernel's mounts.
pub async fn as_specified(mut world: World) {
    world.pod("pod-s").await;
    let here: Vec<&str> = MASKED.into_iter().chain(READ_ONLY).filter(|path| Path::new(path).exists()).collect();
    let masked: Vec<&&str> = here.iter().filter(|path| MASKED.contains(*path)).collect();
    assert!(masked.len() > 2 && here.len() > masked.len() + 2, "{here:?}");
    // A masked file is null, a masked directory empty; what is only read-only refuses root.
    let hidden =
        "hidden() { if [ -d $1 ]; then [ -z \"$(ls -A $1)\" ]; else [ \"$(stat -c %t:%T $1)\" = 1:3 ]; fi || echo SHOWN $1; }";
    let fixed = "fixed() { (touch $1 || mkdir $1/x) 2>/dev/null && echo WRITTEN $1; \
                 grep -q \"^[^ ]* $1 [^ ]* ro,\" /proc/mounts || echo UNFIXED $1; }";
    let looks: String =
        here.iter().map(|path| format!("{} {path}; ", if MASKED.contains(path) { "hidden" } else { "fixed" })).collect();
    let text = world.output(&world.container("pod-s", "paths", &format!("{hidden}; {fixed}; {looks} echo looked"))).await;
    assert_eq!(text, "looked\n");

    let devices = "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; \
                   for l in fd stdin stdout stderr ptmx; do echo $l $(readlink /dev/$l); done; cat /proc/sys/kernel/domainname";
    let text = world.output(&world.container("pod-s", "devices", devices)).await;
    assert_eq!(
        text,
        "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\n\
         fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx\n(none)\n"
    );

    let flags = "for m in /proc /sys /dev/mqueue /dev/pts; do grep \" $m \" /proc/mounts | head -n 1 | cut -d' ' -f4 | \
                 tr , '\\n' | grep -cE '^(nosuid|noexec)$'; done";
    assert_eq!(world.output(&world.container("pod-s", "flags", flags)).await, "2\n2\n2\n2\n");

    // Limits of the process are the agent's own, in the container and in an exec.
    let own = |name: &str| {
        std::fs::read_to_string("/proc/self/limits").unwrap().lines().find(|l| l.starts_with(name)).unwrap().to_string()
    };
    let main = world.container("pod-s", "main", "exec sleep 1000");
    let started = world.runtime.start_container(&main).await.unwrap();
    for name in ["Max open files", "Max processes", "Max locked memory", "Max core file size", "Max stack size"] {
        let of_it = std::fs::read_to_string(format!("/proc/{}/limits", started.pid)).unwrap();
        assert!(of_it.contains(&own(name)), "{name}: {of_it}");
        let (text, code) = world.exec("main", &["grep", name, "/proc/self/limits"]).await;
        assert_eq!((text.trim_end(), code), (own(name).trim_end(), 0));
    }
    // The namespaces of an exec are the container's, and so is its group.
    let look = "for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n; done; readlink /proc/1/ns/mnt; cat /proc/self/cgroup";
    let (text, _) = world.exec("main", &["sh", "-c", look]).await;
    let namespace = |kind: &str| std::fs::read_link(format!("/proc/{}/ns/{kind}", started.pid)).unwrap().display().to_string();
    let expect: Vec<String> = ["mnt", "pid", "net", "ipc", "uts", "mnt"].map(namespace).into();
    assert_eq!(text.lines().take(6).collect::<Vec<_>>(), expect);
    let (of_init, _) = world.exec("main", &["cat", "/proc/1/cgroup"]).await;
    assert!(text.ends_with(&of_init), "{text} {of_init}");
    world.runtime.remove_container("main").await.unwrap();
    world.ended("main").await;
}

/// Hooks of vendors' CDI files: called in their order with the container's state, and one that fails ends the start, with nothing
/// left.
pub async fn hooks(mut world: World) {
    world.pod("pod-h").await;
    let said = world.base.join("said");
    let program = world.base.join("hook");
    let text = format!("#!/bin/busybox sh\necho \"$1 $WORD $(cat)\" >> {}\n[ \"$1\" != fails ]\n", said.display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hook = |stage: &str, word: &str| Hook {
        hook_name: stage.into(),
        path: program.clone(),
        args: vec!["hook".into(), word.into()],
        env: vec!["WORD=env".into()],
        timeout: Some(20),
    };
    let mut spec = world.container("pod-h", "h1", "echo ran");
    spec.hooks = ["createRuntime", "createContainer"].map(|stage| hook(stage, stage)).into();
    assert_eq!(world.output(&spec).await, "ran\n");
    let told = std::fs::read_to_string(&said).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (line, stage) in lines.iter().zip(["createRuntime", "createContainer"]) {
        let state = line.strip_prefix(&format!("{stage} env ")).unwrap_or_else(|| panic!("{told}"));
        let state: serde_json::Value = serde_json::from_str(state).unwrap();
        assert!(state["id"] == "h1" && state["status"] == "creating", "{state}");
        assert!(state["bundle"].as_str().is_some_and(|bundle| bundle.ends_with("/h1")), "{state}");
    }
    for stage in ["createRuntime", "createContainer"] {
        let mut spec = world.container("pod-h", "h2", "echo ran");
        spec.hooks = vec![hook(stage, "fails")];
        let why = world.runtime.start_container(&spec).await.unwrap_err();
        println!("{stage}: {why}");
        assert!(world.runtime.list().is_empty(), "{stage} leaves a record");
    }
    for dir in ["run/bundles", "run/state", "run/fifos", "run/containers", "data/pods/pod-h/containers"] {
        assert_eq!(std::fs::read_dir(world.base.join(dir)).unwrap().count(), 0, "{dir}");
    }
}
