//! The two slots of the system, as the boot loader sees them: for systemd-boot one file each in loader/entries, whose name counts
//! the tries that are left (`limpet-b+3.conf`, then `limpet-b+2-1.conf`;
//! https://uapi-group.org/specifications/specs/boot_loader_specification); for U-Boot's script one sector (counter.rs).
//!
//! In: which slot runs. Out: a slot called good, a slot written anew. Every step leaves a card that boots.
//! Never: writes to the slot that runs.

use crate::{
    counter::{self, Counter},
    mounts::{self, Disk},
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

const ENTRIES: &str = "loader/entries";
pub const TRIES: u32 = 3;

pub struct Slots {
    disk: Disk,
    current: String,
}

/// What goes into a slot.
pub struct Release<'a> {
    pub version: &'a str,
    pub options: &'a str,
    /// The kernel and the initial file system.
    pub linux: &'a Path,
    pub initrd: &'a Path,
    pub tree: Option<&'a Path>,
}

/// Content first, name last: after a power cut there is the old file or the new one.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(told)?;
    file.write_all(content).map_err(told)?;
    file.sync_all().map_err(told)?;
    fs::rename(&fresh, path).map_err(told)?;
    sync_folder(path.parent().unwrap_or(path))
}

fn sync_folder(dir: &Path) -> Result<(), String> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| format!("{}: {e}", dir.display()))
}

/// All entry files of a slot, whatever their counters say.
fn entries(system: &Path, slot: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(system.join(ENTRIES)).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(&format!("limpet-{slot}")).and_then(|r| r.strip_suffix(".conf"));
        rest.is_some_and(|r| r.is_empty() || r.starts_with('+'))
    };
    names.unwrap_or_default().into_iter().filter(ours).collect()
}

impl Slots {
    pub fn new(disk: &Disk, current: String) -> Slots {
        Slots { disk: disk.clone(), current }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn other(&self) -> &'static str {
        if self.current == "a" { "b" } else { "a" }
    }

    /// The boot loader still counts.
    pub fn is_on_trial(&self) -> bool {
        let found = mounts::with_system(&self.disk, false, |at| Ok(on_trial(at, &self.current)));
        found.unwrap_or(false)
    }

    pub fn current(&self) -> &str {
        &self.current
    }

    /// Whether there was something to change; only then it writes.
    pub fn call_good(&self) -> Result<bool, String> {
        match self.is_on_trial() {
            true => mounts::with_system(&self.disk, true, |at| call_good(at, &self.current)).map(|()| true),
            false => Ok(false),
        }
    }

    /// Whether the other slot holds this version and has no tries left.
    pub fn gave_up(&self, version: &str) -> bool {
        self.given_up().is_some_and(|v| v == version)
    }

    /// The version in the other slot, where that has no tries left.
    pub fn given_up(&self) -> Option<String> {
        mounts::with_system(&self.disk, false, |at| Ok(given_up(at, self.other()))).ok().flatten()
    }

    pub fn write(&self, release: &Release<'_>) -> Result<(), String> {
        mounts::with_system(&self.disk, true, |at| write(at, self.other(), release))
    }
}

/// Whose boot loader this is.
fn has_counter(system: &Path) -> bool {
    system.join(counter::FILE).is_file()
}

fn letter(slot: &str) -> char {
    if slot == "b" { 'b' } else { 'a' }
}

fn on_trial(system: &Path, slot: &str) -> bool {
    match has_counter(system) {
        true => counter::read(system).good != letter(slot),
        false => entries(system, slot).iter().any(|p| p.to_string_lossy().contains('+')),
    }
}

/// What was written, tried as often as it may, and never called good.
fn given_up(system: &Path, slot: &str) -> Option<String> {
    let version = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().find_map(|word| word.strip_prefix("limpet.version=").map(str::to_string))
    };
    if has_counter(system) {
        let counter = counter::read(system);
        let none_left = counter.good != letter(slot) && counter.left == 0;
        return if none_left { version(system.join("limpet").join(slot).join("options")) } else { None };
    }
    let no_tries = format!("limpet-{slot}+0");
    let spent = |entry: &PathBuf| entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&no_tries));
    entries(system, slot).into_iter().filter(spent).find_map(version)
}

fn call_good(system: &Path, slot: &str) -> Result<(), String> {
    if has_counter(system) {
        return counter::write(system, Counter { good: letter(slot), left: 0 });
    }
    let dir = system.join(ENTRIES);
    for entry in entries(system, slot) {
        let good = dir.join(format!("limpet-{slot}.conf"));
        if entry != good {
            fs::rename(&entry, &good).map_err(|e| format!("{}: {e}", entry.display()))?;
        }
    }
    sync_folder(&dir)
}

