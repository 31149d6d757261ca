//! Tests where boards run them: on Debian's kernel with nothing but cgroup v2, in an emulated machine.
//!
//! In: Debian's cloud kernel and QEMU, or its source, which is built as a program of this machine; the agent's unit tests, or
//! end-to-end programs with hub, agent and kubectl.
//! Out: the tests' words and their result.
//! Never: KVM (not every machine has it), or a figure of time: an emulated millisecond is none.

mod boot;
mod kernel;
mod results;
mod tree;
mod user_mode;

use crate::{dist, setup, sh};
use limpet_e2e::{
    Binaries,
    binaries::{as_from_a_shell, leaf, target_dir},
};
use nix::sys::statvfs::statvfs;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tree::{Program, Tree};

const PACKAGES: &[setup::Package] = &[
    ("busybox", "busybox-static", "the emulated machine's userland"),
    ("mke2fs", "e2fsprogs", "its disk"),
    ("ldd", "libc-bin", "finds the libraries of programs"),
];
/// What the machine itself and programs of `tests/e2e` start.
const TOOLS_E2E: &[&str] = &[
    "flock", "ip", "ss", "setpriv", "nsenter", "unshare", "mount", "umount", "losetup", "mke2fs", "e2fsck", "debugfs", "sfdisk",
    "fsck.fat", "curl", "crun", "openssl", "nft", "mosquitto", "mosquitto_sub", "mosquitto_pub", "mosquitto_passwd",
    "stdbuf", "docker-registry", "etcd", "etcdctl", "swtpm", "tinyproxy", "faketime", "xz", "zstd", "tar", "ssh",
    "ssh-keygen", "gpg", "gpgv", "gpg-agent", "gpgconf", "find", "touch", "sync",
    "install", "df",
];
/// What those need that no library is; where it is not there, the test that needs it says so.
const FOLDERS_E2E: &[(&str, &str)] = &[
    ("/usr/libexec/coreutils", "usr/libexec/coreutils"),
    ("/usr/lib/x86_64-linux-gnu/faketime", "lib/x86_64-linux-gnu/faketime"),
    ("/usr/lib/ssl", "lib/ssl"),
    ("/etc/ssl/openssl.cnf", "etc/ssl/openssl.cnf"),
    ("/usr/lib/os-release", "etc/os-release"),
    ("/usr/share/tinyproxy", "usr/share/tinyproxy"),
    ("/usr/lib/python3.11", "lib/python3.11"),
];
/// Where a test looks for it, or what it starts by another name.
const PROGRAMS_E2E: &[(&str, &str)] = &[("/usr/sbin/sshd", "usr/sbin/sshd"), ("/usr/bin/python3.11", "usr/bin/python3")];
/// Programs of `tests/e2e` that have no business there, and why.
const NOT_THERE: &[(&str, &str)] = &[
    ("debian", "boots a machine with Debian's kernel, which has cgroup v2 alone"),
    ("os", "boots emulated boards, whose kernels have cgroup v2 alone"),
    ("os_boards", "boots emulated boards, whose kernels have cgroup v2 alone"),
    ("wifi", "boots an emulated board, whose kernel has cgroup v2 alone"),
];
/// Those that look at the whole machine: nothing beside them.
const ALONE: &[&str] = &["memory", "pressure", "groups"];
/// A run of kubectl is over before collecting garbage pays: a seventh of what it takes of the processors. Servers in Go, which
/// last, collect at this size.
const GARBAGE: &str = "GOGC=off GOMEMLIMIT=256MiB";
/// Where files are memory.
const IN_MEMORY: &str = "/dev/shm";
/// Numbers of the environment that programs of `tests/e2e` ask for.
const WISHES: [&str; 2] = ["LIMPET_E2E_PODS", "LIMPET_QUIET_MINUTES"];
/// How much longer an emulated machine may take than the tests' own limits say; `LIMPET_E2E_PATIENCE` says another number.
const PATIENCE: u32 = 10;
/// The same for a kernel that is a program of this machine.
const PATIENCE_USER_MODE: u32 = 4;

