//! A table of merges, each the behaviour of one named case of upstream's own tests, with data of our own.
//!
//! In: what an object has, the patch. Out: what it has then. Places: `metadata.finalizers` is a set of scalars,
//! `spec.containers` a list of maps by name, `spec.volumes` one whose items keep only named keys.

use super::*;
use serde_json::json;

fn run(definition: &str, object: &Value, patch: &Value) -> Value {
    let place = Place::of(crate::schema::table(), &format!("io.k8s.api.{definition}"));
    strategic(object, patch, place).unwrap_or_else(|e| panic!("{patch}: {e}"))
}

fn check(cases: Vec<(&str, Value, Value, Value)>, at: impl Fn(Value) -> Value) {
    for (name, object, patch, expect) in cases {
        assert_eq!(run("core.v1.Pod", &at(object), &at(patch)), at(expect), "{name}");
    }
}

#[test]
fn lists_of_scalars() {
    let cases = vec![
        (
            "delete items",
            json!({"finalizers": ["a", "b", "c"]}),
            json!({"$setElementOrder/finalizers": ["a", "b"], "$deleteFromPrimitiveList/finalizers": ["c"]}),
            json!({"finalizers": ["a", "b"]}),
        ),
        (
            "delete all that are the same",
            json!({"finalizers": ["a", "b", "c", "c"]}),
            json!({"$setElementOrder/finalizers": ["a", "b"], "$deleteFromPrimitiveList/finalizers": ["c"]}),
            json!({"finalizers": ["a", "b"]}),
        ),
        (
            "add and delete",
            json!({"finalizers": ["a", "b", "c"]}),
            json!({"$setElementOrder/finalizers": ["a", "b", "d"], "$deleteFromPrimitiveList/finalizers": ["c"],
                "finalizers": ["d"]}),
            json!({"finalizers": ["a", "b", "d"]}),
        ),
        (
            "delete what is not there",
            json!({"finalizers": ["a"]}),
            json!({"$setElementOrder/finalizers": ["a"], "$deleteFromPrimitiveList/finalizers": ["z"]}),
            json!({"finalizers": ["a"]}),
        ),
        (
            "what only the server has stays behind what it followed",
            json!({"finalizers": ["a", "s", "b"]}),
            json!({"$setElementOrder/finalizers": ["a", "b", "c"], "finalizers": ["c"]}),
            json!({"finalizers": ["a", "s", "b", "c"]}),
        ),
        (
            "a null is no list any more",
            json!({"finalizers": ["a"], "name": "n"}),
            json!({"finalizers": null}),
            json!({"name": "n"}),
        ),
        (
            "an empty list merges nothing",
            json!({"finalizers": ["a"]}),
            json!({"finalizers": []}),
            json!({"finalizers": ["a"]}),
        ),
    ];
    check(cases, |metadata| json!({"metadata": metadata}));
}

