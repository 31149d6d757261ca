//! Everything that must pass.
//!
//! In: the workspace. Out: success, or the first part that failed; the last line counts the parts.
//! Never: a part that is skipped in silence.

use crate::{demo, setup, sh, tidy};
use std::time::Instant;

type Part = (&'static str, fn() -> Result<(), String>);

const PARTS: &[Part] = &[
    ("setup", setup::run),
    ("tidy", tidy::run),
    ("build", || sh::run("cargo", &["build", "--workspace", "--all-targets"])),
    ("clippy", || sh::run("cargo", &["clippy", "--workspace"])),
    // Threads of tests share two cores, kernel objects and ports: tests that need the kernel to themselves say so.
    ("tests", || sh::run("cargo", &["test", "--workspace", "--no-fail-fast"])),
    ("demo --check", || demo::run(true)),
];

pub fn run() -> Result<(), String> {
    let mut failed: Vec<&str> = Vec::new();
    for (name, part) in PARTS {
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
    println!("\n{} passed, {} failed", PARTS.len() - failed.len(), failed.len());
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {}", failed.join(", "))),
    }
}
