//! The JSON paths of printer columns, selectable fields and scale subresources.
//!
//! In: `.spec.hosts[0].name`, `.status.conditions[?(@.type=="Ready")].status`, hostile. Out: the values there.
//! Source: the Kubernetes page "JSONPath Support". Never: runs scripts, or fails on an object.

use serde_json::Value;

const STEPS_MAX: usize = 64;
const FOUND_MAX: usize = 256;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    All,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Vec<Step>, &'static str, Value),
    Below(String),
}

impl Path {
    /// `None` when it is no path.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(text);
        let text = text.strip_prefix(['$', '@']).unwrap_or(text);
        steps(text).map(Self)
    }

    /// The names, when the path is nothing but fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let name = |step: &'_ Step| match step {
            Step::Field(name) => Some(name.clone()),
            _ => None,
        };
        let plain = self.0.iter().all(|step| name(step).is_some());
        plain.then(|| {
            self.0
                .iter()
                .map(|step| match step {
                    Step::Field(name) => name.as_str(),
                    _ => "",
                })
                .collect()
        })
    }

    /// Everything at the path, in order.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        find(&self.0, object)
    }

    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.find(object).into_iter().next()
    }
}

fn find<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    let mut here = vec![object];
    for step in steps {
        let mut next = Vec::new();
        for value in here {
            apply(step, value, &mut next);
            next.truncate(FOUND_MAX);
        }
        here = next;
    }
    here
}

fn apply<'a>(step: &Step, value: &'a Value, found: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => found.extend(fields.get(name)),
        (Step::All, Value::Object(fields)) => found.extend(fields.values()),
        (Step::All, Value::Array(items)) => found.extend(items),
        (Step::Index(at), Value::Array(items)) => {
            found.extend(place(*at, items.len()).and_then(|at| items.get(at)))
        }
        (Step::Slice(from, to), Value::Array(items)) => {
            let bound = |at: i64| {
                place(at, items.len())
                    .unwrap_or(items.len())
                    .min(items.len())
            };
            let (from, to) = (from.map_or(0, bound), to.map_or(items.len(), bound));
            found.extend(items.get(from..to).into_iter().flatten());
        }
        (Step::Filter(path, operator, wanted), Value::Array(items)) => {
            found.extend(
                items
                    .iter()
                    .filter(|item| holds(find(path, item).first().copied(), operator, wanted)),
            );
        }
        (Step::Below(name), value) => below(name, value, found, 0),
        _ => {}
    }
}

fn place(at: i64, length: usize) -> Option<usize> {
    if at < 0 {
        length.checked_sub(at.unsigned_abs() as usize)
    } else {
        Some(at as usize)
    }
}

fn below<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a Value>, depth: usize) {
    if depth > STEPS_MAX || found.len() >= FOUND_MAX {
        return;
    }
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields
                .values()
                .for_each(|field| below(name, field, found, depth + 1));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| below(name, item, found, depth + 1)),
        _ => {}
    }
}

fn holds(value: Option<&Value>, operator: &str, wanted: &Value) -> bool {
    let Some(value) = value else { return false };
    if operator.is_empty() {
        return true;
    }
    let order = match (value, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match operator {
        "==" => order.is_some_and(|o| o.is_eq()),
        "!=" => order.is_some_and(|o| o.is_ne()),
        "<" => order.is_some_and(|o| o.is_lt()),
        "<=" => order.is_some_and(|o| o.is_le()),
        ">" => order.is_some_and(|o| o.is_gt()),
        ">=" => order.is_some_and(|o| o.is_ge()),
        _ => false,
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return None;
        }
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = name(after)?;
            steps.push(Step::Below(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".[") {
            rest = bracket(after, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = name(after)?;
            steps.push(if name == "*" {
                Step::All
            } else {
                Step::Field(name)
            });
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            rest = bracket(after, &mut steps)?;
        } else {
            return None;
        }
    }
    Some(steps)
}

/// A field's name up to the next dot or bracket; `\.` is a dot in the name.
fn name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            '.' | '[' if !name.is_empty() => return Some((name, &text[at..])),
            '.' | '[' | ']' | '\'' | '"' | ' ' => return None,
            other => name.push(other),
        }
    }
    (!name.is_empty()).then_some((name, ""))
}

/// What follows an opening bracket; returns what follows the closing one.
fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]")?;
        steps.push(self::filter(&filter[..end])?);
        return Some(&filter[end + 2..]);
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let end = text[1..].find(quote)? + 1;
        steps.push(Step::Field(text[1..end].to_owned()));
        return text[end + 1..].strip_prefix(']');
    }
    let end = text.find(']')?;
    let inner = text[..end].trim();
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let bound = |text: &str| {
        if text.trim().is_empty() {
            Some(None)
        } else {
            number(text).map(Some)
        }
    };
    steps.push(match inner.split_once(':') {
        _ if inner == "*" => Step::All,
        Some((from, to)) => Step::Slice(bound(from)?, bound(to)?),
        None => Step::Index(number(inner)?),
    });
    Some(&text[end + 1..])
}

fn filter(text: &str) -> Option<Step> {
    const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];
    let found = OPERATORS
        .iter()
        .filter_map(|operator| Some((text.find(operator)?, *operator)));
    let path = |text: &str| steps(text.trim().strip_prefix('@')?);
    match found.min_by_key(|(at, operator)| (*at, usize::MAX - operator.len())) {
        None => Some(Step::Filter(path(text)?, "", Value::Null)),
        Some((at, operator)) => {
            let wanted = text[at + operator.len()..].trim();
            let quoted = |quote| {
                wanted
                    .strip_prefix(quote)
                    .and_then(|w| w.strip_suffix(quote))
            };
            let wanted = match quoted('\'').or_else(|| quoted('"')) {
                Some(text) => Value::from(text),
                None => serde_json::from_str(wanted).ok()?,
            };
            Some(Step::Filter(path(&text[..at])?, operator, wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_kubectl_would() {
        let object = json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}},
            "spec": {"n": 3, "hosts": ["a", "b", "c"], "ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]}});
        let cases = [
            (".spec.n", json!([3])),
            ("{.spec.n}", json!([3])),
            (".spec.hosts", json!([["a", "b", "c"]])),
            (".spec.hosts[*]", json!(["a", "b", "c"])),
            (".spec.hosts[-1]", json!(["c"])),
            (".spec.hosts[0:2]", json!(["a", "b"])),
            (".spec.ports[*].name", json!(["web", "tls"])),
            (".spec.ports[?(@.port>100)].name", json!(["tls"])),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='Done')].status",
                json!(["False"]),
            ),
            (".metadata.labels.app\\.kubernetes\\.io/name", json!(["x"])),
            (".metadata.labels['app.kubernetes.io/name']", json!(["x"])),
            ("..port", json!([80, 443])),
            (".spec.absent.more", json!([])),
        ];
        for (path, expect) in cases {
            let found = Path::parse(path)
                .map(|p| json!(p.find(&object)))
                .unwrap_or_default();
            assert_eq!(found, expect, "{path}");
        }
        for wrong in [
            "spec",
            ".spec[",
            ".spec.",
            ".a b",
            ".spec[?(x)]",
            ".spec[x]",
        ] {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            Path::parse(".spec.n").unwrap().fields(),
            Some(vec!["spec", "n"])
        );
        assert_eq!(Path::parse(".spec[0]").unwrap().fields(), None);
    }
}
