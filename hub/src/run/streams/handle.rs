//! The API's end of one stream.
//!
//! In: bytes to send, each lane within its credit. Out: what the node says. All methods take `&self`: one task may send
//! while another receives. Dropping the handle closes the stream.
//! Never: queues more than the credit.

use super::{FromNode, StreamError, Streams, inbox::LANES, table::Stream};
use bytes::Bytes;
use limpet_protocol::{
    StreamFrame,
    limits::{STREAM_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES},
};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Credit that the receiver gave, by lane.
pub(crate) struct Lanes([Semaphore; LANES]);

impl Lanes {
    pub fn new() -> Lanes {
        Lanes(std::array::from_fn(|_| Semaphore::new(STREAM_WINDOW_BYTES as usize)))
    }

    /// Credit beyond the window is a broken node.
    pub fn add(&self, lane: u8, bytes: u32) -> Result<(), &'static str> {
        let lane = self.0.get(lane as usize).ok_or("the node used a lane that does not exist")?;
        if lane.available_permits() + bytes as usize > STREAM_WINDOW_BYTES as usize {
            return Err("the node gave more credit than there is");
        }
        lane.add_permits(bytes as usize);
        Ok(())
    }

    /// Waits for credit and uses it.
    pub async fn take(&self, lane: u8, bytes: usize) -> Result<(), StreamError> {
        let credit = self.0.get(lane as usize).ok_or(StreamError::Ended)?;
        let bytes = u32::try_from(bytes).map_err(|_| StreamError::Ended)?;
        credit.acquire_many(bytes).await.map_err(|_| StreamError::Ended)?.forget();
        Ok(())
    }

    pub fn close(&self) {
        self.0.iter().for_each(Semaphore::close);
    }
}

/// How frames get to the node.
pub(super) enum Way {
    /// Its session is here.
    Session(Streams),
    /// The hub that it is connected to passes them on. Nobody receives any more: the stream is over.
    Hub(mpsc::Sender<StreamFrame>),
}

/// One open stream.
pub struct StreamHandle {
    pub(super) node: String,
    pub(super) id: u32,
    pub(super) stream: Arc<Stream>,
    pub(super) way: Way,
}

impl StreamHandle {
    /// A stream that another hub has opened; its receiver ends when the handle is dropped.
    pub(crate) fn relayed(node: &str, stream: Arc<Stream>, frames: mpsc::Sender<StreamFrame>) -> StreamHandle {
        StreamHandle { node: node.into(), id: 0, stream, way: Way::Hub(frames) }
    }

    async fn tell(&self, frame: StreamFrame) {
        match &self.way {
            Way::Session(streams) => streams.send(&self.node, frame).await,
            // Whoever reads hears of the end.
            Way::Hub(frames) => drop(frames.send(frame).await),
        }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// Sends bytes on a lane; waits for the node's credit. Not to be called by two tasks for one lane.
    pub async fn send(&self, lane: u8, bytes: Bytes) -> Result<(), StreamError> {
        for piece in bytes.chunks(STREAM_FRAME_BYTES_MAX) {
            self.stream.lanes.take(lane, piece.len()).await?;
            self.tell(StreamFrame::Data { id: self.id, lane, bytes: piece.to_vec() }).await;
        }
        Ok(())
    }

    /// Nothing more comes on this lane from this side.
    pub async fn eof(&self, lane: u8) -> Result<(), StreamError> {
        self.tell(StreamFrame::Eof { id: self.id, lane }).await;
        Ok(())
    }

    /// What the node says next; `End` is the last, then `None`. For one task only.
    pub async fn recv(&self) -> Option<FromNode> {
        let (from, credit) = self.stream.inbox.next().await?;
        if let Some((lane, bytes)) = credit {
            self.tell(StreamFrame::Window { id: self.id, lane, bytes }).await;
        }
        Some(from)
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        if let Way::Session(streams) = &self.way {
            streams.close(&self.node, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_protocol::{StreamKind, StreamOpen};

    /// Ids of forwarded ports are even (`is_bulk`).
    const FIRST: u32 = 2;

    fn open() -> StreamOpen {
        let kind = StreamKind::PortForward { port: 80 };
        StreamOpen { namespace: "d".into(), pod: "p".into(), uid: "u".into(), kind }
    }

    #[tokio::test]
    async fn streams_live_and_die_with_the_session() {
        let (streams, mut wire) = Streams::new();
        let never = streams.open("a", open()).await.err().unwrap();
        assert!(never.to_string().starts_with("node a is offline since 20"), "{never}");
        streams.node_opened("a");
        let opening = tokio::spawn({
            let streams = streams.clone();
            async move { streams.open("a", open()).await }
        });
        let (node, frame) = wire.recv().await.unwrap();
        assert_eq!((node.as_str(), frame.id()), ("a", FIRST), "ports are forwarded behind logs and commands");
        assert_eq!(streams.deliver("b", StreamFrame::Opened { id: FIRST }), None, "another node's word is nothing");
        streams.deliver("a", StreamFrame::Opened { id: FIRST });
        let handle = opening.await.unwrap().unwrap();
        streams.deliver("a", StreamFrame::Data { id: FIRST, lane: 1, bytes: b"hi".to_vec() });
        assert_eq!(handle.recv().await, Some(FromNode::Data { lane: 1, bytes: Bytes::from_static(b"hi") }));
        streams.node_closed("a");
        match handle.recv().await {
            Some(FromNode::End { exit_code: None, error }) => assert!(error.contains("node a is offline since")),
            other => panic!("{other:?}"),
        }
        assert_eq!(handle.recv().await, None);
        assert_eq!(handle.send(0, Bytes::from_static(b"x")).await, Err(StreamError::Ended));
        assert_eq!(streams.count(), 0);
    }

    #[tokio::test]
    async fn sending_waits_for_credit_and_dropping_closes() {
        let (streams, mut wire) = Streams::new();
        streams.node_opened("a");
        let opening = tokio::spawn({
            let streams = streams.clone();
            async move { streams.open("a", open()).await }
        });
        wire.recv().await.unwrap();
        streams.deliver("a", StreamFrame::Opened { id: FIRST });
        let handle = Arc::new(opening.await.unwrap().unwrap());
        let all = STREAM_WINDOW_BYTES as usize + 10;
        let sending = tokio::spawn({
            let handle = Arc::clone(&handle);
            async move { handle.send(0, Bytes::from(vec![0; all])).await }
        });
        let mut got = 0;
        let length = |frame: &StreamFrame| match frame {
            StreamFrame::Data { bytes, .. } => bytes.len(),
            _ => 0,
        };
        while got < STREAM_WINDOW_BYTES as usize {
            got += length(&wire.recv().await.unwrap().1);
        }
        assert!(wire.try_recv().is_err());
        streams.deliver("a", StreamFrame::Window { id: FIRST, lane: 0, bytes: 100 });
        assert_eq!(length(&wire.recv().await.unwrap().1), 10);
        sending.await.unwrap().unwrap();
        let broken = StreamFrame::Window { id: FIRST, lane: 0, bytes: u32::MAX };
        assert!(matches!(streams.deliver("a", broken), Some(StreamFrame::End { .. })));
        assert!(matches!(handle.recv().await, Some(FromNode::End { .. })));
        drop(handle);
        assert!(wire.try_recv().is_err(), "the end was told already");
    }
}
