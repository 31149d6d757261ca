//! Work that nobody waits for: it runs beside the tests, many of which wait, in time that they leave.
//!
//! In: names of parts. Out: what each has said, whether it succeeded and what it took.
//! Never: a compiler that runs before a test that has work.

use crate::{binaries, sh};
use limpet_e2e::binaries::as_from_a_shell;
use std::{
    process::{Command, Stdio},
    time::Instant,
};

pub struct Work {
    /// Of the part.
    pub name: &'static str,
    /// As `nice` means it: the larger, the more it gives way.
    nice: &'static str,
    /// Programs with their words, one after the other.
    commands: &'static [&'static [&'static str]],
}

/// What runs here, once more.
const SELF: &str = "xtask";

/// In this order: what others need comes before them; the last one lies in a folder of its own, where tests at the end do not
/// wait for it.
pub const ALL: &[Work] = &[
    Work { name: "clippy", nice: "19", commands: &[&["cargo", "clippy", "--workspace"]] },
    Work { name: "ARM: programs", nice: "19", commands: &[&[SELF, "test", "--part", "ARM: programs"]] },
    // An emulated board is a test like those that it runs beside.
    Work { name: "ARM: a board", nice: "0", commands: &[&[SELF, "test", "--part", "ARM: a board"]] },
    Work { name: "ARM: units", nice: "19", commands: &[&[SELF, "test", "--part", "ARM: units"]] },
    // A feature that only another package of the workspace asks for would be missing for those who build one of them. The agent
    // and the first process are built so for 64-bit ARM.
    Work { name: "limpet by itself", nice: "19", commands: &[&["cargo", "clippy", "-p", "limpet"]] },
    Work { name: FLEETS, nice: "19", commands: &[&["cargo", "test", "--profile", "fleets", "-p", "limpet-sim", "--no-run"]] },
];

/// What the fleets' part runs.
pub const FLEETS: &str = "fleets: build";

pub struct Done {
    pub name: &'static str,
    pub seconds: u64,
    pub processor: u64,
    pub result: Result<(), String>,
}

/// One after the other, each to its end; `prepare` is given each command before it starts.
pub fn run(asked: &[&str], prepare: impl Fn(&mut Command)) -> Vec<Done> {
    ALL.iter().filter(|work| asked.contains(&work.name)).map(|work| one(work, &prepare)).collect()
}

fn one(work: &Work, prepare: impl Fn(&mut Command)) -> Done {
    let started = Instant::now();
    let mut done = Done { name: work.name, seconds: 0, processor: 0, result: Ok(()) };
    for words in work.commands {
        let mut command = Command::new("nice");
        command.args(["-n", work.nice]).arg(program(words[0])).args(&words[1..]).current_dir(sh::root());
        prepare(&mut command);
        as_from_a_shell(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = words.join(" ");
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

/// `build` puts another file in the place of this program's own, so it is started by the kernel's link to what runs here.
fn program(name: &str) -> String {
    match name == SELF {
        true => format!("/proc/{}/exe", std::process::id()),
        false => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_runs_and_failing_is_told() {
        assert!(run(&["no such part"], |_| ()).is_empty());
        let work = |name, commands| Work { name, nice: "19", commands };
        let good = one(&work("x", &[&["cargo", "--version"], &["cargo", "--version"]]), |_| ());
        assert_eq!((good.name, good.result), ("x", Ok(())));
        let bad = one(&work("y", &[&["cargo", "no-such-command"], &["cargo", "--version"]]), |_| ());
        assert!(bad.result.unwrap_err().starts_with("cargo no-such-command failed"));
        let prepared = one(&work("z", &[&["sh", "-c", "exit $CODE"]]), |command| {
            command.env("CODE", "3");
        });
        assert!(prepared.result.unwrap_err().contains("exit status: 3"));
    }

    #[test]
    fn this_program_is_found_whatever_lies_in_its_place() {
        let (found, own) = (std::fs::metadata(program(SELF)).unwrap(), std::fs::metadata("/proc/self/exe").unwrap());
        use std::os::unix::fs::MetadataExt;
        assert_eq!((found.dev(), found.ino()), (own.dev(), own.ino()));
        assert_eq!(program("cargo"), "cargo");
    }
}
