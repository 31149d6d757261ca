//! Which of several hubs leads: decided as Kubernetes' own components decide it.
//!
//! In: the Lease as it is now, and this hub's own steady clock. Out: what to do with it. A Lease that nobody changed for its
//! duration, as this hub saw it, is free: clocks of different machines are never compared.
//! Source: client-go's leaderelection, with its times. Never: leads longer than it can be sure of.

use jiff::{SignedDuration, Timestamp};

/// A Lease that nobody renewed for so long is free.
pub const LEASE_S: i64 = 15;
/// A leader that could not renew for so long stops leading, before others may begin.
pub const RENEW_DEADLINE_S: i64 = 10;
/// Between two looks.
pub const RETRY_S: u64 = 2;

const _: () = assert!(RENEW_DEADLINE_S < LEASE_S);

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Empty: it was given back.
    pub holder: String,
    pub revision: u64,
    pub transitions: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody else leads.
    Wait,
    /// Write the Lease with this hub's name and this number of transitions.
    Acquire { transitions: i64 },
    /// Write the Lease's time again.
    Renew,
}

/// What one hub remembers of the election.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    /// The newest revision of the Lease, and since when it is that.
    last: Option<(u64, Timestamp)>,
    /// When this hub's latest successful write began, while it leads.
    renewed: Option<Timestamp>,
}

impl Election {
    pub fn new(identity: &str) -> Election {
        Election { identity: identity.into(), last: None, renewed: None }
    }

    /// What to do now.
    pub fn step(&mut self, seen: Option<&Seen>, now: Timestamp) -> Step {
        let Some(seen) = seen else { return Step::Acquire { transitions: 0 } };
        let since = match self.last {
            Some((revision, since)) if revision == seen.revision => since,
            _ => now,
        };
        self.last = Some((seen.revision, since));
        if seen.holder == self.identity {
            // After a restart the Lease is still this hub's, but nothing else is: the term begins anew.
            return if self.leads(now) { Step::Renew } else { Step::Acquire { transitions: seen.transitions } };
        }
        self.renewed = None;
        let is_free = seen.holder.is_empty() || after(since, LEASE_S) <= now;
        if is_free { Step::Acquire { transitions: seen.transitions + 1 } } else { Step::Wait }
    }

    /// The write that began then was made.
    pub fn written(&mut self, began: Timestamp) {
        self.renewed = Some(began);
    }

    /// Somebody else was faster, or the term is over.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    pub fn leads(&self, now: Timestamp) -> bool {
        self.renewed.is_some_and(|at| now < after(at, RENEW_DEADLINE_S))
    }
}

fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn seen(holder: &str, revision: u64) -> Seen {
        Seen { holder: holder.into(), revision, transitions: 3 }
    }

    #[test]
    fn a_lease_that_is_renewed_is_left_alone_and_a_dead_one_is_taken() {
        let mut b = Election::new("b");
        for second in 0..60 {
            assert_eq!(b.step(Some(&seen("a", 10 + second as u64 / 2)), at(second)), Step::Wait);
        }
        // From second 58 on it stays as it is.
        assert_eq!(b.step(Some(&seen("a", 39)), at(72)), Step::Wait);
        assert_eq!(b.step(Some(&seen("a", 39)), at(73)), Step::Acquire { transitions: 4 });
        b.written(at(73));
        assert_eq!(b.step(Some(&seen("b", 40)), at(75)), Step::Renew);
    }

    #[test]
    fn what_was_given_back_or_never_taken_is_taken_at_once() {
        assert_eq!(Election::new("b").step(Some(&seen("", 9)), at(0)), Step::Acquire { transitions: 4 });
        assert_eq!(Election::new("b").step(None, at(0)), Step::Acquire { transitions: 0 });
    }

    #[test]
    fn who_cannot_renew_stops_before_others_begin() {
        let mut a = Election::new("a");
        a.written(at(0));
        let mut b = Election::new("b");
        assert_eq!(b.step(Some(&seen("a", 1)), at(0)), Step::Wait);
        for second in 0..40 {
            let b_may = b.step(Some(&seen("a", 1)), at(second)) != Step::Wait;
            assert!(!(a.leads(at(second)) && b_may), "both at second {second}");
        }
        assert!(!a.leads(at(10)));
    }

    #[test]
    fn a_hub_that_starts_again_begins_a_new_term_and_one_that_was_replaced_waits() {
        let mut a = Election::new("a");
        assert_eq!(a.step(Some(&seen("a", 5)), at(0)), Step::Acquire { transitions: 3 });
        a.written(at(0));
        assert_eq!(a.step(Some(&seen("b", 6)), at(1)), Step::Wait);
        assert!(!a.leads(at(1)));
    }
}
