//! Streams (logs, exec, attach, port-forward) over the one connection.
//!
//! In and out: `StreamFrame`s on the stream channel. The hub opens, ids are the hub's and unique in a session.
//! Credit: a sender may have `STREAM_WINDOW_BYTES` of `Data` in flight per (stream, direction, port) and waits for
//! `Window` beyond that, so that bulk never holds back state.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What the hub asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamKind {
    /// Container logs as text lines (options of `GET …/pods/{name}/log`); sent on lane 1, then `End`.
    Logs {
        container: String,
        follow: bool,
        previous: bool,
        timestamps: bool,
        /// Only lines of the last so many seconds.
        since_seconds: Option<i64>,
        /// Only lines after this time, milliseconds since 1970.
        since_ms: Option<i64>,
        tail_lines: Option<i64>,
        limit_bytes: Option<i64>,
    },
    /// Lanes: 0 stdin, 1 stdout, 2 stderr, 4 resize (JSON `{"Width":w,"Height":h}`).
    Exec { container: String, command: Vec<String>, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    /// One TCP connection to a port inside the pod's network: lane 0 both ways.
    PortForward { port: u16 },
    /// An HTTP GET of the node's own endpoints (`/stats/summary`, `/metrics`, `/pods`): response body on lane 1.
    NodeGet { path: String },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamOpen {
    pub namespace: String,
    pub pod: String,
    /// The pod's uid; a pod with another uid is not the one meant.
    pub uid: String,
    pub kind: StreamKind,
}

/// One frame of one stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamFrame {
    Open { id: u32, open: StreamOpen },
    /// The agent accepted: the container exists and the process runs or the socket is connected.
    Opened { id: u32 },
    Data {
        id: u32,
        lane: u8,
        #[serde(with = "crate::byte_string")]
        bytes: Vec<u8>,
    },
    /// No more data on this lane from this side (half-close).
    Eof { id: u32, lane: u8 },
    /// The receiver took so many bytes more of this lane.
    Window { id: u32, lane: u8, bytes: u32 },
    /// The stream is over. `exit_code` for exec; `error` is empty on success and otherwise a sentence.
    End { id: u32, exit_code: Option<i32>, error: String },
}

impl StreamFrame {
    pub fn id(&self) -> u32 {
        match self {
            StreamFrame::Open { id, .. }
            | StreamFrame::Opened { id }
            | StreamFrame::Data { id, .. }
            | StreamFrame::Eof { id, .. }
            | StreamFrame::Window { id, .. }
            | StreamFrame::End { id, .. } => *id,
        }
    }
}
