//! Answers: values, stored bytes, texts and failures as HTTP responses.
//!
//! In: what a verb has to say and what the client wants. Out: a `Reply`.
//! Never: a failure that is not a metav1.Status.

use super::{
    body::{Body, Reply},
    decode, limits,
    negotiate::{Format, Wanted},
    protobuf,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use limpet_objects::status::Status;
use serde_json::Value;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const PROTOBUF: HeaderValue = HeaderValue::from_static(protobuf::MEDIA_TYPE);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

fn respond(code: u16, kind: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    reply
}

/// A value in the format that is wanted.
pub fn value(code: u16, value: &Value, wanted: Wanted) -> Reply {
    match wanted.format {
        Format::Json => json(code, value, wanted),
        Format::Yaml => respond(code, YAML, Body::full(decode::to_yaml(value))),
        Format::Protobuf => match protobuf::encode(value) {
            Some(bytes) => encoded(code, bytes.into(), wanted),
            // Only what was never negotiated has no such form: a document among discovery's.
            None => json(code, value, wanted),
        },
    }
}

fn json(code: u16, value: &Value, wanted: Wanted) -> Reply {
    // A value that was parsed or made here can be written.
    let text = if wanted.pretty {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        text
    } else {
        serde_json::to_vec(value).unwrap_or_default()
    };
    sized(code, JSON, text.into(), wanted)
}

/// The public keys of the tokens that are issued here.
pub fn keys(set: &Value) -> Reply {
    let text = serde_json::to_vec(set).unwrap_or_default();
    respond(200, HeaderValue::from_static("application/jwk-set+json"), Body::full(text))
}

/// Protobuf bytes with their envelope.
pub fn encoded(code: u16, bytes: Bytes, wanted: Wanted) -> Reply {
    sized(code, PROTOBUF, bytes, wanted)
}

fn sized(code: u16, kind: HeaderValue, bytes: Bytes, wanted: Wanted) -> Reply {
    if wanted.gzip && bytes.len() >= limits::GZIP_BYTES_MIN {
        return zipped(respond(code, kind, Body::chunks(std::iter::once(bytes), true)));
    }
    respond(code, kind, Body::full(bytes))
}

/// JSON bytes, as they come from the store.
pub fn bytes(code: u16, bytes: Bytes, wanted: Wanted) -> Reply {
    if wanted.format != Format::Json || wanted.pretty {
        let parsed = serde_json::from_slice(&bytes).unwrap_or_default();
        return value(code, &parsed, wanted);
    }
    sized(code, JSON, bytes, wanted)
}

/// The pieces of a list: its head up to the first item, and the items.
pub fn listed(head: String, items: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let comma = Bytes::from_static(b",");
    let items = items.enumerate().flat_map(move |(at, item)| {
        let separator = (at > 0).then(|| comma.clone());
        separator.into_iter().chain(std::iter::once(item))
    });
    std::iter::once(Bytes::from(head)).chain(items).chain(std::iter::once(Bytes::from_static(b"]}\n")))
}

/// JSON in pieces, of about `size` bytes in all.
pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static, size: usize, wanted: Wanted) -> Reply {
    let gzip = wanted.gzip && size >= limits::GZIP_BYTES_MIN;
    if size < limits::CHUNK_BYTES {
        let mut all = Vec::with_capacity(size);
        pieces.for_each(|piece| all.extend_from_slice(&piece));
        return respond(200, JSON, Body::full(all));
    }
    let reply = respond(200, JSON, Body::chunks(pieces, gzip));
    if gzip { zipped(reply) } else { reply }
}

fn zipped(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    reply
}

/// A stream of a watch's events, one after the other.
pub fn events(body: Body, format: Format) -> Reply {
    let kind = match format {
        Format::Protobuf => HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch"),
        _ => JSON,
    };
    respond(200, kind, body)
}

/// A stream of text: logs.
pub fn flow(body: Body) -> Reply {
    respond(200, TEXT, body)
}

pub fn text(code: u16, text: impl Into<Bytes>) -> Reply {
    respond(code, TEXT, Body::full(text))
}

/// A failure in the form that the client reads, with the headers that belong to it.
pub fn failure(status: &Status, wanted: Wanted) -> Reply {
    let mut reply = value(status.code, &status.to_value(), Wanted { gzip: false, ..wanted });
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        reply.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    reply
}

/// Adds `Warning` headers; kubectl prints them.
pub fn warn(reply: &mut Reply, warnings: &[String]) {
    let mut said = std::collections::HashSet::new();
    let once = warnings.iter().filter(|text| said.insert(text.as_str()));
    for text in once.take(limits::WARNINGS_MAX) {
        let mut clean: String =
            text.chars().filter(|c| !c.is_control()).take(limits::WARNING_BYTES_MAX).collect();
        clean = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{clean}\"")) {
            reply.headers_mut().append(header::WARNING, header);
        }
    }
}
