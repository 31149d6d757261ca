//! The desired set of a leaf: two items, taken over step by step.
//!
//! In: what is held, a step of the hub's. Out: what would be held after it.
//! Never: takes a generation older than the held one; holds what is no Node or ConfigMap, or is larger than allowed.

use crate::limits;
use alloc::vec::Vec;
use limpet_protocol::{
    InventoryEntry, Item, ItemHash, ItemKind, ItemStep, SetDigest, SetStep, limits::LEAF_ITEM_BYTES_MAX, squeeze,
};

pub fn digest(items: &[Item]) -> SetDigest {
    let mut digest = SetDigest::default();
    items.iter().for_each(|i| digest.add(&i.key, ItemHash::of(&i.body)));
    digest
}

pub fn inventory(items: &[Item]) -> Vec<InventoryEntry> {
    let entry = |i: &Item| InventoryEntry { key: i.key.clone(), generation: i.generation, hash: ItemHash::of(&i.body) };
    items.iter().map(entry).collect()
}

/// The items after a step. What cannot be taken (a difference to something else, too large) is left out: the digest tells.
pub fn after(items: &[Item], step: SetStep) -> Vec<Item> {
    let mut new: Vec<Item> = items.to_vec();
    for removal in step.removals {
        new.retain(|i| i.key != removal.key || i.generation > removal.generation);
    }
    for put in step.puts {
        let held = new.iter().position(|i| i.key == put.key);
        let Some(item) = whole(held.map(|at| &new[at]), put) else { continue };
        match held {
            Some(at) if item.generation >= new[at].generation => new[at] = item,
            None if new.len() < limits::ITEMS_MAX => new.push(item),
            _ => {}
        }
    }
    new
}

fn whole(held: Option<&Item>, put: ItemStep) -> Option<Item> {
    if !matches!(put.key.kind, ItemKind::Node | ItemKind::ConfigMap) {
        return None;
    }
    let body = match put.base {
        0 => put.body,
        base => {
            let held = held.filter(|h| ItemHash::of(&h.body).prefix() == base)?;
            squeeze::unfold(&held.body, &put.body, LEAF_ITEM_BYTES_MAX).ok()?
        }
    };
    (body.len() <= LEAF_ITEM_BYTES_MAX).then_some(Item { key: put.key, generation: put.generation, body })
}
