//! Hashes of single items and of a whole desired set.
//!
//! In: keys, generations and bodies. Out: 16-byte hashes; equal sets have equal digests in any order.
//! Never: a digest that depends on the order of insertion.

use crate::message::ItemKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// First 16 bytes of SHA-256 over an item's body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ItemHash(pub [u8; 16]);

impl ItemHash {
    pub fn of(body: &[u8]) -> ItemHash {
        let full = Sha256::digest(body);
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        ItemHash(short)
    }

    /// The first eight bytes: names the base of a difference.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

/// The sum (per byte lane, wrapping in 128 bits) of a hash per (key, body hash), with the count: adding and
/// removing one item is O(1), and the order does not matter. Generations are not part of it: equal content is equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SetDigest {
    pub count: u32,
    pub sum: u128,
}

impl SetDigest {
    pub fn add(&mut self, key: &ItemKey, hash: ItemHash) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(entry(key, hash));
    }

    pub fn remove(&mut self, key: &ItemKey, hash: ItemHash) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(entry(key, hash));
    }
}

fn entry(key: &ItemKey, hash: ItemHash) -> u128 {
    let mut h = Sha256::new();
    h.update([key.kind as u8]);
    h.update((key.namespace.len() as u32).to_le_bytes());
    h.update(key.namespace.as_bytes());
    h.update((key.name.len() as u32).to_le_bytes());
    h.update(key.name.as_bytes());
    h.update(hash.0);
    let full = h.finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    u128::from_le_bytes(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ItemKind;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let a = ItemKey::new(ItemKind::Pod, "default", "a");
        let b = ItemKey::new(ItemKind::ConfigMap, "default", "a");
        let (ha, hb) = (ItemHash::of(b"1"), ItemHash::of(b"2"));
        let mut x = SetDigest::default();
        x.add(&a, ha);
        x.add(&b, hb);
        let mut y = SetDigest::default();
        y.add(&b, hb);
        y.add(&a, ha);
        assert_eq!(x, y);
        y.remove(&a, ha);
        assert_ne!(x, y);
        let mut swapped = SetDigest::default();
        swapped.add(&a, hb);
        swapped.add(&b, ha);
        assert_ne!(x, swapped);
    }
}
