//! From the reader to the cards: blocks in memory that is used again and again.
//!
//! In: a stream. Out: each block with its sum to every card that still listens, while the cards write those before it.
//! Never: more memory than `BLOCKS_AHEAD` blocks, however far apart the cards are.

use super::{target::Aligned, write::FlashError};
use crate::limits::{BLOCK_BYTES, BLOCKS_AHEAD, HEAD_BYTES, IMAGE_BYTES_MAX};
use crate::table;
use std::{
    io::{self, Read},
    ops::Deref,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
};

/// What a part of the image has to be when it is read back. A CRC-32 finds what worn-out and false cards do (nobody forges
/// checksums there), and costs a tenth of SHA-256 where the processor has instructions for both, and less where it has none.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    pub offset: u64,
    pub length: usize,
    crc: u32,
}

impl Sum {
    fn of(offset: u64, data: &[u8]) -> Sum {
        Sum { offset, length: data.len(), crc: crc32fast::hash(data) }
    }

    pub fn fits(&self, data: &[u8]) -> bool {
        data.len() == self.length && crc32fast::hash(data) == self.crc
    }
}

/// A part of the image. Its memory goes back to the reader with its last owner.
pub struct Block {
    pub sum: Sum,
    memory: Option<Aligned>,
    home: Sender<Aligned>,
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| &memory[..self.sum.length])
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Nobody waits for it once the reader is done.
        self.memory.take().map(|memory| self.home.send(memory));
    }
}

/// A card's end of the line; `None` once the card has failed.
pub type Line = Option<SyncSender<Arc<Block>>>;

pub fn line() -> (Line, Receiver<Arc<Block>>) {
    let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
    (Some(sender), receiver)
}

/// Reads and sums once for all cards. `Ok`: the image was whole, or no card was left. The first block is the `HEAD_BYTES` with
/// the table, the second the rest up to `BLOCK_BYTES`: all others begin at its multiples.
pub fn send(mut source: impl Read, total: Option<u64>, cards: &mut [Line]) -> Result<(), FlashError> {
    if total.is_some_and(|bytes| bytes > IMAGE_BYTES_MAX) {
        return Err(FlashError::Bomb(IMAGE_BYTES_MAX >> 30));
    }
    let (home, free) = channel();
    for _ in 0..BLOCKS_AHEAD {
        let _ = home.send(Aligned::new(BLOCK_BYTES));
    }
    let mut offset = 0u64;
    loop {
        let wanted = match offset {
            0 => HEAD_BYTES,
            at => BLOCK_BYTES - at as usize % BLOCK_BYTES,
        };
        // Comes back from the slowest card.
        let mut memory: Aligned = free.recv().map_err(|_| FlashError::Thread("the reader".into()))?;
        let length = fill(&mut source, &mut memory[..wanted]).map_err(|e| FlashError::Source(plain(e)))?;
        if offset == 0 {
            if length == 0 {
                return Err(FlashError::Empty);
            }
            // What is no image of a card is refused before a card is touched.
            table::read(&memory[..length], total.unwrap_or(IMAGE_BYTES_MAX))?;
        }
        if length == 0 {
            return whole(offset, total);
        }
        let sum = Sum::of(offset, &memory[..length]);
        let block = Arc::new(Block { sum, memory: Some(memory), home: home.clone() });
        offset += length as u64;
        if offset > IMAGE_BYTES_MAX {
            return Err(FlashError::Bomb(IMAGE_BYTES_MAX >> 30));
        }
        for card in cards.iter_mut() {
            // A card that failed has closed its end; the others go on.
            if card.as_ref().is_some_and(|c| c.send(block.clone()).is_err()) {
                *card = None;
            }
        }
        if cards.iter().all(Option::is_none) {
            return Ok(());
        }
    }
}

fn whole(got: u64, total: Option<u64>) -> Result<(), FlashError> {
    match total {
        Some(total) if total != got => {
            let why = format!("it ends after {got} of {total} bytes");
            Err(FlashError::Source(io::Error::new(io::ErrorKind::UnexpectedEof, why)))
        }
        _ => Ok(()),
    }
}

/// What a decompressor says of a file that was cut off.
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the packed file ends in the middle"),
        _ => error,
    }
}

fn fill(source: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match source.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
