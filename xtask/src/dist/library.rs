//! Rust's standard library for a board's processor, from Debian's sources.
//!
//! In: Debian's `rust-web-src`, a target, what the library is for. Out: a folder that rustc takes as `--sysroot`, kept in the
//! user's cache beside the linker's: another clone, or a clean one, finds it there.
//! Never: one that was built otherwise than it would be now: its recipe lies beside it and is compared.

use super::debian;
use super::musl::{CARGO, RUSTC, nice, wrapped};
use crate::{setup, sh};
use std::{
    fs,
    path::{Path, PathBuf},
};

const SOURCES: &str = "/usr/lib/rustlib/src/rust/library";
pub const PACKAGE: setup::Package = (
    "/usr/lib/rustlib/src/rust/library/std/src/lib.rs",
    "rust-web-src",
    "the standard library's sources, to build it for a board's processor",
);
/// The file that says how a library was built.
const RECIPE: &str = "recipe";

/// What it is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For people: small, ready for whole-program optimisation, aborts.
    Small,
    /// For emulators: quick to build, unwinds as tests must, and with what runs tests.
    Quick,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Small => "small",
            Kind::Quick => "quick",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Kind::Small => "opt-level = \"s\"\ncodegen-units = 1\npanic = \"abort\"\n",
            Kind::Quick => "opt-level = 1\ncodegen-units = 16\npanic = \"unwind\"\n",
        }
    }

    fn flags(self) -> &'static str {
        match self {
            Kind::Small => "-Cembed-bitcode=yes -Clink-self-contained=no",
            Kind::Quick => "-Clink-self-contained=no",
        }
    }

    fn crates(self) -> &'static str {
        match self {
            Kind::Small => "-Zbuild-std=std,panic_abort",
            Kind::Quick => "-Zbuild-std=std,panic_abort,test",
        }
    }
}

/// All that were built with one compiler.
pub struct Library {
    version: String,
    dir: PathBuf,
}

impl Library {
    pub fn of(version: &str) -> Result<Library, String> {
        Ok(Library { version: version.to_string(), dir: debian::cache()?.join("std") })
    }

    pub fn sysroot(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("{}-{}", self.version, kind.name()))
    }

    fn place(&self, kind: Kind, triple: &str) -> PathBuf {
        self.sysroot(kind).join("lib/rustlib").join(triple).join("lib")
    }

    fn recipe(&self, kind: Kind) -> String {
        format!("rustc {}\n{}{}\n{}\n", self.version, kind.profile(), kind.flags(), kind.crates())
    }

    fn is_ready(&self, kind: Kind, triple: &str) -> bool {
        let known = fs::read_to_string(self.place(kind, triple).join(RECIPE));
        known.is_ok_and(|known| known == self.recipe(kind))
    }

    /// Built where it is missing, or where it would be built otherwise now.
    pub fn ready(&self, kind: Kind, triple: &str) -> Result<(), String> {
        if self.is_ready(kind, triple) {
            return Ok(());
        }
        setup::packages(&[PACKAGE])?;
        println!("Building the standard library for {triple}, once");
        let work = sh::root().join("target/std");
        let built = build(&work, kind, triple).and_then(|()| {
            let from = work.join("target").join(triple).join("release/deps");
            install(&from, &self.place(kind, triple), &self.recipe(kind))
        });
        // What is left there is only in the way of the next build.
        let _ = fs::remove_dir_all(&work);
        built.map_err(|e| format!("the standard library for {triple}: {e}"))
    }
}

fn build(work: &Path, kind: Kind, triple: &str) -> Result<(), String> {
    let io = |e: std::io::Error| format!("{}: {e}", work.display());
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work.join("src")).map_err(io)?;
    let manifest = format!(
        "[package]\nname = \"mkstd\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\n[workspace]\n[profile.release]\n\
         debug = false\n{}",
        kind.profile()
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
        .env("RUSTFLAGS", kind.flags())
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["build", "--release", "--offline", "--target", triple])
        // What std needs from crates.io comes with its sources.
        .args(["--config", "source.crates-io.replace-with='std-vendor'"])
        .arg("--config")
        .arg(format!("source.std-vendor.directory='{SOURCES}/vendor'"))
        .args([kind.crates(), "-Zbuild-std-features=optimize_for_size"]);
    wrapped(&mut command);
    sh::status(&mut command)
}

/// Complete or not at all: the folder gets its name last. Of two that build it at the same time the last one's stays.
fn install(from: &Path, libraries: &Path, recipe: &str) -> Result<(), String> {
    let io = |e: std::io::Error| format!("{}: {e}", libraries.display());
    let partial = libraries.with_extension(format!("partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(io)?;
    for entry in fs::read_dir(from).map_err(io)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("lib") && name.ends_with(".rlib") && !name.starts_with("libmkstd") {
            fs::copy(entry.path(), partial.join(name)).map_err(io)?;
        }
    }
    fs::write(partial.join(RECIPE), recipe).map_err(io)?;
    if libraries.exists() {
        fs::remove_dir_all(libraries).map_err(io)?;
    }
    fs::rename(&partial, libraries).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_used_again_until_it_would_be_built_otherwise() {
        let dir = std::env::temp_dir().join(format!("limpet-std-{}", std::process::id()));
        let library = |version: &str| Library { version: version.into(), dir: dir.clone() };
        let (old, target) = (library("1.0"), "armv7-unknown-linux-musleabihf");
        let built = dir.join("built");
        fs::create_dir_all(&built).unwrap();
        for name in ["libstd-1.rlib", "libmkstd-2.rlib", "libstd-1.rmeta", "notes"] {
            fs::write(built.join(name), name).unwrap();
        }
        assert!(!old.is_ready(Kind::Quick, target));
        let place = old.place(Kind::Quick, target);
        // Once for the first time, and once over one that was built otherwise.
        for recipe in ["another\n".to_string(), old.recipe(Kind::Quick)] {
            install(&built, &place, &recipe).unwrap();
            assert_eq!(old.is_ready(Kind::Quick, target), recipe == old.recipe(Kind::Quick));
        }
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["libstd-1.rlib", RECIPE]);
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
        // Other uses and other compilers have their own.
        assert!(!old.is_ready(Kind::Small, target) && !library("1.1").is_ready(Kind::Quick, target));
        fs::remove_dir_all(&dir).unwrap();
    }
}
