//! The sizes of the binaries, checked in, so that growth is a decision.
//!
//! In: what was just built. Out: a sentence about each that has grown; or a new xtask/sizes.txt.
//! Never: complains about what has shrunk.

use crate::sh;
use std::{collections::BTreeMap, path::PathBuf};

/// A compiler's next release moves sizes by about this much.
const GROWTH_PERCENT_MAX: u64 = 3;
const HEAD: &str = "# Bytes of stripped binaries. Rewritten by `cargo xtask dist --target … --update-sizes`, held by `--check`.\n";

type Sizes = BTreeMap<String, u64>;

fn path() -> PathBuf {
    sh::root().join("xtask/sizes.txt")
}

fn parse(text: &str) -> Result<Sizes, String> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines
        .map(|line| {
            let wrong = || format!("xtask/sizes.txt: {line:?} is not `TARGET PROGRAM BYTES`");
            let (name, bytes) = line.rsplit_once(' ').ok_or_else(wrong)?;
            Ok((name.to_string(), bytes.parse().map_err(|_| wrong())?))
        })
        .collect()
}

fn known() -> Result<Sizes, String> {
    match std::fs::read_to_string(path()) {
        Ok(text) => parse(&text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Sizes::new()),
        Err(e) => Err(format!("xtask/sizes.txt: {e}")),
    }
}

/// The rows that are not measured now stay.
pub fn update(measured: &[(String, u64)]) -> Result<(), String> {
    let mut sizes = known()?;
    sizes.extend(measured.iter().cloned());
    let rows: String = sizes.iter().map(|(name, bytes)| format!("{name} {bytes}\n")).collect();
    std::fs::write(path(), format!("{HEAD}{rows}")).map_err(|e| format!("xtask/sizes.txt: {e}"))
}

pub fn check(measured: &[(String, u64)]) -> Result<(), String> {
    let wrong = grown(&known()?, measured);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}\nIf that is what it costs: `cargo xtask dist --target … --update-sizes`, and say why in the commit",
            wrong.join("\n")
        )),
    }
}

fn grown(known: &Sizes, measured: &[(String, u64)]) -> Vec<String> {
    let row = |(name, bytes): &(String, u64)| match known.get(name) {
        None => Some(format!("{name} is not in xtask/sizes.txt: {bytes} bytes")),
        Some(old) if *bytes > old + old * GROWTH_PERCENT_MAX / 100 => {
            Some(format!("{name} has grown from {old} to {bytes} bytes"))
        }
        Some(_) => None,
    };
    measured.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_and_shrinking_is_not() {
        let known = parse("# head\nt a 1000\nt b 1000\nt c 1000\n").unwrap();
        let measured = [("t a", 1030), ("t b", 1031), ("t c", 10), ("t d", 1)].map(|(n, b)| (n.to_string(), b));
        let told = grown(&known, &measured);
        assert_eq!(told, ["t b has grown from 1000 to 1031 bytes", "t d is not in xtask/sizes.txt: 1 bytes"]);
        assert!(parse("t a x").is_err());
    }

    #[test]
    fn the_file_that_is_checked_in_can_be_read() {
        known().unwrap();
    }
}
