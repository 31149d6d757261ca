//! Whose logs are kept, and how many bytes of each.
//!
//! In: the annotation of a pod, the board's own setting. Out: bytes for a container; 0 is none.
//! Never: more than `BYTES_MAX`.

use crate::{api::Words, quantity};

/// `64Ki` for each container of the pod, or `main=64Ki,helper=8Ki` for those named.
pub const ANNOTATION: &str = "limpet.dev/keep-logs";
pub const BYTES_MAX: u32 = 1024 * 1024;
/// Less would be said to be kept and hold nothing.
const BYTES_MIN: u32 = 4 * 1024;

/// What a pod without the annotation gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub bytes: u32,
}

impl Choice {
    /// `None`: that is no amount.
    pub fn parse(amount: &str) -> Option<Choice> {
        quantity::value(amount.trim()).filter(|n| *n >= 0).map(|_| Choice { bytes: bytes(amount) })
    }
}

/// An annotation that cannot be read counts as none.
pub fn wanted_bytes(annotations: &Words, container: &str, usual: Choice) -> u32 {
    let Some(text) = annotations.get(ANNOTATION) else { return usual.bytes };
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            Some((name, amount)) if name.trim() == container => return bytes(amount),
            Some(_) => {}
            None => return bytes(part),
        }
    }
    0
}

fn bytes(amount: &str) -> u32 {
    match quantity::value(amount.trim()) {
        Some(n) if n > 0 => u32::try_from(n).unwrap_or(BYTES_MAX).clamp(BYTES_MIN, BYTES_MAX),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn amounts_for_all_or_by_name() {
        let usual = Choice { bytes: 8192 };
        for (text, container, want) in [
            (None, "main", 8192),
            (Some("64Ki"), "main", 65_536),
            (Some("main=16Ki, helper=8Ki"), "helper", 8192),
            (Some("main=16Ki"), "helper", 0),
            (Some("0"), "main", 0),
            (Some("much"), "main", 0),
            (Some("1"), "main", BYTES_MIN),
            (Some("5Gi"), "main", BYTES_MAX),
            (Some("-3"), "main", 0),
        ] {
            let annotations = BTreeMap::from_iter(text.map(|t: &str| (ANNOTATION.to_string(), t.to_string()))).into();
            assert_eq!(wanted_bytes(&annotations, container, usual), want, "{text:?} {container}");
        }
    }
}
