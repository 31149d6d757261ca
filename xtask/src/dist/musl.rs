//! Static musl binaries for every board, without a container engine.
//!
//! In: Debian's `rustc-web` with the sources of std, zig as linker and C compiler from PyPI. Out: `target/dist/TRIPLE/`.
//! std is built once for each target and compiler and kept in target/std. With a container engine, `cross` and Cross.toml
//! do the same. Never: a compiler that is not named here.

use crate::{setup, sh};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ZIG: &str = "ziglang==0.17.1";
const ZIGBUILD: &str = "cargo-zigbuild==0.24.0";
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const STD_SOURCES: &str = "/usr/lib/rustlib/src/rust/library";

const PACKAGES: &[setup::Package] = &[
    ("/usr/bin/rustc", "rustc-web", "a compiler whose standard library can be built for every board"),
    ("/usr/bin/cargo", "cargo-web", "belongs to it"),
    ("/usr/lib/rustlib/src/rust/library/std/src/lib.rs", "rust-web-src", "the standard library's sources"),
    ("python3", "python3-venv", "holds zig, the linker for every architecture"),
];
const PACKAGES_TEST: &[setup::Package] =
    &[("qemu-aarch64-static", "qemu-user-static", "runs tests of other architectures")];

/// triple, QEMU's user emulator, hub or only agent
const TARGETS: &[(&str, &str, bool)] = &[
    ("aarch64-unknown-linux-musl", "qemu-aarch64-static", true),
    ("x86_64-unknown-linux-musl", "", true),
    ("armv7-unknown-linux-musleabihf", "qemu-arm-static", false),
    ("arm-unknown-linux-musleabihf", "qemu-arm-static", false),
    ("riscv64gc-unknown-linux-musl", "qemu-riscv64-static", false),
];
/// What a board runs and an emulated processor can judge; containers need an emulated board (tests/e2e).
const TESTED: &[&str] = &["limpet-protocol", "limpet-agent-core", "limpet-oci", "limpet-init"];
/// The profile that emulated boards' programs and unit tests share (Cargo.toml).
pub const EMULATED: &str = "emulated";

#[derive(Clone, Copy, Debug)]
pub struct Target(usize);

pub fn parse(text: &str) -> Result<Target, String> {
    TARGETS.iter().position(|(triple, ..)| *triple == text).map(Target).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|(triple, ..)| *triple).collect();
        format!("{text:?} is none of {}", names.join(", "))
    })
}

impl Target {
    pub fn triple(self) -> &'static str {
        TARGETS[self.0].0
    }

    pub fn runs_hub(self) -> bool {
        TARGETS[self.0].2
    }

    fn emulator(self) -> &'static str {
        TARGETS[self.0].1
    }

    fn env(self, what: &str) -> String {
        format!("CARGO_TARGET_{}_{what}", self.triple().to_uppercase().replace('-', "_"))
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Program {
    #[value(name = "limpet-agent")]
    Agent,
    /// The first process of Limpet OS.
    #[value(name = "limpet-init")]
    Init,
    #[value(name = "limpet")]
    Limpet,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Program::Agent => "limpet-agent",
            Program::Init => "limpet-init",
            Program::Limpet => "limpet",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Program::Agent | Program::Init => "device",
            Program::Limpet => "release",
        }
    }
}

pub struct Toolchain {
    target: Target,
    zig: PathBuf,
    version: String,
}

impl Toolchain {
    pub fn prepare(target: Target) -> Result<Toolchain, String> {
        setup::packages(PACKAGES)?;
        let version = compiler_version()?;
        Ok(Toolchain { target, zig: zig()?, version })
    }

    pub fn build(&self, program: Program) -> Result<PathBuf, String> {
        let triple = self.target.triple();
        let std = self.std("abort")?;
        let mut command = self.zigbuild(&std);
        command.args(["zigbuild", "--locked", "--target", triple, "-p", program.name(), "--profile", program.profile()]);
        sh::status(&mut command)?;
        self.take(program, program.profile(), &sh::root().join("target/dist"))
    }

