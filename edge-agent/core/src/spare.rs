//! Images that no pod wants: which come before a pod does, and which have been of no use for so long that they go.
//!
//! In: the node's annotation `limpet.dev/pull-images`, what is here and wanted, the time. Out: names, ids.
//! Never: an image that a pod of this node wants.

use std::collections::{BTreeMap, BTreeSet};

/// On a Node: images that the board gets and keeps, by commas, blanks or lines.
pub const PULL_IMAGES: &str = "limpet.dev/pull-images";
/// Of one node; more are not looked at.
pub const IMAGES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 512;

/// The images that an annotation names, each once, in its order.
pub fn asked(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    let mut names: Vec<String> = Vec::new();
    for word in words.filter(|word| !word.is_empty() && word.len() <= NAME_BYTES_MAX) {
        if names.len() < IMAGES_MAX && !names.iter().any(|name| name == word) {
            names.push(word.to_owned());
        }
    }
    names
}

/// Shares of the disk in use, in percent: from `high` on images go that nobody wants, until not more than `low` is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub high: u64,
    pub low: u64,
}

impl Marks {
    /// Of a disk of so many bytes. A high mark of 100 is never reached: it switches this off.
    pub fn is_reached(self, all: u64, free: u64) -> bool {
        self.high < 100 && all > 0 && u128::from(all - free.min(all)) * 100 >= u128::from(all) * u128::from(self.high)
    }

    /// So much is free that no image has to go any more.
    pub fn is_enough(self, all: u64, free: u64) -> bool {
        all == 0 || u128::from(all - free.min(all)) * 100 <= u128::from(all) * u128::from(self.low)
    }
}

/// Since when each image has been of no use. A board does not remember that over a restart of its agent: what it does not
/// know it takes for used, as kubelet does.
#[derive(Debug, Default)]
pub struct Idle(BTreeMap<String, Since>);

#[derive(Clone, Copy, Debug)]
struct Since {
    at_ms: u64,
    wanted: bool,
}

impl Idle {
    /// `here`: every image's id, and whether somebody wants it. Returns those that nobody has wanted for `age_ms`.
    pub fn look<'a>(&mut self, now_ms: u64, age_ms: u64, here: impl Iterator<Item = (&'a str, bool)>) -> BTreeSet<String> {
        let mut since = BTreeMap::new();
        for (id, wanted) in here {
            let at_ms = if wanted { now_ms } else { self.0.get(id).map_or(now_ms, |s| s.at_ms) };
            since.insert(id.to_owned(), Since { at_ms, wanted });
        }
        self.0 = since;
        self.0.iter().filter(|(_, s)| now_ms.saturating_sub(s.at_ms) > age_ms).map(|(id, _)| id.clone()).collect()
    }

    /// Ids of those that nobody wanted at the last look, the one that has been of no use for longest first.
    pub fn oldest_first(&self) -> Vec<String> {
        let mut spare: Vec<(u64, &String)> = self.0.iter().filter(|(_, s)| !s.wanted).map(|(id, s)| (s.at_ms, id)).collect();
        spare.sort();
        spare.into_iter().map(|(_, id)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_one_by_one_and_bounded() {
        assert_eq!(asked("a/b:1, c\n a/b:1,,d"), ["a/b:1", "c", "d"]);
        assert!(asked(" ,\n").is_empty());
        assert!(asked(&"x".repeat(600)).is_empty());
        let many: Vec<String> = (0..100).map(|n| format!("image-{n}")).collect();
        assert_eq!(asked(&many.join(",")).len(), IMAGES_MAX);
    }

    #[test]
    fn marks_are_shares_of_the_disk() {
        let marks = Marks { high: 85, low: 80 };
        let reached = |free: u64| (marks.is_reached(1000, free), marks.is_enough(1000, free));
        assert_eq!(reached(151), (false, false), "between the marks nothing begins and nothing ends");
        assert_eq!(reached(150), (true, false));
        assert_eq!(reached(199), (false, false));
        assert_eq!(reached(200), (false, true));
        assert_eq!(reached(5000), (false, true), "more free than there is");
        assert!(!marks.is_reached(0, 0) && marks.is_enough(0, 0), "a disk that cannot be read");
        assert!(!Marks { high: 100, low: 80 }.is_reached(1000, 0), "100 switches it off");
        assert!(marks.is_reached(u64::MAX, 0) && !marks.is_enough(u64::MAX, 0));
    }

    #[test]
    fn the_one_unused_for_longest_goes_first() {
        let mut idle = Idle::default();
        let mut look = |now: u64, here: &[(&str, bool)]| {
            idle.look(now, u64::MAX, here.iter().copied());
            idle.oldest_first()
        };
        assert!(look(1, &[("a", true), ("b", true), ("c", true)]).is_empty());
        assert_eq!(look(2, &[("a", true), ("b", true), ("c", false)]), ["c"]);
        assert_eq!(look(3, &[("a", false), ("b", true), ("c", false)]), ["c", "a"]);
        assert_eq!(look(4, &[("a", false), ("b", false), ("c", true), ("d", false)]), ["a", "b", "d"]);
        assert_eq!(look(5, &[("c", false), ("b", false)]), ["b", "c"]);
    }

    #[test]
    fn what_nobody_wanted_for_long_is_old() {
        let mut idle = Idle::default();
        let mut look = |now: u64, here: &[(&str, bool)]| idle.look(now, 100, here.iter().copied());
        assert!(look(5_000, &[("a", true), ("b", false)]).is_empty(), "just seen counts as just used");
        assert!(look(5_100, &[("a", true), ("b", false)]).is_empty());
        assert_eq!(look(5_101, &[("a", false), ("b", false)]), BTreeSet::from(["b".to_string()]));
        assert!(look(5_102, &[("a", false), ("b", true)]).is_empty(), "wanted again");
        assert!(look(5_150, &[("a", false)]).is_empty());
        assert!(look(5_180, &[("a", false), ("b", false)]).is_empty(), "b was gone: it is new");
        assert_eq!(look(5_201, &[("a", false), ("b", false)]), BTreeSet::from(["a".to_string()]));
    }
}
