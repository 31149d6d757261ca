//! Deployments (apps/v1).
//!
//! In: Deployments as JSON. Out: defaults, rules and the table row. Never: rolls out (see the hub's
//! controller).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{name, number};
use super::fill::{child, present, set, set_absent};
use super::rules::{self, Errors};
use super::workload;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct Deployment;

impl Behaviour for Deployment {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "replicas", 1);
        set_absent(spec, "revisionHistoryLimit", 10);
        set_absent(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = child(spec, "strategy") {
            set(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                set_absent(rolling, "maxUnavailable", "25%");
                set_absent(rolling, "maxSurge", "25%");
            }
        }
        workload::default_template(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = workload::validate(spec, "deployment");
        strategy(&spec["strategy"], &mut errors);
        rules::not_negative(spec, "progressDeadlineSeconds", "spec", &mut errors);
        let ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
        if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64().filter(|deadline| *deadline <= ready)
        {
            let words = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            let counts =
                ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
            return workload::status_counts(new, &counts);
        }
        let mut errors = self.validate_create(new);
        errors.extend(workload::selector_immutable(new, old));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Ready"),
                Column::text("Up-to-date"),
                Column::text("Available"),
                Column::AGE,
                Column::text("Containers").wide(),
                Column::text("Images").wide(),
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let ready = format!("{}/{}", number(status, "readyReplicas"), number(&object["spec"], "replicas"));
        let mut row = vec![
            name(object),
            json!(ready),
            number(status, "updatedReplicas"),
            number(status, "availableReplicas"),
            table::age(object, now),
        ];
        row.extend(workload::wide_cells(object));
        row
    }
}

fn strategy(strategy: &Value, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("Recreate") if !rolling.is_null() => {
            let words = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", words));
        }
        Some("RollingUpdate") if rolling.is_null() => {
            let words = "this should be defaulted and never be nil";
            errors.push(FieldError::required("spec.strategy.rollingUpdate", words));
        }
        Some("RollingUpdate") => {
            let path = "spec.strategy.rollingUpdate";
            workload::rolling_update(rolling, path, errors);
            if rules::is_zero_count(&rolling["maxUnavailable"]) && rules::is_zero_count(&rolling["maxSurge"])
            {
                let words = "may not be 0 when `maxSurge` is 0";
                let shown = rolling["maxUnavailable"].clone();
                errors.push(FieldError::invalid("spec.strategy.rollingUpdate.maxUnavailable", shown, words));
            }
        }
        Some("Recreate") => {}
        other => {
            let choices = ["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported("spec.strategy.type", other.unwrap_or_default(), &choices));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}})
    }

    fn errors(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut object = deployment();
        change(&mut object);
        Deployment.default(&mut object);
        Deployment.validate_create(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults() {
        let mut object = deployment();
        Deployment.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!((&spec["replicas"], &spec["progressDeadlineSeconds"]), (&json!(1), &json!(600)));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(spec["template"]["spec"].get("enableServiceLinks").is_none());
    }

    #[test]
    fn rules_in_kubernetes_words() {
        assert_eq!(errors(|_| {}), Vec::<String>::new());
        type Change = fn(&mut Value);
        let cases: &[(Change, &str)] = &[
            (
                |o| o["spec"]["replicas"] = json!(-1),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                |o| o["spec"]["selector"]["matchLabels"]["app"] = json!("other"),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not \
                 match template \
                 `labels`",
            ),
            (
                |o| o["spec"]["selector"] = Value::Null,
                "spec.selector: Required value; spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: \
                 `selector` does not match template `labels`",
            ),
            (
                |o| o["spec"]["selector"] = json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            (
                |o| o["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                |o| o["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is \
                 'Recreate'",
            ),
            (
                |o| o["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when \
                 `maxSurge` is 0",
            ),
            (
                |o| o["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("x"),
                "spec.template.spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \
                 \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                |o| {
                    _ = o["spec"]["template"]["spec"]["containers"][0]
                        .as_object_mut()
                        .unwrap()
                        .remove("image")
                },
                "spec.template.spec.containers[0].image: Required value",
            ),
        ];
        for (change, expect) in cases {
            assert_eq!(errors(change).join("; "), *expect);
        }
    }

    #[test]
    fn the_selector_is_immutable() {
        let mut old = deployment();
        Deployment.default(&mut old);
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"] = json!({"app": "b"});
        new["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
        let errors = Deployment.validate_update(&new, &old, "");
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"
        );
    }

    #[test]
    fn row() {
        let mut object = deployment();
        Deployment.default(&mut object);
        object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:00Z");
        object["status"] = json!({"readyReplicas": 1, "updatedReplicas": 1});
        let row = Deployment.row(&object, "1970-01-01T00:01:05Z".parse().unwrap());
        assert_eq!(json!(row), json!(["web", "1/1", 1, 0, "65s", "a", "b", "app=web"]));
    }
}
