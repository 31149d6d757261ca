//! Ways out of a container, as people could write them into manifests and images: `docs/RUNTIME.md` lists them with their tests.
//!
//! In: a world with one board, hostile images in its registry, hostile pods from kubectl. Out: Kubernetes' own reasons, or pods
//! that run and get nowhere. Never: a pod that passes because it was not tried: each has a word of its own that it must reach.

use limpet_e2e::images::{self, Target};
use limpet_e2e::pods::{apply, becomes, container, has, hasnt, inside, merge, one, ready, sleeper};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, wait};
use limpet_oci::Platform;
use limpet_oci::builder::{Layer, image};
use limpet_oci::config::Execution;
use serde_json::{Value, json};
use std::fs;

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

#[test]
fn from_manifests_and_images() {
    test(1, &json!({}), |world| {
        let before = fs::read_to_string(CORE_PATTERN).map_err(|e| e.to_string())?;
        let outside = world.slot.dir().join("outside");
        fs::create_dir_all(&outside).map_err(|e| e.to_string())?;
        fs::write(outside.join("witness"), "the board's own").map_err(|e| e.to_string())?;
        push(world)?;
        let witness = outside.join("witness").display().to_string();
        begin(world, &witness)?;
        working_directories(world)?;
        links_in_images(world)?;
        far_users(world)?;
        volumes(world)?;
        words(world)?;
        let left = fs::read_dir(&outside).map_err(|e| e.to_string())?.count();
        let content = fs::read_to_string(&witness).map_err(|e| e.to_string())?;
        wait::yes(left == 1 && content == "the board's own", || format!("{left} files outside, the witness says {content:?}"))?;
        let after = fs::read_to_string(CORE_PATTERN).map_err(|e| e.to_string())?;
        wait::yes(before == after, || format!("{CORE_PATTERN} says {after:?}"))?;
        let nodes = world.kubectl.say("get nodes")?;
        has(&nodes, &["board-1", " Ready"])
    });
}

/// `…-link`: something that the runtime mounts on leads elsewhere. The others: users and groups past what there is.
fn push(world: &World) -> Result<()> {
    let target = Target::hub(&world.hub, &world.slot.dir())?;
    let bytes = fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let host = Platform::host();
    for (name, link, to) in [("dev-link", "dev", "/tmp"), ("proc-link", "innocent", "/proc")] {
        target.push(name, "1", &images::busybox_of(&host, &bytes, images::base().symlink(link, to))?)?;
    }
    let null =
        images::base().directory("dev", 0o755).symlink("dev/null", CORE_PATTERN).symlink("dev/console", "/proc/sysrq-trigger");
    target.push("null-link", "1", &images::busybox_of(&host, &bytes, null)?)?;
    for (name, user) in [("far", "4294967296"), ("half", "2147483648"), ("minus", "-1"), ("group", "0:4294967296")] {
        let run = Execution { user: user.into(), env: vec!["PATH=/bin".into()], ..Execution::default() };
        let layer: Layer = images::base().directory("bin", 0o755).file("bin/busybox", 0o755, &bytes).symlink("bin/sh", "busybox");
        target.push(name, "1", &image(&host, run, vec![layer]).map_err(|e| e.to_string())?)?;
    }
    Ok(())
}

fn of(image: &str, line: &str, more: Value) -> Value {
    let mut fields = json!({"image": format!("hub.limpet/{image}:1")});
    merge(&mut fields, more);
    container("c", line, fields)
}

/// All pods at once; what becomes of them is looked at by their names.
fn begin(world: &World, witness: &str) -> Result<()> {
    let look = format!("pwd -P; cat {}{} && echo ESCAPED; echo looked", "../".repeat(12), witness.trim_start_matches('/'));
    for fd in 3..11 {
        let dir = json!({"workingDir": format!("/proc/self/fd/{fd}")});
        let spec = json!({"restartPolicy": "Never", "containers": [container("c", &look, dir)]});
        apply(world, &format!("fd-{fd}"), spec)?;
    }
    apply(world, "dev-link", json!({"containers": [of("dev-link", "exec sleep 1000000", json!({}))]}))?;
    let line = "stat -c %t:%T /dev/null /proc/keys; (echo x > /proc/keys; \
                echo x > /proc/sys/kernel/core_pattern) 2>&1; exec sleep 1000000";
    apply(world, "null-link", json!({"containers": [of("null-link", line, json!({"tty": true}))]}))?;
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/innocent/self/attr"}]});
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [of("proc-link", "exec sleep 1000000", mounts)]});
    apply(world, "over-proc", spec)?;
    for name in ["far", "half", "minus", "group"] {
        apply(world, name, json!({"containers": [of(name, "exec sleep 1000000", json!({}))]}))?;
    }
    Ok(())
}

