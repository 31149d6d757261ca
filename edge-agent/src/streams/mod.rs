//! Logs, exec, attach and port-forward over the one connection.
//!
//! In: `StreamFrame`s of the hub, and what the pods' machine knows of the container that is meant. Out: frames.
//! One task a stream; each waits for credit, so that a slow reader at the far end costs nobody else anything.
//! Never: outlives its session, opens a port, or buffers more than the window that the hub was given.

mod flow;
mod serve;

pub use flow::{Incoming, StreamIo};
pub use serve::{Context, NodePage, Target};

use crate::link::Lanes;
use flow::Shared;
use limpet_protocol::{StreamFrame, StreamKind, StreamOpen, limits};
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

struct Open {
    shared: Arc<Shared>,
    to: mpsc::UnboundedSender<Incoming>,
    task: JoinHandle<()>,
}

/// All streams of one session.
pub struct Streams {
    session: u64,
    lanes: Lanes,
    open: HashMap<u32, Open>,
    context: Context,
}

impl Streams {
    pub fn new(session: u64, lanes: Lanes, context: Context) -> Streams {
        Streams { session, lanes, open: HashMap::new(), context }
    }

    /// Takes in a frame. `find` says what the named pod and container are now.
    pub fn frame(&mut self, frame: StreamFrame, find: impl FnOnce(&StreamOpen) -> Result<Target, String>) {
        self.open.retain(|_, open| !open.task.is_finished());
        match frame {
            StreamFrame::Open { id, open } => self.start(id, open, find),
            StreamFrame::Window { id, lane, bytes } => {
                if let Some(open) = self.open.get(&id) {
                    open.shared.credit(lane, bytes);
                }
            }
            StreamFrame::Data { id, lane, bytes } => self.deliver(id, Incoming::Data { lane, bytes }),
            StreamFrame::Eof { id, lane } => self.deliver(id, Incoming::Eof { lane }),
            StreamFrame::End { id, .. } => {
                // The hub has lost interest: whatever the task is doing ends here.
                if let Some(open) = self.open.remove(&id) {
                    open.task.abort();
                }
            }
            StreamFrame::Opened { .. } => {}
        }
    }

    fn start(&mut self, id: u32, open: StreamOpen, find: impl FnOnce(&StreamOpen) -> Result<Target, String>) {
        let (to, from) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new());
        // What people wait for goes before what programs carry to and fro.
        let lane = match &open.kind {
            StreamKind::PortForward { .. } => self.lanes.bulk.clone(),
            _ => self.lanes.streams.clone(),
        };
        let io = StreamIo::new(id, self.session, lane, shared.clone(), from);
        let target = if self.open.len() >= limits::STREAMS_PER_NODE_MAX || self.open.contains_key(&id) {
            Err("too many streams are open on this node; close some and try again".into())
        } else {
            find(&open)
        };
        let context = self.context.clone();
        let task = tokio::spawn(serve::serve(context, open, target, io));
        self.open.insert(id, Open { shared, to, task });
    }

    fn deliver(&mut self, id: u32, incoming: Incoming) {
        let Some(open) = self.open.get(&id) else { return };
        let fits = match &incoming {
            Incoming::Data { bytes, .. } => open.shared.take_in(bytes.len()),
            Incoming::Eof { .. } => true,
        };
        if !fits {
            log::warn!("streams: the hub sent more than stream {id} had room for; it is ended");
            if let Some(open) = self.open.remove(&id) {
                open.task.abort();
            }
            return;
        }
        let _ = open.to.send(incoming);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.open.values().for_each(|open| open.task.abort());
    }
}
