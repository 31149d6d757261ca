//! Autoscalers in the test world, with figures that the test sets.
//!
//! In: usage by pod. Out: replicas, conditions. Never: a clock.

use super::*;
use crate::world::World;
use std::{collections::BTreeMap, sync::Mutex};

/// Figures that a test sets: CPU of every pod by a part of its name, and named figures.
#[derive(Default)]
pub struct Bench {
    now: Mutex<Option<Timestamp>>,
    cpu: Mutex<BTreeMap<String, i64>>,
    named: Mutex<BTreeMap<String, i64>>,
}

impl Metrics for Bench {
    fn pod(&self, _namespace: &str, pod: &str) -> Option<Usage> {
        let cpu = self.cpu.lock().unwrap();
        let own = cpu.iter().find(|(part, _)| pod.contains(&***part))?.1;
        let containers = vec![Container { name: "c".into(), cpu_milli: *own, memory: own * 1000 }];
        Some(Usage { at: self.now.lock().unwrap().unwrap_or(Timestamp::MAX), window_s: 30, containers })
    }

    fn of_pod(&self, _: &str, _: &str, metric: &str, _: &Value) -> Option<Figure> {
        self.named.lock().unwrap().get(metric).copied()
    }

    fn of_object(&self, _: &str, _: &Value, metric: &str, _: &Value) -> Option<Figure> {
        self.named.lock().unwrap().get(metric).copied()
    }

    fn external(&self, _: &str, metric: &str, _: &Value) -> Option<Vec<Figure>> {
        self.named.lock().unwrap().get(metric).map(|v| vec![*v])
    }
}

fn resource(name: &str, target: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": target}})
}

struct Stage {
    w: World,
    bench: Arc<Bench>,
}

impl Stage {
    fn new(replicas: i32, spec: Value) -> Stage {
        let bench = Arc::new(Bench::default());
        let mut w = World::with_metrics(bench.clone());
        (0..4).for_each(|i| w.node(&format!("n{i}"), json!({}), json!([])));
        w.create("apps/deployments", json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
                    {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}]}}}}));
        w.settle();
        w.pass(400);
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        if spec["metrics"].is_null() {
            spec["metrics"] = json!([resource("cpu", json!({"type": "Utilization", "averageUtilization": 50}))]);
        }
        w.create("autoscaling/horizontalpodautoscalers", json!({"metadata": {"name": "h", "namespace": "a"}, "spec": spec}));
        Stage { w, bench }
    }

    fn cpu(&mut self, part: &str, milli: i64) {
        self.bench.cpu.lock().unwrap().insert(part.into(), milli);
    }

    fn after(&mut self, seconds: i64) -> i64 {
        self.w.pass(seconds);
        self.w.get("apps/deployments", "a", "web")["spec"]["replicas"].as_i64().unwrap()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let all = &self.w.get("autoscaling/horizontalpodautoscalers", "a", "h")["status"]["conditions"];
        let c = all.as_array().unwrap().iter().find(|c| c["type"] == type_).cloned().unwrap_or_default();
        (c["status"].as_str().unwrap_or("").into(), c["reason"].as_str().unwrap_or("").into())
    }
}

