//! Rules for a Job's spec, also in a CronJob.
//!
//! In: the spec as JSON, where it stands. Out: what is wrong, in Kubernetes' words.
//! Source: the limits of https://kubernetes.io/docs/concepts/workloads/controllers/job/ Never: fills anything in.

use serde_json::Value;

use super::fill::{list, text};
use super::pod::spec::validate_template;
use super::rules::{self, Errors, not_negative, one_of};
use crate::field::FieldError;
use crate::names;

const MANY: i64 = 100_000;
/// With so many completions and a limit for each index, these many may be at work, and may fail.
const FEW: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const MANAGED_BY_BYTES_MAX: usize = 63;

/// `path`: of the spec.
pub fn validate_spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for field in counts {
        not_negative(spec, field, path, &mut errors);
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        let words = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), words));
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        managed_by(manager, &format!("{path}.managedBy"), &mut errors);
    }
    one_of(spec, "completionMode", path, &["NonIndexed", "Indexed"], &mut errors);
    match spec["completionMode"] == "Indexed" {
        true => indexed(spec, path, &mut errors),
        false => not_indexed(spec, path, &mut errors),
    }
    failure_policy(spec, &format!("{path}.podFailurePolicy"), &mut errors);
    success_policy(spec, &format!("{path}.successPolicy"), &mut errors);
    let replacement: &[&str] =
        if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    one_of(spec, "podReplacementPolicy", path, replacement, &mut errors);
    if spec["template"].is_null() {
        errors.push(FieldError::required(format!("{path}.template"), ""));
        return errors;
    }
    errors.extend(template(spec, &format!("{path}.template")));
    errors
}

/// The template's own rules; a Job's pods end, so they are not always started anew.
fn template(spec: &Value, path: &str) -> Errors {
    let (at, policy) = (format!("{path}.spec.restartPolicy"), text(&spec["template"]["spec"], "restartPolicy"));
    let mut errors = validate_template(&spec["template"], path);
    errors.retain(|error| error.field != at);
    match policy {
        "Never" => {}
        "OnFailure" if spec["podFailurePolicy"].is_null() => {}
        "OnFailure" => {
            let words = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(at, policy, words));
        }
        "" | "Always" => errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\"")),
        other => errors.push(FieldError::not_supported(at, other, &["OnFailure", "Never"])),
    }
    errors
}

fn managed_by(manager: &str, path: &str, errors: &mut Errors) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.push(FieldError::required(path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            let wrong = names::dns_subdomain(domain);
            errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, domain, words)));
        }
        _ => {
            let words = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, manager, words));
        }
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        errors.push(FieldError::too_long(path, MANAGED_BY_BYTES_MAX));
    }
}

fn indexed(spec: &Value, path: &str, errors: &mut Errors) {
    let number = |field: &str| spec[field].as_i64();
    let (completions, parallelism, failed) = (number("completions"), number("parallelism"), number("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(FieldError::required(format!("{path}.completions"), "when completion mode is Indexed"));
    }
    let mut most = |field: &str, value: Option<i64>, max: i64, words: &str| {
        if let Some(value) = value.filter(|value| *value > max) {
            errors.push(FieldError::invalid(format!("{path}.{field}"), value, words));
        }
    };
    let words = format!("must be less than or equal to {MANY} when completion mode is Indexed");
    most("parallelism", parallelism, MANY, &words);
    most("maxFailedIndexes", failed, completions.unwrap_or(i64::MAX), "must be less than or equal to completions");
    most("maxFailedIndexes", failed, MANY, &format!("must be less than or equal to {MANY}"));
    if completions.is_some_and(|n| n > MANY) && !spec["backoffLimitPerIndex"].is_null() {
        let words = format!(
            "must be less than or equal to {FEW} when completions are above {MANY} and used with backoff limit per index"
        );
        most("parallelism", parallelism, FEW, &words);
        most("maxFailedIndexes", failed, FEW, &words);
        if failed.is_none() {
            let words = format!("must be specified when completions is above {MANY}");
            errors.push(FieldError::required(format!("{path}.maxFailedIndexes"), words));
        }
    }
}

fn not_indexed(spec: &Value, path: &str, errors: &mut Errors) {
    for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
        if !spec[field].is_null() {
            let words = "requires indexed completion mode";
            errors.push(FieldError::invalid(format!("{path}.{field}"), spec[field].clone(), words));
        }
    }
}

