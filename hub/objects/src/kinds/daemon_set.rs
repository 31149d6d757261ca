//! DaemonSets (apps/v1).
//!
//! In: DaemonSets as JSON. Out: defaults, rules and the table row. Never: places pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{labels, name, number};
use super::fill::{child, map, present, set, set_absent};
use super::rules;
use super::workload;
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::table;

/// How often the template was changed, from 1 on; pods bear it as `pod-template-generation`. Nobody but the API sets it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    let said = object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    said.and_then(|text| text.parse().ok()).unwrap_or(0).max(1)
}

#[derive(Debug, Clone, Copy)]
pub struct DaemonSet;

impl Behaviour for DaemonSet {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = child(spec, "updateStrategy") {
            set(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                set_absent(rolling, "maxUnavailable", 1);
                set_absent(rolling, "maxSurge", 0);
            }
        }
        workload::default_template(spec);
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        let generation = template_generation(object);
        object["metadata"]["annotations"][TEMPLATE_GENERATION] = json!(generation.to_string());
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        if subresource.is_empty() {
            let changed = new["spec"]["template"] != old["spec"]["template"];
            let generation = template_generation(old).saturating_add(i64::from(changed));
            new["metadata"]["annotations"][TEMPLATE_GENERATION] = json!(generation.to_string());
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(&object["spec"], "daemonset");
        let strategy = &object["spec"]["updateStrategy"];
        match strategy["type"].as_str() {
            Some("OnDelete") => {}
            Some("RollingUpdate") => {
                let path = "spec.updateStrategy.rollingUpdate";
                let rolling = &strategy["rollingUpdate"];
                workload::rolling_update(rolling, path, &mut errors);
                let zero = |field: &str| rules::is_zero_count(&rolling[field]);
                if !zero("maxUnavailable") && !zero("maxSurge") {
                    let words = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(
                        format!("{path}.maxSurge"),
                        rolling["maxSurge"].clone(),
                        words,
                    ));
                } else if zero("maxUnavailable") && zero("maxSurge") {
                    let words = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(format!("{path}.maxUnavailable"), words));
                }
            }
            other => {
                let choices = ["RollingUpdate", "OnDelete"];
                errors.push(FieldError::not_supported(
                    "spec.updateStrategy.type",
                    other.unwrap_or_default(),
                    &choices,
                ));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            let counts = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ];
            let mut errors = workload::status_counts(new, &counts);
            workload::collisions(new, old, &mut errors);
            return errors;
        }
        let mut errors = self.validate_create(new);
        errors.extend(workload::selector_immutable(new, old));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Desired"),
                Column::integer("Current"),
                Column::integer("Ready"),
                Column::integer("Up-to-date"),
                Column::integer("Available"),
                Column::text("Node Selector"),
                Column::AGE,
                Column::text("Containers").wide(),
                Column::text("Images").wide(),
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let mut row = vec![
            name(object),
            number(status, "desiredNumberScheduled"),
            number(status, "currentNumberScheduled"),
            number(status, "numberReady"),
            number(status, "updatedNumberScheduled"),
            number(status, "numberAvailable"),
            json!(labels(map(&object["spec"]["template"]["spec"], "nodeSelector"))),
            table::age(object, now),
        ];
        row.extend(workload::wide_cells(object));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_row() {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        DaemonSet.default(&mut object);
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(DaemonSet.validate_create(&object), []);
        let row = DaemonSet.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["d", 0, 0, 0, 0, 0, "<none>", "<unknown>", "c", "i:1", "a=b"]));
    }

    #[test]
    fn the_templates_generation_is_the_apis() {
        let ctx = Ctx { now: Timestamp::UNIX_EPOCH, user: "", groups: &[], uid: "u", suffix: "bcdfg" };
        let shown = |o: &Value| o["metadata"]["annotations"][TEMPLATE_GENERATION].clone();
        let mut old = json!({"metadata": {"name": "d"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        DaemonSet.prepare_create(&mut old, &ctx);
        assert_eq!(shown(&old), "1");
        // (template's label, what the client says, what it becomes)
        let (one, nine) = (json!("1"), json!("9"));
        for (label, said, want) in [("b", &one, "1"), ("b", &nine, "1"), ("c", &one, "2"), ("c", &Value::Null, "2")] {
            let mut new = old.clone();
            new["metadata"]["annotations"] = json!({TEMPLATE_GENERATION: said});
            new["spec"]["template"]["metadata"]["labels"]["a"] = json!(label);
            DaemonSet.prepare_update(&mut new, &old, "", &ctx);
            assert_eq!(shown(&new), want, "{label} {said}");
        }
        let mut bare = json!({"metadata": {"name": "d"}, "spec": {"template": {}}});
        let before = bare.clone();
        DaemonSet.prepare_update(&mut bare, &before, "", &ctx);
        assert_eq!(shown(&bare), "1", "one of an earlier version");
        assert_eq!(DaemonSet.validate_update(&json!({"status": {"collisionCount": 0}}),
            &json!({"status": {"collisionCount": 1}}), "status").len(), 1);
    }
}
