//! The words by which a pod or a node says what happens while its board is away.
//!
//! In: annotations. Out: what they mean; a sentence for each that cannot be read.
//! Never: a guess: what cannot be read means the cautious thing (never lost, not replaced, the original stays).

use crate::time;

/// How long its board may be away before a pod counts as lost: a span of time, or `never`.
pub const LOST_AFTER: &str = "limpet.dev/lost-after";
/// Whether another pod is started elsewhere for a lost one: `true` or `false`.
pub const REPLACE: &str = "limpet.dev/replace";
/// Who stays on return.
pub const RECONCILE: &str = "limpet.dev/reconcile";
/// Values of `RECONCILE`.
pub const RECONCILE_VALUES: [&str; 3] = ["keep-original", "keep-replacement", "longest-running"];
/// Characters of a value that a sentence shows.
const SHOWN_MAX: usize = 60;

/// Seconds, `Some(None)` for never; `None` when the text is neither.
pub fn lost_after(text: &str) -> Option<Option<i64>> {
    if text == "never" { Some(None) } else { time::span_seconds(text).map(Some) }
}

/// What is wrong with these annotations, and what holds instead. `get` looks one up.
pub fn complaints<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |key: &str, value: &str, should: &str, instead: &str| {
        let shown: String = value.chars().take(SHOWN_MAX).collect();
        all.push(format!("metadata.annotations[{key}]: {shown:?} cannot be read and counts as {instead}; it must be {should}"));
    };
    if let Some(value) = get(LOST_AFTER).filter(|v| lost_after(v).is_none()) {
        say(LOST_AFTER, value, "a span of time such as 90s, 15m, 2h or 7d, or never", "never");
    }
    if let Some(value) = get(REPLACE).filter(|v| !["true", "false"].contains(v)) {
        say(REPLACE, value, "true or false", "false");
    }
    if let Some(value) = get(RECONCILE).filter(|v| !RECONCILE_VALUES.contains(v)) {
        say(RECONCILE, value, "keep-original, keep-replacement or longest-running", "keep-original");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_said_with_what_holds_instead() {
        let cases = [
            (LOST_AFTER, "banana", Some("counts as never")),
            (LOST_AFTER, "-5m", Some("counts as never")),
            (LOST_AFTER, "99999999999999999999d", Some("counts as never")),
            (LOST_AFTER, "1h30m", None),
            (LOST_AFTER, "never", None),
            (REPLACE, "yes", Some("counts as false")),
            (REPLACE, "true", None),
            (RECONCILE, "keep-both", Some("counts as keep-original")),
            (RECONCILE, "longest-running", None),
        ];
        for (key, value, words) in cases {
            let all = complaints(|k| (k == key).then_some(value));
            match words {
                None => assert_eq!(all, Vec::<String>::new(), "{key}: {value}"),
                Some(words) => assert!(all.len() == 1 && all[0].contains(words) && all[0].contains(key), "{all:?}"),
            }
        }
        let long = "x".repeat(10_000);
        assert!(complaints(|k| (k == REPLACE).then_some(&*long))[0].len() < 300);
    }
}