fn failure_policy(spec: &Value, path: &str, errors: &mut Errors) {
    let rules = list(&spec["podFailurePolicy"], "rules");
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        failure_rule(spec, rule, &format!("{path}.rules[{at}]"), errors);
    }
}

fn failure_rule(spec: &Value, rule: &Value, path: &str, errors: &mut Errors) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let at = format!("{path}.action");
    match text(rule, "action") {
        "" => errors.push(FieldError::required(at, format!("valid values: {}", in_brackets(&ACTIONS)))),
        "FailIndex" if spec["backoffLimitPerIndex"].is_null() => {
            errors.push(FieldError::invalid(at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        action if ACTIONS.contains(&action) => {}
        action => errors.push(FieldError::not_supported(at, action, &ACTIONS)),
    }
    let (codes, conditions) = (&rule["onExitCodes"], list(rule, "onPodConditions"));
    if !codes.is_null() {
        exit_codes(spec, codes, &format!("{path}.onExitCodes"), errors);
    }
    pod_conditions(conditions, &format!("{path}.onPodConditions"), errors);
    let words = match (codes.is_null(), conditions.is_empty()) {
        (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid_whole(path, words));
}

fn pod_conditions(conditions: &[Value], path: &str, errors: &mut Errors) {
    const KNOWN: [&str; 3] = ["False", "True", "Unknown"];
    if conditions.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), RULES_MAX));
    }
    for (at, pattern) in conditions.iter().enumerate() {
        rules::named(pattern, "type", &format!("{path}[{at}]"), names::qualified_name, errors);
        let status = format!("{path}[{at}].status");
        match text(pattern, "status") {
            "" => errors.push(FieldError::required(status, format!("valid values: {}", in_brackets(&KNOWN)))),
            known if KNOWN.contains(&known) => {}
            other => errors.push(FieldError::not_supported(status, other, &KNOWN)),
        }
    }
}

fn exit_codes(spec: &Value, codes: &Value, path: &str, errors: &mut Errors) {
    let operator = text(codes, "operator");
    match operator {
        "" => {
            let words = format!("valid values: {}", in_brackets(&["In", "NotIn"]));
            errors.push(FieldError::required(format!("{path}.operator"), words));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["In", "NotIn"])),
    }
    let pod = &spec["template"]["spec"];
    let mut containers = ["containers", "initContainers"].into_iter().flat_map(|kind| list(pod, kind));
    if let Some(name) = codes["containerName"].as_str()
        && !containers.any(|c| c["name"] == name)
    {
        let words = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), name, words));
    }
    let (values, at) = (list(codes, "values"), format!("{path}.values"));
    if values.is_empty() {
        errors.push(FieldError::invalid(&*at, codes["values"].clone(), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(&*at, values.len(), EXIT_CODES_MAX));
    }
    for (n, value) in values.iter().enumerate() {
        if operator == "In" && value == 0 {
            errors.push(FieldError::invalid(format!("{at}[{n}]"), 0, "must not be 0 for the In operator"));
        }
        if values[..n].contains(value) {
            errors.push(FieldError::duplicate(format!("{at}[{n}]"), value.clone()));
        }
    }
    if !values.is_sorted_by_key(|value| value.as_i64()) {
        errors.push(FieldError::invalid(at, codes["values"].clone(), "must be ordered"));
    }
}

