//! Tables of custom resources: `additionalPrinterColumns`.
//!
//! In: a version's columns and objects. Out: column definitions and cells. Never: fails on an object.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::jsonpath::Path;
use crate::table;

#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    head: Value,
    type_: String,
    path: Option<Path>,
}

impl Columns {
    /// The columns of a version; without any there is the age.
    pub fn of(version: &Value) -> Self {
        let own = version["additionalPrinterColumns"]
            .as_array()
            .filter(|list| !list.is_empty());
        let age = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created."}]);
        let list = own.or_else(|| age.as_array());
        let column = |column: &Value| {
            let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
            let description = match text("description") {
                empty if empty.is_empty() => {
                    format!(
                        "Custom resource definition column (in JSONPath format): {}",
                        text("jsonPath")
                    )
                }
                own => own,
            };
            Column {
                head: json!({
                    "name": text("name"), "type": text("type"), "format": text("format"),
                    "description": description, "priority": column["priority"].as_i64().unwrap_or(0),
                }),
                type_: text("type"),
                path: Path::parse(&text("jsonPath")),
            }
        };
        Self {
            columns: list.into_iter().flatten().map(column).collect(),
        }
    }

    pub fn heads(&self) -> Value {
        let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace. Is required when creating resources."});
        std::iter::once(name)
            .chain(self.columns.iter().map(|column| column.head.clone()))
            .collect()
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        std::iter::once(name)
            .chain(self.columns.iter().map(|column| column.cell(object, now)))
            .collect()
    }
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self
            .path
            .as_ref()
            .map(|path| path.find(object))
            .unwrap_or_default();
        let Some(first) = found.first() else {
            return Value::Null;
        };
        match self.type_.as_str() {
            "integer" => match first.as_i64().or_else(|| first.as_f64().map(|n| n as i64)) {
                Some(number) => json!(number),
                None => Value::Null,
            },
            "number" if first.is_number() => (*first).clone(),
            "boolean" if first.is_boolean() => (*first).clone(),
            "date" => match first.as_str() {
                Some(_) => match table::since(first, now).as_str() {
                    "<unknown>" => json!("<invalid>"),
                    age => json!(age),
                },
                None => Value::Null,
            },
            "string" => {
                let texts: Vec<String> = found.iter().map(|value| shown(value)).collect();
                json!(texts.join(" "))
            }
            _ => Value::Null,
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}
