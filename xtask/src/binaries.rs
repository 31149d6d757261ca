//! Builds all test programs and runs three of them at a time.
//!
//! In: the workspace. Out: each program's whole output when it ends, a line with its time, and which ones failed.
//! Never: leaves out a program that cargo has built, or stops at the first failure.
//!
//! Most end-to-end tests wait, for processes, boards that are away and patience that runs out; most others compute. One row of
//! programs is worked from both ends: two take end-to-end tests from its head, the longest first, one the rest from its tail.

use crate::sh;
use serde_json::Value;
use std::{
    collections::VecDeque,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    time::Instant,
};

/// How many test programs run at the same time.
const WORKERS: usize = 3;
/// So many of them begin at the head.
const AT_HEAD: usize = 2;
/// What takes longest begins first, so that nothing long is left alone at the end.
const LONGEST: [&str; 8] = ["os/main", "link", "schedule", "brokers", "absence", "metered", "broker", "kept"];
/// Whose programs mostly wait.
const WAITING: &str = "tests/e2e";

struct Program {
    name: String,
    file: PathBuf,
    /// The package's directory, where cargo would start it, too.
    dir: PathBuf,
}

/// `selection` are cargo's words for packages; `prepare` is given each command before it starts.
pub fn run(selection: &[&str], prepare: impl Fn(&mut Command) + Sync) -> Result<(), String> {
    let mut programs = build(selection)?;
    programs.sort_by_key(place);
    let count = programs.len();
    let row = Mutex::new(VecDeque::from(programs));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (row, failed, prepare) = (&row, &failed, &prepare);
            scope.spawn(move || {
                loop {
                    let next = row.lock().ok().and_then(|mut row| match worker < AT_HEAD {
                        true => row.pop_front(),
                        false => row.pop_back(),
                    });
                    let Some(program) = next else { return };
                    if let Err(e) = one(&program, prepare) {
                        failed.lock().map(|mut all| all.push(e)).ok();
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().map_err(|_| "a thread that ran tests has panicked")?;
    match failed.is_empty() {
        true if count > 0 => Ok(()),
        true => Err("cargo has built no test program: is the selection right?".into()),
        false => Err(format!("{} of {count} test programs failed:\n  {}", failed.len(), failed.join("\n  "))),
    }
}

/// Where in the row: the smaller, the nearer to the head.
fn place(program: &Program) -> usize {
    if !program.dir.ends_with(WAITING) {
        return LONGEST.len() + 1;
    }
    let name = program.name.strip_prefix("tests/e2e/tests/").and_then(|n| n.strip_suffix(".rs")).unwrap_or_default();
    LONGEST.iter().position(|long| *long == name).unwrap_or(LONGEST.len())
}

/// What cargo says of each program that it has built, a line of JSON each.
fn build(selection: &[&str]) -> Result<Vec<Program>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(sh::root()).args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(selection);
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !out.status.success() {
        return Err(format!("the tests could not be built: {}", out.status));
    }
    let lines = out.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(lines.filter_map(|message| program(&message)).collect())
}

fn program(message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let dir = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let source = PathBuf::from(message["target"]["src_path"].as_str()?);
    let short = source.strip_prefix(sh::root()).unwrap_or(&source).display().to_string();
    Some(Program { name: short, file: message["executable"].as_str()?.into(), dir })
}

fn one(program: &Program, prepare: &impl Fn(&mut Command)) -> Result<(), String> {
    let started = Instant::now();
    let mut command = Command::new(&program.file);
    command.current_dir(&program.dir).stdin(Stdio::null());
    prepare(&mut command);
    let name = &program.name;
    let out = command.output().map_err(|e| format!("{name} could not be started: {e}"))?;
    // One lock for both, so that the outputs of two programs do not mix.
    let mut screen = std::io::stdout().lock();
    let words = [b"\n     Running ", name.as_bytes(), b"\n", &out.stdout[..], &out.stderr[..]].concat();
    std::io::Write::write_all(&mut screen, &words).ok();
    let seconds = started.elapsed().as_secs();
    std::io::Write::write_all(&mut screen, format!("     {name}: {seconds} s, {}\n", out.status).as_bytes()).ok();
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("{name} ({})", out.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_come_first_and_computing_comes_last() {
        let program = |name: &str, dir: &str| Program { name: name.into(), file: PathBuf::new(), dir: dir.into() };
        let mut row = vec![
            program("hub/tests/floods.rs", "/x/hub"),
            program("tests/e2e/tests/pods.rs", "/x/tests/e2e"),
            program("tests/e2e/tests/schedule.rs", "/x/tests/e2e"),
            program("tests/e2e/tests/os/main.rs", "/x/tests/e2e"),
        ];
        row.sort_by_key(place);
        let names: Vec<&str> = row.iter().map(|p| p.name.rsplit('/').next().unwrap_or_default()).collect();
        assert_eq!(names, ["main.rs", "schedule.rs", "pods.rs", "floods.rs"]);
        // Each of the long ones is there.
        let there = |name: &&str| sh::root().join(format!("tests/e2e/tests/{name}.rs")).is_file();
        assert!(LONGEST.iter().all(there));
    }
}
