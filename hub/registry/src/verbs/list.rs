//! Tags, repositories and referrers.
//!
//! In: names, page sizes. Out: sorted pages with a Link to the next. Never: a page without a bound.

use super::{Query, digest};
use crate::error::{Code, RegistryError};
use crate::limits::PAGE_MAX;
use crate::reply::{self, Reply};
use crate::{Action, Asked};
use limpet_oci::manifest::OCI_INDEX;
use serde_json::json;

pub async fn tags(asked: &Asked, repository: &str, query: &Query) -> Result<Reply, RegistryError> {
    let name = repository.to_string();
    let all = asked
        .storage(move |s| match s.exists(&name) {
            true => Ok(s.tags(&name)),
            false => Err(RegistryError::new(Code::NameUnknown, format!("there is no repository {name:?}"))),
        })
        .await?;
    let (page, next) = page(all, query)?;
    let link = next.map(|link| format!("</v2/{repository}/tags/list?{link}>; rel=\"next\""));
    let headers: Vec<_> = link.iter().map(|l| ("Link", l.as_str())).collect();
    reply::json(&headers, &json!({"name": repository, "tags": page}))
}

pub async fn catalog(asked: &Asked, query: &Query) -> Result<Reply, RegistryError> {
    let all = asked.storage(|s| Ok(s.repositories())).await?;
    let visible = all.into_iter().filter(|name| asked.may(Action::Pull, name).is_ok()).collect();
    let (page, next) = page(visible, query)?;
    let link = next.map(|link| format!("</v2/_catalog?{link}>; rel=\"next\""));
    let headers: Vec<_> = link.iter().map(|l| ("Link", l.as_str())).collect();
    reply::json(&headers, &json!({"repositories": page}))
}

/// The part after `last`, and the query of the next page if there is more.
fn page(all: Vec<String>, query: &Query) -> Result<(Vec<String>, Option<String>), RegistryError> {
    let count = match query.get("n").map(str::parse::<usize>) {
        None => PAGE_MAX,
        Some(Ok(n)) => n.min(PAGE_MAX),
        Some(Err(_)) => return Err(RegistryError::new(Code::Unsupported, "n must be a number")),
    };
    let last = query.get("last").unwrap_or_default();
    let mut rest = all.into_iter().filter(|name| name.as_str() > last);
    let page: Vec<String> = rest.by_ref().take(count).collect();
    let next = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => Some(format!("n={count}&last={}", last.replace('/', "%2F"))),
        _ => None,
    };
    Ok((page, next))
}

pub async fn referrers(
    asked: &Asked,
    repository: &str,
    text: &str,
    query: &Query,
) -> Result<Reply, RegistryError> {
    let subject = digest(text)?;
    let name = repository.to_string();
    let mut found = asked.storage(move |s| Ok(s.referrers(&name, &subject))).await?;
    let mut headers = vec![("Content-Type", OCI_INDEX)];
    if let Some(wanted) = query.get("artifactType") {
        found.retain(|d| d.artifact_type.as_deref() == Some(wanted));
        headers.push(("OCI-Filters-Applied", "artifactType"));
    }
    reply::json(&headers, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}))
}
