//! Writing a card beside `dd`: the example of limpet-device, optimised.
//!
//! In: root, room for three times the image in the temporary folder. Out: its rounds as they come, and two rows with their marks.
//! Never: other measurements at the same time.

use super::Figure;
use crate::sh;
use std::process::{Command, Stdio};

/// MiB of the image, rounds.
const MEASURE: [&str; 2] = ["1024", "7"];

pub fn run() -> Result<Vec<Figure>, String> {
    sh::run("cargo", &["build", "--quiet", "--release", "-p", "limpet-device", "--example", "speed"])?;
    let program = sh::root().join("target/release/examples/speed");
    let out = Command::new(&program).args(MEASURE).stderr(Stdio::inherit()).output();
    let out = out.map_err(|e| format!("{}: {e}", program.display()))?;
    if !out.status.success() {
        return Err(format!("{} ended with {}", program.display(), out.status));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(name, value)| figure(name, value)).collect())
}

fn figure(name: &str, value: &str) -> Figure {
    match name {
        "both" => Figure::new("writing a card and reading it back", format!("{value} of dd's speed at both"), "≥ 80 %"),
        "written" => Figure::new("writing a card", format!("{value} of dd's speed"), "≥ 80 %"),
        _ => Figure::new("reading it back", format!("{value} of dd's speed"), "report"),
    }
}
