//! Agent and first process for emulated ARM boards, and their unit tests, as quickly as they can be built (decision 0109).
//!
//! In: Debian's `rustc-web`, its cross compilers, and its standard library or C library for the board's processor. Out: programs
//! in `DIR/TARGET`, TARGET as what people get for such a board is called; what unit tests said.
//! Never: what people get (musl.rs).

use super::library::{self, Kind, Library};
use super::musl::{self, CARGO, Program, RUSTC};
use super::debian;
use crate::{setup, sh};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The profile of these programs and unit tests (Cargo.toml).
pub const PROFILE: &str = "emulated";

/// What the parts of each push need; `setup` installs it.
pub const PACKAGES: &[setup::Package] = &[
    (RUSTC, "rustc-web", "a compiler that has a standard library for every board"),
    (CARGO, "cargo-web", "belongs to it"),
    library::PACKAGE,
    (WIDE.compiler, "gcc-aarch64-linux-gnu", "compiles C and links for 64-bit ARM boards"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross", "the C library of emulated 64-bit ARM boards' programs"),
    (NARROW.compiler, "gcc-arm-linux-gnueabihf", "compiles C and links for 32-bit ARM boards"),
    ("/usr/arm-linux-gnueabihf/include/stdint.h", "libc6-dev-armhf-cross", "what C for 32-bit ARM boards includes"),
    (WIDE.emulator, "qemu-user-static", "runs programs of ARM boards here"),
];

/// What a board runs: its programs and what they are made of. One selection for programs and tests: cargo unites the features of
/// what it is asked for, and another selection is another build of what is below.
pub const TESTED: &[&str] = &["limpet-protocol", "limpet-agent-core", "limpet-oci", "limpet-init", "limpet-agent"];
/// What an emulated processor alone cannot judge: containers need an emulated board (tests/e2e), and Debian 12's QEMU does not
/// know openat2.
pub const NOT_TESTED: &[&str] =
    &["runtime::tests", "workdir::tests", "volumes::tests::sub_paths_stay_inside", "volumes::tests::a_sub_path"];

/// Histories that tests at random look at; their own number is for processors that are not emulated.
const SEEDS: &str = "8";

pub struct Processor {
    /// The target of what people get.
    pub board: &'static str,
    triple: &'static str,
    compiler: &'static str,
    emulator: &'static str,
}

/// With glibc, as the other boards' programs of tests (decision 0079): Debian has a standard library for it.
pub const WIDE: Processor = Processor {
    board: "aarch64-unknown-linux-musl",
    triple: "aarch64-unknown-linux-gnu",
    compiler: "aarch64-linux-gnu-gcc",
    emulator: "qemu-aarch64-static",
};
/// Where unit tests run: what can differ between processors (the width of integers, what may be unaligned, signs of characters)
/// differs most there from the machine that ran them before. With musl, as people get it: of 32 bits glibc has other widths.
pub const NARROW: Processor = Processor {
    board: "armv7-unknown-linux-musleabihf",
    triple: "armv7-unknown-linux-musleabihf",
    compiler: "arm-linux-gnueabihf-gcc",
    emulator: "qemu-arm-static",
};

impl Processor {
    /// Agent and first process, in `dir/BOARD`. Where `tested`, with the unit tests that `test` runs; else each by itself, as
    /// people build them: a feature that only another package of the workspace asks for would be missing.
    pub fn programs(&self, tested: bool, dir: &Path) -> Result<Vec<PathBuf>, String> {
        const PROGRAMS: [Program; 2] = [Program::Agent, Program::Init];
        match tested {
            true => sh::status(self.cargo("build", TESTED)?.args(["--bins", "--tests"]))?,
            false => PROGRAMS.iter().try_for_each(|program| sh::status(&mut self.cargo("build", &[program.name()])?))?,
        }
        let made = target_dir().join(self.triple).join(PROFILE);
        let dir = dir.join(self.board);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let take = |program: Program| {
            let (from, to) = (made.join(program.name()), dir.join(program.name()));
            musl::static_or_error(&from)?;
            fs::copy(&from, &to).map_err(|e| format!("cannot copy {}: {e}", from.display()))?;
            musl::starts(self.emulator, program, &to).map(|()| to)
        };
        PROGRAMS.map(take).into_iter().collect()
    }

    /// As `xtask/sizes.txt` calls what was built so.
    pub fn kind(&self) -> String {
        match self.triple != self.board && debians_library().is_none() {
            true => format!("{PROFILE}-own-library"),
            false => PROFILE.to_string(),
        }
    }

    /// Unit tests on this processor, emulated.
    pub fn test(&self) -> Result<(), String> {
        let mut command = self.cargo("test", TESTED)?;
        command.arg("--tests").env(self.env("RUNNER"), self.emulator).env("SEEDS", SEEDS);
        sh::status(command.arg("--").args(NOT_TESTED.iter().flat_map(|name| ["--skip", name])))
    }

    fn env(&self, what: &str) -> String {
        format!("CARGO_TARGET_{}_{what}", self.triple.to_uppercase().replace('-', "_"))
    }

    fn cargo(&self, verb: &str, packages: &[&str]) -> Result<Command, String> {
        setup::packages(PACKAGES)?;
        let flags = if self.triple == self.board { with_musl(self)? } else { with_glibc(self)? };
        let mut command = musl::nice(Path::new(CARGO));
        command
            .args([verb, "--locked", "--profile", PROFILE, "--target", self.triple])
            .args(packages.iter().flat_map(|name| ["-p", name]))
            .env("RUSTC", RUSTC)
            .env("CARGO_TARGET_DIR", target_dir())
            .env(self.env("LINKER"), self.compiler)
            .env("RUSTFLAGS", flags + " -Crelocation-model=static" + &musl::no_paths_of_this_machine())
            .env_remove("RUSTUP_TOOLCHAIN");
        musl::wrapped(&mut command);
        Ok(command)
    }
}

/// Its own folder: the compiler is another than the workspace's.
fn target_dir() -> PathBuf {
    sh::root().join("target/arm")
}

/// Debian's own standard library for 64 bits; looked for once.
fn debians_library() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let look = || {
        let files = debian::version().and_then(|version| debian::package(&format!("libstd-rust-web-dev={version}"), "arm64"));
        match files.map(|files| files.join("usr")) {
            Ok(usr) if usr.join("lib/rustlib").join(WIDE.triple).is_dir() => Some(usr),
            other => {
                println!("Debian has no standard library for {}: {other:?}", WIDE.triple);
                None
            }
        }
    };
    FOUND.get_or_init(look).as_deref()
}

