//! StatefulSets (apps/v1).
//!
//! In: StatefulSets as JSON. Out: defaults, rules and the table row. Never: makes pods or claims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{containers, name, number};
use super::fill::{child, copy, each, present, set, set_absent};
use super::rules::{self, Errors, not_negative, one_of};
use super::workload;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

/// What an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

#[derive(Debug, Clone, Copy)]
pub struct StatefulSet;

impl Behaviour for StatefulSet {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    /// Pods are called after it, and their names are labels of DNS.
    fn validate_name(&self, name: &str) -> Vec<String> {
        crate::names::dns_label(name)
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set_absent(spec, "replicas", 1);
        set_absent(spec, "revisionHistoryLimit", 10);
        set(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = child(spec, "updateStrategy") {
            let unnamed = strategy["type"].as_str().unwrap_or_default().is_empty();
            set(strategy, "type", "RollingUpdate");
            let rolling =
                strategy["type"] == "RollingUpdate" && (unnamed || strategy["rollingUpdate"].is_object());
            if rolling && let Some(rolling) = child(strategy, "rollingUpdate") {
                set_absent(rolling, "partition", 0);
            }
        }
        if let Some(retention) = child(spec, "persistentVolumeClaimRetentionPolicy") {
            set(retention, "whenDeleted", "Retain");
            set(retention, "whenScaled", "Retain");
        }
        for claim in each(spec, "volumeClaimTemplates") {
            set(claim, "apiVersion", "v1");
            set(claim, "kind", "PersistentVolumeClaim");
            super::persistent_volume_claim::default_claim(claim);
        }
        workload::default_template(spec);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = workload::validate(spec, "statefulset");
        let policy = &spec["podManagementPolicy"];
        if !["OrderedReady", "Parallel"].iter().any(|known| policy == known) {
            let words = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid("spec.podManagementPolicy", policy.clone(), words));
        }
        strategy(&spec["updateStrategy"], &mut errors);
        not_negative(&spec["ordinals"], "start", "spec.ordinals", &mut errors);
        let retention = &spec["persistentVolumeClaimRetentionPolicy"];
        for field in ["whenDeleted", "whenScaled"] {
            let path = "spec.persistentVolumeClaimRetentionPolicy";
            one_of(retention, field, path, &["Retain", "Delete"], &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return status(new, old);
        }
        let mut errors = self.validate_create(new);
        let mut munged = new["spec"].clone();
        for field in MUTABLE {
            copy(&mut munged, &old["spec"], field);
        }
        if munged != old["spec"] {
            let words = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                         'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden("spec", words));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Ready"),
                Column::AGE,
                Column::text("Containers").wide(),
                Column::text("Images").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ready =
            format!("{}/{}", number(&object["status"], "readyReplicas"), number(&object["spec"], "replicas"));
        let [names, images] = containers(&object["spec"]["template"]["spec"]);
        vec![name(object), json!(ready), table::age(object, now), names, images]
    }
}

fn strategy(strategy: &Value, errors: &mut Errors) {
    let (path, rolling) = ("spec.updateStrategy.rollingUpdate", &strategy["rollingUpdate"]);
    match strategy["type"].as_str() {
        Some("OnDelete") if !rolling.is_null() => {
            let words = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(path, rolling.clone(), words));
        }
        Some("OnDelete") => {}
        Some("RollingUpdate") => {
            not_negative(rolling, "partition", path, errors);
            let away = &rolling["maxUnavailable"];
            if !away.is_null() {
                rules::count_or_percent(rolling, "maxUnavailable", path, errors);
                let at = rules::join(path, "maxUnavailable");
                if rules::is_zero_count(away) {
                    errors.push(FieldError::invalid(&*at, away.clone(), "cannot be 0"));
                }
                if rules::percent(away) > 100 {
                    errors.push(FieldError::invalid(&*at, away.clone(), "must not be greater than 100%"));
                }
            }
        }
        _ => {
            let words = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid("spec.updateStrategy", strategy.clone(), words));
        }
    }
}

