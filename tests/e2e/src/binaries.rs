//! The programs under test, built from this workspace.
//!
//! In: cargo. Out: paths. `LIMPET_BIN_DIR` names a directory with ready ones instead.
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
        let target = host_target()?;
        let flags = "-C target-feature=+crt-static -C relocation-model=static";
        // A directory of its own: other flags would throw away what the workspace has built, and its lock may be long.
        let static_dir = target_dir().join("static");
        let into = static_dir.to_string_lossy();
        let words = ["build", "--release", "--target", &target, "--target-dir", &into, "-p", "limpet-demo-web"];
        cargo(&words, Some(flags))?;
        let out = target_dir();
        Ok(Binaries {
            hub: out.join(dir).join("limpet"),
            agent: out.join(dir).join("limpet-agent"),
            demo_web: static_dir.join(target).join("release/limpet-demo-web"),
        })
    }
}

/// Agent and first process for an emulated board: a folder with one folder a target. What `cargo xtask dist` has built, or, for
/// this machine's own processor, static programs built here; `None` when they would be for another.
pub fn for_board(target: &str) -> Result<Option<PathBuf>> {
    const PROGRAMS: [&str; 2] = ["limpet-agent", "limpet-init"];
    let dist = target_dir().join("dist");
    if PROGRAMS.iter().all(|name| dist.join(target).join(name).is_file()) {
        return Ok(Some(dist));
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

/// Cargo's progress goes to the terminal.
pub fn cargo(words: &[&str], rust_flags: Option<&str>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(workspace()).stdin(Stdio::null());
    // What cargo told this test of its own package: scripts that look at it would be run, and all after them built, once more.
    let own = |name: &std::ffi::OsString| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.to_string_lossy().starts_with(p));
    for name in std::env::vars_os().map(|(name, _)| name).filter(own) {
        command.env_remove(name);
    }
    if let Some(flags) = rust_flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", words.join(" "))) }
}
