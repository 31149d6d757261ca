//! A GPT, both copies. Pure.
//!
//! In: partitions of a plan. Out: bytes for the beginning and the end of the image. Identifiers come from the board's name and
//! the version, so that the same image has the same ones. Never: randomness.

use crate::plan::{Format, Partition};
use crate::table::crc32;
use sha2::{Digest, Sha256};

const SECTOR: u64 = 512;
/// EFI system partition, and Linux data, as GPT stores them.
const EFI: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
const LINUX: [u8; 16] = [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];

/// A version 8 UUID (RFC 9562) from a name.
pub fn uuid(name: &str) -> [u8; 16] {
    let sum = Sha256::digest(name.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&sum[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

pub fn uuid_text(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn mixed(mut id: [u8; 16]) -> [u8; 16] {
    id[..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    id
}

/// (the first 34 sectors, the last 33 sectors)
pub fn tables(parts: &[Partition], image_bytes: u64, seed: &str) -> (Vec<u8>, Vec<u8>) {
    let sectors = image_bytes / SECTOR;
    let mut entries = vec![0u8; 128 * 128];
    for (part, entry) in parts.iter().zip(entries.chunks_exact_mut(128)) {
        entry[..16].copy_from_slice(if part.format == Format::Ext4 { &LINUX } else { &EFI });
        entry[16..32].copy_from_slice(&mixed(uuid(&format!("{seed} {}", part.name))));
        entry[32..40].copy_from_slice(&(part.start / SECTOR).to_le_bytes());
        entry[40..48].copy_from_slice(&((part.start + part.bytes) / SECTOR - 1).to_le_bytes());
        for (unit, at) in part.name.encode_utf16().zip((56..).step_by(2)) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
    }
    let header = |own: u64, other: u64, entries_at: u64| {
        let mut h = vec![0u8; 512];
        h[..8].copy_from_slice(b"EFI PART");
        h[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        h[24..32].copy_from_slice(&own.to_le_bytes());
        h[32..40].copy_from_slice(&other.to_le_bytes());
        h[40..48].copy_from_slice(&34u64.to_le_bytes());
        h[48..56].copy_from_slice(&(sectors - 34).to_le_bytes());
        h[56..72].copy_from_slice(&mixed(uuid(seed)));
        h[72..80].copy_from_slice(&entries_at.to_le_bytes());
        h[80..84].copy_from_slice(&128u32.to_le_bytes());
        h[84..88].copy_from_slice(&128u32.to_le_bytes());
        h[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&h[..92]);
        h[16..20].copy_from_slice(&sum.to_le_bytes());
        h
    };
    let mut protective = vec![0u8; 512];
    protective[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    protective[458..462].copy_from_slice(&(sectors - 1).min(u64::from(u32::MAX)).to_le_bytes()[..4]);
    protective[510..].copy_from_slice(&[0x55, 0xaa]);
    let first = [protective, header(1, sectors - 1, 2), entries.clone()].concat();
    let back = header(sectors - 1, 1, sectors - 33);
    let last = [entries, back].concat();
    (first, last)
}
