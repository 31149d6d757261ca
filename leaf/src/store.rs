//! Two records in flash, each written twice in turn: a power cut leaves the old one or the new one.
//!
//! In: records as bytes, NOR flash. Out: what was written last and is whole.
//! Shape: for each record two slots; in each: magic, number, length, CRC-32 over all of that and the record, record.
//! Never: erases the slot that holds the newest record; trusts a slot whose sum is wrong.

use alloc::{vec, vec::Vec};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};

const MAGIC: u32 = 0x4c4d_5031;
const HEAD: usize = 16;
/// One slot: a multiple of every usual page.
const SLOT: u32 = 24 * 1024;
const RECORDS: u32 = 2;
/// Flash that the records take.
pub const FLASH_BYTES: u32 = SLOT * 2 * RECORDS;
pub const RECORD_BYTES_MAX: usize = SLOT as usize - HEAD - 256;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Who this board is: its key, its certificate, where the hub is.
    Identity,
    /// What the core keeps.
    Kept,
}

/// Nobody retries but the core: the flash is worn out, or too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    TooLarge,
    Flash,
}

pub struct Store<F> {
    flash: F,
    /// Where the records begin.
    base: u32,
}

struct Slot {
    number: u32,
    at: u32,
    bytes: Vec<u8>,
}

impl<F: NorFlash + ReadNorFlash> Store<F> {
    /// `base`: a multiple of the flash's erase size; `FLASH_BYTES` from there on are the store's.
    pub fn new(flash: F, base: u32) -> Store<F> {
        Store { flash, base }
    }

    fn slots(&self, record: Record) -> [u32; 2] {
        let first = self.base + SLOT * 2 * record as u32;
        [first, first + SLOT]
    }

    fn read(&mut self, at: u32) -> Option<Slot> {
        let mut head = [0; HEAD];
        self.flash.read(at, &mut head).ok()?;
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (number, len, sum) = (word(4), word(8) as usize, word(12));
        if word(0) != MAGIC || len > RECORD_BYTES_MAX {
            return None;
        }
        // Some flash reads whole words only.
        let mut bytes = vec![0; len.next_multiple_of(F::READ_SIZE.max(1))];
        self.flash.read(at + HEAD as u32, &mut bytes).ok()?;
        bytes.truncate(len);
        (crc32(&[&head[..12], &bytes]) == sum).then_some(Slot { number, at, bytes })
    }

    fn newest(&mut self, record: Record) -> Option<Slot> {
        let found: Vec<Slot> = self.slots(record).into_iter().filter_map(|at| self.read(at)).collect();
        found.into_iter().max_by_key(|slot| slot.number)
    }

    /// What was written last; `None` before the first time.
    pub fn load(&mut self, record: Record) -> Option<Vec<u8>> {
        self.newest(record).map(|slot| slot.bytes)
    }

    /// Durable when it returns.
    pub fn save(&mut self, record: Record, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(StoreError::TooLarge);
        }
        let newest = self.newest(record);
        if newest.as_ref().is_some_and(|slot| slot.bytes == bytes) {
            return Ok(());
        }
        let [first, second] = self.slots(record);
        let at = if newest.as_ref().is_some_and(|slot| slot.at == first) { second } else { first };
        let mut all = Vec::with_capacity(HEAD + bytes.len() + F::WRITE_SIZE);
        all.extend(MAGIC.to_le_bytes());
        all.extend(newest.map_or(1, |slot| slot.number.wrapping_add(1)).to_le_bytes());
        all.extend((bytes.len() as u32).to_le_bytes());
        let sum = crc32(&[&all, bytes]);
        all.extend(sum.to_le_bytes());
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(F::WRITE_SIZE.max(1)), 0xff);
        let end = (all.len() as u32).next_multiple_of(F::ERASE_SIZE as u32);
        self.flash.erase(at, at + end).map_err(|_| StoreError::Flash)?;
        self.flash.write(at, &all).map_err(|_| StoreError::Flash)?;
        match self.read(at) {
            Some(slot) if slot.bytes == bytes => Ok(()),
            _ => Err(StoreError::Flash),
        }
    }
}

