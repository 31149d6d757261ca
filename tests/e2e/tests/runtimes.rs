//! Who runs a pod, and as whom: RuntimeClasses with another OCI runtime, and users of a pod's own.
//!
//! In: a world with one board on which crun is configured. Out: what kubectl, the pod and the host's /proc say.

use limpet_e2e::pods::{apply, container, has_event, merge, ready, refused};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const CRUN: &str = "/usr/bin/crun";

/// A pod with a line of shell, or with the containers that `more` has.
fn run(world: &World, name: &str, line: &str, more: Value) -> Result<()> {
    let mut spec = json!({"containers": [container("c", line, json!({}))]});
    merge(&mut spec, more);
    apply(world, name, spec)
}

fn says(world: &World, words: &[&str], want: &str) -> Result<()> {
    let text = world.kubectl.run(words)?;
    wait::yes(text.contains(want), || format!("{words:?}: {want:?} is not in {text}"))
}

#[test]
fn who_runs_a_pod_and_as_whom() {
    let settings = json!({"runtimes": {"crun": {"program": CRUN, "arguments": ["--cgroup-manager=disabled"]}}});
    test(1, &settings, |world| {
        let node = world.kubectl.json("get node board-1")?;
        let handlers = node["status"]["runtimeHandlers"].as_array().cloned().unwrap_or_default();
        let named = |name: &str| handlers.iter().find(|h| h["name"] == name).cloned().unwrap_or_default();
        wait::yes(named("")["features"]["recursiveReadOnlyMounts"] == true, || format!("{handlers:?}"))?;
        wait::yes(node["status"]["features"]["supplementalGroupsPolicy"] == true, || node["status"].to_string())?;
        let users = named("")["features"]["userNamespaces"] == true;
        if users {
            own_users(world)?;
        } else {
            run(world, "users", "sleep 1000000", json!({"hostUsers": false}))?;
            has_event(world, "users", "UserNamespacesNotSupported", "hostUsers: false is not supported")?;
        }
        classes(world)?;
        match Path::new(CRUN).exists() {
            true => by_crun(world, users),
            false => wait::yes(named("crun").is_null(), || format!("crun is not there: {handlers:?}")),
        }
    });
}

/// Root in the pod is somebody else on the board; ConfigMaps, Secrets and volumes look as ever.
fn own_users(world: &World) -> Result<()> {
    let data = world.slot.dir().join("data");
    std::fs::create_dir_all(&data).map_err(|e| e.to_string())?;
    world.kubectl.say("create configmap words --from-literal=a=b")?;
    world.kubectl.say("create secret generic hidden --from-literal=c=d")?;
    let line = "cat /c/a /s/c; touch /d/made /e/made; echo $(id -u) $(stat -c %u /c/a /s/c /d/made /e/made /etc/hosts /); \
                cat /proc/self/uid_map; echo over > /dev/termination-log; exec sleep 1000011";
    let mounts = json!([{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"},
        {"name": "e", "mountPath": "/e"}]);
    let spec = json!({"hostUsers": false,
        "volumes": [{"name": "c", "configMap": {"name": "words"}}, {"name": "s", "secret": {"secretName": "hidden"}},
            {"name": "d", "hostPath": {"path": data}}, {"name": "e", "emptyDir": {"medium": "Memory"}}],
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line], "volumeMounts": mounts}]});
    run(world, "users", "", spec)?;
    let pod = ready(world, "users")?;
    let user = &pod["status"]["containerStatuses"][0]["user"]["linux"];
    wait::yes(*user == json!({"uid": 0, "gid": 0, "supplementalGroups": [0]}), || pod["status"].to_string())?;
    // A container is ready from its shell's start on; what the shell says comes later.
    let text = until("the pod's words", SOON, || {
        let text = world.kubectl.say("logs users")?;
        wait::yes(text.lines().count() == 2, || text.clone())?;
        Ok(text)
    })?;
    wait::yes(text.starts_with("bd0 0 0 0 0 0 0\n"), || text.clone())?;
    let map: Vec<u32> = text.lines().last().unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    wait::yes(map.len() == 3 && map[1] >= 65_536 && map[1] % 65_536 == 0 && map[2] == 65_536, || text)?;
    until("a process of that user", SOON, || {
        let outside = world.named("sleep").into_iter().map(|p| std::fs::read_to_string(format!("/proc/{}/status", p.pid)));
        let outside: Vec<String> = outside.map(|text| text.unwrap_or_default()).collect();
        wait::yes(outside.iter().any(|s| s.contains(&format!("Uid:\t{}\t", map[1]))), || format!("{outside:?}"))
    })?;
    let made = std::fs::metadata(data.join("made")).map_err(|e| e.to_string())?;
    wait::yes(std::os::unix::fs::MetadataExt::uid(&made) == 0, || format!("{made:?}"))?;
    says(world, &["exec", "users", "--", "sh", "-c", "id -u; cat /proc/self/uid_map"], &map[1].to_string())?;
    // A second pod has others, and processes that its containers share are still its own.
    let shared = json!({"hostUsers": false, "shareProcessNamespace": true});
    run(world, "shared", "ps; cat /proc/self/uid_map; exec sleep 1000012", shared)?;
    ready(world, "shared")?;
    let text = world.kubectl.say("logs shared")?;
    wait::yes(!text.contains(&format!(" {} ", map[1])), || text)?;
    let far = json!({"hostUsers": false, "securityContext": {"runAsUser": 70_000}});
    run(world, "far", "sleep 1000000", far)?;
    has_event(world, "far", "Failed", "a pod with hostUsers: false has users and groups 0 to 65535")?;
    world.kubectl.say("delete pod users shared far --timeout=60s").map(|_| ())
}

