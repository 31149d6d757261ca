//! A cluster in which nothing happens: nobody looks at anything.
//!
//! In: one of every workload, at rest. Out: how often controllers were asked in a day. Never: a poll.

use super::World;
use serde_json::{Value, json};

fn workload(name: &str, more: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut object = json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
        "selector": {"matchLabels": {"app": name}}, "template": template}});
    crate::json_merge(&mut object["spec"], &more);
    object
}

#[test]
fn who_has_nothing_to_do_does_nothing() {
    let mut w = World::with_nodes(3);
    w.create("/namespaces", json!({"metadata": {"name": "a"}}));
    w.exit_codes = vec![("job-".into(), 0)];
    w.create("apps/deployments", workload("web", json!({"replicas": 3})));
    w.create("apps/replicasets", workload("set", json!({"replicas": 2, "minReadySeconds": 10})));
    w.create("apps/statefulsets", workload("db", json!({"replicas": 2, "serviceName": "db"})));
    w.create("apps/daemonsets", workload("agent", json!({})));
    w.create("batch/jobs", json!({"metadata": {"name": "job", "namespace": "a"}, "spec": {"completions": 2,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}}));
    w.create("batch/cronjobs", json!({"metadata": {"name": "later", "namespace": "a"}, "spec": {"schedule": "0 0 1 1 *",
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}}}}));
    w.create("/services", json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80}]}}));
    w.create("policy/poddisruptionbudgets", json!({"metadata": {"name": "b", "namespace": "a"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}));
    w.create("/resourcequotas", json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": {"pods": "100"}}}));
    w.create("/persistentvolumeclaims", json!({"metadata": {"name": "v", "namespace": "a"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
    w.pass(3600);
    let before = w.looks;
    w.pass(24 * 3600);
    // Once a day somebody looks for tokens that nobody uses.
    assert!(w.looks - before <= 2, "{} looks in a day", w.looks - before);
    // An autoscaler looks four times a minute, as upstream's: the count is one that counts.
    w.create("autoscaling/horizontalpodautoscalers", json!({"metadata": {"name": "h", "namespace": "a"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5}}));
    let before = w.looks;
    w.pass(600);
    assert!(w.looks - before >= 40, "{} looks in ten minutes", w.looks - before);
}