fn success_policy(spec: &Value, path: &str, errors: &mut Errors) {
    if spec["successPolicy"].is_null() || spec["completionMode"] != "Indexed" {
        return;
    }
    let (at, rules) = (format!("{path}.rules"), list(&spec["successPolicy"], "rules"));
    if rules.is_empty() {
        let words = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&*at, words));
    }
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(&*at, rules.len(), RULES_MAX));
    }
    let completions = spec["completions"].as_i64().unwrap_or(0);
    for (n, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &format!("{at}[{n}]"), errors);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &str, errors: &mut Errors) {
    let (count, indexes) = (rule["succeededCount"].as_i64(), rule["succeededIndexes"].as_str());
    if count.is_none() && indexes.is_none() {
        let words = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, words));
    }
    let mut named = None;
    if let Some(indexes) = indexes {
        let at = format!("{path}.succeededIndexes");
        if indexes.len() > INDEXES_BYTES_MAX {
            errors.push(FieldError::too_long(&*at, INDEXES_BYTES_MAX));
        }
        match total(indexes, completions) {
            Ok(total) => named = Some(total),
            Err(why) => {
                named = Some(0);
                errors.push(FieldError::invalid(at, indexes, format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    let Some(count) = count else { return };
    let at = format!("{path}.succeededCount");
    rules::positive(rule, "succeededCount", path, errors);
    if count > completions {
        let words = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&*at, count, words));
    }
    if let Some(total) = named.filter(|total| count > *total) {
        let which = "the number of indexes in the specified succeededIndexes field";
        errors.push(FieldError::invalid(at, count, format!("must be less than or equal to {total} ({which})")));
    }
}

/// How many indexes `1,3-5` names.
fn total(indexes: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| -> Result<i64, String> {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    let (mut sum, mut last) = (0, None);
    for part in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let (first, end) = match part.split('-').collect::<Vec<_>>()[..] {
            [one] => (number(one)?, None),
            [first, end] => (number(first)?, Some(number(end)?)),
            _ => {
                return Err(format!("the fragment {part:?} violates the requirement that an index interval can have at \
                    most two parts separated by '-'"));
            }
        };
        let before = end.filter(|end| first >= *end).map(|end| (first, end));
        if let Some((previous, current)) = before.or(last.filter(|last| *last >= first).map(|last| (last, first))) {
            return Err(format!("non-increasing order, previous: {previous}, current: {current}"));
        }
        let end = end.unwrap_or(first);
        sum += end - first + 1;
        last = Some(end);
    }
    Ok(sum)
}

fn in_brackets(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Behaviour;
    use crate::kinds::Job;
    use serde_json::json;

    /// What is wrong with a Job of one container `c` with this in its spec.
    fn wrong(change: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}});
        merge(&mut object["spec"], change);
        Job.default(&mut object);
        validate_spec(&object["spec"], "spec").iter().map(ToString::to_string).collect()
    }

    fn merge(into: &mut Value, change: &Value) {
        match change {
            Value::Object(fields) => fields.iter().for_each(|(k, v)| merge(&mut into[k.as_str()], v)),
            other => *into = other.clone(),
        }
    }

    fn check(cases: Vec<(Value, &str)>) {
        for (change, want) in cases {
            assert_eq!(wrong(&change).join("; "), want, "{change}");
        }
    }

    #[test]
    fn counts_and_modes() {
        check(vec![
            (json!({}), ""),
            (json!({"completionMode": "Indexed"}), ""),
            (json!({"completionMode": "Indexed", "parallelism": 2}),
                "spec.completions: Required value: when completion mode is Indexed"),
            (json!({"completionMode": "Odd"}),
                "spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\""),
            (json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 100_001}),
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"),
            (json!({"backoffLimitPerIndex": 1}),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
            (json!({"completionMode": "Indexed", "completions": 3, "maxFailedIndexes": 1}),
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"),
            (json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1, "maxFailedIndexes": 4}),
                "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions"),
            (json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 1, "backoffLimitPerIndex": 1}),
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"),
            (json!({"backoffLimitPerIndex": -1, "completionMode": "Indexed"}),
                "spec.backoffLimitPerIndex: Invalid value: -1: must be greater than or equal to 0"),
            (json!({"managedBy": "acme.io/foo"}), ""),
            (json!({"managedBy": "foo"}), "spec.managedBy: Invalid value: \"foo\": must be a domain-prefixed path (such as \
                \"acme.io/foo\")"),
            (json!({"template": {"spec": {"restartPolicy": "Always"}}}),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""),
            (json!({"template": {"spec": {"restartPolicy": "Odd"}}}),
                "spec.template.spec.restartPolicy: Unsupported value: \"Odd\": supported values: \"OnFailure\", \"Never\""),
            (json!({"podReplacementPolicy": "Odd"}), "spec.podReplacementPolicy: Unsupported value: \"Odd\": supported \
                values: \"Failed\", \"TerminatingOrFailed\""),
        ]);
    }

    #[test]
    fn failure_policies() {
        let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let at = "spec.podFailurePolicy.rules[0]";
        let codes = |codes: Value| rule(json!({"action": "FailJob", "onExitCodes": codes}));
        let cases = vec![
            (codes(json!({"operator": "In", "values": [1, 2]})), String::new()),
            (rule(json!({"action": "FailJob"})),
                format!("{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required")),
            (rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]},
                "onPodConditions": [{"type": "DisruptionTarget"}]})),
                format!("{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported")),
            (rule(json!({"onPodConditions": [{"type": "DisruptionTarget"}]})), format!("{at}.action: Required value: \
                valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]")),
            (rule(json!({"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget"}]})),
                format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set")),
            (rule(json!({"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "Odd"}]})),
                format!("{at}.onPodConditions[0].status: Unsupported value: \"Odd\": supported values: \"False\", \"True\", \
                    \"Unknown\"")),
            (codes(json!({"operator": "In", "values": []})),
                format!("{at}.onExitCodes.values: Invalid value: []: at least one value is required")),
            (codes(json!({"operator": "In", "values": [0]})),
                format!("{at}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator")),
            (codes(json!({"operator": "NotIn", "values": [2, 1]})),
                format!("{at}.onExitCodes.values: Invalid value: [2,1]: must be ordered")),
            (codes(json!({"operator": "In", "values": [1, 1]})),
                format!("{at}.onExitCodes.values[1]: Duplicate value: 1")),
            (codes(json!({"operator": "Odd", "values": [1]})), format!("{at}.onExitCodes.operator: Unsupported value: \
                \"Odd\": supported values: \"In\", \"NotIn\"")),
            (codes(json!({"operator": "In", "values": [1], "containerName": "x"})),
                format!("{at}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer \
                    names in the pod template")),
        ];
        check(cases.iter().map(|(change, want)| (change.clone(), want.as_str())).collect());
        let mut restarts = codes(json!({"operator": "In", "values": [1]}));
        restarts["template"] = json!({"spec": {"restartPolicy": "OnFailure"}});
        check(vec![(restarts, "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when \
            podFailurePolicy is specified")]);
        let mut early = codes(json!({"operator": "In", "values": [1]}));
        early["podReplacementPolicy"] = json!("TerminatingOrFailed");
        check(vec![(early, "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \
            \"Failed\"")]);
    }

    #[test]
    fn success_policies() {
        let rule = |rule: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [rule]}});
        let at = "spec.successPolicy.rules[0]";
        let parse = |words: &str| format!("error parsing succeededIndexes: {words}");
        let indexes = |indexes: &str, words: &str| {
            let want = format!("{at}.succeededIndexes: Invalid value: {indexes:?}: {}", parse(words));
            (rule(json!({"succeededIndexes": indexes})), want)
        };
        let cases = vec![
            (rule(json!({"succeededIndexes": "0,2-4", "succeededCount": 4})), String::new()),
            (rule(json!({})),
                format!("{at}: Required value: at least one of succeededCount or succeededIndexes must be specified")),
            (json!({"completionMode": "Indexed", "successPolicy": {"rules": []}}), "spec.successPolicy.rules: Required value: \
                at least one rules must be specified when the successPolicy is specified".to_owned()),
            (rule(json!({"succeededCount": 6})), format!("{at}.succeededCount: Invalid value: 6: must be less than or equal \
                to 5 (the number of specified completions)")),
            (rule(json!({"succeededIndexes": "1-2", "succeededCount": 3})), format!("{at}.succeededCount: Invalid value: 3: \
                must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)")),
            indexes("9", "too large index: \"9\""),
            indexes("a", "cannot convert string to integer for index: \"a\""),
            indexes("3-2", "non-increasing order, previous: 3, current: 2"),
            indexes("3,1", "non-increasing order, previous: 3, current: 1"),
            indexes("1-2-3", "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two \
                parts separated by '-'"),
            (json!({"successPolicy": {"rules": [{"succeededIndexes": "0"}]}}), "spec.successPolicy: Invalid value: \
                {\"rules\":[{\"succeededIndexes\":\"0\"}]}: requires indexed completion mode".to_owned()),
        ];
        check(cases.iter().map(|(change, want)| (change.clone(), want.as_str())).collect());
    }
}
