//! The order of merged lists: the patch's order for what it names, the server's for the rest, interleaved.
//!
//! In: merged items, the orders of patch and server. Out: one list.
//! Never: drops or adds items.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::fields::Literal;
use super::{MARKER, Outcome, SET_ORDER, StrategicError, go_text, no_merge_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Scalars,
    Maps,
}

impl Kind {
    /// All items of both lists must be of one kind, and no lists.
    pub fn of(a: &[Value], b: &[Value]) -> Outcome<Kind> {
        let mut found = None;
        for value in a.iter().chain(b) {
            let kind = match value {
                Value::Object(_) => Kind::Maps,
                Value::Array(_) => {
                    return Err(StrategicError::Rejected("lists of lists are not supported".into()));
                }
                Value::Null => return Err(StrategicError::Malformed("list contains a null item".into())),
                _ => Kind::Scalars,
            };
            if *found.get_or_insert(kind) != kind {
                return Err(StrategicError::Malformed(
                    "expected all elements of the list to be of the same kind".into(),
                ));
            }
        }
        Ok(found.unwrap_or(Kind::Scalars))
    }
}

/// What an item is called in its list: its merge key's value, or itself. None without a merge key.
pub fn identity(item: &Value, key: &str) -> Option<Literal> {
    let value = if key.is_empty() { Some(item) } else { item.get(key) };
    value.map(|v| Literal::new(v.clone()))
}

/// Where each item stands in a list; of equal ones the first.
pub fn positions(list: &[Value], key: &str) -> BTreeMap<Literal, usize> {
    let mut found = BTreeMap::new();
    for (i, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            found.entry(identity).or_insert(i);
        }
    }
    found
}

/// Those that `named` has, and the others.
pub fn partition(items: Vec<Value>, named: &[Value], key: &str) -> Outcome<(Vec<Value>, Vec<Value>)> {
    if !key.is_empty()
        && let Some(lacking) = items.iter().chain(named).find(|v| v.get(key).is_none())
    {
        return Err(no_merge_key(lacking, key));
    }
    let named = positions(named, key);
    Ok(items.into_iter().partition(|item| identity(item, key).is_some_and(|id| named.contains_key(&id))))
}

/// Sorts both parts by their orders, then inserts the server's own items where the live list had them.
pub fn place_in_order(
    mut patched: Vec<Value>,
    mut server_only: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: &str,
    kind: Kind,
) -> Vec<Value> {
    let key = if kind == Kind::Maps { key } else { "" };
    let (patch_order, server_order) = (positions(patch_order, key), positions(server_order, key));
    let at = |order: &BTreeMap<Literal, usize>, item: &Value| {
        identity(item, key).and_then(|id| order.get(&id).copied())
    };
    patched.sort_by_cached_key(|v| at(&patch_order, v));
    server_only.sort_by_cached_key(|v| at(&server_order, v));
    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut left = server_only.into_iter().peekable();
    let mut right = patched.into_iter().peekable();
    loop {
        let left_first = match (left.peek(), right.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (at(&server_order, l), at(&server_order, r)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        result.extend(if left_first { left.next() } else { right.next() });
    }
}

/// The items of a patch list must come in the order that its `$setElementOrder` gives.
pub fn check_order(change: &[Value], order: &[Value], key: &str) -> Outcome<()> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted =
        change.iter().filter(|v| v.get(MARKER).and_then(Value::as_str) != Some("delete")).peekable();
    for ordered in order {
        if wanted.peek().is_some_and(|item| {
            let id = identity(item, key);
            id.is_some() && id == identity(ordered, key)
        }) {
            wanted.next();
        }
    }
    if wanted.peek().is_none() {
        return Ok(());
    }
    let list = |l: &[Value]| go_text(&Value::Array(l.to_vec()));
    Err(StrategicError::Unmergeable(format!(
        "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
        list(change),
        list(order)
    )))
}
