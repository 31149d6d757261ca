//! Turns that are waited for, given back and given up.
//!
//! In: a door with few seats. Out: the order. Never: a time that matters.

use super::*;
use futures_util::FutureExt;
use limpet_hub_core::flow::defaults;

fn control(seats: u32) -> Arc<FlowControl> {
    let control =
        FlowControl::new(&FlowOptions { max_requests_inflight: seats, max_mutating_requests_inflight: 0 });
    let of = |plural: &str| -> Vec<serde_json::Value> {
        defaults().into_iter().filter(|(kind, _)| kind.ends_with(plural)).map(|(_, object)| object).collect()
    };
    control.configure(Config::of(&of("/flowschemas"), &of("/prioritylevelconfigurations")));
    control
}

fn groups() -> Vec<String> {
    vec!["system:authenticated".to_owned()]
}

fn asked<'a>(user: &'a str, groups: &'a [String]) -> Attributes<'a> {
    Attributes { user, groups, verb: "list", resource: "pods", ..Attributes::default() }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_sent_away() {
    let (control, groups) = (control(20), groups());
    let mut turns = Vec::new();
    let mut decided = Decided::default();
    while let Some(turn) = control.turn(&asked("ann", &groups), 10, &mut decided).now_or_never() {
        turns.push(turn.unwrap());
        assert!(turns.len() < 20);
    }
    let status = control.turn(&asked("ann", &groups), 10, &mut decided).await.err().unwrap();
    assert_eq!((status.code, status.details.unwrap().retry_after_seconds), (429, 1));
    let figures = control.figures();
    let line = "rejected_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\",reason=\"time-out\"} 1";
    assert!(figures.contains(line), "{figures}");
    assert!(figures.contains("current_inqueue_requests{priority_level=\"global-default\"} 0"), "{figures}");
    drop(turns);
    assert!(control.figures().contains("current_executing_seats{priority_level=\"global-default\"} 0"));
}

#[tokio::test]
async fn a_turn_that_nobody_takes_goes_to_the_next() {
    let (control, groups) = (control(20), groups());
    let mut decided = Decided::default();
    let mut turns = Vec::new();
    while let Some(turn) = control.turn(&asked("ann", &groups), 10, &mut decided).now_or_never() {
        turns.push(turn.unwrap());
    }
    let (mut first, mut second) = (Decided::default(), Decided::default());
    let (ann, bob) = (asked("ann", &groups), asked("bob", &groups));
    let mut leaves = Box::pin(control.turn(&ann, 1, &mut first));
    assert!(leaves.as_mut().now_or_never().is_none());
    let mut stays = Box::pin(control.turn(&bob, 1, &mut second));
    assert!(stays.as_mut().now_or_never().is_none());
    drop(turns);
    drop(leaves);
    assert!(stays.await.unwrap().is_some());
    assert!(control.figures().contains("current_executing_seats{priority_level=\"global-default\"} 0"));
}

#[test]
fn conditions_of_others_stay_beside_dangling() {
    use serde_json::json;
    let (foreign, own) = (json!({"type": "example.com/Seen", "status": "True"}), json!({"type": "Dangling", "status": "False"}));
    let with = super::keep::with;
    assert_eq!(with(&json!([foreign]), own.clone()), json!([foreign, own]));
    assert_eq!(with(&json!([{"type": "Dangling", "status": "True"}, foreign]), own.clone()), json!([own, foreign]));
    assert_eq!(with(&json!(null), own.clone()), json!([own]));
}
