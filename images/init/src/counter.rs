//! The sector in which U-Boot's script counts tries: which slot is good, how many tries the other one has left.
//!
//! In: a file of one sector on the system's partition. Out: the same file, written in place: a power cut leaves the old sector or
//! the new one, and the file system around it stays as it was. Never: a file that changes its size.
//! Mirrors `limpet_device::os::uboot`.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

pub const FILE: &str = "limpet/slots";
const BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The slot that is started unless the other one has tries left.
    pub good: char,
    pub left: u32,
}

/// As U-Boot's script judges: what cannot be read is a, and no tries.
pub fn read(system: &Path) -> Counter {
    let text = fs::read(system.join(FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(BYTES)]).into_owned();
    let word = |key: &str| text.split(['\n', '\0']).find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let good = if word("limpet_good=") == "b" { 'b' } else { 'a' };
    Counter { good, left: word("limpet_left=").parse().ok().filter(|n| *n <= 3).unwrap_or(0) }
}

pub fn write(system: &Path, counter: Counter) -> Result<(), String> {
    let path = system.join(FILE);
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut sector = format!("limpet_good={}\nlimpet_left={}\n", counter.good, counter.left).into_bytes();
    sector.resize(BYTES, 0);
    let file = OpenOptions::new().write(true).open(&path).map_err(told)?;
    if file.metadata().map_err(told)?.len() != BYTES as u64 {
        return Err(format!("{} is not one sector: write the card again with `limpet flash`", path.display()));
    }
    file.write_all_at(&sector, 0).map_err(told)?;
    file.sync_all().map_err(told)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_sector_whatever_happens_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert_eq!(read(at), Counter { good: 'a', left: 0 });
        assert!(write(at, Counter { good: 'a', left: 3 }).is_err());
        fs::create_dir(at.join("limpet")).unwrap();
        fs::write(at.join(FILE), [0; BYTES]).unwrap();
        let counter = Counter { good: 'b', left: 3 };
        write(at, counter).unwrap();
        assert_eq!(read(at), counter);
        assert_eq!(fs::metadata(at.join(FILE)).unwrap().len(), 512);
        // As U-Boot exports it: in its own order, filled up with zeros.
        let mut sector = b"limpet_left=2\nlimpet_good=b".to_vec();
        sector.resize(BYTES, 0);
        fs::write(at.join(FILE), sector).unwrap();
        assert_eq!(read(at), Counter { good: 'b', left: 2 });
        for bad in ["", "limpet_good=c\nlimpet_left=9\n", "limpet_good=bb\n", "\u{fffd}limpet_good=b"] {
            fs::write(at.join(FILE), bad).unwrap();
            assert_eq!(read(at), Counter { good: 'a', left: 0 }, "{bad:?}");
            assert!(write(at, counter).unwrap_err().contains("not one sector"));
        }
    }
}
