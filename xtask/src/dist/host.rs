//! The binaries for this machine's own architecture, with its own compiler: what benchmarks measure.
//!
//! In: the workspace. Out: `target/dist/limpet-agent`, `target/dist/limpet-board`, `target/release/limpet`.
//! Never: another architecture (musl.rs).

use crate::sh;
use std::{path::PathBuf, process::Command};

/// It aborts where it would unwind: the tables for that would be a tenth of it.
const FLAGS: &str =
    "-Ctarget-feature=+crt-static -Crelocation-model=static -Cforce-unwind-tables=no -Clink-arg=-Wl,--icf=all";

/// A ready binary in the directory that `LIMPET_BIN_DIR` names.
fn ready(name: &str) -> Option<PathBuf> {
    std::env::var_os("LIMPET_BIN_DIR").map(|dir| PathBuf::from(dir).join(name))
}

/// Builds and returns the path.
pub fn agent() -> Result<PathBuf, String> {
    as_on_a_device("limpet-agent")
}

/// The agent's link without the rest of it, built as the agent is.
pub fn board() -> Result<PathBuf, String> {
    as_on_a_device("limpet-board")
}

fn as_on_a_device(package: &str) -> Result<PathBuf, String> {
    if let Some(path) = ready(package) {
        return Ok(path);
    }
    let target = host()?;
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut command = Command::new("cargo");
    command
        .current_dir(sh::root())
        .args(["build", "--profile", "device", "-p", package, "--target", &target])
        .env(variable, FLAGS);
    sh::status(&mut command)?;
    let built = sh::root().join("target").join(&target).join("device").join(package);
    let dist = sh::root().join("target/dist");
    std::fs::create_dir_all(&dist).map_err(|e| e.to_string())?;
    let path = dist.join(package);
    std::fs::copy(&built, &path).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(path)
}

/// The hub's binary.
pub fn hub() -> Result<PathBuf, String> {
    if let Some(path) = ready("limpet") {
        return Ok(path);
    }
    sh::run("cargo", &["build", "--release", "-p", "limpet"])?;
    Ok(sh::root().join("target/release/limpet"))
}

fn host() -> Result<String, String> {
    let text = sh::output("rustc", &["-vV"])?;
    text.lines().find_map(|l| l.strip_prefix("host: ")).map(String::from).ok_or_else(|| "rustc names no host".into())
}
