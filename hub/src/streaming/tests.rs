//! Clients against the real server side, with a node that is a few lines: exec, port-forward, logs.

mod clients;
mod exec;
mod forward;

use super::*;
use bytes::Bytes;
use clients::*;
use limpet_protocol::StreamFrame;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

pub fn pod() -> PodPlace {
    PodPlace { namespace: "d".into(), name: "web".into(), uid: "u".into(), node: "n1".into() }
}

pub type Answer = Result<http::Response<()>, Status>;

/// Serves one connection: each request goes to `handler`; refusals are answered with their code and
/// message.
pub fn serve<F, Fut>(handler: F) -> tokio::io::DuplexStream
where
    F: Fn(http::request::Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send,
{
    let (client, server) = tokio::io::duplex(64 * 1024);
    let handler = Arc::new(handler);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, _) = request.into_parts();
            Ok::<_, Infallible>(match handler(parts).await {
                Ok(response) => response.map(|()| http_body_util::Full::new(Bytes::new())),
                Err(status) => {
                    let mut response =
                        http::Response::new(http_body_util::Full::new(Bytes::from(status.message)));
                    *response.status_mut() = http::StatusCode::from_u16(status.code).unwrap();
                    response
                }
            })
        }
    });
    tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(server);
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    });
    client
}

/// The node's end of all streams.
pub struct Node {
    pub streams: Streams,
    frames: mpsc::Receiver<(String, StreamFrame)>,
}

impl Node {
    pub fn online() -> Node {
        let (streams, frames) = Streams::new();
        streams.node_opened("n1");
        Node { streams, frames }
    }

    /// The next frame that the hub sends, windows left out.
    pub async fn next(&mut self) -> StreamFrame {
        loop {
            match self.frames.recv().await.expect("the hub's side is there").1 {
                StreamFrame::Window { .. } => {}
                frame => return frame,
            }
        }
    }

    pub fn say(&self, frame: StreamFrame) {
        self.streams.deliver("n1", frame);
    }

    pub async fn accept(&mut self) -> (u32, StreamKind) {
        match self.next().await {
            StreamFrame::Open { id, open } => {
                assert_eq!(
                    (open.namespace.as_str(), open.pod.as_str(), open.uid.as_str()),
                    ("d", "web", "u")
                );
                self.say(StreamFrame::Opened { id });
                (id, open.kind)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn data(&self, id: u32, lane: u8, bytes: &[u8]) {
        self.say(StreamFrame::Data { id, lane, bytes: bytes.to_vec() });
    }

    pub fn end(&self, id: u32, exit_code: Option<i32>, error: &str) {
        self.say(StreamFrame::End { id, exit_code, error: error.into() });
    }
}
