//! Sets of field paths: who owns which fields of an object, and their JSON form, FieldsV1.
//!
//! In: paths, or the `fieldsV1` of a managedFields entry (`f:` field, `k:` keys, `v:` value, `i:` index,
//! `.` the place itself). Out: set algebra, JSON, paths as text (`.spec.containers[name="web"].image`).
//! Never: knows schemas.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::fmt;

use serde_json::{Map, Value};

/// A scalar (or a small value) that orders, so that it can stand in sets.
#[derive(Clone, Debug)]
pub struct Literal(Value);

impl Literal {
    /// Whole floats become integers: `80.0` and `80` name the same item.
    pub fn new(value: Value) -> Literal {
        match value.as_f64() {
            Some(f) if value.is_f64() && f.fract() == 0.0 && f.abs() < 9e15 => Literal(Value::from(f as i64)),
            _ => Literal(value),
        }
    }

    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Literal) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Literal {}
impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Literal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Literal {
    fn cmp(&self, other: &Literal) -> Ordering {
        let rank = |v: &Value| match v {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        };
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(f64::MAX).total_cmp(&b.as_f64().unwrap_or(f64::MAX)),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) if rank(a) == rank(b) => a.to_string().cmp(&b.to_string()),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    Field(String),
    /// The item of a list that has these keys.
    Key(BTreeMap<String, Literal>),
    /// The item of a set that equals this.
    Value(Literal),
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.to_string())
    }

    pub(crate) fn encode(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Key(keys) => {
                let map: Map<String, Value> = keys.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
                format!("k:{}", Value::Object(map))
            }
            Element::Value(value) => format!("v:{}", value.0),
            Element::Index(i) => format!("i:{i}"),
        }
    }

    /// None for kinds of elements that this version does not know; an error for malformed ones.
    fn decode(text: &str) -> Result<Option<Element>, FieldsError> {
        let bad = || FieldsError(format!("invalid path element {text:?} in fieldsV1"));
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let json = || serde_json::from_str::<Value>(rest).map_err(|_| bad());
        Ok(Some(match kind {
            "f" => Element::Field(rest.to_string()),
            "i" => Element::Index(rest.parse().map_err(|_| bad())?),
            "v" => Element::Value(Literal::new(json()?)),
            "k" => match json()? {
                Value::Object(map) => {
                    Element::Key(map.into_iter().map(|(k, v)| (k, Literal::new(v))).collect())
                }
                _ => return Err(bad()),
            },
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", v.0)).collect();
                write!(f, "[{}]", parts.join(","))
            }
            Element::Value(value) => write!(f, "[={}]", value.0),
            Element::Index(i) => write!(f, "[{i}]"),
        }
    }
}

pub type Path = Vec<Element>;

pub fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

/// A `fieldsV1` that is not one; the whole managedFields is then treated as absent.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("{0}")]
pub struct FieldsError(pub String);

