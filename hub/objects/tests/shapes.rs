//! What a new object looks like although nobody wrote it: structs that are there even when empty, required numbers,
//! defaults. Clients in other languages read these fields without asking whether they are there.
//!
//! In: a table of kinds, the least that each takes, what comes of it besides. Out: fails on any difference.
//! Source: the Go types of Kubernetes (fields that are no pointers) and the documentation's defaults.

use limpet_objects::behaviour::Ctx;
use limpet_objects::registry::registry;
use limpet_objects::strategy;
use serde_json::{Value, json};

const UID: &str = "5f0e3d2c-0000-4000-8000-000000000000";

fn created(api_version: &str, plural: &str, spec: Value) -> Value {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = registry().by_path(group, version, plural).unwrap_or_else(|| panic!("{api_version} {plural}"));
    let ctx = Ctx { now: "2026-11-23T00:00:00Z".parse().unwrap(), user: "jane", groups: &[], uid: UID, suffix: "bcdfg" };
    let mut object = spec;
    object["metadata"] = json!({"name": "a"});
    strategy::default(resource, &mut object);
    let namespace = resource.namespaced.then_some("default");
    strategy::create(resource, &mut object, namespace, &ctx).unwrap_or_else(|s| panic!("{plural}: {}", s.message));
    object
}

/// Compares everything but the common metadata.
fn check(api_version: &str, plural: &str, least: Value, expect: Value) {
    let mut object = created(api_version, plural, least);
    for field in ["apiVersion", "kind", "metadata"] {
        object.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(object, expect, "{api_version} {plural}\n got {object:#}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn full_template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30}})
}

fn selector() -> Value {
    json!({"matchLabels": {"a": "b"}})
}

#[test]
fn workloads() {
    check(
        "apps/v1",
        "deployments",
        json!({"spec": {"selector": selector(), "template": template()}}),
        json!({"spec": {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10, "selector": selector(),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": full_template()}, "status": {}}),
    );
    check(
        "apps/v1",
        "replicasets",
        json!({"spec": {"selector": selector(), "template": template()}}),
        json!({"spec": {"replicas": 1, "selector": selector(), "template": full_template()},
            "status": {"replicas": 0}}),
    );
    check(
        "apps/v1",
        "statefulsets",
        json!({"spec": {"selector": selector(), "template": template()}}),
        json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "podManagementPolicy": "OrderedReady", "replicas": 1, "revisionHistoryLimit": 10, "selector": selector(),
            "serviceName": "", "template": full_template(),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
            "status": {"availableReplicas": 0, "replicas": 0}}),
    );
    check(
        "apps/v1",
        "daemonsets",
        json!({"spec": {"selector": selector(), "template": template()}}),
        json!({"spec": {"revisionHistoryLimit": 10, "selector": selector(), "template": full_template(),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
            "status": {"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
                "numberReady": 0}}),
    );
    check(
        "v1",
        "replicationcontrollers",
        json!({"spec": {"template": template()}}),
        json!({"spec": {"replicas": 1, "selector": {"a": "b"}, "template": full_template()}, "status": {"replicas": 0}}),
    );
    let mut once = full_template();
    once["spec"]["restartPolicy"] = json!("Never");
    let mut asked = template();
    asked["spec"]["restartPolicy"] = json!("Never");
    once["metadata"] = json!({});
    asked.as_object_mut().unwrap().remove("metadata");
    check(
        "batch/v1",
        "cronjobs",
        json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": asked}}}}),
        json!({"spec": {"concurrencyPolicy": "Allow", "failedJobsHistoryLimit": 1, "successfulJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {}, "spec": {"template": once}},
            "schedule": "@daily", "suspend": false}, "status": {}}),
    );
}

#[test]
fn what_is_under_a_status_is_there_too() {
    check("policy/v1", "poddisruptionbudgets", json!({"spec": {"minAvailable": 1, "selector": selector()}}), json!({
        "spec": {"minAvailable": 1, "selector": selector()},
        "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}}));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"});
    check(
        "autoscaling/v1",
        "horizontalpodautoscalers",
        json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 80}}),
        json!({"spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": target,
            "targetCPUUtilizationPercentage": 80}, "status": {"currentReplicas": 0, "desiredReplicas": 0}}),
    );
    let node = created("v1", "nodes", json!({}));
    assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
    let info = &node["status"]["nodeInfo"];
    for field in ["architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion",
        "kubeletVersion", "machineID", "operatingSystem", "osImage", "systemUUID"]
    {
        assert_eq!(info[field], "", "{field}");
    }
    check(
        "storage.k8s.io/v1",
        "volumeattachments",
        json!({"spec": {"attacher": "x.example.org", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        json!({"spec": {"attacher": "x.example.org", "nodeName": "n", "source": {"persistentVolumeName": "v"}},
            "status": {"attached": false}}),
    );
    check(
        "networking.k8s.io/v1",
        "ingresses",
        json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
            "status": {"loadBalancer": {}}}),
    );
    check("v1", "resourcequotas", json!({"spec": {"hard": {"pods": "1"}}}), json!({"spec": {"hard": {"pods": "1"}},
        "status": {}}));
    check("v1", "namespaces", json!({}), json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
}

#[test]
fn what_has_no_status() {
    check(
        "discovery.k8s.io/v1",
        "endpointslices",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]}),
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {}}],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
    );
    check("networking.k8s.io/v1", "networkpolicies", json!({}), json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}));
    check("scheduling.k8s.io/v1", "priorityclasses", json!({}), json!({"preemptionPolicy": "PreemptLowerPriority", "value": 0}));
    check("coordination.k8s.io/v1", "leases", json!({}), json!({"spec": {}}));
    check("v1", "configmaps", json!({}), json!({}));
    check(
        "rbac.authorization.k8s.io/v1",
        "rolebindings",
        json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
        json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
    );
}

/// A pod's claim template is a struct, whose defaults are set although it was not written.
#[test]
fn defaults_reach_into_structs_that_nobody_wrote() {
    let pod = created("v1", "pods", json!({"spec": {"containers": [{"name": "c", "image": "i",
        "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}],
        "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "X-A", "value": ""}]}}}],
        "volumes": [{"name": "e", "emptyDir": {}}]}}));
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["spec"]["containers"][0]["resources"], json!({}));
    let header = &pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["httpHeaders"][0];
    assert_eq!(*header, json!({"name": "X-A", "value": ""}));
    let claim = created("v1", "persistentvolumeclaims", json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}));
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    assert_eq!(claim["status"], json!({"phase": "Pending"}));
}
