//! Images onto files and loop devices: whole, damaged, cut off, too large, onto a medium that lies.
//!
//! Loop devices need root; without it those parts say so.

use crate::flash::{FlashError, Job, Phase, Progress, Target, TargetError, write_all};
use crate::limits::{BLOCK_BYTES, HEAD_BYTES};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// An image with one partition, and noise in it that no two blocks share.
pub fn image(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut data: Vec<u8> = (0..bytes / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    data[..512].fill(0);
    data[446 + 4] = 0x83;
    data[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    data[446 + 12..446 + 16].copy_from_slice(&((bytes / 512 - 2048) as u32).to_le_bytes());
    data[510..512].copy_from_slice(&[0x55, 0xaa]);
    data
}

pub fn job(path: &Path) -> Job<'static> {
    Job { target: Target::open(path).unwrap(), progress: Arc::default(), finish: None }
}

pub struct Loop {
    pub device: PathBuf,
    pub file: PathBuf,
}

impl Loop {
    pub fn new(dir: &Path, bytes: u64) -> Option<Loop> {
        let file = dir.join(format!("card-{bytes}"));
        File::create(&file).unwrap().set_len(bytes).unwrap();
        let out = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().ok()?;
        let device = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        match out.status.success() && device.exists() {
            true => Some(Loop { device, file }),
            false => {
                eprintln!("skipped in part: loop devices need root");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

pub fn has_table(file: &Path) -> bool {
    let mut first = [0; 512];
    File::open(file).unwrap().read_exact(&mut first).is_ok() && first[510..] == [0x55, 0xaa]
}

#[test]
fn several_cards_get_the_same_image_and_a_bad_one_spoils_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(3 * BLOCK_BYTES + 512 * 3);
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let small = Loop::new(dir.path(), 2 * BLOCK_BYTES as u64);
    let mut jobs = vec![job(&a), job(&b)];
    jobs.extend(small.as_ref().map(|l| job(&l.device)));
    let mut results = write_all(&data[..], Some(data.len() as u64), jobs);
    if let Some(small) = small {
        let why = results.pop().unwrap().unwrap_err();
        assert!(matches!(why, FlashError::Target(TargetError::Full(_))), "{why}");
        assert!(!has_table(&small.file), "half a card must not look like a whole one");
    }
    for (result, path) in results.iter().zip([&a, &b]) {
        assert_eq!(result.as_ref().unwrap().bytes, data.len() as u64);
        assert!(fs::read(path).unwrap() == data);
    }
}

#[test]
fn a_loop_device_holds_the_image_and_what_was_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(card) = Loop::new(dir.path(), 4 * BLOCK_BYTES as u64) else { return };
    let data = image(2 * BLOCK_BYTES + 512);
    let progress = Arc::new(Progress::default());
    let job = Job { target: Target::open(&card.device).unwrap(), progress: progress.clone(), finish: None };
    assert!(job.target.is_device() && job.target.number().unwrap().starts_with("7:"));
    let results = write_all(&data[..], None, vec![job]);
    results[0].as_ref().unwrap();
    assert_eq!(progress.phase(), Phase::Finished);
    let back = fs::read(&card.device).unwrap();
    assert!(back[..data.len()] == data && back[data.len()..].iter().all(|b| *b == 0));
}

#[test]
fn a_mounted_drive_is_refused_by_the_kernel_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(card) = Loop::new(dir.path(), 64 << 20) else { return };
    let made = Command::new("mke2fs").args(["-q", "-F"]).arg(&card.device).status();
    let place = dir.path().join("mnt");
    fs::create_dir(&place).unwrap();
    let mounted = made.is_ok_and(|s| s.success())
        && Command::new("mount").arg(&card.device).arg(&place).status().is_ok_and(|s| s.success());
    if !mounted {
        eprintln!("skipped in part: cannot mount here");
        return;
    }
    let why = Target::open(&card.device).err();
    let _ = Command::new("umount").arg(&place).status();
    assert!(matches!(why, Some(TargetError::Busy(_))));
}

/// Ends or fails after so many bytes.
struct Cut<'a>(&'a [u8], bool);

impl Read for Cut<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match (self.0.read(buf)?, self.1) {
            (0, true) => Err(io::Error::new(io::ErrorKind::InvalidData, "the stream's checksum is wrong")),
            (n, _) => Ok(n),
        }
    }
}

#[test]
fn a_damaged_or_short_image_leaves_no_good_looking_card() {
    let dir = tempfile::tempdir().unwrap();
    let data = image(2 * BLOCK_BYTES);
    for (cut, fails, total, says) in [
        (BLOCK_BYTES + 5, true, None, "checksum is wrong"),
        (BLOCK_BYTES + 5, false, Some(data.len() as u64), "it ends after 4194309 of 8388608 bytes"),
        (0, false, None, "empty"),
    ] {
        let path = dir.path().join("card");
        fs::write(&path, &data).unwrap();
        let results = write_all(Cut(&data[..cut], fails), total, vec![job(&path)]);
        let said = results[0].as_ref().unwrap_err().to_string();
        assert!(said.contains(says) && said.matches("fetch it again").count() <= 1, "{said}");
        assert!(!has_table(&path));
    }
}

