//! Everything that must pass.
//!
//! In: the workspace. Out: success, or which parts failed; the last lines tell what took long, count the parts, and name each
//! test that was left out.
//! Never: a part, or a test, that is skipped in silence.

use crate::beside::Done;
use crate::binaries::{self, Notes, slowest};
use crate::{beside, demo, dist, leaf, setup, sh, tidy};
use limpet_e2e::binaries::{as_from_a_shell, gather, gather_boards, target_dir};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

type Part = (&'static str, fn(&mut Notes) -> Result<(), String>);

const PARTS: &[Part] = &[
    ("setup", |_| setup::run()),
    ("tidy", |_| tidy::run()),
    ("build", |_| build()),
    // These run beside the tests when those are asked for, too.
    ("clippy", |_| alone("clippy")),
    ("limpet by itself", |_| alone("limpet by itself")),
    ("ARM: programs", |_| dist::emulated_builds(&boards_dir())),
    ("ARM: units", |_| dist::emulated_tests()),
    ("ARM: a board", |_| board(ARM_SHORT)),
    // Tests share two cores, kernel objects and ports: those that need the kernel to themselves say so.
    (TESTS, |notes| tests(&["--workspace"], Some(SIMULATOR), notes)),
    ("fleets", |_| fleets()),
    ("demo --check", |_| demo()),
];

/// Many minutes on two cores: where nobody has asked for them, the end says so.
const ON_DEMAND: &[Part] = &[
    ("leaf: the firmware's code", |notes| leaf::check(&mut notes.skipped)),
    ("ARM: updates of a board", |_| board(ARM_LONG)),
];

/// Tests of the emulated ARM board in `tests/e2e/tests/os`: `tests` leaves them to parts of their own, after those that make its
/// programs.
const ARM_SHORT: &str = "from_an_image_to_a_pod_that_outlives_a_power_cut_on_arm64";
const ARM_LONG: &str = "from_an_image_to_a_node_through_power_cuts_and_updates_on_arm64";

const TESTS: &str = "tests";
/// Its tests are too slow as they are built for others: `fleets`.
const SIMULATOR: &str = "tests/sim";
/// This machine's own processor as a board.
const OWN_BOARD: &str = "x86_64-unknown-linux-musl";

/// What emulated boards run in tests: a folder with one folder a target.
fn boards_dir() -> PathBuf {
    target_dir().join("emulated")
}

/// One test of the emulated ARM board, with the programs that the part before has made.
fn board(test: &str) -> Result<(), String> {
    let mut command = Command::new("cargo");
    // With the features of all packages together, as `build` makes it.
    command.current_dir(sh::root()).args(["test", "--workspace", "--test", "os", "--", "--show-output", "--exact", test]);
    command.env("PATH", path()?);
    if std::env::var_os("LIMPET_BOARDS_DIR").is_none() {
        command.env("LIMPET_BOARDS_DIR", boards_dir());
    }
    let out = as_from_a_shell(&mut command).stderr(Stdio::inherit()).output().map_err(|e| format!("cannot start cargo: {e}"))?;
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{said}");
    match said.lines().find(|line| line.starts_with("skipped")) {
        // It was asked for, and so it must run.
        Some(why) => Err(format!("{test}: {why}")),
        None if out.status.success() && said.contains("1 passed") => Ok(()),
        None => Err(format!("{test} failed ({}): see above", out.status)),
    }
}

/// Everything once, with the features of all packages together; tests run what is made here.
fn build() -> Result<(), String> {
    sh::run("cargo", &["build", "--workspace", "--all-targets"])?;
    gather().map(drop)?;
    if cfg!(target_arch = "x86_64") {
        gather_boards(&boards_dir(), OWN_BOARD)?;
    }
    Ok(())
}

/// What usually runs beside the tests.
fn alone(name: &'static str) -> Result<(), String> {
    beside::run(&[name], |_| ()).into_iter().try_for_each(|done| done.result)
}

/// PATH as tests have it: where no kubectl is on it, the one that `setup` fetched stands in.
fn path() -> Result<OsString, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if setup::kubectl_first().is_some() {
        return Ok(path);
    }
    let dir = sh::root().join("target/tools/path");
    let link = dir.join("kubectl");
    let made = std::fs::create_dir_all(&dir).and_then(|()| match link.exists() {
        true => Ok(()),
        false => std::os::unix::fs::symlink(setup::kubectl_second().map_err(std::io::Error::other)?, &link),
    });
    made.map_err(|e| format!("cannot put kubectl into {}: {e}", dir.display()))?;
    let all = std::iter::once(dir).chain(std::env::split_paths(&path)).collect::<Vec<_>>();
    std::env::join_paths(all).map_err(|e| e.to_string())
}

