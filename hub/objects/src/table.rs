//! meta.k8s.io/v1 Table: what `kubectl get` prints.
//!
//! In: objects as JSON and the time. Out: a Table with the resource's own columns. Also the words for
//! durations.
//! Never: reads the clock; sets the list's resourceVersion (the caller knows it).

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::time;

/// What of the object goes into each row (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// Parses the query's value; an unknown one is an error text.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(format!("unrecognized includeObject value: {other:?}")),
        }
    }
}

/// Renders objects as a Table; the caller adds the list's metadata.
pub fn render(resource: &Resource, objects: &[Value], now: Timestamp, include: Include) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(resource, object, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns(resource),
        "rows": rows,
    })
}

/// The column definitions alone.
pub fn columns(resource: &Resource) -> Value {
    if let Some(custom) = &resource.custom {
        return custom.columns.heads();
    }
    let columns = resource.behaviour.columns().iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.type_,
            "format": column.format,
            "description": format!("{} of the {}", column.name, resource.singular),
            "priority": column.priority,
        })
    });
    columns.collect()
}

fn row(resource: &Resource, object: &Value, now: Timestamp, include: Include) -> Value {
    let mut row = json!({"cells": resource.behaviour.row(object, now)});
    match include {
        Include::None => {}
        Include::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
        }
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// Time since an RFC 3339 text, as tables print it; `<unknown>` when there is none.
pub fn since(time: &Value, now: Timestamp) -> String {
    match time::parse_value(Some(time)) {
        Some(time) => human(now.as_second() - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// The age cell of most kinds.
pub fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

/// Seconds as Kubernetes prints durations: `45s`, `2m5s`, `3h4m`, `2d3h`, `400d`, `2y5d`.
pub fn human(seconds: i64) -> String {
    time::human(SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_durations_like_kubernetes() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 240, "3h4m"),
            (8 * 3600 + 600, "8h"),
            (47 * 3600 + 60, "47h"),
            (51 * 3600, "2d3h"),
            (48 * 3600, "2d"),
            (8 * 86400 + 3600, "8d"),
            (400 * 86400, "400d"),
            (735 * 86400, "2y5d"),
            (8 * 365 * 86400 + 86400, "8y"),
        ];
        for (seconds, expect) in cases {
            assert_eq!(human(seconds), expect, "{seconds}");
        }
    }

    #[test]
    fn renders_rows_with_metadata() {
        let resource = crate::registry::registry().by_path("", "v1", "limitranges").unwrap();
        let object =
            json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {}});
        let table = render(resource, std::slice::from_ref(&object), Timestamp::UNIX_EPOCH, Include::Metadata);
        assert_eq!(table["rows"][0]["cells"], json!(["a", "1970-01-01T00:00:00Z"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        let whole = render(resource, std::slice::from_ref(&object), Timestamp::UNIX_EPOCH, Include::Object);
        assert_eq!(whole["rows"][0]["object"], object);
    }
}
