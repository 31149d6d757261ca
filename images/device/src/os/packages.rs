//! Debian's packages for another architecture, by apt with a state of its own.
//!
//! In: names, an architecture, a folder. Out: .deb files whose checksums apt has compared with Debian's signed lists.
//! Never: touches the machine's own apt state or installs anything.

use super::{OsError, radio, uboot};
use crate::board::{Board, Method};
use crate::fetch::sum_of;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub sha256: String,
    pub path: PathBuf,
}

/// Where packages come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A Debian mirror and suite.
    Mirror { url: String, suite: String },
    /// A folder with .deb files: for builds without a network, and to build the same image again.
    Folder(PathBuf),
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What an image for the board is made of, besides the kernel of the day.
fn beside_the_kernel(board: &Board) -> Vec<&str> {
    let firmware = match board.boot.method {
        Method::Uefi => Some("systemd-boot-efi"),
        Method::RaspberryPi => Some(uboot::FIRMWARE_PACKAGE),
        Method::UBoot => None,
    };
    let radio = board.limpet_os.radio.as_ref();
    let of_all = [radio::SUPPLICANT, radio::REGULATIONS];
    let of_radio = radio.into_iter().flat_map(|r| of_all.into_iter().chain(r.package.as_deref()));
    let loaders = board.boot.loaders.iter().filter_map(|l| l.package.as_deref());
    let mut all: Vec<&str> = firmware.into_iter().chain(of_radio).chain(loaders).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// By Debian's habit of naming them.
pub fn is_library(package: &str) -> bool {
    package.starts_with("lib") || package.starts_with("zlib")
}

/// `linux-image-6.1.0-50-arm64` is the kernel that `linux-image-arm64` names; `linux-image-6.1.0-50-cloud-arm64` is not.
fn is_kernel(name: &str, named: &str) -> bool {
    let flavour = named.strip_prefix("linux-image-").unwrap_or(named);
    let version = name.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix(flavour)?.strip_suffix('-'));
    version.is_some_and(|v| v.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit())))
}

/// Debian's release that boards without a suite of their own get.
pub const SUITE: &str = "bookworm";
/// Where its packages come from, unless somebody names another.
pub const MIRROR: &str = "http://deb.debian.org/debian";

/// Where packages from a mirror are kept, below `cache`.
pub fn debs(cache: &Path, suite: &str, architecture: &str) -> PathBuf {
    kept(cache, suite, architecture).join("debs")
}

fn kept(cache: &Path, suite: &str, architecture: &str) -> PathBuf {
    cache.join(format!("{suite}-{architecture}"))
}

/// The packages for a board. `cache` keeps lists and packages for the next time.
pub fn fetch(origin: &Origin, board: &Board, cache: &Path) -> Result<Vec<Package>, OsError> {
    if let Some(why) = &board.limpet_os.refused {
        return Err(OsError::Board(board.title.clone(), why.clone()));
    }
    let folder = match origin {
        Origin::Folder(folder) => folder.clone(),
        Origin::Mirror { url, suite } => {
            download(url, suite, board, &kept(cache, suite, board.debian_architecture()))?;
            debs(cache, suite, board.debian_architecture())
        }
    };
    let io = |e| OsError::Io(folder.display().to_string(), e);
    let mut found = Vec::new();
    let (kernel, others) = (board.kernel(), beside_the_kernel(board));
    let libraries = board.limpet_os.radio.is_some();
    for entry in fs::read_dir(&folder).map_err(io)?.flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".deb")?.split('_').next());
        let ours = |name: &str| is_kernel(name, &kernel) || others.contains(&name) || (libraries && is_library(name));
        if name.is_some_and(ours) {
            found.push(describe(&path)?);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// `name_version_arch.deb`; apt writes `:` of an epoch as `%3a`.
fn describe(path: &Path) -> Result<Package, OsError> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let parts: Vec<&str> = stem.split('_').collect();
    let [name, version, architecture] = parts[..] else {
        return Err(OsError::Package(stem.into(), "its file name is not name_version_architecture.deb".into()));
    };
    let sha256 = sum_of(path).map_err(|e| OsError::Package(stem.into(), e.to_string()))?;
    let version = version.replace("%3a", ":");
    Ok(Package { name: name.into(), version, architecture: architecture.into(), sha256, path: path.into() })
}

