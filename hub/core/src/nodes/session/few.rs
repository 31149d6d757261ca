//! A sorted map for a handful of entries, of which there are as many as nodes.
//!
//! In: keys and values. Out: those, in the order of keys. An empty one holds no memory, and a small one no more than its
//! entries: a B-tree keeps room for eleven, also after the last of them has gone.
//! Never: more than some thousands of entries, each of which may have to be moved by an insertion.

use std::borrow::Borrow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    fn at<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(own, _)| own.borrow().cmp(key))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.at(key).is_ok()
    }

    /// Returns the value that was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.at(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.make_room();
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub fn or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = self.at(&key).unwrap_or_else(|at| {
            self.make_room();
            self.0.insert(at, (key, value()));
            at
        });
        &mut self.0[at].1
    }

    /// One more at first, then a quarter more.
    fn make_room(&mut self) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(1 + self.0.len() / 4);
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.at(key).ok()?;
        let (_, value) = self.0.remove(at);
        self.give_back();
        Some(value)
    }

    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| wanted(key, value));
        self.give_back();
    }

    fn give_back(&mut self) {
        if self.0.len() <= self.0.capacity() / 2 {
            self.0.shrink_to_fit();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

/// Of keys that come once each.
impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut few = Few(entries.into_iter().collect());
        few.0.sort_by(|a, b| a.0.cmp(&b.0));
        few.0.shrink_to_fit();
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn does_what_a_tree_does() {
        let (mut few, mut tree) = (Few::default(), BTreeMap::new());
        let mut x = 9_u64;
        for step in 0..3000_u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (x >> 33) % 40;
            match (x >> 60) % 8 {
                0..3 => assert_eq!(few.insert(key, step), tree.insert(key, step)),
                3 => assert_eq!(few.or_insert_with(key, || step), tree.entry(key).or_insert(step)),
                4..7 => assert_eq!(few.remove(&key), tree.remove(&key)),
                _ => {
                    few.retain(|k, v| (k + v) % 3 > 0);
                    tree.retain(|k, v| (*k + *v) % 3 > 0);
                }
            }
            assert_eq!((few.get(&key), few.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
            assert!(few.iter().eq(tree.iter()) && few.len() == tree.len());
            assert!(few.0.capacity() <= 2 * few.len() + 1);
        }
        assert!(tree.into_iter().rev().collect::<Few<_, _>>().iter().eq(few.iter()));
        few.retain(|_, _| false);
        assert!(few.is_empty() && few.0.capacity() == 0);
    }
}
