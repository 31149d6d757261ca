//! What nodes were sent last: of an object that many of them need, all but the first get what is here.
//!
//! In: which version, and what the node holds of it. Out: the bytes made for the node before. What they are follows from that
//! alone, so it is never wrong, only forgotten.
//! Never: more than a few.

use limpet_protocol::{ItemHash, ItemKey};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Objects that change at about the same time.
const KEPT_MAX: usize = 8;
/// Larger ones are made anew.
const BYTES_MAX: usize = 64 << 10;

/// An item on its way to a node.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Length of the whole body.
    pub whole: usize,
    /// As in `ItemStep`.
    pub base: u64,
    pub body: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Which {
    pub key: ItemKey,
    pub hash: ItemHash,
    /// What the difference is made to, where one may be.
    pub before: Option<ItemHash>,
}

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<(Which, Sent)>>);

impl Recent {
    pub(crate) fn get(&self, which: &Which, make: impl FnOnce() -> Option<Sent>) -> Option<Sent> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sent)) = kept().iter().find(|(w, _)| w == which) {
            return Some(sent.clone());
        }
        let sent = make()?;
        if sent.body.len() <= BYTES_MAX {
            let mut kept = kept();
            kept.truncate(KEPT_MAX - 1);
            kept.push_front((which.clone(), sent.clone()));
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_protocol::ItemKind;

    #[test]
    fn is_made_once_and_forgotten_behind_a_few_others() {
        let which = |name: &str, body: &[u8], before| {
            let key = ItemKey::new(ItemKind::ConfigMap, "a", name);
            Which { key, hash: ItemHash::of(body), before }
        };
        let recent = Recent::default();
        let of = |which: &Which, body: &[u8]| {
            let sent = || Some(Sent { whole: body.len(), base: 0, body: body.into() });
            recent.get(which, sent).unwrap().body.to_vec()
        };
        let one = which("m", b"1", None);
        assert_eq!(of(&one, b"1"), b"1");
        assert_eq!(of(&one, b"not made"), b"1");
        assert_eq!(of(&which("m", b"2", None), b"2"), b"2");
        assert_eq!(of(&which("m", b"1", Some(ItemHash::of(b"0"))), b"from 0"), b"from 0");
        for n in 0..KEPT_MAX {
            of(&which(&n.to_string(), b"1", None), b"1");
        }
        assert_eq!(of(&one, b"made again"), b"made again");
        let large = which("l", b"1", None);
        of(&large, &vec![0; BYTES_MAX + 1]);
        assert_eq!(of(&large, b"1"), b"1");
        assert!(recent.get(&which("x", b"1", None), || None).is_none());
    }
}
