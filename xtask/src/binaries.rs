//! Builds all test programs and runs three of them at a time, and more while the processors have nothing to do.
//!
//! In: the workspace. Out: each program's whole output when it ends, a line with its time; which failed, what was skipped, and
//! what each took.
//! Never: leaves out a program that cargo has built, or stops at the first failure.
//!
//! Most end-to-end tests wait, for processes, boards that are away and patience that runs out; most others compute. One row of
//! programs is worked from both ends: one takes what computes from its tail, all others take end-to-end tests from its head, the
//! longest first.

use crate::{
    beside::{self, Done},
    sh,
};
use limpet_e2e::binaries::as_from_a_shell;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::Read,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How many test programs run at the same time, however busy the machine is.
const WORKERS: usize = 3;
/// How many more may, each beginning only when so much of the processors was idle for so long: many tests wait for minutes.
const WORKERS_IDLE: usize = 2;
const IDLE: f64 = 0.4;
const LOOK: Duration = Duration::from_secs(3);
/// How many programs the end names.
const SLOWEST: usize = 10;
/// A second in /proc (USER_HZ).
const TICKS: u64 = 100;
/// This worker begins at the tail, all others at the head.
const AT_TAIL: usize = 2;
/// What takes longest begins first, so that nothing long is left alone at the end; also what waits without a board.
const LONGEST: [&str; 18] = [
    "tests/e2e/tests/os/main.rs",
    "tests/e2e/tests/wifi/main.rs",
    "tests/e2e/tests/schedule.rs",
    "tests/e2e/tests/brokers.rs",
    "tests/e2e/tests/suite/main.rs",
    "tests/e2e/tests/metered.rs",
    "tests/e2e/tests/absence.rs",
    "tests/e2e/tests/memory.rs",
    "tests/e2e/tests/kept.rs",
    "tests/e2e/tests/images.rs",
    "tests/e2e/tests/fields/main.rs",
    "tests/e2e/tests/broker.rs",
    "tests/e2e/tests/lifecycle.rs",
    "hub/store/tests/etcd_tls.rs",
    "hub/store/tests/etcd.rs",
    "cli/tests/aggregate.rs",
    "hub/broker/tests/hostile.rs",
    "hub/broker/tests/broker.rs",
];
/// Whose programs mostly wait.
const WAITING: &str = "tests/e2e";

struct Program {
    name: String,
    file: PathBuf,
    /// The package's directory, where cargo would start it, too.
    dir: PathBuf,
}

/// What one program took.
pub struct Took {
    pub name: String,
    pub seconds: u64,
    /// Of processors: its own and those of all that it has started and seen end.
    pub processor: u64,
}

/// What there is to say at the end.
#[derive(Default)]
pub struct Notes {
    /// What was left out, a line each.
    pub skipped: Vec<String>,
    pub took: Vec<Took>,
    /// Parts that are to run beside the tests, and then what came of them.
    pub asked: Vec<&'static str>,
    pub beside: Vec<Done>,
}