    /// Agent and first process for an emulated board, in `dir/TARGET`. They share all that they can with the unit tests.
    pub fn build_emulated(&self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        let std = self.std("unwind")?;
        let mut command = self.zigbuild(&std);
        command.args(["zigbuild", "--locked", "--target", self.target.triple(), "--profile", EMULATED]);
        let programs = [Program::Agent, Program::Init];
        command.args(programs.iter().flat_map(|program| ["-p", program.name()]));
        sh::status(&mut command)?;
        programs.iter().map(|program| self.take(*program, EMULATED, dir)).collect()
    }

    /// What was built gets its place in `dir/TARGET`, if it is static.
    fn take(&self, program: Program, profile: &str, dir: &Path) -> Result<PathBuf, String> {
        let built = self.target_dir().join(self.target.triple()).join(profile).join(program.name());
        static_or_error(&built)?;
        let dir = dir.join(self.target.triple());
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let path = dir.join(program.name());
        fs::copy(&built, &path).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
        Ok(path)
    }

    pub fn triple(&self) -> &'static str {
        self.target.triple()
    }

    /// Unit tests on an emulated processor: other widths of integers, other alignment.
    pub fn test(&self) -> Result<(), String> {
        setup::packages(PACKAGES_TEST)?;
        let std = self.std("unwind")?;
        let mut command = self.zigbuild(&std);
        command.args(["test", "--locked", "--profile", EMULATED, "--tests", "--lib", "--target", self.target.triple()]);
        TESTED.iter().for_each(|name| {
            command.args(["-p", name]);
        });
        if !self.target.emulator().is_empty() {
            command.env(self.target.env("RUNNER"), self.target.emulator());
        }
        sh::status(&mut command)
    }

    /// Its own folder: the compiler is another than the workspace's.
    fn target_dir(&self) -> PathBuf {
        sh::root().join("target/musl")
    }

    fn zigbuild(&self, std: &Path) -> Command {
        let bin = self.zig.join("bin");
        let mut command = nice(&bin.join("cargo-zigbuild"));
        let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        // Of two self-contained C runtimes, rustc's and zig's, only one may be linked: zig's.
        let flags = format!(
            "--sysroot={} -Clink-self-contained=no -Crelocation-model=static{}{}",
            std.display(),
            // What aborts never unwinds; tests do.
            if std.to_string_lossy().contains("-abort/") { " -Cforce-unwind-tables=no" } else { "" },
            no_paths_of_this_machine()
        );
        command
            .env("PATH", path)
            .env("RUSTC", RUSTC)
            .env("CARGO", CARGO)
            .env("CARGO_TARGET_DIR", self.target_dir())
            .env("CARGO_ZIGBUILD_PYTHON_PATH", bin.join("python"))
            .env("RUSTFLAGS", flags)
            .env_remove("RUSTUP_TOOLCHAIN");
        wrapped(&mut command);
        command
    }

    /// The standard library for the target, built once: `target/std/VERSION-PANIC/TRIPLE`.
    fn std(&self, panic: &str) -> Result<PathBuf, String> {
        let triple = self.target.triple();
        let sysroot = sh::root().join("target/std").join(format!("{}-{panic}", self.version)).join(triple);
        let libraries = sysroot.join("lib/rustlib").join(triple).join("lib");
        if libraries.is_dir() {
            return Ok(sysroot);
        }
        println!("Building the standard library for {triple}, once");
        let work = sh::root().join("target/std/work");
        let built = build_std(&work, triple, panic).and_then(|from| install_std(&from, &libraries));
        // What is left there is only in the way of the next build.
        let _ = fs::remove_dir_all(&work);
        built.map(|()| sysroot).map_err(|e| format!("the standard library for {triple}: {e}"))
    }
}

