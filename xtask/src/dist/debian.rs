//! What Debian has built for another processor: Rust's standard library with glibc, and musl.
//!
//! In: apt's own sources, an architecture. Out: a package's files, in the user's cache, where others find them.
//! Never: a standard library of another version than the compiler's; changes apt's own state, or what is installed.

use crate::sh;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The compiler's package.
const COMPILER: &str = "rustc-web";

/// The compiler's version in Debian's words: a library fits one that is the same to the last sign.
pub fn version() -> Result<String, String> {
    sh::output("dpkg-query", &["-W", "-f", "${Version}", COMPILER])
}

/// Where programs of this user keep what can be fetched or built again.
pub fn cache() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.ok_or("neither HOME nor XDG_CACHE_HOME says where to keep what boards' programs need")?.join("limpet"))
}

/// The files of a package (`name`, or `name=version`) for a processor, unpacked once.
pub fn package(name: &str, architecture: &str) -> Result<PathBuf, String> {
    let place = cache()?.join("debian").join(format!("{}-{architecture}", name.replace('=', "-")));
    if place.is_dir() {
        return Ok(place);
    }
    println!("Fetching from Debian: {name} for {architecture}");
    let work = place.with_extension(format!("part-{}", std::process::id()));
    let _ = fs::remove_dir_all(&work);
    let unpacked = fetch(name, architecture, &work).and_then(|files| {
        // Of two that fetch it at the same time the first one's stays.
        let moved = fs::rename(&files, &place);
        if place.is_dir() { Ok(()) } else { moved.map_err(|e| format!("cannot keep {}: {e}", place.display())) }
    });
    let _ = fs::remove_dir_all(&work);
    unpacked.map(|()| place)
}

/// With lists of its own: the machine need not know the architecture.
fn fetch(name: &str, architecture: &str, work: &Path) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("{}: {e}", work.display());
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(folder)).map_err(io)?;
    }
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work).arg("-qq");
        for (key, value) in [
            ("APT::Architecture", architecture.to_string()),
            ("APT::Architectures", architecture.to_string()),
            ("APT::Sandbox::User", "root".to_string()),
            ("Dir::State::lists", work.join("lists").display().to_string()),
            ("Dir::Cache", work.join("cache").display().to_string()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        // Of the whole line only what apt says to it helps.
        sh::said(command.args(words)).map_err(|e| match e.split_once(" failed: ") {
            Some((_, why)) => format!("apt-get {}: {why}", words.join(" ")),
            None => e,
        })
    };
    // One of many sources may be away, or not have this processor: what counts is what can be fetched.
    let updated = apt(&["update"]);
    apt(&["download", name]).map_err(|e| match updated {
        Ok(_) => e,
        Err(before) => format!("{before}; {e}"),
    })?;
    let entries = fs::read_dir(work).map_err(io)?.flatten().map(|entry| entry.path());
    let package = entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.ok_or_else(|| format!("apt-get has put no package into {}", work.display()))?;
    let files = work.join("files");
    sh::said(Command::new("dpkg-deb").arg("-x").arg(package).arg(&files)).map(|_| files)
}
