//! The table row of a pod: what a user sees of its life.
//!
//! In: a pod and the time. Out: ready count, status word and restarts exactly as `kubectl get pods`
//! shows them.
//! Never: reads the clock.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::behaviour::Column;
use crate::kinds::cells::{NONE, condition, name, or_none};
use crate::kinds::fill::{list, text};
use crate::sieve::Part;
use crate::table;

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready"),
    Column::text("Status"),
    Column::text("Restarts"),
    Column::AGE,
    Column::text("IP").wide(),
    Column::text("Node").wide(),
    Column::text("Nominated Node").wide(),
    Column::text("Readiness Gates").wide(),
];

const STATUSES: Part = Part::Of(&[
    ("lastState", Part::All),
    ("name", Part::All),
    ("ready", Part::All),
    ("restartCount", Part::All),
    ("started", Part::All),
    ("state", Part::All),
]);

/// What of a pod its row is made of.
pub const LOOKS_AT: Part = Part::Of(&[
    ("metadata", Part::Of(&[("creationTimestamp", Part::All), ("deletionTimestamp", Part::All), ("name", Part::All)])),
    (
        "spec",
        Part::Of(&[
            ("containers", Part::Of(&[])),
            ("initContainers", Part::Of(&[("name", Part::All), ("restartPolicy", Part::All)])),
            ("nodeName", Part::All),
            ("readinessGates", Part::All),
        ]),
    ),
    (
        "status",
        Part::Of(&[
            ("conditions", Part::Of(&[("reason", Part::All), ("status", Part::All), ("type", Part::All)])),
            ("containerStatuses", STATUSES),
            ("initContainerStatuses", STATUSES),
            ("nominatedNodeName", Part::All),
            ("phase", Part::All),
            ("podIP", Part::All),
            ("podIPs", Part::All),
            ("reason", Part::All),
        ]),
    ),
]);

/// What is counted while looking at the containers.
#[derive(Default)]
struct Seen {
    reason: String,
    ready: usize,
    restarts: i64,
    /// RFC 3339 texts in UTC compare like times.
    last_restart: String,
    sidecar_restarts: i64,
    sidecar_last_restart: String,
    initializing: bool,
}

pub fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let seen = look(pod);
    let sidecars =
        list(spec, "initContainers").iter().filter(|container| container["restartPolicy"] == "Always");
    let total = list(spec, "containers").len() + sidecars.count();
    let mut restarts = seen.restarts.to_string();
    if seen.restarts != 0 && !seen.last_restart.is_empty() {
        restarts = format!("{} ({} ago)", seen.restarts, table::since(&json!(seen.last_restart), now));
    }
    let ip = list(status, "podIPs").first().map_or(text(status, "podIP"), |entry| text(entry, "ip"));
    vec![
        name(pod),
        json!(format!("{}/{total}", seen.ready)),
        json!(seen.reason),
        json!(restarts),
        table::age(pod, now),
        json!(if ip.is_empty() { NONE } else { ip }),
        or_none(spec, "nodeName"),
        or_none(status, "nominatedNodeName"),
        json!(readiness_gates(spec, status)),
    ]
}

fn look(pod: &Value) -> Seen {
    let status = &pod["status"];
    let mut seen = Seen { reason: text(status, "phase").to_owned(), ..Seen::default() };
    if !text(status, "reason").is_empty() {
        seen.reason = text(status, "reason").to_owned();
    }
    if condition(status, "PodScheduled").is_some_and(|found| found["reason"] == "SchedulingGated") {
        seen.reason = "SchedulingGated".to_owned();
    }
    look_at_init(pod, &mut seen);
    let initialized = condition(status, "Initialized").is_some_and(|found| found["status"] == "True");
    if !seen.initializing || initialized {
        seen.restarts = seen.sidecar_restarts;
        seen.last_restart = std::mem::take(&mut seen.sidecar_last_restart);
        look_at_main(status, &mut seen);
    }
    let terminal = matches!(text(status, "phase"), "Succeeded" | "Failed");
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if status["reason"] == "NodeLost" {
            seen.reason = "Unknown".to_owned();
        } else if !terminal {
            seen.reason = "Terminating".to_owned();
        }
    }
    seen
}

