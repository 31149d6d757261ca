//! A GPT with its last partition grown to the end of the drive. Pure.
//!
//! In: the first 34 sectors, the drive's size. Out: new sectors for both ends, or nothing to do.
//! Never: moves a partition's beginning; touches a table whose checksums do not fit.

const SECTOR: u64 = 512;
pub const TABLE_BYTES: usize = 34 * 512;

#[derive(Debug, PartialEq, Eq)]
pub struct Grown {
    /// Sectors 1 to 33 (the protective MBR stays).
    pub first: Vec<u8>,
    /// The last 33 sectors.
    pub last: Vec<u8>,
    /// Of the grown partition, in bytes.
    pub start: u64,
    pub length: u64,
}

pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

fn get(bytes: &[u8], at: usize, n: usize) -> u64 {
    bytes[at..at + n].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

fn set(bytes: &mut [u8], at: usize, n: usize, value: u64) {
    bytes[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
}

fn seal(header: &mut [u8]) {
    set(header, 16, 4, 0);
    let sum = crc32(&header[..92]);
    set(header, 16, 4, u64::from(sum));
}

/// Whether a header and its entries are whole.
fn is_whole(header: &[u8], entries: &[u8]) -> bool {
    let mut sealed = header.to_vec();
    seal(&mut sealed);
    header.starts_with(b"EFI PART") && sealed == header && u64::from(crc32(entries)) == get(header, 88, 4)
}

/// Sectors 1 to 33 anew from the copy in the drive's last 33 sectors, when they are damaged and the copy is not: the power went
/// while they were written.
pub fn heal(head: &[u8], last: &[u8]) -> Option<Vec<u8>> {
    if head.len() < TABLE_BYTES || last.len() != 33 * 512 || is_whole(&head[512..1024], &head[1024..TABLE_BYTES]) {
        return None;
    }
    let (entries, back) = last.split_at(32 * 512);
    if !is_whole(back, entries) {
        return None;
    }
    let mut header = back.to_vec();
    let (own, other) = (get(back, 24, 8), get(back, 32, 8));
    set(&mut header, 24, 8, other);
    set(&mut header, 32, 8, own);
    set(&mut header, 72, 8, 2);
    seal(&mut header);
    Some([&header, entries].concat())
}

/// `number` is the partition's, from 1 on; it has to be the last one on the drive.
pub fn grow(head: &[u8], drive_bytes: u64, number: u32) -> Result<Option<Grown>, String> {
    let wrong = |why: &str| Err(format!("the partition table {why}"));
    if head.len() < TABLE_BYTES || &head[512..520] != b"EFI PART" || get(head, 512 + 12, 4) != 92 {
        return wrong("is not the one that Limpet OS writes");
    }
    let mut header = head[512..1024].to_vec();
    let sum = get(&header, 16, 4);
    seal(&mut header);
    let entries_sum = u64::from(crc32(&head[1024..TABLE_BYTES]));
    if sum != get(&header, 16, 4) || entries_sum != get(&header, 88, 4) {
        return wrong("is damaged");
    }
    let mut entries = head[1024..TABLE_BYTES].to_vec();
    let at = (number as usize).saturating_sub(1) * 128;
    if number == 0 || at + 128 > entries.len() {
        return wrong("has no such partition");
    }
    let (start, end) = (get(&entries, at + 32, 8), get(&entries, at + 40, 8));
    let sectors = drive_bytes / SECTOR;
    let usable = sectors.saturating_sub(34);
    // Whole MiB, as everything else on the card.
    let new_end = usable / 2048 * 2048 - 1;
    let later = entries.chunks(128).any(|e| get(e, 32, 8) > start);
    if later {
        return wrong("has other partitions behind the data");
    }
    if new_end <= end || start == 0 {
        return Ok(None);
    }
    set(&mut entries, at + 40, 8, new_end);
    set(&mut header, 32, 8, sectors - 1);
    set(&mut header, 48, 8, usable);
    set(&mut header, 88, 4, u64::from(crc32(&entries)));
    seal(&mut header);
    let mut back = header.clone();
    set(&mut back, 24, 8, sectors - 1);
    set(&mut back, 32, 8, 1);
    set(&mut back, 72, 8, sectors - 33);
    seal(&mut back);
    let length = (new_end + 1 - start) * SECTOR;
    Ok(Some(Grown { first: [header, entries.clone()].concat(), last: [entries, back].concat(), start: start * SECTOR, length }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(parts: &[(u64, u64)]) -> Vec<u8> {
        let mut head = vec![0; TABLE_BYTES];
        head[512..520].copy_from_slice(b"EFI PART");
        set(&mut head, 512 + 12, 4, 92);
        set(&mut head, 512 + 24, 8, 1);
        set(&mut head, 512 + 72, 8, 2);
        for (i, (start, end)) in parts.iter().enumerate() {
            let at = 1024 + i * 128;
            head[at] = 1;
            set(&mut head, at + 32, 8, *start);
            set(&mut head, at + 40, 8, *end);
        }
        let sum = crc32(&head[1024..]);
        set(&mut head, 512 + 88, 4, u64::from(sum));
        seal(&mut head[512..1024]);
        head
    }

    #[test]
    fn the_last_partition_grows_and_both_tables_agree() {
        let head = table(&[(2048, 4095), (4096, 8191)]);
        let grown = grow(&head, 1 << 30, 2).unwrap().unwrap();
        assert_eq!(grown.start, 4096 * 512);
        assert_eq!((grown.start + grown.length) % (1 << 20), 0);
        assert!(grown.start + grown.length <= (1 << 30) - 34 * 512 + 512);
        // What was written is read again: nothing is left to grow.
        let again = [&head[..512], &grown.first].concat();
        assert_eq!(grow(&again, 1 << 30, 2).unwrap(), None);
        assert_eq!(grown.first[512..], grown.last[..32 * 512]);
        assert_eq!(get(&grown.last, 32 * 512 + 24, 8), (1 << 30) / 512 - 1);
    }

    /// As `grow::partition` writes: the copy, a sync, the first one. Of what is not synced any sectors may be there.
    #[test]
    fn a_power_cut_while_it_grows_leaves_a_table_that_can_be_used_and_healed() {
        let bytes = 64usize << 20;
        let old = table(&[(2048, 4095), (4096, 8191)]);
        let grown = grow(&old, bytes as u64, 2).unwrap().unwrap();
        let mut x = 88_172_645_463_325_252u64;
        let mut next = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let healthy = |head: &[u8]| is_whole(&head[512..1024], &head[1024..TABLE_BYTES]);
        let (mut healed, mut stayed) = (0, 0);
        for round in 0..500 {
            let mut head = old.clone();
            let mut last = vec![0; 33 * 512];
            let second = round % 2 == 1;
            if second {
                last.copy_from_slice(&grown.last);
            }
            let (place, new) = if second { (&mut head[512..], &grown.first) } else { (&mut last[..], &grown.last) };
            let keep = next() % 34;
            for (there, sector) in place.chunks_mut(512).zip(new.chunks(512)) {
                if next() % 33 < keep {
                    there.copy_from_slice(sector);
                }
            }
            let head = match heal(&head, &last) {
                Some(first) => {
                    healed += 1;
                    assert_eq!(first, grown.first);
                    [&head[..512], &first].concat()
                }
                None => {
                    stayed += 1;
                    head
                }
            };
            assert!(healthy(&head), "round {round}");
            // Whatever it is now, it grows to the same in the end.
            let again = grow(&head, bytes as u64, 2).unwrap().map_or(head[512..].to_vec(), |g| g.first);
            assert_eq!(again, grown.first, "round {round}");
        }
        assert!(healed > 50 && stayed > 50, "{healed} {stayed}");
        assert_eq!(heal(&old[..100], &grown.last), None);
        assert_eq!(heal(&vec![0; TABLE_BYTES], &vec![0; 33 * 512]), None);
    }

    #[test]
    fn what_is_not_understood_is_not_touched() {
        let head = table(&[(2048, 4095), (4096, 8191)]);
        assert!(grow(&head, 1 << 30, 1).unwrap_err().contains("behind"));
        assert!(grow(&head, 1 << 30, 0).is_err() && grow(&head, 1 << 30, 200).is_err());
        assert_eq!(grow(&head, 8192 * 512, 2).unwrap(), None);
        for at in [512, 600, 1024, 1200] {
            let mut bad = head.clone();
            bad[at] ^= 1;
            assert!(grow(&bad, 1 << 30, 2).is_err(), "{at}");
        }
        assert!(grow(&[], 1 << 30, 2).is_err());
    }
}
