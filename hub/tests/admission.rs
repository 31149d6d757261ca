//! Admission through real kubectl: what a namespace's labels and quotas let in, and what a user reads when they do not.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
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

#[test]
fn a_quota_holds_against_many_at_once_and_against_updates() {
    let c = Cluster::start();
    let at = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    let hard = json!({"configmaps": "5", "services.nodeports": "1"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    assert_eq!(c.json("POST", &at("resourcequotas"), quota).0, 201);
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let make = |n: usize| c.json("POST", &at("configmaps"), json!({"metadata": {"name": format!("m{n}")}})).0;
        let all: Vec<_> = (0..12).map(|n| scope.spawn(move || make(n))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |code: u16| codes.iter().filter(|own| **own == code).count();
    assert_eq!((count(201), count(403)), (5, 7), "{codes:?}");
    let service = |name: &str| {
        let spec = json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    assert_eq!(c.json("POST", &at("services"), service("one")).0, 201);
    let mut two = service("two");
    two["spec"]["type"] = json!("ClusterIP");
    assert_eq!(c.json("POST", &at("services"), two).0, 201);
    let patch = |body: &str| {
        let form = [("Content-Type", "application/merge-patch+json")];
        let (code, said) = c.raw("PATCH", &at("services/two"), &form, body.as_bytes());
        (code, String::from_utf8(said).unwrap())
    };
    let (code, said) = patch(r#"{"spec": {"type": "NodePort"}}"#);
    assert_eq!(code, 403, "{said}");
    assert!(said.contains("exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1"), "{said}");
    assert_eq!(patch(r#"{"metadata": {"labels": {"a": "b"}}}"#).0, 200);
}

#[test]
fn who_only_looks_at_devices_needs_the_namespaces_consent() {
    let c = Cluster::start();
    let request = json!({"name": "r", "exactly": {"deviceClassName": "any", "adminAccess": true}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    let path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let (code, said) = c.json("POST", path, claim.clone());
    let words = "spec.devices.requests[0].exactly.adminAccess: Forbidden: admin access to devices requires the \
                 `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    assert!(code == 422 && said["message"].as_str().unwrap().contains(words), "{said}");
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": claim["spec"]}});
    let (code, said) = c.json("POST", &path.replace("claims", "claimtemplates"), template);
    assert!(code == 422 && said["message"].as_str().unwrap().contains("spec.spec.devices.requests[0]"), "{said}");
    c.kubectl(&["label", "namespace", "default", "resource.kubernetes.io/admin-access=true"]).ok();
    assert_eq!(c.json("POST", path, claim).0, 201);
}

#[test]
fn a_runtime_class_brings_its_overhead_and_its_place() {
    let c = Cluster::start();
    let (pods, classes) = ("/api/v1/namespaces/default/pods", "/apis/node.k8s.io/v1/runtimeclasses");
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}], "runtimeClassName": "sandboxed"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let refused = |object: Value, words: &str| {
        let (code, said) = c.json("POST", pods, object);
        assert!(code == 403 && said["message"].as_str().unwrap().ends_with(words), "{code} {said}");
    };
    refused(pod("a", json!({})), "pods \"a\" is forbidden: pod rejected: RuntimeClass \"sandboxed\" not found");
    let place = json!({"nodeSelector": {"sandbox": "yes"}, "tolerations": [{"key": "sandbox", "operator": "Exists"}]});
    let overhead = json!({"cpu": "250m", "memory": "64Mi"});
    let class = json!({"metadata": {"name": "sandboxed"}, "handler": "h", "overhead": {"podFixed": overhead},
        "scheduling": place});
    assert_eq!(c.json("POST", classes, class).0, 201);
    let (code, made) = c.json("POST", pods, pod("a", json!({"nodeSelector": {"a": "b"}})));
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["overhead"], overhead);
    assert_eq!(made["spec"]["nodeSelector"], json!({"a": "b", "sandbox": "yes"}));
    let tolerations = made["spec"]["tolerations"].as_array().unwrap();
    assert!(tolerations.iter().any(|toleration| toleration["key"] == "sandbox"), "{tolerations:?}");
    refused(
        pod("b", json!({"overhead": {"cpu": "1"}})),
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
    );
    refused(
        pod("b", json!({"nodeSelector": {"sandbox": "no"}})),
        "conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no",
    );
    refused(
        pod("b", json!({"overhead": {"cpu": "1"}, "runtimeClassName": null})),
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
    );
    assert_eq!(c.json("POST", pods, pod("c", json!({"overhead": overhead}))).0, 201);
    c.raw("DELETE", &format!("{classes}/sandboxed"), &[], b"");
    refused(pod("d", json!({})), "RuntimeClass \"sandboxed\" not found");
}

#[test]
fn a_pod_as_a_whole_is_resized_only_where_its_board_can() {
    let c = Cluster::start();
    let pods = "/api/v1/namespaces/default/pods";
    for (name, features) in [("old", json!([])), ("new", json!(["InPlacePodLevelResourcesVerticalScaling"]))] {
        assert_eq!(c.json("POST", "/api/v1/nodes", json!({"metadata": {"name": name}})).0, 201);
        let status = json!({"status": {"declaredFeatures": features}}).to_string();
        c.kubectl(&["patch", "node", name, "--subresource=status", "-p", &status]).ok();
        let limits = json!({"limits": {"memory": "64Mi"}});
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": name, "resources": limits,
            "containers": [{"name": "c", "image": "i"}]}});
        let (code, made) = c.json("POST", pods, pod);
        assert_eq!(code, 201, "{made}");
        assert_eq!(made["status"]["qosClass"], "Burstable");
        assert_eq!(made["spec"]["resources"]["requests"], json!({"memory": "64Mi"}));
    }
    let resize = |name: &str, spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        c.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &patch])
    };
    let larger = json!({"resources": {"limits": {"memory": "128Mi"}}});
    let told = resize("old", larger.clone()).fails();
    let words = "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"old\"";
    assert!(told.contains(words), "{told}");
    // Not of the pod: it has a request of its own for that.
    resize("old", json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]})).ok();
    resize("new", larger).ok();
    let (_, pod) = c.get(&format!("{pods}/new"));
    assert_eq!(pod["spec"]["resources"]["limits"]["memory"], "128Mi");
    assert_eq!(pod["metadata"]["generation"], 2);
}

