//! What the numbers of a spec set: thresholds and periods of probes, times of grace, waits between restarts; and sidecars' rules.
//!
//! In: a world with one board and Kubernetes' own timings. Out: statuses, Events, what containers wrote down.

use limpet_e2e::pods::{apply, becomes, condition, container, delete, has_event, inside, is, one, ready, sleeper};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const FOREVER: &str = "exec sleep 1000000";
/// Whoever is told to end does not listen.
const DEAF: &str = "trap '' TERM; while true; do sleep 0.1; done";

/// A probe that counts its tries in `/tmp/tries` and passes if `holds` holds of their number `$n`; `first` is what it does
/// while there is no such file.
fn counted(first: &str, holds: &str, more: Value) -> Value {
    let line = format!("n=$(cat /tmp/tries) || {first}; n=$((n + 1)); echo $n > /tmp/tries; {holds}");
    let mut probe = json!({"exec": {"command": ["sh", "-c", line]}, "periodSeconds": 1, "timeoutSeconds": 20});
    limpet_e2e::pods::merge(&mut probe, more);
    probe
}

fn tried(world: &World, name: &str, least: u64) -> Result<()> {
    until(&format!("{least} tries of {name}"), SOON, || {
        let said = inside(world, name, "cat /tmp/tries")?;
        wait::yes(said.trim().parse().is_ok_and(|n: u64| n >= least), || said.clone())
    })
}

/// Two passes are enough where the threshold is two, and not where it is three; two failures are not three. A period of an hour
/// is not one of a second. Who does not answer in time has failed.
pub fn thresholds(world: &World) -> Result<()> {
    let passes = |count: u64, threshold: u64| {
        let more = json!({"successThreshold": threshold, "failureThreshold": 1000});
        json!({"readinessProbe": counted("n=0", &format!("[ $n -le {count} ]"), more)})
    };
    sleeper(world, "enough", passes(2, 2), json!({}))?;
    sleeper(world, "short", passes(2, 3), json!({}))?;
    let fails = |count: u64| {
        json!({"readinessProbe": counted("exit 0", &format!("[ $n -gt {count} ]"), json!({"failureThreshold": 3})),
            "livenessProbe": {"exec": {"command": ["sh", "-c", "echo >> /tmp/hourly"]}, "periodSeconds": 3600}})
    };
    sleeper(world, "two", fails(2), json!({}))?;
    sleeper(world, "three", fails(3), json!({}))?;
    let silent = |handler: Value| {
        let mut probe = json!({"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1});
        limpet_e2e::pods::merge(&mut probe, handler);
        json!({"readinessProbe": probe})
    };
    sleeper(world, "slow", silent(json!({"exec": {"command": ["sleep", "30"]}})), json!({}))?;
    let mut dumb = silent(json!({"httpGet": {"path": "/", "port": 5000}}));
    limpet_e2e::pods::merge(&mut dumb, json!({"command": ["nc", "-ll", "-p", "5000", "-e", "sleep", "1000000"]}));
    sleeper(world, "dumb", dumb, json!({}))?;
    ready(world, "enough")?;
    for (name, kept) in [("two", true), ("three", false)] {
        let before = ready(world, name)?["status"].take();
        inside(world, name, "echo 0 > /tmp/tries")?;
        tried(world, name, 5)?;
        let after = ready(world, name)?["status"].take();
        let went = |s: &Value| condition(s, "Ready")["lastTransitionTime"].clone();
        wait::yes((went(&after) == went(&before)) == kept, || format!("{before}\n{after}"))?;
        has_event(world, name, "Unhealthy", "Readiness probe failed: command exited with 1")?;
        is(&inside(world, name, "wc -l < /tmp/hourly")?, "1")?;
    }
    tried(world, "short", 8)?;
    let status = becomes(world, "short", "not ready", |s| condition(s, "Ready")["status"] == "False")?;
    wait::yes(one(&status, "c")["started"] == true, || status.to_string())?;
    // It stays ready although it has failed often since.
    tried(world, "enough", 8)?;
    ready(world, "enough")?;
    has_event(world, "slow", "Unhealthy", "Readiness probe failed: command timed out: \"sleep 30\" timed out after 1s")?;
    has_event(world, "dumb", "Unhealthy", "context deadline exceeded (Client.Timeout exceeded while awaiting headers)")?;
    delete(world, &["enough", "short", "two", "three", "slow", "dumb"])
}

/// Who does not listen has as long as its pod says, or whoever deletes it. A hook that takes longer than that is over with it.
pub fn graces(world: &World) -> Result<()> {
    let deaf = |seconds: u64| json!({"terminationGracePeriodSeconds": seconds, "containers": [container("c", DEAF, json!({}))]});
    apply(world, "hasty", deaf(1))?;
    apply(world, "patient", deaf(3600))?;
    let hook = |command: &str| json!({"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", command]}}}});
    let with = |command: &str, seconds: u64| {
        json!({"terminationGracePeriodSeconds": seconds, "containers": [container("c", DEAF, hook(command))]})
    };
    apply(world, "hooked", with("exec sleep 1000", 2))?;
    apply(world, "failing", with("echo password; exit 3", 2))?;
    for name in ["hasty", "patient", "hooked", "failing"] {
        ready(world, name)?;
    }
    let kubectl = &world.kubectl;
    kubectl.say("delete pod hasty patient hooked failing --wait=false")?;
    for name in ["hasty", "hooked", "failing"] {
        gone(world, name)?;
    }
    has_event(world, "hasty", "Killing", "Stopping container c")?;
    has_event(world, "failing", "FailedPreStopHook", "PreStopHook failed")?;
    let status = kubectl.json("get pod patient")?["status"].take();
    wait::yes(one(&status, "c")["state"]["running"].is_object(), || status.to_string())?;
    // Less time for one that is ending already.
    kubectl.say("delete pod patient --grace-period=1 --wait=false")?;
    gone(world, "patient")
}

