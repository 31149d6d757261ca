//! Pods of the board itself.

use super::super::*;
use super::world::*;
use limpet_protocol::ItemKind;
use serde_json::{Value, json};

fn manifest(image: &str) -> StaticPod {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: s}}\nspec:\n  containers:\n  - {{name: c, image: {image}}}\n");
    static_pod(&text, "s.yaml", "n1").unwrap()
}

fn mirror(pod: &StaticPod, uid: &str, deleting: bool) -> Value {
    let mut mirror = pod.mirror.clone();
    mirror["metadata"]["uid"] = uid.into();
    if deleting {
        mirror["metadata"]["deletionTimestamp"] = json!("2026-11-23T11:00:00Z");
    }
    mirror
}

#[test]
fn it_runs_without_a_hub_and_reports_to_its_mirror() {
    let mut w = World::new();
    let pod = manifest("i:1");
    w.input(Input::Static(vec![pod.clone()]));
    w.run(1000);
    assert_eq!(w.running.len(), 1);
    assert!(w.status.is_empty(), "there is nobody to tell yet");
    assert!(w.log.contains(&"remirror".to_string()));
    w.put(ItemKind::Pod, "s-n1", mirror(&pod, "m1", false));
    w.run(0);
    assert_eq!((w.phase("s-n1"), w.reported_to["s-n1"].as_str()), ("Running", "m1"));
    assert_eq!(w.running.len(), 1, "the mirror itself does not run");
}

#[test]
fn a_deleted_mirror_comes_back_and_the_pod_runs_on() {
    let mut w = World::new();
    let pod = manifest("i:1");
    w.input(Input::Static(vec![pod.clone()]));
    w.put(ItemKind::Pod, "s-n1", mirror(&pod, "m1", false));
    w.run(1000);
    w.put(ItemKind::Pod, "s-n1", mirror(&pod, "m1", true));
    w.run(100);
    assert_eq!(w.gone_uids, ["m1"]);
    w.log.clear();
    w.remove(ItemKind::Pod, "s-n1");
    assert_eq!(w.log_without_volumes(), ["remirror"]);
    w.put(ItemKind::Pod, "s-n1", mirror(&pod, "m2", false));
    w.run(100);
    assert_eq!(w.reported_to["s-n1"], "m2");
    assert_eq!((w.running.len(), w.plans.len()), (1, 1));
}

#[test]
fn a_changed_file_is_a_new_pod_and_a_removed_one_ends() {
    let mut w = World::new();
    w.input(Input::Static(vec![manifest("i:1")]));
    w.run(1000);
    w.input(Input::Static(vec![manifest("i:2")]));
    w.run(60_000);
    assert_eq!(w.running.iter().map(|r| r.uid.to_string()).collect::<Vec<_>>(), [manifest("i:2").uid]);
    // The next agent reads the directory before it begins, and finds its containers.
    let mut next = w.successor_with(false, vec![manifest("i:2")]);
    next.run(1000);
    assert!(next.plans.is_empty() && next.running.len() == 1);
    next.input(Input::Static(Vec::new()));
    next.run(60_000);
    assert!(next.running.is_empty() && next.memories.is_empty());
}

/// Two of them would write to the same directory, and want the same port.
#[test]
fn a_changed_file_waits_for_the_pod_that_was() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.input(Input::Static(vec![manifest("i:1")]));
    w.run(1000);
    let uids = |w: &World| w.running.iter().map(|r| r.uid.to_string()).collect::<Vec<_>>();
    w.input(Input::Static(vec![manifest("i:2")]));
    w.run(10_000);
    w.input(Input::Static(vec![manifest("i:3")]));
    w.run(10_000);
    assert_eq!(uids(&w), [manifest("i:1").uid], "it has 30 seconds");
    assert!(w.manager.wake_at().is_some_and(|(at, _)| at > w.now.mono_ms));
    w.run(20_000);
    assert_eq!(uids(&w), [manifest("i:3").uid]);
    assert_eq!(w.plans.len(), 2, "the one between never began");
    // Back to a file that was: as good as any other.
    w.behave.clear();
    w.input(Input::Static(vec![manifest("i:1")]));
    w.run(10_000);
    assert_eq!(uids(&w), [manifest("i:1").uid]);
    // It changes while nobody is there: the next agent ends what it finds first.
    let mut next = w.successor_with(false, vec![manifest("i:2")]);
    next.run(1000);
    assert_eq!(uids(&next), [manifest("i:2").uid]);
    assert_eq!(next.log_without_volumes(), ["remove pod", "sandbox", "start c 0"]);
}

/// A file that is taken away and put back starts its pod anew, also while the one that was is still ending.
#[test]
fn a_file_that_comes_back_is_a_pod_again() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    for between in [vec![], vec![manifest("i:2")]] {
        w.input(Input::Static(vec![manifest("i:1")]));
        w.run(60_000);
        let starts = w.plans.len();
        w.input(Input::Static(between));
        w.run(5000);
        w.input(Input::Static(vec![manifest("i:1")]));
        w.run(60_000);
        assert_eq!((w.running.len(), w.plans.len()), (1, starts + 1));
        assert_eq!(w.running.iter().next().unwrap().uid.to_string(), manifest("i:1").uid);
    }
}
