//! The API server's figures under load, on a release hub or on any other API server.
//!
//! In: arguments for `limpet-load` (none: a hub is built, started and measured). Out: its table, printed by itself.
//! Never: two measurements at the same time.

use crate::{dist, sh};
use std::process::Command;

pub fn run(arguments: &[String]) -> Result<(), String> {
    let elsewhere = arguments.iter().any(|a| ["--url", "--kubeconfig", "--hub"].iter().any(|known| a.starts_with(known)));
    sh::run("cargo", &["build", "--quiet", "--release", "-p", "limpet-load"])?;
    let mut command = Command::new(sh::root().join("target/release/limpet-load"));
    if !elsewhere {
        command.arg("--hub").arg(dist::hub()?);
    }
    sh::status(command.args(arguments))
}