fn tests(selection: &[&str], without: Option<&str>, notes: &mut Notes) -> Result<(), String> {
    let (path, whole) = (path()?, without.is_some());
    let prepare = |command: &mut Command| {
        command.env("PATH", &path);
        // Thousands of runs of kubectl are over before collecting garbage pays: a sixth of what they take of the processors.
        if std::env::var_os("GOGC").is_none() {
            command.env("GOGC", "400");
        }
        if whole {
            ready(command);
        }
    };
    // Parts of their own, where their programs are made before.
    let words = if whole { ["--skip", ARM_SHORT, "--skip", ARM_LONG].to_vec() } else { Vec::new() };
    let programs = binaries::run(selection, without, &words, prepare, notes);
    let pages = sh::run("cargo", &[&["test", "--doc", "--quiet"], selection].concat());
    programs.and(pages)
}

/// Tests find the programs that `build` has made; what the caller names counts more.
fn ready(command: &mut Command) {
    for (name, dir) in [("LIMPET_BIN_DIR", target_dir().join("tested")), ("LIMPET_BOARDS_DIR", boards_dir())] {
        if std::env::var_os(name).is_none() {
            command.env(name, dir);
        }
    }
}

/// The simulator, optimised a little, for so many node-hours.
fn fleets() -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.current_dir(sh::root()).args(["test", "--profile", "fleets", "-p", "limpet-sim"]).env("LIMPET_SIM_HOURS", "20000");
    sh::status(&mut command)
}

/// The tour in a process of its own, which finds what `build` has made. `build` puts another file in the place of this
/// program's own, so it is started by the kernel's link to what runs here and not by its path.
fn demo() -> Result<(), String> {
    demo::possible()?;
    let mut command = Command::new("/proc/self/exe");
    command.current_dir(sh::root()).args(["demo", "--check"]);
    ready(&mut command);
    sh::status(&mut command)
}

/// Processor seconds of everything that was started here and has ended.
fn spent() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |used| (used.user_time() + used.system_time()).num_seconds())
}

pub fn run(packages: &[String], words: &[String]) -> Result<(), String> {
    let mut notes = Notes::default();
    if !packages.is_empty() {
        let selection: Vec<&str> = packages.iter().flat_map(|name| ["--package", name]).collect();
        let done = tests(&selection, None, &mut notes);
        tell(&notes);
        return done;
    }
    let parts = wanted(words)?;
    let (mut passed, mut failed): (usize, Vec<&str>) = (0, Vec::new());
    let mut table = String::new();
    if parts.iter().any(|(name, _)| *name == TESTS) {
        notes.asked = beside_the_tests(&parts);
    }
    let beside = notes.asked.clone();
    for (name, part) in parts.iter().filter(|(name, _)| !beside.contains(name)) {
        println!("\n== {name}");
        let (started, before) = (Instant::now(), spent());
        let result = part(&mut notes);
        let others: Vec<Done> = notes.beside.drain(..).collect();
        let processor = spent() - before - others.iter().map(|done| done.processor.cast_signed()).sum::<i64>();
        let own = Done { name, seconds: started.elapsed().as_secs(), processor: processor.max(0).cast_unsigned(), result };
        for Done { name, seconds, processor, result } in [own].into_iter().chain(others) {
            let how = if beside.contains(&name) { ", beside the tests" } else { "" };
            table.push_str(&format!("{seconds:>6} s {processor:>6} s of processors  {name}{how}\n"));
            match result {
                Ok(()) => {
                    println!("== {name}: passed in {seconds} s");
                    passed += 1;
                }
                Err(e) => {
                    println!("== {name}: FAILED in {seconds} s\n{e}");
                    failed.push(name);
                }
            }
        }
        if failed.contains(&"build") || failed.contains(&"setup") {
            break;
        }
    }
    println!("\n{table}");
    if words.is_empty() {
        notes.skipped.extend(ON_DEMAND.iter().map(|(name, _)| format!("not asked for: {name} (--part)")));
    }
    tell(&notes);
    println!("{passed} passed, {} failed", failed.len());
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {}", failed.join(", "))),
    }
}