/// With the cross compiler's own C library. Where a mirror has no standard library of the compiler's version it is built, once.
fn with_glibc(processor: &Processor) -> Result<String, String> {
    let sysroot = match debians_library() {
        Some(usr) => usr.to_path_buf(),
        None => {
            let library = Library::of(&musl::compiler_version()?)?;
            library.ready(Kind::Quick, processor.triple)?;
            library.sysroot(Kind::Quick)
        }
    };
    Ok(format!("--sysroot={} -Ctarget-feature=+crt-static", sysroot.display()))
}

/// A standard library that is built here, once, and Debian's musl for the cross compiler, which has what unwinds.
fn with_musl(processor: &Processor) -> Result<String, String> {
    let library = Library::of(&musl::compiler_version()?)?;
    library.ready(Kind::Quick, processor.triple)?;
    let place = debian::package("musl-dev", "armhf")?.join("usr/lib/arm-linux-musleabihf");
    let unwinds = sh::output(processor.compiler, &["-print-file-name=libgcc_eh.a"])?;
    let (from, to) = (unwinds.trim(), place.join("libunwind.a"));
    if !to.exists() {
        fs::copy(from, &to).map_err(|e| format!("cannot copy {from} to {}: {e}", to.display()))?;
    }
    let start: String = ["crt1.o", "crti.o", "crtn.o"].map(|name| format!(" -Clink-arg={}", place.join(name).display())).concat();
    let (sysroot, place) = (library.sysroot(Kind::Quick).display().to_string(), place.display());
    // These come last, and need musl after them.
    let start = format!("-Clink-arg=-nostartfiles{start} -Clink-arg=-lc");
    Ok(format!("--sysroot={sysroot} -Clink-self-contained=no -L{place} {start}"))
}
