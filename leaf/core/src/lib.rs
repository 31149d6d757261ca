//! What a leaf board decides: a microcontroller that runs no containers and is a node all the same.
//!
//! In: the hub's messages as bytes, readings of sensors, the time since the start. Out: messages, what to write to flash before
//! them, the configuration to follow.
//! Never: I/O, clocks, randomness, a buffer without a bound; needs nothing but an allocator.
#![no_std]

extern crate alloc;

mod config;
mod kept;
mod leaf;
pub mod limits;
mod outbox;
mod readings;
mod report;
mod set;
mod streams;

pub use config::Config;
pub use kept::Kept;
pub use leaf::{Leaf, Output};
pub use readings::Reading;
pub use report::{Condition, Facts};

#[cfg(test)]
mod tests;
