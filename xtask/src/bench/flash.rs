//! Writing a card beside `dd`: the example of limpet-device, optimised.
//!
//! In: root, room for three times the image in the temporary folder. Out: its rounds and the ratio, printed by itself.
//! Never: other measurements at the same time.

use crate::sh;
use std::process::Command;

/// MiB of the image, rounds.
const MEASURE: [&str; 2] = ["512", "5"];

pub fn run() -> Result<(), String> {
    sh::run("cargo", &["build", "--quiet", "--release", "-p", "limpet-device", "--example", "speed"])?;
    sh::status(Command::new(sh::root().join("target/release/examples/speed")).args(MEASURE))
}
