//! The backend of one hub alone: redb behind one writing thread.
//!
//! In: transactions of all tasks. Out: what the writer answers. Never: more of them waiting than there is room for.

use crate::{
    Check, Options, Record, Revision, StoreError, Write,
    backend::{Answer, Backend},
    limits,
    memory::Shared,
    redb_log::Log,
    writer::{Request, Writer},
};
use std::sync::{Arc, mpsc};
use tokio::sync::{Semaphore, oneshot};

pub(crate) struct Local {
    queue: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
}

impl Local {
    /// The thread ends with the last handle.
    pub fn start(log: Log, shared: Arc<Shared>, options: Options) -> Result<Local, StoreError> {
        let (queue, inbox) = mpsc::channel();
        Writer::spawn(log, shared, inbox, options)?;
        Ok(Local { queue, room: Arc::new(Semaphore::new(limits::QUEUE_WRITES_MAX)) })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Backend for Local {
    fn write(&self, checks: Vec<Check>, writes: Vec<Write>) -> Answer<'_, Vec<Record>> {
        Box::pin(async move {
            let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            self.ask(|reply| Request::Write { checks, writes, reply, _room: room }).await
        })
    }

    /// Nobody else writes, and a write is visible before it is acknowledged.
    fn catch_up(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn rotate(&self) -> Answer<'_, usize> {
        Box::pin(self.ask(|reply| Request::Rotate { reply }))
    }

    /// The file holds current objects only.
    fn compact(&self, _before: Revision) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(self.ask(|reply| Request::Close { reply }))
    }

    fn is_shared(&self) -> bool {
        false
    }
}