fn build_std(work: &Path, triple: &str, panic: &str) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("{}: {e}", work.display());
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work.join("src")).map_err(io)?;
    let manifest = format!(
        "[package]\nname = \"mkstd\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\n[workspace]\n[profile.release]\n\
         opt-level = \"s\"\ncodegen-units = 1\npanic = \"{panic}\"\ndebug = false\n"
    );
    fs::write(work.join("Cargo.toml"), manifest).map_err(io)?;
    fs::write(work.join("src/lib.rs"), "#![no_std]\n").map_err(io)?;
    let mut command = nice(Path::new(CARGO));
    command
        .current_dir(work)
        // -Zbuild-std is what the compiler's own makers use; Debian's compiler lets it be asked for by name.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", RUSTC)
        .env("CARGO_TARGET_DIR", work.join("target"))
        .env("RUSTFLAGS", "-Cembed-bitcode=yes -Clink-self-contained=no")
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["build", "--release", "--offline", "--target", triple])
        // What std needs from crates.io comes with its sources.
        .args(["--config", "source.crates-io.replace-with='std-vendor'"])
        .arg("--config")
        .arg(format!("source.std-vendor.directory='{STD_SOURCES}/vendor'"))
        .args(["-Zbuild-std=std,panic_abort,test", "-Zbuild-std-features=optimize_for_size"]);
    wrapped(&mut command);
    sh::status(&mut command)?;
    Ok(work.join("target").join(triple).join("release/deps"))
}

/// With our corrections around the compiler, and inside them what the caller wraps it with.
fn wrapped(command: &mut Command) {
    command.env("RUSTC_WRAPPER", sh::root().join("xtask/src/dist/rustc-wrapper.sh"));
    if let Some(own) = std::env::var_os("RUSTC_WRAPPER") {
        command.env("LIMPET_RUSTC_WRAPPER", own);
    }
}

/// Complete or not at all: the folder gets its name last.
fn install_std(from: &Path, libraries: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("{}: {e}", libraries.display());
    let partial = libraries.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(io)?;
    for entry in fs::read_dir(from).map_err(io)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("lib") && name.ends_with(".rlib") && !name.starts_with("libmkstd") {
            fs::copy(entry.path(), partial.join(name)).map_err(io)?;
        }
    }
    fs::rename(&partial, libraries).map_err(io)
}

fn compiler_version() -> Result<String, String> {
    let text = sh::output(RUSTC, &["-V"])?;
    text.split_whitespace().nth(1).map(String::from).ok_or_else(|| format!("{RUSTC} -V says {text:?}"))
}

/// A Python environment of its own under target/tools.
fn zig() -> Result<PathBuf, String> {
    let dir = sh::root().join("target/tools/zig");
    let mark = dir.join("ready");
    let wanted = format!("{ZIG} {ZIGBUILD}");
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) {
        return Ok(dir);
    }
    println!("Fetching from PyPI: {wanted} (linker and C compiler for every board)");
    sh::status(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    sh::status(Command::new(dir.join("bin/pip")).args(["install", "-q", ZIG, ZIGBUILD]))?;
    fs::write(&mark, wanted).map_err(|e| format!("{}: {e}", mark.display()))?;
    Ok(dir)
}

/// Messages of panics name source files: the same wherever it was built.
fn no_paths_of_this_machine() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cargo"))).unwrap_or_default();
    format!(" --remap-path-prefix={}=cargo --remap-path-prefix={}=limpet", home.display(), sh::root().display())
}

/// Heavy builds give way to whatever else the machine does.
fn nice(program: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(program).current_dir(sh::root());
    command
}

/// An ELF file that names an interpreter would look for it on the board and not find it.
fn static_or_error(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let head = &bytes[..bytes.len().min(4096)];
    match head.windows(8).any(|w| w == b"/ld-musl" || w == b"/ld-linu") {
        true => Err(format!("{} is not static: it names a dynamic linker", path.display())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_by_name() {
        assert_eq!(parse("aarch64-unknown-linux-musl").unwrap().triple(), "aarch64-unknown-linux-musl");
        assert!(parse("aarch64-unknown-linux-musl").unwrap().runs_hub());
        assert!(!parse("arm-unknown-linux-musleabihf").unwrap().runs_hub());
        assert!(parse("mips").unwrap_err().contains("armv7-unknown-linux-musleabihf"));
    }
}
