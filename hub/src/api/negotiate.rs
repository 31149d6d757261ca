//! What form of an answer a client wants, and in what form it sent its request.
//!
//! In: Accept, Accept-Encoding and Content-Type headers, hostile; whether the kind has a form in protobuf. Out:
//! `Wanted`, or nothing (406, 415).
//! Never: a Table in protobuf, or protobuf of a kind without fields' numbers (custom resources).

use super::{protobuf, query::Query};
use http::{HeaderMap, header};

/// Media types that answers can have, for the text of a 406.
pub const ACCEPTED: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
/// Media types of watches, for the text of a 406.
pub const STREAMED: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
/// Media types of objects in requests, for the text of a 415.
pub const SENT: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Media types of patches, for the text of a 415.
pub const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Those that custom resources take: strategic merge patches need Go types.
pub const PATCHES_CUSTOM: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
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
    /// JSON for people: `?pretty=true`, browsers and curl.
    pub pretty: bool,
}

impl Wanted {
    pub const JSON: Wanted = Wanted { format: Format::Json, shape: Shape::Object, gzip: false, pretty: false };

    /// Whether stored JSON can go out as it is.
    pub fn is_plain_json(&self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object && !self.pretty
    }
}

/// The best form that the client accepts and we have; `None` is a 406. `protobuf`: whether what is asked for has
/// that form; `shaped`: whether it is an object with metadata, of which Tables and the like are made.
pub fn wanted(headers: &HeaderMap, query: &Query, shaped: bool, protobuf: impl Fn() -> bool) -> Option<Wanted> {
    let json = Wanted { gzip: accepts_gzip(headers), pretty: is_pretty(headers, query), ..Wanted::JSON };
    let mut clauses: Vec<(i32, &str)> = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        clauses
            .extend(text.split(',').take(64).map(|c| (quality(c), c.trim())).filter(|(_, c)| !c.is_empty()));
    }
    if clauses.is_empty() {
        return Some(json);
    }
    clauses.sort_by_key(|(quality, _)| -quality);
    clauses.into_iter().filter(|(q, _)| *q > 0).find_map(|(_, clause)| {
        let (format, shape) = one(clause, &protobuf).filter(|(_, shape)| shaped || *shape == Shape::Object)?;
        Some(Wanted { format, shape, ..json })
    })
}

/// As upstream: the parameter decides, else the tools of people.
fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(text) = query.text("pretty") {
        return matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
}

fn one(clause: &str, protobuf: impl Fn() -> bool) -> Option<(Format, Shape)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        protobuf::MEDIA_TYPE if protobuf() => Format::Protobuf,
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
        "Table" if format == Format::Protobuf => None,
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
        let protobuf = Some((Format::Protobuf, Shape::Object));
        for (accept, expect) in [
            ("", json),
            ("*/*", json),
            ("application/json", json),
            ("application/vnd.kubernetes.protobuf, application/json", protobuf),
            ("application/vnd.kubernetes.protobuf", protobuf),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5", json),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some((Format::Protobuf, Shape::Partial("v1"))),
            ),
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
            let got = wanted(&headers, &Query::default(), true, || true);
            assert_eq!(got.map(|w| (w.format, w.shape)), expect, "{accept}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, super::protobuf::MEDIA_TYPE.parse().unwrap());
        assert_eq!(wanted(&headers, &Query::default(), true, || false), None);
    }

    #[test]
    fn people_get_lines() {
        for (agent, query, expect) in [
            ("curl/8.1", "", true),
            ("curl/8.1", "pretty=false", false),
            ("kubectl/v1.32", "", false),
            ("kubectl/v1.32", "pretty=1", true),
            ("Mozilla/5.0 (X11)", "", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            let query = Query::parse(query).unwrap();
            assert_eq!(wanted(&headers, &query, true, || true).unwrap().pretty, expect, "{agent} {query:?}");
        }
    }
}
