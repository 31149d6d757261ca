//! Credit: who may have how many bytes under way.
//!
//! In: bytes of one stream. Out: frames, once the hub has room for them; windows, once this side has.
//! Never: more than `STREAM_WINDOW_BYTES` a lane in flight in either direction.

use limpet_protocol::{Envelope, PROTOCOL_VERSION_MIN, StreamFrame, Up, limits};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{Semaphore, mpsc};

const LANES: usize = 5;
const WINDOW: usize = limits::STREAM_WINDOW_BYTES as usize;
/// Bytes taken before the hub is told so.
const WINDOW_STEP: usize = WINDOW / 4;

#[derive(Debug)]
pub enum Incoming {
    Data { lane: u8, bytes: Vec<u8> },
    Eof { lane: u8 },
}

/// What the frame reader and the stream's task share.
pub struct Shared {
    credit: [Semaphore; LANES],
    waiting: AtomicUsize,
}

impl Shared {
    pub fn new() -> Shared {
        Shared { credit: std::array::from_fn(|_| Semaphore::new(WINDOW)), waiting: AtomicUsize::new(0) }
    }

    /// The hub took so many bytes of a lane.
    pub fn credit(&self, lane: u8, bytes: u32) {
        if let Some(credit) = self.credit.get(usize::from(lane)) {
            let room = WINDOW.saturating_sub(credit.available_permits());
            credit.add_permits((bytes as usize).min(room));
        }
    }

    /// Whether so many more bytes may wait here.
    pub fn take_in(&self, bytes: usize) -> bool {
        // An empty frame counts too, so that they cannot pile up for free.
        let bytes = bytes.max(1);
        self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= WINDOW * 2
    }

    fn taken(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes.max(1), Ordering::Relaxed);
    }
}

/// One stream's two directions.
pub struct StreamIo {
    pub out: StreamOut,
    pub input: StreamIn,
}

#[derive(Clone)]
pub struct StreamOut {
    id: u32,
    session: u64,
    bulk: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

pub struct StreamIn {
    out: StreamOut,
    from: mpsc::UnboundedReceiver<Incoming>,
    taken: [usize; LANES],
}

/// The session is over.
#[derive(Debug)]
pub struct Closed;

impl StreamIo {
    pub fn new(
        id: u32,
        session: u64,
        bulk: mpsc::Sender<Vec<u8>>,
        shared: Arc<Shared>,
        from: mpsc::UnboundedReceiver<Incoming>,
    ) -> StreamIo {
        let out = StreamOut { id, session, bulk, shared };
        StreamIo { input: StreamIn { out: out.clone(), from, taken: [0; LANES] }, out }
    }
}

impl StreamOut {
    async fn frame(&self, frame: StreamFrame) -> Result<(), Closed> {
        let bytes = Envelope { session: self.session, message: Up::Stream(frame) }.encode(PROTOCOL_VERSION_MIN);
        self.bulk.send(bytes).await.map_err(|_| Closed)
    }

    pub async fn opened(&self) -> Result<(), Closed> {
        self.frame(StreamFrame::Opened { id: self.id }).await
    }

    /// Sends bytes as the hub has room for them.
    pub async fn data(&self, lane: u8, bytes: &[u8]) -> Result<(), Closed> {
        let credit = self.shared.credit.get(usize::from(lane)).ok_or(Closed)?;
        for part in bytes.chunks(limits::STREAM_FRAME_BYTES_MAX) {
            credit.acquire_many(part.len() as u32).await.map_err(|_| Closed)?.forget();
            self.frame(StreamFrame::Data { id: self.id, lane, bytes: part.to_vec() }).await?;
        }
        Ok(())
    }

    pub async fn eof(&self, lane: u8) -> Result<(), Closed> {
        self.frame(StreamFrame::Eof { id: self.id, lane }).await
    }

    pub async fn end(&self, exit_code: Option<i32>, error: &str) {
        let error: String = error.chars().take(1000).collect();
        let _ = self.frame(StreamFrame::End { id: self.id, exit_code, error }).await;
    }
}

impl StreamIn {
    /// The next piece; the bytes given before count as taken once this is called again.
    pub async fn next(&mut self) -> Option<Incoming> {
        let incoming = self.from.recv().await?;
        if let Incoming::Data { lane, bytes } = &incoming {
            self.out.shared.taken(bytes.len());
            if let Some(taken) = self.taken.get_mut(usize::from(*lane)) {
                *taken += bytes.len();
                if *taken >= WINDOW_STEP {
                    let frame = StreamFrame::Window { id: self.out.id, lane: *lane, bytes: *taken as u32 };
                    *taken = 0;
                    self.out.frame(frame).await.ok()?;
                }
            }
        }
        Some(incoming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io() -> (StreamIo, Arc<Shared>, mpsc::Receiver<Vec<u8>>, mpsc::UnboundedSender<Incoming>) {
        let (bulk, sent) = mpsc::channel(1000);
        let (to, from) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new());
        (StreamIo::new(7, 1, bulk, shared.clone(), from), shared, sent, to)
    }

    fn bytes_in(sent: &mut mpsc::Receiver<Vec<u8>>) -> usize {
        let mut total = 0;
        while let Ok(bytes) = sent.try_recv() {
            if let Ok(Envelope { message: Up::Stream(StreamFrame::Data { bytes, .. }), .. }) = Envelope::decode(&bytes)
            {
                total += bytes.len();
            }
        }
        total
    }

    #[test]
    fn data_waits_for_credit() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (io, shared, mut sent, _to) = io();
            let out = io.out.clone();
            let task = tokio::spawn(async move { out.data(1, &vec![0; WINDOW + 5000]).await.is_ok() });
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(!task.is_finished());
            let first = bytes_in(&mut sent);
            assert!(first <= WINDOW && first > WINDOW - limits::STREAM_FRAME_BYTES_MAX);
            shared.credit(1, u32::MAX);
            assert!(task.await.unwrap());
            assert_eq!(first + bytes_in(&mut sent), WINDOW + 5000);
        });
    }

    #[test]
    fn windows_are_given_back_and_floods_are_noticed() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut io, shared, mut sent, to) = io();
            let chunk = vec![0; WINDOW_STEP];
            assert!(shared.take_in(chunk.len()));
            to.send(Incoming::Data { lane: 0, bytes: chunk }).unwrap();
            assert!(matches!(io.input.next().await, Some(Incoming::Data { .. })));
            let frame: Envelope<Up> = Envelope::decode(&sent.try_recv().unwrap()).unwrap();
            let window = StreamFrame::Window { id: 7, lane: 0, bytes: WINDOW_STEP as u32 };
            assert_eq!(frame.message, Up::Stream(window));
            let mut room = 0;
            while shared.take_in(1024) {
                room += 1024;
            }
            assert!(room <= WINDOW * 2);
        });
    }
}
