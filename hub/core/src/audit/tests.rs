//! Tables of policies and requests. In: rules. Out: levels and stages. Never: files.

use super::*;
use serde_json::json;

fn policy(rules: Value) -> Policy {
    Policy::parse(&json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": rules})).unwrap()
}

fn pods<'a>(verb: &'a str, namespace: &'a str, name: &'a str, subresource: &'a str) -> Attributes<'a> {
    Attributes { user: "ann", verb, resource: "pods", subresource, namespace, name, ..Attributes::default() }
}

fn path(path: &str) -> Attributes<'_> {
    Attributes { user: "ann", verb: "get", path: Some(path), ..Attributes::default() }
}

#[test]
fn rules_are_about_requests() {
    let groups = ["dev".to_owned()];
    let dev = Attributes { groups: &groups, ..pods("get", "a", "x", "") };
    for (rule, asked, expect) in [
        (json!({}), pods("get", "a", "x", ""), true),
        (json!({"users": ["bob"]}), pods("get", "a", "x", ""), false),
        (json!({"users": ["bob", "ann"]}), pods("get", "a", "x", ""), true),
        (json!({"userGroups": ["dev"]}), pods("get", "a", "x", ""), false),
        (json!({"userGroups": ["ops", "dev"]}), dev, true),
        (json!({"verbs": ["list"]}), pods("get", "a", "x", ""), false),
        (json!({"namespaces": ["b"]}), pods("get", "a", "x", ""), false),
        (json!({"namespaces": [""]}), pods("list", "", "", ""), true),
        (json!({"namespaces": ["a"]}), path("/metrics"), false),
        (json!({"resources": [{"group": ""}]}), pods("get", "a", "x", "log"), true),
        (json!({"resources": [{"group": "apps"}]}), pods("get", "a", "x", ""), false),
        (json!({"resources": [{"resources": ["pods"]}]}), pods("get", "a", "x", ""), true),
        (json!({"resources": [{"resources": ["pods"]}]}), pods("get", "a", "x", "log"), false),
        (json!({"resources": [{"resources": ["pods/log"]}]}), pods("get", "a", "x", "log"), true),
        (json!({"resources": [{"resources": ["pods/*"]}]}), pods("get", "a", "x", "log"), true),
        (json!({"resources": [{"resources": ["*/log"]}]}), pods("get", "a", "x", "log"), true),
        (json!({"resources": [{"resources": ["*/log"]}]}), pods("get", "a", "x", ""), false),
        (json!({"resources": [{"resources": ["*"]}]}), pods("get", "a", "x", "exec"), true),
        (json!({"resources": [{"resources": ["pods"], "resourceNames": ["y"]}]}), pods("get", "a", "x", ""), false),
        (json!({"resources": [{"resources": ["pods"], "resourceNames": ["x"]}]}), pods("get", "a", "x", ""), true),
        (json!({"nonResourceURLs": ["/healthz*"]}), path("/healthz/ping"), true),
        (json!({"nonResourceURLs": ["/healthz"]}), path("/healthz/ping"), false),
        (json!({"nonResourceURLs": ["*"]}), path("/metrics"), true),
        (json!({"nonResourceURLs": ["*"]}), pods("get", "a", "x", ""), false),
    ] {
        let mut full = rule.clone();
        full["level"] = json!("Request");
        let verdict = policy(json!([full])).judge(&asked);
        assert_eq!(verdict.level == Level::Request, expect, "{rule} {asked:?}");
    }
}

#[test]
fn the_first_rule_decides_and_stages_add_up() {
    let policy = Policy::parse(&json!({
        "kind": "Policy", "apiVersion": "audit.k8s.io/v1", "omitStages": ["RequestReceived"], "omitManagedFields": true,
        "rules": [
            {"level": "None", "users": ["kube"]},
            {"level": "Metadata", "verbs": ["get"], "omitStages": ["Panic"], "omitManagedFields": false},
            {"level": "RequestResponse"},
        ],
    }))
    .unwrap();
    let get = policy.judge(&pods("get", "a", "x", ""));
    assert_eq!((get.level, get.omit_managed_fields), (Level::Metadata, false));
    let stages = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
    assert_eq!(stages.map(|stage| get.records(stage)), [false, true, true, false]);
    let list = policy.judge(&pods("list", "a", "", ""));
    assert_eq!((list.level, list.omit_managed_fields), (Level::RequestResponse, true));
    let kube = policy.judge(&Attributes { user: "kube", ..pods("list", "a", "", "") });
    assert_eq!(kube.level, Level::None);
}

#[test]
fn wrong_policies_are_told() {
    for (policy, words) in [
        (json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1beta1"}), "apiVersion audit.k8s.io/v1"),
        (json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1"}), "rules: must be 1"),
        (json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{}]}), "level"),
        (
            json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{"level": "All"}]}),
            "unknown variant `All`",
        ),
        (
            json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{"level": "None", "user": []}]}),
            "unknown field `user`",
        ),
        (
            json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1",
                "rules": [{"level": "None", "namespaces": ["a"], "nonResourceURLs": ["/x"]}]}),
            "rules[0].nonResourceURLs",
        ),
        (
            json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1",
                "rules": [{"level": "None", "nonResourceURLs": ["/a*b"]}]}),
            "may only end in *",
        ),
    ] {
        let why = Policy::parse(&policy).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}
