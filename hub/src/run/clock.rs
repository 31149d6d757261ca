//! The one place where the runners read the clock and draw random numbers.
//!
//! In: nothing. Out: the time, seeds. Never: waits.

use limpet_hub_core::Timestamp;

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Random bits for generated names. Without randomness the time must do: names only need to differ.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => now().as_nanosecond() as u64,
    }
}
