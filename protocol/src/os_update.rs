//! What a signed update of Limpet OS says of itself, and what the board's first process says of updates.
//!
//! In: the head of an update (JSON and signature are the caller's), what is wanted, what runs. Out: the parts that follow, or a
//! sentence why not. `limpet-init` reads the file as it comes from the disk (images/init/src/update.rs).
//! Never: another version than the wanted one, one for another board, or one that is not newer.

use alloc::{format, string::String, vec::Vec};
use core::cmp::Ordering;
use serde::{Deserialize, Serialize};

/// Updates are `limpet/os/BOARD` in the hub's registry; tags are versions.
pub const REPOSITORY: &str = "limpet/os";
/// Media types of the artifact, its head and its parts.
pub const ARTIFACT_TYPE: &str = "application/vnd.limpet.os.v1";
pub const HEAD_TYPE: &str = "application/vnd.limpet.os.head.v1";
pub const PART_TYPE: &str = "application/vnd.limpet.os.part.v1";

/// First bytes of an update. Length of the manifest (4 bytes, little end first), manifest, signature and parts follow.
pub const MAGIC: &[u8; 8] = b"LIMPETU1";
const BEFORE_MANIFEST: usize = MAGIC.len() + 4;
const SIGNATURE_BYTES: usize = 64;
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
pub const HEAD_BYTES_MAX: usize = BEFORE_MANIFEST + MANIFEST_BYTES_MAX + SIGNATURE_BYTES;
pub const PART_BYTES_MAX: u64 = 120 << 20;
const VERSION_BYTES_MAX: usize = 48;
/// Annotation of a node: the version of Limpet OS that it should run.
pub const WANTED: &str = "limpet.dev/os-version";
/// What a node's `osImage` begins with on Limpet OS; the version follows.
pub const OS_IMAGE: &str = "Limpet OS ";
/// The node's condition; its message begins with the wanted version and a colon.
pub const CONDITION: &str = "OsUpToDate";
/// What follows that colon, with the reason `Updating`, while the board has no such update in its hands yet.
pub const WAITS: &str = "waits to be fetched";
pub const COMES: &str = "being fetched";

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub board: String,
    pub version: String,
    pub linux: Part,
    pub initrd: Part,
    #[serde(default)]
    pub device_tree: Option<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Part {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What `limpet-init` says: in `/data/os/said.json`, for the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// The version that runs.
    pub running: String,
    /// It stayed up.
    pub good: bool,
    pub failed: Option<FailedUpdate>,
}

/// An update that this board does not run although it was given it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedUpdate {
    /// The file that was left for it, where it was refused.
    pub file: String,
    /// The version, where it ran and was left.
    pub version: String,
    pub why: String,
}

/// The parts of an update's head, which may be followed by more.
pub struct Head<'a> {
    pub whole: &'a [u8],
    pub manifest: &'a [u8],
    pub signature: &'a [u8],
}

pub fn split(update: &[u8]) -> Result<Head<'_>, String> {
    let none = "it is not an update of Limpet OS, as `limpet image update` makes them";
    let rest = update.strip_prefix(MAGIC.as_slice()).ok_or(none)?;
    let cut = "it is cut off";
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > MANIFEST_BYTES_MAX {
        return Err(none.into());
    }
    let (manifest, rest) = rest.split_at_checked(length).ok_or(cut)?;
    let signature = rest.get(..SIGNATURE_BYTES).ok_or(cut)?;
    Ok(Head { whole: &update[..BEFORE_MANIFEST + length + SIGNATURE_BYTES], manifest, signature })
}

/// Numbers between dots; zeros at the end do not count.
fn numbers(version: &str) -> Option<Vec<u64>> {
    if version.len() > VERSION_BYTES_MAX {
        return None;
    }
    let number = |n: &str| if n.bytes().all(|b| b.is_ascii_digit()) { n.parse().ok() } else { None };
    let mut all = version.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    while all.last() == Some(&0) {
        all.pop();
    }
    Some(all)
}

/// Their order, where both are versions.
pub fn compare(one: &str, other: &str) -> Option<Ordering> {
    Some(numbers(one)?.cmp(&numbers(other)?))
}

/// Whether these are names of one version.
pub fn same(one: &str, other: &str) -> bool {
    one == other || compare(one, other) == Some(Ordering::Equal)
}

pub fn is_version(text: &str) -> Result<(), String> {
    match numbers(text) {
        Some(_) => Ok(()),
        None => Err(format!("{text:?} is not a version of Limpet OS: numbers with dots between them, as in 1.4.2")),
    }
}

