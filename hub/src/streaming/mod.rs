//! Streaming for API clients: exec, attach, port-forward and logs over WebSocket and SPDY/3.1.
//!
//! In: the head of a request that wants an upgrade, what its URL asks for, the pod (already found, allowed
//! and checked).
//! Out: the 101 answer; a task that carries bytes between the client and the pod's node until either ends.
//! Failures before the upgrade are metav1.Status.
//! Never: decides who may do what, reads the store.

mod limits;

mod channel;
mod exit;
mod options;
mod upgrade;
mod wire;

mod spdy;

mod dial;
mod exec;
mod exec_spdy;
mod flow;
mod forward;
mod forward_spdy;
pub mod mqtt;

pub use dial::dial;
pub use exec::exec;
pub use flow::{Framing, flow};
pub use forward::port_forward;
pub use options::{ExecRequest, Lookup, PortForwardRequest};

use limpet_objects::status::Status;
use limpet_protocol::{StreamKind, StreamOpen};

use crate::run::streams::{StreamError, StreamHandle, Streams};

/// The pod that a stream goes to, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
}

impl PodPlace {
    async fn open(&self, kind: StreamKind, streams: &Streams) -> Result<StreamHandle, StreamError> {
        let (namespace, pod, uid) = (self.namespace.clone(), self.name.clone(), self.uid.clone());
        streams.open(&self.node, StreamOpen { namespace, pod, uid, kind }).await
    }
}

/// What a client hears when the node's side cannot be opened.
pub fn unreachable(error: &StreamError) -> Status {
    match error {
        StreamError::Offline { .. } | StreamError::Elsewhere { .. } => {
            Status::new(500, "InternalError", format!("error dialing backend: {error}"))
        }
        StreamError::TimedOut(_) => Status::timeout(&format!("error dialing backend: {error}"), 0),
        StreamError::TooMany(_) => Status::too_many_requests(error.to_string(), 1),
        StreamError::Refused(_) | StreamError::Ended => {
            Status::bad_request(format!("unable to upgrade connection: {error}"))
        }
    }
}

#[cfg(test)]
mod tests;
