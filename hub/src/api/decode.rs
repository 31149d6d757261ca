//! From the bytes of a request to a value: reading the body with its bounds, JSON and YAML.
//!
//! In: a body and its media type, hostile. Out: a value and the duplicate fields in it, or a Status.
//! Never: more than `limits::BODY_BYTES_MAX` in memory, or YAML that grows beyond its budget.

use super::{limits, negotiate, protobuf};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use limpet_objects::{
    status::Status,
    strict::{self, Decoded},
};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A request's body. When it is dropped before its end the rest is read and thrown away for a while: over
/// HTTP/2 a client that is still sending would otherwise lose the answer.
pub struct Inflow(Option<Incoming>);

static BODIES: Semaphore = Semaphore::const_new(limits::BODIES_KIB_MAX as usize);
/// What bodies become: a list of numbers is thirty times as large as it was on the wire.
static VALUES: Semaphore = Semaphore::const_new(limits::VALUES_KIB_MAX as usize);

/// A body that was read, with its share of the room for bodies.
pub struct Upload {
    pub bytes: Bytes,
    _room: SemaphorePermit<'static>,
    _values: SemaphorePermit<'static>,
}

impl std::ops::Deref for Upload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Inflow {
    pub fn new(body: Incoming) -> Inflow {
        Inflow(Some(body))
    }

    /// The body itself, for somebody who passes it on as it comes.
    pub fn take(mut self) -> Option<Incoming> {
        self.0.take()
    }

    /// Reads the whole body when there is room for it among all bodies.
    pub async fn read(self) -> Result<Upload, Status> {
        let announced = self.0.as_ref().and_then(|b| b.size_hint().exact());
        let size = announced.unwrap_or(limits::BODY_BYTES_MAX as u64).min(limits::BODY_BYTES_MAX as u64);
        let room = BODIES.acquire_many((size / 1024) as u32 + 1);
        let full = || Status::too_many_requests("too many large requests, please try again later", 1);
        let Ok(Ok(_room)) = tokio::time::timeout(limits::TURN_TIME, room).await else { return Err(full()) };
        let bytes = self.read_up_to(limits::BODY_BYTES_MAX).await?;
        let values = VALUES.acquire_many(kib_of_values(&bytes));
        match tokio::time::timeout(limits::TURN_TIME, values).await {
            Ok(Ok(_values)) => Ok(Upload { bytes, _room, _values }),
            _ => Err(full()),
        }
    }

    /// Reads the whole body, in time and within a bound.
    pub async fn read_up_to(mut self, bytes_max: usize) -> Result<Bytes, Status> {
        let Some(body) = &mut self.0 else { return Ok(Bytes::new()) };
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(Status::too_large(bytes_max));
        }
        let reading = Limited::new(body, bytes_max).collect();
        match tokio::time::timeout(limits::BODY_TIME, reading).await {
            Err(_) => Err(Status::timeout("the request's body did not arrive in time", 1)),
            Ok(Err(e)) if e.is::<LengthLimitError>() => Err(Status::too_large(bytes_max)),
            Ok(Err(e)) => Err(Status::bad_request(format!("unable to read the request's body: {e}"))),
            Ok(Ok(collected)) => {
                self.0 = None;
                Ok(collected.to_bytes())
            }
        }
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|b| !b.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(limits::DRAIN_TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = limits::DRAIN_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// KiB that a body may take when it is parsed, all copies on its way counted: by what begins or parts values. Of protobuf, whose
/// values are parted by their lengths, each two bytes may be one.
fn kib_of_values(bytes: &[u8]) -> u32 {
    let marks = match bytes.starts_with(protobuf::MAGIC) {
        true => bytes.len() / 2,
        false => bytes.iter().filter(|b| matches!(b, b',' | b':' | b'[' | b'{' | b'\n')).count(),
    };
    let kib = bytes.len().saturating_add(marks.saturating_mul(limits::VALUE_BYTES)) / 1024 + 1;
    u32::try_from(kib).unwrap_or(u32::MAX).min(limits::VALUES_KIB_MAX)
}

/// An object of a kind from a create or update. A body without a type counts as JSON.
pub fn object(bytes: &[u8], content_type: &str, kind: &str) -> Result<Decoded, Status> {
    let unrecognized = |why: &str| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {why} ({})",
            summary(bytes)
        ))
    };
    let decoded = match content_type {
        "" | "application/json" => {
            json(bytes).map_err(|s| if s.code == 400 { unrecognized(&s.message) } else { s })?
        }
        "application/yaml" => yaml(bytes)?,
        protobuf::MEDIA_TYPE => match protobuf::decode(bytes) {
            Ok(value) => Decoded { value, duplicates: Vec::new() },
            Err(why) => {
                return Err(Status::bad_request(format!("unable to decode the request's body: {why}")));
            }
        },
        _ => return Err(Status::unsupported_media_type(negotiate::SENT)),
    };
    if !decoded.value.is_object() {
        return Err(unrecognized("it is not a JSON object"));
    }
    Ok(decoded)
}

