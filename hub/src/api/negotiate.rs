//! What form of an answer a client wants, and in what form it sent its request.
//!
//! In: Accept, Accept-Encoding and Content-Type headers, hostile. Out: `Wanted`, or nothing (406, 415).
//! Never: protobuf; who also accepts JSON gets that.

use http::{HeaderMap, header};

/// Media types that answers can have, for the text of a 406.
pub const ACCEPTED: &[&str] = &["application/json", "application/yaml"];
/// Media types of objects in requests, for the text of a 415.
pub const SENT: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Media types of patches, for the text of a 415.
pub const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The object as it is.
    Object,
    /// `as=Table`, with the version asked for.
    Table(&'static str),
    /// `as=PartialObjectMetadata` or its list.
    Partial(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub format: Format,
    pub shape: Shape,
    pub gzip: bool,
}

impl Wanted {
    pub const JSON: Wanted = Wanted { format: Format::Json, shape: Shape::Object, gzip: false };
}

/// The best form that the client accepts and we have; `None` is a 406.
pub fn wanted(headers: &HeaderMap) -> Option<Wanted> {
    let gzip = accepts_gzip(headers);
    let mut clauses: Vec<(i32, &str)> = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        clauses
            .extend(text.split(',').take(64).map(|c| (quality(c), c.trim())).filter(|(_, c)| !c.is_empty()));
    }
    if clauses.is_empty() {
        return Some(Wanted { gzip, ..Wanted::JSON });
    }
    clauses.sort_by_key(|(quality, _)| -quality);
    clauses.into_iter().filter(|(q, _)| *q > 0).find_map(|(_, clause)| {
        let (format, shape) = one(clause)?;
        Some(Wanted { format, shape, gzip })
    })
}

fn one(clause: &str) -> Option<(Format, Shape)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" | "text/plain" | "text/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut as_, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key {
            "as" => as_ = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    if as_.is_empty() {
        return Some((format, Shape::Object));
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    match as_ {
        "Table" => Some((format, Shape::Table(version))),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some((format, Shape::Partial(version))),
        _ => None,
    }
}

/// Quality in thousandths.
fn quality(clause: &str) -> i32 {
    let q = clause.split(';').find_map(|p| p.trim().strip_prefix("q="));
    q.map_or(1000, |q| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as i32))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    values.iter().filter_map(|v| v.to_str().ok()).flat_map(|t| t.split(',')).any(|clause| {
        clause.split(';').next().is_some_and(|name| name.trim() == "gzip") && quality(clause) > 0
    })
}

/// Media type of the request's body without its parameters, in lower case; empty when there is none.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_both_know() {
        let json = Some((Format::Json, Shape::Object));
        for (accept, expect) in [
            ("", json),
            ("*/*", json),
            ("application/json", json),
            ("application/vnd.kubernetes.protobuf, application/json", json),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/yaml", Some((Format::Yaml, Shape::Object))),
            ("application/json;q=0.1,application/yaml", Some((Format::Yaml, Shape::Object))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;\
                 g=meta.k8s.io,application/json",
                Some((Format::Json, Shape::Table("v1"))),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", json),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some((Format::Json, Shape::Partial("v1"))),
            ),
            ("application/json;stream=watch", json),
            ("image/png", None),
            ("application/json;q=0", None),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(wanted(&headers).map(|w| (w.format, w.shape)), expect, "{accept}");
        }
    }
}
