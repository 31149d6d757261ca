//! A table of steps by several managers, each the behaviour of one named case of upstream's own tests, with own data.
//!
//! In: applies and updates, one after the other. Out: the object after each, and who owns what at the end.
//! Places: `metadata.finalizers` is a set, `metadata.labels` a map, a container's `env` and `ports` lists by keys,
//! `spec.selector` atomic.

use super::*;
use crate::schema::table;
use jiff::Timestamp;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

/// One step: who, how, what; then what is there, or the words of the conflict.
enum Step {
    Apply(&'static str, Value, Value),
    Force(&'static str, Value, Value),
    Update(&'static str, Value, Value),
    Conflict(&'static str, Value, &'static str),
}
use Step::{Apply, Conflict, Force, Update};

fn writer(manager: &'static str, minute: usize) -> Writer<'static> {
    let now = Timestamp::from_second(1_795_435_200 + minute as i64 * 60).unwrap();
    Writer { manager, api_version: "apps/v1", subresource: "", now, reset: &["status"] }
}

fn whole(part: &Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "namespace": "d"}});
    for (name, value) in part.as_object().unwrap() {
        match name.as_str() {
            "finalizers" | "labels" | "annotations" => object["metadata"][name] = value.clone(),
            "env" | "ports" => object["spec"]["template"]["spec"]["containers"] = json!([{"name": "c", name: value}]),
            name => object["spec"][name] = value.clone(),
        }
    }
    object
}

/// The same part of the object, without what is always there.
fn part(object: &Value) -> Value {
    let mut part = Map::new();
    for name in ["finalizers", "labels", "annotations"] {
        part.extend(object["metadata"].get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let spec = object["spec"].as_object().cloned().unwrap_or_default();
    for (name, value) in spec {
        let container = &value["spec"]["containers"][0];
        match name.as_str() {
            "template" => ["env", "ports"].iter().for_each(|name| {
                part.extend(container.get(*name).map(|value| ((*name).to_owned(), value.clone())));
            }),
            _ => _ = part.insert(name, value),
        }
    }
    Value::Object(part)
}

/// Runs the steps; `owners`: whose entry has which of the fields at the end (as paths).
fn run(name: &str, steps: Vec<Step>, owners: &[(&str, &[&str])]) {
    let place = Place::of(table(), DEPLOYMENT);
    let mut live: Option<Value> = None;
    for (at, step) in steps.into_iter().enumerate() {
        let (outcome, expect) = match step {
            Apply(manager, config, expect) => (apply(live.as_ref(), &whole(&config), &writer(manager, at), false, place), expect),
            Force(manager, config, expect) => (apply(live.as_ref(), &whole(&config), &writer(manager, at), true, place), expect),
            Update(manager, config, expect) => {
                let mut new = whole(&config);
                managed::update(live.as_ref(), &mut new, &writer(manager, at), place);
                (Ok(Applied { object: new, changed: true }), expect)
            }
            Conflict(manager, config, words) => {
                let refused = apply(live.as_ref(), &whole(&config), &writer(manager, at), false, place);
                let said = refused.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(said.contains(words), "{name}, step {at}: {said:?}");
                continue;
            }
        };
        let object = outcome.unwrap_or_else(|e| panic!("{name}, step {at}: {e}")).object;
        assert_eq!(part(&object), expect, "{name}, step {at}");
        live = Some(object);
    }
    let live = live.unwrap();
    let entries = Managers::decode(managed::entries_of(&live)).unwrap().entries;
    let mut seen: Vec<(String, Vec<String>)> = entries
        .iter()
        .map(|(id, entry)| (id.manager.clone(), entry.fields.paths().iter().map(|p| path_text(p)).collect()))
        .collect();
    seen.sort();
    let mut wanted: Vec<(String, Vec<String>)> =
        owners.iter().map(|(m, paths)| ((*m).to_owned(), paths.iter().map(|p| (*p).to_owned()).collect())).collect();
    wanted.sort();
    assert_eq!(seen, wanted, "{name}: owners");
}

fn set(items: &str) -> Value {
    json!({"finalizers": items.chars().map(|c| format!("x/{c}")).collect::<Vec<_>>()})
}

#[test]
fn sets() {
    run("the same twice, with more", vec![
        Apply("a", set("ac"), set("ac")),
        Apply("a", set("abcd"), set("abcd")),
    ], &[("a", &[r#".metadata.finalizers[="x/a"]"#, r#".metadata.finalizers[="x/b"]"#, r#".metadata.finalizers[="x/c"]"#,
        r#".metadata.finalizers[="x/d"]"#])]);
    run("apply, update, apply: they overlap", vec![
        Apply("a", set("ac"), set("ac")),
        Update("u", set("abcd"), set("abcd")),
        Apply("a", set("ac"), set("abcd")),
    ], &[("a", &[r#".metadata.finalizers[="x/a"]"#, r#".metadata.finalizers[="x/c"]"#]),
        ("u", &[r#".metadata.finalizers[="x/b"]"#, r#".metadata.finalizers[="x/d"]"#])]);
    run("apply, update, apply: another order alone is no change", vec![
        Apply("a", set("abcd"), set("abcd")),
        Update("u", set("adcb"), set("adcb")),
        Apply("a", set("abcd"), set("adcb")),
    ], &[("a", &[r#".metadata.finalizers[="x/a"]"#, r#".metadata.finalizers[="x/b"]"#, r#".metadata.finalizers[="x/c"]"#,
        r#".metadata.finalizers[="x/d"]"#])]);
    run("apply twice, some are left out", vec![
        Apply("a", set("abcde"), set("abcde")),
        Apply("a", set("ace"), set("ace")),
    ], &[("a", &[r#".metadata.finalizers[="x/a"]"#, r#".metadata.finalizers[="x/c"]"#, r#".metadata.finalizers[="x/e"]"#])]);
    run("what an update brought stays when an apply does not name it", vec![
        Update("u", set("a"), set("a")),
        Apply("a", set("b"), set("ab")),
        Apply("a", json!({}), set("a")),
    ], &[("u", &[".metadata.finalizers", r#".metadata.finalizers[="x/a"]"#])]);
}

fn numbers(replicas: Option<u32>, paused: Option<bool>) -> Value {
    let mut part = Map::new();
    part.extend(replicas.map(|n| ("replicas".to_owned(), json!(n))));
    part.extend(paused.map(|p| ("paused".to_owned(), json!(p))));
    Value::Object(part)
}

#[test]
fn leaves() {
    let (three, both) = (numbers(Some(3), None), numbers(Some(3), Some(true)));
    run("a leaf with another value is a conflict, forced it changes hands", vec![
        Apply("one", both.clone(), both.clone()),
        Conflict("two", numbers(Some(4), None), "conflict with \"one\": .spec.replicas"),
        Force("two", numbers(Some(4), None), numbers(Some(4), Some(true))),
        Conflict("one", both.clone(), "conflict with \"two\": .spec.replicas"),
        Apply("one", numbers(None, Some(true)), numbers(Some(4), Some(true))),
    ], &[("one", &[".spec.paused"]), ("two", &[".spec.replicas"])]);
    run("the same value is shared, and stays until the last one lets go", vec![
        Apply("one", both.clone(), both.clone()),
        Apply("two", three.clone(), both.clone()),
        Apply("one", numbers(None, Some(true)), both.clone()),
        Apply("two", json!({}), numbers(None, Some(true))),
    ], &[("one", &[".spec.paused"])]);
    run("an update takes a leaf from its applier, who then has a conflict", vec![
        Apply("one", three.clone(), three.clone()),
        Update("u", numbers(Some(7), None), numbers(Some(7), None)),
        Conflict("one", three.clone(), "conflict with \"u\" using apps/v1: .spec.replicas"),
        Apply("one", numbers(Some(7), None), numbers(Some(7), None)),
    ], &[("one", &[".spec.replicas"]), ("u", &[".spec.replicas"])]);
    run("an update that changes nothing owns nothing", vec![
        Apply("one", three.clone(), three.clone()),
        Update("u", three.clone(), three.clone()),
    ], &[("one", &[".spec.replicas"])]);
    run("an update that removes takes from everybody", vec![
        Apply("one", both.clone(), both.clone()),
        Apply("two", three.clone(), both.clone()),
        Update("u", numbers(None, Some(true)), numbers(None, Some(true))),
    ], &[("one", &[".spec.paused"])]);
    run("two conflicts are both named", vec![
        Apply("one", both.clone(), both.clone()),
        Conflict("two", numbers(Some(1), Some(false)), "2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas"),
    ], &[("one", &[".spec.paused", ".spec.replicas"])]);
}

#[test]
fn maps() {
    let labels = |items: &[(&str, &str)]| {
        json!({"labels": items.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<Map<_, _>>()})
    };
    run("keys have owners of their own", vec![
        Apply("one", labels(&[("a", "1"), ("b", "1")]), labels(&[("a", "1"), ("b", "1")])),
        Apply("two", labels(&[("c", "2")]), labels(&[("a", "1"), ("b", "1"), ("c", "2")])),
        Conflict("two", labels(&[("a", "2")]), "conflict with \"one\": .metadata.labels.a"),
        Apply("one", labels(&[("a", "1")]), labels(&[("a", "1"), ("c", "2")])),
        Apply("one", json!({}), labels(&[("c", "2")])),
    ], &[("two", &[".metadata.labels.c"])]);
    run("an atomic map has one owner", vec![
        Apply("one", json!({"selector": {"matchLabels": {"a": "1"}}}), json!({"selector": {"matchLabels": {"a": "1"}}})),
        Conflict("two", json!({"selector": {"matchLabels": {"b": "1"}}}), "conflict with \"one\": .spec.selector"),
        Force("two", json!({"selector": {"matchLabels": {"b": "1"}}}), json!({"selector": {"matchLabels": {"b": "1"}}})),
    ], &[("two", &[".spec.selector"])]);
    run("a struct that lost its last field is gone", vec![
        Apply("one", json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}})),
        Apply("one", json!({"paused": true}), json!({"paused": true})),
    ], &[("one", &[".spec.paused"])]);
}

fn env(names: &str) -> Value {
    json!({"env": names.chars().map(|c| json!({"name": c.to_string(), "value": "v"})).collect::<Vec<_>>()})
}

#[test]
fn lists_by_keys() {
    let own = |name: &str| -> Vec<String> {
        let item = format!(".spec.template.spec.containers[name=\"c\"].env[name=\"{name}\"]");
        vec![item.clone(), format!("{item}.name"), format!("{item}.value")]
    };
    let container = [".spec.template.spec.containers[name=\"c\"]".to_owned()];
    let name = [".spec.template.spec.containers[name=\"c\"].name".to_owned()];
    let paths = |names: &[&str]| -> Vec<String> {
        container.iter().cloned().chain(names.iter().flat_map(|n| own(n))).chain(name.iter().cloned()).collect()
    };
    let text = |all: &[String]| -> Vec<&'static str> { all.iter().map(|p| &*Box::leak(p.clone().into_boxed_str())).collect() };
    let (one, two) = (text(&paths(&["a"])), text(&paths(&["b", "c"])));
    run("one of two owners of an item lets go, the item stays", vec![
        Apply("one", env("ab"), env("ab")),
        Apply("two", env("bc"), env("abc")),
        Apply("one", env("a"), env("abc")),
    ], &[("one", &one), ("two", &two)]);
    let (first, u) = (text(&paths(&["a"])), text(&own("b")));
    run("an item of an update stays when an applier lets go of its own", vec![
        Apply("one", env("a"), env("a")),
        Update("u", env("ab"), env("ab")),
        Apply("one", env("a"), env("ab")),
    ], &[("one", &first), ("u", &u)]);
    let ports = |items: Value| json!({"ports": items});
    let item = |protocol: &str| format!("{}.ports[containerPort=53,protocol={protocol:?}]", container[0]);
    let owned = text(&[container[0].clone(), name[0].clone(), item("TCP"), format!("{}.containerPort", item("TCP")),
        item("UDP"), format!("{}.containerPort", item("UDP")), format!("{}.protocol", item("UDP"))]);
    let both = ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]));
    run("a key that is left out has its default", vec![
        Apply("one", both.clone(), both.clone()),
        Apply("one", both.clone(), both),
        Conflict("one", ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "TCP"}])),
            "duplicate entries for key"),
    ], &[("one", &owned)]);
}

/// The status is another endpoint's: an entry of its own, with the subresource's name.
#[test]
fn subresources_have_entries_of_their_own() {
    let place = Place::of(table(), DEPLOYMENT);
    let first = apply(None, &whole(&numbers(Some(3), None)), &writer("me", 0), false, place).unwrap().object;
    let mut status = whole(&json!({}));
    status["status"] = json!({"observedGeneration": 1});
    status["spec"] = json!({"replicas": 9});
    let reset = &["spec", "metadata.labels", "metadata.ownerReferences"];
    let through = Writer { subresource: "status", reset, ..writer("me", 1) };
    let noted = apply(Some(&first), &status, &through, false, place).unwrap().object;
    let entries = managed::entries_of(&noted);
    let of = |subresource: Option<&str>| {
        entries.iter().find(|e| e["subresource"].as_str() == subresource).map(|e| e["fieldsV1"].clone())
    };
    assert_eq!(of(None), Some(json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!(of(Some("status")), Some(json!({"f:status": {"f:observedGeneration": {}}})));
    assert_eq!(entries.len(), 2);
}

/// `kubectl apply` becomes `kubectl apply --server-side`: what the former owned is the latter's, and can be let go.
#[test]
fn client_side_apply_is_taken_over() {
    let place = Place::of(table(), DEPLOYMENT);
    let config = whole(&json!({"replicas": 3, "paused": true, "labels": {"a": "1"}}));
    let mut live = config.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
    managed::update(None, &mut live, &writer("kubectl-client-side-apply", 0), place);
    let next = whole(&json!({"replicas": 5, "paused": true, "labels": {"a": "1"}}));
    let taken = apply(Some(&live), &next, &writer("kubectl", 1), false, place).unwrap().object;
    assert_eq!(taken["spec"]["replicas"], 5);
    let managers: Vec<&Value> = managed::entries_of(&taken).iter().map(|e| &e["manager"]).collect();
    assert!(managers.contains(&&json!("kubectl")), "{managers:?}");
    // Not kubectl, or a value that somebody changed meanwhile: a conflict as ever.
    assert!(apply(Some(&live), &next, &writer("other", 1), false, place).is_err());
}
