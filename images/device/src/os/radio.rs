//! What a board needs for its radio, as one compressed read-only file system: Debian's supplicant with the libraries that it is
//! linked against, the rules of all countries, the radio's firmware and its drivers.
//!
//! In: packages, the kernel's drivers, a board's radio. Out: a squashfs file, which packages are in it, licences to show.
//! `limpet-init` mounts it when the node's file names a network, and throws it away otherwise.
//! Never: a library that nothing in it needs; a library of another processor's.

use super::{
    OsError, deb, elf, modules,
    packages::{self, Package},
};
use crate::board::Radio;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// The program, and the packages that all radios need beside the drivers' own.
pub const SUPPLICANT: &str = "wpasupplicant";
pub const REGULATIONS: &str = "wireless-regdb";
/// Where the archive of the system has it.
pub const FILE: &str = "radio.squashfs";
/// What a driver without ciphers in its firmware asks the kernel for by name, when nobody can load anything any more.
const CIPHERS: [&str; 5] = ["ccm", "ctr", "cmac", "gcm", "aes_generic"];
/// For the file system itself; loaded before it is there.
pub const CARRIERS: [&str; 2] = ["loop", "squashfs"];
/// While it is mounted the kernel keeps some blocks unpacked and a dictionary of a block's size for each processor: 1 MiB with
/// blocks of 128 KiB and two processors, 0.3 MiB with these, which cost a fifteenth of the file.
const BLOCK: &str = "32768";
/// Libraries that need libraries that need…: more than this is a circle of damage.
const LIBRARIES_MAX: usize = 200;

type Files = BTreeMap<String, Vec<u8>>;

pub struct Made {
    /// The file system.
    pub bytes: Vec<u8>,
    /// Names of the packages of which something is in it.
    pub packages: BTreeSet<String>,
    /// (package, its copyright file) of what may be passed on under conditions.
    pub licences: Vec<(String, Vec<u8>)>,
}

/// A package opened once.
struct Opened<'a> {
    package: &'a Package,
    contents: deb::Contents,
}

impl Opened<'_> {
    /// The content behind a path, through links within the package.
    fn read(&self, path: &str) -> Option<&Vec<u8>> {
        let mut path = path.to_string();
        for _ in 0..8 {
            match self.contents.links.get(&path) {
                Some(next) => path = next.clone(),
                None => return self.contents.files.get(&path),
            }
        }
        None
    }

    fn paths(&self) -> impl Iterator<Item = &String> {
        self.contents.files.keys().chain(self.contents.links.keys())
    }
}

fn open<'a>(package: &'a Package, wanted: impl Fn(&str) -> bool) -> Result<Opened<'a>, OsError> {
    let contents = deb::contents(&package.path, wanted).map_err(|why| OsError::Package(package.name.clone(), why))?;
    Ok(Opened { package, contents })
}

fn missing(package: &str, what: &str) -> OsError {
    OsError::Package(package.into(), what.into())
}

fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    (path.starts_with("lib") || path.starts_with("usr/lib")) && name.contains(".so")
}

/// Programs of `from` and every library that they need, out of the packages: `bin/NAME`, `lib/SONAME`, and the loader as
/// `lib/ld.so`. Also which packages that were.
pub fn programs(packages: &[Package], from: &str, paths: &[&str]) -> Result<(Files, BTreeSet<String>), OsError> {
    let package = packages.iter().find(|p| p.name == from).ok_or_else(|| missing(from, "it is not among the packages"))?;
    let opened = open(package, |p| paths.contains(&p))?;
    let libraries = packages.iter().filter(|p| packages::is_library(&p.name));
    let libraries: Vec<Opened<'_>> = libraries.map(|p| open(p, is_library)).collect::<Result<_, _>>()?;
    let (mut files, mut used) = (Files::new(), BTreeSet::from([from.to_string()]));
    let mut open_needs: Vec<(String, String)> = Vec::new();
    let ask = |content: &[u8], open_needs: &mut Vec<(String, String)>| {
        let needs = elf::needs(content).unwrap_or_default();
        open_needs.extend(needs.libraries.into_iter().map(|name| (format!("lib/{name}"), name)));
        let name = |path: &String| Some(("lib/ld.so".to_string(), path.rsplit('/').next()?.to_string()));
        open_needs.extend(needs.loader.iter().filter_map(name));
    };
    for path in paths {
        let content = opened.read(path).ok_or_else(|| missing(from, &format!("it has no {path}")))?;
        ask(content, &mut open_needs);
        files.insert(format!("bin/{}", path.rsplit('/').next().unwrap_or(path)), content.clone());
    }
    while let Some((place, name)) = open_needs.pop() {
        if files.contains_key(&place) {
            continue;
        }
        let ends = format!("/{name}");
        let hit = libraries.iter().find_map(|l| l.paths().find(|p| p.ends_with(&ends)).and_then(|p| Some((l, l.read(p)?))));
        let (library, content) = hit.ok_or_else(|| missing(from, &format!("no package has {name}, which it needs")))?;
        used.insert(library.package.name.clone());
        ask(content, &mut open_needs);
        files.insert(place, content.clone());
        if files.len() > LIBRARIES_MAX {
            return Err(missing(from, "it needs more libraries than can be"));
        }
    }
    Ok((files, used))
}

