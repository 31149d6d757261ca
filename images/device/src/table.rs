//! Partition tables and the kind of file system behind each entry, as found.
//!
//! In: the beginning of an image or a card (hostile until parsed). Out: a list of areas. Pure.
//! Never: an area that lies outside of the card, or overlaps another.

use serde::Serialize;

pub const SECTOR: u64 = 512;
const ENTRIES_MAX: usize = 128;

/// Nobody retries: the image is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("it has no partition table: is it really an image of a whole card?")]
    None,
    #[error("its partition table is damaged: {0}")]
    Damaged(&'static str),
    #[error("partition {0} lies beyond the end: is the image truncated?")]
    Beyond(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Area {
    /// From 1 on, as Linux numbers them.
    pub number: usize,
    pub start: u64,
    pub bytes: u64,
    pub name: String,
    pub is_efi: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// `head` is at least the first 34 sectors; `size` the bytes of the whole.
pub fn read(head: &[u8], size: u64) -> Result<Vec<Area>, TableError> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(TableError::None);
    }
    let protective = (0..4).any(|i| head[446 + i * 16 + 4] == 0xee);
    let areas = if protective { gpt(head)? } else { mbr(head) };
    check(areas, size)
}

fn check(areas: Vec<Area>, size: u64) -> Result<Vec<Area>, TableError> {
    if areas.is_empty() {
        return Err(TableError::None);
    }
    let mut sorted: Vec<&Area> = areas.iter().collect();
    sorted.sort_by_key(|a| a.start);
    let mut at = SECTOR;
    for area in sorted {
        if area.start < at {
            return Err(TableError::Damaged("two partitions overlap"));
        }
        at = area.start.checked_add(area.bytes).ok_or(TableError::Beyond(area.number))?;
        if at > size {
            return Err(TableError::Beyond(area.number));
        }
    }
    Ok(areas)
}

fn mbr(head: &[u8]) -> Vec<Area> {
    (0..4)
        .filter_map(|i| {
            let entry = &head[446 + i * 16..446 + (i + 1) * 16];
            let (start, sectors) = (u32_at(entry, 8)?, u32_at(entry, 12)?);
            // 5 and 15 hold further tables, which no board's image uses.
            let used = !matches!(entry[4], 0 | 0x05 | 0x0f) && sectors > 0;
            used.then(|| Area {
                number: i + 1,
                start: u64::from(start) * SECTOR,
                bytes: u64::from(sectors) * SECTOR,
                name: String::new(),
                is_efi: entry[4] == 0xef,
            })
        })
        .collect()
}

const EFI_TYPE: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

fn gpt(head: &[u8]) -> Result<Vec<Area>, TableError> {
    let header = head.get(512..1024).ok_or(TableError::Damaged("it is cut off"))?;
    if &header[..8] != b"EFI PART" {
        return Err(TableError::Damaged("the GPT's signature is missing"));
    }
    let damaged = |why| move || TableError::Damaged(why);
    let at = u64_at(header, 72).filter(|lba| *lba < 64).ok_or_else(damaged("the GPT's entries are not where they belong"))?;
    let count = u32_at(header, 80).filter(|n| *n as usize <= ENTRIES_MAX).ok_or_else(damaged("too many entries"))?;
    let each = u32_at(header, 84).filter(|n| *n == 128).ok_or_else(damaged("entries of an unknown size"))?;
    let from = (at * SECTOR) as usize;
    let all = head.get(from..from + (count * each) as usize).ok_or_else(damaged("it is cut off"))?;
    if u32_at(header, 88) != Some(crc32(all)) {
        return Err(TableError::Damaged("the GPT's checksum does not fit"));
    }
    Ok(all.chunks_exact(128).enumerate().filter_map(|(i, entry)| gpt_entry(i + 1, entry)).collect())
}

fn gpt_entry(number: usize, entry: &[u8]) -> Option<Area> {
    if entry[..16] == [0; 16] {
        return None;
    }
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let units: Vec<u16> = entry[56..128].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let name: String = char::decode_utf16(units).map_while(|c| c.ok().filter(|c| *c != '\0')).collect();
    let start = first.checked_mul(SECTOR)?;
    let bytes = last.checked_sub(first)?.checked_add(1)?.checked_mul(SECTOR)?;
    Some(Area { number, start, bytes, name, is_efi: entry[..16] == EFI_TYPE })
}

/// CRC-32 as GPT and gzip use it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Fat,
    Ext4,
    Other,
}

/// What the first 4 KiB of an area look like.
pub fn file_system(first: &[u8]) -> FileSystem {
    let fat_name = |at: usize| first.get(at..at + 3) == Some(b"FAT");
    if first.get(0x438..0x43a) == Some(&[0x53, 0xef]) {
        FileSystem::Ext4
    } else if first.get(510..512) == Some(&[0x55, 0xaa]) && (fat_name(54) || fat_name(82)) {
        FileSystem::Fat
    } else {
        FileSystem::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbr_with(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut head = vec![0u8; 34 * 512];
        for (i, (kind, start, sectors)) in entries.iter().enumerate() {
            let at = 446 + i * 16;
            head[at + 4] = *kind;
            head[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            head[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head
    }

    #[test]
    fn an_mbr_is_read_and_doubted() {
        let size = 1 << 30;
        let areas = read(&mbr_with(&[(0x0c, 8192, 1000), (0x83, 16384, 2000)]), size).unwrap();
        assert_eq!(areas.iter().map(|a| (a.number, a.start, a.bytes)).collect::<Vec<_>>(), [
            (1, 8192 * 512, 1000 * 512),
            (2, 16384 * 512, 2000 * 512)
        ]);
        assert_eq!(read(&mbr_with(&[]), size), Err(TableError::None));
        assert_eq!(read(&vec![0; 34 * 512], size), Err(TableError::None));
        let overlap = Err(TableError::Damaged("two partitions overlap"));
        assert_eq!(read(&mbr_with(&[(0x0c, 8192, 1000), (0x83, 8200, 9)]), size), overlap);
        assert_eq!(read(&mbr_with(&[(0x83, 0, 9)]), size), overlap);
        assert_eq!(read(&mbr_with(&[(0x83, 8192, u32::MAX)]), size), Err(TableError::Beyond(1)));
        assert_eq!(read(&[], size), Err(TableError::None));
    }

    #[test]
    fn a_damaged_gpt_is_told() {
        let head = mbr_with(&[(0xee, 1, 100)]);
        assert!(matches!(read(&head, 1 << 30), Err(TableError::Damaged(why)) if why.contains("signature")));
        let mut head = head;
        head[512..520].copy_from_slice(b"EFI PART");
        head[512 + 72..512 + 80].copy_from_slice(&2u64.to_le_bytes());
        head[512 + 80..512 + 84].copy_from_slice(&128u32.to_le_bytes());
        head[512 + 84..512 + 88].copy_from_slice(&128u32.to_le_bytes());
        assert!(matches!(read(&head, 1 << 30), Err(TableError::Damaged(why)) if why.contains("checksum")));
        head[512 + 80..512 + 84].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&head, 1 << 30), Err(TableError::Damaged(_))));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