/// 1. From here on nothing can start the slot. 2. Its files. 3. It has its tries, all at once.
pub fn write(system: &Path, slot: &str, release: &Release<'_>) -> Result<(), String> {
    let told = |path: &Path| { let name = path.display().to_string(); move |e: std::io::Error| format!("{name}: {e}") };
    let dir = system.join(ENTRIES);
    let good = if slot == "b" { 'a' } else { 'b' };
    if has_counter(system) {
        counter::write(system, Counter { good, left: 0 })?;
    } else {
        for entry in entries(system, slot) {
            fs::remove_file(&entry).map_err(told(&entry))?;
        }
        sync_folder(&dir)?;
    }
    let folder = system.join("limpet").join(slot);
    fs::create_dir_all(&folder).map_err(told(&folder))?;
    let files = [(Some(release.linux), "linux"), (Some(release.initrd), "initrd"), (release.tree, "tree")];
    for (from, name) in files.into_iter().filter_map(|(from, name)| Some((from?, name))) {
        copy(from, &folder.join(name))?;
    }
    sync_folder(&folder)?;
    match has_counter(system) {
        true => {
            replace(&folder.join("options"), options_text(release).as_bytes())?;
            counter::write(system, Counter { good, left: TRIES })
        }
        false => replace(&dir.join(format!("limpet-{slot}+{TRIES}.conf")), entry_text(slot, release).as_bytes()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let told = |path: &Path| { let name = path.display().to_string(); move |e: std::io::Error| format!("{name}: {e}") };
    // FAT has no room for a third copy: the old one goes first.
    let _ = fs::remove_file(to);
    let mut source = File::open(from).map_err(told(from))?;
    let mut target = File::create(to).map_err(told(to))?;
    std::io::copy(&mut source, &mut target).map_err(told(to))?;
    target.sync_all().map_err(told(to))
}

/// Mirrors `limpet_device::os::uboot::options`.
fn options_text(release: &Release<'_>) -> String {
    format!("limpet_options={} limpet.version={}\n", release.options, release.version)
}

/// Mirrors `limpet_device::os::entry`: the newest version is tried first.
fn entry_text(slot: &str, release: &Release<'_>) -> String {
    format!(
        "title Limpet OS {version}\nsort-key limpet\nversion {version}\nlinux /limpet/{slot}/linux\ninitrd /limpet/{slot}/initrd\n\
         options {options} limpet.slot={slot} limpet.version={version}\n",
        version = release.version,
        options = release.options,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(system: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(system.join(ENTRIES)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn slots_are_written_tried_and_called_good() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir_all(at.join(ENTRIES)).unwrap();
        fs::write(at.join(ENTRIES).join("limpet-a.conf"), "x").unwrap();
        fs::write(at.join(ENTRIES).join("other.conf"), "x").unwrap();
        fs::write(at.join("k"), "kernel").unwrap();
        fs::write(at.join("i"), "files").unwrap();
        let (linux, initrd) = (at.join("k"), at.join("i"));
        let release = Release { version: "2", options: "console=ttyS0", linux: &linux, initrd: &initrd, tree: None };
        for _ in 0..2 {
            write(at, "b", &release).unwrap();
            assert_eq!(names(at), ["limpet-a.conf", "limpet-b+3.conf", "other.conf"]);
        }
        assert_eq!(fs::read(at.join("limpet/b/linux")).unwrap(), b"kernel");
        let text = fs::read_to_string(at.join(ENTRIES).join("limpet-b+3.conf")).unwrap();
        assert!(text.contains("options console=ttyS0 limpet.slot=b limpet.version=2\n"), "{text}");
        assert!(on_trial(at, "b") && !on_trial(at, "a"));
        assert_eq!(given_up(at, "b"), None);
        let dir_of = at.join(ENTRIES);
        fs::rename(dir_of.join("limpet-b+3.conf"), dir_of.join("limpet-b+0-3.conf")).unwrap();
        assert_eq!((given_up(at, "b").as_deref(), given_up(at, "a")), (Some("2"), None));
        fs::rename(dir_of.join("limpet-b+0-3.conf"), dir_of.join("limpet-b+3.conf")).unwrap();
        // As the boot loader renames it at a try.
        fs::rename(at.join(ENTRIES).join("limpet-b+3.conf"), at.join(ENTRIES).join("limpet-b+2-1.conf")).unwrap();
        call_good(at, "b").unwrap();
        call_good(at, "b").unwrap();
        assert_eq!(names(at), ["limpet-a.conf", "limpet-b.conf", "other.conf"]);
        assert!(!on_trial(at, "b"));
    }

    #[test]
    fn slots_that_a_sector_counts_are_written_tried_and_called_good() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir_all(at.join("limpet/a")).unwrap();
        fs::write(at.join(counter::FILE), [0; 512]).unwrap();
        fs::write(at.join("k"), "kernel").unwrap();
        fs::write(at.join("t"), "tree").unwrap();
        let (linux, tree) = (at.join("k"), at.join("t"));
        let release = Release { version: "2", options: "quiet", linux: &linux, initrd: &linux, tree: Some(&tree) };
        assert!(on_trial(at, "b") && !on_trial(at, "a"));
        for _ in 0..2 {
            write(at, "b", &release).unwrap();
            assert_eq!(counter::read(at), Counter { good: 'a', left: TRIES });
        }
        assert_eq!(fs::read(at.join("limpet/b/tree")).unwrap(), b"tree");
        assert_eq!(fs::read_to_string(at.join("limpet/b/options")).unwrap(), "limpet_options=quiet limpet.version=2\n");
        assert_eq!(given_up(at, "b"), None);
        counter::write(at, Counter { good: 'a', left: 0 }).unwrap();
        assert_eq!(given_up(at, "b").as_deref(), Some("2"));
        call_good(at, "b").unwrap();
        assert_eq!(given_up(at, "b"), None);
        assert_eq!(counter::read(at), Counter { good: 'b', left: 0 });
        assert!(!on_trial(at, "b") && on_trial(at, "a"));
        // A slot that cannot be written has no tries.
        let gone = at.join("gone");
        assert!(write(at, "a", &Release { linux: &gone, ..release }).is_err());
        assert_eq!(counter::read(at), Counter { good: 'b', left: 0 });
    }
}
