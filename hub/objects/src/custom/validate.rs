//! Values of custom resources against their schema, in the words of Kubernetes' OpenAPI validation.
//!
//! In: an object, its schema, and at an update the object as it was. Out: field errors.
//! What did not change is not judged again (validation ratcheting), so that a stricter schema does not lock
//! up old objects.
//! Never: changes the object; runs rules (see `rules`).

use serde_json::{Value, json};

use super::formats;
use super::structural::{Additional, Kind, Structural};
use crate::field::{FieldError, Problem};
use crate::metadata;
use crate::patch::typed::equal;
use crate::schema::{ListType, MapType};

/// More errors help nobody, and the answer stays bounded.
const ERRORS_MAX: usize = 100;

/// Errors of `value`; `old` is what stood there before.
pub fn validate(
    schema: &Structural,
    value: &Value,
    old: Option<&Value>,
    path: &str,
) -> Vec<FieldError> {
    let mut walk = Walk {
        errors: Vec::new(),
        path: path.to_owned(),
        logic: 0,
    };
    walk.visit(schema, value, old);
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
    path: String,
    /// Depth of allOf, anyOf, oneOf and not around this value.
    logic: usize,
}

impl Walk {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// `spec.replicas in body <words>`.
    fn invalid(&mut self, value: &Value, words: &str) {
        let detail = format!("{} in body {words}", self.path);
        self.push(FieldError::invalid(
            self.path.as_str(),
            value.clone(),
            detail,
        ));
    }

    fn type_invalid(&mut self, shown: Value, wanted: &str) {
        let detail = format!("{} in body must be of type {wanted}: {shown}", self.path);
        self.push(FieldError {
            problem: Problem::TypeInvalid,
            field: self.path.clone(),
            bad: Some(shown),
            detail,
        });
    }

    fn visit(&mut self, schema: &Structural, value: &Value, old: Option<&Value>) {
        if old.is_some_and(|old| equal(old, value)) || self.errors.len() >= ERRORS_MAX {
            return;
        }
        if value.is_null() {
            if !schema.nullable && (schema.kind != Kind::None || schema.int_or_string) {
                self.type_invalid(json!("null"), wanted_type(schema));
            }
            return;
        }
        if !self.has_type(schema, value) {
            self.type_invalid(json!(json_type(value)), wanted_type(schema));
            return;
        }
        self.choices(schema, value);
        match value {
            Value::String(text) => self.string(schema, value, text),
            Value::Number(number) => {
                self.number(schema, value, number.as_f64().unwrap_or_default())
            }
            Value::Array(items) => self.array(schema, items, old),
            Value::Object(_) => self.object(schema, value, old),
            Value::Null | Value::Bool(_) => {}
        }
        self.logic(schema, value);
    }

    fn has_type(&self, schema: &Structural, value: &Value) -> bool {
        if schema.int_or_string {
            return value.is_string() || is_integer(value);
        }
        match (schema.kind, value) {
            (Kind::None | Kind::Unknown, _)
            | (Kind::Object, Value::Object(_))
            | (Kind::Array, Value::Array(_))
            | (Kind::String, Value::String(_))
            | (Kind::Boolean, Value::Bool(_))
            | (Kind::Number, Value::Number(_)) => true,
            (Kind::Integer, value) => is_integer(value),
            _ => false,
        }
    }

    fn choices(&mut self, schema: &Structural, value: &Value) {
        if schema.choices.is_empty() || schema.choices.iter().any(|choice| equal(choice, value)) {
            return;
        }
        let shown = |choice: &Value| {
            choice
                .as_str()
                .map_or_else(|| choice.to_string(), str::to_owned)
        };
        let choices: Vec<String> = schema.choices.iter().map(shown).collect();
        let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
        self.push(FieldError::not_supported(
            self.path.as_str(),
            value.clone(),
            &choices,
        ));
    }

