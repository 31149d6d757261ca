//! Pods: rules in Kubernetes' words, and the first state of a new one.

use serde_json::{Value, json};

use super::*;
use crate::kinds::fill::child;

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {
        "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    let target = child(&mut pod, "spec").unwrap();
    for (field, value) in spec.as_object().unwrap() {
        target[field] = value.clone();
    }
    pod
}

/// A container with these fields beside name and image.
fn container(fields: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (field, value) in fields.as_object().unwrap() {
        container[field] = value.clone();
    }
    json!({"containers": [container]})
}

fn errors(mut object: Value) -> Vec<String> {
    Pod.default(&mut object);
    Pod.validate_create(&object).iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_pod_has_no_errors() {
    let good = [
        json!({}),
        container(json!({"ports": [{"containerPort": 80, "name": "http"}],
            "livenessProbe": {"httpGet": {"port": "http"}},
            "env": [{"name": "A", "value": "b"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/data", "subPath": "a/b"}],
            "resources": {"limits": {"cpu": "1", "example.com/gpu": "1"}, "requests": {"cpu": "500m"}}})),
        json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute",
            "tolerationSeconds": 5}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "ca"}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]}),
    ];
    for spec in good {
        assert_eq!(errors(pod(spec.clone())), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn containers_in_kubernetes_words() {
    let cases = [
        (json!({"containers": []}), "spec.containers: Required value"),
        (json!({"containers": [{"image": "i"}]}), "spec.containers[0].name: Required value"),
        (json!({"containers": [{"name": "c"}]}), "spec.containers[0].image: Required value"),
        (
            json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            container(json!({"image": " i"})),
            "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ),
        (
            container(json!({"imagePullPolicy": "x"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
        (container(json!({"ports": [{}]})), "spec.containers[0].ports[0].containerPort: Required value"),
        (
            container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, \
             inclusive",
        ),
        (
            container(json!({"ports": [{"containerPort": 1, "protocol": "tcp"}]})),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \
             \"TCP\", \"UDP\"",
        ),
        (
            container(json!({"volumeMounts": [{"name": "nope", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"nope\"",
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]})),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../y\": must not contain '..'",
        ),
        (
            container(json!({"env": [{"name": "a=b"}]})),
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must \
             consist only of printable ASCII characters other than '='",
        ),
        (
            container(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu \
             limit of 1",
        ),
        (
            container(json!({"readinessProbe": {}})),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            container(json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            container(json!({"securityContext": {"runAsUser": 4294967296_i64}})),
            "spec.containers[0].securityContext.runAsUser: Invalid value: 4294967296: must be between 0 and \
             2147483647, inclusive",
        ),
    ];
    for (spec, expect) in cases {
        assert_eq!(errors(pod(spec.clone())), [expect.to_owned()], "{spec}");
    }
}

#[test]
fn pods_in_kubernetes_words() {
    let cases = [
        (
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"OnFailure\", \"Never\"",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"volumes": [{"name": "v", "configMap": {}}]}),
            "spec.volumes[0].configMap.name: Required value",
        ),
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/p"}]}}]}),
            "spec.volumes[0].secret.items[0].path: Invalid value: \"/p\": must be a relative path",
        ),
        (json!({"volumes": [{"name": "v"}, {"name": "v"}]}), "spec.volumes[1].name: Duplicate value: \"v\""),
        (
            json!({"tolerations": [{"value": "x"}]}),
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"",
        ),
        (
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ];
    for (spec, expect) in cases {
        assert_eq!(errors(pod(spec.clone())), [expect.to_owned()], "{spec}");
    }
}

#[test]
fn a_new_pod_is_pending_with_its_class() {
    let pods = crate::registry::registry().by_path("", "v1", "pods").unwrap();
    let ctx = Ctx { now: Timestamp::UNIX_EPOCH, user: "", groups: &[], uid: "u", suffix: "" };
    let mut object = pod(container(json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})));
    object["status"] = json!({"phase": "Running"});
    crate::strategy::create(pods, &mut object, Some("d"), &ctx).unwrap();
    assert_eq!(object["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(object["metadata"]["generation"], 1);
}
