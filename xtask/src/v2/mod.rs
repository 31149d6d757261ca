//! Tests where boards run them: on Debian's kernel with nothing but cgroup v2, in an emulated machine.
//!
//! In: Debian's cloud kernel, QEMU; the agent's unit tests, or end-to-end programs with hub, agent and kubectl.
//! Out: the tests' words and their result.
//! Never: KVM (not every machine has it), or a figure of time: an emulated millisecond is none.

mod boot;
mod kernel;
mod tree;

use crate::{dist, setup, sh};
use limpet_e2e::{Binaries, binaries::as_from_a_shell};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tree::Tree;

const PACKAGES: &[setup::Package] = &[
    ("busybox", "busybox-static", "the emulated machine's userland"),
    ("qemu-system-x86_64", "qemu-system-x86", "the emulated machine"),
    ("mke2fs", "e2fsprogs", "its disk"),
    ("ldd", "libc-bin", "finds the libraries of programs"),
];
/// What a program of `tests/e2e` starts.
const PACKAGES_E2E: &[setup::Package] = &[
    ("ip", "iproute2", "network namespaces stand in for hosts"),
    ("setpriv", "util-linux", "ends everything when a test ends"),
    ("curl", "curl", "asks the hub; pushes images"),
    ("crun", "crun", "another runtime on the board"),
    ("openssl", "openssl", "makes certificates"),
];
const TOOLS_E2E: &[&str] =
    &["ip", "setpriv", "nsenter", "unshare", "mount", "umount", "losetup", "mke2fs", "curl", "crun", "openssl"];
/// Where groups matter: limits, out of memory, pressure, resizes, adoption, another runtime.
const USUAL_E2E: &[&str] = &["groups", "memory", "pods", "lifecycle", "pressure", "survival", "runtimes"];
/// How much longer an emulated machine may take than the tests' own limits say.
const PATIENCE: u32 = 10;

#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose names contain this; without it those of the runtime. With --e2e: programs of tests/e2e/tests instead,
    /// each perhaps as PROGRAM::TEST; without any: those about limits, pressure, survival and runtimes
    filter: Vec<String>,
    /// Hub, agent and kubectl end to end
    #[arg(long)]
    e2e: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    setup::packages(PACKAGES)?;
    let fine = |word: &String| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    if let Some(word) = args.filter.iter().find(|word| !fine(word)) {
        return Err(format!("{word:?} cannot be a part of a test's name"));
    }
    let work = sh::root().join("target/v2");
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let kernel = kernel::kernel(&work)?;
    let (lines, minutes) = match args.e2e {
        true => (end_to_end(&args.filter, &work)?, 240),
        false => (runtime(&args.filter, &work)?, 60),
    };
    let Plan { tree, commands } = lines;
    tree.modules(&kernel)?;
    let disk = tree.disk(&commands)?;
    let initrd = kernel::first_files(&work, &kernel)?;
    boot::boot(&kernel.join("vmlinuz"), &initrd, &disk, Duration::from_secs(minutes * 60))
}

/// A root file system and what its machine does, a line each.
struct Plan {
    tree: Tree,
    commands: Vec<String>,
}

fn runtime(filter: &[String], work: &Path) -> Result<Plan, String> {
    let tree = Tree::new(work)?;
    tree.program(&test_program("limpet-agent", "limpet-agent")?, "test")?;
    let words = if filter.is_empty() { "runtime::".into() } else { filter.join(" ") };
    Ok(Plan { tree, commands: vec![format!("/test --test-threads=1 {words}")] })
}

fn end_to_end(filter: &[String], work: &Path) -> Result<Plan, String> {
    setup::packages(PACKAGES_E2E)?;
    let usual = USUAL_E2E.iter().map(|name| (*name).to_string()).collect();
    let wanted: Vec<String> = if filter.is_empty() { usual } else { filter.to_vec() };
    let tree = Tree::new(work)?;
    for tool in TOOLS_E2E {
        let path = sh::find(tool).ok_or_else(|| format!("{tool} is not there: run `cargo xtask setup`"))?;
        tree.program(&path, &format!("usr/bin/{tool}"))?;
    }
    let kubectl = setup::kubectl_first().map_or_else(setup::kubectl_second, Ok)?;
    tree.program(&kubectl, "usr/bin/kubectl")?;
    // Emulated processors are slow enough: these are built as they are for people.
    let demo_web = Binaries::build("dev")?.demo_web;
    for (path, name) in [(dist::hub()?, "limpet"), (dist::agent()?, "limpet-agent"), (demo_web, "limpet-demo-web")] {
        tree.program(&path, &format!("limpet/{name}"))?;
    }
    let mut commands =
        vec![format!("export LIMPET_BIN_DIR=/limpet LIMPET_E2E_PATIENCE={PATIENCE} RUST_BACKTRACE=0"), "cd /tmp".into()];
    for word in wanted {
        let (program, test) = word.split_once("::").unwrap_or((&word, ""));
        tree.program(&test_program("limpet-e2e", program)?, &format!("e2e/{program}"))?;
        commands.push(format!("echo \"== {word}\"; /e2e/{program} --test-threads=1 {test}"));
    }
    Ok(Plan { tree, commands })
}

/// A package's tests of one target as one program.
fn test_program(package: &str, target: &str) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--quiet", "-p", package, "--message-format=json"]).current_dir(sh::root());
    command.args(if package == target { ["--bin", target] } else { ["--test", target] });
    let output = as_from_a_shell(command.stderr(Stdio::inherit())).output().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("the tests of {package} ({target}) do not build"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let made = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == target && message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    };
    text.lines().find_map(made).ok_or_else(|| "cargo named no test program".into())
}
