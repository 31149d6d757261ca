//! `GET /v2/<name>/_limpet/recipe/<digest>` and `…/pack/<digest>`: a layer for those who have its like.
//!
//! In: a digest, for the pack a range. Out: the bytes, or 404 where a layer has no recipe (its blob is asked for then).
//! Never: a part of a blob that the repository does not have.

use super::{blob, digest};
use crate::Asked;
use crate::error::RegistryError;
use crate::reply::Reply;
use crate::storage::Part;
use http::HeaderMap;

pub async fn get(
    asked: &Asked,
    repository: &str,
    text: &str,
    part: Part,
    headers: &HeaderMap,
) -> Result<Reply, RegistryError> {
    let digest = digest(text)?;
    let (name, wanted) = (repository.to_string(), digest.clone());
    // A whole fleet may ask at once for what nobody has asked for yet.
    let made = part == Part::Pack || asked.storage(move |s| Ok(s.has_recipe(&wanted))).await?;
    let _one = if made { None } else { Some(asked.registry.making.lock().await) };
    let (file, length) = asked.storage(move |s| s.recipe(&name, &digest, part)).await?;
    blob::answer(file, length, &[("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")], headers)
}