/// CVE-2024-21626: a descriptor of the runtime as the working directory. It began and saw only its own files, or never began.
fn working_directories(world: &World) -> Result<()> {
    for fd in 3..11 {
        let name = format!("fd-{fd}");
        let status = becomes(world, &name, "tried", |status| {
            let state = &one(status, "c")["state"];
            !state["terminated"].is_null() || state["waiting"]["reason"].as_str().is_some_and(|r| r.ends_with("Error"))
        })?;
        if one(&status, "c")["state"]["waiting"].is_null() {
            let text = world.kubectl.say(&format!("logs {name}")).unwrap_or_default();
            hasnt(&text, &["ESCAPED", "the board's own"])?;
            let reason = one(&status, "c")["state"]["terminated"]["reason"].clone();
            wait::yes(text.contains("looked") || reason == "StartError" || reason == "ContainerCannotRun", || {
                format!("{name}: nothing was tried: {status} {text}")
            })?;
        }
    }
    Ok(())
}

/// /dev as a link, /dev/null (CVE-2025-31133), /dev/console (CVE-2025-52565), a way below /proc (CVE-2025-52881).
fn links_in_images(world: &World) -> Result<()> {
    failing(world, "dev-link", "it must be a real directory")?;
    failing(world, "over-proc", "a mount ended up on /proc")?;
    ready(world, "null-link")?;
    let text = world.kubectl.say("logs null-link")?;
    has(&text, &["1:3\r\n1:3", "Read-only file system"])
}

/// CVE-2024-40635.
fn far_users(world: &World) -> Result<()> {
    for name in ["far", "half", "minus", "group"] {
        let status = becomes(world, name, "refused", |s| {
            one(s, "c")["state"]["waiting"]["reason"].as_str().is_some_and(|r| r.ends_with("Error"))
        })?;
        wait::yes(one(&status, "c")["restartCount"] == 0, || status.to_string())?;
    }
    Ok(())
}

/// It does not run, and says these words: of now or of its last attempt.
fn failing(world: &World, name: &str, words: &str) -> Result<()> {
    becomes(world, name, words, |status| one(status, "c")["ready"] == false && one(status, "c").to_string().contains(words))
        .map(|_| ())
}

/// CVE-2021-25741: what a pod leaves in its volume leads another container of it, by a sub path, no further than the volume.
fn volumes(world: &World) -> Result<()> {
    let outside = world.slot.dir().join("outside");
    let mount = |sub: &str| json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": sub}]});
    let lines = format!(
        "ln -s {0} /v/link; ln -s {0}/witness /v/file; ln -s ../../../../../../../../etc /v/up; echo made",
        outside.display()
    );
    let maker = container("make", &lines, json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    for (name, sub) in [("sub-link", "link"), ("sub-file", "file"), ("sub-up", "up"), ("sub-deep", "link/made/by/us")] {
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [maker.clone()],
            "containers": [container("c", "exec sleep 1000000", mount(sub))]});
        apply(world, name, spec)?;
    }
    for name in ["sub-link", "sub-file", "sub-up", "sub-deep"] {
        failing(world, name, "leads out of the volume")?;
    }
    Ok(())
}

/// CVE-2026-62371 and -62182: whatever a manifest has words in, no shell of the board reads them.
fn words(world: &World) -> Result<()> {
    let evil = format!("$(touch {0}/a);`touch {0}/b`;|touch {0}/c&&touch {0}/d\n", world.slot.dir().join("outside").display());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"key": evil}});
    world.kubectl.apply(&map.to_string())?;
    let flat = evil.trim().to_string();
    let fields = json!({
        "args": [flat], "env": [{"name": "EVIL", "value": evil}], "workingDir": "/tmp",
        "volumeMounts": [{"name": "v", "mountPath": format!("/tmp/v/{flat}"), "subPath": "$(x);y"},
            {"name": "m", "mountPath": "/m"}],
        "lifecycle": {"postStart": {"exec": {"command": ["echo", flat]}}},
        "readinessProbe": {"exec": {"command": ["test", "-n", flat]}, "periodSeconds": 1}});
    let spec = json!({"hostAliases": [{"ip": "10.9.8.7", "hostnames": ["evil.example"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "configMap": {"name": "words"}}]});
    sleeper(world, "words", fields, spec)?;
    ready(world, "words")?;
    has(&inside(world, "words", "echo \"$EVIL\"; cat /m/key; ls -R /tmp/v")?, &[&flat, "/tmp/v/$(touch"])
}
