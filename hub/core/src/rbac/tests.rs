//! Tables of requests against a small cluster.

use super::*;
use serde_json::{Value, json};

fn view(objects: &[(&str, Value)]) -> ObjectStore {
    let mut view = ObjectStore::new();
    let all = defaults();
    for (resource, object) in all.iter().chain(objects) {
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let raw = serde_json::to_vec(object).unwrap().into();
        view.apply(1, resource, &at("/metadata/namespace"), &at("/metadata/name"), Some(raw));
    }
    view
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect()
}

/// `verb group/resource/sub ns/name` or `verb path`.
fn ask(view: &ObjectStore, user: &str, groups: &[String], request: &str) -> bool {
    let words: Vec<&str> = request.split(' ').collect();
    let base = Attributes { user, groups, verb: words[0], ..Attributes::default() };
    let asked = match words.len() {
        2 => Attributes { path: Some(words[1]), ..base },
        _ => {
            let what: Vec<&str> = words[1].split('/').collect();
            let (namespace, name) = words[2].split_once('/').unwrap();
            let subresource = what.get(2).copied().unwrap_or_default();
            Attributes { api_group: what[0], resource: what[1], subresource, namespace, name, ..base }
        }
    };
    authorize(view, &asked).is_allowed()
}

#[test]
fn bindings_decide() {
    let api = "rbac.authorization.k8s.io/v1";
    let bind = |name: &str, kind: &str, role: &str, subject: Value| {
        json!({"apiVersion": api, "kind": "RoleBinding", "metadata": {"name": name, "namespace": "a"},
            "roleRef": {"kind": kind, "name": role}, "subjects": [subject]})
    };
    let view = view(&[
        (RoleBinding::RESOURCE_ID, bind("e", "ClusterRole", "edit", json!({"kind": "User", "name": "ann"}))),
        (
            RoleBinding::RESOURCE_ID,
            bind("v", "ClusterRole", "view", json!({"kind": "ServiceAccount", "name": "sa"})),
        ),
        (RoleBinding::RESOURCE_ID, bind("o", "Role", "one", json!({"kind": "Group", "name": "ops"}))),
        (
            "rbac.authorization.k8s.io/roles",
            json!({"metadata": {"name": "one", "namespace": "a"}, "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["update"]}]}),
        ),
    ]);
    let (none, ops) = (groups(&["system:authenticated"]), groups(&["ops"]));
    for (user, groups, request, expect) in [
        ("ann", &none, "create apps/deployments a/", true),
        ("ann", &none, "create apps/deployments b/", false),
        ("ann", &none, "create /pods/exec a/p", true),
        ("ann", &none, "get /secrets a/s", true),
        ("ann", &none, "create rbac.authorization.k8s.io/roles a/", false),
        ("ann", &none, "get /nodes /n", false),
        ("ann", &none, "create authorization.k8s.io/selfsubjectaccessreviews /", true),
        ("ann", &none, "get /api/v1", true),
        ("ann", &none, "get /metrics", false),
        ("system:serviceaccount:a:sa", &none, "list /pods a/", true),
        ("system:serviceaccount:a:sa", &none, "get /secrets a/s", false),
        ("system:serviceaccount:b:sa", &none, "list /pods a/", false),
        ("bob", &ops, "get /configmaps a/c", true),
        ("bob", &ops, "get /configmaps a/d", false),
        ("bob", &ops, "list /configmaps a/", false),
        ("bob", &ops, "update apps/deployments/scale a/d", true),
        ("bob", &ops, "update apps/deployments a/d", false),
        ("bob", &ops, "get /readyz", false),
        ("root", &groups(&["system:masters"]), "delete /nodes /n", true),
        ("x", &groups(&["system:unauthenticated"]), "get /readyz", true),
        ("x", &groups(&["system:unauthenticated"]), "get /api", false),
        ("system:anonymous", &groups(&["system:unauthenticated"]), "get /configmaps kube-public/cluster-info", true),
        ("system:anonymous", &groups(&["system:unauthenticated"]), "list /configmaps kube-public/", false),
        ("system:anonymous", &groups(&["system:unauthenticated"]), "get /configmaps kube-public/other", false),
        ("system:anonymous", &groups(&["system:unauthenticated"]), "get /configmaps kube-system/cluster-info", false),
        ("system:serviceaccount:kube-system:bootstrap-signer", &none, "update /configmaps kube-public/cluster-info", true),
        ("system:serviceaccount:kube-system:bootstrap-signer", &none, "list /secrets kube-system/", true),
        ("system:serviceaccount:kube-system:bootstrap-signer", &none, "list /secrets default/", false),
    ] {
        assert_eq!(ask(&view, user, groups, request), expect, "{user} {request}");
    }
}

trait ResourceId {
    const RESOURCE_ID: &'static str;
}
impl<T: crate::view::Kind> ResourceId for T {
    const RESOURCE_ID: &'static str = T::RESOURCE;
}

#[test]
fn a_node_reaches_only_its_own() {
    let pod = |name: &str, node: &str, secret: &str| {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {"nodeName": node,
            "containers": [{"name": "c"}], "volumes": [{"name": "v", "secret": {"secretName": secret}}]}})
    };
    let view = view(&[("/pods", pod("p1", "n1", "s1")), ("/pods", pod("p2", "n2", "s2"))]);
    let nodes = groups(&["system:nodes", "system:authenticated"]);
    for (request, expect) in [
        ("get /nodes /n1", true),
        ("get /nodes /n2", false),
        ("patch /nodes/status /n1", true),
        ("list /nodes /", false),
        ("get /pods a/p1", true),
        ("get /pods a/p2", false),
        ("list /pods a/", false),
        ("delete /pods a/p1", false),
        ("get /secrets a/s1", true),
        ("get /secrets a/s2", false),
        ("list /secrets a/", false),
        ("get /secrets b/s1", false),
        ("update coordination.k8s.io/leases kube-node-lease/n1", true),
        ("update coordination.k8s.io/leases kube-node-lease/n2", false),
        ("get /v2/shop/till/manifests/1", true),
        ("put /v2/shop/till/manifests/1", false),
        ("create /pods a/", false),
    ] {
        assert_eq!(ask(&view, "system:node:n1", &nodes, request), expect, "{request}");
    }
    assert!(!ask(&view, "system:node:n1", &groups(&["system:authenticated"]), "get /nodes /n1"));
}

#[test]
fn nobody_gives_more_than_they_have() {
    let view = view(&[(
        "rbac.authorization.k8s.io/clusterrolebindings",
        json!({"metadata": {"name": "v"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
    )]);
    let rules = |json: Value| -> Vec<PolicyRule> { serde_json::from_value(json).unwrap() };
    let wanted = rules(json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get"]}]));
    let missing = missing_rules(&view, "ann", &[], "", &wanted);
    assert_eq!(missing.len(), 1);
    assert_eq!(&*missing[0].resources, &["secrets".into()]);
    let named =
        rules(json!([{"apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"], "verbs": ["get"]}]));
    assert!(missing_rules(&view, "ann", &[], "", &named).is_empty());
    let masters = groups(&["system:masters"]);
    assert!(missing_rules(&view, "root", &masters, "", &wanted).is_empty());
    assert_eq!(
        missing_rules(&view, "bob", &[], "", &rules(json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])))
            .len(),
        1
    );
}
