//! What Kubernetes fills into pods and pod templates (`SetDefaults_Pod`, `_PodSpec`, `_Container`,
//! `_Probe`, volumes).
//!
//! In: a pod or the spec of a template. Out: the same with defaults. Never: what admission adds
//! (tolerations, tokens).

use serde_json::{Value, json};

use crate::kinds::fill::{child, each, present, set, set_absent, set_number, text};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// 0644.
const FILE_MODE: i64 = 420;

/// A whole pod: its spec, and what only pods (not templates) get.
pub fn pod(object: &mut Value) {
    let Some(spec) = present(object, "spec") else { return };
    set_absent(spec, "enableServiceLinks", true);
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if host_network {
                for port in each(container, "ports") {
                    let number = port["containerPort"].as_i64().unwrap_or(0);
                    set_number(port, "hostPort", number);
                }
            }
        }
    }
    super::whole::default(spec);
    pod_spec(spec);
}

fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"]["limits"].as_object().cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let Some(requests) = child(container, "resources").and_then(|resources| child(resources, "requests"))
    else {
        return;
    };
    for (name, quantity) in limits {
        set_absent(requests, &name, quantity);
    }
}

/// The spec of a pod or of a template.
pub fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set_absent(spec, "securityContext", json!({}));
    set_absent(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !account.is_empty() {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
    for volume in each(spec, "volumes") {
        volume_source(volume);
    }
    for list in CONTAINER_LISTS {
        for one in each(spec, list) {
            container(one);
        }
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    set(container, "imagePullPolicy", policy);
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    set_absent(container, "resources", json!({}));
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(reference) = present(variable, "valueFrom").and_then(|from| present(from, "fieldRef")) {
            set(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = present(container, name) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(found) = present(container, "lifecycle").and_then(|lifecycle| present(lifecycle, hook)) {
            http_get(found);
        }
    }
}

fn probe(probe: &mut Value) {
    set_number(probe, "timeoutSeconds", 1);
    set_number(probe, "periodSeconds", 10);
    set_number(probe, "successThreshold", 1);
    set_number(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = present(probe, "grpc") {
        set_absent(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = present(handler, "httpGet") {
        set(get, "path", "/");
        set(get, "scheme", "HTTP");
    }
}

/// `Always` for `:latest` and for no tag at all, else `IfNotPresent`.
pub fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn volume_source(volume: &mut Value) {
    let Some(fields) = volume.as_object() else { return };
    if !fields.iter().any(|(name, value)| name != "name" && !value.is_null()) {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = present(volume, source) {
            set_absent(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = present(volume, "hostPath") {
        set_absent(path, "type", "");
    }
    if let Some(downward) = present(volume, "downwardAPI") {
        downward_items(downward);
    }
    if let Some(projected) = present(volume, "projected") {
        set_absent(projected, "sources", json!([]));
        for source in each(projected, "sources") {
            if let Some(token) = present(source, "serviceAccountToken") {
                set_number(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = present(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(image) = present(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        set(image, "pullPolicy", policy);
    }
    let claim = present(volume, "ephemeral").and_then(|source| present(source, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|claim| present(claim, "spec")) {
        set(spec, "volumeMode", "Filesystem");
    }
    rare_sources(volume);
}

fn downward_items(source: &mut Value) {
    for item in each(source, "items") {
        if let Some(reference) = present(item, "fieldRef") {
            set(reference, "apiVersion", "v1");
        }
    }
}

/// Sources that PersistentVolumes have, too.
pub fn rare_sources(volume: &mut Value) {
    if let Some(iscsi) = present(volume, "iscsi") {
        set(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = present(volume, "rbd") {
        set(rbd, "pool", "rbd");
        set(rbd, "user", "admin");
        set(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = present(volume, "azureDisk") {
        set(disk, "cachingMode", "ReadWrite");
        set(disk, "kind", "Shared");
        set(disk, "fsType", "ext4");
        set_absent(disk, "readOnly", false);
    }
    if let Some(scale) = present(volume, "scaleIO") {
        set(scale, "storageMode", "ThinProvisioned");
        set(scale, "fsType", "xfs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_becomes_a_full_one() {
        let mut object = json!({"spec": {
            "containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "c"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {"name": "h", "hostPath": {"path": "/x"}}]}});
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "defaulting is idempotent");
        assert_eq!(
            object["spec"],
            json!({
                "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "IP", "valueFrom": {"fieldRef":
                        {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "volumes": [{"name": "e", "emptyDir": {}},
                    {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                    {"name": "p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
                    {"name": "h", "hostPath": {"path": "/x", "type": ""}}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true
            })
        );
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("", "Always"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn host_network_sets_host_ports_and_accounts_are_mirrored() {
        let mut object = json!({"spec": {"hostNetwork": true, "serviceAccountName": "sa",
            "containers": [{"name": "a", "image": "b:1", "ports": [{"containerPort": 80}]}]}});
        pod(&mut object);
        assert_eq!(object["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
        assert_eq!(object["spec"]["serviceAccount"], "sa");
    }
}
