//! The hub's wall clock, as controllers ask about it.
//!
//! In: both clocks of the simulated hub, from event to event. Out: since when the wall clock has gone evenly, by the hub's
//! own code.
//! Never: knows that the clock was set before somebody looks.

use limpet_hub_core::{
    Timestamp,
    clocks::{Even, Evenness, WallClock},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct HubClock(Mutex<Clocks>);

struct Clocks {
    even: Timestamp,
    looks: Evenness,
}

impl HubClock {
    pub fn new(wall: Timestamp, even: Timestamp) -> HubClock {
        HubClock(Mutex::new(Clocks { even, looks: Evenness::new(wall, even) }))
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ticks(&self, even: Timestamp) {
        self.clocks().even = even;
    }

    /// The hub's process begins.
    pub fn starts(&self, wall: Timestamp) {
        let mut clocks = self.clocks();
        clocks.looks = Evenness::new(wall, clocks.even);
    }

    pub fn times_set(&self) -> u64 {
        self.clocks().looks.times_set()
    }
}

impl WallClock for HubClock {
    fn even(&self, now: Timestamp) -> Even {
        let mut clocks = self.clocks();
        let even = clocks.even;
        clocks.looks.look(now, even)
    }
}
