//! Which streams are open on which node.
//!
//! In: openings by the API, frames and comings and goings of nodes. Out: frames to nodes; what is for a node at another hub goes
//! there.
//! Never: lets a frame of one node reach a stream of another.

use super::{
    FromNode, StreamError, StreamHandle,
    handle::{Lanes, Way},
    inbox::Inbox,
};
use crate::{relay::Road, run::clock};
use bytes::Bytes;
use limpet_hub_core::Timestamp;
use limpet_protocol::{StreamFrame, StreamKind, StreamOpen, limits::STREAMS_PER_NODE_MAX};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// A node has so long to accept a stream.
const OPEN: Duration = Duration::from_secs(30);

/// A frame on its way to a node's session.
pub type ToNode = (String, StreamFrame);

pub(crate) struct Stream {
    pub(super) inbox: Inbox,
    pub(super) lanes: Lanes,
    opened: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
}

/// Whether the frames of this stream go behind those of others: ids of streams with which programs carry much are even. The
/// id tells it also of the last frame, when the stream is not known any more: all frames of one stream keep their order.
pub fn is_bulk(id: u32) -> bool {
    id & 1 == 0
}

struct Node {
    open: bool,
    since: Timestamp,
    last_id: u32,
    streams: HashMap<u32, Arc<Stream>>,
}

struct Inner {
    nodes: Mutex<HashMap<String, Node>>,
    started: Timestamp,
    to_nodes: mpsc::Sender<ToNode>,
    road: OnceLock<Arc<Road>>,
}

/// All streams of all nodes; clones share them.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Inner>,
}

impl Streams {
    /// The receiver is drained by the node sessions.
    pub fn new() -> (Streams, mpsc::Receiver<ToNode>) {
        let (to_nodes, receiver) = mpsc::channel(1024);
        let inner = Inner { nodes: Mutex::default(), started: clock::now(), to_nodes, road: OnceLock::new() };
        (Streams { inner: Arc::new(inner) }, receiver)
    }

    /// The way to other hubs; set once at start.
    pub fn set_road(&self, road: Arc<Road>) {
        let _ = self.inner.road.set(road);
    }

    pub(crate) fn road(&self) -> Option<&Arc<Road>> {
        self.inner.road.get()
    }

