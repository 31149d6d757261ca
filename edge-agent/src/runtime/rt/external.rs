//! Another OCI runtime of this board (crun, for one) does what libcontainer does for all others.
//!
//! In: a bundle that is ready but for the config, the container's pipes. Out: a running program, or the runtime's own words.
//! Its commands are those of the OCI runtime's command line: create, start, exec, delete. Groups, namespaces, mounts of
//! the root and volumes are ours as ever. Never: a command line built from what a pod says; all of that is in files.

use super::super::record::{self, Record, write_file};
use super::super::seccomp;
use super::super::spec::{ContainerSpec, ExecSpec, OtherRuntime, Seccomp};
use super::console::Console;
use super::start::{PROFILE, stdio};
use super::{Failure, Outcome, bundle, caps, group, oci, rootfs};
use crate::device::cgroups::Cgroups;
use nix::mount::MsFlags;
use serde_json::Value;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WORDS_BYTES_MAX: u64 = 64 * 1024;
const LOG: &str = "runtime.log";

/// Where such runtimes keep what they know.
pub fn state_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("oci")
}

/// What config.json of the container has beyond libcontainer's: there our own executor loads the filter.
pub fn complete(config: &mut Value, spec: &ContainerSpec, caps: u64, bundle_dir: &Path) -> Result<(), Failure> {
    let text = match &spec.seccomp {
        Seccomp::Unconfined => return Ok(()),
        _ if spec.privileged => return Ok(()),
        Seccomp::RuntimeDefault => seccomp::runtime_default_json(caps),
        Seccomp::Localhost(_) => {
            let text = std::fs::read(bundle_dir.join(PROFILE)).map_err(|err| Failure::create("the seccomp profile", err))?;
            serde_json::from_slice(&text).map_err(|err| Failure::create("the seccomp profile", err))?
        }
    };
    config["linux"]["seccomp"] = text;
    Ok(())
}

/// Creates and starts; the caller has written config.json and is in the group.
pub fn start(run_dir: &Path, spec: &ContainerSpec, begun: &Record, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
    let Some(other) = &spec.other_runtime else { return Err(Failure::Create("no other runtime is named".into())) };
    let dir = bundle(run_dir, &spec.id);
    let console = spec.tty.then(|| Console::listen(&dir)).transpose();
    let console = console.map_err(|err| Failure::create("the terminal", err))?;
    let pid_file = dir.join("pid");
    let mut create = command(other, run_dir, &dir, "create");
    create.arg("--bundle").arg(&dir).arg("--pid-file").arg(&pid_file);
    if let Some(console) = &console {
        create.arg("--console-socket").arg(&console.path);
    } else {
        let [stdin, stdout, stderr] = stdio(spec.stdin, fds)?;
        create.stdin(stdin).stdout(stdout).stderr(stderr);
    }
    ran(create.arg(&spec.id), other, &dir).map_err(sorted)?;
    let pid = pid_of(&pid_file)?;
    let start_time = record::start_time(pid).unwrap_or(0);
    let begun = Record { pid, start_time, ..begun.clone() };
    record::write(run_dir, &begun).map_err(|err| Failure::create("the container's record", err))?;
    ran(command(other, run_dir, &dir, "start").arg(&spec.id), other, &dir).map_err(Failure::Start)?;
    let master = console.map(Console::master).transpose().map_err(|err| Failure::create("the terminal", err))?;
    Ok(Outcome { pid, start_time, master })
}

