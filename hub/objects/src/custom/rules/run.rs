//! Rules on objects.
//!
//! In: compiled rules, an object, at an update also as it was. Out: field errors.
//! Never: runs longer than `RUN_COST_MAX`.

use std::sync::Arc;

use limpet_cel::{Failure, Meter, Value as Cel};
use serde_json::{Value, json};

use super::types::to_cel;
use super::{Rule, Rules};
use crate::custom::structural::Structural;
use crate::custom::validate::old_item;
use crate::field::FieldError;
use crate::patch::typed::equal;

/// Cost of one run of one rule.
const CALL_COST_MAX: u64 = 1_000_000;
/// Cost of all rules of one request.
const RUN_COST_MAX: u64 = 10_000_000;
const ERRORS_MAX: usize = 50;

/// Runs all rules on an object of valid types; `old` is what was there before.
pub fn validate(
    rules: &Rules,
    schema: &Structural,
    object: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    if rules.is_empty() {
        return Vec::new();
    }
    let mut run = Run {
        errors: Vec::new(),
        left: RUN_COST_MAX,
    };
    run.node(rules, schema, (object, old), "", true);
    run.errors
}

struct Run {
    errors: Vec<FieldError>,
    left: u64,
}

impl Run {
    fn node(
        &mut self,
        rules: &Rules,
        schema: &Structural,
        values: (&Value, Option<&Value>),
        path: &str,
        root: bool,
    ) {
        let (value, old) = values;
        if value.is_null() || self.errors.len() >= ERRORS_MAX || self.left == 0 {
            return;
        }
        let root = root || schema.embedded;
        if !rules.own.is_empty() {
            let unchanged = old.is_some_and(|old| equal(old, value));
            let own = to_cel(schema, value, root);
            let before = old
                .filter(|old| !old.is_null())
                .map(|old| to_cel(schema, old, root));
            for rule in &rules.own {
                self.rule(rule, (&own, before.as_ref()), value, unchanged, path);
            }
        }
        if let Some(fields) = value.as_object() {
            for (name, field) in fields {
                let below = match (schema.property(name), rules.properties.get(name)) {
                    (Some(schema), Some(rules)) => Some((schema, rules)),
                    (None, _) => schema.values().zip(rules.values.as_deref()),
                    _ => None,
                };
                if let Some((schema, rules)) = below {
                    let at = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    self.node(
                        rules,
                        schema,
                        (field, old.and_then(|old| old.get(name))),
                        &at,
                        false,
                    );
                }
            }
        }
        if let (Some(items), Some(below), Some(rules)) =
            (value.as_array(), &schema.items, rules.items.as_deref())
        {
            for (at, item) in items.iter().enumerate() {
                let before = old_item(schema, item, old);
                self.node(
                    rules,
                    below,
                    (item, before),
                    &format!("{path}[{at}]"),
                    false,
                );
            }
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        (own, before): (&Cel, Option<&Cel>),
        value: &Value,
        unchanged: bool,
        path: &str,
    ) {
        // Without a past a transition rule has nothing to say.
        if rule.transition && before.is_none() && !rule.optional_old {
            return;
        }
        if unchanged && !rule.transition {
            return;
        }
        let old_self = match (before, rule.optional_old) {
            (Some(before), true) => Cel::Optional(Some(Arc::new(before.clone()))),
            (None, true) => Cel::Optional(None),
            (Some(before), false) => before.clone(),
            (None, false) => Cel::Null,
        };
        let variables = [("self", own.clone()), ("oldSelf", old_self)];
        let mut meter = Meter::new(CALL_COST_MAX.min(self.left));
        let outcome = rule.program.run(&variables, &mut meter);
        self.left = self.left.saturating_sub(meter.used);
        let error = |detail: String| FieldError::invalid(place(path, ""), shown(value), detail);
        match outcome {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => {
                let words = self.words(rule, &variables);
                let bad = Some(shown(value));
                let problem = rule.reason;
                self.errors.push(FieldError {
                    problem,
                    field: place(path, &rule.field),
                    bad,
                    detail: words,
                });
            }
            Err(Failure::Cost) if self.left == 0 => {
                self.errors.push(error(
                    "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
                ));
            }
            Err(Failure::Cost) => {
                let words = format!(
                    "validation rule \"{}\" exceeded its per call cost limit",
                    rule.text
                );
                self.errors.push(error(format!(
                    "call cost exceeds limit for rule: {}; {words}",
                    rule.text
                )));
            }
            Err(Failure::Error(why)) => self
                .errors
                .push(error(format!("{why} evaluating rule: {}", rule.title()))),
        }
    }

    fn words(&mut self, rule: &Rule, variables: &[(&str, Cel); 2]) -> String {
        if let Some(program) = &rule.message_program {
            let mut meter = Meter::new(CALL_COST_MAX.min(self.left));
            let outcome = program.run(variables, &mut meter);
            self.left = self.left.saturating_sub(meter.used);
            if let Ok(Cel::String(text)) = outcome
                && !text.trim().is_empty()
                && !text.contains('\n')
            {
                return text.trim().to_owned();
            }
        }
        rule.title()
    }
}

impl Rule {
    fn title(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.text.trim())
        } else {
            self.message.clone()
        }
    }
}

fn place(path: &str, below: &str) -> String {
    match (path, below) {
        (path, "") => path.to_owned(),
        ("", below) => below.to_owned(),
        (path, below) => format!("{path}.{below}"),
    }
}

/// Upstream shows the type of objects and lists, which would fill screens.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!("object"),
        Value::Array(_) => json!("array"),
        other => other.clone(),
    }
}