#[test]
fn lists_of_maps() {
    let two = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}]});
    let cases = vec![
        (
            "add a field in an item",
            two.clone(),
            json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "b",
                "image": "2"}]}),
        ),
        (
            "delete a field in an item",
            two.clone(),
            json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "a", "image": null}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}]}),
        ),
        (
            "delete a field that is not there",
            two.clone(),
            json!({"containers": [{"name": "b", "image": null}]}),
            two.clone(),
        ),
        (
            "delete an item that is not there",
            two.clone(),
            json!({"containers": [{"name": "z", "$patch": "delete"}]}),
            two.clone(),
        ),
        (
            "replace the whole list",
            two.clone(),
            json!({"containers": [{"name": "n"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "n"}]}),
        ),
        (
            "replace with nothing",
            two.clone(),
            json!({"containers": [{"$patch": "replace"}]}),
            json!({"containers": []}),
        ),
        (
            "replace a list inside of an item",
            two.clone(),
            json!({"containers": [{"name": "a", "env": [{"name": "y", "value": "2"}, {"$patch": "replace"}]}]}),
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "y", "value": "2"}]}, {"name": "b"}]}),
        ),
        (
            "merge a list inside of an item",
            two.clone(),
            json!({"containers": [{"name": "a", "$setElementOrder/env": [{"name": "x"}, {"name": "y"}],
                "env": [{"name": "y", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}, {"name": "y", "value": "2"}]},
                {"name": "b"}]}),
        ),
        (
            "delete in a list inside of an item",
            two.clone(),
            json!({"containers": [{"name": "a", "env": [{"name": "x", "$patch": "delete"}]}]}),
            json!({"containers": [{"name": "a", "image": "1", "env": []}, {"name": "b"}]}),
        ),
        (
            "the order names what somebody else removed",
            two.clone(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "gone"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}]}),
        ),
        (
            "a list where there was none",
            json!({}),
            json!({"containers": [{"name": "a", "image": null}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
    ];
    check(cases, |spec| json!({"spec": spec}));
}

#[test]
fn keys_that_are_kept() {
    let host = json!({"name": "v", "hostPath": {"path": "/x"}, "configMap": {"name": "m"}});
    let cases = vec![
        (
            "all others go",
            json!({"volumes": [host]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        ),
        (
            "also without a change",
            json!({"volumes": [host]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"]}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        ),
        (
            "a new item",
            json!({"volumes": [host]}),
            json!({"$setElementOrder/volumes": [{"name": "v"}, {"name": "w"}],
                "volumes": [{"name": "w", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}),
            json!({"volumes": [host, {"name": "w", "emptyDir": {}}]}),
        ),
        (
            "without the directive both stay",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "emptyDir": {}}]}),
        ),
    ];
    check(cases, |spec| json!({"spec": spec}));
}

/// Which key a list merges by, and which lists are replaced.
#[test]
fn keys_of_lists() {
    let merges = [
        ("core.v1.Pod", "/spec/initContainers", "name"),
        ("core.v1.Pod", "/spec/volumes", "name"),
        ("core.v1.Pod", "/spec/imagePullSecrets", "name"),
        ("core.v1.Pod", "/spec/hostAliases", "ip"),
        ("core.v1.Pod", "/spec/topologySpreadConstraints", "topologyKey"),
        ("core.v1.Pod", "/spec/ephemeralContainers", "name"),
        ("core.v1.Pod", "/status/conditions", "type"),
        ("core.v1.Pod", "/status/podIPs", "ip"),
        ("core.v1.Pod", "/metadata/ownerReferences", "uid"),
        ("core.v1.Service", "/spec/ports", "port"),
        ("core.v1.ServiceAccount", "/secrets", "name"),
        ("core.v1.Node", "/status/addresses", "type"),
        ("apps.v1.Deployment", "/status/conditions", "type"),
        ("batch.v1.Job", "/status/conditions", "type"),
        ("admissionregistration.v1.ValidatingWebhookConfiguration", "/webhooks", "name"),
    ];
    for (definition, path, key) in merges {
        let (object, patch) = (at(path, json!([{key: "1"}])), at(path, json!([{key: "2"}])));
        let got = run(definition, &object, &patch);
        assert_eq!(got.pointer(path), Some(&json!([{key: "2"}, {key: "1"}])), "{definition} {path}");
    }
    let replaced = [
        ("core.v1.Pod", "/spec/tolerations"),
        ("core.v1.Node", "/spec/taints"),
        ("rbac.v1.Role", "/rules"),
        ("networking.v1.Ingress", "/spec/rules"),
        ("networking.v1.NetworkPolicy", "/spec/ingress"),
        ("discovery.v1.EndpointSlice", "/endpoints"),
        ("core.v1.Endpoints", "/subsets"),
        ("core.v1.LimitRange", "/spec/limits"),
    ];
    for (definition, path) in replaced {
        let (object, patch) = (at(path, json!([{"a": "1"}])), at(path, json!([{"b": "2"}])));
        assert_eq!(run(definition, &object, &patch), patch, "{definition} {path}");
    }
}

fn at(path: &str, value: Value) -> Value {
    path.rsplit('/').filter(|part| !part.is_empty()).fold(value, |value, part| json!({part: value}))
}
