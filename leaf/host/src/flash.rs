//! A file as flash: erased bytes are 0xff, bits only fall until then.
//!
//! In: a path. Out: what embedded-storage calls NOR flash, of the Pico's page sizes. Never: a write that only the page cache has.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use limpet_leaf::FLASH_BYTES;
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

pub struct FileFlash(File);

#[derive(Debug)]
pub struct FileError;

impl NorFlashError for FileError {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl FileFlash {
    pub fn open(path: &Path) -> Result<FileFlash, String> {
        let wrong = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(wrong)?;
        if file.metadata().map_err(wrong)?.len() == 0 {
            file.write_all_at(&vec![0xff; FLASH_BYTES as usize], 0).map_err(wrong)?;
        }
        Ok(FileFlash(file))
    }
}

impl ErrorType for FileFlash {
    type Error = FileError;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;
    fn read(&mut self, at: u32, bytes: &mut [u8]) -> Result<(), FileError> {
        self.0.read_exact_at(bytes, at.into()).map_err(|_| FileError)
    }
    fn capacity(&self) -> usize {
        FLASH_BYTES as usize
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = 256;
    const ERASE_SIZE: usize = 4096;
    fn erase(&mut self, from: u32, to: u32) -> Result<(), FileError> {
        self.0.write_all_at(&vec![0xff; (to - from) as usize], from.into()).map_err(|_| FileError)
    }
    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), FileError> {
        let mut there = vec![0; bytes.len()];
        self.read(at, &mut there)?;
        there.iter_mut().zip(bytes).for_each(|(t, b)| *t &= b);
        self.0.write_all_at(&there, at.into()).and_then(|()| self.0.sync_data()).map_err(|_| FileError)
    }
}