    /// The other hub that the node is connected to.
    pub fn holder(&self, node: &str) -> Option<String> {
        if self.is_here(node) {
            return None;
        }
        self.road()?.holder(node)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream and waits until the node accepted it, wherever it is connected.
    pub async fn open(&self, node: &str, open: StreamOpen) -> Result<StreamHandle, StreamError> {
        match self.holder(node).zip(self.road()) {
            Some((hub, road)) => road.open(&hub, node, open).await,
            None => self.open_here(node, open).await,
        }
    }

    /// The same for a node that is connected to this hub.
    pub async fn open_here(&self, node: &str, open: StreamOpen) -> Result<StreamHandle, StreamError> {
        let (sender, accepted) = oneshot::channel();
        let stream = Arc::new(Stream { opened: Mutex::new(Some(sender)), ..Stream::opened() });
        let id = self.enter(node, &stream, matches!(open.kind, StreamKind::PortForward { .. }))?;
        // From here on, dropping the handle closes the stream at both ends.
        let handle = StreamHandle { node: node.into(), id, stream, way: Way::Session(self.clone()) };
        self.send(node, StreamFrame::Open { id, open }).await;
        match tokio::time::timeout(OPEN, accepted).await {
            Ok(Ok(Ok(()))) => Ok(handle),
            Ok(Ok(Err(error))) => Err(StreamError::Refused(error)),
            Ok(Err(_)) | Err(_) => Err(StreamError::TimedOut(node.into())),
        }
    }

    /// Whether a stream could be opened now.
    pub fn reach(&self, node: &str) -> Result<(), StreamError> {
        if self.holder(node).is_some() {
            return Ok(());
        }
        match self.nodes().get(node) {
            Some(entry) if entry.open => Ok(()),
            other => Err(absent(node, other.map_or(self.inner.started, |entry| entry.since))),
        }
    }

    /// Whether the node's session is at this hub.
    pub fn is_here(&self, node: &str) -> bool {
        self.nodes().get(node).is_some_and(|entry| entry.open)
    }

    fn enter(&self, node: &str, stream: &Arc<Stream>, bulk: bool) -> Result<u32, StreamError> {
        let mut nodes = self.nodes();
        let entry = match nodes.get_mut(node) {
            Some(entry) if entry.open => entry,
            Some(entry) => return Err(absent(node, entry.since)),
            None => return Err(absent(node, self.inner.started)),
        };
        if entry.streams.len() >= STREAMS_PER_NODE_MAX {
            return Err(StreamError::TooMany(node.into()));
        }
        let id = loop {
            // `last_id` is even.
            let id = entry.last_id.wrapping_add(if bulk { 2 } else { 1 });
            entry.last_id = entry.last_id.wrapping_add(2);
            if !entry.streams.contains_key(&id) {
                break id;
            }
        };
        entry.streams.insert(id, Arc::clone(stream));
        Ok(id)
    }

    /// Hands a frame to the node's session; waits while those have much to do.
    pub(super) async fn send(&self, node: &str, frame: StreamFrame) {
        let _ = self.inner.to_nodes.send((node.into(), frame)).await;
    }

    /// As `send`, for `Drop`. When there is no room the node keeps the stream until its session ends.
    pub(super) fn close(&self, node: &str, id: u32) {
        let known = self.nodes().get_mut(node).and_then(|n| n.streams.remove(&id));
        if known.is_none() {
            return;
        }
        let frame = StreamFrame::End { id, exit_code: None, error: "closed by the client".into() };
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.inner.to_nodes.try_send((node.into(), frame)) {
            let to_nodes = self.inner.to_nodes.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { to_nodes.send(frame).await });
            }
        }
    }

    /// A frame came from a node. The answer, if any, is a frame to send back.
    pub fn deliver(&self, node: &str, frame: StreamFrame) -> Option<StreamFrame> {
        let id = frame.id();
        let stream = self.nodes().get(node).and_then(|n| n.streams.get(&id).cloned());
        let Some(stream) = stream else {
            // Closed here while the node was still talking.
            return None;
        };
        if matches!(frame, StreamFrame::End { .. }) {
            self.remove(node, id);
        }
        let error = stream.take(frame).err()?;
        tracing::warn!(node, id, "a stream is ended: {error}");
        self.remove(node, id);
        stream.end(error.into());
        Some(StreamFrame::End { id, exit_code: None, error: error.into() })
    }

    fn remove(&self, node: &str, id: u32) {
        if let Some(entry) = self.nodes().get_mut(node) {
            entry.streams.remove(&id);
        }
    }

    /// A frame could not be queued for the node: the stream is torn.
    pub fn torn(&self, node: &str, id: u32, why: &str) {
        let stream = self.nodes().get_mut(node).and_then(|n| n.streams.remove(&id));
        if let Some(stream) = stream {
            stream.end(why.into());
        }
    }

    /// The node has a new session: streams of the one before are over.
    pub fn node_opened(&self, node: &str) {
        self.turn(node, true, "the node connected anew");
    }

    /// The node has no session any more.
    pub fn node_closed(&self, node: &str) {
        let since = clock::now();
        let sentence = StreamError::Offline { node: node.into(), since: text(since) };
        self.turn(node, false, &sentence.to_string());
    }

    fn turn(&self, node: &str, open: bool, sentence: &str) {
        let mut nodes = self.nodes();
        let fresh = || Node { open, since: clock::now(), last_id: 0, streams: HashMap::new() };
        let entry = nodes.entry(node.into()).or_insert_with(fresh);
        if entry.open != open {
            entry.since = clock::now();
        }
        entry.open = open;
        let over: Vec<_> = entry.streams.drain().collect();
        drop(nodes);
        for (_, stream) in over {
            stream.end(sentence.into());
        }
    }

    /// The node was removed.
    pub fn forget(&self, node: &str) {
        self.turn(node, false, "the node was removed");
        self.nodes().remove(node);
    }

    /// Streams that are open, for metrics.
    pub fn count(&self) -> usize {
        self.nodes().values().map(|n| n.streams.len()).sum()
    }
}

impl Stream {
    /// Of which nobody waits to hear that it is open.
    pub fn opened() -> Stream {
        Stream { inbox: Inbox::default(), lanes: Lanes::new(), opened: Mutex::new(None) }
    }

    /// What the node says. A sentence when it broke the rules.
    pub fn take(&self, frame: StreamFrame) -> Result<(), &'static str> {
        match frame {
            StreamFrame::Opened { .. } => {
                self.answer(Ok(()));
                Ok(())
            }
            StreamFrame::Data { lane, bytes, .. } => {
                self.inbox.push(FromNode::Data { lane, bytes: Bytes::from(bytes) })
            }
            StreamFrame::Eof { lane, .. } => self.inbox.push(FromNode::Eof { lane }),
            StreamFrame::Window { lane, bytes, .. } => self.lanes.add(lane, bytes),
            StreamFrame::End { exit_code, error, .. } => {
                self.answer(Err(error.clone()));
                self.lanes.close();
                self.inbox.push(FromNode::End { exit_code, error })
            }
            StreamFrame::Open { .. } => Err("the node tried to open a stream"),
        }
    }

    fn answer(&self, answer: Result<(), String>) {
        let sender = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }

    pub fn end(&self, error: String) {
        self.answer(Err(error.clone()));
        self.lanes.close();
        self.inbox.end(error);
    }
}

fn absent(node: &str, since: Timestamp) -> StreamError {
    StreamError::Offline { node: node.into(), since: text(since) }
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
