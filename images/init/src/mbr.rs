//! The partition table in the first sector: Limpet's own mark, and its last partition grown to the end of the drive. Pure.
//!
//! In: the first sector, the drive's size. Out: a new first sector, or nothing to do: one sector is all that is written, so that
//! a power cut leaves one table or the other. Never: a table without the mark; a partition's beginning moved.
//! Mirrors `limpet_device::os::mbr`.

const SECTOR: u64 = 512;
const MARK: &[u8; 4] = b"LMPT";
const FAT32_LBA: u8 = 0x0c;
const LINUX: u8 = 0x83;

#[derive(Debug, PartialEq, Eq)]
pub struct Grown {
    pub sector: Vec<u8>,
    /// Of the grown partition, in bytes.
    pub start: u64,
    pub length: u64,
}

fn is_ours(head: &[u8]) -> bool {
    head.len() >= 512 && head[440..444] == *MARK && head[510..512] == [0x55, 0xaa]
}

fn entry(head: &[u8], number: u32) -> &[u8] {
    let at = 446 + (number as usize - 1) * 16;
    &head[at..at + 16]
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

/// The numbers of the system's and the data's partition on a card of ours.
pub fn parts(head: &[u8]) -> Option<(u32, u32)> {
    let of = |kind: u8| (1..=4).find(|n| entry(head, *n)[4] == kind);
    is_ours(head).then(|| Some((of(FAT32_LBA)?, of(LINUX)?))).flatten()
}

pub fn grow(head: &[u8], drive_bytes: u64, number: u32) -> Result<Option<Grown>, String> {
    if !is_ours(head) || !(1..=4).contains(&number) {
        return Err("the partition table is not the one that Limpet OS writes".into());
    }
    let (start, length) = (number_at(entry(head, number), 8), number_at(entry(head, number), 12));
    if (1..=4).any(|n| number_at(entry(head, n), 8) > start) {
        return Err("the partition table has other partitions behind the data".into());
    }
    // Whole MiB, and no sector that the table cannot name.
    let end = (drive_bytes / SECTOR).min(u64::from(u32::MAX)) / 2048 * 2048;
    if start == 0 || end <= start + length {
        return Ok(None);
    }
    let mut sector = head[..512].to_vec();
    let at = 446 + (number as usize - 1) * 16 + 12;
    sector[at..at + 4].copy_from_slice(&((end - start) as u32).to_le_bytes());
    Ok(Some(Grown { sector, start: start * SECTOR, length: (end - start) * SECTOR }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[440..444].copy_from_slice(MARK);
        head[510..].copy_from_slice(&[0x55, 0xaa]);
        for (i, (kind, start, sectors)) in entries.iter().enumerate() {
            let at = 446 + i * 16;
            head[at + 4] = *kind;
            head[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            head[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        head
    }

    #[test]
    fn the_last_partition_grows_once_and_nothing_else_changes() {
        let head = table(&[(FAT32_LBA, 8192, 524_288), (LINUX, 532_480, 131_072)]);
        assert_eq!(parts(&head), Some((1, 2)));
        let bytes = (1u64 << 30) + 700_000;
        let grown = grow(&head, bytes, 2).unwrap().unwrap();
        assert_eq!((grown.start, grown.start + grown.length), (532_480 * 512, 1 << 30));
        let differ: Vec<usize> = (0..512).filter(|i| head[*i] != grown.sector[*i]).collect();
        assert!(differ.iter().all(|i| (474..478).contains(i)), "{differ:?}");
        assert_eq!(grow(&grown.sector, bytes, 2).unwrap(), None);
        // Beyond what the table can name it grows as far as that.
        let large = grow(&head, 8 << 40, 2).unwrap().unwrap();
        assert!(large.start + large.length <= u64::from(u32::MAX) * 512);
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        let head = table(&[(FAT32_LBA, 8192, 524_288), (LINUX, 532_480, 131_072)]);
        assert!(grow(&head, 1 << 30, 1).unwrap_err().contains("behind"));
        assert!(grow(&head, 1 << 30, 0).is_err() && grow(&head, 1 << 30, 5).is_err());
        assert_eq!(grow(&head, 300 << 20, 2).unwrap(), None);
        for at in [440, 443, 510, 511] {
            let mut other = head.clone();
            other[at] ^= 1;
            assert!(grow(&other, 1 << 30, 2).is_err() && parts(&other).is_none(), "{at}");
        }
        assert!(parts(&[]).is_none() && grow(&[], 1 << 30, 2).is_err());
        assert!(parts(&table(&[(FAT32_LBA, 8192, 1)])).is_none());
    }
}
