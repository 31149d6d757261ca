//! The radio's file on the card instead of in memory: it is more than the agent, and what is read of it the kernel can give back.
//!
//! In: the file that came with the initial file system, a place on the data partition. Out: that place, open, with the
//! same bytes.
//! Never: a byte from the card that was not compared with what came at this start; a write where they are the same.

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

const PIECE: usize = 128 * 1024;

/// The file at `card` with the content of `memory`: as it lies there, or written anew. What a power cut left is another content.
pub fn on_card(memory: &Path, card: &Path) -> io::Result<File> {
    if let Ok(file) = File::open(card)
        && same(File::open(memory)?, &file)?
    {
        return Ok(file);
    }
    let written = write(memory, card);
    if written.is_err() {
        let _ = fs::remove_file(card);
    }
    written
}

/// Another system's file gives its room back first: a card may be nearly full.
fn write(from: &Path, to: &Path) -> io::Result<File> {
    let _ = fs::remove_file(to);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()?;
    // What is compared is what the card gives back, not what memory still has of it.
    posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let file = File::open(to)?;
    match same(File::open(from)?, &file)? {
        true => Ok(file),
        false => Err(io::Error::other("the card does not give back what was written")),
    }
}

fn same(mut a: File, mut b: &File) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut right[..count]) {
            Ok(()) if left[..count] == right[..count] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_on_the_card_is_what_came_with_the_system_and_is_written_once() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (memory, card) = (dir.path().join("radio.squashfs"), dir.path().join("os.squashfs"));
        let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        fs::write(&memory, &content)?;
        let inode = on_card(&memory, &card)?.metadata()?.ino();
        assert_eq!(fs::read(&card)?, content);
        assert_eq!(on_card(&memory, &card)?.metadata()?.ino(), inode);
        let mut changed = content.clone();
        changed[299_999] ^= 1;
        let longer = [&content[..], b"x"].concat();
        for other in [&changed[..], &content[..299_999], &longer, b""] {
            fs::write(&card, other)?;
            let mut given = Vec::new();
            on_card(&memory, &card)?.read_to_end(&mut given)?;
            // The place in the open file is behind what was compared.
            assert_eq!((fs::read(&card)?, given), (content.clone(), Vec::new()));
        }
        Ok(())
    }

    #[test]
    fn without_a_place_or_a_file_there_is_an_error() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (memory, card) = (dir.path().join("memory"), dir.path().join("none/os.squashfs"));
        assert!(on_card(&memory, &dir.path().join("os.squashfs")).is_err());
        fs::write(&memory, "x")?;
        assert!(on_card(&memory, &card).is_err());
        // What cannot be copied to its end gives its room back: a folder opens, and cannot be read.
        let half = dir.path().join("half");
        assert!(on_card(dir.path(), &half).is_err());
        assert!(!half.exists());
        // Something that cannot be replaced.
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("x"))?;
        assert!(on_card(&memory, &folder).is_err());
        Ok(())
    }
}