/// As in IEEE 802.3, bit by bit: records are small and written rarely.
fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    };
    !parts.iter().flat_map(|p| p.iter()).fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_storage::nor_flash::{ErrorType, NorFlashError, NorFlashErrorKind};

    /// Flash whose power goes after so many steps: an erased page or a written word.
    struct Fake {
        bytes: Vec<u8>,
        steps: usize,
    }

    #[derive(Debug)]
    struct Off;

    impl NorFlashError for Off {
        fn kind(&self) -> NorFlashErrorKind {
            NorFlashErrorKind::Other
        }
    }

    impl Fake {
        fn step(&mut self) -> Result<(), Off> {
            self.steps = self.steps.checked_sub(1).ok_or(Off)?;
            Ok(())
        }
    }

    impl ErrorType for Fake {
        type Error = Off;
    }

    impl ReadNorFlash for Fake {
        const READ_SIZE: usize = 4;
        fn read(&mut self, at: u32, bytes: &mut [u8]) -> Result<(), Off> {
            bytes.copy_from_slice(&self.bytes[at as usize..at as usize + bytes.len()]);
            Ok(())
        }
        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl NorFlash for Fake {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4096;
        fn erase(&mut self, from: u32, to: u32) -> Result<(), Off> {
            for page in (from as usize..to as usize).step_by(4096) {
                self.step()?;
                self.bytes[page..page + 4096].fill(0xff);
            }
            Ok(())
        }
        fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Off> {
            assert!(at % 4 == 0 && bytes.len() % 4 == 0);
            for (i, word) in bytes.chunks(4).enumerate() {
                self.step()?;
                let there = &mut self.bytes[at as usize + i * 4..][..4];
                // Bits only fall until they are erased.
                there.iter_mut().zip(word).for_each(|(t, w)| *t &= w);
            }
            Ok(())
        }
    }

    fn store(bytes: Vec<u8>, steps: usize) -> Store<Fake> {
        Store::new(Fake { bytes, steps }, 4096)
    }

    fn empty() -> Vec<u8> {
        vec![0xff; FLASH_BYTES as usize + 4096]
    }

    #[test]
    fn a_power_cut_at_every_step_leaves_the_old_or_the_new() {
        let mut bytes = empty();
        for round in 0..4u8 {
            let (old, new) = (vec![round; 300], vec![round + 1; 301]);
            let mut first = store(bytes, usize::MAX);
            first.save(Record::Kept, &old).unwrap();
            first.save(Record::Identity, b"me").unwrap();
            bytes = first.flash.bytes;
            let mut seen = [0, 0];
            for steps in 0.. {
                let mut cut = store(bytes.clone(), steps);
                let whole = cut.save(Record::Kept, &new).is_ok();
                let mut again = store(cut.flash.bytes, usize::MAX);
                let found = again.load(Record::Kept).unwrap();
                assert!(found == old || found == new, "after {steps} steps");
                assert!(!whole || found == new);
                seen[usize::from(found == new)] += 1;
                assert_eq!(again.load(Record::Identity).unwrap(), b"me");
                again.save(Record::Kept, &new).unwrap();
                assert_eq!(again.load(Record::Kept).unwrap(), new);
                if whole {
                    bytes = again.flash.bytes;
                    break;
                }
            }
            assert!(seen[0] > 70 && seen[1] > 0);
        }
    }

    #[test]
    fn flipped_bits_are_noticed_and_equal_records_not_written() {
        let mut one = store(empty(), usize::MAX);
        assert_eq!(one.load(Record::Kept), None);
        one.save(Record::Kept, b"old").unwrap();
        one.save(Record::Kept, b"new").unwrap();
        let bytes = one.flash.bytes.clone();
        let second = (4096 + SLOT * 3) as usize;
        for bit in 0..(HEAD + 3) * 8 {
            let mut bent = bytes.clone();
            bent[second + bit / 8] ^= 1 << (bit % 8);
            let found = store(bent, 0).load(Record::Kept);
            assert_eq!(found.as_deref(), Some(&b"old"[..]), "bit {bit}");
        }
        let mut still = store(bytes, 0);
        assert_eq!(still.save(Record::Kept, b"new"), Ok(()));
        assert_eq!(still.save(Record::Kept, b"newer"), Err(StoreError::Flash));
        assert_eq!(still.save(Record::Kept, &vec![0; RECORD_BYTES_MAX + 1]), Err(StoreError::TooLarge));
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