/// `selection` are cargo's words for packages; programs of the package in the directory `without` are built, and run elsewhere;
/// `words` are for each program; `prepare` is given each command before it starts.
pub fn run(
    selection: &[&str],
    without: Option<&str>,
    words: &[&str],
    prepare: impl Fn(&mut Command) + Sync,
    notes: &mut Notes,
) -> Result<(), String> {
    let mut programs = build(selection)?;
    programs.retain(|program| without.is_none_or(|dir| !program.dir.ends_with(dir)));
    programs.sort_by_key(place);
    let count = programs.len();
    let row = Mutex::new(VecDeque::from(programs));
    let failed = Mutex::new(Vec::new());
    let notes = Mutex::new(notes);
    std::thread::scope(|scope| {
        // Cargo has built the tests by now, and is free.
        scope.spawn(|| {
            let asked = notes.lock().map(|mut all| std::mem::take(&mut all.asked)).unwrap_or_default();
            let done = beside::run(&asked, &prepare);
            notes.lock().map(|mut all| all.beside.extend(done)).ok();
        });
        for worker in 0..WORKERS + WORKERS_IDLE {
            let (row, failed, notes, prepare) = (&row, &failed, &notes, &prepare);
            scope.spawn(move || {
                loop {
                    while worker >= WORKERS && row.lock().is_ok_and(|row| !row.is_empty()) && idle() < IDLE {}
                    let next = row.lock().ok().and_then(|mut row| match worker != AT_TAIL {
                        true => row.pop_front(),
                        false => row.pop_back(),
                    });
                    let Some(program) = next else { return };
                    let lines = one(&program, words, prepare, notes).map_err(|e| failed.lock().map(|mut all| all.push(e)).ok());
                    notes.lock().map(|mut all| all.skipped.extend(lines.unwrap_or_default())).ok();
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

/// Looks for a while; the share of all processors' time that nobody used, 0 to 1. Where it cannot be known: 0.
#[allow(clippy::disallowed_methods)] // time is what it measures
fn idle() -> f64 {
    let before = times();
    std::thread::sleep(LOOK);
    match (before, times()) {
        (Some(then), Some(now)) if now.1 > then.1 => now.0.saturating_sub(then.0) as f64 / (now.1 - then.1) as f64,
        _ => 0.0,
    }
}

/// (idle or nice, everything) since the start of the machine, of all processors together, in the kernel's ticks.
fn times() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, waiting for disks, …; what guests use is counted in the first two, too. What is nice gives way.
    Some((numbers.get(1)? + numbers.get(3)? + numbers.get(4)?, numbers.iter().take(8).sum()))
}

/// Where in the row: the smaller, the nearer to the head.
fn place(program: &Program) -> usize {
    let rest = LONGEST.len() + usize::from(!program.dir.ends_with(WAITING));
    LONGEST.iter().position(|long| *long == program.name).unwrap_or(rest)
}

/// What cargo says of each program that it has built, a line of JSON each.
fn build(selection: &[&str]) -> Result<Vec<Program>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(sh::root()).args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(selection);
    let out = as_from_a_shell(command.stderr(Stdio::inherit())).output().map_err(|e| format!("cannot start cargo: {e}"))?;
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

/// What it has skipped.
fn one(
    program: &Program,
    words: &[&str],
    prepare: &impl Fn(&mut Command),
    notes: &Mutex<&mut Notes>,
) -> Result<Vec<String>, String> {
    let started = Instant::now();
    let mut command = Command::new(&program.file);
    // What a test that passes has to say counts, too: figures, and that it was skipped.
    command.arg("--show-output").args(words).current_dir(&program.dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    let name = &program.name;
    let (out, processor) = heard(command).map_err(|e| format!("{name} could not be run: {e}"))?;
    // One lock for both, so that the outputs of two programs do not mix.
    let mut screen = std::io::stdout().lock();
    let words = [b"\n     Running ", name.as_bytes(), b"\n", &out.stdout[..], &out.stderr[..]].concat();
    std::io::Write::write_all(&mut screen, &words).ok();
    let seconds = started.elapsed().as_secs();
    std::io::Write::write_all(&mut screen, format!("     {name}: {seconds} s, {}\n", out.status).as_bytes()).ok();
    notes.lock().map(|mut all| all.took.push(Took { name: name.clone(), seconds, processor })).ok();
    match out.status.success() {
        true => Ok(skips(name, &String::from_utf8_lossy(&out.stdout))),
        false => Err(format!("{name} ({})", out.status)),
    }
}

/// Runs to the end: what it said, and the processor seconds that it took.
pub fn heard(mut command: Command) -> std::io::Result<(Output, u64)> {
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || whole(stderr));
    let stdout = whole(stdout)?;
    let stderr = errors.join().map_err(|_| std::io::Error::other("a thread that read has panicked"))??;
    // It stays in the kernel's table until `wait`, and what it took with it.
    waitid(Id::Pid(Pid::from_raw(child.id().cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    Ok((Output { status: child.wait()?, stdout, stderr }, processor(&stat).unwrap_or(0)))
}

fn whole(pipe: Option<impl Read>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
}

/// Seconds of a process and of all below it that was waited for, from /proc/PID/stat (proc_pid_stat(5): fields 14 to 17).
fn processor(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(4).map_while(|n| n.parse().ok()).collect();
    (ticks.len() == 4).then(|| ticks.iter().sum::<u64>() / TICKS)
}

/// What took longest, longest first.
pub fn slowest(took: &[Took]) -> String {
    let mut all: Vec<&Took> = took.iter().collect();
    all.sort_by_key(|took| std::cmp::Reverse(took.seconds));
    let line = |took: &&Took| format!("{:>6} s {:>6} s of processors  {}\n", took.seconds, took.processor, took.name);
    all.iter().take(SLOWEST).map(line).collect()
}

/// Every test that leaves something out says so in a line that begins with this word.
fn skips(name: &str, said: &str) -> Vec<String> {
    said.lines().filter(|line| line.starts_with("skipped")).map(|line| format!("{name}: {line}")).collect()
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
        assert!(LONGEST.iter().all(|name| sh::root().join(name).is_file()));
    }

    #[test]
    fn what_a_test_skips_is_heard() {
        let said = "test a ... ok\n\n---- a stdout ----\nskipped: needs root\nskipped in part: no xz\nnothing skipped\n";
        assert_eq!(skips("x.rs", said), ["x.rs: skipped: needs root", "x.rs: skipped in part: no xz"]);
    }

    #[test]
    fn what_a_program_takes_is_known() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo said; echo wrong >&2; exit 3"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (out, _) = heard(command).unwrap();
        assert_eq!((out.status.code(), &out.stdout[..], &out.stderr[..]), (Some(3), &b"said\n"[..], &b"wrong\n"[..]));
        // A name may have blanks and brackets.
        let stat = "7 (a) b) R 1 7 7 0 -1 4194560 100 200 0 0 150 50 1000 300 20 0 1 0 5 100 2 3";
        assert_eq!(processor(stat), Some(15));
        assert_eq!(processor("7 (a) Z 1 2"), None);
        let took = |seconds| Took { name: format!("p{seconds}"), seconds, processor: 1 };
        let table = slowest(&[3, 9, 1].map(took));
        assert_eq!(
            table.split_whitespace().filter(|w| w.starts_with('p') && *w != "processors").collect::<Vec<_>>(),
            ["p9", "p3", "p1"]
        );
        assert_eq!(slowest(&(0..40).map(took).collect::<Vec<_>>()).lines().count(), SLOWEST);
    }

    #[test]
    fn the_processors_time_can_be_read() {
        let (idle, all) = times().unwrap();
        assert!(idle <= all && all > 0);
    }
}
