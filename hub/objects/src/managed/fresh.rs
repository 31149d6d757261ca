//! The fields of an object that nobody owned before: all that its creator set, as FieldsV1.
//!
//! In: a new object, its place, the top fields that the writer does not write. Out: the JSON that a comparison with
//! the empty object (`patch::join::zero`) comes to, without the sets in between: most of what a create cost.
//! Never: decides anything else than that comparison; the test beside it holds both together.

use serde_json::{Map, Value};

use crate::patch::fields::Element;
use crate::patch::join::{AlwaysThere, always_there};
use crate::patch::typed::{Atom, ListAtom, MapAtom, Place};
use crate::patch::walk::element_or_index;

/// Members of `metadata` that nobody owns are in `super::unowned`, too.
const UNOWNED_TOP: [&str; 2] = ["apiVersion", "kind"];
const ITSELF: &str = ".";

/// `reset` names top fields only.
pub(super) fn fields(place: Place<'_>, object: &Value, reset: &[&str]) -> Map<String, Value> {
    let (Atom::Map(map), Value::Object(members)) = (place.atom(object), object) else { return Map::new() };
    let mut out = Map::new();
    for (name, member) in members {
        if UNOWNED_TOP.contains(&name.as_str()) || reset.contains(&name.as_str()) {
            continue;
        }
        let Some(place) = map.member(name) else { continue };
        if name == "metadata" {
            let mut inner = Map::new();
            if let (Atom::Map(map), Value::Object(members)) = (place.atom(member), member) {
                let owned = members.iter().filter(|(name, _)| !super::UNOWNED_META.contains(&name.as_str()));
                owned.for_each(|(name, member)| set(map, name, member, &mut inner));
            }
            if !inner.is_empty() {
                out.insert(field(name), Value::Object(inner));
            }
            continue;
        }
        set(map, name, member, &mut out);
    }
    out
}

fn field(name: &str) -> String {
    ["f:", name].concat()
}

/// A member of a struct that is there even when nobody wrote to it.
fn set(map: MapAtom<'_>, name: &str, member: &Value, out: &mut Map<String, Value>) {
    let Some(place) = map.member(name) else { return };
    let inner = match always_there(&map, name, place, member) {
        Some(AlwaysThere::Struct(below, members)) => {
            let mut inner = Map::new();
            members.iter().for_each(|(name, member)| set(below, name, member, &mut inner));
            inner
        }
        Some(AlwaysThere::List(list, items)) => elements(&list, items),
        None => return insert(field(name), below(place, member), out),
    };
    if !inner.is_empty() {
        out.insert(field(name), Value::Object(inner));
    }
}

/// A place that is owned itself, with what is below it.
fn insert(key: String, mut inner: Map<String, Value>, out: &mut Map<String, Value>) {
    if !inner.is_empty() {
        inner.insert(ITSELF.into(), Value::Object(Map::new()));
    }
    out.insert(key, Value::Object(inner));
}

fn below(place: Place<'_>, value: &Value) -> Map<String, Value> {
    match (place.atom(value), value) {
        (Atom::List(list), Value::Array(items)) if !list.atomic => elements(&list, items),
        (Atom::Map(map), Value::Object(members)) if !map.atomic => {
            let mut out = Map::new();
            for (name, member) in members {
                if let Some(place) = map.member(name) {
                    insert(field(name), below(place, member), &mut out);
                }
            }
            out
        }
        _ => Map::new(),
    }
}

fn elements(list: &ListAtom<'_>, items: &[Value]) -> Map<String, Value> {
    let mut out = Map::new();
    for (i, item) in items.iter().enumerate() {
        let key = match element_or_index(list, item, i) {
            Element::Field(name) => field(&name),
            element => element.encode(),
        };
        // Items that share a key are owned as one whole.
        match out.contains_key(&key) {
            true => _ = out.insert(key, Value::Object(Map::new())),
            false => insert(key, below(list.item, item), &mut out),
        }
    }
    out
}
