//! What waits for one client's socket, the most urgent first: answers, state, status, Events, streams, bulk.
//!
//! In: messages by channel, from any task. Out: the next one, for the one task that writes. Each class has its own bounds.
//! An empty queue holds no memory of its own: there are as many as boards, and nearly all of them are empty.
//! Never: waits to take something in; a full class is the sender's answer.

use crate::{SendError, limits};
use bytes::Bytes;
use rmqtt_codec::v3::Packet;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Channels in the order of their urgency; what is not named here is a stream.
const URGENCY: [char; 3] = ['s', 't', 'e'];
/// The class of streams, and behind it that of streams that carry much.
const STREAMS: usize = URGENCY.len();
const BULK: usize = STREAMS + 1;

/// Something to write.
#[derive(Debug)]
pub(crate) enum Next {
    Answer(Packet),
    Message { channel: char, payload: Bytes },
}

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Packet>,
    classes: [VecDeque<(char, Bytes)>; BULK + 1],
    /// Bytes and messages of everything but streams, and of streams.
    state: (usize, usize),
    bulk: (usize, usize),
    closed: bool,
    /// Why the connection must end.
    end: Option<String>,
}

#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    over: Notify,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `bulk`: a stream that others go before.
    pub fn send(&self, channel: char, payload: Bytes, bulk: bool) -> Result<(), SendError> {
        let stream = if bulk { BULK } else { STREAMS };
        let class = URGENCY.iter().position(|c| *c == channel).unwrap_or(stream);
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(SendError::NotConnected);
        }
        let (count, messages_max, bytes_max) = match class {
            STREAMS | BULK => (&mut waiting.bulk, limits::BULK_MESSAGES_MAX, limits::BULK_BYTES_MAX),
            _ => (&mut waiting.state, limits::QUEUE_MESSAGES_MAX, limits::QUEUE_BYTES_MAX),
        };
        if count.0 + payload.len() > bytes_max || count.1 >= messages_max {
            return Err(SendError::QueueFull);
        }
        *count = (count.0 + payload.len(), count.1 + 1);
        waiting.classes[class].push_back((channel, payload));
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    /// False when the client does not read its answers.
    pub fn answer(&self, packet: Packet) -> bool {
        let mut waiting = self.waiting();
        if waiting.answers.len() >= limits::ANSWERS_MAX {
            return false;
        }
        waiting.answers.push_back(packet);
        drop(waiting);
        self.news.notify_one();
        true
    }

    /// Nothing more is taken in; what waits may still be written.
    pub fn close(&self) {
        self.waiting().closed = true;
    }

    /// The connection must end; the first one who says so says why.
    pub fn end(&self, reason: &str) {
        self.waiting().end.get_or_insert_with(|| reason.to_owned());
        self.over.notify_one();
    }

    /// Waits until the connection must end. Only one task may wait here.
    pub async fn ended(&self) -> String {
        loop {
            if let Some(reason) = self.waiting().end.clone() {
                return reason;
            }
            self.over.notified().await;
        }
    }

    /// `urgent`: no streams.
    pub fn try_next(&self, urgent: bool) -> Option<Next> {
        let mut waiting = self.waiting();
        if let Some(packet) = waiting.answers.pop_front() {
            if waiting.answers.is_empty() {
                waiting.answers = VecDeque::new();
            }
            return Some(Next::Answer(packet));
        }
        for class in 0..if urgent { STREAMS } else { BULK + 1 } {
            let Some((channel, payload)) = waiting.classes[class].pop_front() else { continue };
            let count = if class >= STREAMS { &mut waiting.bulk } else { &mut waiting.state };
            *count = (count.0 - payload.len(), count.1 - 1);
            if waiting.classes[class].is_empty() {
                waiting.classes[class] = VecDeque::new();
            }
            return Some(Next::Message { channel, payload });
        }
        None
    }

    /// Only one task may wait here.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next(false) {
                return next;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    fn order(queue: &Queue) -> String {
        let mut order = String::new();
        while let Some(next) = queue.try_next(false) {
            order.push(match next {
                Next::Answer(_) => 'A',
                Next::Message { channel, .. } => channel,
            });
        }
        order
    }

    #[test]
    fn the_urgent_goes_first_and_the_rest_in_its_order() {
        let queue = Queue::default();
        for channel in "xetsyxste".chars() {
            queue.send(channel, Bytes::from_static(b"m"), channel == 'y').unwrap();
        }
        assert!(queue.answer(Packet::PublishAck { packet_id: NonZeroU16::MIN }));
        assert_eq!(order(&queue), "Assttee".to_string() + "xxy");
        queue.send('x', Bytes::new(), false).unwrap();
        assert!(queue.try_next(true).is_none() && queue.try_next(false).is_some());
    }

    #[test]
    fn streams_leave_room_for_state_and_both_are_bounded() {
        let queue = Queue::default();
        let piece = Bytes::from(vec![0; 16 * 1024]);
        let full = |channel| (0..100_000).find(|_| queue.send(channel, piece.clone(), true).is_err());
        assert_eq!(full('x'), Some(limits::BULK_BYTES_MAX / piece.len()));
        assert_eq!(full('s'), Some(limits::QUEUE_MESSAGES_MAX));
        assert_eq!(queue.send('e', Bytes::new(), false), Err(SendError::QueueFull));
        assert!(queue.try_next(false).is_some());
        assert_eq!(queue.send('t', Bytes::new(), false), Ok(()));
        let answers = (0..10_000).find(|_| !queue.answer(Packet::PingResponse));
        assert_eq!(answers, Some(limits::ANSWERS_MAX));
        queue.close();
        assert_eq!(queue.send('s', Bytes::new(), false), Err(SendError::NotConnected));
        assert_eq!(order(&queue).len(), limits::ANSWERS_MAX + limits::QUEUE_MESSAGES_MAX + limits::BULK_BYTES_MAX / piece.len());
    }

    #[tokio::test]
    async fn an_end_is_heard_by_who_waits_and_by_who_comes_late() {
        let queue = std::sync::Arc::new(Queue::default());
        let waits = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { queue.ended().await }
        });
        tokio::task::yield_now().await;
        queue.end("first");
        queue.end("second");
        assert_eq!((waits.await.unwrap(), queue.ended().await), ("first".to_string(), "first".to_string()));
    }

    #[test]
    fn what_is_empty_holds_nothing() {
        let queue = Queue::default();
        for channel in "stex".repeat(50).chars() {
            queue.send(channel, Bytes::from_static(b"m"), false).unwrap();
        }
        order(&queue);
        let waiting = queue.waiting();
        assert!(waiting.classes.iter().all(|c| c.capacity() == 0) && waiting.answers.capacity() == 0);
        assert_eq!((waiting.state, waiting.bulk), ((0, 0), (0, 0)));
    }
}