#[test]
fn the_cpu_of_a_guaranteed_pod_is_resized_only_where_its_board_can() {
    let c = Cluster::start();
    let pods = "/api/v1/namespaces/default/pods";
    let some = |cpu: &str, memory: &str| {
        let size = json!({"cpu": cpu, "memory": memory});
        json!({"limits": size, "requests": size})
    };
    let pod = |name: &str, node: &str, resources: Value| {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [
            {"name": "other", "image": "i", "resources": resources}, {"name": "c", "image": "i", "resources": resources}]}});
        let (code, made) = c.json("POST", pods, pod);
        assert_eq!(code, 201, "{made}");
    };
    for (name, features) in [("old", json!([])), ("new", json!(["GuaranteedQoSPodCPUResize"]))] {
        assert_eq!(c.json("POST", "/api/v1/nodes", json!({"metadata": {"name": name}})).0, 201);
        let status = json!({"status": {"declaredFeatures": features}}).to_string();
        c.kubectl(&["patch", "node", name, "--subresource=status", "-p", &status]).ok();
        pod(name, name, some("1", "64Mi"));
    }
    pod("lost", "gone", some("1", "64Mi"));
    pod("burstable", "old", json!({"requests": {"cpu": "1"}}));
    let resize = |name: &str, resources: Value| {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}).to_string();
        c.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &patch])
    };
    let told = resize("old", some("2", "64Mi")).fails();
    let words = "pod update requires features GuaranteedQoSPodCPUResize which are not available on node \"old\"";
    assert!(told.contains(words), "{told}");
    let told = resize("lost", some("2", "64Mi")).fails();
    assert!(told.contains("node \"gone\" not found"), "{told}");
    // The same CPU in other words, memory alone, another class, a board that can.
    resize("old", some("1000m", "128Mi")).ok();
    resize("burstable", json!({"requests": {"cpu": "2"}})).ok();
    resize("new", some("2", "64Mi")).ok();
    let (_, pod) = c.get(&format!("{pods}/new"));
    assert_eq!(pod["spec"]["containers"][1]["resources"]["requests"]["cpu"], "2");
}