#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose names contain this; without it those of the runtime. With --e2e: programs of tests/e2e/tests instead,
    /// each perhaps as PROGRAM::TEST; without any: all of them but those that boot a board themselves
    filter: Vec<String>,
    /// Hub, agent and kubectl end to end
    #[arg(long)]
    e2e: bool,
    /// Of the programs of tests/e2e those that have not passed here yet: goes on with a list that was cut
    #[arg(long, requires = "e2e", conflicts_with = "filter")]
    left: bool,
    /// Debian's kernel from its source, as a program of this machine (User-mode Linux) instead of an emulated machine: many times
    /// as quick; without large pages, and without a second processor
    #[arg(long)]
    user_mode: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    setup::packages(PACKAGES)?;
    let fine = |word: &String| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    if let Some(word) = args.filter.iter().find(|word| !fine(word)) {
        return Err(format!("{word:?} cannot be a part of a test's name"));
    }
    let work = sh::root().join("target/v2");
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let machine = Machine::prepare(args.user_mode, &work)?;
    let file = work.join("results");
    let (Plan { tree, alone, together }, minutes) = match args.e2e {
        true => {
            let wanted = match args.filter.as_slice() {
                [] if args.left => results::left(all_programs()?, &results::kept(&file)),
                [] => all_programs()?,
                some => some.to_vec(),
            };
            if wanted.is_empty() {
                return tell(args, &all_programs()?, &results::kept(&file), &work.join("logs"));
            }
            (end_to_end(wanted, &work, machine.patience())?, 600)
        }
        false => (runtime(&args.filter, &work)?, 60),
    };
    machine.modules(&tree)?;
    let disk = machine.place(tree.disk(&alone, &together, machine.width())?)?;
    let command = machine.command(&work, &disk)?;
    let logs = work.join("logs");
    fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
    let heard = results::Heard::new(&logs, &file, &format!("{}, {}", of()?, machine.name()));
    let booted = boot::boot(&command, heard, Duration::from_secs(minutes * 60));
    if disk.starts_with(IN_MEMORY) {
        let _ = fs::remove_file(&disk);
    }
    let mut results = booted?;
    let mut wanted: Vec<String> = alone.into_iter().chain(together).map(|program| program.name).collect();
    if args.left {
        (wanted, results) = (all_programs()?, results::kept(&file));
    }
    tell(args, &wanted, &results, &logs)
}

/// What the programs run on.
enum Machine {
    /// Debian's kernel as it is, in QEMU.
    Emulated { kernel: PathBuf },
    /// The same source, as a program of this machine.
    UserMode { kernel: PathBuf },
}

