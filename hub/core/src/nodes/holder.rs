//! Two devices with one identity: which of them is the node.
//!
//! In: the hardware on record, who is connected or was, who asks. Out: a verdict.
//! The device on record is the node. Another one with the same key is a copy of its card and is kept out, as long as the
//! device on record is there or was a moment ago; after that it is taken for a repair (the card sits in another board).
//! Never: lets the later of two living devices push the earlier one out.

use crate::{Timestamp, limits::REPLACED_AFTER_S};

/// What the hub knows of a node's device right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Hardware of the last connection.
    pub hardware: String,
    pub connected: bool,
    /// When it was heard of last; for a connected one, when it connected.
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// Admit, and put this hardware on record: the first one, or a repair.
    AdmitAndRecord,
    /// A copy of the card.
    KeepOut,
}

/// `record`: the hardware that the identity belongs to, empty when it has not said so. `asks`: empty for agents that do not
/// say. `started`: when this hub began to listen, since a device that has had no time to come is not gone.
pub fn verdict(record: &str, seen: Option<&Seen>, asks: &str, started: Timestamp, now: Timestamp) -> Verdict {
    if asks.is_empty() || asks == record {
        return Verdict::Admit;
    }
    if record.is_empty() {
        return Verdict::AdmitAndRecord;
    }
    let last = match seen {
        Some(seen) if seen.connected && seen.hardware != asks => return Verdict::KeepOut,
        Some(seen) if seen.hardware == record => seen.at.max(started),
        _ => started,
    };
    match now.duration_since(last).as_secs() >= REPLACED_AFTER_S {
        true => Verdict::AdmitAndRecord,
        false => Verdict::KeepOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_on_record_is_the_node() {
        let at = |s: i64| Timestamp::from_second(1_795_000_000 + s).unwrap();
        let seen = |hardware: &str, connected, s| Some(Seen { hardware: hardware.into(), connected, at: at(s) });
        let after = REPLACED_AFTER_S;
        for (record, seen, asks, now, want) in [
            ("", None, "a", 0, Verdict::AdmitAndRecord),
            ("a", None, "a", 0, Verdict::Admit),
            ("a", None, "", 0, Verdict::Admit),
            // The original reboots, or comes back while a copy is there.
            ("a", seen("a", true, 0), "a", 5, Verdict::Admit),
            ("a", seen("b", true, 0), "a", 5, Verdict::Admit),
            // A copy: while the original is there, has just left, or had no time to come.
            ("a", seen("a", true, 0), "b", 9 * after, Verdict::KeepOut),
            ("a", seen("a", false, 100), "b", 99 + after, Verdict::KeepOut),
            ("a", None, "b", after - 1, Verdict::KeepOut),
            // A repair.
            ("a", seen("a", false, 100), "b", 100 + after, Verdict::AdmitAndRecord),
            ("a", None, "b", after, Verdict::AdmitAndRecord),
        ] {
            assert_eq!(verdict(record, seen.as_ref(), asks, at(0), at(now)), want, "{record} {asks} {now}");
        }
    }
}
