//! A board that runs short, and pods that take more than they may: Kubernetes' own words, and the right pod goes.
//!
//! In: thresholds that are always passed, limits that are small. Out: `Evicted` in status, conditions and events.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// Bound by hand: the scheduler rightly avoids a node under pressure.
fn pod(name: &str, script: &str, more: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": "board-1", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]}],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.as_str() {
            "container" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    pod["spec"]["containers"][0][key] = value.clone();
                }
            }
            _ => pod["spec"][key] = value.clone(),
        }
    }
    pod.to_string()
}

fn evicted(world: &World, name: &str, words: &str) -> Result<()> {
    until(&format!("{name} is evicted"), SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        let said = status["message"].as_str().unwrap_or_default();
        let right = status["phase"] == "Failed" && status["reason"] == "Evicted" && said.contains(words);
        wait::yes(right, || status.to_string())?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "TerminationByKubelet");
        wait::yes(told, || status["conditions"].to_string())
    })?;
    until("the event", SOON, || {
        let text = world.kubectl.say(&format!("get events --field-selector involvedObject.name={name}"))?;
        wait::yes(text.contains("Evicted"), || text)
    })
}

fn running(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ())
}

/// Holds this many megabytes for as long as it runs.
fn eater(mib: u32) -> String {
    format!("head -c {} /dev/zero > /dev/shm/x; echo full; sleep 100000", mib << 20)
}

#[test]
fn memory_runs_short() {
    // What is kept free is not allocatable: one part in a hundred is left for the requests below.
    let manifests = std::env::temp_dir().join(format!("limpet-e2e-short-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&manifests);
    std::fs::create_dir_all(&manifests).unwrap();
    let settings = json!({"evictionHard": {"memory.available": "99%"}, "evictionPressureTransitionSeconds": 5,
        "reservedMemoryMib": 0, "staticPodDir": manifests});
    test(1, &settings, |world| {
        until("MemoryPressure", SOON, || {
            let node = world.kubectl.json("get node board-1")?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().any(|c| c["type"] == "MemoryPressure" && c["status"] == "True");
            let tainted = node["spec"]["taints"].to_string().contains("node.kubernetes.io/memory-pressure");
            wait::yes(found && tainted, || format!("{conditions:?} {}", node["spec"]))
        })?;
        // Who asks for nothing does not come in, unless it bears that, or lies on the board: that one stays, too.
        std::fs::write(manifests.join("own.json"), pod("own", &eater(8), &json!({}))).map_err(|e| e.to_string())?;
        until("the board's own pod", SOON, || world.kubectl.json("get pod own-board-1").map(|_| ()))?;
        running(world, "own-board-1")?;
        world.kubectl.apply(&pod("guest", &eater(8), &json!({})))?;
        turned_away(world, "guest", "MemoryPressure")?;
        // Who stays within its request outlives who does not; the system's own and the small ones stay.
        let asks = |memory: &str| json!({"container": {"resources": {"requests": {"memory": memory}}}});
        world.kubectl.apply(&pod("modest", &eater(4), &asks("10Mi")))?;
        world.kubectl.apply(&pod("system", &eater(4), &json!({"priorityClassName": "system-node-critical"})))?;
        let bears = json!({"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]});
        world.kubectl.apply(&pod("greedy", &eater(8), &bears))?;
        evicted(world, "greedy", "The node was low on resource: memory. Threshold quantity: ")?;
        let message = world.kubectl.json("get pod greedy")?["status"]["message"].to_string();
        wait::yes(message.contains("Container main was using") && message.contains("request is 0"), || message)?;
        evicted(world, "modest", "The node was low on resource: memory.")?;
        running(world, "own-board-1")?;
        running(world, "system")
    });
    let _ = std::fs::remove_dir_all(&manifests);
}

/// It failed before anything of it was made, as kubelet says it.
fn turned_away(world: &World, name: &str, condition: &str) -> Result<()> {
    until(&format!("{name} is turned away"), SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        let words = format!("Pod was rejected: The node had condition: [{condition}]. ");
        let right = status["phase"] == "Failed" && status["reason"] == "Evicted" && status["message"] == words;
        wait::yes(right && status["containerStatuses"][0]["containerID"].is_null(), || status.to_string())
    })
}

#[test]
fn processes_run_short() {
    test(1, &json!({"evictionPressureTransitionSeconds": 5}), |world| {
        let many = |count: u32| format!("for n in $(seq {count}); do sleep 100000 & done; wait");
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "dear"},
            "value": 1000});
        world.kubectl.apply(&class.to_string())?;
        let classed = |name: &str| json!({"priorityClassName": name});
        // By how dear they are, and then by how many they have.
        for (name, count, more) in [
            ("few", 2, json!({})),
            ("most", 20, json!({})),
            ("dear", 30, classed("dear")),
            ("system", 30, classed("system-node-critical")),
        ] {
            world.kubectl.apply(&pod(name, &many(count), &more))?;
            running(world, name)?;
        }
        // As many as a kernel can have: always too few, on a quiet machine, too.
        world.agents[0].configure(&json!({"evictionHard": {"pid.available": "4194304"}}))?;
        let agent = world.agents[0].agent_process()?;
        kill(Pid::from_raw(agent.pid), Signal::SIGKILL).map_err(|e| e.to_string())?;
        until("PIDPressure", SOON, || {
            let node = world.kubectl.json("get node board-1")?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().any(|c| c["type"] == "PIDPressure" && c["status"] == "True");
            let tainted = node["spec"]["taints"].to_string().contains("node.kubernetes.io/pid-pressure");
            wait::yes(found && tainted, || format!("{conditions:?} {}", node["spec"]))
        })?;
        let words = "The node was low on resource: pids. Threshold quantity: 4194304, available: ";
        evicted(world, "most", words)?;
        let first = evicted_at(world, "most")?;
        for name in ["few", "dear"] {
            let then = evicted_at(world, name)?;
            wait::yes(then.is_empty() || then > first, || format!("{name} went at {then}, and the most at {first}"))?;
        }
        let request = json!({"container": {"resources": {"requests": {"memory": "1Mi"}}}});
        world.kubectl.apply(&pod("guest", &many(2), &request))?;
        turned_away(world, "guest", "PIDPressure")?;
        running(world, "system")
    });
}

