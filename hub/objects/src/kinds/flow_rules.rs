//! What FlowSchemas and PriorityLevelConfigurations may say.
//!
//! In: their specs as JSON, defaulted. Out: field errors in upstream's words (flowcontrol's validation).
//! Never: judges which of them a request belongs to.

use serde_json::Value;

use super::fill::{list, text};
use super::rules::{Errors, join, named, one_of, required};
use crate::field::FieldError;
use crate::names;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// A hand is dealt from one hash of a request's flow: more than this many bits of it cannot be used.
const ENTROPY_BITS_MAX: f64 = 60.0;
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn schema(object: &Value) -> Errors {
    let (spec, mut errors) = (&object["spec"], Errors::new());
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    let mut wrong = |why: &str| errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
    match precedence {
        ..=0 => wrong("must be a positive value"),
        1 if text(&object["metadata"], "name") != EXEMPT => {
            wrong("only the schema named 'exempt' may have matchingPrecedence 1");
        }
        p if p > PRECEDENCE_MAX => wrong(&format!("must not be greater than {PRECEDENCE_MAX}")),
        _ => {}
    }
    if spec["distinguisherMethod"].is_object() {
        let kinds = ["ByNamespace", "ByUser"];
        choice(&spec["distinguisherMethod"], "type", "spec.distinguisherMethod", &kinds, &mut errors);
    }
    let level = "spec.priorityLevelConfiguration";
    if text(&spec["priorityLevelConfiguration"], "name").is_empty() {
        errors.push(FieldError::required(join(level, "name"), "must reference a priority level"));
    }
    named(&spec["priorityLevelConfiguration"], "name", level, names::dns_subdomain, &mut errors);
    for (at, rule) in list(spec, "rules").iter().enumerate() {
        policy(rule, &format!("spec.rules[{at}]"), &mut errors);
    }
    errors
}

fn policy(rule: &Value, path: &str, errors: &mut Errors) {
    if list(rule, "subjects").is_empty() {
        errors.push(FieldError::required(join(path, "subjects"), "subjects must contain at least one value"));
    }
    for (at, one) in list(rule, "subjects").iter().enumerate() {
        subject(one, &format!("{path}.subjects[{at}]"), errors);
    }
    let (resource, other) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resource.is_empty() && other.is_empty() {
        let words = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, words));
    }
    for (at, rule) in resource.iter().enumerate() {
        let path = format!("{path}.resourceRules[{at}]");
        verbs(rule, &path, errors);
        all_or_some(rule, "apiGroups", &path, "resource rules must supply at least one api group", "api groups", errors);
        all_or_some(rule, "resources", &path, "resource rules must supply at least one resource", "resources", errors);
        let everywhere = rule["clusterScope"] == true && list(rule, "namespaces").is_empty();
        if !everywhere {
            let words = "resource rules that are not cluster scoped must supply at least one namespace";
            all_or_some(rule, "namespaces", &path, words, "namespaces", errors);
        }
    }
    for (at, rule) in other.iter().enumerate() {
        let path = format!("{path}.nonResourceRules[{at}]");
        verbs(rule, &path, errors);
        let words = "nonResourceURLs must contain at least one value";
        all_or_some(rule, "nonResourceURLs", &path, words, "non-resource URLs", errors);
    }
}

