//! Walks over values along the schema: which fields a value has, how two values differ, a value without
//! some fields.
//!
//! In: values and their place. Out: sets of paths, or a value.
//! Never: fails; items that have no proper element count by their index.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Element, Path, Set};
use super::typed::{Atom, ListAtom, MapAtom, Place, equal};

/// All fields that a value sets: leaves, list items, entries of free maps, empty maps.
pub fn fields_of(place: Place<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    collect(place, value, &mut Vec::new(), &mut set);
    set
}

fn collect(place: Place<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    match (place.atom(value), value) {
        (Atom::List(list), Value::Array(items)) if !list.atomic => {
            for (i, item) in items.iter().enumerate() {
                path.push(element_or_index(&list, item, i));
                collect(list.item, item, path, set);
                set.insert(path);
                path.pop();
            }
        }
        (Atom::List(list), Value::Null) if !list.atomic => {}
        (Atom::Map(map), Value::Object(members)) if !map.atomic => {
            for (name, member) in members {
                path.push(Element::field(name));
                if let Some(place) = map.member(name) {
                    collect(place, member, path, set);
                }
                let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                if empty || !map.is_field(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Atom::Map(map), Value::Null) if !map.atomic => {}
        _ => set.insert(path),
    }
}

pub fn element_or_index(list: &ListAtom<'_>, item: &Value, i: usize) -> Element {
    list.element(item).unwrap_or(Element::Index(i as i64))
}

/// How one value became another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    pub fn without(self, ignored: &Set) -> Comparison {
        Comparison {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }
}

pub fn compare(place: Place<'_>, old: &Value, new: &Value) -> Comparison {
    let mut result = Comparison::default();
    compare_at(place, Some(old), Some(new), &mut Vec::new(), &mut result);
    result
}

fn compare_at(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    result: &mut Comparison,
) {
    match (old, new) {
        (None, Some(new)) => return result.added.graft(path, everything(place, new)),
        (Some(old), None) => return result.removed.graft(path, everything(place, old)),
        _ => {}
    }
    let Some(shape) = new.filter(|v| !v.is_null()).or(old.filter(|v| !v.is_null())) else {
        // Two nulls are equal; a null that came or went is a leaf.
        return leaf(old, new, path, result);
    };
    let atoms = [place.atom(shape), place.atom(old.unwrap_or(shape))];
    match atoms {
        [Atom::List(list), Atom::List(_)] if !list.atomic => compare_lists(list, old, new, path, result),
        [Atom::Map(map), Atom::Map(_)] if !map.atomic => compare_maps(map, old, new, path, result),
        _ => leaf(old, new, path, result),
    }
}

/// All places below one that came or went as a whole.
fn everything(place: Place<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match (place.atom(value), value) {
        (Atom::List(list), Value::Array(_)) if !list.atomic => {
            for (element, items) in by_element(&list, Some(value)) {
                let below = if let [item] = items.as_slice() { everything(list.item, item) } else { Set::default() };
                set.put(element, below);
            }
        }
        (Atom::Map(map), Value::Object(members)) if !map.atomic => {
            for (name, member) in members {
                if let Some(place) = map.member(name) {
                    set.put(Element::field(name), everything(place, member));
                }
            }
        }
        _ => {}
    }
    set
}

fn leaf(old: Option<&Value>, new: Option<&Value>, path: &Path, result: &mut Comparison) {
    match (old, new) {
        (None, Some(_)) => result.added.insert(path),
        (Some(_), None) => result.removed.insert(path),
        (Some(old), Some(new)) if !equal(old, new) => result.modified.insert(path),
        _ => {}
    }
}

fn compare_maps(
    map: MapAtom<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    result: &mut Comparison,
) {
    let none = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&none);
    let new = new.and_then(Value::as_object).unwrap_or(&none);
    for name in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
        let (before, after) = (old.get(name), new.get(name));
        // Most of an object stays as it was.
        if before == after {
            continue;
        }
        if let Some(place) = map.member(name) {
            path.push(Element::field(name));
            compare_at(place, before, after, path, result);
            path.pop();
        }
    }
}

fn by_element<'v>(list: &ListAtom<'_>, value: Option<&'v Value>) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut found: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (i, item) in value.and_then(Value::as_array).into_iter().flatten().enumerate() {
        found.entry(element_or_index(list, item, i)).or_default().push(item);
    }
    found
}

