//! The firmware of a leaf board is checked with its processor's compiler: `protocol` and the leaf's crates without std.
//!
//! In: leaf/pico-w, a compiler that has its target. Out: what does not compile, or why it could not be looked at.
//! Never: links, or asks for the radio's own firmware: that is for who flashes one (docs/guides/leaf-boards.md).

use crate::sh;
use std::process::Command;

const TARGET: &str = "thumbv6m-none-eabi";

pub fn check(skipped: &mut Vec<String>) -> Result<(), String> {
    if !has_target()? {
        // It may come from where the compiler came from.
        let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(sh::root()).output();
        if !added.is_ok_and(|out| out.status.success()) || !has_target()? {
            skipped.push(format!("leaf: skipped: the compiler has no {TARGET}: rustup target add {TARGET}"));
            return Ok(());
        }
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(sh::root().join("leaf/pico-w"))
        .env("CARGO_TARGET_DIR", sh::root().join("target/leaf"))
        .args(["check", "--locked", "--quiet", "--target", TARGET]);
    sh::status(&mut command)
}

fn has_target() -> Result<bool, String> {
    let libraries = sh::output("rustc", &["--print", "target-libdir", "--target", TARGET])?;
    Ok(std::path::Path::new(libraries.trim()).is_dir())
}
