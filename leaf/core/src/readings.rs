//! Figures of a board: what its sensors say.
//!
//! In: readings of the firmware. Out: the lines of Prometheus' text format, and one JSON object.
//! Never: floating point, which small processors do not have.

use alloc::{format, string::String, vec::Vec};
use serde_json::{Map, Value};

/// One figure in thousandths: `21375` is 21.375.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// As metrics are named, with the unit: `temperature_celsius`.
    pub name: String,
    pub milli: i64,
}

impl Reading {
    pub fn new(name: &str, milli: i64) -> Reading {
        Reading { name: name.into(), milli }
    }

    /// Letters, digits, `_`: what is a name to everybody.
    pub(crate) fn is_named_well(&self) -> bool {
        let mut bytes = self.name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        first
            && self.name.len() <= crate::limits::READING_NAME_BYTES_MAX
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    fn decimal(&self) -> String {
        let (sign, all) = (if self.milli < 0 { "-" } else { "" }, self.milli.unsigned_abs());
        let text = format!("{sign}{}.{:03}", all / 1000, all % 1000);
        text.trim_end_matches('0').trim_end_matches('.').into()
    }
}

pub(crate) fn prometheus(readings: &[Reading]) -> Vec<u8> {
    let lines = readings.iter().map(|r| format!("# TYPE limpet_leaf_{0} gauge\nlimpet_leaf_{0} {1}\n", r.name, r.decimal()));
    lines.collect::<String>().into_bytes()
}

pub(crate) fn json(readings: &[Reading]) -> Vec<u8> {
    // Written by hand: a decimal number stays exact.
    let fields: Vec<String> = readings.iter().map(|r| format!("\"{}\":{}", r.name, r.decimal())).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// As `/metrics`, for people: what else there is to know, and the readings.
pub(crate) fn page(readings: &[Reading], mut more: Map<String, Value>) -> Vec<u8> {
    more.remove("readings");
    let mut text = serde_json::to_vec(&Value::Object(more)).unwrap_or_default();
    text.pop();
    text.extend_from_slice(if text.len() > 1 { b",\"readings\":" } else { b"\"readings\":" });
    text.extend(json(readings));
    text.push(b'}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact() {
        for (milli, text) in [(0, "0"), (21_375, "21.375"), (-500, "-0.5"), (1000, "1"), (i64::MIN, "-9223372036854775.808")] {
            assert_eq!(Reading::new("x", milli).decimal(), text);
        }
        let readings = [Reading::new("a_celsius", 1500), Reading::new("b", -2)];
        assert_eq!(json(&readings), br#"{"a_celsius":1.5,"b":-0.002}"#);
        assert!(prometheus(&readings).ends_with(b"# TYPE limpet_leaf_b gauge\nlimpet_leaf_b -0.002\n"));
        for bad in ["", "9a", "a b", "a\"", "ä", &"x".repeat(65)] {
            assert!(!Reading::new(bad, 0).is_named_well(), "{bad}");
        }
    }
}
