//! Table cells that several kinds share.
//!
//! In: objects as JSON. Out: cells as Kubernetes prints them. Never: reads the clock.

use serde_json::{Map, Value, json};

use super::fill::{list, map, text};

pub const NONE: &str = "<none>";

pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// An integer, 0 when missing.
pub fn number(object: &Value, field: &str) -> Value {
    json!(object[field].as_i64().unwrap_or(0))
}

/// Text, or `<none>` when it is empty or missing.
pub fn or_none(object: &Value, field: &str) -> Value {
    match text(object, field) {
        "" => json!(NONE),
        found => json!(found),
    }
}

/// Names and images of the containers, separated by commas.
pub fn containers(pod_spec: &Value) -> [Value; 2] {
    let column = |field: &str| -> String {
        list(pod_spec, "containers")
            .iter()
            .map(|container| text(container, field))
            .collect::<Vec<_>>()
            .join(",")
    };
    [json!(column("name")), json!(column("image"))]
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return NONE.to_owned();
    }
    let pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

/// A metav1.LabelSelector in the form that `kubectl -l` takes.
pub fn selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = map(selector, "matchLabels")
        .iter()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for requirement in list(selector, "matchExpressions") {
        let key = text(requirement, "key");
        let mut values: Vec<&str> = list(requirement, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    if parts.is_empty() {
        return NONE.to_owned();
    }
    parts.sort();
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// The condition of a type.
pub fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    list(status, "conditions").iter().find(|condition| condition["type"] == type_)
}

/// Short names of access modes: `RWO,ROX`.
pub fn access_modes(modes: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    let mut out: Vec<&str> = Vec::new();
    for known in ["RWO", "ROX", "RWX", "RWOP"] {
        if modes.iter().any(|mode| short(mode) == known) {
            out.push(known);
        }
    }
    out.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_like_kubectl() {
        let cases = [
            (json!({}), "<none>"),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                json!({"matchLabels": {"x": "1"}, "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["q", "p"]}, {"key": "z", "operator": "DoesNotExist"}]}),
                "a in (p,q),x=1,!z",
            ),
        ];
        for (object, expect) in cases {
            assert_eq!(selector(&object), expect);
        }
    }
}