impl Machine {
    fn prepare(user_mode: bool, work: &Path) -> Result<Machine, String> {
        match user_mode {
            true => Ok(Machine::UserMode { kernel: user_mode::kernel(work)? }),
            false => Ok(Machine::Emulated { kernel: kernel::kernel(work)? }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Machine::Emulated { .. } => "QEMU",
            Machine::UserMode { .. } => "user mode",
        }
    }

    fn patience(&self) -> u32 {
        match self {
            Machine::Emulated { .. } => PATIENCE,
            Machine::UserMode { .. } => PATIENCE_USER_MODE,
        }
    }

    /// How many programs at a time: most wait, and an emulated processor has less to give meanwhile.
    fn width(&self) -> u32 {
        match self {
            Machine::Emulated { .. } => 4,
            Machine::UserMode { .. } => 6,
        }
    }

    /// QEMU is told that nobody needs what was written; this kernel waits for the disk of its machine each time somebody in it
    /// asks for that, and so its own is in memory where there is room.
    fn place(&self, disk: PathBuf) -> Result<PathBuf, String> {
        let (Machine::UserMode { .. }, Ok(room)) = (self, statvfs(IN_MEMORY)) else { return Ok(disk) };
        let bytes = fs::metadata(&disk).map_err(|e| format!("{}: {e}", disk.display()))?.len();
        let place = Path::new(IN_MEMORY).join(in_memory(&disk));
        let _ = fs::remove_file(&place);
        if room.blocks_available() * room.fragment_size() < 2 * bytes {
            return Ok(disk);
        }
        sh::status(Command::new("cp").arg("--sparse=always").arg(&disk).arg(&place)).map(|()| place)
    }

    /// Drivers that are not in the kernel itself.
    fn modules(&self, tree: &Tree) -> Result<(), String> {
        match self {
            Machine::Emulated { kernel } => tree.modules(kernel),
            Machine::UserMode { .. } => Ok(()),
        }
    }

    fn command(&self, work: &Path, disk: &Path) -> Result<Vec<OsString>, String> {
        match self {
            Machine::Emulated { kernel } => {
                Ok(boot::emulated(&kernel.join("vmlinuz"), &kernel::first_files(work, kernel)?, disk))
            }
            Machine::UserMode { kernel } => Ok(user_mode::command(kernel, work, disk)),
        }
    }
}

/// Every tree of sources has its own: two of them may have a machine each at one time. The next run replaces what a cut left.
fn in_memory(disk: &Path) -> String {
    disk.components().fold("limpet-v2".into(), |name, part| match part {
        Component::Normal(part) => format!("{name}-{}", part.to_string_lossy()),
        _ => name,
    })
}

/// Whose programs run, and the day.
fn of() -> Result<String, String> {
    let commit = sh::output("git", &["describe", "--always", "--dirty"])?;
    let day = sh::output("date", &["+%F"])?;
    let others = if std::env::var_os("LIMPET_BIN_DIR").is_some() { ", hub and agent of LIMPET_BIN_DIR" } else { "" };
    Ok(format!("{}{others} {}", commit.trim(), day.trim()))
}

fn tell(args: &Args, wanted: &[String], results: &results::Results, logs: &Path) -> Result<(), String> {
    let (table, all) = results::judge(wanted, results);
    println!("\n{table}(what each said: {})", logs.display());
    if args.e2e && args.filter.is_empty() {
        NOT_THERE.iter().for_each(|(name, why)| println!("{name:<16} not there: {why}"));
    }
    all
}

/// A root file system and what its machine runs.
struct Plan {
    tree: Tree,
    alone: Vec<Program>,
    together: Vec<Program>,
}

fn runtime(filter: &[String], work: &Path) -> Result<Plan, String> {
    let tree = Tree::new(work)?;
    let built = test_programs("limpet-agent", &["--bin", "limpet-agent"])?;
    tree.program(built.get("limpet-agent").ok_or("cargo named no test program of the agent")?, "test")?;
    let words = if filter.is_empty() { "runtime::".into() } else { filter.join(" ") };
    let program = Program { name: "runtime".into(), script: format!("/test --show-output --test-threads=1 {words}\n") };
    Ok(Plan { tree, alone: vec![program], together: Vec::new() })
}

/// Every program of tests/e2e that can run there.
fn all_programs() -> Result<Vec<String>, String> {
    let dir = sh::root().join("tests/e2e/tests");
    let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().join("main.rs").is_file() || e.path().extension().is_some_and(|ext| ext == "rs"))
        .filter_map(|e| Some(e.path().file_stem()?.to_string_lossy().into_owned()))
        .filter(|name| !NOT_THERE.iter().any(|(not, _)| not == name))
        .collect();
    names.sort();
    Ok(names)
}

