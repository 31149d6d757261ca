//! The parts of Kubernetes objects that a node reads, as small structs.
//!
//! In: JSON bytes of an item. Out: typed data; unknown fields and nulls are passed over, missing ones are empty.
//! Never: writes objects, or knows fields that the agent does not act on.

mod config;
mod container;
mod handler;
mod pod;
mod small;
mod volume;

pub use config::{ConfigMap, Endpoint, EndpointPort, EndpointSlice, Secret, Service, ServicePort, Token};
pub use container::*;
pub use handler::*;
pub use pod::*;
pub use small::{Rare, Words};
pub use volume::*;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads one object. The error says where the JSON is not what it should be.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// `null` means "not set" everywhere in Kubernetes.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Standard base64 with padding, as Secrets carry it.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    let mut padding = 0;
    for c in text.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            b'\n' | b'\r' => continue,
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    if padding > 2 || held >= 6 { None } else { Some(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\nYg==", "foob")]
        {
            assert_eq!(base64_decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for bad in ["Z", "Zg=a", "*", "Zg==="] {
            assert_eq!(base64_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn nulls_and_unknown_fields_are_passed_over() {
        let pod: Pod = parse(
            br#"{"kind":"Pod","metadata":{"name":"a","creationTimestamp":null,"x":1},
            "spec":{"containers":[{"name":"c","env":null,"image":"i","ports":[{"containerPort":80}]}],"volumes":null}}"#,
        )
        .unwrap();
        assert_eq!(pod.spec.containers[0].image, "i");
        assert!(parse::<Pod>(b"null").is_err());
        assert!(parse::<Pod>(b"[]").is_err() || parse::<Pod>(b"[]").unwrap().metadata.uid.is_empty());
    }
}
