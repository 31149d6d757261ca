//! The part of the style that a machine can check.
//!
//! In: the files that git knows. Out: a list of places. Never: changes a file.

use crate::sh;
use std::{fs, path::Path};

const WIDTH_MAX: usize = 130;
const LINES_MAX: usize = 700;
/// What a core must not depend on: with none of these in Cargo.toml, the compiler keeps it pure.
const IMPURE: [&str; 10] =
    ["tokio", "hyper", "rustls", "redb", "rumqttc", "nix", "libc", "rand", "getrandom", "tracing"];
const CORES: [&str; 6] = ["protocol", "hub/cel", "hub/core", "hub/objects", "edge-agent/core", "leaf/core"];
/// Words that have no place in a finished file, spelled apart so that this file passes.
const BANNED: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("dbg", "!(")];

pub fn run() -> Result<(), String> {
    let root = sh::root();
    let listed = sh::output("git", &["ls-files", "*.rs", "*.toml", "*.md"])?;
    let mut wrong: Vec<String> = Vec::new();
    let mut lengths: Vec<usize> = Vec::new();
    for name in listed.lines() {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        if name.ends_with(".rs") {
            rust(name, &text, &mut wrong);
            lengths.push(text.lines().count());
        }
        paths(name, &text, &root, &mut wrong);
    }
    for core in CORES {
        cores(core, &root, &mut wrong);
    }
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    println!("tidy: {} Rust files, median {median} lines", lengths.len());
    match wrong.len() {
        0 => Ok(()),
        n => Err(format!("{n} places are not tidy:\n  {}", wrong.join("\n  "))),
    }
}

fn rust(name: &str, text: &str, wrong: &mut Vec<String>) {
    let first = text.lines().find(|l| !l.starts_with("#!") && !l.trim().is_empty()).unwrap_or_default();
    if !first.starts_with("//!") {
        wrong.push(format!("{name}:1: no door sign (`//!` what it is for, in, out, never)"));
    }
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        // A long literal is better whole.
        let literal = line.split('"').skip(1).step_by(2).any(|t| t.chars().count() > 60);
        if line.chars().count() > WIDTH_MAX && !literal {
            wrong.push(format!("{name}:{at}: wider than {WIDTH_MAX} columns"));
        }
        if let Some(word) = BANNED.iter().find(|w| line.contains(**w)) {
            wrong.push(format!("{name}:{at}: {word}"));
        }
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{name}: {lines} lines; split it"));
    }
}

/// A path of somebody's machine.
fn paths(name: &str, text: &str, root: &Path, wrong: &mut Vec<String>) {
    if root.components().count() < 3 {
        return;
    }
    let needle = format!("{}/", root.display());
    for (number, _) in text.lines().enumerate().filter(|(_, l)| l.contains(&needle)) {
        wrong.push(format!("{name}:{}: a path of this machine", number + 1));
    }
}

fn cores(core: &str, root: &Path, wrong: &mut Vec<String>) {
    let Ok(text) = fs::read_to_string(root.join(core).join("Cargo.toml")) else {
        wrong.push(format!("{core}/Cargo.toml is missing"));
        return;
    };
    let normal = text.split("[dev-dependencies]").next().unwrap_or_default();
    let normal = normal.split("[build-dependencies]").next().unwrap_or_default();
    let Some((_, dependencies)) = normal.split_once("[dependencies]") else { return };
    for line in dependencies.lines() {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if IMPURE.contains(&name) {
            wrong.push(format!("{core}/Cargo.toml: a core must not depend on {name}"));
        }
    }
}
