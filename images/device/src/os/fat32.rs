//! A FAT32 volume from a list of files, byte for byte the same each time. Pure.
//!
//! In: size, files by path. Out: pieces of the volume with their offsets. After Microsoft's specification of 2005 ("fatgen103").
//! The crate that reads and changes volumes elsewhere writes folders that fsck does not like, and counts no free clusters.
//! Never: a time, a folder of more than one cluster.

use std::collections::BTreeMap;

const SECTOR: u64 = 512;
const SECTORS_PER_CLUSTER: u64 = 4;
const CLUSTER: u64 = SECTOR * SECTORS_PER_CLUSTER;
const RESERVED: u64 = 32;
const END: u32 = 0x0fff_ffff;
/// The first of January 1980.
const DATE: u16 = 0x0021;

/// (offset in the volume, bytes)
pub type Piece = (u64, Vec<u8>);

struct Volume {
    /// From entry 0 on.
    fat: Vec<u32>,
    data_start: u64,
    pieces: Vec<Piece>,
}

enum Entry<'a> {
    Folder(BTreeMap<&'a str, Entry<'a>>),
    File(&'a [u8]),
}

/// `None` when it does not fit, or a path is not one.
pub fn volume(bytes: u64, serial: u32, label: &[u8; 11], files: &[(&str, &[u8])]) -> Option<Vec<Piece>> {
    let mut root = BTreeMap::new();
    for (path, content) in files {
        insert(&mut root, path.trim_start_matches('/'), content)?;
    }
    let sectors = bytes / SECTOR;
    // Four bytes for each cluster, a little more than needed because the table itself takes room.
    let fat_sectors = (sectors / SECTORS_PER_CLUSTER + 2).div_ceil(SECTOR / 4);
    let data_start = (RESERVED + 2 * fat_sectors) * SECTOR;
    let clusters = bytes.checked_sub(data_start)? / CLUSTER;
    if !(65_525..0x0fff_fff5).contains(&clusters) {
        return None;
    }
    let mut volume = Volume { fat: vec![0x0fff_fff8, END], data_start, pieces: Vec::new() };
    volume.folder(&root, None, Some(label))?;
    if volume.fat.len() as u64 > clusters + 2 {
        return None;
    }
    let used = volume.fat.len() as u64 - 2;
    let mut pieces = volume.pieces;
    let boot = boot_sector(sectors as u32, fat_sectors as u32, serial, label);
    let info = info_sector((clusters - used) as u32, volume.fat.len() as u32);
    for base in [0, 6] {
        pieces.push((base * SECTOR, boot.clone()));
        pieces.push(((base + 1) * SECTOR, info.clone()));
    }
    let table: Vec<u8> = volume.fat.iter().flat_map(|e| e.to_le_bytes()).collect();
    for copy in 0..2 {
        pieces.push(((RESERVED + copy * fat_sectors) * SECTOR, table.clone()));
    }
    Some(pieces)
}

fn insert<'a>(folder: &mut BTreeMap<&'a str, Entry<'a>>, path: &'a str, content: &'a [u8]) -> Option<()> {
    match path.split_once('/') {
        None if path.is_empty() || path.len() > 255 || !path.is_ascii() => None,
        None => folder.insert(path, Entry::File(content)).is_none().then_some(()),
        Some((first, rest)) => match folder.entry(first).or_insert_with(|| Entry::Folder(BTreeMap::new())) {
            Entry::Folder(inner) => insert(inner, rest, content),
            Entry::File(_) => None,
        },
    }
}

impl Volume {
    /// The first cluster of so many in a row.
    fn take(&mut self, count: u64) -> u32 {
        let first = self.fat.len() as u32;
        for i in 1..=count as u32 {
            self.fat.push(if u64::from(i) == count { END } else { first + i });
        }
        first
    }

    fn place(&self, cluster: u32) -> u64 {
        self.data_start + u64::from(cluster - 2) * CLUSTER
    }

