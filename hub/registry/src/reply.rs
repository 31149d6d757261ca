//! Responses: JSON, errors, and files streamed piece by piece.
//!
//! In: values and open files. Out: responses. Never: a file in memory as a whole.

use crate::error::{Code, RegistryError};
use crate::limits::CHUNK_BYTES;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// The body of every response.
pub enum ReplyBody {
    Bytes(Option<Bytes>),
    File { file: Arc<File>, at: u64, left: u64, reading: Option<JoinHandle<io::Result<Bytes>>> },
}

impl ReplyBody {
    pub fn file(file: File, at: u64, length: u64) -> ReplyBody {
        ReplyBody::File { file: Arc::new(file), at, left: length, reading: None }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            ReplyBody::Bytes(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            ReplyBody::File { left: 0, .. } => Poll::Ready(None),
            ReplyBody::File { file, at, left, reading } => {
                let job = reading.get_or_insert_with(|| {
                    let (file, at, count) = (file.clone(), *at, (*left).min(CHUNK_BYTES as u64) as usize);
                    tokio::task::spawn_blocking(move || {
                        let mut chunk = vec![0; count];
                        file.read_exact_at(&mut chunk, at)?;
                        Ok(chunk.into())
                    })
                });
                let chunk: io::Result<Bytes> = ready!(Pin::new(job).poll_join(cx));
                *reading = None;
                if let Ok(chunk) = &chunk {
                    *at += chunk.len() as u64;
                    *left -= chunk.len() as u64;
                }
                Poll::Ready(Some(chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Bytes(None) | ReplyBody::File { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            ReplyBody::Bytes(bytes) => bytes.as_ref().map_or(0, |b| b.len() as u64),
            ReplyBody::File { left, .. } => *left,
        })
    }
}

trait PollJoin {
    fn poll_join(self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;
}

impl PollJoin for Pin<&mut JoinHandle<io::Result<Bytes>>> {
    fn poll_join(self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        std::future::Future::poll(self, cx).map(|joined| joined.unwrap_or_else(|e| Err(io::Error::other(e))))
    }
}

pub type Reply = Response<ReplyBody>;

/// A response without a body and its headers; names and values are ours, so a bad one is our error.
pub fn empty(status: StatusCode, headers: &[(&str, &str)]) -> Result<Reply, RegistryError> {
    with_body(status, headers, ReplyBody::Bytes(None))
}

pub fn with_body(status: StatusCode, headers: &[(&str, &str)], body: ReplyBody) -> Result<Reply, RegistryError> {
    let mut response = Response::builder().status(status).header("Docker-Distribution-Api-Version", "registry/2.0");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).map_err(|e| RegistryError::new(Code::Unknown, format!("bad header: {e}")))
}

pub fn json(headers: &[(&str, &str)], value: &serde_json::Value) -> Result<Reply, RegistryError> {
    let body = ReplyBody::Bytes(Some(value.to_string().into()));
    let kind = [("Content-Type", "application/json")];
    let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let all: Vec<_> = headers.iter().chain(kind.iter().filter(|_| !typed)).copied().collect();
    with_body(StatusCode::OK, &all, body)
}

/// HEAD: the same head as GET, no body.
pub fn without_body(reply: Reply) -> Reply {
    let (mut head, body) = reply.into_parts();
    let length = body.size_hint().exact().unwrap_or(0);
    head.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    Response::from_parts(head, ReplyBody::Bytes(None))
}

pub fn error(error: &RegistryError) -> Reply {
    let body = serde_json::json!({"errors": [{"code": error.code.text(), "message": error.message}]});
    let mut response = Response::new(ReplyBody::Bytes(Some(body.to_string().into())));
    *response.status_mut() = error.code.status();
    let headers = response.headers_mut();
    let fixed = http::HeaderValue::from_static;
    headers.insert(CONTENT_TYPE, fixed("application/json"));
    headers.insert("docker-distribution-api-version", fixed("registry/2.0"));
    if error.code == Code::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, fixed("Basic realm=\"limpet\", charset=\"UTF-8\""));
    }
    if let Some(value) = error.have.and_then(|have| upload_range(have).parse().ok()) {
        headers.insert(RANGE, value);
    }
    response
}

/// `0-<last byte>`; the spec has no way to say "nothing", so nothing reads `0-0` as everywhere.
pub fn upload_range(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}
