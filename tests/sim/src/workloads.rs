//! What people do with workloads: make, scale, change, remove them; cordon and taint boards; delete pods.
//!
//! In: chance. Out: objects, as after the API's defaults. `mend` takes back what keeps things from coming to rest.
//! Never: more pods than the boards have room for.

use crate::{Rng, hub::Hub, operator};
use limpet_hub_core::{Key, Propagation};
use serde_json::{Value, json};

const KINDS: [&str; 5] = ["apps/deployments", "apps/statefulsets", "apps/daemonsets", "batch/jobs", "batch/cronjobs"];
const NAMESPACE: &str = "default";
/// Workloads of one kind.
const EACH: u64 = 2;

/// `every`: where people seldom do something, schedules are seldom, too.
pub fn act(hub: &mut Hub, rng: &mut Rng, boards: u64, every: u64) {
    match rng.between(0, 14) {
        0..3 => create(hub, rng, (boards, every)),
        3..6 => change(hub, rng, boards),
        6 => remove(hub, rng),
        7 | 8 => operator::delete(hub, rng, rng.clone().one_in(4)),
        9 | 10 => board(hub, rng, boards),
        11 => service(hub, rng),
        12 => scale(hub, rng, boards),
        _ => {}
    }
}

/// Everything that is in the way of rest is taken back.
pub fn mend(hub: &mut Hub) {
    for key in keys(hub, "/nodes") {
        hub.api.edit(&key, &json!({"spec": {"unschedulable": null, "taints": null}}));
    }
    for key in keys(hub, "batch/cronjobs") {
        hub.api.edit(&key, &json!({"spec": {"suspend": true}}));
    }
    for key in keys(hub, "apps/deployments") {
        hub.api.edit(&key, &json!({"spec": {"paused": null}}));
    }
}

fn keys(hub: &Hub, resource: &str) -> Vec<Key> {
    hub.list(resource).map(|(k, _)| k.clone()).collect()
}

fn some(hub: &Hub, rng: &mut Rng, resource: &str) -> Option<Key> {
    let there = |v: &Value| v["metadata"]["deletionTimestamp"].is_null();
    let keys: Vec<&Key> = hub.list(resource).filter(|(_, v)| there(v)).map(|(k, _)| k).collect();
    if keys.is_empty() { None } else { Some(keys[rng.between(0, keys.len() as u64) as usize].clone()) }
}

pub fn app_of(resource: &str, name: &str) -> String {
    format!("{}-{name}", &resource[resource.len() - 6..])
}

