//! Everything that must pass.
//!
//! In: the workspace. Out: success, or the first part that failed; the last line counts the parts.
//! Never: a part that is skipped in silence.

use crate::{binaries, demo, dist, setup, sh, tidy};
use std::{process::Command, time::Instant};

type Part = (&'static str, fn() -> Result<(), String>);

const PARTS: &[Part] = &[
    ("setup", setup::run),
    ("tidy", tidy::run),
    ("build", || sh::run("cargo", &["build", "--workspace", "--all-targets"])),
    ("clippy", || sh::run("cargo", &["clippy", "--workspace"])),
    // Tests share two cores, kernel objects and ports: those that need the kernel to themselves say so.
    ("tests", || tests(&["--workspace", "--exclude", "limpet-sim"])),
    ("fleets", fleets),
    ("demo --check", || demo::run(true)),
];

/// With `--arm`: many minutes of compiling on two cores, so not everybody's every push.
const ARM_PARTS: &[Part] = &[("ARM: agent and first process", dist::arm_builds), ("ARM: unit tests", dist::arm_tests)];

/// Where no kubectl is on PATH, the one that `setup` fetched stands in for it.
fn tests(selection: &[&str]) -> Result<(), String> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if setup::kubectl_first().is_none() {
        let dir = sh::root().join("target/tools/path");
        let link = dir.join("kubectl");
        let made = std::fs::create_dir_all(&dir).and_then(|()| match link.exists() {
            true => Ok(()),
            false => std::os::unix::fs::symlink(setup::kubectl_second().map_err(std::io::Error::other)?, &link),
        });
        made.map_err(|e| format!("cannot put kubectl into {}: {e}", dir.display()))?;
        let all = std::iter::once(dir).chain(std::env::split_paths(&path)).collect::<Vec<_>>();
        path = std::env::join_paths(all).map_err(|e| e.to_string())?;
    }
    let programs = binaries::run(selection, |command| {
        command.env("PATH", &path);
    });
    let pages = sh::run("cargo", &[&["test", "--doc", "--quiet"], selection].concat());
    programs.and(pages)
}

/// The simulator, optimised, for so many node-hours.
fn fleets() -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.current_dir(sh::root()).args(["test", "--profile", "sim", "-p", "limpet-sim"]).env("LIMPET_SIM_HOURS", "20000");
    sh::status(&mut command)
}

pub fn run(packages: &[String], arm: bool) -> Result<(), String> {
    if !packages.is_empty() {
        let selection: Vec<&str> = packages.iter().flat_map(|name| ["--package", name]).collect();
        return tests(&selection);
    }
    let mut failed: Vec<&str> = Vec::new();
    let parts: Vec<&Part> = PARTS.iter().chain(ARM_PARTS.iter().filter(|_| arm)).collect();
    for (name, part) in &parts {
        println!("\n== {name}");
        let started = Instant::now();
        let result = part();
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(()) => println!("== {name}: passed in {seconds} s"),
            Err(e) => {
                println!("== {name}: FAILED in {seconds} s\n{e}");
                failed.push(name);
                if *name == "build" || *name == "setup" {
                    break;
                }
            }
        }
    }
    println!("\n{} passed, {} failed", parts.len() - failed.len(), failed.len());
    if !arm {
        println!("not asked for: {} (--arm)", ARM_PARTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {}", failed.join(", "))),
    }
}
