//! An ext4 whose description of itself was torn by a power cut.
//!
//! In: a device that the kernel does not mount. Out: the description with the checksum that fits it, where nothing else is wrong
//! with it. Never: a change to a description that is whole, or to one that is not ext4's or another device's.
//!
//! The description has two sectors of 512 bytes. What changes while the system runs is all in the first one, and of the second
//! one only the checksum: when power goes between the two, the first is the old or the new one, each of which is true (what comes
//! after it in the journal's order was not written yet), and the checksum is the other's. The kernel then mounts nothing at all.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

const AT: u64 = 1024;
const BYTES: usize = 1024;
const CHECKSUM: usize = 0x3fc;
/// The checksum of ext4's metadata is in use.
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

/// Whether something was mended: then a mount is worth another try.
pub fn mend(device: &Path) -> io::Result<bool> {
    let mut file: File = OpenOptions::new().read(true).write(true).open(device)?;
    let size = file.seek(SeekFrom::End(0))?;
    let mut all = [0; BYTES];
    file.read_exact_at(&mut all, AT)?;
    let sum = crc32c(&all[..CHECKSUM]);
    if sum == word(&all, CHECKSUM) || !is_plausible(&all, size) {
        return Ok(false);
    }
    all[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&all, AT)?;
    file.sync_all()?;
    Ok(true)
}

fn word(all: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([all[at], all[at + 1], all[at + 2], all[at + 3]])
}

/// The rest is judged by the kernel: every other part has a checksum of its own, made with this description's identity.
fn is_plausible(all: &[u8; BYTES], size: u64) -> bool {
    let is_ext4 = all[0x38..0x3a] == [0x53, 0xef] && word(all, 0x64) & RO_COMPAT_METADATA_CSUM != 0;
    let blocks = u64::from(word(all, 0x04)) | u64::from(word(all, 0x150)) << 32;
    let block_bytes = 1024u64.checked_shl(word(all, 0x18)).filter(|bytes| (1024..=65536).contains(bytes));
    let bytes = block_bytes.and_then(|bytes| blocks.checked_mul(bytes));
    // CRC-32C is the one kind of checksum that there is.
    is_ext4 && all[0x175] == 1 && bytes.is_some_and(|bytes| (1..=size).contains(&bytes))
}

/// As ext4 uses it: begun with ones, and not turned over at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & (c & 1).wrapping_neg()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf, process::Command};

    fn tool(words: &[&str]) -> bool {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|out| out.status.success())
    }

    /// A file system, and its description before and after it was changed.
    fn system(dir: &Path) -> Option<(PathBuf, Vec<u8>, Vec<u8>)> {
        let path = dir.join("data");
        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        let name = path.to_str().unwrap();
        if !tool(&["mke2fs", "-q", "-F", "-t", "ext4", "-O", "metadata_csum", name]) {
            eprintln!("skipped: mke2fs is not here");
            return None;
        }
        let read = || fs::read(&path).unwrap()[AT as usize..AT as usize + BYTES].to_vec();
        let old = read();
        assert!(tool(&["tune2fs", "-c", "77", name]));
        let new = read();
        assert!(old[..512] != new[..512] && old[512..CHECKSUM] == new[512..CHECKSUM]);
        Some((path, old, new))
    }

    fn put(path: &Path, description: &[u8]) {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(description, AT).unwrap();
    }

    fn is_whole(path: &Path) -> bool {
        tool(&["e2fsck", "-f", "-n", path.to_str().unwrap()])
    }

    #[test]
    fn a_description_of_two_halves_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let Some((path, old, new)) = system(dir.path()) else { return };
        for torn in [[&new[..512], &old[512..]].concat(), [&old[..512], &new[512..]].concat()] {
            put(&path, &torn);
            assert!(!is_whole(&path), "torn, and nobody minds");
            assert!(mend(&path).unwrap());
            assert!(is_whole(&path));
            assert!(!mend(&path).unwrap());
        }
    }

    #[test]
    fn what_is_whole_or_no_such_thing_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let Some((path, _, new)) = system(dir.path()) else { return };
        let spoil = |at: usize, with: u8| {
            let mut other = new.clone();
            other[at] = with;
            other
        };
        // Whole; no ext4; without checksums; larger than the device; blocks of no size.
        for description in [new.clone(), spoil(0x38, 0), spoil(0x65, 0), spoil(0x07, 1), spoil(0x18, 40), vec![0; BYTES]] {
            put(&path, &description);
            let before = fs::read(&path).unwrap();
            assert!(!mend(&path).unwrap());
            assert!(fs::read(&path).unwrap() == before);
        }
    }
}
