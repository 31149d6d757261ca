//! Debian's packages for another architecture, by apt with a state of its own.
//!
//! In: names, an architecture, a folder. Out: .deb files whose checksums apt has compared with Debian's signed lists.
//! Never: touches the machine's own apt state or installs anything.

use super::OsError;
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

/// The kernel and the boot loader.
fn names(architecture: &str) -> [String; 2] {
    [format!("linux-image-cloud-{architecture}"), "systemd-boot-efi".into()]
}

/// `cache` keeps lists and packages for the next time.
pub fn fetch(origin: &Origin, architecture: &str, cache: &Path) -> Result<Vec<Package>, OsError> {
    let folder = match origin {
        Origin::Folder(folder) => folder.clone(),
        Origin::Mirror { url, suite } => {
            let folder = cache.join(architecture);
            download(url, suite, architecture, &folder)?;
            folder.join("debs")
        }
    };
    let io = |e| OsError::Io(folder.display().to_string(), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "deb") {
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

/// Kernel and boot loader.
fn download(url: &str, suite: &str, architecture: &str, dir: &Path) -> Result<(), OsError> {
    lists(url, suite, architecture, dir)?;
    let [kernel, loader] = names(architecture);
    // The first is an empty package that names the kernel of today.
    let depends = apt(dir, architecture, &["depends", &kernel], "apt-cache")?;
    let real = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ").filter(|n| n.starts_with("linux-image-")));
    let real = real.ok_or_else(|| OsError::Package(kernel.clone(), "it names no kernel".into()))?.to_string();
    named(architecture, &[&real, &loader], dir)
}

/// Any packages, into `dir`/debs.
pub fn fetch_named(url: &str, suite: &str, architecture: &str, wanted: &[&str], dir: &Path) -> Result<PathBuf, OsError> {
    lists(url, suite, architecture, dir)?;
    named(architecture, wanted, dir)?;
    Ok(dir.join("debs"))
}

/// Debian's lists of today, as often as it is asked.
fn lists(url: &str, suite: &str, architecture: &str, dir: &Path) -> Result<(), OsError> {
    let io = |e| OsError::Io(dir.display().to_string(), e);
    for folder in ["debs", "state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(folder)).map_err(io)?;
    }
    fs::write(dir.join("state/status"), "").map_err(io)?;
    let line = |url: &str, suite: &str| format!("deb [signed-by={KEYRING}] {url} {suite} main\n");
    let security = url.replace("/debian", "/debian-security");
    fs::write(dir.join("sources.list"), line(url, suite) + &line(&security, &format!("{suite}-security"))).map_err(io)?;
    apt(dir, architecture, &["update"], "apt-get").map(drop)
}

fn named(architecture: &str, wanted: &[&str], dir: &Path) -> Result<(), OsError> {
    let io = |e| OsError::Io(dir.display().to_string(), e);
    let before: Vec<PathBuf> = fs::read_dir(dir.join("debs")).map_err(io)?.flatten().map(|e| e.path()).collect();
    apt(dir, architecture, &[&["download"], wanted].concat(), "apt-get")?;
    // Packages of an earlier day must not get into today's image.
    let show = apt(dir, architecture, &[&["show", "--no-all-versions"], wanted].concat(), "apt-cache")?;
    let versions = show.lines().filter_map(|l| l.strip_prefix("Version: "));
    let current: Vec<String> = versions.map(|v| v.replace(':', "%3a")).collect();
    for old in before {
        let name = old.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        if !current.iter().any(|v| name.contains(&format!("_{v}_"))) {
            let _ = fs::remove_file(old);
        }
    }
    Ok(())
}