fn look_at_init(pod: &Value, seen: &mut Seen) {
    let specs = list(&pod["spec"], "initContainers");
    for (at, container) in list(&pod["status"], "initContainerStatuses").iter().enumerate() {
        let sidecar =
            specs.iter().any(|spec| spec["name"] == container["name"] && spec["restartPolicy"] == "Always");
        let finished = text(&container["lastState"]["terminated"], "finishedAt");
        let count = container["restartCount"].as_i64().unwrap_or(0);
        seen.restarts += count;
        later(&mut seen.last_restart, finished);
        if sidecar {
            seen.sidecar_restarts += count;
            later(&mut seen.sidecar_last_restart, finished);
        }
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated["exitCode"] == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            seen.ready += usize::from(container["ready"] == true);
            continue;
        }
        seen.reason = match (terminated.is_object(), text(waiting, "reason")) {
            (true, _) => format!("Init:{}", ending(terminated)),
            (false, reason) if !reason.is_empty() && reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{at}/{}", specs.len()),
        };
        seen.initializing = true;
        break;
    }
}

fn look_at_main(status: &Value, seen: &mut Seen) {
    let mut running = false;
    for container in list(status, "containerStatuses").iter().rev() {
        seen.restarts += container["restartCount"].as_i64().unwrap_or(0);
        later(&mut seen.last_restart, text(&container["lastState"]["terminated"], "finishedAt"));
        let state = &container["state"];
        let waiting = text(&state["waiting"], "reason");
        if !waiting.is_empty() {
            seen.reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            seen.reason = ending(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            seen.ready += 1;
        }
    }
    if seen.reason == "Completed" && running {
        let ready = condition(status, "Ready").is_some_and(|found| found["status"] == "True");
        seen.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn ending(terminated: &Value) -> String {
    match (text(terminated, "reason"), terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn later(last: &mut String, candidate: &str) {
    if candidate > last.as_str() {
        *last = candidate.to_owned();
    }
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = list(spec, "readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| {
        condition(status, text(gate, "conditionType")).is_some_and(|found| found["status"] == "True")
    });
    format!("{}/{}", open.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(status: Value, spec: Value, deleted: bool) -> (String, String, String) {
        let mut pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        pod["spec"] = spec;
        pod["status"] = status;
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        }
        let row = row(&pod, "2026-01-01T00:10:00Z".parse().unwrap());
        let cell = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        (cell(1), cell(2), cell(3))
    }

    #[test]
    fn status_words() {
        let one = json!({"containers": [{"name": "a"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let sidecar = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let crashing = json!({"name": "a", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:07:00Z"}}});
        let done = json!({"name": "b", "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let cases = [
            (json!({"phase": "Pending"}), &one, false, ("0/1", "Pending", "0")),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                &one,
                false,
                ("1/1", "Running", "0"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                &one,
                true,
                ("1/1", "Terminating", "0"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [crashing]}),
                &one,
                false,
                ("0/1", "CrashLoopBackOff", "2 (3m ago)"),
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), &one, false, ("0/1", "Evicted", "0")),
            (
                json!({"phase": "Succeeded", "containerStatuses": [done]}),
                &one,
                true,
                ("0/1", "Completed", "0"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, done]}),
                &two,
                false,
                ("1/2", "NotReady", "0"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "state": {"running": {}}}]}),
                &init,
                false,
                ("0/1", "Init:1/2", "0"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 3}}}]}),
                &init,
                false,
                ("0/1", "Init:ExitCode:3", "1"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running], "initContainerStatuses": [
                    {"name": "s", "started": true, "ready": true, "state": {"running": {}}}]}),
                &sidecar,
                false,
                ("2/2", "Running", "0"),
            ),
            (
                json!({"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                &one,
                false,
                ("0/1", "SchedulingGated", "0"),
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                &one,
                false,
                ("0/1", "Signal:9", "0"),
            ),
        ];
        for (status, spec, deleted, (ready, word, restarts)) in cases {
            let expect = (ready.to_owned(), word.to_owned(), restarts.to_owned());
            assert_eq!(cells(status.clone(), spec.clone(), deleted), expect, "{status}");
        }
    }
}