/// The name of its repository.
pub fn repository(board: &str) -> String {
    format!("{REPOSITORY}/{board}")
}

impl Manifest {
    /// Kernel, initial file system, and where the board has one its device tree, as they follow the head.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.linux, &self.initrd].into_iter().chain(&self.device_tree)
    }

    pub fn bytes(&self) -> u64 {
        self.parts().map(|p| p.bytes).sum()
    }

    /// Whether it can be what it says.
    pub fn check(&self) -> Result<(), String> {
        is_version(&self.version)?;
        // As a registry takes it: `qemu-x86_64`.
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if self.board.len() > 63 || !self.board.split(['-', '_']).all(word) {
            return Err("it is for a board that has no name".into());
        }
        let hex = |p: &Part| p.sha256.len() == 64 && p.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match self.parts().all(|p| hex(p) && (1..=PART_BYTES_MAX).contains(&p.bytes)) {
            true => Ok(()),
            false => Err("one of its parts cannot be that: wrong size or checksum".into()),
        }
    }

    /// Whether a board takes it; as `limpet-init` decides, and told before anything large is fetched.
    pub fn admit(&self, wanted: &str, running: &str, board: &str) -> Result<(), String> {
        self.check()?;
        if self.version != wanted {
            return Err(format!("it is signed as version {}", self.version));
        }
        if self.board != board {
            return Err(format!("it is for the board {}, this is a {board}", self.board));
        }
        match compare(wanted, running) {
            Some(Ordering::Less) => Err(format!(
                "it is older than {running}, which runs here, and Limpet OS does not go back; make the old system again with a \
                 greater --os-version"
            )),
            Some(Ordering::Equal) => Err(format!("it is version {running}, which runs here")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(board: &str, version: &str) -> Manifest {
        let part = || Part { bytes: 10, sha256: "ab".repeat(32) };
        Manifest { board: board.into(), version: version.into(), linux: part(), initrd: part(), device_tree: None }
    }

    #[test]
    fn only_what_is_newer_and_for_this_board() {
        let said = |m: &Manifest, wanted: &str, running: &str| m.admit(wanted, running, "rock-5").err().unwrap_or_default();
        let good = manifest("rock-5", "1.10.0");
        for (running, says) in [("1.9", ""), ("", ""), ("1.10", "which runs here"), ("1.11", "older than 1.11")] {
            let got = said(&good, "1.10.0", running);
            assert!(got.contains(says) && got.is_empty() == says.is_empty(), "{running}: {got}");
        }
        assert!(said(&good, "1.10", "1.9").contains("signed as version 1.10.0"));
        assert!(said(&manifest("rock-4", "2.0"), "2.0", "1.9").contains("for the board rock-4"));
        for bad in ["", "1..2", "1.x", "+1", "v1", "1.2-rc.1"] {
            assert!(said(&manifest("rock-5", bad), bad, "0.1").contains("not a version"), "{bad}");
        }
        for good in ["rock-5", "qemu-x86_64", "rock5"] {
            assert_eq!(manifest(good, "1.0").check(), Ok(()), "{good}");
        }
        for bad in ["", "../agent", "-a", "a-", "a__b", "Rock", "a b"] {
            assert!(manifest(bad, "1.0").check().is_err(), "{bad}");
        }
        let mut odd = manifest("rock-5", "2.0");
        odd.initrd.sha256 = "../../etc/passwd".into();
        assert!(odd.check().is_err());
        odd = manifest("rock-5", "2.0");
        odd.device_tree = Some(Part { bytes: PART_BYTES_MAX + 1, sha256: "ab".repeat(32) });
        assert!(odd.check().is_err());
        assert!(same("1.0", "1") && same("odd", "odd") && !same("odd", "1") && !same("1.1", "1.10"));
    }

    #[test]
    fn heads_are_taken_apart_or_refused() {
        let head = [MAGIC.as_slice(), &2u32.to_le_bytes(), b"{}", &[7; 64]].concat();
        let whole = [head.as_slice(), b"kernel"].concat();
        let got = split(&whole).unwrap();
        assert_eq!((got.whole, got.manifest, got.signature), (head.as_slice(), b"{}".as_slice(), [7; 64].as_slice()));
        for cut in 0..head.len() {
            assert!(split(&head[..cut]).is_err(), "cut at {cut}");
        }
        let endless = [MAGIC.as_slice(), &u32::MAX.to_le_bytes(), &[0; 100]].concat();
        assert!(split(&endless).is_err_and(|e| e.contains("not an update")));
    }
}
