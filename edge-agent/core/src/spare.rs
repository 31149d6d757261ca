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

/// Since when each image has been of no use. A board does not remember that over a restart of its agent: what it does not
/// know it takes for used, as kubelet does.
#[derive(Debug, Default)]
pub struct Idle(BTreeMap<String, u64>);

impl Idle {
    /// `here`: every image's id, and whether somebody wants it. Returns those that nobody has wanted for `age_ms`.
    pub fn look<'a>(&mut self, now_ms: u64, age_ms: u64, here: impl Iterator<Item = (&'a str, bool)>) -> BTreeSet<String> {
        let mut since = BTreeMap::new();
        for (id, wanted) in here {
            let at = if wanted { now_ms } else { self.0.get(id).copied().unwrap_or(now_ms) };
            since.insert(id.to_owned(), at);
        }
        self.0 = since;
        self.0.iter().filter(|(_, at)| now_ms.saturating_sub(**at) > age_ms).map(|(id, _)| id.clone()).collect()
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