fn compare_lists(
    list: ListAtom<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Path,
    result: &mut Comparison,
) {
    let (old, new) = (by_element(&list, old), by_element(&list, new));
    let elements = old.keys().chain(new.keys().filter(|k| !old.contains_key(*k)));
    for element in elements {
        path.push(element.clone());
        let before = old.get(element).map(Vec::as_slice).unwrap_or_default();
        let after = new.get(element).map(Vec::as_slice).unwrap_or_default();
        match (before, after) {
            ([], []) => {}
            ([one], [other]) => compare_at(list.item, Some(one), Some(other), path, result),
            ([], [other]) => compare_at(list.item, None, Some(other), path, result),
            ([one], []) => compare_at(list.item, Some(one), None, path, result),
            // Items that share a key are compared as one whole.
            ([], _) => result.added.insert(path),
            (_, []) => result.removed.insert(path),
            (before, after) => {
                let same = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| equal(a, b));
                if !same {
                    result.modified.insert(path);
                }
            }
        }
        path.pop();
    }
}

/// The value without the fields of a set. None when nothing is left of a map or list that lost something.
pub fn without(place: Place<'_>, value: &Value, remove: &Set) -> Option<Value> {
    match (place.atom(value), value) {
        (Atom::List(list), Value::Array(items)) if !list.atomic && !items.is_empty() => {
            let mut kept = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                let element = element_or_index(&list, item, i);
                if !remove.members.contains(&element) {
                    kept.push(match remove.below(&element) {
                        Some(below) => {
                            without(list.item, item, below).unwrap_or_else(|| Value::Object(Map::new()))
                        }
                        None => item.clone(),
                    });
                }
            }
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Atom::Map(map), Value::Object(members)) if !map.atomic && !members.is_empty() => {
            let mut kept = Map::new();
            for (name, member) in members {
                let element = Element::field(name);
                if remove.members.contains(&element) {
                    continue;
                }
                let rest = match (remove.below(&element), map.member(name)) {
                    (Some(below), Some(place)) => without(place, member, below),
                    _ => Some(member.clone()),
                };
                if let Some(rest) = rest {
                    kept.insert(name.clone(), rest);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        _ => Some(value.clone()),
    }
}

/// The set with the struct fields on the way to its members as members too.
pub fn with_named_fields(place: Place<'_>, value: &Value, set: &Set) -> Set {
    let mut result = set.clone();
    let (fields, items) = match place.atom(value) {
        Atom::Map(map) => (Some(map), None),
        Atom::List(list) => (None, Some(list)),
        Atom::Scalar(_) => return result,
    };
    let found = items_of(items.as_ref(), value);
    for (element, below) in &set.children {
        let (child_place, child) = match (element, &fields, &items) {
            (Element::Field(name), Some(map), _) => {
                if map.is_field(name) {
                    result.members.insert(element.clone());
                }
                (map.member(name), value.get(name))
            }
            (element, _, Some(list)) => {
                (Some(list.item), found.get(element).and_then(|v| v.first().copied()))
            }
            _ => (None, None),
        };
        if let Some(place) = child_place {
            let child = with_named_fields(place, child.unwrap_or(&Value::Null), below);
            result.children.insert(element.clone(), child);
        }
    }
    result
}

/// The items of a value by element, when it is a list with elements; made once for all of a set's children.
fn items_of<'v>(list: Option<&ListAtom<'_>>, value: &'v Value) -> BTreeMap<Element, Vec<&'v Value>> {
    list.map(|list| by_element(list, Some(value))).unwrap_or_default()
}

/// A set in the terms of the schema as it is now: below an atomic place only the place itself is owned.
pub fn reconciled(place: Place<'_>, value: &Value, set: &Set) -> Set {
    let (map, list) = match place.atom(value) {
        Atom::Map(map) if !map.atomic => (Some(map), None),
        Atom::List(list) if !list.atomic => (None, Some(list)),
        _ => return Set::default(),
    };
    let found = items_of(list.as_ref(), value);
    let mut result = Set { members: set.members.clone(), children: BTreeMap::new() };
    for (element, below) in &set.children {
        let (child_place, child) = match (element, &map, &list) {
            (Element::Field(name), Some(map), _) => (map.member(name), value.get(name)),
            (element, _, Some(list)) => {
                (Some(list.item), found.get(element).and_then(|v| v.first().copied()))
            }
            _ => (None, None),
        };
        let Some(place) = child_place else {
            result.children.insert(element.clone(), below.clone());
            continue;
        };
        // Without a value a deduced type says nothing; what the manager owned stays as it was.
        let Some(child) = child else {
            result.children.insert(element.clone(), below.clone());
            continue;
        };
        let inner = reconciled(place, child, below);
        if inner.is_empty() && !below.is_empty() {
            result.members.insert(element.clone());
        } else if !inner.is_empty() {
            result.children.insert(element.clone(), inner);
        }
    }
    result
}
