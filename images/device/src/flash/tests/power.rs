//! The power goes while a card is written: what was written and synced is there, of the rest any sectors in any order.
//!
//! In: the log of one whole write, random points in it (10; `LIMPET_POWER_CUTS=500` for more). Out: a card that is whole, or that
//! nobody takes for one. The card held an older system before.

use crate::flash::{Job, target::Step, Target, write_all};
use crate::limits::{BLOCK_BYTES, HEAD_BYTES};
use crate::table;
use std::{fs, sync::Arc};

const SECTOR: usize = 512;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A table with one partition, a loader between the two, and noise that differs with the seed.
fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut data: Vec<u8> = (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    data[..SECTOR].fill(0);
    data[446 + 4] = 0x83;
    data[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    data[446 + 12..446 + 16].copy_from_slice(&((bytes / SECTOR - 2048) as u32).to_le_bytes());
    data[510..512].copy_from_slice(&[0x55, 0xaa]);
    data
}

/// What is on the card when the power goes after `cut` steps and in the middle of the next ones.
fn after(log: &[Step], cut: usize, card: &mut [u8], random: &mut Random) {
    let synced = log[..cut].iter().rposition(|s| matches!(s, Step::Sync)).unwrap_or(0);
    for (at, step) in log[..cut].iter().enumerate() {
        let Step::Write(offset, bytes) = step else { continue };
        let sure = at < synced;
        // A drive's own cache: all of it, nothing of it, or some of its sectors.
        let mood = random.next() % 3;
        for (i, sector) in bytes.chunks(SECTOR).enumerate() {
            if sure || mood == 0 || (mood == 1 && random.next() % 2 == 0) {
                let from = *offset as usize + i * SECTOR;
                card[from..from + sector.len()].copy_from_slice(sector);
            }
        }
    }
}

#[test]
fn a_card_whose_power_went_is_whole_or_nobody_takes_it_for_a_card() {
    let cuts: u64 = std::env::var("LIMPET_POWER_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("card");
    let (old, new) = (image(3, 3 * BLOCK_BYTES), image(5, 2 * BLOCK_BYTES + HEAD_BYTES));
    let target = Target::open(&path).unwrap();
    let log = target.log.clone();
    let finish: crate::flash::Finish<'_> = Box::new(|target, head| {
        head[440] = 0x42;
        let mut block = crate::flash::target::Aligned::new(4096);
        block.fill(0x17);
        target.write(&block, HEAD_BYTES as u64 * 2).map_err(|e| e.to_string())
    });
    let job = Job { target, progress: Arc::default(), finish: Some(finish) };
    write_all(&new[..], None, vec![job])[0].as_ref().unwrap();
    let log = log.lock().unwrap().clone();
    let mut whole = old.clone();
    let made = fs::read(&path).unwrap();
    whole[..made.len()].copy_from_slice(&made);
    assert!(log.len() > 8 && made[440] == 0x42 && made[HEAD_BYTES * 2] == 0x17);
    let mut random = Random(88_172_645_463_325_252);
    let (mut whole_ones, mut none) = (0, 0);
    // Every point between two steps once, then random ones: what the caches keep differs each time.
    let points: Vec<usize> = (0..=log.len()).chain((0..cuts).map(|_| random.next() as usize % (log.len() + 1))).collect();
    for cut in points {
        let mut card = old.clone();
        after(&log, cut, &mut card, &mut random);
        // Before the first sync the old system may still be there, untouched.
        if card == old {
            continue;
        }
        match table::read(&card[..64 * SECTOR], card.len() as u64) {
            Ok(_) if card[..SECTOR] == old[..SECTOR] => {
                let touched = card.iter().zip(&old).skip(HEAD_BYTES).any(|(a, b)| a != b);
                assert!(!touched, "cut after {cut} steps: the old table over a new content");
            }
            Ok(_) => {
                assert!(card == whole, "cut after {cut} steps of {}: it looks good and is not", log.len());
                whole_ones += 1;
            }
            Err(_) => none += 1,
        }
    }
    assert!(whole_ones > 0 && none > 0, "{whole_ones} whole, {none} none");
}