fn gone(world: &World, name: &str) -> Result<()> {
    until(&format!("the end of {name}"), SOON, || {
        let said = world.kubectl.output(&["get", "pod", name])?;
        wait::yes(said.stderr.contains("NotFound"), || said.stdout.clone())
    })
}

fn side(status: &Value, name: &str) -> Value {
    let all = status["initContainerStatuses"].as_array().into_iter().flatten();
    all.into_iter().find(|c| c["name"] == name).cloned().unwrap_or_default()
}

/// A sidecar comes back whatever its pod says, alone, also when its probe says so; it can be resized; the pod's phase and result
/// are those of its other containers.
pub fn sidecars(world: &World) -> Result<()> {
    let sizes = |memory: &str| json!({"requests": {"memory": memory}, "limits": {"memory": memory}});
    let always = |name: &str, line: &str, mut more: Value| {
        limpet_e2e::pods::merge(&mut more, json!({"restartPolicy": "Always"}));
        container(name, line, more)
    };
    let live = json!({"livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/well"]}, "periodSeconds": 1,
        "timeoutSeconds": 20, "failureThreshold": 1}});
    let spec = json!({"restartPolicy": "Never", "initContainers": [
            always("ends", "until test -e /tmp/end; do sleep 0.1; done; exit 0", json!({})),
            always("ill", "touch /tmp/well; exec sleep 1000000", live),
            always("sized", FOREVER, json!({"resources": sizes("24Mi")})),
            container("i", "true", json!({}))],
        "containers": [container("c", "until test -e /tmp/end; do sleep 0.1; done; exit 3", json!({}))]});
    apply(world, "sides", spec)?;
    ready(world, "sides")?;
    let at = |name: &str, line: &str| world.kubectl.run(&["exec", "sides", "-c", name, "--", "sh", "-c", line]);
    at("ends", "touch /tmp/end")?;
    at("ill", "rm /tmp/well")?;
    let patch = json!({"spec": {"initContainers": [{"name": "sized", "resources": sizes("32Mi")}]}}).to_string();
    world.kubectl.run(&["patch", "pod", "sides", "--subresource=resize", "-p", &patch])?;
    let again = |s: &Value, name: &str| {
        side(s, name)["restartCount"] == 1 && side(s, name)["state"]["running"].is_object() && side(s, name)["ready"] == true
    };
    let status = becomes(world, "sides", "with new sidecars", |s| {
        again(s, "ends") && again(s, "ill") && side(s, "sized")["resources"]["limits"]["memory"] == "32Mi"
    })?;
    let before = |name: &str| side(&status, name)["lastState"]["terminated"].clone();
    wait::yes(before("ends")["reason"] == "Completed" && before("ends")["exitCode"] == 0, || status.to_string())?;
    wait::yes(before("ill")["reason"] == "Error" && before("ill")["exitCode"] == 137, || status.to_string())?;
    has_event(world, "sides", "Killing", "Init container ill failed liveness probe")?;
    let untouched = side(&status, "i")["restartCount"] == 0 && side(&status, "sized")["restartCount"] == 0;
    wait::yes(untouched && one(&status, "c")["restartCount"] == 0 && status["phase"] == "Running", || status.to_string())?;
    let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    is(&at("sized", limit)?, &(32u64 << 20).to_string())?;
    at("c", "touch /tmp/end")?;
    let status = becomes(world, "sides", "over", |s| s["phase"] == "Failed")?;
    wait::yes(one(&status, "c")["state"]["terminated"]["exitCode"] == 3, || status.to_string())?;
    wait::yes(condition(&status, "Ready")["reason"] == "PodFailed", || status.to_string())?;
    let ended = ["ends", "ill", "sized"].iter().all(|name| side(&status, name)["state"]["terminated"].is_object());
    wait::yes(ended, || status.to_string())?;
    delete(world, &["sides"])
}

/// The first restart is at once, the next ones after ten and twenty seconds, and the status says so in kubelet's words.
pub fn waits(world: &World) -> Result<()> {
    let words = |delay: &str, pod: &Value| {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        format!("back-off {delay} restarting failed container=c pod=crash_default({uid})")
    };
    apply(world, "crash", json!({"containers": [container("c", "exit 7", json!({}))]}))?;
    let pod = world.kubectl.json("get pod crash")?;
    for (delay, count) in [("10s", 1), ("20s", 2)] {
        let status = becomes(world, "crash", delay, |s| {
            let waiting = &one(s, "c")["state"]["waiting"];
            waiting["reason"] == "CrashLoopBackOff" && waiting["message"] == words(delay, &pod)
        })?;
        let c = one(&status, "c");
        let last = &c["lastState"]["terminated"];
        wait::yes(c["restartCount"] == count && last["exitCode"] == 7 && last["reason"] == "Error", || status.to_string())?;
        wait::yes(status["phase"] == "Running" && condition(&status, "Ready")["status"] == "False", || status.to_string())?;
    }
    delete(world, &["crash"])
}
