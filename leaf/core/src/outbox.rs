//! Sets of readings for the hub, until it has them: in order, the oldest dropped and counted.
//!
//! In: readings when they are due, the hub's `MessagesTaken`. Out: messages to send. Kept in memory only: a power cut loses what
//! the hub did not have, which is less than a worn out flash would cost.
//! Never: more than `OUTBOX_MAX`; a number that was used before.

use crate::limits;
use alloc::collections::VecDeque;
use limpet_protocol::{BoardMessage, Up};

#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<BoardMessage>,
    /// Of the queue's front, so many are under way; since when.
    sent: usize,
    sent_ms: u64,
    before: u64,
    last: u64,
    lost: u64,
    open: bool,
}

impl Outbox {
    /// `from`: above every number that was used before.
    pub fn new(from: u64) -> Outbox {
        Outbox { last: from, ..Outbox::default() }
    }

    pub fn put(&mut self, message: BoardMessage) {
        self.last += 1;
        let lost = core::mem::take(&mut self.lost);
        self.queue.push_back(BoardMessage { number: self.last, after: 0, lost, ..message });
        if self.queue.len() > limits::OUTBOX_MAX
            && let Some(old) = self.queue.pop_front()
        {
            self.sent = self.sent.saturating_sub(1);
            match self.queue.front_mut() {
                Some(next) => next.lost += old.lost + 1,
                None => self.lost += old.lost + 1,
            }
        }
    }

    pub fn opened(&mut self, open: bool) {
        (self.open, self.sent, self.before) = (open, 0, 0);
    }

    pub fn taken(&mut self, number: u64) {
        while self.sent > 0 && self.queue.front().is_some_and(|m| m.number <= number) {
            self.queue.pop_front();
            self.sent -= 1;
        }
    }

    pub fn poll(&mut self, now_ms: u64) -> Option<Up> {
        if self.again_at().is_some_and(|at| now_ms >= at) {
            (self.sent, self.before) = (0, 0);
        }
        let next = self.queue.get(self.sent).filter(|_| self.open)?;
        let message = BoardMessage { after: self.before, ..next.clone() };
        (self.sent, self.sent_ms, self.before) = (self.sent + 1, now_ms, message.number);
        Some(Up::Message(message))
    }

    /// When what is under way is sent again.
    pub fn again_at(&self) -> Option<u64> {
        (self.open && self.sent > 0).then_some(self.sent_ms + limits::AGAIN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(outbox: &mut Outbox, now_ms: u64) -> alloc::vec::Vec<(u64, u64, u64)> {
        core::iter::from_fn(|| match outbox.poll(now_ms) {
            Some(Up::Message(m)) => Some((m.number, m.after, m.lost)),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn the_oldest_are_dropped_and_counted_and_nothing_comes_twice_in_a_row() {
        let mut outbox = Outbox::new(100);
        for _ in 0..limits::OUTBOX_MAX + 3 {
            outbox.put(BoardMessage::default());
        }
        assert!(numbers(&mut outbox, 0).is_empty(), "no hub");
        outbox.opened(true);
        let first = numbers(&mut outbox, 0);
        assert_eq!((first[0], first[1]), ((104, 0, 3), (105, 104, 0)));
        assert_eq!(first.len(), limits::OUTBOX_MAX);
        outbox.taken(105);
        assert!(numbers(&mut outbox, limits::AGAIN_MS - 1).is_empty());
        let again = numbers(&mut outbox, limits::AGAIN_MS);
        assert_eq!((again[0], again.len()), ((106, 0, 0), limits::OUTBOX_MAX - 2), "a new row");
        outbox.taken(u64::MAX);
        assert_eq!(outbox.again_at(), None);
    }
}