/// What cargo can do while the tests wait.
fn beside_the_tests(parts: &[&'static Part]) -> Vec<&'static str> {
    let wanted = |name: &str| parts.iter().any(|(part, _)| *part == name || (*part == "fleets" && name == beside::FLEETS));
    beside::ALL.iter().map(|work| work.name).filter(|name| wanted(name)).collect()
}

/// Those that one of the words is in; without a word all but what is on demand.
fn wanted(words: &[String]) -> Result<Vec<&'static Part>, String> {
    let all = || PARTS.iter().chain(ON_DEMAND);
    let asked = |name: &str| words.iter().any(|word| name.contains(word.as_str()));
    match words.iter().find(|word| !all().any(|(name, _)| name.contains(word.as_str()))) {
        Some(unknown) => {
            let names: Vec<&str> = all().map(|(name, _)| *name).collect();
            Err(format!("no part has {unknown:?} in its name; there are: {}", names.join("; ")))
        }
        None if words.is_empty() => Ok(PARTS.iter().collect()),
        None => Ok(all().filter(|(name, _)| asked(name)).collect()),
    }
}

fn tell(notes: &Notes) {
    if !notes.took.is_empty() {
        println!("what took longest of {} test programs, some at the same time:\n{}", notes.took.len(), slowest(&notes.took));
    }
    if !notes.skipped.is_empty() {
        println!("left out ({}):\n  {}", notes.skipped.len(), notes.skipped.join("\n  "));
    }
}

#[cfg(test)]
mod tests {
    use super::{beside_the_tests, wanted};

    #[test]
    fn cargo_works_beside_the_tests_on_what_is_asked_for() {
        let beside = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            beside_the_tests(&wanted(&words).unwrap())
        };
        assert_eq!(beside(&[]), crate::beside::ALL.iter().map(|work| work.name).collect::<Vec<_>>());
        assert_eq!(beside(&["tests", "clippy"]), ["clippy"]);
        assert_eq!(beside(&["tests", "fleets"]), [crate::beside::FLEETS]);
        // Each is a part, but for the one that the fleets' is.
        let parts: Vec<&str> = super::PARTS.iter().map(|(name, _)| *name).collect();
        assert!(crate::beside::ALL.iter().all(|work| parts.contains(&work.name) || work.name == crate::beside::FLEETS));
    }

    #[test]
    fn tests_that_parts_name_exist() {
        let text = std::fs::read_to_string(crate::sh::root().join("tests/e2e/tests/os/main.rs")).unwrap();
        assert!([super::ARM_SHORT, super::ARM_LONG].iter().all(|name| text.contains(&format!("fn {name}()"))));
    }

    #[test]
    fn parts_are_chosen_by_words() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            wanted(&words).map(|parts| parts.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        };
        let arm = ["ARM: programs", "ARM: units", "ARM: a board"];
        assert_eq!(names(&["ARM"]).unwrap(), [&arm[..], &["ARM: updates of a board"]].concat());
        assert_eq!(names(&["tidy", "fleets"]).unwrap(), ["tidy", "fleets"]);
        assert_eq!(names(&["tests"]).unwrap(), ["tests"]);
        let usual = names(&[]).unwrap();
        assert!(usual.contains(&"tests") && arm.iter().all(|name| usual.contains(name)));
        assert!(names(&["tidy", "arms"]).unwrap_err().starts_with("no part has \"arms\" in its name; there are: setup; tidy"));
    }
}
