//! The archive, put together from what is here and what was fetched. On the device.
//!
//! In: a recipe, a base, a file with the fetched pieces. Out: a reader of the archive. Never: an archive in memory; a wrong
//! piece is found by whoever checks the digest of the whole.

use super::recipe::{Packed, Piece, Recipe};
use super::{Base, Name, cut};
use flate2::read::DeflateDecoder;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Error, Read, Result};
use std::os::unix::fs::FileExt;

/// Two missing parts of the pack with less than this between them are one request.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// A part of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub length: u64,
}

/// What has to be fetched: parts in order. They lie one after the other in the file of fetched pieces.
pub fn missing(recipe: &Recipe, base: &Base) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in recipe.packed().filter(|piece| !base.has(piece.name, piece.length)) {
        let end = piece.offset + u64::from(piece.packed);
        match parts.last_mut() {
            Some(part) if piece.offset <= part.offset + part.length + GAP_BYTES_MAX => part.length = end - part.offset,
            _ => parts.push(Part { offset: piece.offset, length: u64::from(piece.packed) }),
        }
    }
    parts
}

/// Names that a device may have.
pub fn names(recipe: &Recipe) -> HashSet<Name> {
    recipe.packed().map(|piece| piece.name).collect()
}

pub struct Rebuild {
    pieces: std::vec::IntoIter<Piece>,
    packed: Vec<Packed>,
    next_named: usize,
    base: Base,
    fetched: File,
    parts: Vec<Part>,
    /// Places in the file of fetched pieces, by part.
    starts: Vec<u64>,
    current: Vec<u8>,
    at: usize,
}

impl Rebuild {
    pub fn new(recipe: Recipe, base: Base, fetched: File) -> Rebuild {
        let parts = missing(&recipe, &base);
        let starts = parts
            .iter()
            .scan(0, |sum, part| {
                let start = *sum;
                *sum += part.length;
                Some(start)
            })
            .collect();
        let packed = recipe.packed().collect();
        Rebuild {
            pieces: recipe.pieces.into_iter(),
            packed,
            next_named: 0,
            base,
            fetched,
            parts,
            starts,
            current: Vec::new(),
            at: 0,
        }
    }

    /// The named piece's bytes into `current`.
    fn take(&mut self, index: usize) -> Result<()> {
        let Some(piece) = self.packed.get(index).copied() else { return Err(Error::other("the recipe has no such piece")) };
        if self.base.has(piece.name, piece.length) && self.base.read(piece.name, &mut self.current)? {
            return Ok(());
        }
        let part = self.parts.partition_point(|part| part.offset <= piece.offset).checked_sub(1);
        let Some(part) = part else { return Err(Error::other("a piece was not fetched")) };
        let place = self.starts[part] + (piece.offset - self.parts[part].offset);
        let mut packed = vec![0; piece.packed as usize];
        self.fetched.read_exact_at(&mut packed, place)?;
        self.current.clear();
        DeflateDecoder::new(packed.as_slice()).take(cut::MAX as u64 + 1).read_to_end(&mut self.current)?;
        match self.current.len() == piece.length as usize {
            true => Ok(()),
            false => Err(Error::other("a fetched piece has another length than its recipe says")),
        }
    }

    fn advance(&mut self) -> Result<bool> {
        self.at = 0;
        match self.pieces.next() {
            None => {
                // Whoever asks again after the end gets nothing again.
                self.current.clear();
                return Ok(false);
            }
            Some(Piece::Plain(bytes)) => self.current = bytes,
            Some(Piece::Named { .. }) => {
                self.next_named += 1;
                self.take(self.next_named - 1)?;
            }
            Some(Piece::Again(index)) => self.take(index as usize)?,
        }
        Ok(true)
    }
}

impl Read for Rebuild {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.at == self.current.len() {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.current.len() - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
