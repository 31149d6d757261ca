//! FleetRollouts (limpet.dev/v1): a change that goes through a fleet in waves.
//!
//! In: rollouts as JSON. Out: defaults, rules and the table row. Never: changes anything (see the hub's controller).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{name, number};
use super::fill::{child, list, present, set, set_absent, text};
use super::node_pool::span;
use super::rules::{
    Errors, count_or_percent, is_zero_count, label_selector, not_negative, one_of, required, selector_is_empty,
};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

#[derive(Debug, Clone, Copy)]
pub struct FleetRollout;

const KINDS: [&str; 5] = ["ConfigMap", "DaemonSet", "Deployment", "Node", "StatefulSet"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Where rollouts over nodes live.
const NODES_NAMESPACE: &str = "kube-system";
const WAVES_MAX: usize = 100;
const WINDOWS_MAX: usize = 100;
const CHANGE_BYTES_MAX: usize = 64 * 1024;

impl Behaviour for FleetRollout {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set(spec, "onFailure", "Rollback");
        if let Some(budget) = child(spec, "budget") {
            set_absent(budget, "maxUnavailable", 1);
        }
        if let Some(success) = child(spec, "success") {
            set(success, "deadline", "10m");
            set_absent(success, "maxFailed", 0);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Errors::new();
        target(spec, &mut errors);
        // Whoever may write rollouts in a namespace may change its objects; nodes belong to the whole cluster.
        let namespace = text(&object["metadata"], "namespace");
        if text(&spec["target"], "kind") == "Node" && !["", NODES_NAMESPACE].contains(&namespace) {
            let words = format!("nodes are rolled out from namespace {NODES_NAMESPACE} only");
            errors.push(FieldError::forbidden("spec.target.kind", words));
        }
        let waves = list(spec, "waves");
        if waves.len() > WAVES_MAX {
            errors.push(FieldError::invalid("spec.waves", waves.len(), format!("at most {WAVES_MAX} waves")));
        }
        for (at, wave) in waves.iter().take(WAVES_MAX).enumerate() {
            let path = format!("spec.waves[{at}]");
            label_selector(&wave["selector"], &format!("{path}.selector"), &mut errors);
            if wave["percent"].as_i64().is_some_and(|p| !(1..=100).contains(&p)) {
                let words = "must be 1 to 100; leave it out for all that are selected";
                errors.push(FieldError::invalid(format!("{path}.percent"), wave["percent"].clone(), words));
            }
            if !text(wave, "soak").is_empty() {
                span(text(wave, "soak"), &format!("{path}.soak"), &mut errors);
            }
        }
        budget(&spec["budget"], &mut errors);
        success(&spec["success"], &mut errors);
        one_of(spec, "onFailure", "spec", &["Halt", "Rollback"], &mut errors);
        let windows = list(spec, "windows");
        if windows.len() > WINDOWS_MAX {
            errors.push(FieldError::invalid("spec.windows", windows.len(), format!("at most {WINDOWS_MAX} windows")));
        }
        for (at, window) in windows.iter().take(WINDOWS_MAX).enumerate() {
            window_rules(window, &format!("spec.windows[{at}]"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.validate_create(new);
        for field in ["target", "change"] {
            if new["spec"][field] != old["spec"][field] {
                let words = "is what the rollout is about and cannot be changed; make another FleetRollout";
                errors.push(FieldError::forbidden(format!("spec.{field}"), words));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Target"),
                Column::text("Phase"),
                Column::text("Wave"),
                Column::text("Updated"),
                Column::integer("Healthy"),
                Column::integer("Failed"),
                Column::AGE,
                Column::integer("Held").wide(),
                Column::integer("Away").wide(),
                Column::text("Message").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (target, status) = (&object["spec"]["target"], &object["status"]);
        let what = match text(target, "name") {
            "" => super::cells::selector(&target["selector"]),
            name => name.to_owned(),
        };
        let phase = if text(status, "phase").is_empty() { "Pending" } else { text(status, "phase") };
        vec![
            name(object),
            json!(format!("{}/{what}", text(target, "kind"))),
            json!(phase),
            json!(text(status, "wave")),
            json!(format!("{}/{}", number(status, "updated"), number(status, "total"))),
            number(status, "healthy"),
            number(status, "failed"),
            table::age(object, now),
            number(status, "held"),
            number(status, "away"),
            json!(text(status, "message")),
        ]
    }
}

fn target(spec: &Value, errors: &mut Errors) {
    let target = &spec["target"];
    let path = "spec.target";
    let kind = required(target, "kind", path, errors).unwrap_or_default();
    one_of(target, "kind", path, &KINDS, errors);
    let (name, selector) = (text(target, "name"), &target["selector"]);
    label_selector(selector, "spec.target.selector", errors);
    if name.is_empty() && selector_is_empty(selector) {
        errors.push(FieldError::required(path, "name an object, or select objects by label"));
    }
    if !name.is_empty() && !selector_is_empty(selector) {
        errors.push(FieldError::invalid(path, target.clone(), "name and selector cannot be both set"));
    }
    let changes = spec["change"].as_object().is_some_and(|c| !c.is_empty());
    if kind == "DaemonSet" {
        if name.is_empty() {
            errors.push(FieldError::required("spec.target.name", "a DaemonSet is rolled out by its name"));
        }
        if changes {
            let words = "a DaemonSet's own template is what is rolled out; change that instead";
            errors.push(FieldError::forbidden("spec.change", words));
        }
        return;
    }
    if !changes {
        errors.push(FieldError::required("spec.change", "say what to change, as a merge patch"));
    }
    if spec["change"].to_string().len() > CHANGE_BYTES_MAX {
        errors.push(FieldError::forbidden("spec.change", format!("may not be larger than {CHANGE_BYTES_MAX} bytes")));
    }
    let allowed: &[&str] = match kind {
        "Node" => &["metadata"],
        "ConfigMap" => &["metadata", "data", "binaryData"],
        _ => &["metadata", "spec"],
    };
    for field in spec["change"].as_object().into_iter().flat_map(|c| c.keys()) {
        if !allowed.contains(&field.as_str()) {
            let words = format!("of a {kind} only {} can be rolled out", allowed.join(" and "));
            errors.push(FieldError::forbidden(format!("spec.change.{field}"), words));
        }
    }
    for field in spec["change"]["metadata"].as_object().into_iter().flat_map(|m| m.keys()) {
        if !["labels", "annotations"].contains(&field.as_str()) {
            let words = "of metadata only labels and annotations can be rolled out";
            errors.push(FieldError::forbidden(format!("spec.change.metadata.{field}"), words));
        }
    }
}

fn budget(budget: &Value, errors: &mut Errors) {
    let path = "spec.budget";
    let before = errors.len();
    count_or_percent(budget, "maxUnavailable", path, errors);
    let most = &budget["maxUnavailable"];
    if errors.len() == before && is_zero_count(most) {
        let words = "must be 1 or more: nothing could ever be changed; spec.paused holds a rollout";
        errors.push(FieldError::invalid("spec.budget.maxUnavailable", most.clone(), words));
    }
    not_negative(budget, "maxConcurrent", path, errors);
    let label = text(budget, "groupBy");
    if !label.is_empty() {
        for wrong in names::qualified_name(label) {
            errors.push(FieldError::invalid("spec.budget.groupBy", label, wrong));
        }
    }
}

fn success(success: &Value, errors: &mut Errors) {
    count_or_percent(success, "maxFailed", "spec.success", errors);
    let deadline = text(success, "deadline");
    if deadline.is_empty() {
        return;
    }
    span(deadline, "spec.success.deadline", errors);
    if crate::time::span_seconds(deadline) == Some(0) {
        let words = "must be longer: nothing becomes healthy in no time";
        errors.push(FieldError::invalid("spec.success.deadline", deadline, words));
    }
}

pub(super) fn window_rules(window: &Value, path: &str, errors: &mut Errors) {
    for field in ["start", "end"] {
        if let Some(text) = required(window, field, path, errors)
            && clock_minutes(text).is_none()
        {
            let words = "must be a time of day such as 02:00";
            errors.push(FieldError::invalid(format!("{path}.{field}"), text, words));
        }
    }
    let (start, end) = (text(window, "start"), text(window, "end"));
    if !start.is_empty() && start == end {
        let words = "is the start, too, so the window would never close; leave the window out, or 00:00 to 23:59";
        errors.push(FieldError::invalid(format!("{path}.end"), end, words));
    }
    for day in list(window, "days").iter().filter_map(Value::as_str) {
        if !DAYS.contains(&day) {
            errors.push(FieldError::not_supported(format!("{path}.days"), day, &DAYS));
        }
    }
    let zone = text(window, "timeZone");
    if !zone.is_empty() && jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(format!("{path}.timeZone"), zone, "is not a time zone that is known"));
    }
}

/// `02:30` in minutes since midnight.
pub fn clock_minutes(text: &str) -> Option<i32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| (t.len() == 2).then(|| t.parse::<i32>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "r"}, "spec": spec});
        FleetRollout.default(&mut object);
        FleetRollout.validate_create(&object).iter().map(ToString::to_string).collect()
    }

    fn daemon_set(field: &str, value: Value) -> Value {
        let mut spec = json!({"target": {"kind": "DaemonSet", "name": "x"}});
        spec[field] = value;
        spec
    }

    #[test]
    fn rules_say_what_to_do() {
        let good = json!({"target": {"kind": "Deployment", "selector": {"matchLabels": {"app": "till"}}},
            "change": {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}},
            "waves": [{"name": "first", "percent": 10, "soak": "10m"}],
            "windows": [{"start": "22:00", "end": "05:00", "days": ["Mon"], "timeZone": "Europe/Berlin"}]});
        assert_eq!(errors(good), Vec::<String>::new());
        let cases = [
            (json!({}), "spec.target.kind: Required value"),
            (json!({"target": {"kind": "Pod", "name": "x"}, "change": {"spec": {"a": 1}}}), "Unsupported value: \"Pod\""),
            (json!({"target": {"kind": "Deployment", "name": "x"}}), "spec.change: Required value"),
            (json!({"target": {"kind": "DaemonSet", "name": "x"}, "change": {"spec": {"a": 1}}}), "own template"),
            (json!({"target": {"kind": "Node", "name": "x"}, "change": {"spec": {"taints": []}}}), "only metadata"),
            (
                json!({"target": {"kind": "Node", "name": "x"}, "change": {"metadata": {"finalizers": []}}}),
                "only labels and annotations",
            ),
            (
                json!({"target": {"kind": "DaemonSet", "name": "x"}, "windows": [{"start": "2", "end": "05:00",
                    "timeZone": "Mars/Base"}]}),
                "must be a time of day",
            ),
            (daemon_set("waves", json!([{"soak": "soon"}])), "span of time"),
            (daemon_set("waves", json!([{"percent": -5}])), "spec.waves[0].percent: Invalid value: -5: must be 1 to 100"),
            (daemon_set("waves", json!([{"percent": 0}])), "must be 1 to 100"),
            (daemon_set("waves", json!(vec![json!({}); 10_000])), "spec.waves: Invalid value: 10000: at most 100 waves"),
            (daemon_set("windows", json!(vec![json!({}); 10_000])), "at most 100 windows"),
            (daemon_set("windows", json!([{"start": "02:00", "end": "02:00"}])), "would never close"),
            (
                daemon_set("windows", json!([{"start": "01:00", "end": "02:00", "timeZone": "Mars/Base"}])),
                "spec.windows[0].timeZone: Invalid value: \"Mars/Base\": is not a time zone that is known",
            ),
            (daemon_set("windows", json!([{"start": "25:00", "end": "02:00"}])), "must be a time of day"),
            (
                daemon_set("windows", json!([{"start": "01:00", "end": "02:00", "days": ["Someday"]}])),
                "Unsupported value: \"Someday\"",
            ),
            (daemon_set("budget", json!({"maxUnavailable": 0})), "nothing could ever be changed"),
            (daemon_set("budget", json!({"maxUnavailable": "0%"})), "nothing could ever be changed"),
            (daemon_set("budget", json!({"maxUnavailable": -1})), "spec.budget.maxUnavailable: Invalid value: -1"),
            (daemon_set("budget", json!({"maxUnavailable": "many"})), "a valid percent string"),
            (daemon_set("budget", json!({"groupBy": "no label!"})), "spec.budget.groupBy"),
            (daemon_set("success", json!({"deadline": "0s"})), "nothing becomes healthy in no time"),
            (daemon_set("success", json!({"maxFailed": -1})), "spec.success.maxFailed"),
            (daemon_set("onFailure", json!("Shrug")), "Unsupported value: \"Shrug\""),
        ];
        for (spec, words) in cases {
            let all = errors(spec.clone()).join("\n");
            assert!(all.contains(words), "{spec}: {all}");
        }
        let change = json!({"metadata": {"labels": {"a": "b"}}});
        let object = |namespace: &str| json!({"metadata": {"name": "r", "namespace": namespace},
            "spec": {"target": {"kind": "Node", "name": "n"}, "change": change}});
        assert!(FleetRollout.validate_create(&object("kube-system")).is_empty());
        let errors = FleetRollout.validate_create(&object("shop"));
        assert!(errors[0].to_string().contains("from namespace kube-system only"));
    }
}