/// When a pod was told to go; empty before that.
fn evicted_at(world: &World, name: &str) -> Result<String> {
    let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
    let told = limpet_e2e::pods::condition(&status, "DisruptionTarget")["lastTransitionTime"].take();
    Ok(told.as_str().unwrap_or_default().to_string())
}

#[test]
fn disks_have_limits() {
    test(1, &json!({}), |world| {
        let volume = json!({
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        });
        let write = |path: &str| format!("head -c 3000000 /dev/zero > {path}; sleep 100000");
        world.kubectl.apply(&pod("volume", &write("/v/file"), &volume))?;
        let limits = json!({"container": {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}});
        world.kubectl.apply(&pod("layer", &write("/file"), &limits))?;
        world.kubectl.apply(&pod("fine", "head -c 100000 /dev/zero > /file; sleep 100000", &limits))?;
        evicted(world, "volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")?;
        // What a pod may have is what its containers may; who of several has taken too much is named.
        let mut two: Value = serde_json::from_str(&pod("two", &write("/file"), &limits)).map_err(|e| e.to_string())?;
        let other = json!({"name": "other", "image": "hub.limpet/busybox:1", "command": ["sleep", "100000"],
            "resources": {"limits": {"ephemeral-storage": "100Mi"}}});
        two["spec"]["containers"].as_array_mut().into_iter().for_each(|all| all.push(other.clone()));
        world.kubectl.apply(&two.to_string())?;
        evicted(world, "layer", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")?;
        evicted(world, "two", "Container main exceeded its local ephemeral storage limit \"1Mi\". ")?;
        running(world, "fine")?;
        // The kernel's limit of a volume in memory is told to the program, not to Kubernetes.
        let memory = json!({
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
            "container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        });
        let dd = "dd if=/dev/zero of=/v/file bs=1M count=3; sleep 100000";
        world.kubectl.apply(&pod("memory", dd, &memory))?;
        running(world, "memory")?;
        let said = world.kubectl.say("logs memory")?;
        wait::yes(said.contains("No space left on device"), || said)
    });
}

#[test]
fn sysctls_that_are_not_allowed() {
    let settings = json!({"allowedUnsafeSysctls": ["net.core.somaxconn"]});
    test(1, &settings, |world| {
        let with = |name: &str, value: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": value}]}});
        let look = "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_local_port_range; sleep 100000";
        world.kubectl.apply(&pod("allowed", look, &with("net.core.somaxconn", "777")))?;
        world.kubectl.apply(&pod("safe", look, &with("net.ipv4.ip_local_port_range", "20000 30000")))?;
        world.kubectl.apply(&pod("unsafe", look, &with("net.core.rmem_default", "777000")))?;
        running(world, "allowed")?;
        running(world, "safe")?;
        let (one, two) = (world.kubectl.say("logs allowed")?, world.kubectl.say("logs safe")?);
        wait::yes(one.starts_with("777\n") && two.contains("20000\t30000"), || format!("{one}{two}"))?;
        until("the refusal", SOON, || {
            let status = world.kubectl.json("get pod unsafe")?["status"].take();
            let why = "forbidden sysctl: \"net.core.rmem_default\" not allowlisted";
            let said = status["message"].as_str().unwrap_or_default();
            let right = status["phase"] == "Failed" && status["reason"] == "SysctlForbidden" && said.contains(why);
            wait::yes(right, || status.to_string())
        })
    });
}
