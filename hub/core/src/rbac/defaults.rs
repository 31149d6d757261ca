//! The roles and bindings that every cluster has.
//!
//! In: nothing. Out: objects with Kubernetes' own names, so that bindings written for any cluster work here.
//! Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Default roles and role bindings".
//! Never: rights for a controller; Limpet's controllers run inside the hub.

use serde_json::{Value, json};

const ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// As (resource, object); the shell creates those that are missing.
pub fn defaults() -> Vec<(&'static str, Value)> {
    let mut all: Vec<(&'static str, Value)> = Vec::new();
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    all.push((ROLES, role("cluster-admin", rules)));
    all.push((ROLES, aggregated("admin", &["admin"], json!({}))));
    all.push((ROLES, aggregated("edit", &["edit"], json!({LABEL_ADMIN: "true"}))));
    all.push((ROLES, aggregated("view", &["view"], json!({LABEL_EDIT: "true"}))));
    all.push((ROLES, part("admin", json!({LABEL_ADMIN: "true"}), admin_rules())));
    all.push((ROLES, part("edit", json!({LABEL_ADMIN: "true", LABEL_EDIT: "true"}), edit_rules())));
    let everywhere = json!({LABEL_ADMIN: "true", LABEL_EDIT: "true", LABEL_VIEW: "true"});
    all.push((ROLES, part("view", everywhere.clone(), view_rules())));
    let mut reader = role("system:aggregated-metrics-reader", metrics_rules());
    add_labels(&mut reader, everywhere);
    all.push((ROLES, reader));
    all.extend(system_roles().into_iter().map(|r| (ROLES, r)));
    for (name, role, groups) in [
        ("cluster-admin", "cluster-admin", &["system:masters"][..]),
        ("system:basic-user", "system:basic-user", &["system:authenticated"]),
        ("system:discovery", "system:discovery", &["system:authenticated"]),
        ("system:monitoring", "system:monitoring", &["system:monitoring"]),
        (
            "system:public-info-viewer",
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
        (
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            &["system:serviceaccounts"],
        ),
    ] {
        all.push((BINDINGS, binding(name, role, groups)));
    }
    all.extend(super::namespaced::defaults());
    all
}

const LABEL_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const LABEL_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const LABEL_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

fn meta(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": meta(name),
        "rules": rules,
    })
}

/// What metrics-server adds to a cluster.
fn metrics_rules() -> Value {
    json!([{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}])
}

/// A role that consists of all roles with its label; the rules known now are spelled out for `kubectl describe`.
fn aggregated(name: &str, of: &[&str], labels: Value) -> Value {
    let mut rules = view_rules();
    for more in match name {
        "admin" => vec![metrics_rules(), edit_rules(), admin_rules()],
        "edit" => vec![metrics_rules(), edit_rules()],
        _ => vec![metrics_rules()],
    } {
        if let (Value::Array(all), Value::Array(more)) = (&mut rules, more) {
            all.extend(more);
        }
    }
    let mut value = role(name, rules);
    let selectors: Vec<Value> = of
        .iter()
        .map(|o| json!({"matchLabels": {format!("rbac.authorization.k8s.io/aggregate-to-{o}"): "true"}}))
        .collect();
    value["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    add_labels(&mut value, labels);
    value
}

fn part(of: &str, labels: Value, rules: Value) -> Value {
    let mut value = role(&format!("system:aggregate-to-{of}"), rules);
    add_labels(&mut value, labels);
    value
}

fn add_labels(value: &mut Value, labels: Value) {
    if let (Some(all), Value::Object(more)) = (value["metadata"]["labels"].as_object_mut(), labels) {
        all.extend(more);
    }
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Value {
    let group = |g: &&str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": g});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": meta(name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

fn view_rules() -> Value {
    json!([
        rule(
            "",
            &[
                "configmaps",
                "endpoints",
                "persistentvolumeclaims",
                "persistentvolumeclaims/status",
                "pods",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "serviceaccounts",
                "services",
                "services/status",
                "bindings",
                "events",
                "limitranges",
                "namespaces",
                "namespaces/status",
                "pods/log",
                "pods/status",
                "replicationcontrollers/status",
                "resourcequotas",
                "resourcequotas/status",
            ],
            READ
        ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule(
            "apps",
            &[
                "controllerrevisions",
                "daemonsets",
                "daemonsets/status",
                "deployments",
                "deployments/scale",
                "deployments/status",
                "replicasets",
                "replicasets/scale",
                "replicasets/status",
                "statefulsets",
                "statefulsets/scale",
                "statefulsets/status",
            ],
            READ
        ),
        rule("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"], READ),
        rule("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], READ),
        rule("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
        rule("limpet.dev", &["fleetrollouts", "fleetrollouts/status"], READ),
        rule("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"], READ),
        rule("resource.k8s.io", &["resourceclaims", "resourceclaims/status", "resourceclaimtemplates"], READ),
    ])
}

fn edit_rules() -> Value {
    json!([
        rule(
            "",
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            READ
        ),
        rule("", &["serviceaccounts"], &["impersonate"]),
        rule("", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], WRITE),
        rule("", &["pods/eviction", "serviceaccounts/token"], &["create"]),
        rule(
            "",
            &[
                "configmaps",
                "events",
                "persistentvolumeclaims",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "secrets",
                "serviceaccounts",
                "services",
                "services/proxy",
            ],
            WRITE
        ),
        rule(
            "apps",
            &[
                "daemonsets",
                "deployments",
                "deployments/rollback",
                "deployments/scale",
                "replicasets",
                "replicasets/scale",
                "statefulsets",
                "statefulsets/scale",
            ],
            WRITE
        ),
        rule("autoscaling", &["horizontalpodautoscalers"], WRITE),
        rule("batch", &["cronjobs", "jobs"], WRITE),
        rule("policy", &["poddisruptionbudgets"], WRITE),
        rule("limpet.dev", &["fleetrollouts"], WRITE),
        rule("networking.k8s.io", &["ingresses", "networkpolicies"], WRITE),
        rule("resource.k8s.io", &["resourceclaims", "resourceclaimtemplates"], WRITE),
        rule("coordination.k8s.io", &["leases"], &[READ, WRITE].concat()),
    ])
}

fn admin_rules() -> Value {
    json!([
        rule("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
        rule("rbac.authorization.k8s.io", &["rolebindings", "roles"], &[READ, WRITE].concat()),
    ])
}

fn system_roles() -> Vec<Value> {
    let paths = |paths: &[&str]| json!([{"nonResourceURLs": paths, "verbs": ["get"]}]);
    vec![
        role(
            "system:basic-user",
            json!([
                rule(
                    "authorization.k8s.io",
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"]
                ),
                rule("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
            ]),
        ),
        role(
            "system:discovery",
            paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ]),
        ),
        role("system:public-info-viewer", paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"])),
        role(
            "system:monitoring",
            paths(&["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz", "/readyz/*"]),
        ),
        role(
            "system:service-account-issuer-discovery",
            paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ]),
        ),
        role(
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            json!([rule("certificates.k8s.io", &["certificatesigningrequests/nodeclient"], &["create"])]),
        ),
        role(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            json!([rule("certificates.k8s.io", &["certificatesigningrequests/selfnodeclient"], &["create"])]),
        ),
        role(
            "system:auth-delegator",
            json!([
                rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
                rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
            ]),
        ),
    ]
}
