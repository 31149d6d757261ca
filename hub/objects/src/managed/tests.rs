//! Cases of managedFields at ordinary writes.

use super::*;
use crate::schema::table;

fn place(kind: &str) -> Place<'static> {
    Place::of(table(), &format!("io.k8s.api.{kind}"))
}

fn writer(manager: &str, minute: i64) -> Writer<'_> {
    let now = Timestamp::from_second(1_795_435_200 + minute * 60).unwrap();
    Writer { manager, api_version: "v1", subresource: "", now, reset: &["status"] }
}

fn entry<'v>(object: &'v Value, manager: &str) -> Option<&'v Value> {
    entries_of(object).iter().find(|e| e["manager"] == manager)
}

fn pod() -> Value {
    json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"d","uid":"u","labels":{"a":"1"}},
        "spec":{"containers":[{"name":"c","image":"i","resources":{}}],"tolerations":[{"key":"k"}]}})
}

#[test]
fn a_create_owns_everything_but_the_common_metadata() {
    let mut object = pod();
    update(None, &mut object, &writer("kubectl-create", 0), place("core.v1.Pod"));
    let expected = json!([{
        "manager":"kubectl-create","operation":"Update","apiVersion":"v1","time":"2026-11-23T12:00:00Z",
            "fieldsType":"FieldsV1",
        "fieldsV1":{
            "f:metadata":{"f:labels":{".":{},"f:a":{}}},
            "f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},
                "f:resources":{}}},"f:tolerations":{}}
        }
    }]);
    assert_eq!(object["metadata"]["managedFields"], expected);
}

#[test]
fn an_update_moves_what_it_changed_and_only_that() {
    let place = place("core.v1.Pod");
    let mut first = pod();
    update(None, &mut first, &writer("one", 0), place);
    let mut second = first.clone();
    second["metadata"]["resourceVersion"] = json!("7");
    update(Some(&first), &mut second, &writer("two", 5), place);
    assert_eq!(second["metadata"]["managedFields"], first["metadata"]["managedFields"], "nothing changed");
    second["spec"]["containers"][0]["image"] = json!("j");
    second["metadata"]["labels"] = json!({"b":"2"});
    update(Some(&first), &mut second, &writer("two", 5), place);
    let image = json!({"f:containers":{"k:{\"name\":\"c\"}":{"f:image":{}}}});
    assert_eq!(
        entry(&second, "two").unwrap()["fieldsV1"],
        json!({"f:metadata":{"f:labels":{"f:b":{}}},"f:spec":image})
    );
    assert_eq!(entry(&second, "two").unwrap()["time"], json!("2026-11-23T12:05:00Z"));
    let left = &entry(&second, "one").unwrap()["fieldsV1"];
    assert_eq!(left["f:metadata"], json!({"f:labels":{}}));
    assert_eq!(
        left["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"],
        json!({".":{},"f:name":{},"f:resources":{}})
    );
    assert_eq!(entry(&second, "one").unwrap()["time"], json!("2026-11-23T12:00:00Z"));
}

#[test]
fn subresources_have_managers_of_their_own() {
    let place = place("core.v1.Pod");
    let mut first = pod();
    update(None, &mut first, &writer("kubelet", 0), place);
    let mut second = first.clone();
    second["status"] = json!({"phase":"Running","conditions":[{"type":"Ready","status":"True"}]});
    let status = Writer { subresource: "status", reset: &["spec"], ..writer("kubelet", 1) };
    second["metadata"]["managedFields"] = json!([{}]);
    update(Some(&first), &mut second, &status, place);
    assert_eq!(entries_of(&second).len(), 2, "managedFields are not settable through a subresource");
    let own = entries_of(&second).iter().find(|e| e["subresource"] == "status").unwrap();
    let expected = json!({"f:status":{"f:phase":{},"f:conditions":{".":{},
        "k:{\"type\":\"Ready\"}":{".":{},"f:status":{},"f:type":{}}}}});
    // `status` is there from the start upstream; here its first writer owns its existence too.
    assert_eq!(without_dot(own["fieldsV1"].clone()), expected);
}

