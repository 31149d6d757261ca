//! One file a kind of thing; here the choice between them.
//!
//! In: a request. Out: a response or an error. Never: work before the callback has allowed it.

mod blob;
mod delta;
mod list;
mod manifest;
mod upload;

use crate::error::{Code, RegistryError};
use crate::reply::{self, Reply};
use crate::route::{self, Route};
use crate::storage::Part;
use crate::{Action, Asked};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Body;
use limpet_oci::Digest;

pub async fn answer<B>(asked: &Asked, request: Request<B>) -> Result<Reply, RegistryError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_string();
    let route = route::parse(&path)?;
    let query = Query::new(head.uri.query());
    let repository = route.repository();
    // Clients learn how to log in from this one, so it is never open to nobody.
    if matches!(route, Route::Base) {
        return match asked.identity {
            Some(_) => reply::json(&[], &serde_json::json!({})),
            None => Err(RegistryError::new(Code::Unauthorized, "authentication required")),
        };
    }
    asked.may(action(&route, &head.method)?, repository)?;
    match (route, head.method.clone()) {
        (Route::Catalog, _) => list::catalog(asked, &query).await,
        (Route::Tags { .. }, _) => list::tags(asked, repository, &query).await,
        (Route::Referrers { digest, .. }, _) => list::referrers(asked, repository, digest, &query).await,
        (Route::Blob { digest, .. }, Method::DELETE) => blob::delete(asked, repository, digest).await,
        (Route::Blob { digest, .. }, method) => {
            let reply = blob::get(asked, repository, digest, &head.headers).await?;
            Ok(if method == Method::HEAD { reply::without_body(reply) } else { reply })
        }
        (Route::Recipe { digest, .. }, method) => {
            let reply = delta::get(asked, repository, digest, Part::Recipe, &head.headers).await?;
            Ok(if method == Method::HEAD { reply::without_body(reply) } else { reply })
        }
        (Route::Pack { digest, .. }, method) => {
            let reply = delta::get(asked, repository, digest, Part::Pack, &head.headers).await?;
            Ok(if method == Method::HEAD { reply::without_body(reply) } else { reply })
        }
        (Route::Manifest { reference, .. }, Method::PUT) => {
            manifest::put(asked, repository, reference, &head.headers, body).await
        }
        (Route::Manifest { reference, .. }, Method::DELETE) => manifest::delete(asked, repository, reference).await,
        (Route::Manifest { reference, .. }, method) => {
            let reply = manifest::get(asked, repository, reference).await?;
            Ok(if method == Method::HEAD { reply::without_body(reply) } else { reply })
        }
        (Route::Uploads { .. }, _) => upload::begin(asked, repository, &query, body).await,
        (Route::Upload { id, .. }, Method::PATCH) => upload::patch(asked, repository, id, &head.headers, body).await,
        (Route::Upload { id, .. }, Method::PUT) => {
            upload::finish(asked, repository, id, &query, &head.headers, body).await
        }
        (Route::Upload { id, .. }, Method::DELETE) => upload::cancel(asked, repository, id).await,
        (Route::Upload { id, .. }, _) => upload::status(asked, repository, id).await,
        (Route::Base, _) => reply::empty(StatusCode::OK, &[]),
    }
}

/// What a method does to a route; methods that a route does not have are refused.
fn action(route: &Route<'_>, method: &Method) -> Result<Action, RegistryError> {
    let read = *method == Method::GET || *method == Method::HEAD;
    let delete = *method == Method::DELETE;
    let action = match route {
        Route::Catalog if read => Action::Catalog,
        Route::Base | Route::Tags { .. } | Route::Referrers { .. } if read => Action::Pull,
        Route::Recipe { .. } | Route::Pack { .. } if read => Action::Pull,
        Route::Manifest { .. } | Route::Blob { .. } if read => Action::Pull,
        Route::Manifest { .. } | Route::Blob { .. } if delete => Action::Delete,
        Route::Manifest { .. } if *method == Method::PUT => Action::Push,
        Route::Uploads { .. } if *method == Method::POST => Action::Push,
        Route::Upload { .. } if read || delete || *method == Method::PATCH || *method == Method::PUT => Action::Push,
        _ => return Err(RegistryError::new(Code::Unsupported, format!("{method} is not supported here"))),
    };
    Ok(action)
}

/// Decoded pairs of a query, few and short.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or_default().split('&').take(16).filter(|p| p.len() < 2048);
        let decoded = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((decode(key)?, decode(value)?))
        });
        Query(decoded.collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

fn digest(text: &str) -> Result<Digest, RegistryError> {
    Digest::parse(text).map_err(|e| RegistryError::new(Code::DigestInvalid, e.to_string()))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::new(Some("digest=sha256%3Aab&last=a+b&bad=%zz&flag&n=3"));
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("last"), Some("a b"));
        assert_eq!(query.get("bad"), None);
        assert_eq!(query.get("flag"), None);
        assert_eq!(query.get("n"), Some("3"));
    }
}
