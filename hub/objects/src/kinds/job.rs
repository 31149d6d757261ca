//! Jobs (batch/v1).
//!
//! In: Jobs as JSON. Out: defaults, the generated selector, rules and the table row. Never: makes pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, condition, name, number};
use super::fill::{child, each, map, present, set, set_absent, text};
use super::job_rules::validate_spec;
use super::rules::{self, IMMUTABLE};
use super::workload;
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::table;

const LABEL_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const LABEL_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// Immutable parts of the spec; `completions` may change for indexed jobs together with `parallelism`.
const FIXED: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];

#[derive(Debug, Clone, Copy)]
pub struct Job;

impl Behaviour for Job {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(new, old, super::warn::own_template, "spec.template")
    }

    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if map(&object["metadata"], "labels").is_empty()
            && labels.as_object().is_some_and(|all| !all.is_empty())
        {
            object["metadata"]["labels"] = labels;
        }
        if let Some(spec) = present(object, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Ctx<'_>) {
        if object["spec"]["manualSelector"] != true {
            generate_selector(object, ctx.uid);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate_spec(&object["spec"], "spec");
        let spec = &object["spec"];
        let last = spec["completions"].as_i64().filter(|n| spec["completionMode"] == "Indexed" && *n > 0);
        if let Some(last) = last.map(|n| n - 1) {
            let job = text(&object["metadata"], "name");
            let host = format!("{job}-{last}");
            if !crate::names::dns_label(&host).is_empty() {
                let words = format!("will not able to create pod with invalid DNS label: {host}");
                errors.push(FieldError::invalid("metadata.name", job, words));
            }
        }
        if spec["selector"].is_null() {
            errors.push(FieldError::required("spec.selector", ""));
        } else {
            rules::label_selector(&spec["selector"], "spec.selector", &mut errors);
            let labels = &spec["template"]["metadata"]["labels"];
            if !rules::selector_matches(&spec["selector"], labels) {
                let words = "`selector` does not match template `labels`";
                let shown = if labels.is_null() { json!({}) } else { labels.clone() };
                errors.push(FieldError::invalid("spec.template.metadata.labels", shown, words));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return workload::status_counts(new, &["active", "succeeded", "failed", "ready", "terminating"]);
        }
        let mut errors = self.validate_create(new);
        let (new, old) = (&new["spec"], &old["spec"]);
        for field in FIXED {
            rules::immutable(new, old, field, "spec", &mut errors);
        }
        if new["completions"] != old["completions"] {
            let words = match new["completionMode"] == "Indexed" {
                false => Some(IMMUTABLE),
                true if new["completions"].is_null() || new["completions"] == new["parallelism"] => None,
                true => Some("can only be modified in tandem with spec.parallelism"),
            };
            let at = |words| FieldError::invalid("spec.completions", new["completions"].clone(), words);
            errors.extend(words.map(at));
        }
        if new["template"] != old["template"] && !may_change_template(new, old) {
            errors.push(FieldError::invalid("spec.template", new["template"].clone(), IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status"),
                Column::text("Completions"),
                Column::text("Duration"),
                Column::AGE,
                Column::text("Containers").wide(),
                Column::text("Images").wide(),
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut row = vec![
            name(object),
            json!(status_word(object)),
            json!(completions(object)),
            json!(duration(&object["status"], now)),
            table::age(object, now),
        ];
        row.extend(workload::wide_cells(object));
        row
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", number(&object["status"], "succeeded").to_string())]
    }
}

fn default_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = json!(1);
    }
    set_absent(spec, "parallelism", 1);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    set_absent(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    set(spec, "completionMode", "NonIndexed");
    set_absent(spec, "suspend", false);
    let strict = spec["podFailurePolicy"].is_object();
    set(spec, "podReplacementPolicy", if strict { "Failed" } else { "TerminatingOrFailed" });
    failure_patterns(spec);
    workload::default_template(spec);
}

/// A condition that a policy names is one that holds, also in a CronJob's template.
pub(super) fn failure_patterns(spec: &mut Value) {
    let Some(policy) = present(spec, "podFailurePolicy") else { return };
    for rule in each(policy, "rules") {
        for pattern in each(rule, "onPodConditions") {
            set(pattern, "status", "True");
        }
    }
}

fn generate_selector(object: &mut Value, uid: &str) {
    let job = text(&object["metadata"], "name").to_owned();
    let Some(spec) = present(object, "spec") else { return };
    let labels = child(spec, "template")
        .and_then(|template| child(template, "metadata"))
        .and_then(|metadata| child(metadata, "labels"));
    if let Some(labels) = labels {
        for key in LABEL_UID {
            labels[key] = json!(uid);
        }
        for key in LABEL_NAME {
            // A label's value has at most 63 bytes.
            labels[key] = json!(job.get(..63).unwrap_or(&job));
        }
    }
    if let Some(selector) = child(spec, "selector").and_then(|selector| child(selector, "matchLabels")) {
        set_absent(selector, LABEL_UID[0], uid);
    }
}

/// While a job is suspended and never ran, its template's scheduling fields may change.
fn may_change_template(new: &Value, old: &Value) -> bool {
    if old["suspend"] != true {
        return false;
    }
    let bare = |spec: &Value| {
        let mut template = spec["template"].clone();
        for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
            _ = present(&mut template, "spec").and_then(|spec| super::fill::remove(spec, field));
        }
        if let Some(metadata) = present(&mut template, "metadata") {
            _ = super::fill::remove(metadata, "annotations");
            _ = super::fill::remove(metadata, "labels");
        }
        template
    };
    bare(new) == bare(old)
}

fn status_word(object: &Value) -> &'static str {
    let is = |type_: &str| condition(&object["status"], type_).is_some_and(|found| found["status"] == "True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !object["metadata"]["deletionTimestamp"].is_null() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(object: &Value) -> String {
    let succeeded = number(&object["status"], "succeeded");
    let parallelism = object["spec"]["parallelism"].as_i64().unwrap_or(0);
    match object["spec"]["completions"].as_i64() {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(status, field).parse::<Timestamp>().ok();
    match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(start), Some(end)) => table::human(end.as_second() - start.as_second()),
        (Some(start), None) => table::human(now.as_second() - start.as_second()),
    }
}

/// Containers, images and selector of a CronJob, whose selector is never there.
pub fn cron_cells(template: &Value) -> [Value; 3] {
    let [names, images] = super::cells::containers(&template["spec"]);
    [names, images, json!(NONE)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;
    use crate::strategy;

    fn ctx() -> Ctx<'static> {
        Ctx { now: Timestamp::UNIX_EPOCH, user: "u", groups: &[], uid: "uid-1", suffix: "bcdfg" }
    }

    fn job() -> Value {
        json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn a_new_job_gets_selector_labels_and_defaults() {
        let jobs = registry().by_path("batch", "v1", "jobs").unwrap();
        let mut object = job();
        strategy::default(jobs, &mut object);
        strategy::create(jobs, &mut object, Some("default"), &ctx()).unwrap();
        let spec = &object["spec"];
        assert_eq!(spec["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-1"}}));
        assert_eq!(
            spec["template"]["metadata"]["labels"],
            json!({"batch.kubernetes.io/controller-uid": "uid-1", "batch.kubernetes.io/job-name": "j",
                "controller-uid": "uid-1", "job-name": "j"})
        );
        let expect = [
            ("completions", json!(1)),
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ];
        for (field, value) in expect {
            assert_eq!(spec[field], value, "{field}");
        }
        assert_eq!(object["metadata"]["generation"], 1);
        let mut new = object.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        let status = strategy::update(jobs, &mut new, &object, "", &ctx()).unwrap_err();
        assert!(
            status.message.contains("spec.template: Invalid value: ")
                && status.message.ends_with("field is immutable")
        );
    }

    #[test]
    fn row() {
        let mut object = job();
        Job.default(&mut object);
        object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:00Z");
        object["status"] = json!({"startTime": "1970-01-01T00:00:01Z", "completionTime": "1970-01-01T00:00:09Z",
            "succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]});
        let row = Job.row(&object, "1970-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(json!(row), json!(["j", "Complete", "1/1", "8s", "60s", "c", "i", "<none>"]));
    }
}
