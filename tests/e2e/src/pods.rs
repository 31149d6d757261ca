//! Pods of tests: from a few fields to a manifest, and what becomes of them.
//!
//! In: a world, names, fields. Out: pods at the hub; their statuses, Events and what is seen inside them.
//! Never: a pod that takes long to end, unless a test asks for it.

use crate::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

pub const IMAGE: &str = "hub.limpet/busybox:1";
const FOREVER: &str = "exec sleep 1000000";
const SOON: Duration = Duration::from_secs(90);

/// Puts all fields of `more` into `target`.
pub fn merge(target: &mut Value, more: Value) {
    if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
        target.extend(more);
    }
}

/// A container that runs a line of shell.
pub fn container(name: &str, line: &str, more: Value) -> Value {
    let mut container = json!({"name": name, "image": IMAGE, "command": ["sh", "-c", line]});
    merge(&mut container, more);
    container
}

pub fn manifest(name: &str, spec: Value) -> Value {
    let mut whole = json!({"terminationGracePeriodSeconds": 1});
    merge(&mut whole, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole})
}

/// A pod with one container `c` that sleeps; `fields` are the container's, `spec` is the pod's.
pub fn sleeper(world: &World, name: &str, fields: Value, spec: Value) -> Result<()> {
    let mut whole = json!({"containers": [container("c", FOREVER, fields)]});
    merge(&mut whole, spec);
    apply(world, name, whole)
}

pub fn apply(world: &World, name: &str, spec: Value) -> Result<()> {
    world.kubectl.apply(&manifest(name, spec).to_string()).map(|_| ())
}

/// The API does not take it, and says these words.
pub fn refused(world: &World, manifest: &Value, words: &str) -> Result<()> {
    let output = world.kubectl.with_input(&["apply", "-f", "-"], &manifest.to_string())?;
    wait::yes(output.code != 0 && output.stderr.contains(words), || format!("{words:?} is not in {output:?}"))
}

/// Waits until the pod's status is what `want` wants.
pub fn becomes(world: &World, name: &str, what: &str, want: impl Fn(&Value) -> bool) -> Result<Value> {
    until(&format!("{name}: {what}"), SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        match want(&status) {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
}

/// The whole pod, once it is Ready.
pub fn ready(world: &World, name: &str) -> Result<Value> {
    becomes(world, name, "ready", |status| condition(status, "Ready")["status"] == "True")?;
    world.kubectl.json(&format!("get pod {name}"))
}

/// It failed before it began, in kubelet's words.
pub fn rejected(world: &World, name: &str, reason: &str, words: &str) -> Result<()> {
    let said = |status: &Value| status["message"].as_str().is_some_and(|m| m.contains(words));
    becomes(world, name, reason, |s| s["phase"] == "Failed" && s["reason"] == reason && said(s)).map(|_| ())
}

/// Its first container waits for this reason, with these words.
pub fn waits(world: &World, name: &str, reason: &str, words: &str) -> Result<()> {
    let waiting = |status: &Value| status["containerStatuses"][0]["state"]["waiting"].clone();
    let said = |w: &Value| w["message"].as_str().is_some_and(|m| m.contains(words));
    becomes(world, name, reason, |s| waiting(s)["reason"] == reason && said(&waiting(s))).map(|_| ())
}

pub fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

/// The status of one of its containers.
pub fn one(status: &Value, name: &str) -> Value {
    let all = status["containerStatuses"].as_array().into_iter().flatten();
    all.into_iter().find(|c| c["name"] == name).cloned().unwrap_or_default()
}

pub fn has_event(world: &World, name: &str, reason: &str, words: &str) -> Result<()> {
    until(&format!("{name}: Event {reason}"), SOON, || {
        let all = world.kubectl.items(&format!("get events --field-selector involvedObject.name={name}"))?;
        let found = all.iter().any(|e| e["reason"] == reason && e["message"].as_str().unwrap_or_default().contains(words));
        wait::yes(found, || format!("{words:?} is not in {all:?}"))
    })
}

/// What a line of shell in the pod's container says.
pub fn inside(world: &World, name: &str, line: &str) -> Result<String> {
    world.kubectl.run(&["exec", name, "--", "sh", "-c", line])
}

pub fn has(text: &str, words: &[&str]) -> Result<()> {
    wait::yes(words.iter().all(|word| text.contains(word)), || format!("{words:?} are not all in:\n{text}"))
}

pub fn hasnt(text: &str, words: &[&str]) -> Result<()> {
    wait::yes(!words.iter().any(|word| text.contains(word)), || format!("one of {words:?} is in:\n{text}"))
}

pub fn is(got: &str, want: &str) -> Result<()> {
    wait::yes(got.trim() == want, || format!("{got:?} instead of {want:?}"))
}

pub fn delete(world: &World, names: &[&str]) -> Result<()> {
    world.kubectl.run(&[&["delete", "pod"], names, &["--timeout=60s"]].concat()).map(|_| ())
}

/// So many pods of the demo's server in a Deployment `pods`, with probes of both kinds every ten seconds, as the promises about
/// figures have them; waits until all are ready.
pub fn probed(world: &World, replicas: usize, limit: Duration) -> Result<()> {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "pods"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "pods"}}, "template": {
            "metadata": {"labels": {"app": "pods"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
                {"name": "web", "image": "hub.limpet/demo-web:1", "readinessProbe": probe, "livenessProbe": probe}]}}}});
    world.kubectl.apply(&deployment.to_string())?;
    until(&format!("{replicas} pods"), limit, || {
        let ready = world.kubectl.say("get deployment pods -o jsonpath={.status.readyReplicas}")?;
        wait::yes(ready.trim() == replicas.to_string(), || format!("{ready} are ready"))
    })
}
