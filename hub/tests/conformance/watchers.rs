//! Watches as informers need them: who selects by label sees an object come and go, a watch begins where another one
//! ended, all watchers see one order.
//!
//! In: the hub of `live`. Out: fails on an event too many, too few or in another place.
//! Source: the "Watchers" tests of the conformance suite.

use crate::live::{Client, MERGE, version};
use serde_json::{Value, json};

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch": label}}})
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

#[test]
fn three_selections_see_their_own_changes() {
    let mut c = Client::new("watch");
    let maps = c.at("v1", "configmaps");
    let from = version(&c.got(&maps));
    let watch = |c: &Client, selector: &str| c.watch(&format!("{maps}?watch=1&resourceVersion={from}&labelSelector={selector}"));
    let (mut a, mut b, mut both) = (watch(&c, "watch%3Da"), watch(&c, "watch%3Db"), watch(&c, "watch+in+%28a%2Cb%29"));
    c.made(&maps, map("one", "a"));
    for number in 1..=2 {
        c.patched(&format!("{maps}/one"), MERGE, json!({"data": {"mutation": number.to_string()}}));
    }
    c.delete(&format!("{maps}/one"));
    c.made(&maps, map("two", "b"));
    c.delete(&format!("{maps}/two"));
    for watch in [&mut a, &mut both] {
        assert_eq!(watch.next_name(), event("ADDED", "one"));
        for number in ["1", "2"] {
            let (kind, object) = watch.next();
            assert_eq!((kind.as_str(), &object["data"]["mutation"]), ("MODIFIED", &json!(number)));
        }
        assert_eq!(watch.next_name(), event("DELETED", "one"));
    }
    for watch in [&mut b, &mut both] {
        assert_eq!(watch.next_name(), event("ADDED", "two"));
        assert_eq!(watch.next_name(), event("DELETED", "two"));
    }
}

#[test]
fn a_watch_begins_at_any_version_and_goes_on_where_one_ended() {
    let mut c = Client::new("watch");
    let maps = c.at("v1", "configmaps");
    let one = format!("{maps}/one");
    c.made(&maps, map("one", "x"));
    let first = c.patched(&one, MERGE, json!({"data": {"mutation": "1"}}));
    c.patched(&one, MERGE, json!({"data": {"mutation": "2"}}));
    c.delete(&one);
    let from = |c: &Client, version: &str| c.watch(&format!("{maps}?watch=1&resourceVersion={version}&labelSelector=watch%3Dx"));
    let mut watch = from(&c, &version(&first));
    let (kind, object) = watch.next();
    assert_eq!((kind.as_str(), &object["data"]["mutation"]), ("MODIFIED", &json!("2")));
    // The connection breaks; what came meanwhile is not lost.
    let (kind, last) = watch.next();
    assert_eq!(kind, "DELETED");
    drop(watch);
    c.made(&maps, map("one", "x"));
    c.patched(&one, MERGE, json!({"data": {"mutation": "3"}}));
    let mut again = from(&c, &version(&last));
    assert_eq!(again.next_name(), event("ADDED", "one"));
    assert_eq!(again.next().1["data"]["mutation"], "3");
}

#[test]
fn an_object_that_leaves_the_selection_is_deleted_and_added_when_it_comes_back() {
    let mut c = Client::new("watch");
    let maps = c.at("v1", "configmaps");
    let one = format!("{maps}/one");
    let relabel = |label: &str| json!({"metadata": {"labels": {"watch": label}}});
    c.made(&maps, map("one", "in"));
    let from = version(&c.got(&one));
    let mut watch = c.watch(&format!("{maps}?watch=1&resourceVersion={from}&labelSelector=watch%3Din"));
    c.patched(&one, MERGE, json!({"data": {"mutation": "1"}}));
    c.patched(&one, MERGE, relabel("out"));
    c.patched(&one, MERGE, json!({"data": {"mutation": "2"}}));
    c.patched(&one, MERGE, relabel("in"));
    c.patched(&one, MERGE, json!({"data": {"mutation": "3"}}));
    c.delete(&one);
    for (kind, mutation) in [("MODIFIED", "1"), ("DELETED", "1"), ("ADDED", "2"), ("MODIFIED", "3"), ("DELETED", "3")] {
        let (seen, object) = watch.next();
        assert_eq!((seen.as_str(), &object["data"]["mutation"]), (kind, &json!(mutation)));
    }
}

#[test]
fn all_watchers_see_one_order() {
    let mut c = Client::new("watch");
    let maps = c.at("v1", "configmaps");
    let start = version(&c.got(&maps));
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let maps = maps.clone();
            scope.spawn(move || {
                let mut c = Client::new("writer");
                for number in 0..20 {
                    let name = format!("w{writer}-{}", number % 4);
                    match c.post(&maps, map(&name, "order")).0 {
                        201 => {}
                        _ if number % 3 == 0 => drop(c.delete(&format!("{maps}/{name}"))),
                        _ => drop(c.patched(&format!("{maps}/{name}"), MERGE, json!({"data": {"n": number.to_string()}}))),
                    }
                }
            });
        }
    });
    c.made(&maps, map("last", "order"));
    let order = |from: &str| {
        let mut watch = c.watch(&format!("{maps}?watch=1&resourceVersion={from}&labelSelector=watch%3Dorder"));
        let mut seen = Vec::new();
        loop {
            let (kind, object) = watch.next();
            let last = object["metadata"]["name"] == "last";
            seen.push((kind, version(&object)));
            if last {
                return seen;
            }
        }
    };
    let whole = order(&start);
    assert!(whole.len() > 30, "{}", whole.len());
    assert!(whole.windows(2).all(|pair| pair[0].1.parse::<u64>().unwrap() < pair[1].1.parse::<u64>().unwrap()));
    // From each version on: the rest of the same.
    for at in (0..whole.len() - 1).step_by(7) {
        assert_eq!(order(&whole[at].1), whole[at + 1..], "from {}", whole[at].1);
    }
}

#[test]
fn a_list_made_by_watching_ends_with_a_mark() {
    let mut c = Client::new("watch");
    let secrets = c.at("v1", "secrets");
    for name in ["a", "b"] {
        c.made(&secrets, map(name, "x"));
    }
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&labelSelector=watch%3Dx";
    let mut watch = c.watch(&format!("{secrets}?{query}"));
    assert_eq!((watch.next_name(), watch.next_name()), (event("ADDED", "a"), event("ADDED", "b")));
    let (kind, mark) = watch.next();
    assert_eq!((kind.as_str(), &mark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
    assert_eq!((&mark["kind"], &mark["apiVersion"]), (&json!("Secret"), &json!("v1")));
    for wrong in [
        "watch=1&sendInitialEvents=true&allowWatchBookmarks=true",
        "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
        "watch=1&resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    ] {
        let (code, status) = c.get(&format!("{secrets}?{wrong}&timeoutSeconds=1"));
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{wrong}: {status}");
    }
}
