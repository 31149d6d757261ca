//! exec and attach over SPDY/3.1 streams, for clients from before WebSockets.
//!
//! In: the upgraded connection; the client opens one stream for each of error, stdin, stdout, stderr,
//! resize.
//! Out: the same bytes as over WebSocket channels.
//! Never: waits for the client's streams longer than `STREAMS_TIME`.

use tokio::time::timeout;

use super::channel::{RESIZE, STDERR, STDIN, STDOUT, Version};
use super::exit;
use super::limits::STREAMS_TIME;
use super::options::ExecRequest;
use super::spdy::{Connection, Piece, Stream, StreamWriter};
use super::wire::{Io, Wire};
use crate::run::streams::{FromNode, StreamHandle};

#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

pub async fn carry(io: Io, version: Version, request: &ExecRequest, handle: StreamHandle) {
    let Ok(mut connection) = Connection::serve(Wire::Bare(io)) else { return };
    let resizes = request.tty && version.resizes();
    let Ok(Some(streams)) = timeout(STREAMS_TIME, collect(&mut connection, request, resizes)).await else {
        tracing::debug!("a client did not open the streams that it asked for");
        return;
    };
    let Streams { error: Some(error), stdin, stdout, stderr, resize } = streams else { return };
    let mut outputs = Outputs {
        stdout: stdout.as_ref().map(Stream::writer),
        stderr: stderr.as_ref().map(Stream::writer),
        error: error.writer(),
    };
    let over = tokio::select! {
        () = inputs(stdin, resize, &handle) => false,
        () = outputs.carry(&handle, version) => true,
        // More streams than were agreed are nobody's; none: the client is gone.
        () = async { while connection.accept().await.is_some() {} } => false,
    };
    if over {
        connection.close().await;
    }
}

async fn collect(connection: &mut Connection, request: &ExecRequest, resizes: bool) -> Option<Streams> {
    let mut found = Streams::default();
    let complete = |s: &Streams| {
        s.error.is_some()
            && s.stdin.is_some() == request.stdin
            && s.stdout.is_some() == request.stdout
            && s.stderr.is_some() == request.stderr
            && s.resize.is_some() == resizes
    };
    while !complete(&found) {
        let incoming = connection.accept().await?;
        let place = match incoming.headers.get("streamtype") {
            Some("error") => &mut found.error,
            Some("stdin") if request.stdin => &mut found.stdin,
            Some("stdout") if request.stdout => &mut found.stdout,
            Some("stderr") if request.stderr => &mut found.stderr,
            Some("resize") if resizes => &mut found.resize,
            _ => {
                incoming.stream.writer().reset().await;
                continue;
            }
        };
        *place = Some(incoming.stream);
    }
    Some(found)
}

/// stdin and sizes to the node. Does not return: the end comes from the node, or from the connection.
async fn inputs(stdin: Option<Stream>, resize: Option<Stream>, handle: &StreamHandle) {
    let stdin = async {
        let Some(mut stdin) = stdin else { return };
        loop {
            let sent = match stdin.read().await {
                Piece::Data(bytes) => handle.send(STDIN, bytes).await,
                Piece::End => handle.eof(STDIN).await,
                // What was cut off must not look complete.
                Piece::Reset => return,
            };
            if sent.is_err() {
                return;
            }
        }
    };
    let resize = async {
        let Some(mut resize) = resize else { return };
        while let Piece::Data(bytes) = resize.read().await {
            let _ = handle.send(RESIZE, bytes).await;
        }
    };
    tokio::join!(stdin, resize);
    std::future::pending().await
}

struct Outputs {
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    error: StreamWriter,
}

impl Outputs {
    async fn carry(&mut self, handle: &StreamHandle, version: Version) {
        while let Some(from) = handle.recv().await {
            match from {
                FromNode::Data { lane, bytes } => {
                    if let Some(writer) = self.of(lane) {
                        writer.write(bytes).await;
                    }
                }
                FromNode::Eof { lane } => {
                    if let Some(writer) = self.of(lane) {
                        writer.finish().await;
                    }
                }
                FromNode::End { exit_code, error } => {
                    if let Some(report) = exit::report(exit_code, &error, version.status) {
                        self.error.write(report).await;
                    }
                    for writer in [self.stdout.as_mut(), self.stderr.as_mut(), Some(&mut self.error)]
                        .into_iter()
                        .flatten()
                    {
                        writer.finish().await;
                    }
                    return;
                }
            }
        }
    }

    fn of(&mut self, lane: u8) -> Option<&mut StreamWriter> {
        match lane {
            STDOUT => self.stdout.as_mut(),
            STDERR => self.stderr.as_mut(),
            _ => None,
        }
    }
}
