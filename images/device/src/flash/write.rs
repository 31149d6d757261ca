//! One image onto several cards at once.
//!
//! In: a stream, opened targets. Out: for each card whether it holds the image, as read back from it.
//! The first MiB, with the partition table, is written last, and of it the table's own sector: a card that was pulled, or whose
//! image was damaged, or that read back wrong, is never taken for a good one. Never: lets one bad card spoil the others.

use super::{
    progress::{Phase, Progress},
    target::{Aligned, Target, TargetError},
};
use crate::limits::{BLOCK_BYTES, BLOCKS_AHEAD, HEAD_BYTES, IMAGE_BYTES_MAX};
use crate::table::{self, TableError};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

const SECTOR: usize = 512;
/// The least that direct I/O writes.
const LAST_BYTES: usize = 4096;

/// Each says what to do; nothing is tried twice.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    #[error("the image is damaged or cut off: {0}; fetch it again and check its checksum")]
    Source(io::Error),
    #[error("the image unpacks to more than {0} GiB; that is no card's image")]
    Bomb(u64),
    #[error("the image cannot be used: {0}")]
    Table(#[from] TableError),
    #[error("the image is empty")]
    Empty,
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("{0} gives back something else than was written, from byte {1} on: the card is worn out or a fake; take another")]
    Verify(String, u64),
    #[error("{0}")]
    Provision(String),
    #[error("the thread of {0} ended unexpectedly")]
    Thread(String),
}

/// What happens to a card between verification and its partition table: the node's own files. It is given the target and the
/// withheld beginning, which it may change.
pub type Finish<'a> = Box<dyn FnOnce(&Target, &mut [u8]) -> Result<(), String> + Send + 'a>;

pub struct Job<'a> {
    pub target: Target,
    pub progress: Arc<Progress>,
    pub finish: Option<Finish<'a>>,
}

#[derive(Debug)]
pub struct CardDone {
    pub path: std::path::PathBuf,
    pub bytes: u64,
    /// SHA-256 over the image as it was sent to the card.
    pub sha256: String,
    /// The reader has let go of it.
    pub ejected: bool,
}

struct Block {
    offset: u64,
    data: Aligned,
    sha256: [u8; 32],
}

/// `total`: bytes of the unpacked image where known.
pub fn write_all(source: impl Read, total: Option<u64>, jobs: Vec<Job<'_>>) -> Vec<Result<CardDone, FlashError>> {
    std::thread::scope(|scope| {
        let mut senders: Vec<Option<SyncSender<Arc<Block>>>> = Vec::new();
        let mut threads = Vec::new();
        for job in jobs {
            let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
            let (told, verdict) = sync_channel(1);
            let path = job.target.path().display().to_string();
            senders.push(Some(sender));
            threads.push((path, told, scope.spawn(move || card(job, total, &receiver, &verdict))));
        }
        let read = send(source, total, &mut senders);
        // Closing the channels tells the cards that this is all; the verdict, whether it was whole, and its checksum.
        senders.clear();
        let (whole, mut read) = match read {
            Ok(sum) => (Some(sum), None),
            Err(why) => (None, Some(why)),
        };
        let mut results = Vec::new();
        for (path, told, thread) in threads {
            let _ = told.send(whole.clone());
            let result = thread.join().unwrap_or(Err(FlashError::Thread(path)));
            results.push(match (result, &mut read) {
                // The cards only know that the stream ended early; the reason is here.
                (Err(FlashError::Source(_)), Some(why)) => Err(again(why)),
                (other, _) => other,
            });
        }
        results
    })
}

fn again(why: &FlashError) -> FlashError {
    match why {
        FlashError::Bomb(n) => FlashError::Bomb(*n),
        FlashError::Empty => FlashError::Empty,
        FlashError::Table(TableError::None) => FlashError::Table(TableError::None),
        FlashError::Table(TableError::Damaged(w)) => FlashError::Table(TableError::Damaged(w)),
        FlashError::Table(TableError::Beyond(n)) => FlashError::Table(TableError::Beyond(*n)),
        FlashError::Source(e) => FlashError::Source(io::Error::new(e.kind(), e.to_string())),
        other => FlashError::Source(io::Error::other(other.to_string())),
    }
}

