//! Lays an applied configuration over the live object along the schema.
//!
//! In: the live value and the applied one. Out: what the object becomes, before anything is removed:
//! leaves, atomic maps and atomic lists come from the configuration, everything else merges; keyed items
//! keep an order that suits both.
//! Never: removes a field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::Element;
use super::typed::{Atom, ListAtom, MapAtom, Place};
use super::walk::element_or_index;

pub fn join(place: Place<'_>, live: &Value, applied: &Value) -> Value {
    match (place.atom(applied), live, applied) {
        (Atom::Map(map), Value::Object(live), Value::Object(applied)) if !map.atomic => {
            let mut result = live.clone();
            for (name, value) in applied {
                let merged = match (live.get(name), map.member(name)) {
                    (Some(before), Some(place)) => join(place, before, value),
                    _ => value.clone(),
                };
                result.insert(name.clone(), merged);
            }
            Value::Object(result)
        }
        (Atom::List(list), Value::Array(live), Value::Array(applied)) if !list.atomic => {
            Value::Array(Lists::new(list, live, applied).join())
        }
        _ => applied.clone(),
    }
}

struct Lists<'t, 'v> {
    list: ListAtom<'t>,
    live: Vec<(Element, &'v Value)>,
    applied: Vec<(Element, &'v Value)>,
    /// None for elements that come twice.
    live_by: BTreeMap<Element, Option<&'v Value>>,
    applied_all: BTreeSet<Element>,
}

impl<'t, 'v> Lists<'t, 'v> {
    fn new(list: ListAtom<'t>, live: &'v [Value], applied: &'v [Value]) -> Self {
        let elements = |items: &'v [Value]| -> Vec<(Element, &'v Value)> {
            items.iter().enumerate().map(|(i, item)| (element_or_index(&list, item, i), item)).collect()
        };
        let (live, applied) = (elements(live), elements(applied));
        let mut live_by = BTreeMap::new();
        for (element, value) in &live {
            live_by.entry(element.clone()).and_modify(|v| *v = None).or_insert(Some(*value));
        }
        let applied_all = applied.iter().map(|(element, _)| element.clone()).collect();
        Lists { list, live, applied, live_by, applied_all }
    }

    fn is_applied(&self, element: &Element) -> bool {
        self.applied_all.contains(element)
    }

    fn item(&self, element: &Element, applied: &Value) -> Value {
        match self.live_by.get(element) {
            Some(Some(live)) => join(self.list.item, live, applied),
            _ => applied.clone(),
        }
    }

    /// Both orders are walked at once. The configuration's order rules among its own items, the live order
    /// among those that only the live object has; live-only items stay in front of the shared item that
    /// they stood before.
    fn join(&self) -> Vec<Value> {
        let mut out = Vec::with_capacity(self.live.len().max(self.applied.len()));
        let mut shared = self.applied.iter().map(|(e, _)| e).filter(|e| self.live_by.contains_key(*e));
        let mut next_shared = shared.next();
        let mut done: BTreeSet<&Element> = BTreeSet::new();
        let (mut l, mut r) = (0, 0);
        while l < self.live.len() || r < self.applied.len() {
            if let (Some((left, _)), Some((right, value))) = (self.live.get(l), self.applied.get(r)) {
                if left == right {
                    out.push(self.item(right, value));
                    done.insert(right);
                    (l, r) = (l + 1, r + 1);
                    next_shared = shared.next();
                    continue;
                }
                if self.is_applied(left) && next_shared.is_some_and(|s| s != left) {
                    l += 1;
                    continue;
                }
            }
            if let Some((left, value)) = self.live.get(l) {
                if !self.is_applied(left) {
                    out.push((*value).clone());
                    l += 1;
                    continue;
                }
                if done.contains(left) {
                    l += 1;
                }
            }
            if let Some((right, value)) = self.applied.get(r) {
                out.push(self.item(right, value));
                done.insert(right);
                r += 1;
                if next_shared == Some(right) {
                    next_shared = shared.next();
                }
            }
        }
        out
    }
}

/// What an object of this kind has before anybody wrote to it, as far as `value` has it too: Go's structs
/// that are no pointers are there even when empty, so nobody comes to own their mere existence.
pub fn zero(place: Place<'_>, value: &Value) -> Value {
    let mut result = Map::new();
    if let (Atom::Map(map), Value::Object(members)) = (place.atom(value), value) {
        for (name, member) in members {
            let Some(place) = map.member(name) else { continue };
            let empty = match always_there(&map, name, place, member) {
                Some(AlwaysThere::Struct(..)) => zero(place, member),
                Some(AlwaysThere::List(..)) => Value::Array(Vec::new()),
                None => continue,
            };
            result.insert(name.clone(), empty);
        }
    }
    Value::Object(result)
}

/// A member that an object has even when nobody wrote to it.
pub enum AlwaysThere<'t, 'v> {
    Struct(MapAtom<'t>, &'v Map<String, Value>),
    List(ListAtom<'t>, &'v [Value]),
}

pub fn always_there<'t, 'v>(
    of: &MapAtom<'t>,
    name: &str,
    place: Place<'t>,
    member: &'v Value,
) -> Option<AlwaysThere<'t, 'v>> {
    const ALWAYS: [&str; 7] =
        ["metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate"];
    match (place.atom(member), member) {
        (Atom::Map(below), Value::Object(members))
            if ALWAYS.contains(&name) && below.object.is_some() && !below.atomic =>
        {
            Some(AlwaysThere::Struct(below, members))
        }
        (Atom::List(below), Value::Array(items))
            if !below.atomic && of.object.is_some_and(|o| o.required.iter().any(|r| r.as_ref() == name)) =>
        {
            Some(AlwaysThere::List(below, items))
        }
        _ => None,
    }
}
