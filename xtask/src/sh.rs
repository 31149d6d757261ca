//! Running programs.
//!
//! In: a program and its arguments as an array. Out: success, or which command failed how.
//! Never: a shell, or what cargo has told this program about itself.

use limpet_e2e::binaries::as_from_a_shell;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs a program in the workspace's root with the terminal's own input and output.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    status(Command::new(program).args(arguments).current_dir(root()))
}

pub fn status(command: &mut Command) -> Result<(), String> {
    let line = format!("{command:?}");
    match as_from_a_shell(command).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{line} failed: {status}")),
        Err(e) => Err(format!("cannot start {line}: {e}")),
    }
}

/// What a program prints on stdout.
pub fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    said(Command::new(program).args(arguments).current_dir(root()))
}

/// The same, of a command that has been made ready.
pub fn said(command: &mut Command) -> Result<String, String> {
    let out = as_from_a_shell(command).output().map_err(|e| format!("cannot start {:?}: {e}", command.get_program()))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => {
            let (program, words) = (command.get_program().to_string_lossy(), command.get_args().collect::<Vec<_>>());
            Err(format!("{program} {words:?} failed: {}", String::from_utf8_lossy(&out.stderr).trim_end()))
        }
    }
}

/// Where a program stands on PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