/// What the cluster makes of a class, whoever runs its pods.
fn classes(world: &World) -> Result<()> {
    let class = |name: &str, handler: &str, more: Value| {
        let mut class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
            "handler": handler});
        if let (Some(class), Value::Object(more)) = (class.as_object_mut(), more) {
            class.extend(more);
        }
        world.kubectl.apply(&class.to_string()).map(|_| ())
    };
    class("own", "limpet", json!({}))?;
    class("small", "crun", json!({"overhead": {"podFixed": {"memory": "8Mi", "cpu": "10m"}},
        "scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}}}))?;
    class("elsewhere", "crun", json!({"scheduling": {"nodeSelector": {"runtime": "moon"}}}))?;
    class("unknown", "nothing-here", json!({}))?;
    run(world, "own", "exec sleep 1000000", json!({"runtimeClassName": "own"}))?;
    ready(world, "own")?;
    run(world, "lost", "exec sleep 1000000", json!({"runtimeClassName": "unknown"}))?;
    let words = "Failed to create pod sandbox: failed to get sandbox runtime: no runtime for \"nothing-here\" is configured";
    has_event(world, "lost", "FailedCreatePodSandBox", words)?;
    let lost = world.kubectl.json("get pod lost")?;
    let waiting = &lost["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
    wait::yes(lost["status"]["phase"] == "Pending" && *waiting == "ContainerCreating", || lost["status"].to_string())?;
    run(world, "moon", "exec sleep 1000000", json!({"runtimeClassName": "elsewhere"}))?;
    has_event(world, "moon", "FailedScheduling", "node")?;
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no"}, "spec": spec});
    let containers = json!([{"name": "c", "image": "hub.limpet/busybox:1"}]);
    let none = pod(json!({"runtimeClassName": "none", "containers": containers}));
    refused(world, &none, "pod rejected: RuntimeClass \"none\" not found")?;
    let other = pod(json!({"runtimeClassName": "small", "overhead": {"cpu": "1"}, "containers": containers}));
    refused(world, &other, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")?;
    let selector = json!({"kubernetes.io/os": "other"});
    let conflict = json!({"runtimeClassName": "small", "nodeSelector": selector, "containers": containers});
    refused(world, &pod(conflict), "conflict: runtimeClass.scheduling.nodeSelector[kubernetes.io/os] = linux")?;
    world.kubectl.say("delete pod own lost moon --timeout=60s").map(|_| ())
}

/// The same pod, made by crun: logs, exec, restart, limits, the end.
fn by_crun(world: &World, users: bool) -> Result<()> {
    let line = "echo started; id -u; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let more = json!({"runtimeClassName": "small", "containers": [{"name": "c", "image": "hub.limpet/busybox:1",
        "command": ["sh", "-c", line], "resources": {"limits": {"memory": "32Mi"}},
        "readinessProbe": {"exec": {"command": ["test", "-d", "/proc/1"]}, "periodSeconds": 1, "timeoutSeconds": 20},
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": false}}]});
    run(world, "small", "", more)?;
    let pod = ready(world, "small")?;
    wait::yes(pod["spec"]["overhead"] == json!({"memory": "8Mi", "cpu": "10m"}), || pod["spec"].to_string())?;
    wait::yes(pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "linux", || pod["spec"].to_string())?;
    let user = &pod["status"]["containerStatuses"][0]["user"]["linux"];
    wait::yes(user["uid"] == 1000, || pod["status"].to_string())?;
    until("the pod's words", SOON, || says(world, &["logs", "small"], "started\n1000\nNoNewPrivs:\t1\nSeccomp:\t2\n"))?;
    says(world, &["exec", "small", "--", "sh", "-c", "hostname; cat /etc/hosts"], "small")?;
    let state = world.agents[0].run.join("oci");
    let known = std::fs::read_dir(&state).map_err(|e| format!("{}: {e}", state.display()))?.count();
    wait::yes(known == 1, || format!("crun knows {known} containers"))?;
    // Another agent adopts it as any other container.
    let before = pod["status"]["containerStatuses"][0]["containerID"].clone();
    let agent = world.agents[0].agent_process()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid), nix::sys::signal::Signal::SIGKILL).map_err(|e| e.to_string())?;
    until("another agent", SOON, || {
        let new = world.agents[0].agent_process()?;
        wait::yes(new.pid != agent.pid, || "the same agent".into())
    })?;
    // It is back at the hub a moment later.
    until("the same container", SOON, || says(world, &["exec", "small", "--", "echo", "still here"], "still here"))?;
    let status = ready(world, "small")?["status"]["containerStatuses"][0].clone();
    wait::yes(status["containerID"] == before && status["restartCount"] == 0, || status.to_string())?;
    let both = json!({"runtimeClassName": "small", "hostUsers": false});
    run(world, "both", "exec sleep 1000000", both)?;
    // Where no pod of this board can have users of its own, that is said first.
    let (reason, words) = match users {
        true => ("FailedCreatePodSandBox", "RuntimeClass handler \"crun\" does not support user namespaces"),
        false => ("UserNamespacesNotSupported", "hostUsers: false is not supported"),
    };
    has_event(world, "both", reason, words)?;
    world.kubectl.say("delete pod small both --timeout=60s")?;
    until("crun to forget", SOON, || {
        let left = std::fs::read_dir(&state).map_or(0, Iterator::count);
        wait::yes(left == 0, || format!("crun knows {left} containers"))
    })
}
