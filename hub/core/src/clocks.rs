//! Whether the hub's wall clock can be trusted with waits: since when nobody has set it.
//!
//! In: readings of the wall clock beside those of the even clock, which nobody sets (decision 0051). Out: since when the wall
//! clock has gone evenly. Waits whose beginning is written in an object begin again there.
//! Never: reads a clock.

use crate::{Timestamp, limits};
use jiff::SignedDuration;

/// Since when the wall clock has gone evenly, by its own present count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Even {
    /// The hub's start, or the last time that the clock was set.
    pub since: Timestamp,
    /// Somebody has set it since the hub's start.
    pub was_set: bool,
}

impl Even {
    /// Nobody knows better.
    pub const ALWAYS: Even = Even { since: Timestamp::MIN, was_set: false };

    /// When a wait began that by its object began at `at`. What is still to come was written with another clock; what is
    /// past may have been, too, once the clock was set.
    pub fn began(&self, at: Timestamp, now: Timestamp) -> Timestamp {
        match (at > now, self.was_set) {
            (true, _) if self.since == Timestamp::MIN => now,
            (true, _) => self.since.min(now),
            (false, true) => at.max(self.since),
            (false, false) => at,
        }
    }
}

/// What controllers ask about the wall clock.
pub trait WallClock: Send + Sync {
    /// `now`: what it shows.
    fn even(&self, now: Timestamp) -> Even;
}

/// A clock that nobody ever sets, in a hub that has run for ever.
pub struct NeverSet;

impl WallClock for NeverSet {
    fn even(&self, _now: Timestamp) -> Even {
        Even::ALWAYS
    }
}

/// Compares the two clocks, from look to look.
#[derive(Clone, Copy, Debug)]
pub struct Evenness {
    /// The wall clock at the last look.
    wall: Timestamp,
    /// The even clock at the last look.
    even: Timestamp,
    /// By the even clock.
    since: Timestamp,
    times_set: u64,
}

impl Evenness {
    /// At the hub's start.
    pub fn new(wall: Timestamp, even: Timestamp) -> Evenness {
        Evenness { wall, even, since: even, times_set: 0 }
    }

    /// A clock that is only disciplined strays little from look to look; one that does not was set, and since nobody knows
    /// when, it was set now.
    pub fn look(&mut self, wall: Timestamp, even: Timestamp) -> Even {
        let strayed = wall.duration_since(self.wall) - even.duration_since(self.even);
        if strayed.abs() >= SignedDuration::from_secs(limits::CLOCK_SET_S) {
            (self.since, self.times_set) = (even, self.times_set + 1);
        }
        (self.wall, self.even) = (wall, even);
        let evenly = even.duration_since(self.since).max(SignedDuration::ZERO);
        Even { since: wall.checked_sub(evenly).unwrap_or(wall), was_set: self.times_set > 0 }
    }

    pub fn times_set(&self) -> u64 {
        self.times_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    const DAY: i64 = 86_400;

    #[test]
    fn a_clock_that_is_set_is_noticed_in_both_directions() {
        for jump in [-DAY, -10, 10, DAY, 56 * 365 * DAY] {
            let mut clock = Evenness::new(at(0), at(0));
            assert_eq!(clock.look(at(50), at(50)), Even { since: at(0), was_set: false });
            assert_eq!(clock.look(at(60 + jump), at(60)), Even { since: at(60 + jump), was_set: true }, "{jump}");
            assert_eq!(clock.look(at(90 + jump), at(90)), Even { since: at(60 + jump), was_set: true }, "{jump}");
            assert_eq!(clock.times_set(), 1);
        }
    }

    #[test]
    fn a_clock_that_is_disciplined_is_not_set() {
        let mut clock = Evenness::new(at(0), at(0));
        for hour in 1..1000 {
            let even = clock.look(at(hour * 3605), at(hour * 3600));
            assert_eq!((even.was_set, clock.times_set()), (false, 0));
        }
    }

    #[test]
    fn waits_begin_again_with_another_clock() {
        let (even, set) = (Even { since: at(100), was_set: false }, Even { since: at(100), was_set: true });
        assert_eq!(even.began(at(50), at(200)), at(50), "before the hub's start, by the same clock");
        assert_eq!(even.began(at(DAY), at(200)), at(100), "a time to come holds nothing up");
        assert_eq!(set.began(at(-DAY), at(200)), at(100), "and a jump forward ends nothing");
        assert_eq!(set.began(at(150), at(200)), at(150));
        assert_eq!(Even::ALWAYS.began(at(DAY), at(200)), at(200));
    }
}
