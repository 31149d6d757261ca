//! Something that follows from a part of an object that stays the same from version to version: its spec, mostly.
//!
//! In: how to find it. Out: what was found the first time, shared by all copies. It is no part of the object: copies with and
//! without it are equal.
//! Never: found before somebody asks.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

pub struct Memo<T>(Arc<OnceLock<T>>);

impl<T> Memo<T> {
    pub fn get(&self, find: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(find)
    }
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo(Arc::default())
    }
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Memo(self.0.clone())
    }
}

impl<T> PartialEq for Memo<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Memo<T> {}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_once_for_all_copies_and_is_no_part_of_them() {
        let one = Memo::default();
        let two = one.clone();
        assert_eq!((two.get(|| 1), one.get(|| 2)), (&1, &1));
        assert_eq!(Memo::<u8>::default().get(|| 3), &3);
        assert!(one == Memo::default() && format!("{one:?}") == format!("{:?}", Memo::<u8>::default()));
    }
}
