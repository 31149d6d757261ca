//! Admission through real kubectl: what a namespace's labels and quotas let in, and what a user reads when they do not.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::Cluster;

#[test]
fn a_namespace_says_how_secure_its_pods_must_be() {
    let c = Cluster::start();
    c.kubectl(&["create", "namespace", "shop"]).ok();
    c.kubectl(&["create", "serviceaccount", "till", "-n", "shop"]).ok();
    let pod = |name: &str, extra: serde_json::Value| {
        let mut spec = json!({"serviceAccountName": "till", "containers": [{"name": "c", "image": "i"}]});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
            .to_string()
    };
    c.kubectl_in(&["apply", "-f", "-"], &pod("early", json!({"hostNetwork": true}))).ok();
    let label = "pod-security.kubernetes.io/enforce";
    let told = c.kubectl(&["label", "namespace", "shop", &format!("{label}=loose")]).fails();
    assert!(told.contains("must be one of privileged, baseline, restricted"), "{told}");
    let output = c.kubectl(&["label", "namespace", "shop", &format!("{label}=baseline")]);
    let warned = output.err.clone();
    output.ok();
    assert!(
        warned.contains(
            "existing pods in namespace \"shop\" violate the new PodSecurity enforce level \"baseline:latest\""
        ) && warned.contains("early: host namespaces"),
        "{warned}"
    );
    let told = c.kubectl_in(&["apply", "-f", "-"], &pod("late", json!({"hostPID": true}))).fails();
    assert!(
        told.contains(
            "pods \"late\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
        ),
        "{told}"
    );
    c.kubectl_in(&["apply", "-f", "-"], &pod("plain", json!({}))).ok();
    // A pod that runs already may still be labelled.
    c.kubectl(&["label", "-n", "shop", "pod", "early", "a=b"]).ok();
    let output = c.kubectl(&["label", "--overwrite", "namespace", "shop", &format!("{label}=restricted")]);
    assert!(output.err.contains("early (and 1 other pod)") || output.err.contains("plain: allow"), "{}", output.err);
    let output = c.kubectl(&["create", "deployment", "web", "--image=i", "-n", "shop"]);
    let warned = output.err.clone();
    output.ok();
    assert!(
        warned.contains("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"),
        "{warned}"
    );
}