/// A set of paths. Children are never empty sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) members: BTreeSet<Element>,
    pub(super) children: BTreeMap<Element, Set>,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// A member with what is below it.
    pub fn put(&mut self, element: Element, below: Set) {
        if !below.is_empty() {
            match self.children.entry(element.clone()) {
                Entry::Vacant(place) => _ = place.insert(below),
                Entry::Occupied(mut mine) => mine.get_mut().absorb(below),
            }
        }
        self.members.insert(element);
    }

    /// `put` at the end of a path.
    pub fn graft(&mut self, path: &[Element], below: Set) {
        match path {
            [] => self.absorb(below),
            [last] => self.put(last.clone(), below),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().graft(rest, below),
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|c| c.has(rest)),
        }
    }

    /// What lies below an element.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut result = self.clone();
        result.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let merged = result.children.get(element).map(|mine| mine.union(child));
            result.children.insert(element.clone(), merged.unwrap_or_else(|| child.clone()));
        }
        result
    }

    /// `union` in place.
    pub fn absorb(&mut self, other: Set) {
        self.members.extend(other.members);
        for (element, child) in other.children {
            match self.children.entry(element) {
                Entry::Vacant(place) => _ = place.insert(child),
                Entry::Occupied(mut mine) => mine.get_mut().absorb(child),
            }
        }
    }

    /// `difference` in place.
    pub fn subtract(&mut self, other: &Set) {
        other.members.iter().for_each(|element| _ = self.members.remove(element));
        for (element, theirs) in &other.children {
            let Some(mine) = self.children.get_mut(element) else { continue };
            mine.subtract(theirs);
            if mine.is_empty() {
                self.children.remove(element);
            }
        }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, child)| {
            let both = child.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Set { members, children: children.collect() }
    }

    pub fn difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, child)| {
            let rest = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Set { members, children: children.collect() }
    }

    /// Without `other`'s members and everything below them.
    pub fn recursive_difference(mut self, other: &Set) -> Set {
        self.subtract_below(other);
        self
    }

    fn subtract_below(&mut self, other: &Set) {
        for element in &other.members {
            self.members.remove(element);
            self.children.remove(element);
        }
        for (element, theirs) in &other.children {
            let Some(mine) = self.children.get_mut(element) else { continue };
            mine.subtract_below(theirs);
            if mine.is_empty() {
                self.children.remove(element);
            }
        }
    }

    /// All paths, in order.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, prefix: &mut Path, found: &mut Vec<Path>) {
        let elements: BTreeSet<&Element> = self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            prefix.push(element.clone());
            if self.members.contains(element) {
                found.push(prefix.clone());
            }
            if let Some(child) = self.children.get(element) {
                child.collect(prefix, found);
            }
            prefix.pop();
        }
    }

    /// FieldsV1.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for element in &self.members {
            map.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut inner = child.to_json();
            if self.members.contains(element)
                && let Value::Object(inner) = &mut inner
            {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(element.encode(), inner);
        }
        Value::Object(map)
    }

    /// From FieldsV1.
    pub fn from_json(value: &Value) -> Result<Set, FieldsError> {
        let mut set = Set::default();
        let Value::Object(map) = value else {
            return Err(FieldsError("fieldsV1 is not an object".into()));
        };
        for (key, below) in map.iter().filter(|(key, _)| *key != ".") {
            let Some(element) = Element::decode(key)? else { continue };
            let Value::Object(inner) = below else {
                return Err(FieldsError(format!("fieldsV1: {key:?} is not an object")));
            };
            let child = Set::from_json(below)?;
            if inner.is_empty() || inner.contains_key(".") {
                set.members.insert(element.clone());
            }
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::from_json(&value).unwrap()
    }

    #[test]
    fn fields_v1_round_trips() {
        let cases = [
            json!({}),
            json!({"f:spec": {"f:replicas": {}}}),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}}}}}),
            json!({"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {},
                "f:containerPort": {}}}}),
            json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"a/b\"": {}}}}),
            json!({"f:l": {"i:0": {}, "v:true": {}, "v:3": {}}}),
            json!({"f:a:b": {}}),
        ];
        for case in cases {
            assert_eq!(set(case.clone()).to_json(), case);
        }
        assert_eq!(set(json!({"x:future": {}, "f:a": {}})).to_json(), json!({"f:a": {}}));
        for bad in [
            json!([]),
            json!({"f": {}}),
            json!({"k:[]": {}}),
            json!({"i:x": {}}),
            json!({"v:{": {}}),
            json!({"f:a": 1}),
        ] {
            assert!(Set::from_json(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}, "f:d": {}}, "f:c": {}}));
        assert_eq!(a.union(&b).to_json(), json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}}));
        assert_eq!(a.intersection(&b).to_json(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        assert_eq!(a.difference(&b).to_json(), json!({"f:a": {}}));
        assert_eq!(b.difference(&a).to_json(), json!({"f:a": {"f:d": {}}}));
        let whole = set(json!({"f:a": {}}));
        assert_eq!(b.clone().recursive_difference(&whole).to_json(), json!({"f:c": {}}));
        assert_eq!(b.difference(&whole), b);
        assert!(a.difference(&a).is_empty());
        for (a, b) in [(&a, &b), (&b, &a), (&b, &whole), (&whole, &b), (&a, &a)] {
            let (mut all, mut rest) = (a.clone(), a.clone());
            all.absorb(b.clone());
            rest.subtract(b);
            assert_eq!((all, rest), (a.union(b), a.difference(b)), "in place as apart");
            let path = [Element::field("x"), Element::field("y")];
            let (mut grafted, mut inserted) = (a.clone(), a.clone());
            grafted.graft(&path, b.clone());
            inserted.insert(&path);
            b.paths().iter().for_each(|below| inserted.insert(&[&path[..], below].concat()));
            assert_eq!(grafted, inserted);
        }
    }

    #[test]
    fn paths_read_like_upstream() {
        let s = set(json!({"f:spec": {".": {},
                "f:containers": {"k:{\"name\":\"w\"}": {
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}}}}},
            "f:set": {"v:\"x\"": {}}, "f:list": {"i:2": {}}}}));
        let texts: Vec<String> = s.paths().iter().map(|p| path_text(p)).collect();
        let expected = [
            ".spec",
            ".spec.containers[name=\"w\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.list[2]",
            ".spec.set[=\"x\"]",
        ];
        assert_eq!(texts, expected);
        assert!(s.has(&s.paths()[1]));
    }

    #[test]
    fn literals_order() {
        assert_eq!(Literal::new(json!(80.0)), Literal::new(json!(80)));
        assert!(Literal::new(json!(2)) < Literal::new(json!(10)));
        assert!(Literal::new(json!(10)) < Literal::new(json!("1")));
        assert_ne!(Literal::new(Value::Null), Literal::new(json!("")));
    }
}
