//! Why a rollout is where it is.
//!
//! In: a FleetRollout with its status, and its units. Out: what it does or waits for. Never: changes a unit.

use super::{Answer, ago};
use crate::{ObjectStore, Timestamp, control::waits_for, view::FleetRollout};
use serde_json::Value;

pub fn why(view: &ObjectStore, rollout: &FleetRollout, now: Timestamp) -> Answer {
    let mut answer = Answer::about("fleetrollout", &rollout.meta);
    let status = rollout.field("/status");
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (phase, message) = (text("phase"), text("message"));
    if phase.is_empty() {
        return answer.verdict("nobody has looked at it yet");
    }
    if !text("wave").is_empty() {
        answer.because(format!("wave {}", text("wave")));
    }
    answer.because(format!(
        "{} of {} have the change, {} of them are healthy",
        number("updated"),
        number("total"),
        number("healthy")
    ));
    if let Some(started) = rollout.status.started_at {
        answer.because(format!("it began {} ago", ago(started, now)));
    }
    let listed = |field: &str| -> Vec<String> {
        let list = status[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(String::from).collect()
    };
    if !rollout.status.failure.is_empty() && phase != "Failed" {
        answer.because(format!("it goes back because of this: {}", rollout.status.failure));
    }
    listed("failedUnits").into_iter().for_each(|u| answer.because(format!("failed: {u}")));
    waits_for(view, rollout, now).into_iter().for_each(|u| answer.because(u));
    listed("heldUnits").into_iter().for_each(|u| answer.because(format!("held: {u}")));
    match &*phase {
        "Paused" => {
            let (namespace, name) = (&rollout.meta.namespace, &rollout.meta.name);
            let patch = r#"'{"spec":{"paused":false}}'"#;
            answer.advise(format!("kubectl patch -n {namespace} fleetrollout {name} --type=merge -p {patch}"));
        }
        "Failed" => answer.advise("look at a failed unit; raise spec.success.maxFailed to go on"),
        "RolledBack" => answer.advise("it is over: correct the change, and make another FleetRollout"),
        "Waiting" | "Progressing" if number("held") > 0 => {
            answer.advise("who holds an update back must agree, or: kubectl annotate fleetrollout NAME limpet.dev/override-locks=true");
        }
        _ => {}
    }
    answer.verdict(format!("{phase}: {message}"))
}
