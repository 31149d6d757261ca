//! The FlowSchemas and priority levels that every cluster has.
//!
//! In: nothing. Out: objects with Kubernetes' own names and figures.
//! Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults. Never: more than upstream's.

use serde_json::{Value, json};

const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";

/// As (resource, object); the shell creates those that are missing.
pub fn defaults() -> Vec<(&'static str, Value)> {
    let mut all: Vec<(&'static str, Value)> = Vec::new();
    let (schemas, levels) = mandatory();
    all.extend(levels.into_iter().chain(suggested_levels()).map(|level| (LEVELS, level)));
    all.extend(schemas.into_iter().chain(suggested_schemas()).map(|schema| (SCHEMAS, schema)));
    all
}

/// Those without which there is no answer.
pub(super) fn mandatory() -> (Vec<Value>, Vec<Value>) {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let reject = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
        "limitResponse": {"type": "Reject"}}});
    let all = [rules(), paths(&["*"], &["*"])];
    let schemas = vec![
        schema("exempt", "exempt", 1, "", groups(&["system:masters"]), &all),
        schema("catch-all", "catch-all", 10_000, "ByUser", everybody(), &all),
    ];
    (schemas, vec![object(KIND, "exempt", exempt), object(KIND, "catch-all", reject)])
}

const KIND: &str = "PriorityLevelConfiguration";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}})
}

fn suggested_levels() -> Vec<Value> {
    let level = |name: &str, shares: i64, lendable: i64, queues: i64, hand: i64| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing}});
        object(KIND, name, json!({"type": "Limited", "limited": limited}))
    };
    vec![
        level("system", 30, 33, 64, 6),
        level("node-high", 40, 25, 64, 6),
        level("leader-election", 10, 0, 16, 4),
        level("workload-high", 40, 50, 128, 6),
        level("workload-low", 100, 90, 128, 6),
        level("global-default", 20, 50, 128, 6),
    ]
}

fn suggested_schemas() -> Vec<Value> {
    let every = [rules(), paths(&["*"], &["*"])];
    let probes = [paths(&["get"], &["/healthz", "/readyz", "/livez"])];
    let update = ["get", "create", "update"];
    let leases = rule(&update, "coordination.k8s.io", &["leases"], false);
    let configmaps = rule(&update, "", &["endpoints", "configmaps"], false);
    let node = [
        rule(&["*"], "", &["nodes", "nodes/status"], true),
        rule(&["*"], "coordination.k8s.io", &["leases"], false),
    ];
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let leaders = [users(&[manager, scheduler]), accounts("*")].concat();
    let endpoints = [users(&[manager]), accounts("endpoint-controller"), accounts("endpointslicemirroring-controller")];
    let own_endpoints = [rule(&update, "", &["endpoints"], false)];
    vec![
        schema("probes", "exempt", 2, "", everybody(), &probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", leaders, std::slice::from_ref(&leases)),
        schema("endpoint-controller", "workload-high", 150, "ByUser", endpoints.concat(), &own_endpoints),
        schema("workload-leader-election", "leader-election", 200, "ByUser", accounts("*"), &[configmaps, leases]),
        schema("system-node-high", "node-high", 400, "ByUser", groups(&["system:nodes"]), &node),
        schema("system-nodes", "system", 500, "ByUser", groups(&["system:nodes"]), &every),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", users(&[manager]), &every),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", users(&[scheduler]), &every),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", accounts("*"), &every),
        schema("service-accounts", "workload-low", 9000, "ByUser", groups(&["system:serviceaccounts"]), &every),
        schema("global-default", "global-default", 9900, "ByUser", everybody(), &every),
    ]
}

fn schema(name: &str, level: &str, precedence: i64, by: &str, subjects: Vec<Value>, rules: &[Value]) -> Value {
    let of = |kind: &str| -> Vec<Value> { rules.iter().filter_map(|rule| rule.get(kind).cloned()).collect() };
    let mut rule = json!({"subjects": subjects});
    for (field, list) in [("resourceRules", of("resource")), ("nonResourceRules", of("path"))] {
        if !list.is_empty() {
            rule[field] = Value::Array(list);
        }
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rule]});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

fn rules() -> Value {
    json!({"resource": {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}})
}

fn rule(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    json!({"resource": rule})
}

fn paths(verbs: &[&str], paths: &[&str]) -> Value {
    json!({"path": {"verbs": verbs, "nonResourceURLs": paths}})
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn everybody() -> Vec<Value> {
    groups(&["system:unauthenticated", "system:authenticated"])
}

fn accounts(name: &str) -> Vec<Value> {
    vec![json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})]
}