/// One more program in a container of such a runtime. `dir` is this exec's own.
pub fn exec(run_dir: &Path, dir: &Path, record: &Record, exec: &ExecSpec, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
    let Some(other) = &record.spec.other_runtime else { return Err(Failure::Create("no other runtime is named".into())) };
    let cgroups = Cgroups::probe(&record.cgroup_parent).map_err(|err| Failure::create("probe cgroups", err))?;
    go_inside(&cgroups, &record.cgroup)?;
    rootfs::leave_mounts(MsFlags::MS_PRIVATE).map_err(|err| Failure::create("a mount namespace", err))?;
    std::fs::create_dir_all(dir).map_err(|err| Failure::create("exec", err))?;
    let caps = caps::wanted(&record.spec, caps::last_cap()).map_err(Failure::Create)?;
    let env = super::exec::environment(record, exec);
    let process = oci::exec_process(record, exec, caps, &env, false);
    let process_file = dir.join("process.json");
    write_file(&process_file, process.to_string().as_bytes(), 0o600).map_err(|err| Failure::create("process.json", err))?;
    let console = exec.tty.then(|| Console::listen(dir)).transpose();
    let console = console.map_err(|err| Failure::create("the terminal", err))?;
    let pid_file = dir.join("pid");
    let mut command = command(other, run_dir, dir, "exec");
    command.arg("--detach").arg("--process").arg(&process_file).arg("--pid-file").arg(&pid_file);
    if let Some(console) = &console {
        command.arg("--tty").arg("--console-socket").arg(&console.path);
    } else {
        let [stdin, stdout, stderr] = stdio(exec.stdin, fds)?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
    }
    rootfs::hide_cgroups(&record.cgroup_parent).map_err(|err| Failure::create("hide /sys/fs/cgroup", err))?;
    ran(command.arg(&exec.container_id), other, dir).map_err(Failure::Start)?;
    let pid = pid_of(&pid_file)?;
    let master = console.map(Console::master).transpose().map_err(|err| Failure::create("the terminal", err))?;
    if let (Some(master), Some((columns, rows))) = (&master, exec.size) {
        let _ = super::console::set_size(master.as_fd(), columns, rows);
    }
    Ok(Outcome { pid, start_time: record::start_time(pid).unwrap_or(0), master })
}

/// Lets the runtime forget a container whose processes are gone.
pub fn forget(run_dir: &Path, spec: &ContainerSpec) -> Command {
    let (dir, other) = (bundle(run_dir, &spec.id), spec.other_runtime.clone().unwrap_or_default());
    let mut delete = command(&other, run_dir, &dir, "delete");
    delete.arg("--force").arg(&spec.id);
    delete
}

/// Into the group on this process's own feet: what it starts is born there.
pub fn go_inside(cgroups: &Cgroups, group: &str) -> Result<(), Failure> {
    match cgroups.is_v2() {
        true => group::enter_group(cgroups, group).map(|_| ()),
        false => {
            let own = std::process::id() as i32;
            cgroups.attach(group, own).map_err(|err| Failure::create(format_args!("join cgroup {group}"), err))
        }
    }
}

fn command(other: &OtherRuntime, run_dir: &Path, dir: &Path, verb: &str) -> Command {
    let mut command = Command::new(&other.program);
    command.args(&other.arguments).arg("--root").arg(state_dir(run_dir));
    command.arg("--log").arg(dir.join(LOG)).arg("--log-format").arg("json").arg(verb);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits for a command; when it fails, what it wrote to its log.
fn ran(command: &mut Command, other: &OtherRuntime, dir: &Path) -> Result<(), String> {
    let program = other.program.display();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => match last_words(&dir.join(LOG)) {
            Some(words) => Err(words),
            None => Err(format!("{program} failed ({status}) without a word")),
        },
        Err(err) => Err(format!("{program} cannot be started: {err}")),
    }
}

/// The newest message of a log of lines of JSON.
fn last_words(log: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(log).ok()?.take(WORDS_BYTES_MAX).read_to_string(&mut text).ok()?;
    let message = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["msg"].as_str()?.to_owned());
    text.lines().rev().find_map(message)
}

/// A program that is not there or cannot be run is the program's fault; all else happened before its turn.
fn sorted(why: String) -> Failure {
    match why.contains("executable file") || why.starts_with("exec") {
        true => Failure::Start(format!("unable to start container process: {why}")),
        false => Failure::Create(why),
    }
}

fn pid_of(file: &Path) -> Result<i32, Failure> {
    let text = std::fs::read_to_string(file).map_err(|err| Failure::create("the runtime's pid file", err))?;
    text.trim().parse().map_err(|err| Failure::create("the runtime's pid file", err))
}
