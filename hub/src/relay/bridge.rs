//! A stream between a board that is connected here and another hub.
//!
//! In: the open stream, the connection to the other hub. Out: what each says to the other, each lane within the credit that its
//! receiver gave, as between hub and board. Never: lets a full lane hold up another; outlives either side.

use super::wire;
use crate::run::streams::{FromNode, LANES, Lanes, StreamHandle};
use bytes::Bytes;
use limpet_protocol::{StreamFrame, limits::STREAM_WINDOW_BYTES};
use std::{
    array,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
};

/// Frames that wait for the connection.
const FRAMES_MAX: usize = 16;
/// Pieces of one lane that wait for the board's credit; their bytes are within the lane's.
const PIECES_MAX: usize = 4096;
/// For the other hub to close its side.
const LINGER: Duration = Duration::from_secs(30);
/// Credit is returned when so much was passed on.
const RETURN_BYTES: u32 = STREAM_WINDOW_BYTES / 4;

/// `None` is the end of the lane.
type Piece = Option<Bytes>;

pub async fn carry(handle: StreamHandle, mut read: impl AsyncRead + Unpin, write: impl AsyncWrite + Unpin) {
    let (frames, outgoing) = mpsc::channel(FRAMES_MAX);
    let asker = &mut read;
    let both = async move {
        let credit = Lanes::new();
        tokio::select! {
            () = outward(&handle, &credit, &frames) => {}
            why = inward(&handle, &credit, &frames, asker) => {
                tracing::debug!(node = handle.node(), "a stream of another hub ends: {why}");
            }
        }
    };
    // An error is told by the reading side, too.
    let ((), _) = tokio::join!(both, wire::write_all(write, outgoing, wire::to_asker));
    // Credit may still be on its way here. A connection that is closed with bytes unread is reset, and its other side's system
    // throws away what that has not read yet: the end of what the board said.
    let rest = async {
        let mut rest = [0; 1024];
        while read.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// What the board says.
async fn outward(handle: &StreamHandle, credit: &Lanes, frames: &mpsc::Sender<StreamFrame>) {
    let id = 0;
    while let Some(said) = handle.recv().await {
        let frame = match said {
            FromNode::Data { lane, bytes } => {
                for piece in bytes.chunks(limpet_protocol::limits::STREAM_FRAME_BYTES_MAX) {
                    let frame = StreamFrame::Data { id, lane, bytes: piece.to_vec() };
                    if credit.take(lane, piece.len()).await.is_err() || frames.send(frame).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            FromNode::Eof { lane } => StreamFrame::Eof { id, lane },
            FromNode::End { exit_code, error } => StreamFrame::End { id, exit_code, error },
        };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// What the other hub says; the sentence is why it ended.
async fn inward(
    handle: &StreamHandle,
    credit: &Lanes,
    frames: &mpsc::Sender<StreamFrame>,
    mut read: impl AsyncRead + Unpin,
) -> String {
    // Received and not yet returned as credit, by lane.
    let used: [AtomicU32; LANES] = array::from_fn(|_| AtomicU32::new(0));
    let (queues, waiting): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel::<Piece>(PIECES_MAX)).unzip();
    let lanes = waiting.into_iter().zip(0..).zip(&used).map(|((queue, lane), used)| pass(handle, lane, queue, used, frames));
    let reading = async {
        loop {
            let frame = wire::read_from_asker(&mut read).await.map_err(|why| why.to_string())?;
            let (lane, piece) = match frame {
                StreamFrame::Data { lane, bytes, .. } => (lane, Some(Bytes::from(bytes))),
                StreamFrame::Eof { lane, .. } => (lane, None),
                StreamFrame::Window { lane, bytes, .. } => {
                    credit.add(lane, bytes)?;
                    continue;
                }
                StreamFrame::End { .. } => return Ok::<(), String>(()),
                StreamFrame::Open { .. } | StreamFrame::Opened { .. } => return Err("it opens what is open".into()),
            };
            let at = usize::from(lane);
            let (used, queue) = used.get(at).zip(queues.get(at)).ok_or("it uses a lane that does not exist")?;
            let bytes = u32::try_from(piece.as_ref().map_or(0, Bytes::len)).unwrap_or(u32::MAX);
            if used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > STREAM_WINDOW_BYTES {
                return Err("it sends more than it has credit for".into());
            }
            queue.try_send(piece).map_err(|_| "it sends too many small pieces")?;
        }
    };
    tokio::select! {
        outcome = reading => outcome.err().unwrap_or_else(|| "it is closed there".into()),
        _ = futures_util::future::join_all(lanes) => "the board's side is over".into(),
    }
}

/// One lane to the board, at the board's pace.
async fn pass(
    handle: &StreamHandle,
    lane: u8,
    mut queue: mpsc::Receiver<Piece>,
    used: &AtomicU32,
    frames: &mpsc::Sender<StreamFrame>,
) {
    let mut owed = 0;
    while let Some(piece) = queue.recv().await {
        let Some(bytes) = piece else {
            let _ = handle.eof(lane).await;
            continue;
        };
        owed += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if handle.send(lane, bytes).await.is_err() {
            // The board has ended the stream, and is heard saying so.
            return;
        }
        if owed >= RETURN_BYTES {
            used.fetch_sub(owed, Ordering::Relaxed);
            let _ = frames.send(StreamFrame::Window { id: 0, lane, bytes: owed }).await;
            owed = 0;
        }
    }
}
