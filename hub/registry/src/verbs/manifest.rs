//! Manifests and indexes: by tag and by digest.
//!
//! In: documents. Out: the same bytes again. Never: a manifest whose config or layers the repository does not have.

use super::{blob, digest};
use crate::Asked;
use crate::error::{Code, RegistryError};
use crate::reply::{self, Reply, ReplyBody};
use crate::storage::{Storage, StoredManifest};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use limpet_oci::limits::MANIFEST_BYTES_MAX;
use limpet_oci::manifest::{OCI_INDEX, OCI_MANIFEST};
use limpet_oci::reference::check_tag;
use limpet_oci::{Descriptor, Digest, Document};
use std::collections::BTreeMap;

/// A tag or a digest.
enum Target {
    Tag(String),
    Digest(Digest),
}

fn target(text: &str) -> Result<Target, RegistryError> {
    if text.contains(':') {
        return digest(text).map(Target::Digest);
    }
    check_tag(text).map_err(|why| RegistryError::new(Code::TagInvalid, why))?;
    Ok(Target::Tag(text.to_string()))
}

fn resolve(storage: &Storage, repository: &str, target: &Target) -> Result<Digest, RegistryError> {
    match target {
        Target::Tag(tag) => storage.tagged(repository, tag),
        Target::Digest(digest) => Ok(digest.clone()),
    }
}

pub async fn get(asked: &Asked, repository: &str, text: &str) -> Result<Reply, RegistryError> {
    let target = target(text)?;
    let name = repository.to_string();
    let manifest = asked
        .storage(move |s| {
            let digest = resolve(s, &name, &target)?;
            s.manifest(&name, &digest)
        })
        .await?;
    let digest = manifest.digest.to_string();
    let headers = [("Limpet-Recipes", "1"), ("Content-Type", manifest.media_type.as_str()), ("Docker-Content-Digest", &digest)];
    reply::with_body(StatusCode::OK, &headers, ReplyBody::Bytes(Some(manifest.bytes.into())))
}

pub async fn put<B>(
    asked: &Asked,
    repository: &str,
    text: &str,
    headers: &HeaderMap,
    body: B,
) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let target = target(text)?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_string);
    let bytes = read(body).await?;
    let document = Document::parse(&bytes, content_type.as_deref())
        .map_err(|e| RegistryError::new(Code::ManifestInvalid, e.to_string()))?;
    let digest = match &target {
        Target::Digest(said) if said.matches(&bytes) => said.clone(),
        Target::Digest(said) => {
            let why = format!("the manifest's digest is {}, not {said}", Digest::of(&bytes));
            return Err(RegistryError::new(Code::DigestInvalid, why));
        }
        Target::Tag(_) => Digest::of(&bytes),
    };
    let media_type = media_type(&document, content_type);
    let subject = subject(&document).cloned();
    let refers = describe(&document, &digest, bytes.len(), &media_type);
    let stored = StoredManifest { digest: digest.clone(), media_type, bytes };
    let (name, subject_digest) = (repository.to_string(), subject.clone().map(|s| s.digest));
    asked
        .storage(move |s| {
            check_parts(s, &name, &document)?;
            let tag = match &target {
                Target::Tag(tag) => Some(tag.as_str()),
                Target::Digest(_) => None,
            };
            s.put_manifest(&name, &stored, tag, subject_digest.as_ref().map(|d| (d, &refers)))
        })
        .await?;
    let (location, digest) = (format!("/v2/{repository}/manifests/{digest}"), digest.to_string());
    let subject = subject.map(|s| s.digest.to_string());
    let mut headers = vec![("Location", location.as_str()), ("Docker-Content-Digest", &digest), ("Content-Length", "0")];
    headers.extend(subject.as_deref().map(|s| ("OCI-Subject", s)));
    reply::empty(StatusCode::CREATED, &headers)
}


async fn read<B>(body: B) -> Result<Vec<u8>, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let body = body.map_err(|e| e.to_string());
    let collected = Limited::new(body, MANIFEST_BYTES_MAX).collect().await;
    match collected {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            let why = format!("a manifest may have {MANIFEST_BYTES_MAX} bytes");
            Err(RegistryError::new(Code::SizeInvalid, why))
        }
        Err(e) => Err(RegistryError::new(Code::ManifestInvalid, format!("the body broke off: {e}"))),
    }
}

fn media_type(document: &Document, content_type: Option<String>) -> String {
    let (own, default) = match document {
        Document::Manifest(m) => (&m.media_type, OCI_MANIFEST),
        Document::Index(i) => (&i.media_type, OCI_INDEX),
    };
    let sent = content_type.filter(|t| t.starts_with("application/vnd."));
    own.clone().or(sent).unwrap_or_else(|| default.to_string())
}

fn subject(document: &Document) -> Option<&Descriptor> {
    match document {
        Document::Manifest(m) => m.subject.as_ref(),
        Document::Index(i) => i.subject.as_ref(),
    }
}

/// How a manifest appears among the referrers of its subject (distribution spec, "Listing Referrers").
fn describe(document: &Document, digest: &Digest, size: usize, media_type: &str) -> Descriptor {
    let (artifact_type, annotations): (Option<String>, BTreeMap<_, _>) = match document {
        Document::Manifest(m) => {
            let config = Some(m.config.media_type.clone()).filter(|t| !t.is_empty());
            (m.artifact_type.clone().or(config), m.annotations.clone())
        }
        Document::Index(i) => (i.artifact_type.clone(), i.annotations.clone()),
    };
    Descriptor {
        media_type: media_type.to_string(),
        digest: digest.clone(),
        size: size as u64,
        platform: None,
        artifact_type,
        annotations,
    }
}

/// An index may come before the manifests that it names (other platforms may never come); a manifest's parts must be here.
fn check_parts(storage: &Storage, repository: &str, document: &Document) -> Result<(), RegistryError> {
    let Document::Manifest(manifest) = document else { return Ok(()) };
    let elsewhere = |d: &Descriptor| d.media_type.contains("nondistributable") || d.media_type.contains(".foreign.");
    let parts = manifest.layers.iter().chain([&manifest.config]);
    match parts.filter(|d| !elsewhere(d)).find(|d| !storage.has_blob(repository, &d.digest)) {
        Some(missing) => Err(blob::unknown(repository, &missing.digest.to_string())),
        None => Ok(()),
    }
}

pub async fn delete(asked: &Asked, repository: &str, text: &str) -> Result<Reply, RegistryError> {
    let target = target(text)?;
    let name = repository.to_string();
    asked
        .storage(move |s| match target {
            Target::Tag(tag) => s.delete_tag(&name, &tag),
            Target::Digest(digest) => s.delete_manifest(&name, &digest),
        })
        .await?;
    reply::empty(StatusCode::ACCEPTED, &[("Content-Length", "0")])
}
