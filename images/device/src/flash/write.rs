//! One image onto several cards at once.
//!
//! In: a stream, opened targets. Out: for each card whether it holds the image, as read back from it.
//! The first MiB, with the partition table, is written last, and of it the table's own sector: a card that was pulled, or whose
//! image was damaged, or that read back wrong, is never taken for a good one. Never: lets one bad card spoil the others.

use super::{
    pipe::{self, Block, Sum},
    progress::{Phase, Progress},
    target::{Aligned, Target, TargetError},
};
use crate::limits::{BLOCK_BYTES, HEAD_BYTES};
use crate::table::TableError;
use std::{
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
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
    /// The reader has let go of it.
    pub ejected: bool,
}

/// `total`: bytes of the unpacked image where known.
pub fn write_all(source: impl Read, total: Option<u64>, jobs: Vec<Job<'_>>) -> Vec<Result<CardDone, FlashError>> {
    std::thread::scope(|scope| {
        let mut lines = Vec::new();
        let mut threads = Vec::new();
        for job in jobs {
            let (line, blocks) = pipe::line();
            let (told, verdict) = sync_channel(1);
            let path = job.target.path().display().to_string();
            lines.push(line);
            threads.push((path, told, scope.spawn(move || card(job, total, &blocks, &verdict))));
        }
        let mut read = pipe::send(source, total, &mut lines);
        // Closing the lines tells the cards that this is all; the verdict, whether it was whole.
        drop(lines);
        let mut results = Vec::new();
        for (path, told, thread) in threads {
            let _ = told.send(read.is_ok());
            let result = thread.join().unwrap_or(Err(FlashError::Thread(path)));
            results.push(match (result, &mut read) {
                // The cards only know that the stream ended early; the reason is here.
                (Err(FlashError::Source(_)), Err(why)) => Err(again(why)),
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
        FlashError::Thread(who) => FlashError::Thread(who.clone()),
        other => FlashError::Source(io::Error::other(other.to_string())),
    }
}

fn card(
    mut job: Job<'_>,
    total: Option<u64>,
    blocks: &Receiver<Arc<Block>>,
    verdict: &Receiver<bool>,
) -> Result<CardDone, FlashError> {
    let outcome = card_steps(&mut job, total, blocks, verdict);
    job.progress.begin(if outcome.is_ok() { Phase::Finished } else { Phase::Failed }, 0);
    outcome
}

fn card_steps(
    job: &mut Job<'_>,
    total: Option<u64>,
    blocks: &Receiver<Arc<Block>>,
    verdict: &Receiver<bool>,
) -> Result<CardDone, FlashError> {
    let (target, progress) = (&job.target, &job.progress);
    progress.begin(Phase::Writing, total.unwrap_or(0));
    let mut head: Option<Aligned> = None;
    let mut sums: Vec<Sum> = Vec::new();
    for block in blocks {
        let sum = &block.sum;
        if sum.offset == 0 {
            let mut kept = Aligned::new(sum.length);
            kept.copy_from_slice(&block);
            head = Some(kept);
            // From here on the card has no partition table, neither the old one nor the new.
            target.write(&Aligned::new(if target.is_device() { HEAD_BYTES } else { sum.length }), 0)?;
            target.sync()?;
        } else {
            target.write_or_skip(&block, sum.offset)?;
            sums.push(*sum);
        }
        progress.advance(sum.length as u64);
    }
    let bytes = sums.last().map(|sum| sum.offset + sum.length as u64);
    bytes.map_or(Ok(()), |bytes| target.end_at(bytes))?;
    target.sync()?;
    let cut_off = || FlashError::Source(io::Error::other("it ended too early"));
    let mut head = head.filter(|_| verdict.recv() == Ok(true)).ok_or_else(cut_off)?;
    let bytes = bytes.unwrap_or(head.len() as u64);
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
    Ok(CardDone { path: target.path().into(), bytes, ejected: target.eject() })
}

/// Reads what lies on the card, past the page cache and after a flush, and compares its sums with those of what came out of the
/// image. One block is read while another is summed.
fn verify(target: &Target, progress: &Progress, sums: &[Sum]) -> Result<(), FlashError> {
    const BLOCKS: usize = 3;
    std::thread::scope(|scope| {
        let (full, read) = sync_channel::<(&Sum, Aligned)>(BLOCKS);
        let (back, free) = sync_channel(BLOCKS);
        for _ in 0..BLOCKS {
            let _ = back.send(Aligned::new(BLOCK_BYTES));
        }
        let judge = scope.spawn(move || {
            for (sum, memory) in read {
                if !sum.fits(&memory[..sum.length]) {
                    return Some(sum.offset);
                }
                progress.advance(sum.length as u64);
                let _ = back.send(memory);
            }
            None
        });
        let reading = sums.iter().try_for_each(|sum| {
            // Both ends are closed once the judge has found something.
            let Ok(mut memory) = free.recv() else { return Ok(()) };
            target.read(&mut memory[..sum.length], sum.offset)?;
            let _ = full.send((sum, memory));
            Ok::<_, FlashError>(())
        });
        drop(full);
        let name = target.path().display().to_string();
        match judge.join() {
            Ok(None) => reading,
            Ok(Some(offset)) => Err(FlashError::Verify(name, offset)),
            Err(_) => Err(FlashError::Thread(name)),
        }
    })
}
