//! Many boards on one hub: `limpet-fleet` with a release hub.
//!
//! In: a number of boards. Out: its table, printed by itself. Never: other measurements at the same time.

use crate::{dist, sh};
use std::process::Command;

pub fn run(boards: usize) -> Result<(), String> {
    sh::run("cargo", &["build", "--quiet", "--release", "-p", "limpet-fleet"])?;
    let mut command = Command::new(sh::root().join("target/release/limpet-fleet"));
    sh::status(command.arg("--hub").arg(dist::hub()?).arg("--boards").arg(boards.to_string()))
}