fn apt(dir: &Path, architecture: &str, words: &[&str], program: &'static str) -> Result<String, OsError> {
    let mut command = Command::new(program);
    command.current_dir(dir.join("debs")).arg("-q");
    let options = [
        ("Dir::Etc::sourcelist", dir.join("sources.list").display().to_string()),
        ("Dir::Etc::sourceparts", "-".into()),
        ("Dir::Etc::preferences", "-".into()),
        ("Dir::Etc::preferencesparts", "-".into()),
        ("Dir::State", dir.join("state").display().to_string()),
        ("Dir::State::status", dir.join("state/status").display().to_string()),
        ("Dir::Cache", dir.join("cache").display().to_string()),
        ("APT::Architecture", architecture.into()),
        ("APT::Architectures", architecture.into()),
        ("APT::Sandbox::User", String::new()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "3".into()),
    ];
    for (key, value) in options {
        command.arg("-o").arg(format!("{key}={value}"));
    }
    let out = command.args(words).env("LC_ALL", "C").output().map_err(|_| OsError::Tool(program, "apt"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(OsError::Failed(program, String::from_utf8_lossy(&out.stderr).trim().chars().take(500).collect())),
    }
}

/// Kernel, boot loader, firmware.
fn download(url: &str, suite: &str, board: &Board, dir: &Path) -> Result<(), OsError> {
    let architecture = board.debian_architecture();
    lists(url, suite, architecture, dir)?;
    let kernel = board.kernel();
    // An empty package that names the kernel of today.
    let depends = apt(dir, architecture, &["depends", &kernel], "apt-cache")?;
    let real = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ").filter(|n| is_kernel(n, &kernel)));
    let real = real.ok_or_else(|| OsError::Package(kernel.clone(), "it names no kernel".into()))?.to_string();
    let others = beside_the_kernel(board);
    let libraries = match &board.limpet_os.radio {
        Some(_) => libraries(architecture, &[radio::SUPPLICANT], dir)?,
        None => Vec::new(),
    };
    let all: Vec<&str> = [real.as_str()].into_iter().chain(others).chain(libraries.iter().map(String::as_str)).collect();
    let ours = |name: &str| is_kernel(name, &kernel) || all.contains(&name);
    named(architecture, &all, dir, ours)
}

/// The libraries among all that the packages depend on, and what those depend on.
fn libraries(architecture: &str, of: &[&str], dir: &Path) -> Result<Vec<String>, OsError> {
    let only = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"].map(|kind| format!("--no-{kind}"));
    let only = only.iter().map(String::as_str);
    let words: Vec<&str> = ["depends", "--recurse"].into_iter().chain(only).chain(of.iter().copied()).collect();
    let said = apt(dir, architecture, &words, "apt-cache")?;
    let mut all: Vec<&str> = said.lines().filter(|l| is_library(l)).map(str::trim).collect();
    all.sort_unstable();
    all.dedup();
    // Some names are there as names only: another package stands for them.
    let said = apt(dir, architecture, &[&["policy"], &all[..]].concat(), "apt-cache")?;
    Ok(with_candidate(&said))
}

/// Of lines `name:` with indented facts below, the names that can be fetched.
fn with_candidate(said: &str) -> Vec<String> {
    let mut name = "";
    let mut found = Vec::new();
    for line in said.lines() {
        match line.trim().split_once(": ") {
            Some(("Candidate", version)) if version.trim() != "(none)" => found.push(name.to_string()),
            Some(_) => {}
            None if !line.starts_with(' ') => name = line.trim_end_matches(':'),
            None => {}
        }
    }
    found
}

/// Any packages and the libraries that they need, into `dir`/debs.
pub fn fetch_with_libraries(url: &str, suite: &str, architecture: &str, wanted: &[&str], dir: &Path) -> Result<PathBuf, OsError> {
    lists(url, suite, architecture, dir)?;
    let libraries = libraries(architecture, wanted, dir)?;
    let all: Vec<&str> = wanted.iter().copied().chain(libraries.iter().map(String::as_str)).collect();
    named(architecture, &all, dir, |name| all.contains(&name))?;
    Ok(dir.join("debs"))
}

/// All packages in a folder, by name.
pub fn described(folder: &Path) -> Result<Vec<Package>, OsError> {
    let io = |e| OsError::Io(folder.display().to_string(), e);
    let paths = fs::read_dir(folder).map_err(io)?.flatten().map(|e| e.path());
    let paths = paths.filter(|p| p.extension().is_some_and(|e| e == "deb"));
    let mut all = paths.map(|path| describe(&path)).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Any packages, into `dir`/debs.
pub fn fetch_named(url: &str, suite: &str, architecture: &str, wanted: &[&str], dir: &Path) -> Result<PathBuf, OsError> {
    lists(url, suite, architecture, dir)?;
    named(architecture, wanted, dir, |name| wanted.contains(&name))?;
    Ok(dir.join("debs"))
}

/// Debian's lists of today, as often as it is asked.
fn lists(url: &str, suite: &str, architecture: &str, dir: &Path) -> Result<(), OsError> {
    let io = |e| OsError::Io(dir.display().to_string(), e);
    for folder in ["debs", "state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(folder)).map_err(io)?;
    }
    fs::write(dir.join("state/status"), "").map_err(io)?;
    // What a Raspberry Pi's own processor starts from is free to pass on, and not free to change.
    let line = |url: &str, suite: &str| format!("deb [signed-by={KEYRING}] {url} {suite} main non-free-firmware\n");
    let security = url.replace("/debian", "/debian-security");
    fs::write(dir.join("sources.list"), line(url, suite) + &line(&security, &format!("{suite}-security"))).map_err(io)?;
    apt(dir, architecture, &["update"], "apt-get").map(drop)
}

/// `is_ours`: of which packages an older one is in the way; the folder is shared with other boards.
fn named(architecture: &str, wanted: &[&str], dir: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), OsError> {
    let io = |e| OsError::Io(dir.display().to_string(), e);
    let before: Vec<PathBuf> = fs::read_dir(dir.join("debs")).map_err(io)?.flatten().map(|e| e.path()).collect();
    apt(dir, architecture, &[&["download"], wanted].concat(), "apt-get")?;
    // Packages of an earlier day must not get into today's image.
    let show = apt(dir, architecture, &[&["show", "--no-all-versions"], wanted].concat(), "apt-cache")?;
    let versions = show.lines().filter_map(|l| l.strip_prefix("Version: "));
    let current: Vec<String> = versions.map(|v| v.replace(':', "%3a")).collect();
    for old in before {
        let name = old.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        let ours = is_ours(name.split('_').next().unwrap_or_default());
        if ours && !current.iter().any(|v| name.contains(&format!("_{v}_"))) {
            let _ = fs::remove_file(old);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_package_are_left_out() {
        let said = "libc6:\n  Installed: (none)\n  Candidate: 2.36-9\n  Version table:\n     2.36-9 500\n        500 http://x y\n\
                    libelogind0:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\nlibz:\n  Candidate: 1:2-3\n";
        assert_eq!(with_candidate(said), ["libc6", "libz"]);
    }

    #[test]
    fn a_flavour_of_the_kernel_is_not_taken_for_another() {
        for (name, named, is) in [
            ("linux-image-6.1.0-50-arm64", "linux-image-arm64", true),
            ("linux-image-6.12.117+deb13-arm64", "linux-image-arm64", true),
            ("linux-image-6.1.0-50-cloud-arm64", "linux-image-arm64", false),
            ("linux-image-6.1.0-50-cloud-arm64", "linux-image-cloud-arm64", true),
            ("linux-image-6.1.0-50-arm64-unsigned", "linux-image-arm64", false),
            ("linux-image-6.1.0-50-rpi", "linux-image-rpi", true),
            ("linux-image-arm64", "linux-image-arm64", false),
        ] {
            assert_eq!(is_kernel(name, named), is, "{name} for {named}");
        }
    }
}
