//! What patches must know about a place in an object: is it a leaf, a map whose members count one by one,
//! a list with keys.
//!
//! In: the schema table and a value. Out: `Atom`s, children's places, the path element of a list's item.
//! Never: changes a value.

use serde_json::{Map, Value};

use super::fields::{Element, Literal};
use crate::schema::{ListType, MapType, Object, PatchStrategy, Schema, Table, Type};

/// Definition of every object's `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A place in the tree of types.
#[derive(Clone, Copy, Debug)]
pub struct Place<'t> {
    table: &'t Table,
    kind: Known<'t>,
}

#[derive(Clone, Copy, Debug)]
enum Known<'t> {
    Schema(&'t Schema),
    /// No schema: maps are granular, lists atomic, everything else a scalar.
    Deduced,
    /// The top of an object without schema: `metadata` is known all the same.
    DeducedTop,
}

/// What a place holds, for field ownership.
#[derive(Clone, Copy, Debug)]
pub enum Atom<'t> {
    Scalar(Scalar),
    List(ListAtom<'t>),
    Map(MapAtom<'t>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Number,
    Boolean,
    Untyped,
    /// Any value at all, owned as a whole.
    Whole,
}

#[derive(Clone, Copy, Debug)]
pub struct ListAtom<'t> {
    pub atomic: bool,
    pub keys: Keys<'t>,
    pub item: Place<'t>,
}

#[derive(Clone, Copy, Debug)]
pub enum Keys<'t> {
    /// A set of scalars.
    None,
    Many(&'t [Box<str>]),
    One(&'t str),
}

#[derive(Clone, Copy, Debug)]
pub struct MapAtom<'t> {
    pub atomic: bool,
    /// The struct's properties; None for free maps.
    pub object: Option<&'t Object>,
    place: Place<'t>,
    values: Option<Place<'t>>,
}

impl<'t> Place<'t> {
    /// The place of a whole object; without a definition of that name everything is deduced from values.
    pub fn of(table: &'t Table, definition: &str) -> Place<'t> {
        match table.get(definition) {
            Some(definition) => Place { table, kind: Known::Schema(&definition.schema) },
            None => Place { table, kind: Known::DeducedTop },
        }
    }

    /// The place of a whole object of a schema outside of the table; references lead into the table.
    pub fn of_schema(table: &'t Table, schema: &'t Schema) -> Place<'t> {
        Place { table, kind: Known::Schema(schema) }
    }

    /// An object whose kind has no schema (custom resources); its `metadata` is typed.
    pub fn deduced(table: &'t Table) -> Place<'t> {
        Place { table, kind: Known::DeducedTop }
    }

    pub fn is_typed(&self) -> bool {
        matches!(self.kind, Known::Schema(_))
    }

    fn at(self, schema: &'t Schema) -> Place<'t> {
        Place { table: self.table, kind: Known::Schema(schema) }
    }

    /// The strategy and merge key of strategic merge patches at this place.
    pub fn strategy(&self) -> (PatchStrategy, Option<&'t str>) {
        match self.kind {
            Known::Schema(schema) => (schema.patch, schema.patch_merge_key.as_deref()),
            _ => (PatchStrategy::default(), None),
        }
    }

    pub fn atom(self, value: &Value) -> Atom<'t> {
        let Known::Schema(schema) = self.kind else { return self.deduce(value) };
        let resolved = self.table.resolve(schema);
        match &resolved.kind {
            Type::Any => Atom::Scalar(Scalar::Whole),
            Type::Deduced => self.below().deduce(value),
            Type::String | Type::Bytes => Atom::Scalar(Scalar::String),
            Type::Int32 | Type::Int64 | Type::Number => Atom::Scalar(Scalar::Number),
            Type::Boolean => Atom::Scalar(Scalar::Boolean),
            Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString | Type::Ref(_) => {
                Atom::Scalar(Scalar::Untyped)
            }
            Type::List(item) => Atom::List(self.list(schema, resolved, item)),
            Type::Map(values) => Atom::Map(MapAtom {
                atomic: atomic_map(schema, resolved),
                object: None,
                place: self,
                values: Some(self.at(values)),
            }),
            Type::Object(object) => Atom::Map(MapAtom {
                atomic: atomic_map(schema, resolved),
                object: Some(object),
                place: self,
                values: object.open.then(|| self.below()),
            }),
        }
    }

    /// What is inside of something without a schema.
    fn below(self) -> Place<'t> {
        Place { table: self.table, kind: Known::Deduced }
    }

    fn deduce(self, value: &Value) -> Atom<'t> {
        let below = self.below();
        match value {
            Value::Array(_) => Atom::List(ListAtom { atomic: true, keys: Keys::None, item: below }),
            Value::Object(_) => {
                Atom::Map(MapAtom { atomic: false, object: None, place: self, values: Some(below) })
            }
            _ => Atom::Scalar(Scalar::Untyped),
        }
    }

    /// The list type says it; without one the merge key of strategic merge patches does, as upstream.
    fn list(self, schema: &'t Schema, resolved: &'t Schema, item: &'t Schema) -> ListAtom<'t> {
        let facts = if schema.list_type.is_some() { schema } else { resolved };
        let (atomic, keys) = match facts.list_type {
            Some(ListType::Atomic) => (true, Keys::None),
            Some(ListType::Set) => (false, Keys::None),
            Some(ListType::Map) => (false, Keys::Many(&facts.list_keys)),
            None if schema.patch.merge => {
                (false, schema.patch_merge_key.as_deref().map_or(Keys::None, Keys::One))
            }
            None => (true, Keys::None),
        };
        ListAtom { atomic, keys, item: self.at(item) }
    }

    /// The definitions' own default of a field, for list keys such as `protocol`.
    fn default_of(self, field: &str) -> Option<Value> {
        let Known::Schema(schema) = self.kind else { return None };
        let property = self.table.object(schema)?.property(field)?;
        property.schema.default.as_deref().cloned()
    }
}

