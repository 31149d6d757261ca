//! Writes configMap, secret, downwardAPI and projected volumes so that a reader sees the old set or the new one.
//!
//! In: the whole payload. Out: user-visible links `a -> ..data/a`, `..data -> ..2026_11_23_…`, swapped by one rename.
//! Never: a mixture, a visible half-written file, or a change when nothing changed.
//!
//! The layout is kubelet's (its AtomicWriter), which programs that watch for `..data` rely on.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
const FILES_MAX: usize = 10_000;
const PATH_BYTES_MAX: usize = 4096;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Permission bits, after `defaultMode` and `items[].mode`.
    pub mode: u32,
    /// User that owns it; whoever writes it when absent.
    pub owner: Option<u32>,
}

/// Relative path and file.
pub type Payload = BTreeMap<String, File>;

/// Makes the directory show exactly this payload; `true` when something changed. With `fs_group` files belong to it
/// and are readable by it.
pub fn write(dir: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<bool> {
    check(payload)?;
    step()?;
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(if fs_group.is_some() { 0o2777 } else { 0o777 }))?;
    own(dir, fs_group)?;
    let old = std::fs::read_link(dir.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| same(&dir.join(old), payload, fs_group)) {
        // An agent that died after the swap may not have come to these.
        link_names(dir, payload)?;
        remove_strays(dir, payload, old.as_deref())?;
        return Ok(false);
    }
    let fresh = fresh_name(dir)?;
    let base = dir.join(&fresh);
    step()?;
    std::fs::DirBuilder::new().mode(0o755).create(&base)?;
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755))?;
    own(&base, fs_group)?;
    let written = payload.iter().try_for_each(|(path, file)| {
        let told = |err: Error| Error::new(err.kind(), format!("write \"{path}\": {err}"));
        write_file(&base, path, file, fs_group).map_err(told)
    });
    if written.is_err() && step().is_ok() {
        // It is tried again and again: what is half must not pile up.
        let _ = std::fs::remove_dir_all(&base);
    }
    written?;
    let new = dir.join(DATA_NEW);
    let _ = std::fs::remove_file(&new);
    step()?;
    symlink(&fresh, &new)?;
    step()?;
    std::fs::rename(&new, dir.join(DATA))?;
    link_names(dir, payload)?;
    remove_strays(dir, payload, Some(Path::new(&fresh)))?;
    Ok(true)
}

fn check(payload: &Payload) -> Result<()> {
    let refuse = |path: &str, why: &str| Err(Error::new(ErrorKind::InvalidInput, format!("path \"{path}\" {why}")));
    if payload.len() > FILES_MAX {
        return refuse("", "belongs to a volume of more than 10000 files");
    }
    for path in payload.keys() {
        let parts = Path::new(path).components();
        if path.is_empty() || path.len() > PATH_BYTES_MAX || path.ends_with('/') {
            return refuse(path, "is empty, too long or a directory");
        }
        if !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
            return refuse(path, "must be relative and must not contain \"..\"");
        }
        if path.starts_with("..") {
            return refuse(path, "must not start with \"..\"");
        }
    }
    Ok(())
}

fn write_file(base: &Path, path: &str, file: &File, fs_group: Option<u32>) -> Result<()> {
    use std::io::Write;
    step()?;
    let target = base.join(path);
    if let Some(parent) = target.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        let mut dir = parent;
        while dir != base {
            own(dir, fs_group)?;
            let Some(above) = dir.parent() else { break };
            dir = above;
        }
    }
    let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
    step()?;
    open.write_all(&file.bytes)?;
    if file.owner.is_some() || fs_group.is_some() {
        std::os::unix::fs::fchown(&open, file.owner, fs_group)?;
    }
    open.set_permissions(std::fs::Permissions::from_mode(final_mode(file.mode, fs_group)))
}

/// kubelet gives the group read access where the owner has it.
fn final_mode(mode: u32, fs_group: Option<u32>) -> u32 {
    let mode = mode & 0o777;
    if fs_group.is_some() { mode | 0o440 } else { mode }
}

fn own(path: &Path, fs_group: Option<u32>) -> Result<()> {
    match fs_group {
        Some(gid) => std::os::unix::fs::chown(path, None, Some(gid)),
        None => Ok(()),
    }
}

fn same(current: &Path, payload: &Payload, fs_group: Option<u32>) -> bool {
    let mut seen = 0;
    let mut fits = true;
    let _ = walk(current, current, &mut |path, found| {
        seen += 1;
        fits &= payload.get(path).is_some_and(|file| {
            found.permissions().mode() & 0o777 == final_mode(file.mode, fs_group)
                && file.owner.is_none_or(|owner| found.uid() == owner)
                && found.len() == file.bytes.len() as u64
                && std::fs::read(current.join(path)).is_ok_and(|bytes| bytes == file.bytes)
        });
    });
    fits && seen == payload.len()
}

fn walk(base: &Path, dir: &Path, each: &mut impl FnMut(&str, &std::fs::Metadata)) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let found = std::fs::symlink_metadata(&path)?;
        if found.is_dir() {
            walk(base, &path, each)?;
        } else if let Some(relative) = path.strip_prefix(base).ok().and_then(Path::to_str) {
            each(relative, &found);
        }
    }
    Ok(())
}

/// `..2026_11_23_10_00_00.123456789`: unique also when the clock stands or goes back.
fn fresh_name(dir: &Path) -> Result<String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = date(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    let stamp = format!("..{year}_{month:02}_{day:02}_{:02}_{:02}_{:02}", second / 3600, second / 60 % 60, second % 60);
    for number in 0..FILES_MAX as u32 {
        let name = format!("{stamp}.{}", since.subsec_nanos().wrapping_add(number));
        if !dir.join(&name).exists() {
            return Ok(name);
        }
    }
    Err(Error::other("no free name for a new directory"))
}

/// Days since 1970 as year, month, day (Gregorian).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

fn tops(payload: &Payload) -> Vec<&str> {
    let mut tops: Vec<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    tops.dedup();
    tops
}

/// A visible link for every first component of a path.
fn link_names(dir: &Path, payload: &Payload) -> Result<()> {
    for top in tops(payload) {
        let (name, target) = (dir.join(top), PathBuf::from(DATA).join(top));
        if std::fs::read_link(&name).is_ok_and(|found| found == target) {
            continue;
        }
        step()?;
        match symlink(&target, &name) {
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {
                std::fs::remove_file(&name)?;
                symlink(&target, &name)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Removes links to nothing and directories of older payloads (also those that a crash left).
fn remove_strays(dir: &Path, payload: &Payload, current: Option<&Path>) -> Result<()> {
    let keep = tops(payload);
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let (Some(text), path) = (name.to_str(), entry.path()) else { continue };
        let kind = entry.file_type()?;
        if text == DATA || current.is_some_and(|current| current.as_os_str() == name) {
            continue;
        }
        step()?;
        if kind.is_dir() && text.starts_with("..") {
            std::fs::remove_dir_all(path)?;
        } else if kind.is_symlink() && !keep.contains(&text) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Where a power cut or a killed agent may end it; tests do.
#[cfg(not(test))]
#[inline]
fn step() -> Result<()> {
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// So many steps are taken before the end.
    pub static STEPS_LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn step() -> Result<()> {
    STEPS_LEFT.with(|left| match left.get() {
        Some(0) => Err(Error::other("the power is gone")),
        Some(n) => {
            left.set(Some(n - 1));
            Ok(())
        }
        None => Ok(()),
    })
}
