//! The programs under test, built from this workspace.
//!
//! In: cargo. Out: paths. `LIMPET_BIN_DIR` names a directory with ready ones instead, `LIMPET_BOARDS_DIR` one for emulated
//! boards.
//! Never: another profile than the one asked for; the demo's server is static, so that its image needs nothing else.

use crate::Result;
use crate::process::run;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone, Debug)]
pub struct Binaries {
    pub hub: PathBuf,
    pub agent: PathBuf,
    pub demo_web: PathBuf,
}

/// The root of this workspace.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => workspace().join("target"),
    }
}

/// The machine's own target, for static linking with an explicit `--target`.
pub fn host_target() -> Result<String> {
    let text = run(Command::new("rustc").arg("-vV"))?.ok("rustc -vV")?;
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| "rustc -vV names no host".to_string())
}

impl Binaries {
    /// Builds what is missing; cargo knows what that is.
    pub fn build(profile: &str) -> Result<Binaries> {
        if let Some(dir) = std::env::var_os("LIMPET_BIN_DIR").map(PathBuf::from) {
            let at = |name: &str| dir.join(name);
            return Ok(Binaries { hub: at("limpet"), agent: at("limpet-agent"), demo_web: at("limpet-demo-web") });
        }
        let dir = if profile == "dev" { "debug" } else { profile };
        cargo(&["build", "--profile", profile, "-p", "limpet", "-p", "limpet-agent"], None)?;
        let demo_web = demo_web()?;
        let out = target_dir();
        Ok(Binaries {
            hub: out.join(dir).join("limpet"),
            agent: out.join(dir).join("limpet-agent"),
            demo_web,
        })
    }
}

/// The demo's server, static.
fn demo_web() -> Result<PathBuf> {
    let target = host_target()?;
    let flags = "-C target-feature=+crt-static -C relocation-model=static";
    // A directory of its own: other flags would throw away what the workspace has built, and its lock may be long.
    let dir = target_dir().join("static");
    let into = dir.to_string_lossy();
    cargo(&["build", "--release", "--target", &target, "--target-dir", &into, "-p", "limpet-demo-web"], Some(flags))?;
    Ok(dir.join(target).join("release/limpet-demo-web"))
}

/// After `cargo build --workspace`: what that has made, in a folder that `LIMPET_BIN_DIR` can name. Tests that find it there need
/// no cargo, which would build once more for the features of fewer packages.
pub fn gather() -> Result<PathBuf> {
    let dir = target_dir().join("tested");
    let made = target_dir().join("debug");
    for name in ["limpet", "limpet-agent", "limpet-leaf-host"] {
        copy(&made.join(name), &dir.join(name))?;
    }
    copy(&demo_web()?, &dir.join("limpet-demo-web"))?;
    Ok(dir)
}

/// After `cargo build --workspace`, whose boards' programs are static (.cargo/config.toml): those for an emulated board with this
/// machine's own processor, in `dir/TARGET`. Without their symbols: a board's system lies in its memory.
pub fn gather_boards(dir: &Path, target: &str) -> Result<()> {
    for name in PROGRAMS {
        let path = dir.join(target).join(name);
        copy(&target_dir().join("debug").join(name), &path)?;
        run(Command::new("strip").arg(&path))?.ok("strip")?;
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        // The program's header would name who is to load its libraries.
        if bytes[..bytes.len().min(4096)].windows(6).any(|word| word == b"/ld-li") {
            return Err(format!("{} is not static: is the static C library there (libc6-dev)?", path.display()));
        }
    }
    Ok(())
}

/// The name appears with the whole file.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| format!("cannot copy {} to {}: {e}", from.display(), to.display());
    let part = to.with_extension("part");
    to.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    std::fs::copy(from, &part).and_then(|_| std::fs::rename(&part, to)).map_err(failed)
}

/// What runs on a board.
const PROGRAMS: [&str; 2] = ["limpet-agent", "limpet-init"];

/// By how many bytes agent and first process in `dir`, built for tests without care for their size, are heavier than boards get
/// them at most. A board's system lies in its memory.
pub fn heavier(dir: &Path) -> Result<u64> {
    const BYTES_MAX: u64 = 9 << 20;
    let size = |name: &str| std::fs::metadata(dir.join(name)).map(|m| m.len()).map_err(|e| format!("{name}: {e}"));
    let bytes = PROGRAMS.iter().map(|name| size(name)).sum::<Result<u64>>()?;
    Ok(bytes.saturating_sub(BYTES_MAX))
}

/// Agent and first process for an emulated board: a folder with one folder a target. What lies in `LIMPET_BOARDS_DIR` or
/// what `cargo xtask dist` has built, or, for this machine's own processor, static programs built here; `None` when they would be
/// for another.
pub fn for_board(target: &str) -> Result<Option<PathBuf>> {
    let ready = std::env::var_os("LIMPET_BOARDS_DIR").map(PathBuf::from).into_iter().chain([target_dir().join("dist")]);
    let whole = |dir: &PathBuf| PROGRAMS.iter().all(|name| dir.join(target).join(name).is_file());
    if let Some(dir) = ready.into_iter().find(whole) {
        return Ok(Some(dir));
    }
    let host = host_target()?;
    if host.split('-').next() != target.split('-').next() {
        return Ok(None);
    }
    let (boards, own) = (target_dir().join("boards"), target_dir().join("static"));
    let flags = "-C target-feature=+crt-static -C relocation-model=static -C strip=symbols";
    let into = own.to_string_lossy();
    cargo(&["build", "--target", &host, "--target-dir", &into, "-p", PROGRAMS[0], "-p", PROGRAMS[1]], Some(flags))?;
    std::fs::create_dir_all(boards.join(target)).map_err(|e| format!("{}: {e}", boards.display()))?;
    for name in PROGRAMS {
        let (from, to) = (own.join(&host).join("debug").join(name), boards.join(target).join(name));
        std::fs::copy(&from, &to).map_err(|e| format!("cannot copy {}: {e}", from.display()))?;
    }
    Ok(Some(boards))
}

/// The leaf board as a program.
pub fn leaf() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("LIMPET_BIN_DIR").map(PathBuf::from) {
        return Ok(dir.join("limpet-leaf-host"));
    }
    cargo(&["build", "-p", "limpet-leaf-host"], None)?;
    Ok(target_dir().join("debug/limpet-leaf-host"))
}

/// Takes away what cargo tells the programs that it starts, for one that starts cargo again: build scripts of ring, rustix and
/// others look at these variables, and would have all above them built anew whenever cargo is called in the other way.
pub fn as_from_a_shell(command: &mut Command) -> &mut Command {
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_PRIMARY_PACKAGE"];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo's progress goes to the terminal.
pub fn cargo(words: &[&str], rust_flags: Option<&str>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(workspace()).stdin(Stdio::null());
    if let Some(flags) = rust_flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = as_from_a_shell(&mut command).status().map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", words.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test is started by cargo, which has told it where it lies.
    #[test]
    fn cargo_tells_nothing_to_the_next_cargo() {
        let said = |command: &mut Command| run(command).and_then(|out| out.ok("env")).unwrap();
        let all = said(&mut Command::new("env"));
        let (told, path) = (|text: &str| text.lines().any(|l| l.starts_with("CARGO_MANIFEST_DIR=")), "\nPATH=");
        assert!(told(&said(Command::new("env").env("CARGO_MANIFEST_DIR", "/x"))));
        let left = said(as_from_a_shell(&mut Command::new("env")));
        assert!(!told(&left) && left.contains(path) == all.contains(path), "{left}");
    }
}
