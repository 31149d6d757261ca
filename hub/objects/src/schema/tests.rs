//! The schema table against cases that matter to its readers.

use serde_json::{Value, json};

use super::*;

fn definition(name: &str) -> &'static Definition {
    table().get(name).unwrap_or_else(|| panic!("{name} is not in the table"))
}

#[test]
fn knows_list_types_merge_keys_and_defaults() {
    let container = definition("io.k8s.api.core.v1.Container");
    let ports = &container.property("ports").unwrap().schema;
    assert_eq!(ports.list_type, Some(ListType::Map));
    assert_eq!(
        ports.list_keys.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["containerPort", "protocol"]
    );
    assert_eq!(ports.patch_merge_key.as_deref(), Some("containerPort"));
    assert!(ports.patch.merge);
    let protocol = definition("io.k8s.api.core.v1.ContainerPort").property("protocol").unwrap();
    assert_eq!(protocol.schema.default.as_deref(), Some(&json!("TCP")));
    assert_eq!(protocol.schema.choices.len(), 3);
    let volumes = definition("io.k8s.api.core.v1.PodSpec").property("volumes").unwrap();
    assert!(volumes.schema.patch.merge && volumes.schema.patch.retain_keys);
    assert_eq!(definition("io.k8s.api.core.v1.SecretKeySelector").schema.map_type, Some(MapType::Atomic));
    assert_eq!(&*definition("io.k8s.api.apps.v1.Deployment").kinds[0].group, "apps");
}

#[test]
fn prunes_unknown_fields_and_nulls() {
    let mut pod = json!({"metadata": {"creationTimestamp": null, "labels": {"any.key": "x"}}, "speck": 1, "spec": {
        "containers": [{"name": "a", "imagee": "b", "resources": {"limits": {"cpu": 1}}}], "nodeName": null}});
    let unknown = prune(&mut pod, definition("io.k8s.api.core.v1.Pod"));
    assert_eq!(unknown, ["speck", "spec.containers[0].imagee"]);
    assert_eq!(
        pod,
        json!({"metadata": {"labels": {"any.key": "x"}}, "spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}})
    );
}

#[test]
fn times_become_utc_seconds() {
    let mut pod = json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05.678+01:00"}});
    prune(&mut pod, definition("io.k8s.api.core.v1.Pod"));
    assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-02T02:04:05Z");
}

#[test]
fn says_wrong_types_like_go() {
    let cases: &[(&str, Value, &str)] = &[
        (
            "io.k8s.api.apps.v1.Deployment",
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "io.k8s.api.core.v1.ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "io.k8s.api.core.v1.Pod",
            json!({"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of \
             type string",
        ),
        (
            "io.k8s.api.core.v1.Pod",
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "io.k8s.api.core.v1.Pod",
            json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field \
             PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            "io.k8s.api.core.v1.Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "abc"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("io.k8s.api.core.v1.Secret", json!({"data": {"a": "*"}}), "illegal base64 data at input byte 0"),
        ("io.k8s.api.core.v1.Pod", json!([]), "json: cannot unmarshal array into Go value of type struct"),
    ];
    for (name, value, expect) in cases {
        assert_eq!(check(value, definition(name)), [expect.to_string()], "{value}");
    }
    let fine = json!({"spec": {"ports": [{"targetPort": "http"}, {"targetPort": 80}]}});
    assert_eq!(check(&fine, definition("io.k8s.api.core.v1.Service")), Vec::<String>::new());
}

#[test]
fn reads_the_prose_only_on_request() {
    let docs = Docs::open();
    assert!(docs.definition("io.k8s.api.core.v1.Pod").is_some());
    assert!(docs.property("io.k8s.api.core.v1.PodSpec", "containers").is_some_and(|text| text.len() > 20));
    assert!(fingerprint().len() == 64);
}
