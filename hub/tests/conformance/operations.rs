//! The same round for every kind: found in discovery, made, read, listed, watched, patched, replaced, its status too,
//! deleted, deleted as a collection.
//!
//! In: the table in `kinds`. Out: fails with the kind's name.
//! Source: the many "should support API operations" and "lifecycle" tests of the conformance suite.

use crate::{
    kinds::{Row, rows},
    live::{Client, MERGE, names, path, version},
};
use serde_json::{Value, json};

#[test]
fn of_every_kind_first_half() {
    let all = rows();
    all[..all.len() / 2].iter().for_each(round);
}

#[test]
fn of_every_kind_second_half() {
    let all = rows();
    all[all.len() / 2..].iter().for_each(round);
}

fn round(row: &Row) {
    let mut c = Client::new("round");
    let label = format!("round={}", c.namespace);
    discovered(&mut c, row);
    let namespace = row.namespaced.then(|| c.namespace.clone());
    let collection = path(row.api_version, namespace.as_deref(), row.plural);
    let selected = format!("{collection}?labelSelector={}", label.replace('=', "%3D"));
    let one = format!("{collection}/{}", row.name(0));

    let made: Vec<Value> = (0..3).map(|at| c.made(&collection, row.object(at, &label, &c.namespace))).collect();
    assert!(made.iter().all(|m| m["metadata"]["uid"].is_string() && m["kind"] == row.kind), "{made:?}");
    assert_eq!(c.post(&collection, row.object(0, &label, &c.namespace)).0, 409, "{}: twice", row.plural);
    let read = c.got(&one);
    assert_eq!(read["metadata"]["uid"], made[0]["metadata"]["uid"]);
    let list = c.got(&selected);
    assert_eq!(list["kind"], format!("{}List", row.kind));
    let mut expect: Vec<String> = (0..3).map(|at| row.name(at)).collect();
    expect.sort();
    assert_eq!(names(&list), expect, "{}", row.plural);
    if row.namespaced {
        let everywhere = path(row.api_version, None, row.plural);
        let list = c.got(&format!("{everywhere}?labelSelector={}", label.replace('=', "%3D")));
        assert_eq!(names(&list), expect, "{}: in all namespaces", row.plural);
    }

    let mut watch = c.watch(&format!("{selected}&watch=1&resourceVersion={}", version(&list)));
    c.patched(&one, MERGE, json!({"metadata": {"annotations": {"patched": "true"}}}));
    seen(&mut watch, "MODIFIED", |object| object["metadata"]["annotations"]["patched"] == "true");
    let replaced = c.changed(&one, |object| object["metadata"]["annotations"]["updated"] = json!("true"));
    assert_eq!(replaced["metadata"]["annotations"]["patched"], "true", "{}", row.plural);
    seen(&mut watch, "MODIFIED", |object| object["metadata"]["annotations"]["updated"] == "true");
    let stale = {
        let mut object = replaced.clone();
        object["metadata"]["resourceVersion"] = json!(version(&made[0]));
        object["metadata"]["annotations"]["stale"] = json!("true");
        c.put(&one, &object)
    };
    assert_eq!((stale.0, &stale.1["reason"]), (409, &json!("Conflict")), "{}: {}", row.plural, stale.1);

    if let Some(status) = &row.status {
        status_round(&mut c, row, &one, status);
    }

    let (code, said) = c.delete(&one);
    assert!(code == 200 || code == 202, "{}: {said}", row.plural);
    c.gone(&one);
    seen(&mut watch, "DELETED", |object| object["metadata"]["name"] == row.name(0));
    let (code, said) = c.delete(&selected);
    assert_eq!(code, 200, "{}: {said}", row.plural);
    c.until(&format!("all {} are gone", row.plural), |c| names(&c.got(&selected)).is_empty());
}

/// The documents name the kind: the group, its version, the resource with its verbs.
fn discovered(c: &mut Client, row: &Row) {
    let document = match row.api_version.split_once('/') {
        None => c.got("/api/v1"),
        Some((group, version)) => {
            let groups = c.got("/apis");
            let found = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == group).cloned();
            let versions = found.unwrap_or_else(|| panic!("{group} is not in /apis"))["versions"].clone();
            assert!(versions.as_array().unwrap().iter().any(|v| v["version"] == version), "{versions}");
            assert_eq!(c.got(&format!("/apis/{group}"))["name"], group);
            c.got(&format!("/apis/{group}/{version}"))
        }
    };
    let resources = document["resources"].as_array().unwrap();
    let resource = resources.iter().find(|r| r["name"] == row.plural).unwrap_or_else(|| panic!("no {}", row.plural));
    assert_eq!((&resource["kind"], &resource["namespaced"]), (&json!(row.kind), &json!(row.namespaced)));
    for verb in ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"] {
        // These can only be deleted one by one.
        if verb == "deletecollection" && row.plural == "namespaces" {
            continue;
        }
        assert!(resource["verbs"].as_array().unwrap().iter().any(|v| v == verb), "{}: {verb}", row.plural);
    }
    let status = resources.iter().any(|r| r["name"] == format!("{}/status", row.plural));
    assert_eq!(status, row.status.is_some(), "{}/status", row.plural);
}

/// Events until the wanted one.
fn seen(watch: &mut crate::support::Watching, kind: &str, wanted: impl Fn(&Value) -> bool) {
    loop {
        let (event, object) = watch.next();
        assert!(matches!(event.as_str(), "ADDED" | "MODIFIED" | "DELETED"), "{event}: {object}");
        if event == kind && wanted(&object) {
            return;
        }
    }
}

/// GET, PATCH and PUT of the status; none of it changes the rest, and the rest changes none of it.
fn status_round(c: &mut Client, row: &Row, one: &str, status: &Value) {
    let path = format!("{one}/status");
    let before = c.got(&path);
    assert_eq!((&before["kind"], &before["metadata"]["name"]), (&json!(row.kind), &json!(row.name(0))));
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status});
    let patched = c.patched(&path, MERGE, patch);
    assert_holds(&patched["status"], status, row.plural);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true", "{}", row.plural);
    assert_eq!(patched["spec"], before["spec"], "{}", row.plural);
    assert_eq!(patched["metadata"]["generation"], before["metadata"]["generation"], "{}", row.plural);
    let put = c.changed(&path, |object| {
        object["metadata"]["annotations"]["putstatus"] = json!("true");
        if object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let own = object["status"].as_object_mut().unwrap();
        own.extend(status.as_object().unwrap().clone());
    });
    assert_holds(&put["status"], status, row.plural);
    assert_eq!(put["spec"], before["spec"], "{}: the spec is not written through the status", row.plural);
    assert_eq!(put["metadata"]["annotations"]["putstatus"], "true", "{}", row.plural);
    // The other way round. A controller may have written meanwhile what it thinks itself.
    let whole = c.changed(one, |object| object["status"] = json!({}));
    let kept = whole["status"].as_object().is_some_and(|status| !status.is_empty());
    assert!(kept, "{}: the status is not written through the object", row.plural);
    // Controllers write their own conditions; one of somebody else's stays.
    if let Some(conditions) = status.get("conditions") {
        assert_holds(&whole["status"]["conditions"], conditions, row.plural);
    }
}

/// Everything in `part` is in `whole`; lists may have more.
fn assert_holds(whole: &Value, part: &Value, of: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().for_each(|(name, part)| assert_holds(whole.get(name).unwrap_or(&Value::Null), part, of));
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().for_each(|part| assert!(whole.contains(part), "{of}: {part} is not in {whole:?}"));
        }
        _ => assert_eq!(whole, part, "{of}"),
    }
}