fn says(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn follows_utilization_up_to_its_limit_and_says_so() {
    let mut s = Stage::new(3, json!({"minReplicas": 1, "maxReplicas": 5}));
    s.cpu("web", 50);
    assert_eq!(s.after(16), 3);
    assert_eq!(s.condition("ScalingActive"), says("True", "ValidMetricFound"));
    s.cpu("web", 54);
    assert_eq!(s.after(16), 3, "within the tolerance");
    s.cpu("web", 75);
    assert_eq!(s.after(16), 5);
    assert_eq!(s.condition("AbleToScale"), says("True", "SucceededRescale"));
    let status = s.w.get("autoscaling/horizontalpodautoscalers", "a", "h")["status"].clone();
    assert_eq!(status["desiredReplicas"], 5);
    assert_eq!(status["currentMetrics"][0]["resource"]["current"], json!({"averageUtilization": 75, "averageValue": "75m"}));
    assert!(s.w.events.iter().any(|e| e.2 == "SuccessfulRescale"
        && e.3 == "New size: 5; reason: cpu resource utilization (percentage of request) above target"));
    s.w.pass(400);
    assert_eq!(s.condition("ScalingLimited"), says("True", "TooManyReplicas"));
}

#[test]
fn waits_before_it_scales_down() {
    let mut s = Stage::new(4, json!({"minReplicas": 1, "maxReplicas": 9}));
    s.cpu("web", 50);
    assert_eq!(s.after(16), 4);
    s.cpu("web", 10);
    assert_eq!(s.after(120), 4);
    assert_eq!(s.condition("AbleToScale"), says("True", "ScaleDownStabilized"));
    assert_eq!(s.after(300), 1);
    // An autoscaler that is new, or whose hub is, knows of nothing before.
    let mut s = Stage::new(4, json!({"minReplicas": 1, "maxReplicas": 9}));
    s.cpu("web", 10);
    assert_eq!(s.after(120), 4);
    assert_eq!(s.condition("AbleToScale"), says("True", "ScaleDownStabilized"));
    assert_eq!(s.after(300), 1);
}

#[test]
fn behavior_bounds_the_speed() {
    let up = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}});
    let mut s = Stage::new(2, json!({"maxReplicas": 9, "behavior": up}));
    s.cpu("web", 100);
    assert_eq!(s.after(16), 3);
    assert_eq!(s.after(16), 3);
    assert_eq!(s.condition("ScalingLimited"), says("True", "ScaleUpLimit"));
    assert_eq!(s.after(60), 4);
    let off = json!({"scaleDown": {"selectPolicy": "Disabled"}});
    let mut s = Stage::new(4, json!({"maxReplicas": 9, "behavior": off}));
    s.cpu("web", 1);
    assert_eq!(s.after(900), 4);
    let quick = json!({"scaleDown": {"stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}});
    let mut s = Stage::new(4, json!({"maxReplicas": 9, "behavior": quick}));
    s.cpu("web", 1);
    assert_eq!(s.after(16), 2);
    assert_eq!(s.after(16), 2);
    assert_eq!(s.after(60), 1);
}

#[test]
fn each_kind_of_metric_asks_for_its_number() {
    let named = |key: &str, target: Value| {
        let type_ = format!("{}{}", key[..1].to_uppercase(), &key[1..]);
        json!({"type": type_, key: {"metric": {"name": "m"}, "target": target,
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"}}})
    };
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let cases = [
        (resource("cpu", json!({"type": "AverageValue", "averageValue": "25m"})), 4),
        (resource("memory", json!({"type": "AverageValue", "averageValue": "10k"})), 10),
        (container, 2),
        (named("pods", json!({"type": "AverageValue", "averageValue": "2"})), 5),
        (named("object", json!({"type": "Value", "value": "2"})), 5),
        (named("object", json!({"type": "AverageValue", "averageValue": "1"})), 5),
        (named("external", json!({"type": "Value", "value": "1250m"})), 8),
        (named("external", json!({"type": "AverageValue", "averageValue": "2"})), 3),
    ];
    for (metric, want) in cases {
        let behavior = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 99, "periodSeconds": 15}]}});
        let mut s = Stage::new(2, json!({"maxReplicas": 50, "metrics": [metric], "behavior": behavior}));
        s.cpu("web", 50);
        s.bench.named.lock().unwrap().insert("m".into(), 5000);
        assert_eq!(s.after(1), want, "{metric}");
    }
}

#[test]
fn the_largest_counts_and_what_cannot_be_read_forbids_scaling_down() {
    let metrics = json!([resource("cpu", json!({"type": "Utilization", "averageUtilization": 50})),
        {"type": "External", "external": {"metric": {"name": "none"}, "target": {"type": "Value", "value": "1"}}}]);
    let mut s = Stage::new(2, json!({"maxReplicas": 9, "metrics": metrics}));
    s.cpu("web", 10);
    assert_eq!(s.after(600), 2);
    assert_eq!(s.condition("ScalingActive"), says("False", "FailedGetExternalMetric"));
    s.cpu("web", 100);
    assert_eq!(s.after(16), 4);
}

#[test]
fn bounds_hold_without_any_figure_and_zero_means_off() {
    let mut s = Stage::new(7, json!({"minReplicas": 2, "maxReplicas": 5}));
    assert_eq!(s.after(1), 5);
    let mut s = Stage::new(1, json!({"minReplicas": 3, "maxReplicas": 5}));
    assert_eq!(s.after(1), 3);
    assert_eq!(s.condition("AbleToScale"), says("True", "SucceededRescale"));
    let mut s = Stage::new(0, json!({"minReplicas": 3, "maxReplicas": 5}));
    assert_eq!(s.after(100), 0);
    assert_eq!(s.condition("ScalingActive"), says("False", "ScalingDisabled"));
    let mut s = Stage::new(2, json!({"maxReplicas": 5}));
    assert_eq!(s.after(100), 2);
    assert_eq!(s.condition("ScalingActive"), says("False", "FailedGetResourceMetric"));
}

#[test]
fn pods_without_figures_are_guessed_against_the_change() {
    let mut s = Stage::new(4, json!({"maxReplicas": 9}));
    let names: Vec<String> =
        s.w.list("/pods").iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    // Two pods far above, two unknown: counted as 0, which leaves the average at the target.
    s.cpu(&names[0], 100);
    s.cpu(&names[1], 100);
    assert_eq!(s.after(16), 4);
    // Two far below, two unknown: counted as full.
    s.cpu(&names[0], 1);
    s.cpu(&names[1], 1);
    assert_eq!(s.after(600), 4);
}

#[test]
fn a_target_that_is_not_there_is_said() {
    let mut s = Stage::new(1, json!({"maxReplicas": 5}));
    s.cpu("web", 50);
    s.w.delete("apps/deployments", "a", "web");
    s.w.pass(16);
    assert_eq!(s.condition("AbleToScale"), says("False", "FailedGetScale"));
}
