//! The roles and bindings that every cluster has in its system namespaces.
//!
//! In: nothing. Out: Roles and RoleBindings with the names that Kubernetes and kubeadm give them.
//! Source: kubernetes.io/docs/reference/access-authn-authz/rbac, and "Authenticating with Bootstrap Tokens".
//! Never: lets strangers read more than `kube-public/cluster-info`.

use serde_json::{Value, json};

const ROLES: &str = "rbac.authorization.k8s.io/roles";
const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const GROUP: &str = "rbac.authorization.k8s.io";
const SIGNER: &str = "system:controller:bootstrap-signer";
/// As kubeadm names it: whoever joins reads the signed ConfigMap before it is anybody.
const CLUSTER_INFO: &str = "kubeadm:bootstrap-signer-clusterinfo";

/// As (resource, object); the shell creates those that are missing.
pub fn defaults() -> Vec<(&'static str, Value)> {
    let one = |name: &str, verbs: &[&str]| {
        json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": verbs})
    };
    let all = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get", "list", "watch"]});
    let signer = json!({"kind": "ServiceAccount", "name": "bootstrap-signer", "namespace": "kube-system"});
    let anonymous = json!({"apiGroup": GROUP, "kind": "User", "name": "system:anonymous"});
    let own = json!([all("configmaps"), one("cluster-info", &["update"]),
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}]);
    let authentication = "extension-apiserver-authentication";
    vec![
        role("kube-public", CLUSTER_INFO, json!([one("cluster-info", &["get"])])),
        binding("kube-public", CLUSTER_INFO, anonymous),
        role("kube-public", SIGNER, own),
        binding("kube-public", SIGNER, signer.clone()),
        role("kube-system", SIGNER, json!([all("secrets")])),
        binding("kube-system", SIGNER, signer),
        role(
            "kube-system",
            "extension-apiserver-authentication-reader",
            json!([one(authentication, &["get", "list", "watch"])]),
        ),
    ]
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace});
    if name != CLUSTER_INFO {
        metadata["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        metadata["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    }
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata})
}

fn role(namespace: &str, name: &str, rules: Value) -> (&'static str, Value) {
    let mut role = object("Role", namespace, name);
    role["rules"] = rules;
    (ROLES, role)
}

fn binding(namespace: &str, name: &str, subject: Value) -> (&'static str, Value) {
    let mut binding = object("RoleBinding", namespace, name);
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "Role", "name": name});
    binding["subjects"] = json!([subject]);
    (BINDINGS, binding)
}
