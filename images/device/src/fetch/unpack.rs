//! Compressed images as a stream, and what their frames say about their size.
//!
//! In: a file whose first bytes decide: xz, gzip, zstd, or raw. Out: the raw image.
//! Never: trusts a file's name.

use limpet_oci::decompress::Decompressed;
use lzma_rust2::XzReader;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const XZ: &[u8] = b"\xfd7zXZ\0";
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const ZIP: &[u8] = b"PK\x03\x04";
/// An xz index longer than this belongs to no image.
const XZ_INDEX_BYTES_MAX: u64 = 16 << 20;

pub enum Unpacked {
    Xz(Box<XzReader<BufReader<File>>>),
    /// gzip and zstd.
    Other(Box<Decompressed<BufReader<File>>>),
    Raw(File),
}

fn magic(file: &mut File) -> io::Result<[u8; 6]> {
    let mut first = [0; 6];
    let mut got = 0;
    while got < first.len() {
        match file.read(&mut first[got..])? {
            0 => break,
            n => got += n,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(first)
}

impl Unpacked {
    pub fn new(mut file: File) -> io::Result<Unpacked> {
        let first = magic(&mut file)?;
        let buffered = |file| BufReader::with_capacity(1 << 18, file);
        if first.starts_with(XZ) {
            Ok(Unpacked::Xz(Box::new(XzReader::new(buffered(file), true))))
        } else if first.starts_with(GZIP) || first.starts_with(ZSTD) {
            Ok(Unpacked::Other(Box::new(Decompressed::new(buffered(file))?)))
        } else if first.starts_with(ZIP) {
            Err(io::Error::other("it is a ZIP archive; unpack it first and give the image in it"))
        } else {
            Ok(Unpacked::Raw(file))
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Xz(r) => r.read(buf),
            Unpacked::Other(r) => r.read(buf),
            Unpacked::Raw(r) => r.read(buf),
        }
    }
}

/// Bytes of the raw image: `None` where the file does not say it reliably (gzip keeps only 32 bits; several streams).
pub fn unpacked_bytes(path: &Path) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let first = magic(&mut file)?;
    if first.starts_with(XZ) {
        return xz_bytes(&mut file, length);
    }
    if first.starts_with(ZSTD) {
        return zstd_bytes(&mut file);
    }
    let unknown = first.starts_with(GZIP) || first.starts_with(ZIP);
    Ok((!unknown).then_some(length))
}

/// From the index at the end of a file of one stream (the .xz format, sections 2.1.2 and 4).
fn xz_bytes(file: &mut File, length: u64) -> io::Result<Option<u64>> {
    if length < 32 {
        return Ok(None);
    }
    let mut footer = [0; 12];
    file.seek(SeekFrom::Start(length - 12))?;
    file.read_exact(&mut footer)?;
    if &footer[10..] != b"YZ" {
        return Ok(None);
    }
    let index = (u64::from(u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]])) + 1) * 4;
    if index > XZ_INDEX_BYTES_MAX || index + 24 > length {
        return Ok(None);
    }
    let mut bytes = vec![0; index as usize];
    file.seek(SeekFrom::Start(length - 12 - index))?;
    file.read_exact(&mut bytes)?;
    let mut at = bytes.iter().copied().skip(1);
    let Some(records) = varint(&mut at) else { return Ok(None) };
    let (mut packed, mut raw) = (0u64, 0u64);
    for _ in 0..records {
        let (Some(unpadded), Some(size)) = (varint(&mut at), varint(&mut at)) else { return Ok(None) };
        packed = packed.saturating_add(unpadded.saturating_add(3) & !3);
        raw = raw.saturating_add(size);
    }
    // Header, blocks, index and footer are the whole file: one stream.
    Ok((packed + 24 + index == length).then_some(raw))
}

fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The content size of the first frame (RFC 8878, section 3.1.1.1), where it is there.
fn zstd_bytes(file: &mut File) -> io::Result<Option<u64>> {
    let mut head = [0; 18];
    let got = file.read(&mut head)?;
    if got < head.len() {
        return Ok(None);
    }
    let descriptor = head[4];
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let at = 5 + usize::from(!single) + dictionary;
    let le = |n: usize| head[at..at + n].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    Ok(match (descriptor >> 6, single) {
        (0, false) => None,
        (0, true) => Some(le(1)),
        (1, _) => Some(le(2) + 256),
        (2, _) => Some(le(4)),
        _ => Some(le(8)),
    })
}
