//! Bodies in audit events: what was sent, what was answered.
//!
//! In: bytes with their media type; a reply on its way out. Out: JSON values; the reply, unchanged for its client.
//! Never: a stream in memory; more than `OBJECT_BYTES_MAX` of a list.

use super::Trail;
use crate::api::{Body, Reply, parse_body};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{StatusCode, header};
use limpet_hub_core::audit::Stage;
use serde_json::Value;
use std::sync::Arc;

/// Larger objects are not in the event; an annotation says so, as upstream's truncation does.
const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;
const TRUNCATED: &str = "audit.k8s.io/truncated";

pub(super) fn parsed(bytes: &[u8], content_type: &str) -> Option<Value> {
    if bytes.is_empty() || bytes.len() > OBJECT_BYTES_MAX {
        return None;
    }
    parse_body(bytes, content_type)
}

/// Records the answer. Streams end their record when they end.
pub fn answered(trail: Arc<Trail>, reply: Reply, long: bool) -> Reply {
    let code = reply.status().as_u16();
    let (head, body) = reply.into_parts();
    let form = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let zipped = head.headers.contains_key(header::CONTENT_ENCODING);
    let body = match body {
        Body::Flow(flow) => {
            trail.response(code, None);
            trail.record(Stage::ResponseStarted);
            let guarded = flow.inspect(move |_| _ = &trail);
            return Reply::from_parts(head, Body::flow(guarded));
        }
        Body::Full(bytes) => {
            let wanted = trail.wants_response() || code >= 400 || bytes.as_ref().is_some_and(says_status);
            let object = bytes.as_ref().filter(|_| wanted && !zipped).and_then(|bytes| parsed(bytes, form));
            trail.response(code, object);
            Body::Full(bytes)
        }
        Body::Chunks(chunks) if trail.wants_response() && !zipped => {
            let (body, whole) = gather(Body::Chunks(chunks));
            if whole.is_none() {
                trail.annotate(TRUNCATED, "true");
            }
            trail.response(code, whole.and_then(|bytes| parsed(&bytes, form)));
            body
        }
        Body::Chunks(chunks) => {
            trail.response(code, None);
            Body::Chunks(chunks)
        }
    };
    // An upgraded connection holds the trail until it ends.
    let upgraded = long && head.status == StatusCode::SWITCHING_PROTOCOLS;
    trail.record(if upgraded { Stage::ResponseStarted } else { Stage::ResponseComplete });
    Reply::from_parts(head, body)
}

/// Whether JSON may be a metav1.Status, as the answer to a delete is.
fn says_status(bytes: &Bytes) -> bool {
    bytes.len() < 4096 && bytes.windows(15).any(|part| part == br#""kind":"Status""#)
}

/// The whole of a list when it is not too large, and a body that still has all of it.
fn gather(mut body: Body) -> (Body, Option<Bytes>) {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut size = 0;
    while size <= OBJECT_BYTES_MAX {
        let Some(piece) = body.next_ready() else {
            let whole = Bytes::from(pieces.concat());
            return (Body::full(whole.clone()), Some(whole));
        };
        size += piece.len();
        pieces.push(piece);
    }
    let rest = std::iter::from_fn(move || body.next_ready());
    (Body::chunks(pieces.into_iter().chain(rest), false), None)
}
