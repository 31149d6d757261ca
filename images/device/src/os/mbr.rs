//! The partition table in the first sector, for firmware that knows no other. Pure.
//!
//! In: partitions of a plan. Out: one sector, with Limpet's mark where other tables have a number of the disk: `limpet-init`
//! knows its card by it. Never: a partition beyond 2 TiB, which such a table cannot name.

use crate::plan::{Format, Partition};

const SECTOR: u64 = 512;
/// Mirrored by `limpet-init`'s mbr.rs.
pub const MARK: &[u8; 4] = b"LMPT";
const FAT32_LBA: u8 = 0x0c;
const LINUX: u8 = 0x83;
/// Cylinder, head and sector for "look at the number of the sector instead".
const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];

/// `None` when there are more than four, or one is out of reach.
pub fn table(parts: &[Partition]) -> Option<[u8; 512]> {
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(MARK);
    if parts.len() > 4 {
        return None;
    }
    for (part, entry) in parts.iter().zip(sector[446..510].chunks_exact_mut(16)) {
        let boots = part.format == Format::Fat32;
        entry[0] = if boots { 0x80 } else { 0 };
        entry[1..4].copy_from_slice(&NO_GEOMETRY);
        entry[4] = if boots { FAT32_LBA } else { LINUX };
        entry[5..8].copy_from_slice(&NO_GEOMETRY);
        entry[8..12].copy_from_slice(&u32::try_from(part.start / SECTOR).ok()?.to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(part.bytes / SECTOR).ok()?.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Some(sector)
}
