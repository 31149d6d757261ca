//! Cases of strategic merge patches on built-in kinds.

use super::*;
use serde_json::json;

fn run(definition: &str, object: Value, patch: Value) -> Result<Value, String> {
    let place = Place::of(crate::schema::table(), &format!("io.k8s.api.{definition}"));
    assert!(place.is_typed(), "{definition}");
    strategic(&object, &patch, place).map_err(|e| e.to_string())
}

fn pod(spec: Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn maps_merge() {
    let cases = [
        (
            json!({"metadata":{"labels":{"a":"1","b":"2"}}}),
            json!({"metadata":{"labels":{"b":null,"c":"3"}}}),
            json!({"metadata":{"labels":{"a":"1","c":"3"}}}),
        ),
        (
            json!({}),
            json!({"metadata":{"labels":{"x":null,"c":"3"}}}),
            json!({"metadata":{"labels":{"c":"3"}}}),
        ),
        (
            json!({"metadata":{"labels":{"a":"1"}}}),
            json!({"metadata":{"labels":{"$patch":"replace","z":"9"}}}),
            json!({"metadata":{"labels":{"z":"9"}}}),
        ),
        (
            json!({"metadata":{"labels":{"a":"1"}}}),
            json!({"metadata":{"labels":{"$patch":"delete"}}}),
            json!({"metadata":{"labels":{}}}),
        ),
        (
            json!({"metadata":{"labels":{"a":"1"}}}),
            json!({"metadata":{"labels":null}}),
            json!({"metadata":{}}),
        ),
    ];
    for (object, patch, expected) in cases {
        assert_eq!(run("core.v1.Pod", object, patch.clone()), Ok(expected), "{patch}");
    }
}

#[test]
fn lists_of_maps_merge_by_their_key() {
    let two = || json!({"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"}]});
    let cases = [
        (
            json!({"containers":[{"name":"b","image":"3"}]}),
            json!([{"name":"a","image":"1"},{"name":"b","image":"3"}]),
        ),
        // A new item comes first, as upstream has it without $setElementOrder.
        (
            json!({"containers":[{"name":"c"}]}),
            json!([{"name":"c"},{"name":"a","image":"1"},{"name":"b","image":"2"}]),
        ),
        (
            json!({"$setElementOrder/containers":[{"name":"a"},{"name":"b"},{"name":"c"}],
                "containers":[{"name":"c"}]}),
            json!([{"name":"a","image":"1"},{"name":"b","image":"2"},{"name":"c"}]),
        ),
        (
            json!({"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}),
            json!([{"name":"b","image":"2"},{"name":"a","image":"1"}]),
        ),
        (json!({"containers":[{"name":"a","$patch":"delete"}]}), json!([{"name":"b","image":"2"}])),
        (json!({"containers":[{"name":"z"},{"$patch":"replace"}]}), json!([{"name":"z"}])),
        (json!({"containers":[{"name":"a","image":null}]}), json!([{"name":"a"},{"name":"b","image":"2"}])),
        (
            json!({"containers":[{"name":"b","$patch":"delete"},{"name":"a","command":["x"]}]}),
            json!([{"name":"a","image":"1","command":["x"]}]),
        ),
    ];
    for (patch, containers) in cases {
        let expected = json!({"spec":{"containers":containers}});
        assert_eq!(run("core.v1.Pod", pod(two()), pod(patch.clone())), Ok(expected), "{patch}");
    }
}

#[test]
fn order_of_the_server_is_kept_around_the_patch() {
    let env = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name":n,"value":"v"})).collect() };
    let order = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name":n})).collect() };
    let cases: &[(&[&str], &[&str], &[&str], &[&str])] = &[
        // live, order, patched items, result
        (&["a", "s", "b"], &["a", "b"], &[], &["a", "s", "b"]),
        (&["a", "s", "b"], &["b", "a"], &[], &["s", "b", "a"]),
        (&["a", "b", "s"], &["a", "c", "b"], &["c"], &["a", "c", "b", "s"]),
        (&["s1", "a", "s2"], &["n", "a"], &["n"], &["n", "s1", "a", "s2"]),
    ];
    for (live, wanted, patched, result) in cases {
        let mut container = json!({"name":"c","$setElementOrder/env":order(wanted)});
        if !patched.is_empty() {
            container["env"] = env(patched);
        }
        let object = pod(json!({"containers":[{"name":"c","env":env(live)}]}));
        let got = run("core.v1.Pod", object, pod(json!({"containers":[container]}))).unwrap();
        let names: Vec<&str> = got["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|e| e["name"].as_str())
            .collect();
        assert_eq!(&names, result, "{live:?} {wanted:?}");
    }
}

#[test]
fn lists_of_scalars() {
    let cases = [
        // finalizers merge
        (
            json!({"finalizers":["a","b"]}),
            json!({"finalizers":["c","a"]}),
            json!({"finalizers":["c","a","b"]}),
        ),
        (
            json!({"finalizers":["a","b","c"]}),
            json!({"$deleteFromPrimitiveList/finalizers":["b"]}),
            json!({"finalizers":["a","c"]}),
        ),
        (json!({}), json!({"$deleteFromPrimitiveList/finalizers":["b"]}), json!({})),
        (
            json!({"finalizers":["a","b"]}),
            json!({"$setElementOrder/finalizers":["b","a","c"],"finalizers":["c"]}),
            json!({"finalizers":["b","a","c"]}),
        ),
    ];
    for (object, patch, expected) in cases {
        let got = run("core.v1.Pod", json!({"metadata":object}), json!({"metadata":patch}));
        assert_eq!(got, Ok(json!({"metadata":expected})));
    }
    // args are atomic: the patch replaces
    let got = run(
        "core.v1.Pod",
        pod(json!({"containers":[{"name":"a","args":["1","2"]}]})),
        pod(json!({"containers":[{"name":"a","args":["3"]}]})),
    );
    assert_eq!(got.unwrap()["spec"]["containers"][0]["args"], json!(["3"]));
}

#[test]
fn retain_keys() {
    let object = json!({"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}});
    let patch = json!({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}});
    assert_eq!(
        run("apps.v1.Deployment", object.clone(), patch),
        Ok(json!({"spec":{"strategy":{"type":"Recreate"}}}))
    );
    let bad = json!({"spec":{"strategy":{"$retainKeys":["type"],"rollingUpdate":{}}}});
    assert_eq!(run("apps.v1.Deployment", object, bad), Err("invalid patch format of retainKeys".into()));
    let volumes = pod(json!({"volumes":[{"name":"v","emptyDir":{}}]}));
    let patch =
        pod(json!({"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/x"},
            "emptyDir":null}]}));
    assert_eq!(
        run("core.v1.Pod", volumes, patch),
        Ok(pod(json!({"volumes":[{"name":"v","hostPath":{"path":"/x"}}]})))
    );
}

