//! Pushing blobs: in one piece, in chunks, or mounted from another repository.
//!
//! In: bodies. Out: blobs of the repository, once their digest is right. Never: a blob with another content than its digest.

use super::{Query, digest};
use crate::error::{Code, RegistryError};
use crate::limits::CHUNKS_WAITING_MAX;
use crate::reply::{self, Reply, upload_range};
use crate::storage::UploadHandle;
use crate::{Action, Asked};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use limpet_oci::Digest;
use limpet_oci::reference::check_repository;

pub async fn begin<B>(asked: &Asked, repository: &str, query: &Query, body: B) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    if let Some(reply) = mount(asked, repository, query).await? {
        return Ok(reply);
    }
    let name = repository.to_string();
    let id = asked.storage(move |s| s.begin_upload(&name)).await?;
    if let Some(text) = query.get("digest") {
        return end(asked, repository, &id, &digest(text)?, body).await;
    }
    accepted(repository, &id, 0)
}

/// A blob that another repository has; when it cannot be mounted, the client uploads it.
async fn mount(asked: &Asked, repository: &str, query: &Query) -> Result<Option<Reply>, RegistryError> {
    let (Some(text), Some(from)) = (query.get("mount"), query.get("from")) else { return Ok(None) };
    let digest = digest(text)?;
    if check_repository(from).is_err() || asked.may(Action::Pull, from).is_err() {
        return Ok(None);
    }
    let (name, from, wanted) = (repository.to_string(), from.to_string(), digest.clone());
    let mounted = asked
        .storage(move |s| match s.has_blob(&from, &wanted) {
            true => s.add_blob(&name, &wanted, None).map(|()| true),
            false => Ok(false),
        })
        .await?;
    if mounted { created(repository, &digest).map(Some) } else { Ok(None) }
}

pub async fn patch<B>(
    asked: &Asked,
    repository: &str,
    id: &str,
    headers: &HeaderMap,
    body: B,
) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let upload = take(asked, repository, id)?;
    check_range(headers, upload.length())?;
    let (upload, result) = append(upload, body).await;
    let upload = kept(asked, id, upload, result).await?;
    accepted(repository, id, upload.length())
}

pub async fn finish<B>(
    asked: &Asked,
    repository: &str,
    id: &str,
    query: &Query,
    headers: &HeaderMap,
    body: B,
) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let missing = || RegistryError::new(Code::DigestInvalid, "the digest is missing: PUT …?digest=sha256:…");
    let digest = digest(query.get("digest").ok_or_else(missing)?)?;
    check_range(headers, take(asked, repository, id)?.length())?;
    end(asked, repository, id, &digest, body).await
}

pub async fn status(asked: &Asked, repository: &str, id: &str) -> Result<Reply, RegistryError> {
    let range = upload_range(take(asked, repository, id)?.length());
    let location = format!("/v2/{repository}/blobs/uploads/{id}");
    let headers = [("Location", location.as_str()), ("Range", &range), ("Docker-Upload-UUID", id)];
    reply::empty(StatusCode::NO_CONTENT, &headers)
}

pub async fn cancel(asked: &Asked, repository: &str, id: &str) -> Result<Reply, RegistryError> {
    drop(take(asked, repository, id)?);
    let id = id.to_string();
    asked
        .storage(move |s| {
            s.end_upload(&id);
            Ok(())
        })
        .await?;
    reply::empty(StatusCode::NO_CONTENT, &[])
}

/// The last piece, the check, and the blob's place. A wrong digest ends the upload.
async fn end<B>(asked: &Asked, repository: &str, id: &str, digest: &Digest, body: B) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let upload = take(asked, repository, id)?;
    let (upload, result) = append(upload, body).await;
    let mut upload = kept(asked, id, upload, result).await?;
    let (name, wanted, own) = (repository.to_string(), digest.clone(), id.to_string());
    asked
        .storage(move |s| {
            let right = upload.is(&wanted)?;
            let done = match right {
                true => s.add_blob(&name, &wanted, Some(upload.path())),
                false => Err(RegistryError::new(Code::DigestInvalid, format!("the content's digest is not {wanted}"))),
            };
            drop(upload);
            s.end_upload(&own);
            done
        })
        .await?;
    created(repository, digest)
}

fn take(asked: &Asked, repository: &str, id: &str) -> Result<UploadHandle, RegistryError> {
    asked.registry.storage.take_upload(repository, id)
}

/// A full disk ends the upload: the hub's store needs the room that it takes.
async fn kept(
    asked: &Asked,
    id: &str,
    upload: UploadHandle,
    result: Result<(), RegistryError>,
) -> Result<UploadHandle, RegistryError> {
    let Err(error) = result else { return Ok(upload) };
    drop(upload);
    if matches!(error.code, Code::NoSpace) {
        let id = id.to_string();
        asked
            .storage(move |s| {
                s.end_upload(&id);
                Ok(())
            })
            .await?;
    }
    Err(error)
}

/// Writes a body to an upload on a thread for files; the upload comes back with whatever has arrived.
async fn append<B>(mut upload: UploadHandle, mut body: B) -> (UploadHandle, Result<(), RegistryError>)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
    let reading = async move {
        while let Some(frame) = body.frame().await {
            let broke = |e: B::Error| RegistryError::new(Code::BlobUploadInvalid, format!("the body broke off: {e}"));
            if let Ok(chunk) = frame.map_err(broke)?.into_data()
                && sender.send(chunk).await.is_err()
            {
                break;
            }
        }
        Ok(())
    };
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            if let Err(e) = upload.append(&chunk) {
                return (upload, Err(e));
            }
        }
        (upload, Ok(()))
    });
    let (read, written) = tokio::join!(reading, writer);
    match written {
        Ok((upload, Ok(()))) => (upload, read),
        Ok((upload, Err(e))) => (upload, Err(e)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// `Content-Range: <start>-<end>` of a chunk: it must begin where the last one ended.
fn check_range(headers: &HeaderMap, have: u64) -> Result<(), RegistryError> {
    let Some(value) = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()) else { return Ok(()) };
    let value = value.strip_prefix("bytes ").unwrap_or(value);
    let value = value.split('/').next().unwrap_or(value);
    let parsed = value.split_once('-').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let fits = |(start, end): (u64, u64)| {
        start == have && end >= start && length.is_none_or(|l| l == end - start + 1)
    };
    match parsed {
        Some(range) if fits(range) => Ok(()),
        _ => Err(RegistryError {
            have: Some(have),
            ..RegistryError::new(Code::RangeInvalid, format!("the next chunk must begin at byte {have}"))
        }),
    }
}

fn accepted(repository: &str, id: &str, length: u64) -> Result<Reply, RegistryError> {
    let location = format!("/v2/{repository}/blobs/uploads/{id}");
    let range = upload_range(length);
    let headers =
        [("Location", location.as_str()), ("Range", &range), ("Docker-Upload-UUID", id), ("Content-Length", "0")];
    reply::empty(StatusCode::ACCEPTED, &headers)
}

fn created(repository: &str, digest: &Digest) -> Result<Reply, RegistryError> {
    let digest = digest.to_string();
    let location = format!("/v2/{repository}/blobs/{digest}");
    let headers =
        [("Location", location.as_str()), ("Docker-Content-Digest", digest.as_str()), ("Content-Length", "0")];
    reply::empty(StatusCode::CREATED, &headers)
}