fn end_to_end(wanted: Vec<String>, work: &Path, patience: u32) -> Result<Plan, String> {
    setup::packages(setup::PACKAGES)?;
    let targets: Vec<&str> = wanted.iter().flat_map(|word| ["--test", word.split("::").next().unwrap_or(word)]).collect();
    let built = test_programs("limpet-e2e", &targets)?;
    let tree = Tree::new(work)?;
    tools(&tree)?;
    // Emulated processors are slow enough: these are built as they are for people.
    let demo_web = Binaries::build("dev")?.demo_web;
    let programs = [(dist::hub()?, "limpet"), (dist::agent()?, "limpet-agent"), (demo_web, "limpet-demo-web")];
    for (path, name) in programs {
        tree.program(&path, &format!("limpet/{name}"))?;
    }
    if built.contains_key("leaf") {
        tree.program(&leaf()?, "limpet/limpet-leaf-host")?;
    }
    let patience = number("LIMPET_E2E_PATIENCE").unwrap_or(patience);
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for word in wanted {
        let (program, test) = word.split_once("::").unwrap_or((&word, ""));
        let path = built.get(program).ok_or_else(|| format!("tests/e2e has no program {program}"))?;
        tree.program(path, &format!("e2e/{program}"))?;
        let wishes: String = WISHES.iter().filter_map(|name| Some(format!("{name}={} ", number(name)?))).collect();
        let script = format!(
            "export LIMPET_BIN_DIR=/limpet LIMPET_E2E_PATIENCE={patience} RUST_BACKTRACE=0 CARGO_TARGET_DIR=/target {GARBAGE} {wishes}\n\
             exec /e2e/{program} --show-output --test-threads=1 {test}\n"
        );
        let row = if ALONE.contains(&program) { &mut alone } else { &mut together };
        row.push(Program { name: word.clone(), script });
    }
    Ok(Plan { tree, alone, together })
}

/// What the environment says here.
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// kubectl, servers and clients of other people's making, Python with what was fetched for it.
fn tools(tree: &Tree) -> Result<(), String> {
    for tool in TOOLS_E2E {
        let path = sh::find(tool).ok_or_else(|| format!("{tool} is not there: run `cargo xtask setup`"))?;
        tree.program(&path, &format!("usr/bin/{tool}"))?;
    }
    let kubectl = setup::kubectl_first().map_or_else(setup::kubectl_second, Ok)?;
    tree.program(&kubectl, "usr/bin/kubectl")?;
    for (from, to) in FOLDERS_E2E.iter().filter(|(from, _)| Path::new(from).exists()) {
        tree.copy(Path::new(from), to)?;
    }
    for (from, to) in PROGRAMS_E2E.iter().filter(|(from, _)| Path::new(from).is_file()) {
        tree.program(Path::new(from), to)?;
    }
    if let Ok(newer) = setup::kubectl_second() {
        let name = newer.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&newer, &format!("target/tools/{name}"))?;
    }
    for name in ["amqtt", "grpc"] {
        let folder = target_dir().join("tools").join(name);
        if folder.is_dir() {
            tree.copy(&folder, &format!("target/tools/{name}"))?;
        }
    }
    // Where the test looks for it.
    let plugin = sh::root().join("tests/e2e/tests/plugins");
    tree.copy(&plugin, plugin.to_string_lossy().trim_start_matches('/'))
}

/// The test programs of a package, by name, from one call of cargo.
fn test_programs(package: &str, targets: &[&str]) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--quiet", "-p", package, "--message-format=json"]).args(targets).current_dir(sh::root());
    let output = as_from_a_shell(command.stderr(Stdio::inherit())).output().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("the tests of {package} ({}) do not build", targets.join(" ")));
    }
    let made = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_string();
        let path = message["executable"].as_str().filter(|_| message["profile"]["test"] == true).map(PathBuf::from)?;
        Some((name, path))
    };
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(made).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trees_have_two_disks() {
        assert_eq!(in_memory(Path::new("/a/b/target/v2/disk")), "limpet-v2-a-b-target-v2-disk");
        assert_ne!(in_memory(Path::new("/a/c/target/v2/disk")), in_memory(Path::new("/a/b/target/v2/disk")));
    }
}
