//! A short list of what a node does, on an emulated board: its processor's system calls, its kernel's cgroups and filters.
//!
//! In: a world whose board is Ready and has the busybox image. Out: what was not true.
//! Never: more than one wait a pod: all are sent at once, since emulated seconds are dear; the long lists run on this machine.

use crate::world::World;
use limpet_e2e::{Result, wait};
use serde_json::{Value, json};

const MEMORY_BYTES: u64 = 32 << 20;

pub fn list(world: &mut World) -> Result<()> {
    world.kubectl.apply(&everything().to_string())?;
    server(world)?;
    service(world)?;
    limits(world)?;
    filters(world)?;
    memory_ends(world)?;
    probes(world)?;
    done(world)
}

/// The filter alone: its numbers of system calls are each processor's own.
pub fn filtered(world: &mut World) -> Result<()> {
    world.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": under_filters()}).to_string())?;
    filters(world)?;
    done(world)
}

/// They have done their work; what comes next is about other things.
fn done(world: &World) -> Result<()> {
    world.kubectl.say("delete pod,service,configmap,secret -l list=short --wait=false").map(drop)
}

fn pod(name: &str, line: &str, container: Value, spec: Value) -> Value {
    let mut main = json!({"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line]});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, "list": "short"}},
        "spec": {"terminationGracePeriodSeconds": 0}});
    limpet_e2e::pods::merge(&mut main, container);
    limpet_e2e::pods::merge(&mut pod["spec"], spec);
    pod["spec"]["containers"] = json!([main]);
    pod
}

/// A user's own namespaces: what Docker's and our rules forbid to whoever is not root on the node.
const FORBIDDEN: &str = "unshare -U true 2>/dev/null && echo let || echo kept";

/// One with the runtime's own filter and one without.
fn under_filters() -> [Value; 2] {
    let never = json!({"restartPolicy": "Never"});
    let looks = format!("grep ^Seccomp: /proc/self/status; {FORBIDDEN}");
    let profile = |kind: &str| json!({"securityContext": {"runAsUser": 1000, "seccompProfile": {"type": kind}}});
    [("filtered", "RuntimeDefault"), ("free", "Unconfined")].map(|(name, kind)| pod(name, &looks, profile(kind), never.clone()))
}

fn everything() -> Value {
    let labels = json!({"list": "short"});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page", "labels": labels},
        "data": {"index.html": "hello from the volume"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word", "labels": labels},
        "stringData": {"word": "limpet"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "labels": labels},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let copies = json!({"name": "copies", "image": "hub.limpet/busybox:1", "volumeMounts": [mount("page"), mount("www")],
        "command": ["sh", "-c", "cp /page/index.html /www/"]});
    // A second of a board that is emulated on a busy machine is not one of a server's: only one that is gone fails.
    let get = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 100});
    let server = pod("server", "exec httpd -f -p 8080 -h /www",
        json!({"volumeMounts": [mount("www"), mount("word")], "readinessProbe": get, "livenessProbe": get}),
        json!({"initContainers": [copies], "volumes": [
            {"name": "page", "configMap": {"name": "page"}}, {"name": "word", "secret": {"secretName": "word"}},
            {"name": "www", "emptyDir": {}}]}));
    let never = json!({"restartPolicy": "Never"});
    let asker = pod("asker", "until wget -q -O - http://server; do sleep 1; done", json!({}), never.clone());
    let limited = pod("limited", "cd /sys/fs/cgroup && cat memory.max cpu.max",
        json!({"resources": {"limits": {"memory": MEMORY_BYTES.to_string(), "cpu": "500m"}}}), never.clone());
    let hungry = pod("hungry", "exec tail /dev/zero", json!({"resources": {"limits": {"memory": "16Mi"}}}), never);
    let well = json!({"livenessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1,
        "failureThreshold": 1}});
    let sick = pod("sick", "echo a life; touch /tmp/sick; exec tail -f /dev/null", well, json!({}));
    let [filtered, free] = under_filters();
    json!({"apiVersion": "v1", "kind": "List", "items": [config, secret, service, server, asker, limited, hungry, sick,
        filtered, free]})
}

/// What a pod printed once it has ended well.
fn printed(world: &mut World, name: &str) -> Result<String> {
    world.wait(&format!("the end of {name}"), |world| {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        wait::yes(status["phase"] == "Succeeded", || status.to_string())
    })?;
    world.kubectl.say(&format!("logs {name}"))
}

/// Volumes of each kind that needs no disk, probes, exec with its exit code.
fn server(world: &mut World) -> Result<()> {
    world.pod_ready("server")?;
    let word = world.kubectl.say("exec server -- cat /word/word")?;
    wait::yes(word == "limpet", || format!("the secret is {word:?}"))?;
    let output = world.kubectl.output(&["exec", "server", "--", "sh", "-c", "exit 7"])?;
    wait::yes(output.code == 7, || format!("exec ends with {output:?}"))
}

/// By the Service's name, from another pod.
fn service(world: &mut World) -> Result<()> {
    let page = printed(world, "asker")?;
    wait::yes(page.contains("hello from the volume"), || format!("the Service says {page:?}"))
}

/// The second version of cgroups alone: its files, as the container sees them.
fn limits(world: &mut World) -> Result<()> {
    let said = printed(world, "limited")?;
    let wanted = [MEMORY_BYTES.to_string(), "50000 100000".into()];
    wait::yes(said.lines().eq(wanted.iter().map(String::as_str)), || format!("the limits are {said:?}, not {wanted:?}"))
}

/// The default profile holds, and it is the profile that does it: without one the same is let.
fn filters(world: &mut World) -> Result<()> {
    for (name, mode, outcome) in [("filtered", "2", "kept"), ("free", "0", "let")] {
        let said = printed(world, name)?;
        let words: Vec<&str> = said.split_whitespace().collect();
        wait::yes(words == ["Seccomp:", mode, outcome], || format!("{name} says {said:?}"))?;
    }
    Ok(())
}

fn memory_ends(world: &mut World) -> Result<()> {
    world.wait("the end of hungry", |world| {
        let status = world.kubectl.json("get pod hungry")?["status"].take();
        let end = &status["containerStatuses"][0]["state"]["terminated"];
        wait::yes(end["reason"] == "OOMKilled" && end["exitCode"] == 137, || status.to_string())
    })
}

/// Its first life was ended by its probe, and its words are kept.
fn probes(world: &mut World) -> Result<()> {
    world.wait("another life of sick", |world| {
        let status = world.kubectl.json("get pod sick")?["status"].take();
        let lives = status["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        wait::yes(lives >= 1, || status.to_string())
    })?;
    let said = world.kubectl.say("logs sick --previous")?;
    wait::yes(said.trim() == "a life", || format!("its first life said {said:?}"))
}