fn without_dot(mut fields: Value) -> Value {
    if let Some(status) = fields.get_mut("f:status").and_then(Value::as_object_mut) {
        status.remove(".");
    }
    fields
}

#[test]
fn clients_edit_and_reset_managed_fields() {
    let place = place("core.v1.Pod");
    let mut first = pod();
    update(None, &mut first, &writer("one", 0), place);
    let mut reset = first.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(Some(&first), &mut reset, &writer("two", 1), place);
    assert_eq!(reset["metadata"].get("managedFields"), None);
    // Tracking nothing, it goes on tracking nothing.
    let mut later = reset.clone();
    later["spec"]["containers"][0]["image"] = json!("z");
    update(Some(&reset), &mut later, &writer("two", 2), place);
    assert_eq!(later["metadata"].get("managedFields"), None);
    // What kubectl's migration from client-side apply sends.
    let mut renamed = first.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
    renamed["metadata"]["managedFields"][0]["operation"] = json!("Apply");
    let expected = renamed["metadata"]["managedFields"].clone();
    update(Some(&first), &mut renamed, &writer("two", 1), place);
    assert_eq!(renamed["metadata"]["managedFields"], expected);
    for broken in [
        json!(null),
        json!("x"),
        json!([{"operation":"Frob"}]),
        json!([]),
        json!([{"operation":"Update","fieldsType":"FieldsV1","fieldsV1":{"f":{}}}]),
    ] {
        let mut object = first.clone();
        object["metadata"]["managedFields"] = broken.clone();
        update(Some(&first), &mut object, &writer("two", 1), place);
        assert_eq!(object["metadata"]["managedFields"], first["metadata"]["managedFields"], "{broken}");
    }
}

#[test]
fn old_update_managers_are_folded() {
    let place = place("core.v1.Pod");
    let mut object = pod();
    update(None, &mut object, &writer("m00", 0), place);
    for i in 1..15 {
        let before = object.clone();
        object["metadata"]["labels"][format!("l{i:02}")] = json!("x");
        update(Some(&before), &mut object, &writer(&format!("m{i:02}"), i), place);
    }
    assert_eq!(entries_of(&object).len(), UPDATE_MANAGERS_MAX);
    let ancient = entry(&object, "ancient-changes").unwrap();
    assert!(ancient["fieldsV1"]["f:metadata"]["f:labels"]["f:l01"].is_object());
    assert!(entry(&object, "m14").is_some() && entry(&object, "m01").is_none());
    assert_eq!(ancient["time"], json!("2026-11-23T12:05:00Z"));
}

#[test]
fn names_of_managers() {
    let long = "x".repeat(200);
    let cases = [
        (Some("me"), Some("kubectl/v1.36"), "me"),
        (None, Some("kubectl/v1.36.1 (linux)"), "kubectl"),
        (Some(""), Some("curl/8"), "curl"),
        (None, None, "unknown"),
        (None, Some("a\u{7}b"), "ab"),
        (None, Some(long.as_str()), &long[..128]),
    ];
    for (field_manager, agent, expected) in cases {
        assert_eq!(manager_name(field_manager, agent), expected);
    }
    assert!(
        check_manager_name("ok").is_none()
            && check_manager_name(&long).is_some()
            && check_manager_name("a\n").is_some()
    );
}

#[test]
fn entries_are_sorted_and_bad_ones_refused() {
    let e = |m: &str, op: &str, t: &str| json!({"manager":m,"operation":op,"apiVersion":"v1",
        "fieldsType":"FieldsV1","fieldsV1":{"f:a":{}},"time":t});
    let list = json!([
        e("b", "Update", "2026-01-02T00:00:00Z"),
        e("z", "Update", "2026-01-01T00:00:00Z"),
        e("c", "Apply", "2026-01-03T00:00:00Z")
    ]);
    let names: Vec<Value> =
        Managers::decode_value(&list).unwrap().encode().iter().map(|e| e["manager"].clone()).collect();
    assert_eq!(names, [json!("c"), json!("z"), json!("b")]);
    assert!(Managers::decode_value(&json!([{"operation":"Update","fieldsType":"FieldsV2"}])).is_err());
}