/// Any value that was sent or is about to be, for the audit log.
pub fn any(bytes: &[u8], content_type: &str) -> Option<Value> {
    let form = content_type.split(';').next().unwrap_or_default().trim();
    match form {
        protobuf::MEDIA_TYPE => protobuf::decode(bytes).ok(),
        form if form.ends_with("yaml") => yaml(bytes).ok().map(|decoded| decoded.value),
        form if form.is_empty() || form.ends_with("json") => json(bytes).ok().map(|decoded| decoded.value),
        _ => None,
    }
}

/// The beginning of a body, as upstream shows it.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (head, dots) = match bytes.get(..SHOWN) {
        Some(head) if bytes.len() > SHOWN => (head, " ..."),
        _ => (bytes, ""),
    };
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{dots}", crate::pki::hex(head)),
    }
}

pub fn json(bytes: &[u8]) -> Result<Decoded, Status> {
    strict::decode(bytes, strict::Limits::default()).map_err(|e| match e {
        strict::DecodeError::TooLarge { limit } => Status::too_large(limit),
        other => Status::bad_request(other.to_string()),
    })
}

/// YAML, or JSON sent under that name (kubectl's server-side apply does).
pub fn yaml(bytes: &[u8]) -> Result<Decoded, Status> {
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'['))
        && let Ok(decoded) = json(bytes)
    {
        return Ok(decoded);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: limits::YAML_EVENTS_MAX,
            max_aliases: limits::YAML_ALIASES_MAX,
            max_depth: limits::YAML_DEPTH_MAX,
            flow_nesting_limit: limits::YAML_DEPTH_MAX,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        strict_booleans: true,
    };
    serde_saphyr::from_slice_with_options::<Value>(bytes, options)
        .map(|value| Decoded { value, duplicates: Vec::new() })
        .map_err(|e| {
            Status::bad_request(format!("error converting YAML to JSON: {}", first_line(&e.to_string())))
        })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// YAML text of a value, for answers.
pub fn to_yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_json_and_yaml() {
        let expect = json!({"kind": "A", "list": [1, "2", true, null, "no"]});
        let text = b"kind: A\nlist: [1, \"2\", true, null, no]\n";
        assert_eq!(object(text, "application/yaml", "A").unwrap().value, expect);
        let text = serde_json::to_vec(&expect).unwrap();
        for form in ["", "application/json", "application/yaml"] {
            assert_eq!(object(&text, form, "A").unwrap().value, expect, "{form}");
        }
    }

    #[test]
    fn refuses() {
        for (text, form, code) in [
            ("{", "application/json", 400),
            ("[]", "application/json", 400),
            ("null", "application/json", 400),
            ("{}", "text/plain", 415),
            ("a: &a [x]\nb: *c", "application/yaml", 400),
        ] {
            assert_eq!(object(text.as_bytes(), form, "A").map(|_| ()).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let last = i - 1;
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{last}"); 10].join(",")));
        }
        assert_eq!(object(bomb.as_bytes(), "application/yaml", "A").map(|_| ()).unwrap_err().code, 400);
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(yaml(deep.as_bytes()).map(|_| ()).unwrap_err().code, 400);
    }
}
