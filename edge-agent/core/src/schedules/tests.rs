//! Runs that a board starts by itself.
//!
//! In: schedules, the time, a hub that is there or not. Out: pods. Never: a clock.

use super::*;

/// 2026-11-23T10:00:00Z
const TEN: i64 = 1_795_428_000;

fn at(second: i64) -> Now {
    Now { mono_ms: second as u64 * 1000, wall_ms: (TEN + second) as u64 * 1000 }
}

fn items(policy: &str, deadline: Value) -> Items {
    let all = u64::MAX;
    // Every ten minutes.
    let minute = 1_u64 | 1 << 10 | 1 << 20 | 1 << 30 | 1 << 40 | 1 << 50;
    let schedule = Schedule {
        minute, hour: all, day: all, month: all, weekday: all, any_day: true, any_weekday: true, offsets: vec![],
    };
    let body = json!({"uid": "cron-uid", "schedule": schedule, "policy": policy, "deadlineSeconds": deadline,
        "template": {"metadata": {"labels": {"l": "1"}}, "spec": {"restartPolicy": "OnFailure",
            "containers": [{"name": "c", "image": "i"}]}}});
    let mut items = Items::default();
    let key = ItemKey::new(ItemKind::Schedule, "a", "backup");
    items.put(key, 7, &serde_json::to_vec(&body).unwrap());
    items
}

/// Looks at each of the seconds; what was started, by name.
fn run(s: &mut Schedules, items: &mut Items, seconds: &[i64], hub: bool) -> Vec<String> {
    let pods = PodManager::new();
    let mut names = Vec::new();
    for second in seconds {
        for due in s.look(at(*second), items, &pods, hub) {
            let Due::Start(item) = due else { continue };
            names.push(item.key.name.clone());
            items.put(item.key, item.generation, &item.body);
        }
    }
    names
}

#[test]
fn images_of_runs_to_come_are_known() {
    assert_eq!(images(&items("Allow", Value::Null)), ["i"]);
    let mut several = items("Allow", Value::Null);
    let volumes = json!([{"image": {"reference": "c"}}, {"emptyDir": {}}]);
    let spec = json!({"initContainers": [{"image": "a"}], "containers": [{"image": "b"}, {}], "volumes": volumes});
    let body = json!({"uid": "u", "template": {"spec": spec}});
    several.put(ItemKey::new(ItemKind::Schedule, "a", "other"), 1, &serde_json::to_vec(&body).unwrap());
    assert_eq!(images(&several), ["i", "a", "b", "c"]);
}

#[test]
fn fires_without_the_hub_and_under_the_hubs_names() {
    let (mut s, mut i) = (Schedules::default(), items("Allow", Value::Null));
    assert!(run(&mut s, &mut i, &[0, 1, 599, 614], false).is_empty(), "not before its time, and a moment more");
    let started = run(&mut s, &mut i, &[615, 616, 700], false);
    let wanted = Run::of("cron-uid", "backup", TEN + 600);
    assert_eq!(started, [wanted.pod.clone()]);
    let pod: Value = serde_json::from_slice(&i.by_key(&ItemKey::new(ItemKind::Pod, "a", &wanted.pod)).unwrap().body()).unwrap();
    assert_eq!(pod["metadata"]["uid"], wanted.pod_uid);
    assert_eq!(pod["metadata"]["labels"], json!({"l": "1", "job-name": wanted.job, "batch.kubernetes.io/job-name": wanted.job}));
    assert_eq!(pod["spec"]["restartPolicy"], "OnFailure");
    assert_eq!(run(&mut s, &mut i, &[1215, 1815], false).len(), 2);
    let wake = s.wake_at().unwrap().0;
    assert!((2_415_000..2_416_000).contains(&wake), "{wake}: the next time and a moment more");
}

#[test]
fn leaves_to_the_hub_what_the_hub_can_do() {
    let (mut s, mut i) = (Schedules::default(), items("Allow", Value::Null));
    assert!(run(&mut s, &mut i, &[0, 615, 1215], true).is_empty());
    assert!(run(&mut s, &mut i, &[1300], false).is_empty(), "that time was the hub's");
    assert_eq!(run(&mut s, &mut i, &[1815], false).len(), 1);
    // A run that the hub sent before the link broke is not started again.
    let sent = Run::of("cron-uid", "backup", TEN + 2400);
    i.put(ItemKey::new(ItemKind::Pod, "a", &sent.pod), 9, b"{}");
    assert!(run(&mut s, &mut i, &[2415], false).is_empty());
}

#[test]
fn what_was_missed_is_not_made_up_for() {
    let (mut s, mut i) = (Schedules::default(), items("Allow", Value::Null));
    assert!(run(&mut s, &mut i, &[700, 1000], false).is_empty(), "it was off at ten past");
    assert_eq!(run(&mut s, &mut i, &[5000], false).len(), 1, "asleep for long: only the last one");
    let (mut s, mut i) = (Schedules::default(), items("Allow", json!(60)));
    assert!(run(&mut s, &mut i, &[0, 800], false).is_empty(), "200 seconds late, 60 are allowed");
    assert_eq!(run(&mut s, &mut i, &[1230], false).len(), 1);
}

#[test]
fn a_schedule_that_is_gone_fires_no_more() {
    let (mut s, mut i) = (Schedules::default(), items("Allow", Value::Null));
    run(&mut s, &mut i, &[0], false);
    i.remove(&ItemKey::new(ItemKind::Schedule, "a", "backup"));
    assert!(run(&mut s, &mut i, &[615], false).is_empty());
    assert_eq!(s.wake_at(), None);
}
