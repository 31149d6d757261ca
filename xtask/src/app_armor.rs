//! `cargo xtask app-armor`: compiles the AppArmor profile of containers.
//!
//! In: edge-agent/src/device/limpet-default.apparmor; Debian's package apparmor, fetched with apt into a temporary folder.
//! Out: the same beside it as the kernel reads it, so that no board needs a compiler.
//! Never: loads it into this machine's kernel; installs the package.

use crate::sh;
use std::{fs, path::Path, process::Command};

const SOURCE: &str = "edge-agent/src/device/limpet-default.apparmor";
const TARGET: &str = "edge-agent/src/device/limpet-default.policy";

pub fn run() -> Result<(), String> {
    let work = std::env::temp_dir().join(format!("limpet-app-armor-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let outcome = compile(&work);
    // A left-over temporary folder harms nobody.
    let _ = fs::remove_dir_all(&work);
    outcome.map(|()| println!("wrote {TARGET}"))
}

fn compile(work: &Path) -> Result<(), String> {
    sh::status(Command::new("apt-get").args(["download", "-q", "apparmor"]).current_dir(work))?;
    let package = fs::read_dir(work).map_err(|e| e.to_string())?.flatten().map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.ok_or("apt-get has fetched no package apparmor")?;
    let tree = work.join("tree");
    sh::status(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    // Neither this machine's settings nor its kernel nor a cache: the same bytes everywhere.
    let mut parser = Command::new(tree.join("sbin/apparmor_parser"));
    parser.args(["--config-file=/dev/null", "--skip-kernel-load", "--skip-read-cache", "--skip-cache", "--base"]);
    let rules = tree.join("etc/apparmor.d");
    // Without knowing a kernel it would leave out all rules but those of files.
    parser.arg(&rules).arg("--kernel-features").arg(rules.join("abi/3.0"));
    parser.arg("--ofile").arg(sh::root().join(TARGET)).arg(sh::root().join(SOURCE));
    sh::status(&mut parser)
}
