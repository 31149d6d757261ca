//! CronJobs (batch/v1).
//!
//! In: CronJobs as JSON. Out: defaults, rules and the table row. Never: computes when to run.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::name;
use super::fill::{list, present, set, set_absent, text};
use super::rules::{not_negative, one_of, required};
use super::job_rules::validate_spec;
use super::{job, workload};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

/// So that the names of its Jobs fit a label.
const NAME_MAX: usize = 52;

#[derive(Debug, Clone, Copy)]
pub struct CronJob;

impl Behaviour for CronJob {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        super::warn::workload(
            new,
            old,
            |object| &object["spec"]["jobTemplate"]["spec"]["template"],
            "spec.jobTemplate.spec.template",
        )
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set(spec, "concurrencyPolicy", "Allow");
        set_absent(spec, "suspend", false);
        set_absent(spec, "successfulJobsHistoryLimit", 3);
        set_absent(spec, "failedJobsHistoryLimit", 1);
        if let Some(job) = present(spec, "jobTemplate").and_then(|template| present(template, "spec")) {
            super::job::failure_patterns(job);
            workload::default_template(job);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = self.rules(object);
        let name = text(&object["metadata"], "name");
        if name.len() > NAME_MAX {
            let words = format!("must be no more than {NAME_MAX} characters");
            errors.push(FieldError::invalid("metadata.name", name, words));
        }
        zone_in_schedule(&object["spec"], false, &mut errors);
        time_zone(&object["spec"], &mut errors);
        errors
    }

    /// What was let in once may stay: a long name, a zone in the schedule, a zone that is gone.
    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = self.rules(new);
        let (new, old) = (&new["spec"], &old["spec"]);
        zone_in_schedule(new, text(old, "schedule").contains("TZ"), &mut errors);
        if new["timeZone"] != old["timeZone"] {
            time_zone(new, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Schedule"),
                Column::text("Timezone"),
                Column::boolean("Suspend"),
                Column::integer("Active"),
                Column::text("Last Schedule"),
                Column::AGE,
                Column::text("Containers").wide(),
                Column::text("Images").wide(),
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let zone = match text(spec, "timeZone") {
            "" => super::cells::NONE,
            zone => zone,
        };
        let last = match &status["lastScheduleTime"] {
            Value::Null => super::cells::NONE.to_owned(),
            time => table::since(time, now),
        };
        let suspend = if spec["suspend"] == true { "True" } else { "False" };
        let mut row = vec![
            name(object),
            json!(text(spec, "schedule")),
            json!(zone),
            json!(suspend),
            json!(list(status, "active").len()),
            json!(last),
            table::age(object, now),
        ];
        row.extend(job::cron_cells(&spec["jobTemplate"]["spec"]["template"]));
        row
    }
}

impl CronJob {
    /// Those that hold for new ones and for changes.
    fn rules(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        if let Some(schedule) = required(spec, "schedule", "spec", &mut errors)
            && let Err(wrong) = check_schedule(schedule)
        {
            errors.push(FieldError::invalid("spec.schedule", schedule, wrong));
        }
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            not_negative(spec, field, "spec", &mut errors);
        }
        one_of(spec, "concurrencyPolicy", "spec", &["Allow", "Forbid", "Replace"], &mut errors);
        errors.extend(validate_spec(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec"));
        let job = &spec["jobTemplate"]["spec"];
        if !job["selector"].is_null() {
            let words = "`selector` will be auto-generated";
            errors.push(FieldError::invalid("spec.jobTemplate.spec.selector", job["selector"].clone(), words));
        }
        if job["manualSelector"] == true {
            let at = "spec.jobTemplate.spec.manualSelector";
            errors.push(FieldError::not_supported(at, true, &["nil", "false"]));
        }
        errors
    }
}

fn zone_in_schedule(spec: &Value, allowed: bool, errors: &mut Vec<FieldError>) {
    let schedule = text(spec, "schedule");
    let words = match (schedule.contains("TZ"), allowed) {
        (true, false) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        (true, true) if !spec["timeZone"].is_null() => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        _ => return,
    };
    errors.push(FieldError::invalid("spec.schedule", schedule, words));
}

/// A zone of the IANA's data base, written as there.
fn time_zone(spec: &Value, errors: &mut Vec<FieldError>) {
    let Some(zone) = spec["timeZone"].as_str() else { return };
    let known = jiff::tz::TimeZone::get(zone).ok();
    let same = known.as_ref().and_then(|known| known.iana_name()).is_some_and(|name| name == zone);
    let words = match zone {
        "" => "timeZone must be nil or non-empty string".to_owned(),
        zone if zone.eq_ignore_ascii_case("Local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
        }
        _ if same => return,
        zone => format!("unknown time zone {zone}"),
    };
    errors.push(FieldError::invalid("spec.timeZone", zone, words));
}

/// Five fields of numbers, names, ranges, lists and steps, or one of the `@` words.
pub fn check_schedule(schedule: &str) -> Result<(), String> {
    const WORDS: [&str; 7] =
        ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    if WORDS.contains(&schedule) || schedule.starts_with("@every ") {
        return Ok(());
    }
    let fields: Vec<&str> = schedule.split_whitespace().filter(|field| !field.contains("TZ=")).collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];
    for (field, (low, high, words)) in fields.iter().zip(bounds) {
        for part in field.split(',') {
            check_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn check_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && step.parse::<u32>().ok().is_none_or(|step| step == 0)
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let number = |text: &str| -> Result<u32, String> {
        let word = words.iter().position(|word| text.eq_ignore_ascii_case(word));
        match word {
            Some(at) => Ok(at as u32 + low),
            None => text.parse().map_err(|_| {
                format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
            }),
        }
    };
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(range)?, number(range)?),
    };
    match () {
        () if start < low => Err(format!("beginning of range ({start}) below minimum ({low}): {part}")),
        () if end > high => Err(format!("end of range ({end}) above maximum ({high}): {part}")),
        () if start > end => Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}")),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let good = ["* * * * *", "*/5 0-6 1,15 JAN-MAR mon", "@hourly", "0 0 1 1 ?", "@every 1h"];
        for schedule in good {
            assert_eq!(check_schedule(schedule), Ok(()), "{schedule}");
        }
        let bad = ["", "* * * *", "60 * * * *", "a * * * *", "*/0 * * * *", "5-2 * * * *", "* * 0 * *"];
        for schedule in bad {
            assert!(check_schedule(schedule).is_err(), "{schedule}");
        }
    }