fn atomic_map(schema: &Schema, resolved: &Schema) -> bool {
    schema.map_type.or(resolved.map_type) == Some(MapType::Atomic)
}

impl<'t> MapAtom<'t> {
    /// The place of a member; None when a struct has no such field.
    pub fn member(&self, name: &str) -> Option<Place<'t>> {
        if name == "metadata" && matches!(self.place.kind, Known::DeducedTop) {
            return Some(Place::of(self.place.table, OBJECT_META));
        }
        match self.object {
            Some(object) => object.property(name).map(|p| self.place.at(&p.schema)).or(self.values),
            None => self.values,
        }
    }

    /// Whether a member is a field of a struct, rather than an entry of a free map.
    pub fn is_field(&self, name: &str) -> bool {
        match self.object {
            Some(object) => object.property(name).is_some(),
            None => false,
        }
    }
}

impl<'t> ListAtom<'t> {
    /// The element by which ownership names an item of an associative list.
    pub fn element(&self, item: &Value) -> Result<Element, String> {
        let keys: Vec<&str> = match self.keys {
            Keys::None => return set_element(item),
            Keys::One(key) => vec![key],
            Keys::Many(keys) => keys.iter().map(AsRef::as_ref).collect(),
        };
        let Value::Object(map) = item else {
            let what = if item.is_null() { "a null element" } else { "an element that's not a map" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut found = std::collections::BTreeMap::new();
        for key in keys {
            let value = match map.get(key) {
                Some(value) if !value.is_null() => Some(value.clone()),
                _ => self.key_default(map, key)?,
            };
            found.extend(value.map(|value| (key.to_string(), Literal::new(value))));
        }
        Ok(Element::Key(found))
    }

    /// What stands for a key that an item lacks: the field's default, or nothing for an optional key
    /// beside others.
    fn key_default(&self, map: &Map<String, Value>, key: &str) -> Result<Option<Value>, String> {
        if let Some(default) = self.item.default_of(key) {
            return Ok(Some(default));
        }
        let keyed = match self.keys {
            Keys::Many(keys) => keys.len() > 1 && keys.iter().any(|k| map.contains_key(k.as_ref())),
            _ => false,
        };
        if keyed && !self.required(key) {
            return Ok(None);
        }
        Err(format!(
            "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
        ))
    }

    fn required(&self, key: &str) -> bool {
        let Known::Schema(schema) = self.item.kind else { return false };
        self.item.table.object(schema).is_some_and(|o| o.required.iter().any(|r| r.as_ref() == key))
    }
}

fn set_element(item: &Value) -> Result<Element, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
        value => Ok(Element::Value(Literal::new(value.clone()))),
    }
}

/// Equal as Kubernetes compares: 1 and 1.0 are the same number.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

/// What does not fit the schema, as server-side apply reports it: unknown fields, wrong types, items
/// without or with equal keys. Each finding starts with its path.
pub fn check(place: Place<'_>, value: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    check_at(place, value, &mut Vec::new(), &mut findings);
    findings
}

/// Findings are for people: more than these help nobody.
const FINDINGS_MAX: usize = 50;

fn check_at(place: Place<'_>, value: &Value, path: &mut Vec<Element>, findings: &mut Vec<String>) {
    if value.is_null() || findings.len() >= FINDINGS_MAX {
        return;
    }
    let mut wrong = |why: String| findings.push(format!("{}: {why}", super::fields::path_text(path)));
    match (place.atom(value), value) {
        (Atom::Scalar(scalar), value) => {
            if let Some(why) = scalar_finding(scalar, value) {
                wrong(why);
            }
        }
        (Atom::List(list), Value::Array(items)) => check_items(list, items, path, findings),
        (Atom::List(_), other) => wrong(format!("expected list, got {other}")),
        (Atom::Map(map), Value::Object(members)) => {
            for (name, member) in members {
                path.push(Element::Field(name.clone()));
                match map.member(name) {
                    Some(place) => check_at(place, member, path, findings),
                    None => findings
                        .push(format!("{}: field not declared in schema", super::fields::path_text(path))),
                }
                path.pop();
            }
        }
        (Atom::Map(_), other) => wrong(format!("expected map, got {other}")),
    }
}

fn check_items(list: ListAtom<'_>, items: &[Value], path: &mut Vec<Element>, findings: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let element = if list.atomic { Ok(Element::Index(i as i64)) } else { list.element(item) };
        match element {
            Err(why) => findings.push(format!("{}: element {i}: {why}", super::fields::path_text(path))),
            Ok(element) if !seen.insert(element.clone()) => {
                let at = super::fields::path_text(path);
                findings.push(format!("{at}: duplicate entries for key {element}"));
            }
            Ok(element) => {
                path.push(element);
                check_at(list.item, item, path, findings);
                path.pop();
            }
        }
    }
}

fn scalar_finding(scalar: Scalar, value: &Value) -> Option<String> {
    let go = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    match scalar {
        Scalar::Number if !value.is_number() => Some(format!("expected numeric (int or float), got {go}")),
        Scalar::String if !value.is_string() => Some(format!("expected string, got {value}")),
        Scalar::Boolean if !value.is_boolean() => Some(format!("expected boolean, got {value}")),
        Scalar::Untyped if value.is_object() || value.is_array() => {
            Some(format!("expected any scalar, got {go}"))
        }
        _ => None,
    }
}
