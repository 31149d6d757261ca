//! What came from the node on one stream and was not read yet.
//!
//! In: frames, checked against the credit that was given. Out: `FromNode`s; small pieces of one lane are joined.
//! Never: holds more than the credit of all lanes.

use bytes::{Bytes, BytesMut};
use limpet_protocol::limits::STREAM_WINDOW_BYTES;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// What a node says on a stream. `End` is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromNode {
    Data { lane: u8, bytes: Bytes },
    Eof { lane: u8 },
    /// `error` is empty on success.
    End { exit_code: Option<i32>, error: String },
}

/// Lanes are numbered 0 to 4 today.
pub(crate) const LANES: usize = 8;
/// Pieces are joined up to this size.
const JOINED_BYTES: usize = 32 * 1024;
/// Pieces that wait at most (a node that switches lanes with every byte).
const PIECES_MAX: usize = 4096;
/// Credit is returned when so much was read.
const RETURN_BYTES: u32 = STREAM_WINDOW_BYTES / 4;

enum Piece {
    Data { lane: u8, bytes: BytesMut },
    Other(FromNode),
}

#[derive(Default)]
struct Inner {
    pieces: VecDeque<Piece>,
    /// Sent by the node and not yet returned as credit, by lane.
    used: [u32; LANES],
    /// Read here and not yet returned as credit, by lane.
    read: [u32; LANES],
    ended: bool,
}

#[derive(Default)]
pub(super) struct Inbox {
    inner: Mutex<Inner>,
    news: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sentence when the node broke the rules.
    pub fn push(&self, from: FromNode) -> Result<(), &'static str> {
        let mut inner = self.lock();
        if inner.ended {
            return Ok(());
        }
        match from {
            FromNode::Data { lane, bytes } => {
                let used = inner.used.get_mut(lane as usize).ok_or("the node used a lane that does not exist")?;
                let sum = used.saturating_add(bytes.len() as u32);
                if sum > STREAM_WINDOW_BYTES {
                    return Err("the node sent more than it had credit for");
                }
                *used = sum;
                inner.append(lane, &bytes)?;
            }
            other => {
                if inner.pieces.len() >= PIECES_MAX + LANES {
                    return Err("the node sent too many small pieces");
                }
                inner.ended = matches!(other, FromNode::End { .. });
                inner.pieces.push_back(Piece::Other(other));
            }
        }
        drop(inner);
        self.news.notify_one();
        Ok(())
    }

    /// Ends the stream from this side, unless the node did: what was read before stays.
    pub fn end(&self, error: String) {
        let mut inner = self.lock();
        if !inner.ended {
            inner.ended = true;
            inner.pieces.push_back(Piece::Other(FromNode::End { exit_code: None, error }));
        }
        drop(inner);
        self.news.notify_one();
    }

    /// The next word of the node with the credit (lane, bytes) to return to it now. `None` after `End`.
    pub async fn next(&self) -> Option<(FromNode, Option<(u8, u32)>)> {
        loop {
            {
                let mut inner = self.lock();
                match inner.pieces.pop_front() {
                    Some(Piece::Other(from)) => return Some((from, None)),
                    Some(Piece::Data { lane, bytes }) => {
                        let credit = inner.read_one(lane, bytes.len() as u32);
                        return Some((FromNode::Data { lane, bytes: bytes.freeze() }, credit));
                    }
                    None if inner.ended => return None,
                    None => {}
                }
            }
            self.news.notified().await;
        }
    }
}

impl Inner {
    fn append(&mut self, lane: u8, bytes: &[u8]) -> Result<(), &'static str> {
        if let Some(Piece::Data { lane: last, bytes: joined }) = self.pieces.back_mut()
            && *last == lane
            && joined.len() + bytes.len() <= JOINED_BYTES
        {
            joined.extend_from_slice(bytes);
            return Ok(());
        }
        if self.pieces.len() >= PIECES_MAX {
            return Err("the node sent too many small pieces");
        }
        self.pieces.push_back(Piece::Data { lane, bytes: BytesMut::from(bytes) });
        Ok(())
    }

    fn read_one(&mut self, lane: u8, bytes: u32) -> Option<(u8, u32)> {
        let at = lane as usize % LANES;
        self.read[at] += bytes;
        if self.read[at] < RETURN_BYTES {
            return None;
        }
        let credit = std::mem::take(&mut self.read[at]);
        self.used[at] -= credit.min(self.used[at]);
        Some((lane, credit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(lane: u8, bytes: usize) -> FromNode {
        FromNode::Data { lane, bytes: Bytes::from(vec![b'x'; bytes]) }
    }

    #[tokio::test]
    async fn small_pieces_are_joined_and_lanes_kept_in_order() {
        let inbox = Inbox::default();
        for from in [data(1, 3), data(1, 4), data(2, 1), data(1, 1), FromNode::Eof { lane: 1 }] {
            inbox.push(from).unwrap();
        }
        inbox.end("gone".into());
        inbox.end("again".into());
        inbox.push(data(1, 1)).unwrap();
        let mut seen = Vec::new();
        while let Some((from, _)) = inbox.next().await {
            seen.push(from);
        }
        let end = FromNode::End { exit_code: None, error: "gone".into() };
        assert_eq!(seen, [data(1, 7), data(2, 1), data(1, 1), FromNode::Eof { lane: 1 }, end]);
    }

    #[tokio::test]
    async fn credit_bounds_each_lane_and_comes_back_as_it_is_read() {
        let inbox = Inbox::default();
        let frame = 16 * 1024;
        for _ in 0..STREAM_WINDOW_BYTES / frame {
            inbox.push(data(1, frame as usize)).unwrap();
        }
        assert!(inbox.push(data(1, 1)).is_err());
        inbox.push(data(2, 1)).unwrap();
        let mut returned = 0;
        while returned == 0 {
            let (_, credit) = inbox.next().await.unwrap();
            returned += credit.map_or(0, |(_, bytes)| bytes);
        }
        assert_eq!(returned, RETURN_BYTES);
        inbox.push(data(1, RETURN_BYTES as usize)).unwrap();
        assert!(inbox.push(data(1, 1)).is_err());
        assert!(inbox.push(data(LANES as u8, 1)).is_err());
    }

    #[test]
    fn switching_lanes_with_every_byte_is_bounded() {
        let inbox = Inbox::default();
        let refused = (0..20_000).find_map(|i| inbox.push(data(1 + i as u8 % 2, 1)).err());
        assert_eq!(refused, Some("the node sent too many small pieces"));
    }
}