fn status(new: &Value, old: &Value) -> Vec<FieldError> {
    let counts = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut errors = workload::status_counts(new, &counts);
    let count = |field: &str| new["status"][field].as_i64().unwrap_or(0);
    let mut bounded = |field: &str, by: &str| {
        if count(field) > count(by) {
            let words = format!("cannot be greater than status.{by}");
            errors.push(FieldError::invalid(format!("status.{field}"), count(field), words));
        }
    };
    counts[1..].iter().for_each(|field| bounded(field, "replicas"));
    bounded("availableReplicas", "readyReplicas");
    workload::collisions(new, old, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Value {
        json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}})
    }

    #[test]
    fn defaults() {
        let mut object = set();
        StatefulSet.default(&mut object);
        let spec = &object["spec"];
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        assert_eq!(spec["volumeClaimTemplates"][0]["status"]["phase"], "Pending");
        assert_eq!(StatefulSet.validate_create(&object), []);
    }

    #[test]
    fn only_some_fields_may_change() {
        let mut old = set();
        StatefulSet.default(&mut old);
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(5);
        assert_eq!(StatefulSet.validate_update(&new, &old, ""), []);
        new["spec"]["serviceName"] = json!("t");
        let errors = StatefulSet.validate_update(&new, &old, "");
        assert!(
            errors[0]
                .to_string()
                .starts_with("spec: Forbidden: updates to statefulset spec for fields other than")
        );
    }

    #[test]
    fn rules_in_kubernetes_words() {
        let rolling = |v: Value| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": v}});
        let path = "spec.updateStrategy.rollingUpdate";
        let cases = [
            (json!({"podManagementPolicy": "Odd"}),
                "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'".to_owned()),
            (json!({"updateStrategy": {"type": "Odd"}}),
                "spec.updateStrategy: Invalid value: {\"type\":\"Odd\"}: must be 'RollingUpdate' or 'OnDelete'".to_owned()),
            (json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
                format!("{path}: Invalid value: {{\"partition\":1}}: only allowed for updateStrategy 'RollingUpdate'")),
            (rolling(json!({"partition": -1})),
                format!("{path}.partition: Invalid value: -1: must be greater than or equal to 0")),
            (rolling(json!({"maxUnavailable": 0})), format!("{path}.maxUnavailable: Invalid value: 0: cannot be 0")),
            (rolling(json!({"maxUnavailable": "0%"})), format!("{path}.maxUnavailable: Invalid value: \"0%\": cannot be 0")),
            (rolling(json!({"maxUnavailable": "101%"})),
                format!("{path}.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%")),
            (rolling(json!({"maxUnavailable": -2})),
                format!("{path}.maxUnavailable: Invalid value: -2: must be greater than or equal to 0")),
            (rolling(json!({"maxUnavailable": "25%", "partition": 2})), String::new()),
            (json!({"ordinals": {"start": -1}}),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0".to_owned()),
        ];
        for (change, want) in cases {
            let mut object = set();
            change.as_object().unwrap().iter().for_each(|(k, v)| object["spec"][k] = v.clone());
            StatefulSet.default(&mut object);
            let errors = StatefulSet.validate_create(&object);
            let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(got.join("; "), want, "{change}");
        }
        assert_eq!(StatefulSet.validate_name("a.b").len(), 1);
    }

    #[test]
    fn rules_of_the_status() {
        let old = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 1}});
        let cases = [
            (json!({}), ""),
            (json!({"readyReplicas": 3}), "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas"),
            (json!({"readyReplicas": 0}),
                "status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas"),
            (json!({"collisionCount": 0}), "status.collisionCount: Invalid value: 0: cannot be decremented"),
        ];
        for (change, want) in cases {
            let mut new = old.clone();
            change.as_object().unwrap().iter().for_each(|(k, v)| new["status"][k] = v.clone());
            let errors = StatefulSet.validate_update(&new, &old, "status");
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), want, "{change}");
        }
    }

    #[test]
    fn a_template_may_use_the_claims() {
        let mut object = set();
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        container["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
        StatefulSet.default(&mut object);
        assert_eq!(StatefulSet.validate_create(&object), []);
        object["spec"]["template"]["metadata"]["labels"]["a b"] = json!("c");
        let errors = StatefulSet.validate_create(&object);
        assert!(errors[0].to_string().starts_with("spec.template.labels: Invalid value: \"a b\""), "{errors:?}");
        object["spec"]["selector"] = Value::Null;
        let said: Vec<String> = StatefulSet.validate_create(&object).iter().map(ToString::to_string).collect();
        assert_eq!(said[0], "spec.selector: Required value");
        assert!(said[1].ends_with("`selector` does not match template `labels`"), "{said:?}");
    }
}
