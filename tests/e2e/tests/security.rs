//! Who a container runs as and what the kernel lets it do, as people write it.
//!
//! In: security contexts. Out: what the containers' processes are, or Kubernetes' own reasons.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn pod(name: &str, container: Value, spec: Value) -> String {
    let mut main = json!({"name": "main", "image": "hub.limpet/groups:1", "command": ["sleep", "100000"]});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0},
    });
    for (target, more) in [(&mut main, container), (&mut pod["spec"], spec)] {
        if let (Some(target), Some(more)) = (target.as_object_mut(), more.as_object()) {
            target.extend(more.clone());
        }
    }
    pod["spec"]["containers"] = json!([main]);
    pod.to_string()
}

fn running(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ()).map_err(|why| {
        let more = world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default();
        format!("{why}\n{more}")
    })
}

fn inside(world: &World, name: &str, line: &str) -> Result<String> {
    world.kubectl.run(&["exec", name, "--", "sh", "-c", line]).map(|text| text.trim().to_string())
}

/// The reason that a container waits for, or that a pod failed with, and words of its message.
fn says(world: &World, name: &str, reason: &str, words: &str) -> Result<()> {
    until(&format!("{name}: {reason}"), SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        let of = |value: &Value| value["reason"] == reason && value["message"].to_string().contains(words);
        wait::yes(of(&status) || of(waiting), || status.to_string())
    })
}

/// busybox with a user who is in a group.
fn image() -> Result<limpet_oci::builder::Image> {
    use limpet_oci::builder::{self, Layer};
    let busybox = std::fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let mut layer = Layer::new()
        .file("bin/busybox", 0o755, &busybox)
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\nextra:x:50000:web\n");
    for applet in ["sh", "sleep", "id", "mkdir", "grep", "cat"] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let run = limpet_oci::config::Execution {
        user: "web".into(),
        env: vec!["PATH=/bin".into()],
        ..Default::default()
    };
    builder::image(&limpet_oci::Platform::host(), run, vec![layer]).map_err(|e| e.to_string())
}

#[test]
fn users_groups_and_profiles() {
    test(1, &json!({}), |world| {
        limpet_e2e::images::Target::hub(&world.hub, &world.slot.dir())?.push("groups", "1", &image()?)?;
        let context = |value: Value| json!({"securityContext": value});
        world.kubectl.apply(&pod("merge", json!({}), context(json!({"supplementalGroups": [4000], "fsGroup": 5000}))))?;
        let strict = json!({"supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict"});
        world.kubectl.apply(&pod("strict", json!({}), context(strict)))?;
        running(world, "merge")?;
        running(world, "strict")?;
        for (name, want) in [("merge", "1000 4000 5000 50000"), ("strict", "1000 4000")] {
            let got = inside(world, name, "id -G")?;
            let mut groups: Vec<&str> = got.split(' ').collect();
            groups.sort_by_key(|g| g.parse::<u32>().unwrap_or(0));
            wait::yes(groups.join(" ") == want, || format!("{name}: {got}"))?;
        }
        // A profile of the node.
        let dir = world.agents[0].data.join("seccomp/team");
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]});
        std::fs::write(dir.join("app.json"), profile.to_string()).map_err(|e| e.to_string())?;
        let localhost = |file: &str| context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}}));
        world.kubectl.apply(&pod("profile", json!({}), localhost("team/app.json")))?;
        world.kubectl.apply(&pod("absent", json!({}), localhost("team/none.json")))?;
        running(world, "profile")?;
        let got = inside(world, "profile", "mkdir /dev/shm/x 2>&1; grep Seccomp: /proc/self/status")?;
        wait::yes(got.contains("Read-only file system") && got.ends_with('2'), || got)?;
        says(world, "absent", "CreateContainerError", "No such file")?;
        // What must not run says so, in the words that people search for.
        let root = context(json!({"runAsUser": 0, "runAsNonRoot": true}));
        world.kubectl.apply(&pod("root", json!({}), root))?;
        says(world, "root", "CreateContainerConfigError", "breaks non-root policy")?;
        world.kubectl.apply(&pod("name", json!({}), context(json!({"runAsNonRoot": true}))))?;
        says(world, "name", "CreateContainerConfigError", "cannot verify user is non-root")?;
        let on_proc = json!({"volumeMounts": [{"name": "v", "mountPath": "/proc/self/attr"}]});
        world.kubectl.apply(&pod("proc", on_proc, json!({"volumes": [{"name": "v", "emptyDir": {}}]})))?;
        says(world, "proc", "CreateContainerError", "cannot be mounted on /proc")
    });
}
