//! StatefulSets (apps/v1).
//!
//! In: StatefulSets as JSON. Out: defaults, rules and the table row. Never: makes pods or claims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{containers, name, number};
use super::fill::{child, copy, each, present, set, set_absent};
use super::rules::{not_negative, one_of};
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
        one_of(spec, "podManagementPolicy", "spec", &["OrderedReady", "Parallel"], &mut errors);
        one_of(
            &spec["updateStrategy"],
            "type",
            "spec.updateStrategy",
            &["RollingUpdate", "OnDelete"],
            &mut errors,
        );
        let path = "spec.updateStrategy.rollingUpdate";
        not_negative(&spec["updateStrategy"]["rollingUpdate"], "partition", path, &mut errors);
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
            return workload::status_counts(
                new,
                &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas"],
            );
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
}