/// Debian signs the rules with a key that its kernels know.
fn regulations(packages: &[Package], files: &mut Files) -> Result<(), OsError> {
    let package = packages.iter().find(|p| p.name == REGULATIONS);
    let package = package.ok_or_else(|| missing(REGULATIONS, "it is not among the packages"))?;
    let opened = open(package, |p| p.contains("lib/firmware/regulatory.db"))?;
    for name in ["regulatory.db", "regulatory.db.p7s"] {
        let ends = [format!("/{name}-debian"), format!("/{name}")];
        let path = ends.iter().find_map(|e| opened.paths().find(|p| p.ends_with(e)));
        let content = path.and_then(|p| opened.read(p)).ok_or_else(|| missing(REGULATIONS, &format!("it has no {name}")))?;
        files.insert(format!("firmware/{name}"), content.clone());
    }
    Ok(())
}

/// Files below lib/firmware whose names begin as the board's file says.
fn firmware(packages: &[Package], radio: &Radio, files: &mut Files) -> Result<Option<(String, Vec<u8>)>, OsError> {
    let Some(name) = &radio.package else { return Ok(None) };
    let package = packages.iter().find(|p| p.name == *name).ok_or_else(|| missing(name, "it is not among the packages"))?;
    let copyright = format!("usr/share/doc/{name}/copyright");
    let opened = open(package, |p| p.contains("lib/firmware/") || p == copyright)?;
    let below = |path: &str| path.split_once("lib/firmware/").map(|(_, rest)| rest.to_string());
    for wanted in &radio.firmware {
        let mut found = false;
        for path in opened.paths() {
            let Some(rest) = below(path).filter(|rest| rest.starts_with(wanted.as_str())) else { continue };
            let content = opened.read(path).ok_or_else(|| missing(name, &format!("its {path} leads nowhere")))?;
            files.insert(format!("firmware/{rest}"), content.clone());
            found = true;
        }
        if !found {
            return Err(missing(name, &format!("it has no lib/firmware/{wanted}…")));
        }
    }
    for (to, from) in &radio.firmware_as {
        let path = opened.paths().find(|p| below(p).as_deref() == Some(from.as_str()));
        let content = path.and_then(|p| opened.read(p)).ok_or_else(|| missing(name, &format!("it has no lib/firmware/{from}")))?;
        files.insert(format!("firmware/{to}"), content.clone());
    }
    let licence = opened.read(&copyright).ok_or_else(|| missing(name, "it has no copyright file"))?;
    Ok(Some((name.clone(), licence.clone())))
}

/// `loaded`: drivers that the system loads anyway, before these.
pub fn file_system(packages: &[Package], radio: &Radio, drivers: &Files, loaded: &[String]) -> Result<Made, OsError> {
    let (mut files, mut used) = programs(packages, SUPPLICANT, &["sbin/wpa_supplicant"]).or_else(|e| {
        // Debian moves /sbin into /usr/sbin.
        programs(packages, SUPPLICANT, &["usr/sbin/wpa_supplicant"]).map_err(|_| e)
    })?;
    regulations(packages, &mut files)?;
    used.insert(REGULATIONS.into());
    let licence = firmware(packages, radio, &mut files)?;
    used.extend(licence.iter().map(|(name, _)| name.clone()));
    let own = radio.drivers.iter().map(String::as_str);
    let order = modules::in_order(drivers, CIPHERS.into_iter().chain(own));
    let known = |name: &str| order.iter().any(|path| modules::key(path) == modules::key(name));
    if let Some(name) = radio.drivers.iter().find(|name| !known(name)) {
        return Err(missing("linux-image-…", &format!("it has no driver {name} for the radio")));
    }
    for (number, path) in order.iter().filter(|path| !loaded.contains(path)).enumerate() {
        let name = path.rsplit('/').next().unwrap_or(path);
        files.insert(format!("modules/{number:03}-{name}"), drivers[path].clone());
    }
    Ok(Made { bytes: squash(&files)?, packages: used, licences: licence.into_iter().collect() })
}

/// A squashfs of the files: the same bytes for the same content.
pub fn squash(files: &Files) -> Result<Vec<u8>, OsError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("limpet-radio-{}-{count}", std::process::id()));
    let made = squash_in(&dir, files);
    let _ = fs::remove_dir_all(&dir);
    made
}

fn squash_in(dir: &Path, files: &Files) -> Result<Vec<u8>, OsError> {
    use std::os::unix::fs::PermissionsExt;
    let io = |e| OsError::Io(dir.display().to_string(), e);
    let tree = dir.join("tree");
    for (path, content) in files {
        let to = tree.join(path);
        fs::create_dir_all(to.parent().unwrap_or(&tree)).map_err(io)?;
        fs::write(&to, content).map_err(io)?;
        let mode = if path.starts_with("bin/") || path.starts_with("lib/") { 0o755 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(io)?;
        let mut folder = to.parent();
        while let Some(inside) = folder.filter(|f| f.starts_with(&tree)) {
            fs::set_permissions(inside, fs::Permissions::from_mode(0o755)).map_err(io)?;
            folder = inside.parent();
        }
    }
    let out = dir.join("out");
    let mut command = Command::new("mksquashfs");
    command.env_remove("SOURCE_DATE_EPOCH").arg(&tree).arg(&out);
    command.args(["-noappend", "-quiet", "-no-progress", "-no-xattrs", "-all-root", "-comp", "xz", "-b", BLOCK]);
    command.args(["-all-time", "0", "-mkfs-time", "0", "-processors", "1"]);
    let done = command.output().map_err(|_| OsError::Tool("mksquashfs", "squashfs-tools"))?;
    match done.status.success() {
        true => fs::read(&out).map_err(io),
        false => Err(OsError::Failed("mksquashfs", String::from_utf8_lossy(&done.stderr).trim().chars().take(500).collect())),
    }
}
