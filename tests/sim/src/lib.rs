//! The fleet simulator: the real cores of hub and agents under a seeded queue of events.
//!
//! In: a seed, a number of boards, a length. Out: statistics, or the first broken invariant with its seed.
//! Messages travel as real protocol bytes through a network that delays, loses, doubles, reorders and cuts; boards and
//! hub crash between any two steps. At the end the faults stop: desired = actual must be reached, and stay.
//! Never: a clock, a thread, a source of chance other than the seed.

mod board;
mod clock;
mod control;
mod faults;
mod hub;
mod invariants;
mod journal;
mod limits;
mod misrule;
mod operator;
mod policies;
mod promises;
mod rng;
mod runtime;
mod sabotage;
mod steps;
mod watcher;
mod wire;
mod workloads;
mod world;

/// A fifth of the simulator's work is memory that comes and goes.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use rng::Rng;
pub use sabotage::{MISTAKES, Sabotage};
pub use world::{Drill, Report, Settings, run};
