//! Whether mounts travel between the board and a container (`mountPropagation`).
//!
//! In: the table of mounts, the directory that a container mounts. Out: containerd's sentence when they cannot; a root
//! that is shared where nobody has made it so. Source: Kubernetes "Volumes", section "Mount propagation".
//! Never: lets a mount that was asked to travel stay behind without a word.

use super::{MOUNTS, unescape};
use nix::mount::{MsFlags, mount};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
struct Point {
    at: PathBuf,
    shared: bool,
    /// It follows another one.
    slave: bool,
}

/// Init systems share the root with those who get a mount namespace of their own; boards without one leave it private,
/// and then nothing travels anywhere.
pub fn share_root() -> Result<bool> {
    let root = Path::new("/");
    let table = points(&std::fs::read_to_string(MOUNTS)?);
    match holder(&table, root) {
        Some(point) if point.shared || point.slave => Ok(false),
        _ => {
            let none: Option<&str> = None;
            mount(none, root, none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
            Ok(true)
        }
    }
}

/// `both`: what the container mounts reaches the board too.
pub fn check(source: &Path, both: bool) -> Result<()> {
    let real = source.canonicalize().map_err(|err| Error::new(err.kind(), format!("{}: {err}", source.display())))?;
    judge(&std::fs::read_to_string(MOUNTS)?, &real, both).map_err(Error::other)
}

fn judge(table: &str, source: &Path, both: bool) -> std::result::Result<(), String> {
    let table = points(table);
    let Some(point) = holder(&table, source) else { return Ok(()) };
    let (good, what) = match both {
        true => (point.shared, "a shared"),
        false => (point.shared || point.slave, "a shared or slave"),
    };
    let (source, at) = (source.display(), point.at.display());
    let why = format!("path \"{source}\" is mounted on \"{at}\" but it is not {what} mount");
    if good { Ok(()) } else { Err(format!("{why} (`mount --make-rshared {at}` makes it one)")) }
}

/// The mount that a path is in: of those at the same place the last one, which covers the others.
fn holder<'a>(table: &'a [Point], path: &Path) -> Option<&'a Point> {
    table.iter().filter(|point| path.starts_with(&point.at)).max_by_key(|point| point.at.components().count())
}

fn points(table: &str) -> Vec<Point> {
    let point = |line: &str| {
        let (left, _) = line.split_once(" - ")?;
        let words: Vec<&str> = left.split(' ').collect();
        let has = |start: &str| words.iter().skip(6).any(|word| word.starts_with(start));
        Some(Point { at: unescape(words.get(4)?).into(), shared: has("shared:"), slave: has("master:") })
    };
    table.lines().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:25 / /mnt/own rw - tmpfs x rw
31 27 0:26 / /mnt/down rw,relatime master:5 - tmpfs x rw
32 27 0:27 / /mnt/with\\040space rw - tmpfs x rw
33 27 0:28 / /mnt/twice rw - tmpfs x rw
34 33 0:29 / /mnt/twice rw shared:9 - tmpfs x rw
";

    #[test]
    fn only_shared_mounts_travel() {
        for (path, down, both) in [
            ("/srv/data", true, true),
            ("/mnt/ownership", true, true),
            ("/mnt/own/x", false, false),
            ("/mnt/down/x", true, false),
            ("/mnt/with space", false, false),
            ("/mnt/twice", true, true),
        ] {
            assert_eq!(judge(TABLE, Path::new(path), false).is_ok(), down, "{path} down");
            assert_eq!(judge(TABLE, Path::new(path), true).is_ok(), both, "{path} both ways");
        }
        let why = judge(TABLE, Path::new("/mnt/own/x"), true).unwrap_err();
        assert!(why.starts_with("path \"/mnt/own/x\" is mounted on \"/mnt/own\" but it is not a shared mount"), "{why}");
    }
}