    /// `parent`: cluster of the folder above, 0 for the root's own; `None` for the root itself.
    fn folder(&mut self, entries: &BTreeMap<&str, Entry<'_>>, parent: Option<u32>, label: Option<&[u8; 11]>) -> Option<u32> {
        let own = self.take(1);
        let mut bytes = Vec::new();
        if let Some(label) = label {
            bytes.extend(record(label, 0x08, 0, 0));
        }
        if let Some(parent) = parent {
            bytes.extend(record(b".          ", 0x10, own, 0));
            bytes.extend(record(b"..         ", 0x10, parent, 0));
        }
        let mut number = 0;
        for (name, entry) in entries {
            let (attributes, cluster, size) = match entry {
                Entry::Folder(inner) => (0x10, self.folder(inner, Some(if parent.is_none() { 0 } else { own }), None)?, 0),
                Entry::File([]) => (0x20, 0, 0),
                Entry::File(content) => {
                    let first = self.take((content.len() as u64).div_ceil(CLUSTER));
                    self.pieces.push((self.place(first), content.to_vec()));
                    (0x20, first, u32::try_from(content.len()).ok()?)
                }
            };
            let short = short_name(name, &mut number);
            bytes.extend(long_name(name, &short));
            bytes.extend(record(&short, attributes, cluster, size));
        }
        if bytes.len() as u64 > CLUSTER {
            return None;
        }
        self.pieces.push((self.place(own), bytes));
        Some(own)
    }
}

fn record(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; 32] {
    let mut r = [0; 32];
    r[..11].copy_from_slice(name);
    r[11] = attributes;
    for at in [16, 18, 24] {
        r[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    r[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    r[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    r[28..].copy_from_slice(&size.to_le_bytes());
    r
}

/// `NAME~1.EXT`, or the name itself where it is one of eight and three.
fn short_name(name: &str, number: &mut u32) -> [u8; 11] {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fit = |s: &str| s.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_uppercase()).collect::<Vec<u8>>();
    let (mut stem_fit, mut extension_fit) = (fit(stem), fit(extension));
    let whole = stem_fit.len() == stem.len() && stem.len() <= 8 && extension_fit.len() == extension.len() && extension.len() <= 3;
    extension_fit.truncate(3);
    if !whole {
        *number += 1;
        let tail = format!("~{number}");
        stem_fit.truncate(8 - tail.len());
        stem_fit.extend(tail.bytes());
    }
    let mut short = [b' '; 11];
    short[..stem_fit.len()].copy_from_slice(&stem_fit);
    short[8..8 + extension_fit.len()].copy_from_slice(&extension_fit);
    short
}

/// Nothing for a name that its short one says completely.
fn long_name(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let (stem, extension) = (String::from_utf8_lossy(&short[..8]), String::from_utf8_lossy(&short[8..]));
    let plain = match extension.trim() {
        "" => stem.trim().to_string(),
        extension => format!("{}.{extension}", stem.trim()),
    };
    if plain == name {
        return Vec::new();
    }
    let sum = short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(13) {
        units.push(0);
        units.resize(units.len().next_multiple_of(13), 0xffff);
    }
    let count = units.len() / 13;
    let mut out = Vec::new();
    for (index, part) in units.chunks(13).enumerate().rev() {
        let mut r = [0u8; 32];
        r[0] = (index + 1) as u8 | if index + 1 == count { 0x40 } else { 0 };
        (r[11], r[13]) = (0x0f, sum);
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        for (unit, at) in part.iter().zip(places) {
            r[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend(r);
    }
    out
}

fn boot_sector(sectors: u32, fat_sectors: u32, serial: u32, label: &[u8; 11]) -> Vec<u8> {
    let mut b = vec![0u8; 512];
    b[..11].copy_from_slice(b"\xeb\x58\x90limpetos");
    b[11..13].copy_from_slice(&512u16.to_le_bytes());
    b[13] = SECTORS_PER_CLUSTER as u8;
    b[14..16].copy_from_slice(&(RESERVED as u16).to_le_bytes());
    (b[16], b[21]) = (2, 0xf8);
    (b[24], b[26]) = (63, 255);
    b[32..36].copy_from_slice(&sectors.to_le_bytes());
    b[36..40].copy_from_slice(&fat_sectors.to_le_bytes());
    (b[44], b[48], b[50]) = (2, 1, 6);
    (b[64], b[66]) = (0x80, 0x29);
    b[67..71].copy_from_slice(&serial.to_le_bytes());
    b[71..82].copy_from_slice(label);
    b[82..90].copy_from_slice(b"FAT32   ");
    b[510..].copy_from_slice(&[0x55, 0xaa]);
    b
}

fn info_sector(free: u32, next: u32) -> Vec<u8> {
    let mut b = vec![0u8; 512];
    b[..4].copy_from_slice(b"RRaA");
    b[484..488].copy_from_slice(b"rrAa");
    b[488..492].copy_from_slice(&free.to_le_bytes());
    b[492..496].copy_from_slice(&next.to_le_bytes());
    b[510..].copy_from_slice(&[0x55, 0xaa]);
    b
}