    fn string(&mut self, schema: &Structural, value: &Value, text: &str) {
        let letters = text.chars().count() as u64;
        if let Some(max) = schema.max_length.filter(|max| letters > *max) {
            self.push(FieldError::too_long(self.path.as_str(), max as usize));
        }
        if let Some(min) = schema.min_length.filter(|min| letters < *min) {
            self.invalid(value, &format!("should be at least {min} chars long"));
        }
        if let Some((pattern, compiled)) = &schema.pattern
            && !compiled.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            self.invalid(value, &format!("should match '{pattern}'"));
        }
        if schema.kind == Kind::String && !formats::matches(&schema.format, text) {
            self.type_invalid(value.clone(), &schema.format);
        }
    }

    fn number(&mut self, schema: &Structural, value: &Value, number: f64) {
        if let Some(max) = schema.maximum {
            if schema.exclusive_maximum && number >= max {
                self.invalid(value, &format!("should be less than {}", plain(max)));
            } else if number > max {
                self.invalid(
                    value,
                    &format!("should be less than or equal to {}", plain(max)),
                );
            }
        }
        if let Some(min) = schema.minimum {
            if schema.exclusive_minimum && number <= min {
                self.invalid(value, &format!("should be greater than {}", plain(min)));
            } else if number < min {
                self.invalid(
                    value,
                    &format!("should be greater than or equal to {}", plain(min)),
                );
            }
        }
        if let Some(step) = schema.multiple_of.filter(|step| *step > 0.0) {
            let times = number / step;
            if (times - times.round()).abs() > 1e-9 {
                self.invalid(value, &format!("should be a multiple of {}", plain(step)));
            }
        }
        let range = match schema.format.as_str() {
            "int32" => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        };
        if let Some((_, _)) = range.filter(|(low, high)| number < *low || number > *high) {
            self.invalid(value, "should be a valid int32");
        }
    }

    fn array(&mut self, schema: &Structural, items: &[Value], old: Option<&Value>) {
        let count = items.len() as u64;
        if let Some(min) = schema.min_items.filter(|min| count < *min) {
            self.invalid(&json!(items), &format!("should have at least {min} items"));
        }
        if let Some(max) = schema.max_items.filter(|max| count > *max) {
            self.push(FieldError::too_many(
                self.path.as_str(),
                items.len(),
                max as usize,
            ));
        }
        if schema.unique_items && has_equals(items) {
            self.invalid(&json!(items), "shouldn't contain duplicates");
        }
        let Some(below) = &schema.items else { return };
        for (at, item) in items.iter().enumerate() {
            let before = old_item(schema, item, old);
            self.within(
                |path| path.push_str(&format!("[{at}]")),
                |walk| walk.visit(below, item, before),
            );
        }
    }

    fn object(&mut self, schema: &Structural, value: &Value, old: Option<&Value>) {
        let Some(fields) = value.as_object() else {
            return;
        };
        let count = fields.len() as u64;
        if let Some(min) = schema.min_properties.filter(|min| count < *min) {
            self.invalid(value, &format!("should have at least {min} properties"));
        }
        if let Some(max) = schema.max_properties.filter(|max| count > *max) {
            self.push(FieldError::too_many(
                self.path.as_str(),
                fields.len(),
                max as usize,
            ));
        }
        for name in schema
            .required
            .iter()
            .filter(|name| !fields.contains_key(*name))
        {
            let path = join(&self.path, name);
            self.push(FieldError::required(path, ""));
        }
        for (name, field) in fields {
            let below = schema.property(name).or_else(|| schema.values());
            if below.is_none() && matches!(schema.additional, Additional::Forbidden) {
                let path = join(&self.path, name);
                let detail = format!("{path} in body is a forbidden property");
                self.push(FieldError::invalid(path, field.clone(), detail));
            }
            let Some(below) = below else { continue };
            let before = match schema.map_type {
                Some(MapType::Atomic) => None,
                _ => old.and_then(|old| old.get(name)),
            };
            self.within(
                |path| *path = join(path, name),
                |walk| walk.visit(below, field, before),
            );
        }
        if schema.embedded && self.logic == 0 {
            self.embedded(value);
        }
    }

    fn embedded(&mut self, value: &Value) {
        for field in ["apiVersion", "kind"] {
            match value
                .get(field)
                .map(|text| text.as_str().unwrap_or_default())
            {
                None | Some("") => {
                    let path = join(&self.path, field);
                    self.push(FieldError::required(path, "must not be empty"));
                }
                Some(_) => {}
            }
        }
        for error in metadata::validate_embedded(&value["metadata"]) {
            let field = join(&self.path, &error.field);
            self.push(FieldError { field, ..error });
        }
    }

    fn logic(&mut self, schema: &Structural, value: &Value) {
        if schema.all_of.is_empty()
            && schema.any_of.is_empty()
            && schema.one_of.is_empty()
            && schema.not.is_none()
        {
            return;
        }
        for one in &schema.all_of {
            let errors = self.errors_of(one, value);
            if !errors.is_empty() {
                self.whole(&format!(
                    "{:?} must validate all the schemas (allOf)",
                    self.path
                ));
                errors.into_iter().for_each(|error| self.push(error));
            }
        }
        if !schema.any_of.is_empty() {
            let tries: Vec<_> = schema
                .any_of
                .iter()
                .map(|one| self.errors_of(one, value))
                .collect();
            if tries.iter().all(|errors| !errors.is_empty()) {
                self.whole(&format!(
                    "{:?} must validate at least one schema (anyOf)",
                    self.path
                ));
                self.best(tries);
            }
        }
        if !schema.one_of.is_empty() {
            let tries: Vec<_> = schema
                .one_of
                .iter()
                .map(|one| self.errors_of(one, value))
                .collect();
            let words = |path: &str, end: &str| {
                format!("{path:?} must validate one and only one schema (oneOf). {end}")
            };
            match tries.iter().filter(|errors| errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.whole(&words(&self.path, "Found none valid"));
                    self.best(tries);
                }
                many => self.whole(&words(
                    &self.path,
                    &format!("Found {many} valid alternatives"),
                )),
            }
        }
        if let Some(not) = &schema.not
            && self.errors_of(not, value).is_empty()
        {
            self.whole(&format!(
                "{:?} must not validate the schema (not)",
                self.path
            ));
        }
    }

    fn errors_of(&self, schema: &Structural, value: &Value) -> Vec<FieldError> {
        let mut walk = Walk {
            errors: Vec::new(),
            path: self.path.clone(),
            logic: self.logic + 1,
        };
        walk.visit(schema, value, None);
        walk.errors
    }

    /// An error of the value as a whole.
    fn whole(&mut self, words: &str) {
        self.push(FieldError::invalid("", "", words));
    }

    /// The errors of the alternative that came nearest.
    fn best(&mut self, tries: Vec<Vec<FieldError>>) {
        for error in tries.into_iter().min_by_key(Vec::len).into_iter().flatten() {
            self.push(error);
        }
    }

    fn within(&mut self, extend: impl FnOnce(&mut String), act: impl FnOnce(&mut Self)) {
        let before = self.path.clone();
        extend(&mut self.path);
        act(self);
        self.path = before;
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn wanted_type(schema: &Structural) -> &'static str {
    if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.word()
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value
            .as_f64()
            .is_some_and(|n| n.fract() == 0.0 && n.abs() < 1e18)
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A bound as Go prints it.
fn plain(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e21 {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

fn has_equals(items: &[Value]) -> bool {
    items
        .iter()
        .enumerate()
        .any(|(at, item)| items[..at].iter().any(|before| equal(before, item)))
}

/// What stood in a list before in place of this item: only lists with keys can tell.
pub(super) fn old_item<'a>(
    schema: &Structural,
    item: &Value,
    old: Option<&'a Value>,
) -> Option<&'a Value> {
    if schema.list_type != Some(ListType::Map) || schema.list_keys.is_empty() {
        return None;
    }
    let same = |before: &&Value| {
        schema
            .list_keys
            .iter()
            .all(|key| before.get(key) == item.get(key))
    };
    old?.as_array()?.iter().find(same)
}

/// Lists of type set or map with equal entries. At an update only when there were none before.
pub fn duplicates(schema: &Structural, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    find_duplicates(schema, value, path, &mut errors);
    errors
}

fn find_duplicates(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(below) = schema.property(name).or_else(|| schema.values()) {
                    find_duplicates(below, field, &join(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            let key = |item: &Value| match schema.list_type {
                Some(ListType::Set) => Some(item.clone()),
                Some(ListType::Map) => {
                    let keys = schema.list_keys.iter();
                    Some(
                        keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                            .collect(),
                    )
                }
                _ => None,
            };
            let mut seen = std::collections::HashSet::new();
            for (at, item) in items.iter().enumerate() {
                let place = format!("{path}[{at}]");
                if let Some(key) = key(item)
                    && !seen.insert(key.to_string())
                    && errors.len() < ERRORS_MAX
                {
                    errors.push(FieldError::duplicate(place.as_str(), key));
                }
                if let Some(below) = &schema.items {
                    find_duplicates(below, item, &place, errors);
                }
            }
        }
        _ => {}
    }
}
