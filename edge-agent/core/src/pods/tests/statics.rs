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
