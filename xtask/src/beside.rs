//! Cargo's work that nobody waits for: it runs beside the tests, many of which wait, in time that they leave.
//!
//! In: names of parts. Out: what each has said, whether it succeeded and what it took. Never: runs before a test that has work.

use crate::{binaries, sh};
use limpet_e2e::binaries::as_from_a_shell;
use std::{
    process::{Command, Stdio},
    time::Instant,
};

/// A part, and cargo's words for it.
pub type Work = (&'static str, &'static [&'static [&'static str]]);

/// In this order; the last one lies in a folder of its own, where tests at the end do not wait for it.
pub const ALL: &[Work] = &[
    ("clippy", &[&["clippy", "--workspace"]]),
    // A feature that only another package of the workspace asks for would be missing for those who build one of them.
    ("programs that people get, each by itself", &[&["clippy", "-p", "limpet"], &["clippy", "-p", "limpet-agent"]]),
    (FLEETS, &[&["test", "--profile", "sim", "-p", "limpet-sim", "--no-run"]]),
];

/// What the fleets' part runs.
pub const FLEETS: &str = "fleets: build";

pub struct Done {
    pub name: &'static str,
    pub seconds: u64,
    pub processor: u64,
    pub result: Result<(), String>,
}

/// One after the other, each to its end.
pub fn run(asked: &[&str]) -> Vec<Done> {
    ALL.iter().filter(|(name, _)| asked.contains(name)).map(one).collect()
}

fn one((name, commands): &Work) -> Done {
    let started = Instant::now();
    let mut done = Done { name, seconds: 0, processor: 0, result: Ok(()) };
    for words in *commands {
        let mut command = Command::new("nice");
        command.args(["-n", "19", "cargo"]).args(*words).current_dir(sh::root());
        as_from_a_shell(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("cargo {}", words.join(" "));
        match binaries::heard(command) {
            Ok((out, processor)) => {
                println!("\n     {line}, beside the tests:\n{}", String::from_utf8_lossy(&[out.stdout, out.stderr].concat()));
                done.processor += processor;
                if !out.status.success() {
                    done.result = Err(format!("{line} failed ({}): see above", out.status));
                }
            }
            Err(e) => done.result = Err(format!("cannot start {line}: {e}")),
        }
    }
    done.seconds = started.elapsed().as_secs();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_runs_and_failing_is_told() {
        assert!(run(&["no such part"]).is_empty());
        let good = one(&("x", &[&["--version"], &["--version"]]));
        assert_eq!((good.name, good.result), ("x", Ok(())));
        let bad = one(&("y", &[&["no-such-command"], &["--version"]]));
        assert!(bad.result.unwrap_err().starts_with("cargo no-such-command failed"));
    }
}