/// Reads and sums once for all cards: what writes does nothing else. Ends early when no card is left.
fn send(
    mut source: impl Read,
    total: Option<u64>,
    cards: &mut [Option<SyncSender<Arc<Block>>>],
) -> Result<String, FlashError> {
    let mut offset = 0u64;
    let mut whole = Sha256::new();
    loop {
        let mut data = Aligned::new(BLOCK_BYTES);
        let got = fill(&mut source, &mut data).map_err(|e| FlashError::Source(plain(e)))?;
        if offset == 0 {
            if got == 0 {
                return Err(FlashError::Empty);
            }
            // What is no image of a card is refused before a card is touched.
            table::read(&data[..got], total.unwrap_or(IMAGE_BYTES_MAX))?;
        }
        if got == 0 {
            return match total {
                Some(total) if total != offset => {
                    let why = format!("it ends after {offset} of {total} bytes");
                    Err(FlashError::Source(io::Error::new(io::ErrorKind::UnexpectedEof, why)))
                }
                _ => Ok(whole.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            };
        }
        data.truncate(got);
        whole.update(&*data);
        let sha256 = Sha256::digest(&*data).into();
        let block = Arc::new(Block { offset, data, sha256 });
        offset += got as u64;
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
            return Ok(String::new());
        }
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

fn card(
    mut job: Job<'_>,
    total: Option<u64>,
    blocks: &Receiver<Arc<Block>>,
    verdict: &Receiver<Option<String>>,
) -> Result<CardDone, FlashError> {
    let outcome = card_steps(&mut job, total, blocks, verdict);
    job.progress.begin(if outcome.is_ok() { Phase::Finished } else { Phase::Failed }, 0);
    outcome
}

fn card_steps(
    job: &mut Job<'_>,
    total: Option<u64>,
    blocks: &Receiver<Arc<Block>>,
    verdict: &Receiver<Option<String>>,
) -> Result<CardDone, FlashError> {
    let (target, progress) = (&job.target, &job.progress);
    progress.begin(Phase::Writing, total.unwrap_or(0));
    let mut head: Option<Aligned> = None;
    let mut sums: Vec<(u64, usize, [u8; 32])> = Vec::new();
    for block in blocks {
        let (mut offset, mut data) = (block.offset, &*block.data);
        if offset == 0 {
            let split = data.len().min(HEAD_BYTES);
            let mut kept = Aligned::new(split);
            kept.copy_from_slice(&data[..split]);
            head = Some(kept);
            // From here on the card has no partition table, neither the old one nor the new.
            target.write(&Aligned::new(if target.is_device() { HEAD_BYTES } else { split }), 0)?;
            target.sync()?;
            (offset, data) = (split as u64, &data[split..]);
            sums.push((offset, data.len(), Sha256::digest(data).into()));
        } else {
            sums.push((offset, data.len(), block.sha256));
        }
        target.write(data, offset)?;
        progress.advance(block.data.len() as u64);
    }
    target.sync()?;
    let cut_off = || FlashError::Source(io::Error::other("it ended too early"));
    let sha256 = verdict.recv().ok().flatten().ok_or_else(cut_off)?;
    let mut head = head.ok_or_else(cut_off)?;
    let bytes = sums.last().map_or(0, |(offset, length, _)| offset + *length as u64);
    progress.begin(Phase::Verifying, bytes);
    verify(target, progress, &sums)?;
    if let Some(finish) = job.finish.take() {
        progress.begin(Phase::Provisioning, 0);
        finish(target, &mut head).map_err(FlashError::Provision)?;
        target.sync()?;
    }
    // The sector with the table alone comes last: a write of a whole MiB may end anywhere, and a loader that is half there boots
    // nothing.
    let table: Vec<u8> = head.iter().take(SECTOR).copied().collect();
    head[..table.len()].fill(0);
    target.write(&head, 0)?;
    target.sync()?;
    head[..table.len()].copy_from_slice(&table);
    target.write(&head[..head.len().min(LAST_BYTES)], 0)?;
    target.sync()?;
    let mut back = Aligned::new(head.len());
    target.read(&mut back, 0)?;
    if *back != *head {
        return Err(FlashError::Verify(target.path().display().to_string(), 0));
    }
    Ok(CardDone { path: target.path().into(), bytes, sha256, ejected: target.eject() })
}

fn verify(target: &Target, progress: &Progress, sums: &[(u64, usize, [u8; 32])]) -> Result<(), FlashError> {
    let mut back = Aligned::new(BLOCK_BYTES);
    for (offset, length, sum) in sums {
        let piece = &mut back[..*length];
        target.read(piece, *offset)?;
        if <[u8; 32]>::from(Sha256::digest(&*piece)) != *sum {
            return Err(FlashError::Verify(target.path().display().to_string(), *offset));
        }
        progress.advance(*length as u64);
    }
    Ok(())
}
