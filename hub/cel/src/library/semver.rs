//! Semantic versions.
//!
//! In: text. Out: versions in their order. Source: semver.org 2.0.0. Never: build metadata in comparisons.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::eval::{Meter, Outcome, error};
use crate::value::Value;

#[derive(Debug, Clone)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: String,
}

impl Semver {
    /// With `loose`, a leading v, missing parts and leading zeros are fine.
    pub fn parse(text: &str, loose: bool) -> Option<Self> {
        if text.len() > 256 {
            return None;
        }
        let text = if loose {
            text.trim().trim_start_matches(['v', 'V'])
        } else {
            text
        };
        let (rest, build) = text.split_once('+').unwrap_or((text, ""));
        let (core, pre) = match rest.split_once('-') {
            Some((core, pre)) => (core, pre.split('.').map(str::to_owned).collect()),
            None => (rest, Vec::new()),
        };
        if rest.contains('-') && pre.iter().any(|part: &String| !fits(part))
            || (text.contains('+') && !build.split('.').all(fits))
        {
            return None;
        }
        if !loose
            && pre
                .iter()
                .any(|part| is_number(part) && part.len() > 1 && part.starts_with('0'))
        {
            return None;
        }
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || (parts.len() < 3 && !loose) {
            return None;
        }
        let mut numbers = [0; 3];
        for (at, part) in parts.iter().enumerate() {
            if !is_number(part) || (!loose && part.len() > 1 && part.starts_with('0')) {
                return None;
            }
            numbers[at] = part.parse().ok()?;
        }
        Some(Self {
            numbers,
            pre,
            build: build.to_owned(),
        })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let parts = self
                        .pre
                        .iter()
                        .zip(&other.pre)
                        .map(|(a, b)| part_order(a, b));
                    parts
                        .fold(Ordering::Equal, Ordering::then)
                        .then(self.pre.len().cmp(&other.pre.len()))
                }
            }
        })
    }
}

fn fits(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

fn part_order(a: &str, b: &str) -> Ordering {
    match (is_number(a), is_number(b)) {
        (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() {
            Ok(())
        } else {
            write!(f, "+{}", self.build)
        }
    }
}

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("semver" | "isSemver", [Value::String(text), rest @ ..]) => {
            let loose = matches!(rest, [Value::Bool(true)]);
            match (function, Semver::parse(text, loose)) {
                ("isSemver", found) => Ok(Value::Bool(found.is_some())),
                (_, Some(version)) => Ok(Value::Semver(Arc::new(version))),
                (_, None) => error(format!("{text:?} is no semantic version")),
            }
        }
        (function, [Value::Semver(own)]) => {
            let at = ["major", "minor", "patch"]
                .iter()
                .position(|name| *name == function)?;
            i64::try_from(own.numbers[at]).map_or_else(
                |_| error("integer overflow"),
                |number| Ok(Value::Int(number)),
            )
        }
        (function, [Value::Semver(own), Value::Semver(other)]) => {
            let order = own.order(other);
            match function {
                "isGreaterThan" => Ok(Value::Bool(order.is_gt())),
                "isLessThan" => Ok(Value::Bool(order.is_lt())),
                "compareTo" => Ok(Value::Int(order as i64)),
                _ => return None,
            }
        }
        _ => return None,
    };
    let size = values.first().map_or(1, Value::size);
    Some(meter.walk(size.max(1)).and(outcome))
}
