//! Writing images to cards.
//!
//! In: an image as a stream, drives that the guard allows. Out: cards that were read back and found equal, or the reason.
//! Never: a partition table on a card whose rest was not verified.

mod drives;
mod guard;
mod pipe;
mod progress;
mod target;
mod write;

pub use drives::{Bus, Drive, Inventory, scan, size};
pub use guard::{Refusal, allow, offered, still_the_same};
pub use progress::{Phase, Progress};
pub use target::{Target, TargetError};
pub use write::{CardDone, Finish, FlashError, Job, write_all};

#[cfg(test)]
mod tests;
