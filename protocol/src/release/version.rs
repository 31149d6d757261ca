//! Versions of the agent: three numbers and perhaps what comes before a release, `1.4.0-rc.2`.
//!
//! In: text. Out: an order (semver.org, clauses 9 and 11). Never: build metadata, which an image tag cannot carry.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::cmp::Ordering;

pub const VERSION_BYTES_MAX: usize = 48;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    /// Empty for a release.
    before: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    /// The error is a sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<Version, String> {
        let wrong = || format!("{text:?} is not a version: three numbers, as in 1.4.0, perhaps with -rc.1 behind them");
        if text.len() > VERSION_BYTES_MAX {
            return Err(wrong());
        }
        let (numbers, before) = text.split_once('-').map_or((text, None), |(n, b)| (n, Some(b)));
        let parts: Vec<u64> = numbers.split('.').map_while(number).collect();
        let numbers: [u64; 3] = match numbers.split('.').count() {
            3 => parts.try_into().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        let before = before.map_or(Some(Vec::new()), |b| b.split('.').map(part).collect()).ok_or_else(wrong)?;
        Ok(Version { numbers, before })
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn part(text: &str) -> Option<Part> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    good.then(|| number(text).map_or_else(|| Part::Text(text.to_owned()), Part::Number))
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let releases = self.before.is_empty().cmp(&other.before.is_empty());
        self.numbers.cmp(&other.numbers).then(releases).then_with(|| self.before.cmp(&other.before))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_their_order() {
        let row = ["0.1.0", "0.2.0-1", "0.2.0-a", "0.2.0-a.2", "0.2.0-a.10", "0.2.0-rc", "0.2.0", "0.10.0", "1.0.0"];
        let all: Vec<Version> = row.iter().map(|t| Version::parse(t).unwrap()).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.3-", "1.2.3-a..b", "1.2.3+5", "v1.2.3", "1.2.-3", "../1.2.3"] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
        assert!(Version::parse(&format!("1.2.{}", "9".repeat(60))).is_err());
    }
}