/// Endless zeros after a good beginning, in a few bytes; some formats say their size.
#[test]
fn a_bomb_ends_at_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("card");
    let said = write_all(&image(BLOCK_BYTES)[..], Some(crate::limits::IMAGE_BYTES_MAX + 1), vec![job(&path)]).remove(0);
    assert!(matches!(said, Err(FlashError::Bomb(64))), "{said:?}");
    let Some(card) = Loop::new(dir.path(), 3 * BLOCK_BYTES as u64) else { return };
    let endless = Cursor::new(image(BLOCK_BYTES)).chain(io::repeat(0));
    let said = write_all(endless, None, vec![job(&card.device)]).remove(0);
    assert!(matches!(said, Err(FlashError::Target(TargetError::Full(_)))), "{said:?}");
    assert!(!has_table(&card.file));
}

#[test]
fn a_packed_image_that_was_cut_off_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("os");
    fs::write(&raw, image(2 * BLOCK_BYTES)).unwrap();
    for (tool, ending) in [("xz", "xz"), ("gzip", "gz"), ("zstd", "zst")] {
        let made = Command::new(tool).args(["-q", "-k", "-f"]).arg(&raw).status();
        if !made.is_ok_and(|s| s.success()) {
            eprintln!("skipped in part: {tool} is not here");
            continue;
        }
        let packed = dir.path().join(format!("os.{ending}"));
        let whole = fs::read(&packed).unwrap();
        fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
        let (path, source) = (dir.path().join("card"), crate::fetch::Unpacked::new(File::open(&packed).unwrap()).unwrap());
        let said = write_all(source, None, vec![job(&path)])[0].as_ref().unwrap_err().to_string();
        assert!(said.starts_with("the image is damaged or cut off: ") && said.matches("fetch it again").count() == 1, "{said}");
        assert!(!has_table(&path));
    }
}

#[test]
fn what_is_no_image_is_refused_before_the_card_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let Some(card) = Loop::new(dir.path(), 8 << 20) else { return };
    fs::write(&card.file, image(8 << 20)).unwrap();
    let before = fs::read(&card.file).unwrap();
    let truncated = &image(8 << 20)[..4 << 20];
    for (bytes, says) in [(&b"hello, this is a text and no image"[..], "no partition table"), (truncated, "truncated")] {
        let results = write_all(bytes, Some(bytes.len() as u64), vec![job(&card.device)]);
        let said = results[0].as_ref().unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
        assert!(fs::read(&card.file).unwrap() == before);
    }
}

#[test]
fn a_card_that_gives_back_something_else_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (path, data) = (dir.path().join("card"), image(3 * BLOCK_BYTES));
    // Somebody spoils the second block after it was written and before it is read back: as a worn-out card does.
    struct Spoiler<'a>(&'a [u8], PathBuf);
    impl Read for Spoiler<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.read(buf)?;
            if n == 0 {
                use std::os::unix::fs::FileExt;
                let file = fs::OpenOptions::new().read(true).write(true).open(&self.1)?;
                let mut byte = [0];
                // The writer is behind the reader: wait until its last block is there.
                while file.metadata()?.len() < 3 * BLOCK_BYTES as u64 {
                    std::thread::yield_now();
                }
                file.read_exact_at(&mut byte, BLOCK_BYTES as u64 + 9)?;
                file.write_all_at(&[!byte[0]], BLOCK_BYTES as u64 + 9)?;
            }
            Ok(n)
        }
    }
    let results = write_all(Spoiler(&data, path.clone()), None, vec![job(&path)]);
    let why = results[0].as_ref().unwrap_err();
    assert!(matches!(why, FlashError::Verify(_, at) if *at == BLOCK_BYTES as u64), "{why}");
    assert!(!has_table(&path));
}

#[test]
fn the_nodes_files_come_before_the_partition_table() {
    let dir = tempfile::tempdir().unwrap();
    let (path, data) = (dir.path().join("card"), image(BLOCK_BYTES));
    let mut with = job(&path);
    with.finish = Some(Box::new(|target, head| {
        assert!(!has_table(target.path()));
        assert_eq!(head.len(), HEAD_BYTES);
        head[440] = 0x42;
        Ok(())
    }));
    write_all(&data[..], None, vec![with])[0].as_ref().unwrap();
    assert_eq!(fs::read(&path).unwrap()[440], 0x42);
    let mut with = job(&path);
    with.finish = Some(Box::new(|_, _| Err("no room".into())));
    assert_eq!(write_all(&data[..], None, vec![with])[0].as_ref().unwrap_err().to_string(), "no room");
    assert!(!has_table(&path));
}
