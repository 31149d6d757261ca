//! GET, HEAD and DELETE of blobs, with ranges.
//!
//! In: a digest, perhaps a range. Out: the bytes. Never: more than one range in one answer.

use super::digest;
use crate::Asked;
use crate::error::{Code, RegistryError};
use crate::reply::{self, Reply, ReplyBody};
use http::header::RANGE;
use http::{HeaderMap, StatusCode};
use std::fs::File;

pub async fn get(
    asked: &Asked,
    repository: &str,
    text: &str,
    headers: &HeaderMap,
) -> Result<Reply, RegistryError> {
    let digest = digest(text)?;
    let (name, wanted) = (repository.to_string(), digest.clone());
    let (file, length) = asked.storage(move |s| s.blob(&name, &wanted)).await?;
    let digest = digest.to_string();
    let common = [
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", digest.as_str()),
        ("Accept-Ranges", "bytes"),
    ];
    answer(file, length, &common, headers)
}

/// A file, or the range of it that was asked for.
pub fn answer(file: File, length: u64, common: &[(&str, &str)], headers: &HeaderMap) -> Result<Reply, RegistryError> {
    let range = headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|v| range(v, length));
    match range {
        None => reply::with_body(StatusCode::OK, common, ReplyBody::file(file, 0, length)),
        Some(Err(())) => {
            let total = format!("bytes */{length}");
            reply::empty(StatusCode::RANGE_NOT_SATISFIABLE, &[("Content-Range", &total)])
        }
        Some(Ok((first, last))) => {
            let content = format!("bytes {first}-{last}/{length}");
            let headers: Vec<_> = common.iter().copied().chain([("Content-Range", content.as_str())]).collect();
            let body = ReplyBody::file(file, first, last - first + 1);
            reply::with_body(StatusCode::PARTIAL_CONTENT, &headers, body)
        }
    }
}

/// First and last byte of a `Range` (RFC 9110, 14.2). None: ignore it (not bytes, several, or malformed).
fn range(value: &str, length: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        return Some(if count == 0 || length == 0 { Err(()) } else { Ok((length.saturating_sub(count), length - 1)) });
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some(if first >= length { Err(()) } else { Ok((first, last.min(length - 1))) })
}

pub async fn delete(asked: &Asked, repository: &str, text: &str) -> Result<Reply, RegistryError> {
    let digest = digest(text)?;
    let name = repository.to_string();
    asked.storage(move |s| s.delete_blob(&name, &digest)).await?;
    reply::empty(StatusCode::ACCEPTED, &[("Content-Length", "0")])
}

/// Only the code is needed by callers that look for a blob.
pub fn unknown(repository: &str, digest: &str) -> RegistryError {
    RegistryError::new(Code::ManifestBlobUnknown, format!("{repository} has no blob {digest}: push it first"))
}

#[cfg(test)]
mod unit {
    use super::range;

    #[test]
    fn ranges() {
        for (value, expect) in [
            ("bytes=0-3", Some(Ok((0, 3)))),
            ("bytes=4-", Some(Ok((4, 9)))),
            ("bytes=4-99", Some(Ok((4, 9)))),
            ("bytes=-3", Some(Ok((7, 9)))),
            ("bytes=-30", Some(Ok((0, 9)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=3-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range(value, 10), expect, "{value}");
        }
        assert_eq!(range("bytes=0-", 0), Some(Err(())));
    }
}
