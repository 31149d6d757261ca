//! Static musl binaries for every board, without a container engine.
//!
//! In: Debian's `rustc-web` with the sources of std, zig as linker and C compiler from PyPI. Out: `target/dist/TRIPLE/`.
//! With a container engine, `cross` and Cross.toml do the same. Never: a compiler that is not named here.

use super::emulated::{NOT_TESTED, PROFILE, TESTED};
use super::library::{Kind, Library};
use crate::{setup, sh};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ZIG: &str = "ziglang==0.17.1";
const ZIGBUILD: &str = "cargo-zigbuild==0.24.0";
pub const RUSTC: &str = "/usr/bin/rustc";
pub const CARGO: &str = "/usr/bin/cargo";

const PACKAGES: &[setup::Package] = &[
    ("/usr/bin/rustc", "rustc-web", "a compiler whose standard library can be built for every board"),
    ("/usr/bin/cargo", "cargo-web", "belongs to it"),
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

    /// What `--version` begins with; the first process has no such thing.
    fn first_words(self) -> Option<&'static str> {
        match self {
            Program::Agent => Some("limpet-agent "),
            Program::Init => None,
            Program::Limpet => Some("limpet "),
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
    zig: PathBuf,
    standard: Library,
}

impl Toolchain {
    pub fn prepare() -> Result<Toolchain, String> {
        setup::packages(PACKAGES)?;
        Ok(Toolchain { zig: zig()?, standard: Library::of(&compiler_version()?)? })
    }

    pub fn build(&self, target: Target, program: Program) -> Result<PathBuf, String> {
        self.standard.ready(Kind::Small, target.triple())?;
        let mut command = self.zigbuild(Kind::Small);
        command.args(["zigbuild", "--locked", "--profile", program.profile()]);
        sh::status(command.args(["--target", target.triple(), "-p", program.name()]))?;
        self.take(target, program, program.profile(), &sh::root().join("target/dist"))
    }

    /// What was built gets its place in `dir/TARGET`, if it is static.
    fn take(&self, target: Target, program: Program, profile: &str, dir: &Path) -> Result<PathBuf, String> {
        let built = self.target_dir().join(target.triple()).join(profile).join(program.name());
        static_or_error(&built)?;
        let dir = dir.join(target.triple());
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let path = dir.join(program.name());
        fs::copy(&built, &path).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
        starts(target.emulator(), program, &path)?;
        Ok(path)
    }

    /// Unit tests on an emulated processor: other widths of integers, other alignment, other characters.
    pub fn test(&self, target: Target) -> Result<(), String> {
        setup::packages(PACKAGES_TEST)?;
        self.standard.ready(Kind::Quick, target.triple())?;
        let mut command = self.zigbuild(Kind::Quick);
        command.args(["test", "--locked", "--profile", PROFILE, "--tests", "--target", target.triple()]);
        command.args(TESTED.iter().flat_map(|name| ["-p", name]));
        if !target.emulator().is_empty() {
            command.env(target.env("RUNNER"), target.emulator());
        }
        command.arg("--").args(NOT_TESTED.iter().flat_map(|name| ["--skip", name]));
        sh::status(&mut command)
    }

    /// Its own folder: the compiler is another than the workspace's.
    fn target_dir(&self) -> PathBuf {
        sh::root().join("target/musl")
    }

    fn zigbuild(&self, kind: Kind) -> Command {
        let bin = self.zig.join("bin");
        let mut command = nice(&bin.join("cargo-zigbuild"));
        let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        // Of two self-contained C runtimes, rustc's and zig's, only one may be linked: zig's.
        let flags = format!(
            "--sysroot={} -Clink-self-contained=no -Crelocation-model=static{}{}",
            self.standard.sysroot(kind).display(),
            // What aborts never unwinds; tests do.
            if kind == Kind::Small { " -Cforce-unwind-tables=no" } else { "" },
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
}

/// Each program that says which it is says so on its processor, emulated where that is another than this machine's.
pub fn starts(emulator: &str, program: Program, path: &Path) -> Result<(), String> {
    let Some(words) = program.first_words() else { return Ok(()) };
    let mut command = Command::new(path);
    if !emulator.is_empty() {
        setup::packages(PACKAGES_TEST)?;
        command = Command::new(emulator);
        command.arg(path);
    }
    let out = command.arg("--version").output().map_err(|e| format!("cannot start {}: {e}", path.display()))?;
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    match out.status.success() && said.starts_with(words) {
        true => Ok(()),
        false => Err(format!("{} --version: {}, said {said:?} {wrong:?}", path.display(), out.status)),
    }
}

/// With our corrections around the compiler, and inside them what the caller wraps it with.
pub fn wrapped(command: &mut Command) {
    command.env("RUSTC_WRAPPER", sh::root().join("xtask/src/dist/rustc-wrapper.sh"));
    if let Some(own) = std::env::var_os("RUSTC_WRAPPER") {
        command.env("LIMPET_RUSTC_WRAPPER", own);
    }
}

pub fn compiler_version() -> Result<String, String> {
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
pub fn no_paths_of_this_machine() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cargo"))).unwrap_or_default();
    format!(" --remap-path-prefix={}=cargo --remap-path-prefix={}=limpet", home.display(), sh::root().display())
}

/// Heavy builds give way to whatever else the machine does.
pub fn nice(program: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(program).current_dir(sh::root());
    command
}

/// An ELF file that names an interpreter would look for it on the board and not find it.
pub fn static_or_error(path: &Path) -> Result<(), String> {
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

    /// Who writes a card for a board is told to build for its target.
    #[test]
    fn every_boards_target_can_be_built() {
        let mut boards = 0;
        for file in fs::read_dir(sh::root().join("boards")).unwrap().map(|entry| entry.unwrap().path()) {
            let text = fs::read_to_string(&file).unwrap();
            let target = text.lines().find_map(|line| line.strip_prefix("target = ")).unwrap_or_default();
            parse(target.trim_matches('"')).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            boards += 1;
        }
        assert!(boards > 0);
    }

    #[test]
    fn a_program_that_does_not_say_what_it_is_is_not_built() {
        let starts = |program, path| starts("", program, Path::new(path));
        for path in ["/bin/echo", "/bin/false", "/nowhere"] {
            assert!(starts(Program::Agent, path).unwrap_err().contains(path));
            starts(Program::Init, path).unwrap();
        }
    }
}