    fn object(schedule: &str, zone: Value) -> Value {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": schedule, "timeZone": zone,
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}}}}});
        CronJob.default(&mut object);
        object
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn time_zones() {
        const DAILY: &str = "0 3 * * *";
        let unknown = |zone: &str| format!("spec.timeZone: Invalid value: {zone:?}: unknown time zone {zone}");
        let cases = [
            (Value::Null, String::new()),
            (json!("UTC"), String::new()),
            (json!("Asia/Tokyo"), String::new()),
            (json!("asia/tokyo"), unknown("asia/tokyo")),
            (json!("Mars/Phobos"), unknown("Mars/Phobos")),
            (json!("../etc/passwd"), unknown("../etc/passwd")),
            (json!(""), "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string".to_owned()),
            (json!("Local"), "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
                https://www.iana.org/time-zones".to_owned()),
        ];
        for (zone, want) in cases {
            assert_eq!(said(&CronJob.validate_create(&object(DAILY, zone.clone()))), want, "{zone}");
        }
        let old = object(DAILY, json!("Gone/City"));
        assert_eq!(said(&CronJob.validate_update(&object("0 4 * * *", json!("Gone/City")), &old, "")), "");
        let zoned = "CRON_TZ=UTC 0 3 * * *";
        let words = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        let want = format!("spec.schedule: Invalid value: {zoned:?}: {words}");
        assert_eq!(said(&CronJob.validate_create(&object(zoned, Value::Null))), want);
        assert_eq!(said(&CronJob.validate_update(&object(zoned, Value::Null), &object(zoned, Value::Null), "")), "");
        let words = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        let want = format!("spec.schedule: Invalid value: {zoned:?}: {words}");
        assert_eq!(said(&CronJob.validate_update(&object(zoned, json!("UTC")), &object(zoned, Value::Null), "")), want);
    }
}
