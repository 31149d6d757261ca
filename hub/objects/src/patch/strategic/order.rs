//! The order of merged lists: the patch's order for what it names, the server's for the rest, interleaved.
//!
//! In: merged items, the orders of patch and server. Out: one list.
//! Never: drops or adds items.

use serde_json::Value;

use super::super::typed::equal;
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

fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() {
        return equal(a, b);
    }
    match (a.get(key), b.get(key)) {
        (Some(x), Some(y)) => equal(x, y),
        _ => false,
    }
}

/// Where an item stands in a list.
pub fn index(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Those that `named` has, and the others.
pub fn partition(items: Vec<Value>, named: &[Value], key: &str) -> Outcome<(Vec<Value>, Vec<Value>)> {
    if !key.is_empty()
        && let Some(lacking) = items.iter().chain(named).find(|v| v.get(key).is_none())
    {
        return Err(no_merge_key(lacking, key));
    }
    Ok(items.into_iter().partition(|item| index(named, item, key).is_some()))
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
    patched.sort_by_key(|v| index(patch_order, v, key));
    server_only.sort_by_key(|v| index(server_order, v, key));
    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut left = server_only.into_iter().peekable();
    let mut right = patched.into_iter().peekable();
    loop {
        let left_first = match (left.peek(), right.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (index(server_order, l, key), index(server_order, r, key)) {
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
        if wanted.peek().is_some_and(|item| same(item, ordered, key)) {
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