#[test]
fn keys_other_than_name() {
    let object = json!({"spec":{"ports":[{"port":80,"nodePort":30000},{"port":81}]}});
    let patch = json!({"spec":{"ports":[{"port":80,"name":"http"}]}});
    let expected = json!({"spec":{"ports":[{"port":80,"nodePort":30000,"name":"http"},{"port":81}]}});
    assert_eq!(run("core.v1.Service", object, patch), Ok(expected));
    let status = json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}});
    let patch = json!({"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"MemoryPressure",
        "status":"False"}]}});
    let got = run("core.v1.Node", status, patch).unwrap();
    assert_eq!(
        got["status"]["conditions"],
        json!([{"type":"Ready","status":"True"},{"type":"MemoryPressure","status":"False"}])
    );
}

#[test]
fn refusals() {
    let object = || pod(json!({"containers":[{"name":"a"}]}));
    let cases = [
        (
            pod(json!({"containers":[{"image":"x"}]})),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            pod(json!({"containers":[{"$patch":"delete"}]})),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            pod(json!({"containers":[{"name":"a","$patch":"frob"}]})),
            "unknown patch type: frob in map: map[$patch:frob name:a]",
        ),
        (pod(json!({"$patch":"merge"})), "unknown patch type: merge in map: map[$patch:merge]"),
        (pod(json!({"$setElementOrder/containers":"x"})), "invalid patch format of setElementOrder list"),
        (json!([1]), "invalid JSON document"),
        (
            pod(json!({"$setElementOrder/containers":[{"name":"b"}],"containers":[{"name":"a"}]})),
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
    ];
    for (patch, words) in cases {
        assert_eq!(run("core.v1.Pod", object(), patch.clone()), Err(words.to_string()), "{patch}");
    }
}

#[test]
fn what_kubectl_apply_sends() {
    let live = json!({"metadata":{"annotations":{"last":"x"}},"spec":{"replicas":1,
        "template":{"spec":{"containers":[
        {"name":"web","image":"web:1","ports":[{"containerPort":80,"protocol":"TCP"}],
            "imagePullPolicy":"IfNotPresent"}]}}}});
    let patch = json!({"metadata":{"annotations":{"last":"y"}},"spec":{"replicas":3,"template":{"spec":{
        "$setElementOrder/containers":[{"name":"web"}],
        "containers":[{"name":"web","image":"web:2","$setElementOrder/ports":[{"containerPort":80}]}]}}}});
    let expected = json!({"metadata":{"annotations":{"last":"y"}},"spec":{"replicas":3,
        "template":{"spec":{"containers":[
        {"name":"web","image":"web:2","ports":[{"containerPort":80,"protocol":"TCP"}],
            "imagePullPolicy":"IfNotPresent"}]}}}});
    assert_eq!(run("apps.v1.Deployment", live, patch), Ok(expected));
}