/// A template; some let their pods be replaced when their board is away.
fn template(app: &str, rng: &mut Rng) -> Value {
    let mut metadata = json!({"labels": {"app": app}});
    if rng.one_in(3) {
        let after = format!("{}s", rng.between(30, 200));
        let stays = ["keep-original", "keep-replacement", "longest-running"][rng.between(0, 3) as usize];
        metadata["annotations"] =
            json!({"limpet.dev/lost-after": after, "limpet.dev/replace": "true", "limpet.dev/reconcile": stays});
    }
    let map = format!("m{}", rng.between(0, 4));
    json!({"metadata": metadata, "spec": {
        "restartPolicy": "Always", "serviceAccountName": "default", "terminationGracePeriodSeconds": rng.between(1, 20),
        "containers": [{"name": "c", "image": format!("hub.limpet/app:{}", rng.between(1, 4)),
            "imagePullPolicy": "IfNotPresent", "resources": {"requests": {"cpu": "50m", "memory": "8Mi"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": map, "optional": true}}]}})
}

fn job(rng: &mut Rng) -> Value {
    let completions = rng.between(1, 4);
    json!({"completions": completions, "parallelism": rng.between(1, 3), "backoffLimit": 6,
        "completionMode": (["Indexed", "NonIndexed"][rng.between(0, 2) as usize]),
        "podReplacementPolicy": (["Failed", "TerminatingOrFailed"][rng.between(0, 2) as usize]),
        "template": {"metadata": {"labels": {"app": "job"}}, "spec": {
            "restartPolicy": (["Never", "OnFailure"][rng.between(0, 2) as usize]), "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "job", "image": "hub.limpet/job:1", "imagePullPolicy": "IfNotPresent"}]}}})
}

fn strategy(rng: &mut Rng) -> Value {
    if rng.one_in(4) {
        return json!({"type": "Recreate", "rollingUpdate": null});
    }
    let (surge, away) = (rng.between(0, 3), rng.between(0, 3));
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": away.max(u64::from(surge == 0))}})
}

fn create(hub: &mut Hub, rng: &mut Rng, (boards, every): (u64, u64)) {
    let resource = KINDS[rng.between(0, KINDS.len() as u64) as usize];
    let name = format!("w{}", rng.between(0, EACH));
    let app = app_of(resource, &name);
    let selector = json!({"matchLabels": {"app": app}});
    let replicas = rng.between(0, boards + 3);
    let schedule = if every < 10 { "*/2 * * * *" } else { "30 * * * *" };
    let spec = match resource {
        "batch/jobs" => job(rng),
        "batch/cronjobs" => json!({"schedule": schedule, "jobTemplate": {"spec": job(rng)}, "suspend": false,
            "concurrencyPolicy": (["Allow", "Forbid", "Replace"][rng.between(0, 3) as usize]),
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1}),
        "apps/daemonsets" => json!({"selector": selector, "template": template(&app, rng), "revisionHistoryLimit": 2,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
        "apps/statefulsets" => json!({"replicas": replicas, "selector": selector, "template": template(&app, rng),
            "serviceName": "s", "revisionHistoryLimit": 2, "updateStrategy": {"type": "RollingUpdate"},
            "podManagementPolicy": (["OrderedReady", "Parallel"][rng.between(0, 2) as usize])}),
        _ => json!({"replicas": replicas, "selector": selector, "template": template(&app, rng),
            "strategy": strategy(rng), "revisionHistoryLimit": 2}),
    };
    // One of this name may be there.
    let _ = hub.api.try_create(resource, json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}));
}

fn change(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    let resource = KINDS[rng.between(0, 3) as usize];
    let Some(key) = some(hub, rng, resource) else { return };
    let app = app_of(resource, &key.name);
    let spec = match rng.between(0, 6) {
        0 if resource == "apps/deployments" => json!({"paused": rng.one_in(2)}),
        1 if resource == "apps/deployments" => json!({"strategy": strategy(rng)}),
        2 if resource != "apps/daemonsets" => json!({"replicas": rng.between(0, boards + 3)}),
        _ => json!({"template": template(&app, rng)}),
    };
    hub.api.edit(&key, &json!({"spec": spec}));
}

fn scale(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    let resource = KINDS[rng.between(0, 2) as usize];
    if let Some(key) = some(hub, rng, resource) {
        hub.api.edit(&key, &json!({"spec": {"replicas": rng.between(0, boards + 3)}}));
    }
}

fn remove(hub: &mut Hub, rng: &mut Rng) {
    let resource = KINDS[rng.between(0, KINDS.len() as u64) as usize];
    let way = if rng.one_in(2) { Propagation::Background } else { Propagation::Foreground };
    if let Some(key) = some(hub, rng, resource) {
        hub.api.delete_with(&key, None, Some(way));
    }
}

fn board(hub: &mut Hub, rng: &mut Rng, boards: u64) {
    let key = Key::new("/nodes", "", &format!("board-{}", rng.between(0, boards)));
    let effect = ["NoSchedule", "NoExecute"][rng.between(0, 2) as usize];
    // What the hub's own watch over nodes has written stays.
    let old = hub.api.objects[&key]["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let mut taints: Vec<Value> = old.into_iter().filter(|t| t["key"] != "chore").collect();
    if rng.one_in(2) {
        taints.push(json!({"key": "chore", "effect": effect}));
    }
    let shut = if rng.one_in(3) { json!(true) } else { Value::Null };
    let taints = if taints.is_empty() { Value::Null } else { json!(taints) };
    hub.api.edit(&key, &json!({"spec": {"unschedulable": shut, "taints": taints}}));
}

fn service(hub: &mut Hub, rng: &mut Rng) {
    let name = format!("s{}", rng.between(0, 2));
    if hub.api.exists("/services", NAMESPACE, &name) {
        return hub.api.delete("/services", NAMESPACE, &name);
    }
    let app = app_of(KINDS[rng.between(0, 2) as usize], "w0");
    let _ = hub.api.try_create(
        "/services",
        json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"selector": {"app": app},
            "clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10"], "ipFamilies": ["IPv4"], "type": "ClusterIP",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}}),
    );
}
