//! Messages in parts, and how many parts may be under way.
//!
//! In: messages; parts; credit. Out: parts; messages; credit. The broker between never holds more than a window a direction, so
//! that its own limits drop nothing as long as it works.
//! Never: more memory than the longest message that is allowed.

use crate::{PART_BYTES_MAX, SealError, WINDOW_PARTS, seal::Inside};

/// A message in parts, in order. An empty message is one empty part.
pub fn parts(channel: u8, message: &[u8]) -> Vec<Inside> {
    let mut chunks: Vec<&[u8]> = message.chunks(PART_BYTES_MAX).collect();
    if chunks.is_empty() {
        chunks.push(message);
    }
    let last = chunks.len() - 1;
    let part = |(n, bytes): (usize, &[u8])| Inside::Part { channel, last: n == last, bytes: bytes.to_vec() };
    chunks.into_iter().enumerate().map(part).collect()
}

/// With each so many signs of life of a node the hub answers one: the broker's word that it is there says nothing of the hub.
/// Where they are frequent bytes cost nothing.
pub fn answered_every(keepalive_s: u16) -> u32 {
    if keepalive_s <= 60 { 3 } else { 24 }
}

/// Signs of life without a word of the hub after which it is not there any more.
pub fn unanswered_max(keepalive_s: u16) -> u32 {
    2 * answered_every(keepalive_s) + 1
}

/// Puts parts together again: one message at a time.
#[derive(Debug, Default)]
pub struct Joiner {
    channel: u8,
    bytes: Vec<u8>,
}

impl Joiner {
    /// The whole message with its last part.
    pub fn part(&mut self, channel: u8, last: bool, bytes: Vec<u8>, bytes_max: usize) -> Result<Option<Vec<u8>>, SealError> {
        if self.bytes.is_empty() {
            if last {
                return Ok(Some(bytes));
            }
            self.channel = channel;
        }
        if self.channel != channel || bytes.is_empty() {
            return Err(SealError::Broken("parts of two messages are mixed"));
        }
        if self.bytes.len() + bytes.len() > bytes_max {
            return Err(SealError::Broken("a message over the limit"));
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(last.then(|| std::mem::take(&mut self.bytes)))
    }
}

/// The sender's side: parts that were sent and not taken yet.
#[derive(Debug, Default)]
pub struct Window {
    sent: u32,
    taken: u32,
}

impl Window {
    pub fn is_open(&self) -> bool {
        self.sent.wrapping_sub(self.taken) < WINDOW_PARTS
    }

    pub fn sent(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    /// The other side has taken so many in all.
    pub fn credit(&mut self, taken: u32) -> Result<(), SealError> {
        if taken.wrapping_sub(self.taken) > self.sent.wrapping_sub(self.taken) {
            return Err(SealError::Broken("credit for parts that were not sent"));
        }
        self.taken = taken;
        Ok(())
    }
}

/// The receiver's side.
#[derive(Debug, Default)]
pub struct Debt {
    taken: u32,
    told: u32,
}

impl Debt {
    /// One more part was taken; what to tell the sender, every half window.
    pub fn taken(&mut self) -> Option<u32> {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.wrapping_sub(self.told) < WINDOW_PARTS / 2 {
            return None;
        }
        self.told = self.taken;
        Some(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_apart_and_together() {
        for len in [0, 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 3 * PART_BYTES_MAX] {
            let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let (mut joiner, mut got) = (Joiner::default(), None);
            for part in parts(b's', &message) {
                let Inside::Part { channel, last, bytes } = part else { panic!() };
                assert!(got.is_none() && bytes.len() <= PART_BYTES_MAX);
                got = joiner.part(channel, last, bytes, len).unwrap();
            }
            assert_eq!(got, Some(message));
        }
        let mut joiner = Joiner::default();
        joiner.part(b's', false, vec![1], 10).unwrap();
        assert!(joiner.part(b'x', true, vec![1], 10).is_err(), "of two channels");
        assert!(joiner.part(b's', false, vec![], 10).is_err(), "empty for ever");
        assert!(joiner.part(b's', true, vec![1; 10], 10).is_err(), "too long");
    }

    #[test]
    fn no_more_is_under_way_than_the_window() {
        let (mut window, mut debt, mut waiting) = (Window::default(), Debt::default(), 0);
        for _ in 0..1000 {
            while window.is_open() {
                window.sent();
                waiting += 1;
            }
            assert!(waiting <= WINDOW_PARTS && waiting > WINDOW_PARTS / 2, "{waiting}");
            waiting -= 1;
            if let Some(taken) = debt.taken() {
                window.credit(taken).unwrap();
            }
            // Without credit the sender stands still before the receiver does: it must come in time.
            assert!(waiting > 0);
        }
        assert!(window.credit(u32::MAX).is_err());
    }
}
