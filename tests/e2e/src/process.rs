//! Running programs: to their end with their output kept, or in the background with a log file.
//!
//! In: commands. Out: outputs, `Daemon`s that are killed when dropped. Never: a program that outlives this process.

use crate::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// stdout, if the program succeeded.
    pub fn ok(self, what: &str) -> Result<String> {
        match self.code {
            0 => Ok(self.stdout),
            code => Err(format!("{what}: exit code {code}: {}{}", self.stdout, self.stderr).trim_end().to_string()),
        }
    }
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Result<Output> {
    run_with(command, b"")
}

pub fn run_with(command: &mut Command, stdin: &[u8]) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: std::io::Error| format!("cannot run {name}: {e}");
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let writer = child.stdin.take().map(|mut pipe| {
        let bytes = stdin.to_vec();
        // A program that does not read its input to the end says why itself.
        std::thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let output = child.wait_with_output().map_err(failed)?;
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// `sh("ip", ["link", …])`: stdout, or an error with the words that were run.
pub fn sh<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words);
    let line = format!("{command:?}").replace('"', "");
    run(&mut command)?.ok(&line)
}

pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// A program in the background; dies with this process, and when dropped.
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}

impl Daemon {
    /// `words` is the whole command line; `setpriv` makes the kernel end it with us.
    pub fn start(words: &[&OsStr], environment: &[(&str, &str)], log: &Path) -> Result<Daemon> {
        let what = |e: std::io::Error| format!("cannot start {words:?}: {e}");
        let file = File::options().create(true).append(true).open(log).map_err(what)?;
        let errors = file.try_clone().map_err(what)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(words)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(what)?;
        Ok(Daemon { child, log: log.to_path_buf() })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(-1)
    }

    /// An error once the program has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("it ended ({status}); its last words:\n{}", tail(&self.log, 2000))),
            Err(e) => Err(e.to_string()),
        }
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    pub fn kill(mut self) {
        self.end(Signal::SIGKILL);
    }

    /// SIGTERM, and an error if that does not end it in time.
    pub fn stop(mut self, limit: Duration) -> Result<i32> {
        self.signal(Signal::SIGTERM);
        crate::until("ending on SIGTERM", limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            _ => Err(format!("process {} still runs", self.pid())),
        })
    }

    fn end(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(signal);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// The last `bytes` of a file.
pub fn tail(path: &Path, bytes: u64) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |m| m.len());
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(bytes)));
    let mut text = Vec::new();
    let _ = file.take(bytes).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A process somewhere below another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    pub name: String,
    /// Clock ticks since boot: with the pid it names one process for ever.
    pub started: u64,
}

/// All processes below `root`, whatever namespaces they are in.
pub fn below(root: i32) -> Vec<Process> {
    let all: Vec<(i32, Process)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(stat)
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (_, process) in all.iter().filter(|(p, _)| *p == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found.sort();
    found
}

/// Parent and process from /proc/PID/stat; the name may have blanks and brackets.
fn stat(pid: i32) -> Option<(i32, Process)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_string();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, Process { pid, name, started: fields.get(19)?.parse().ok()? }))
}

/// (proportional set size, what of it is not pages of files), of all of them together, in KiB.
pub fn kib_of(processes: &[Process]) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for Process { pid, .. } in processes {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let of = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name));
            let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            number.ok_or_else(|| format!("no {name} in {path}"))
        };
        sum = (sum.0 + of("Pss:")?, sum.1 + of("Pss_Anon:")?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_children_are_found() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        until_named("sleep", own, pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!below(own).iter().any(|p| p.pid == pid));
    }

    fn until_named(name: &str, own: i32, pid: i32) {
        let found = || below(own).into_iter().find(|p| p.pid == pid && p.name == name).ok_or("not there".to_string());
        crate::until("the child", Duration::from_secs(60), found).unwrap();
    }

    #[test]
    fn output_and_exit_code() {
        let out = run_with(Command::new("sh").args(["-c", "cat; echo err >&2; exit 3"]), b"in").unwrap();
        assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (3, "in", "err\n"));
        assert!(out.ok("sh").unwrap_err().contains("exit code 3"));
        assert!(sh("false", [""; 0]).is_err());
    }
}
