//! Sets of completion indexes as text: `1,3-5,7`.
//!
//! In: the text of a status. Out: the set, and the text again. Never: an index that is not below the completions.

use std::collections::BTreeSet;

/// Reads a list of indexes and ranges; what is not below `completions` or not a number is left out.
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut out = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) {
            out.extend((from.max(0)..=to).take_while(|i| *i < completions));
        }
    }
    out
}

/// The text of a set; two neighbours are written as a list, three and more as a range, as upstream.
pub fn print(set: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut all = set.iter().copied().peekable();
    while let Some(from) = all.next() {
        let mut to = from;
        while all.next_if(|n| *n == to + 1).is_some() {
            to += 1;
        }
        match to - from {
            0 => parts.push(from.to_string()),
            1 => parts.extend([from.to_string(), to.to_string()]),
            _ => parts.push(format!("{from}-{to}")),
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, again) in [
            ("", ""),
            ("0", "0"),
            ("0,1", "0,1"),
            ("0,1,2", "0-2"),
            ("1,3-5,7", "1,3-5,7"),
            ("x,2-1,8-99", "8,9"),
        ] {
            assert_eq!(print(&parse(text, 10)), again, "{text}");
        }
    }
}
