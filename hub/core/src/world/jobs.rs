//! What holds of Jobs at every single moment, whatever happens to their pods.
//!
//! In: seeds. Out: a panic at the change that broke a promise. Never: a change between two looks.

use super::{Api, World, dice::{Dice, seeds}};
use crate::view::{Job, Pod};
use serde_json::{Value, json};
use std::{cell::RefCell, collections::BTreeMap, collections::BTreeSet};

const JOBS: &str = "batch/jobs";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

thread_local! {
    /// Every pod that ever was: its end, as it was last seen.
    static SEEN: RefCell<BTreeMap<String, &'static str>> = const { RefCell::new(BTreeMap::new()) };
}

/// Never more at work than may be, never two on one index, never more than are wanted.
fn within_bounds(w: &Api) {
    let Some(job) = w.view.get::<Job>("a", "j") else { return };
    let all: Vec<_> = w.view.controlled_by::<Pod>(&job.meta.uid).collect();
    let strict = &*job.spec.pod_replacement_policy == "Failed";
    let live: Vec<_> =
        all.iter().filter(|p| !p.is_finished() && (strict || p.meta.deleting.is_none())).collect();
    let parallelism = job.spec.parallelism.unwrap_or(1) as usize;
    assert!(live.len() <= parallelism, "{} at work, {parallelism} may be", live.len());
    if &*job.spec.completion_mode == "Indexed" {
        let mut indexes = BTreeSet::new();
        for pod in &live {
            let index: i32 = pod.meta.annotations.get(INDEX).unwrap().parse().unwrap();
            assert!(indexes.insert(index), "index {index} is worked on twice");
            assert!((0..8).contains(&index), "index {index} was never wanted");
        }
    } else if let Some(completions) = job.spec.completions {
        let done = all.iter().filter(|p| p.status.phase == crate::view::Phase::Succeeded).count();
        assert!(live.len() + done <= completions as usize, "{} at work, {done} of {completions} done", live.len());
    }
    SEEN.with_borrow_mut(|seen| {
        for pod in all {
            let end = match pod.status.phase {
                crate::view::Phase::Succeeded => "Succeeded",
                crate::view::Phase::Failed => "Failed",
                _ => "",
            };
            seen.insert(pod.meta.uid.to_string(), end);
        }
    });
}

fn some_pod(w: &World, d: &mut Dice) -> Option<String> {
    let pods = w.list("/pods");
    let at_work = |p: &&&Value| p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null();
    let live: Vec<_> = pods.iter().filter(at_work).collect();
    if live.is_empty() {
        return None;
    }
    live[d.roll(live.len() as u64) as usize]["metadata"]["name"].as_str().map(str::to_owned)
}

fn disturb(w: &mut World, d: &mut Dice, elastic: bool) {
    let pod = some_pod(w, d);
    match (d.roll(8), pod) {
        (0..3, Some(pod)) => w.patch("/pods", "a", &pod, json!({"status": {"phase": "Succeeded"}})),
        (3, Some(pod)) => w.patch("/pods", "a", &pod, json!({"status": {"phase": "Failed"}})),
        (4, Some(pod)) => w.delete("/pods", "a", &pod),
        (5, _) => w.patch(JOBS, "a", "j", json!({"spec": {"suspend": d.roll(2) == 0}})),
        (6, _) if elastic => {
            // Growing and shrinking, both numbers together, as the API wants it.
            let n = 4 + d.roll(4);
            let ended = |p: &Value| ["Succeeded", "Failed"].iter().any(|end| p["status"]["phase"] == *end);
            let there = w.list("/pods").iter().filter(|p| !ended(p)).count() as u64;
            let over = w.get(JOBS, "a", "j")["status"]["completionTime"].is_string();
            if n >= there && !over {
                w.patch(JOBS, "a", "j", json!({"spec": {"completions": n, "parallelism": n}}));
            }
        }
        _ => w.pass(d.roll(40) as i64),
    }
}

#[test]
fn jobs_stay_within_their_bounds_at_every_moment() {
    for seed in seeds(60) {
        println!("seed {seed}");
        SEEN.with_borrow_mut(BTreeMap::clear);
        let mut d = Dice(seed);
        let indexed = d.roll(2) == 0;
        let elastic = indexed && d.roll(2) == 0;
        let (completions, parallelism) = if elastic { (6, 6) } else { (1 + d.roll(7), 1 + d.roll(4)) };
        let mut spec = json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 1000,
            "completionMode": (if indexed { "Indexed" } else { "NonIndexed" }),
            "podReplacementPolicy": (["Failed", "TerminatingOrFailed"][d.roll(2) as usize]),
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        if indexed && d.roll(2) == 0 {
            spec["backoffLimitPerIndex"] = json!(1000);
        }
        let mut w = World::with_nodes(2);
        w.always = Some(within_bounds);
        w.create(JOBS, json!({"metadata": {"name": "j", "namespace": "a"}, "spec": spec}));
        for _ in 0..40 {
            disturb(&mut w, &mut d, elastic);
            match d.roll(3) {
                0 => w.settle(),
                _ => w.steps(d.roll(5) as usize),
            }
        }
        w.patch(JOBS, "a", "j", json!({"spec": {"suspend": false}}));
        w.exit_codes = vec![("j-".into(), 0)];
        w.pass(3000);
        let job = w.get(JOBS, "a", "j").clone();
        let ended = job["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Complete");
        assert!(ended, "{job:#}");
        assert_eq!(job["status"]["succeeded"], job["spec"]["completions"], "{job:#}");
        let number = |v: &Value| v.as_u64().unwrap_or(0) as usize;
        SEEN.with_borrow(|seen| {
            let failed = seen.values().filter(|end| **end == "Failed").count();
            assert!(number(&job["status"]["failed"]) <= failed, "{} failures counted, {failed} seen", job["status"]["failed"]);
        });
        assert!(w.list("/pods").iter().all(|p| p["metadata"]["finalizers"].is_null()));
    }
}
