//! Cases of server-side apply on built-in kinds and on objects without a schema.

use super::*;
use crate::schema::table;
use jiff::Timestamp;

const NOON: i64 = 1_795_435_200;

fn place() -> Place<'static> {
    Place::of(table(), "io.k8s.api.apps.v1.Deployment")
}

fn writer(manager: &str, minute: i64) -> Writer<'_> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: Timestamp::from_second(NOON + minute * 60).unwrap(),
        reset: &["status"],
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"default"},
        "spec":spec})
}

fn run(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    minute: i64,
    force: bool,
) -> Result<Applied, ApplyError> {
    apply(live, applied, &writer(manager, minute), force, place())
}

fn fields(object: &Value, manager: &str) -> Option<Value> {
    let entries = managed::entries_of(object);
    entries.iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone())
}

fn updated(live: &Value, manager: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = live.clone();
    change(&mut new);
    managed::update(Some(live), &mut new, &writer(manager, 9), place());
    new
}

#[test]
fn creates_and_owns_what_it_says() {
    let spec = json!({"replicas":3,"template":{"spec":{"containers":[{"name":"c","image":"i",
        "ports":[{"containerPort":80}]}]}}});
    let made = run(None, &config(spec), "me", 0, false).unwrap();
    assert!(made.changed);
    let entry = &managed::entries_of(&made.object)[0];
    let expected = json!({
        "manager":"me","operation":"Apply","apiVersion":"apps/v1","time":"2026-11-23T12:00:00Z",
            "fieldsType":"FieldsV1",
        "fieldsV1":{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{
            ".":{},"f:name":{},"f:image":{},
            "f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}
    });
    assert_eq!(entry, &expected);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let applied = config(json!({"replicas":3}));
    let first = run(None, &applied, "me", 0, false).unwrap().object;
    let again = run(Some(&first), &applied, "me", 5, false).unwrap();
    assert_eq!(again, Applied { object: first, changed: false });
}

#[test]
fn conflicts_are_named_in_upstream_words() {
    let first = run(None, &config(json!({"replicas":3,"paused":true})), "one", 0, false).unwrap().object;
    let error = run(Some(&first), &config(json!({"replicas":5})), "two", 1, false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!(
        error.causes(),
        [json!({"reason":"FieldManagerConflict","message":"conflict with \"one\"","field":".spec.replicas"})]
    );
    let by_update = updated(&first, "kubectl-client-side-apply", |o| o["spec"]["replicas"] = json!(4));
    let error = run(Some(&by_update), &config(json!({"replicas":5})), "two", 1, false).unwrap_err();
    let words = "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: \
        .spec.replicas";
    assert_eq!(error.to_string(), words);
    let error =
        run(Some(&by_update), &config(json!({"replicas":5,"paused":false})), "two", 1, false).unwrap_err();
    let words = "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using \
        apps/v1:\n- .spec.replicas\n\
         conflicts with \"one\":\n- .spec.paused";
    assert_eq!(error.to_string(), words);
}

#[test]
fn the_same_value_is_shared_and_force_takes() {
    let first = run(None, &config(json!({"replicas":3,"paused":true})), "one", 0, false).unwrap().object;
    let shared = run(Some(&first), &config(json!({"replicas":3})), "two", 1, false).unwrap().object;
    assert_eq!(fields(&shared, "one"), Some(json!({"f:spec":{"f:replicas":{},"f:paused":{}}})));
    assert_eq!(fields(&shared, "two"), Some(json!({"f:spec":{"f:replicas":{}}})));
    // Shared: one gives it up, the value stays because two owns it.
    let given = run(Some(&shared), &config(json!({"paused":true})), "one", 2, false).unwrap().object;
    assert_eq!(given["spec"], json!({"replicas":3,"paused":true}));
    assert_eq!(fields(&given, "one"), Some(json!({"f:spec":{"f:paused":{}}})));
    // Now nobody is left who wants it.
    let gone = run(Some(&given), &config(json!({})), "two", 3, false).unwrap().object;
    assert_eq!(gone["spec"], json!({"paused":true}));
    let forced = run(Some(&shared), &config(json!({"replicas":9})), "two", 2, true).unwrap().object;
    assert_eq!(forced["spec"]["replicas"], json!(9));
    assert_eq!(fields(&forced, "one"), Some(json!({"f:spec":{"f:paused":{}}})));
}

#[test]
fn what_is_no_longer_applied_goes_but_strangers_stay() {
    let containers =
        |names: &[&str]| -> Value { names.iter().map(|n| json!({"name":n,"image":"i"})).collect() };
    let spec = |c: Value| json!({"template":{"metadata":{"labels":{"a":"1"}},"spec":{"containers":c}}});
    let first = run(None, &config(spec(containers(&["x", "y"]))), "me", 0, false).unwrap().object;
    let live = updated(&first, "sidecar", |o| {
        o["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name":"s","image":"s"}));
        o["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    });
    let next = run(Some(&live), &config(spec(containers(&["x"]))), "me", 1, false).unwrap().object;
    let expected = json!([{"name":"x","image":"i","imagePullPolicy":"Always"},{"name":"s","image":"s"}]);
    assert_eq!(next["spec"]["template"]["spec"]["containers"], expected);
    let bare = run(Some(&next), &config(json!({"replicas":1})), "me", 2, false).unwrap().object;
    // x itself was mine alone: owning a field of an item is not owning the item.
    assert_eq!(bare["spec"]["template"]["spec"]["containers"], json!([{"name":"s","image":"s"}]));
    assert_eq!(bare["metadata"]["name"], json!("web"));
}

#[test]
fn metadata_survives_when_nobody_owns_any_of_it() {
    let mut applied = config(json!({"replicas":1}));
    applied["metadata"]["labels"] = json!({"a":"1"});
    let mut first = run(None, &applied, "me", 0, false).unwrap().object;
    first["metadata"]["uid"] = json!("u");
    let next = run(Some(&first), &config(json!({"replicas":1})), "me", 1, false).unwrap().object;
    assert_eq!(managed::stripped(&next)["metadata"], json!({"name":"web","namespace":"default","uid":"u"}));
}

#[test]
fn atomic_places_are_owned_whole() {
    let selector = |v: &str| config(json!({"selector":{"matchLabels":{"app":v}}}));
    let first = run(None, &selector("a"), "me", 0, false).unwrap().object;
    assert_eq!(fields(&first, "me"), Some(json!({"f:spec":{"f:selector":{}}})));
    let error = run(Some(&first), &selector("b"), "two", 1, false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.selector");
    let next = run(Some(&first), &selector("b"), "me", 1, false).unwrap().object;
    assert_eq!(next["spec"]["selector"], json!({"matchLabels":{"app":"b"}}));
}

#[test]
fn keyed_lists_keep_an_order_that_suits_both() {
    let env =
        |names: &str| -> Value { names.chars().map(|n| json!({"name":n.to_string(),"value":"v"})).collect() };
    let spec =
        |names: &str| config(json!({"template":{"spec":{"containers":[{"name":"c","env":env(names)}]}}}));
    let cases = [
        ("abc", "abc"),
        ("ab", "ba"),
        ("sab", "ab"),
        ("asb", "ab"),
        ("abs", "acb"),
        ("xayb", "ba"),
        ("", "ab"),
        ("xy", "ab"),
    ];
    let expected = ["abc", "ba", "sab", "asb", "acbs", "xyba", "ab", "xyab"];
    for ((live, applied), expected) in cases.into_iter().zip(expected) {
        let first = updated(&run(None, &spec(""), "z", 0, false).unwrap().object, "u", |o| {
            o["spec"]["template"]["spec"]["containers"][0]["env"] = env(live);
        });
        let next = run(Some(&first), &spec(applied), "me", 1, true).unwrap().object;
        let list = next["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        let names: String = list.iter().filter_map(|e| e["name"].as_str()).collect();
        assert_eq!(names, expected, "{live} + {applied}");
    }
}

#[test]
fn refusals() {
    let place = place();
    let bad = |change: fn(&mut Value)| {
        let mut applied = config(json!({"replicas":1}));
        change(&mut applied);
        apply(None, &applied, &writer("me", 0), false, place).unwrap_err().to_string()
    };
    let typed = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): ";
    assert_eq!(
        bad(|o| o["spec"]["foo"] = json!(1)),
        format!("{typed}.spec.foo: field not declared in schema")
    );
    assert_eq!(
        bad(|o| o["spec"]["replicas"] = json!("3")),
        format!("{typed}.spec.replicas: expected numeric (int or float), got string")
    );
    assert_eq!(bad(|o| o["metadata"]["managedFields"] = json!([])), "metadata.managedFields must be nil");
    assert_eq!(
        bad(|o| o["apiVersion"] = json!("apps/v1beta1")),
        "Incorrect version specified in apply patch. Specified patch version: apps/v1beta1, expected: apps/v1"
    );
    assert_eq!(
        bad(|o| o["spec"] = json!({"template":{"spec":{"containers":[{"image":"x"}]}}})),
        format!(
            "{typed}.spec.template.spec.containers: element 0: associative list with keys has an element \
                that omits key field \"name\" (and doesn't have default value)"
        )
    );
    assert_eq!(
        bad(|o| o["spec"] = json!({"template":{"spec":{"containers":[{"name":"x"},{"name":"x"}]}}})),
        format!("{typed}.spec.template.spec.containers: duplicate entries for key [name=\"x\"]")
    );
    assert!(
        bad(|o| {
            o["spec"]["a"] = json!(1);
            o["spec"]["b"] = json!(1)
        })
        .contains("errors:\n  .spec.a: field")
    );
}

#[test]
fn objects_that_were_never_applied_are_before_first_apply() {
    let mut live = config(json!({"replicas":3}));
    live["metadata"]["uid"] = json!("u");
    let error = run(Some(&live), &config(json!({"replicas":4})), "me", 0, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let next = run(Some(&live), &config(json!({"replicas":3})), "me", 0, false).unwrap().object;
    assert!(fields(&next, "me").is_some() && fields(&next, BEFORE_FIRST_APPLY).is_some());
}

#[test]
fn kubectl_takes_over_from_its_client_side_past() {
    let last = config(json!({"replicas":3}));
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
    managed::update(None, &mut live, &writer("kubectl-client-side-apply", 0), place());
    let applied = config(json!({"replicas":4}));
    assert!(run(Some(&live), &applied, "other", 1, false).is_err());
    let next = run(Some(&live), &applied, "kubectl", 1, false).unwrap().object;
    assert_eq!(next["spec"]["replicas"], json!(4));
    let annotation = next["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), applied);
    // Changed by somebody since: a conflict again.
    let scaled = updated(&live, "someone", |o| o["spec"]["replicas"] = json!(7));
    assert!(run(Some(&scaled), &applied, "kubectl", 1, false).is_err());
}

#[test]
fn objects_without_schema() {
    let place = Place::deduced(table());
    let w = |m: &'static str| Writer { api_version: "x.io/v1", reset: &[], ..writer(m, 0) };
    let object = |spec: Value| {
        json!({"apiVersion":"x.io/v1","kind":"Foo","metadata":{"name":"f",
        "finalizers":["a/b"]},"spec":spec})
    };
    let first = apply(None, &object(json!({"a":{"b":1},"l":[1,2]})), &w("me"), false, place).unwrap().object;
    let expected = json!({"f:metadata":{"f:finalizers":{"v:\"a/b\"":{}}},"f:spec":{".":{},"f:a":{".":{},
        "f:b":{}},"f:l":{}}});
    assert_eq!(fields(&first, "me"), Some(expected));
    let error = apply(Some(&first), &object(json!({"l":[3]})), &w("two"), false, place).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.l");
    let next = apply(Some(&first), &object(json!({"a":{"c":1}})), &w("me"), false, place).unwrap().object;
    assert_eq!(next["spec"], json!({"a":{"c":1}}));
}

#[test]
fn status_is_not_owned_through_the_main_resource() {
    let mut applied = config(json!({"replicas":1}));
    applied["status"] = json!({"replicas":1});
    let made = run(None, &applied, "me", 0, false).unwrap().object;
    assert_eq!(fields(&made, "me"), Some(json!({"f:spec":{"f:replicas":{}}})));
}