fn subject(subject: &Value, path: &str, errors: &mut Errors) {
    const PARTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    if !PARTS.iter().any(|(known, _)| *known == kind) {
        errors.push(FieldError::not_supported(join(path, "kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    }
    for (known, part) in PARTS {
        let (given, own) = (subject[part].is_object(), known == kind);
        let path = join(path, part);
        match (own, given) {
            (true, false) => {
                let words = format!("{part} is required when subject kind is '{known}'");
                errors.push(FieldError::required(path, words));
            }
            (false, true) => {
                let words = format!("{part} is forbidden when subject kind is not '{known}'");
                errors.push(FieldError::forbidden(path, words));
            }
            (true, true) => {
                _ = required(&subject[part], "name", &path, errors);
                if part == "serviceAccount" {
                    _ = required(&subject[part], "namespace", &path, errors);
                }
            }
            (false, false) => {}
        }
    }
}

fn verbs(rule: &Value, path: &str, errors: &mut Errors) {
    all_or_some(rule, "verbs", path, "verbs must contain at least one value", "verbs", errors);
    let path = join(path, "verbs");
    let known = |verb: &&Value| verb.as_str().is_some_and(|verb| verb == "*" || VERBS.contains(&verb));
    if let Some(other) = list(rule, "verbs").iter().find(|verb| !known(verb)) {
        errors.push(FieldError::not_supported(path, other.clone(), &VERBS));
    }
}

/// A list that is not empty, and `*` alone when it is in there.
fn all_or_some(rule: &Value, field: &str, path: &str, empty: &str, others: &str, errors: &mut Errors) {
    let (values, path) = (list(rule, field), join(path, field));
    if values.is_empty() {
        errors.push(FieldError::required(path, empty));
    } else if values.len() > 1 && values.iter().any(|value| value == "*") {
        let words = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, rule[field].clone(), words));
    }
}

/// `one_of`, but the empty text is no choice either.
fn choice(object: &Value, field: &str, path: &str, choices: &[&str], errors: &mut Errors) {
    match text(object, field) {
        "" => errors.push(FieldError::not_supported(join(path, field), "", choices)),
        _ => one_of(object, field, path, choices, errors),
    }
}

pub fn level(object: &Value) -> Errors {
    let (spec, mut errors) = (&object["spec"], Errors::new());
    let kind = text(spec, "type");
    if (text(&object["metadata"], "name") == EXEMPT) != (kind == "Exempt") {
        let words = "type must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid("spec.type", kind, words));
    }
    match kind {
        "Exempt" => {
            if spec["limited"].is_object() {
                errors.push(FieldError::forbidden("spec.limited", "must be nil if the type is not Limited"));
            }
            shares(&spec["exempt"], "spec.exempt", &mut errors);
        }
        "Limited" => {
            if spec["exempt"].is_object() {
                errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
            }
            match spec["limited"].is_object() {
                true => limited(&spec["limited"], &mut errors),
                false => errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited")),
            }
        }
        _ => choice(spec, "type", "spec", &["Exempt", "Limited"], &mut errors),
    }
    errors
}

fn shares(half: &Value, path: &str, errors: &mut Errors) {
    let mut check = |field: &str, good: &dyn Fn(i64) -> bool, words: &str| {
        if let Some(number) = half[field].as_i64().filter(|number| !good(*number)) {
            errors.push(FieldError::invalid(join(path, field), number, words));
        }
    };
    check("nominalConcurrencyShares", &|n| n >= 0, "must be a non-negative integer");
    check("lendablePercent", &|n| (0..=100).contains(&n), "must be between 0 and 100, inclusive");
    check("borrowingLimitPercent", &|n| n >= 0, "if specified, must be a non-negative integer");
}

fn limited(limited: &Value, errors: &mut Errors) {
    shares(limited, "spec.limited", errors);
    let (response, path) = (&limited["limitResponse"], "spec.limited.limitResponse");
    let queues = response["queuing"].is_object();
    match text(response, "type") {
        "Queue" if queues => queuing(&response["queuing"], &join(path, "queuing"), errors),
        "Queue" => {
            let words = "must not be empty if limited.limitResponse.type is Queue";
            errors.push(FieldError::required(join(path, "queuing"), words));
        }
        "Reject" if queues => {
            let words = "must be nil if limited.limitResponse.type is not Queue";
            errors.push(FieldError::forbidden(join(path, "queuing"), words));
        }
        _ => choice(response, "type", path, &["Queue", "Reject"], errors),
    }
}

fn queuing(queuing: &Value, path: &str, errors: &mut Errors) {
    let of = |field: &str| queuing[field].as_i64().unwrap_or(0);
    let mut wrong = |field: &str, why: String| {
        errors.push(FieldError::invalid(join(path, field), of(field), why));
    };
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if of(field) <= 0 {
            wrong(field, "must be positive".into());
        }
    }
    let (queues, hand) = (of("queues"), of("handSize"));
    if queues > QUEUES_MAX {
        wrong("queues", format!("must not be greater than {QUEUES_MAX}"));
    } else if hand > queues && queues > 0 {
        wrong("handSize", format!("should not be greater than queues ({queues})"));
    } else if hand > 0 && entropy_bits(queues, hand) > ENTROPY_BITS_MAX {
        let words = "should not be greater than 60";
        wrong("handSize", format!("required entropy bits of deckSize {queues} and handSize {hand} {words}"));
    }
}

/// Bits of a hash that dealing a hand takes, as upstream counts them.
fn entropy_bits(queues: i64, hand: i64) -> f64 {
    ((queues as f64).log2() * hand as f64).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn schemas() {
        let rule = json!({"subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]});
        let base = json!({"metadata": {"name": "a"}, "spec": {"matchingPrecedence": 7,
            "priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}});
        assert_eq!(texts(schema(&base)), [""; 0]);
        for (pointer, value, expect) in [
            ("/spec/matchingPrecedence", json!(0), "spec.matchingPrecedence: Invalid value: 0: must be a positive value"),
            ("/spec/matchingPrecedence", json!(10_001),
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
            ("/spec/matchingPrecedence", json!(1),
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"),
            ("/spec/distinguisherMethod/type", json!("ByDay"), "spec.distinguisherMethod.type: Unsupported value: \
                \"ByDay\": supported values: \"ByNamespace\", \"ByUser\""),
            ("/spec/priorityLevelConfiguration/name", json!(""),
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level"),
            ("/spec/rules/0/subjects", json!([]),
                "spec.rules[0].subjects: Required value: subjects must contain at least one value"),
            ("/spec/rules/0/subjects/0/kind", json!("Robot"), "spec.rules[0].subjects[0].kind: Unsupported value: \
                \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\""),
            ("/spec/rules/0/subjects/0", json!({"kind": "User"}),
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'"),
            ("/spec/rules/0/resourceRules", json!([]),
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"),
            ("/spec/rules/0/resourceRules/0/namespaces", json!([]), "spec.rules[0].resourceRules[0].namespaces: \
                Required value: resource rules that are not cluster scoped must supply at least one namespace"),
            ("/spec/rules/0/resourceRules/0/resources", json!(["*", "pods"]), "spec.rules[0].resourceRules[0].resources: \
                Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources"),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            assert_eq!(texts(schema(&object)), [expect], "{pointer}");
        }
    }

    #[test]
    fn levels() {
        let queuing = json!({"queues": 64, "handSize": 8, "queueLengthLimit": 50});
        let base = json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}}}});
        assert_eq!(texts(level(&base)), [""; 0]);
        for (pointer, value, expect) in [
            ("/spec/limited/lendablePercent", json!(101),
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"),
            ("/spec/limited/limitResponse/type", json!("Reject"), "spec.limited.limitResponse.queuing: Forbidden: \
                must be nil if limited.limitResponse.type is not Queue"),
            ("/spec/limited/limitResponse/queuing/handSize", json!(65), "spec.limited.limitResponse.queuing.handSize: \
                Invalid value: 65: should not be greater than queues (64)"),
            ("/spec/limited/limitResponse/queuing/handSize", json!(16), "spec.limited.limitResponse.queuing.handSize: \
                Invalid value: 16: required entropy bits of deckSize 64 and handSize 16 should not be greater than 60"),
            ("/spec/limited/limitResponse/queuing/queues", json!(0),
                "spec.limited.limitResponse.queuing.queues: Invalid value: 0: must be positive"),
            ("/spec/limited", Value::Null, "spec.limited: Required value: must not be empty when type is Limited"),
            ("/metadata/name", json!("exempt"),
                "spec.type: Invalid value: \"Limited\": type must be 'Exempt' if and only if `name` is 'exempt'"),
        ] {
            let mut object = base.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            assert_eq!(texts(level(&object)), [expect], "{pointer}");
        }
        let exempt = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {"lendablePercent": 0}}});
        assert_eq!(texts(level(&exempt)), [""; 0]);
    }
}
