//! Cards that are pulled or die while they are written, readers that do not eject, images with holes and odd ends.
//!
//! A card is a loop device; it is pulled by taking its file's content away, which the kernel sees as it sees a reader without its
//! card: a drive of no bytes. Loop devices need root; without it those parts say so.

use super::writing::{Loop, has_table, image, job};
use crate::flash::{FlashError, Job, Phase, Target, TargetError, write_all};
use crate::limits::{BLOCK_BYTES, HEAD_BYTES};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

/// Does something once, when so many bytes are read.
struct At<'a, F: FnMut()>(&'a [u8], usize, F);

impl<F: FnMut()> Read for At<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let until = if self.1 == 0 { buf.len() } else { buf.len().min(self.1) };
        let n = self.0.read(&mut buf[..until])?;
        if self.1 > 0 {
            self.1 -= n;
            if self.1 == 0 {
                (self.2)();
            }
        }
        Ok(n)
    }
}

/// What was on the card is kept beside it.
fn pull(card: &Loop) {
    fs::copy(&card.file, card.file.with_extension("pulled")).unwrap();
    OpenOptions::new().write(true).open(&card.file).unwrap().set_len(0).unwrap();
    assert!(Command::new("losetup").arg("-c").arg(&card.device).status().unwrap().success());
}

#[test]
fn a_card_that_is_pulled_while_it_is_written_is_told_and_looks_like_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(6 * BLOCK_BYTES);
    // In the middle, and between the last byte of the image and reading back.
    for at in [2 * BLOCK_BYTES, data.len()] {
        let Some(card) = Loop::new(dir.path(), data.len() as u64) else { return };
        fs::write(&card.file, &data).unwrap();
        let job = job(&card.device);
        let progress = job.progress.clone();
        let source = At(&data, at, || {
            // The first sync is over once the old table is gone: the reader is ahead of the writer.
            while has_table(&card.file) {
                std::thread::yield_now();
            }
            pull(&card);
        });
        let why = write_all(source, Some(data.len() as u64), vec![job]).remove(0).unwrap_err();
        assert!(matches!(why, FlashError::Target(TargetError::Gone(_))), "{at}: {why}");
        assert!(why.to_string().contains("was the card pulled?"));
        assert_eq!(progress.phase(), Phase::Failed);
        assert!(!has_table(&card.file.with_extension("pulled")));
    }
}

#[test]
fn a_card_that_is_pulled_before_its_table_looks_like_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(2 * BLOCK_BYTES);
    let Some(card) = Loop::new(dir.path(), data.len() as u64) else { return };
    let mut with = job(&card.device);
    with.finish = Some(Box::new(|_, _| {
        pull(&card);
        Ok(())
    }));
    let why = write_all(&data[..], None, vec![with]).remove(0).unwrap_err();
    assert!(matches!(why, FlashError::Target(TargetError::Gone(_))), "{why}");
    assert!(!has_table(&card.file.with_extension("pulled")));
}

#[test]
fn one_card_that_is_pulled_does_not_hold_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (image(6 * BLOCK_BYTES), dir.path().join("other"));
    let Some(card) = Loop::new(dir.path(), data.len() as u64) else { return };
    let jobs = vec![job(&card.device), job(&other)];
    let source = At(&data, 2 * BLOCK_BYTES, || pull(&card));
    let results = write_all(source, None, jobs);
    assert!(matches!(results[0], Err(FlashError::Target(TargetError::Gone(_)))), "{:?}", results[0]);
    results[1].as_ref().unwrap();
    assert!(fs::read(&other).unwrap() == data);
}

/// A card that says it is larger than it is: its file lies where there is no room for all of it.
#[test]
fn a_card_that_dies_in_the_middle_is_told_and_looks_like_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(6 * BLOCK_BYTES);
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let size = format!("size={}", 3 * BLOCK_BYTES);
    if !Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&small).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: cannot mount here");
        return;
    }
    let outcome = Loop::new(&small, data.len() as u64).map(|card| {
        let result = write_all(&data[..], None, vec![job(&card.device)]).remove(0);
        (result, has_table(&card.file))
    });
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    let Some((result, table)) = outcome else { return };
    let said = result.unwrap_err().to_string();
    assert!(said.contains("take another") || said.contains("is full"), "{said}");
    assert!(!table);
}

/// A loop device is a reader that has no such thing as ejecting.
#[test]
fn a_reader_that_does_not_eject_has_a_good_card_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(2 * BLOCK_BYTES);
    let Some(card) = Loop::new(dir.path(), data.len() as u64) else { return };
    let done = write_all(&data[..], None, vec![job(&card.device)]).remove(0).unwrap();
    assert!(!done.ejected);
    assert!(has_table(&card.file));
}

/// Where the image has holes lies what was on the card before, which must go. A file is as long as the image and takes no room.
#[test]
fn holes_are_zeros_on_a_card_and_no_room_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = image(6 * BLOCK_BYTES);
    data[2 * BLOCK_BYTES..4 * BLOCK_BYTES].fill(0);
    data[5 * BLOCK_BYTES..].fill(0);
    let file = dir.path().join("file");
    let done = write_all(&data[..], None, vec![job(&file)]).remove(0).unwrap();
    assert_eq!(done.bytes, data.len() as u64);
    assert!(fs::read(&file).unwrap() == data);
    let taken = fs::metadata(&file).unwrap().blocks() * 512;
    assert!(taken < 4 * BLOCK_BYTES as u64, "{taken} bytes are taken");
    let Some(card) = Loop::new(dir.path(), data.len() as u64) else { return };
    fs::write(&card.file, vec![0x55u8; data.len()]).unwrap();
    write_all(&data[..], None, vec![job(&card.device)]).remove(0).unwrap();
    assert!(fs::read(&card.device).unwrap() == data);
}

/// Images of every end: shorter than what is withheld, in the middle of a page, of a sector, at a block's end.
#[test]
fn images_of_odd_lengths_are_whole_on_cards_and_files() {
    let dir = tempfile::tempdir().unwrap();
    // The table names fewer sectors than there are, so that every length holds its partition.
    let all = image(3 * BLOCK_BYTES);
    let mut data = all.clone();
    data[446 + 8..446 + 12].copy_from_slice(&1u32.to_le_bytes());
    data[446 + 12..446 + 16].copy_from_slice(&64u32.to_le_bytes());
    let card = Loop::new(dir.path(), all.len() as u64);
    for length in [HEAD_BYTES / 2, HEAD_BYTES, HEAD_BYTES + 512, BLOCK_BYTES, BLOCK_BYTES + 4096 + 512, 2 * BLOCK_BYTES + 700] {
        let path = dir.path().join("file");
        check(&data[..length], &path);
        if let Some(card) = &card {
            check(&data[..length], &card.device);
        }
    }
}

fn check(data: &[u8], path: &Path) {
    let job = Job { target: Target::open(path).unwrap(), progress: Default::default(), finish: None };
    let done = write_all(data, Some(data.len() as u64), vec![job]).remove(0).unwrap();
    assert_eq!(done.bytes, data.len() as u64);
    let mut back = vec![0; data.len()];
    File::open(path).unwrap().read_exact(&mut back).unwrap();
    assert!(back == data, "{}: {} bytes", path.display(), data.len());
}
