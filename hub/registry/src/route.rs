//! From a path to what is meant.
//!
//! In: the path of a request. Out: a `Route` with a checked repository name and the rest as text.
//! Never: a repository name that could be anything but a path below the repositories' directory.

use crate::error::{Code, RegistryError};
use limpet_oci::reference::check_repository;

#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Base,
    Catalog,
    Tags { repository: &'a str },
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
    Uploads { repository: &'a str },
    Upload { repository: &'a str, id: &'a str },
    Referrers { repository: &'a str, digest: &'a str },
    /// Ours, after the extensions of the distribution spec: a component that begins with an underscore.
    Recipe { repository: &'a str, digest: &'a str },
    Pack { repository: &'a str, digest: &'a str },
}

pub fn parse(path: &str) -> Result<Route<'_>, RegistryError> {
    let not_found = || RegistryError::new(Code::NotFound, "there is nothing at this path");
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or_else(not_found)?,
        None => return Err(not_found()),
    };
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let route = split(rest).ok_or_else(not_found)?;
    check_repository(route.repository()).map_err(|why| RegistryError::new(Code::NameInvalid, why))?;
    Ok(route)
}

/// A repository may be called `blobs` or `tags/list`, so the last words decide.
fn split(rest: &str) -> Option<Route<'_>> {
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return Some(Route::Tags { repository });
    }
    if let Some(repository) = rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads")) {
        return Some(Route::Uploads { repository });
    }
    let (before, last) = rest.rsplit_once('/')?;
    if let Some(repository) = before.strip_suffix("/blobs/uploads") {
        return Some(Route::Upload { repository, id: last });
    }
    let (repository, word) = before.rsplit_once('/')?;
    if let Some(repository) = repository.strip_suffix("/_limpet") {
        return match word {
            "recipe" => Some(Route::Recipe { repository, digest: last }),
            "pack" => Some(Route::Pack { repository, digest: last }),
            _ => None,
        };
    }
    match word {
        "manifests" => Some(Route::Manifest { repository, reference: last }),
        "blobs" => Some(Route::Blob { repository, digest: last }),
        "referrers" => Some(Route::Referrers { repository, digest: last }),
        _ => None,
    }
}

impl<'a> Route<'a> {
    pub fn repository(&self) -> &'a str {
        match self {
            Route::Base | Route::Catalog => "",
            Route::Tags { repository }
            | Route::Manifest { repository, .. }
            | Route::Blob { repository, .. }
            | Route::Uploads { repository }
            | Route::Upload { repository, .. }
            | Route::Referrers { repository, .. }
            | Route::Recipe { repository, .. }
            | Route::Pack { repository, .. } => repository,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let ok = |path: &'static str| parse(path).map_err(|e| e.code);
        assert_eq!(ok("/v2/"), Ok(Route::Base));
        assert_eq!(ok("/v2"), Ok(Route::Base));
        assert_eq!(ok("/v2/_catalog"), Ok(Route::Catalog));
        assert_eq!(ok("/v2/a/b/tags/list"), Ok(Route::Tags { repository: "a/b" }));
        assert_eq!(ok("/v2/a/manifests/v1"), Ok(Route::Manifest { repository: "a", reference: "v1" }));
        assert_eq!(ok("/v2/a/blobs/sha256:x"), Ok(Route::Blob { repository: "a", digest: "sha256:x" }));
        assert_eq!(ok("/v2/a/blobs/uploads/"), Ok(Route::Uploads { repository: "a" }));
        assert_eq!(ok("/v2/a/blobs/uploads/id"), Ok(Route::Upload { repository: "a", id: "id" }));
        assert_eq!(ok("/v2/a/referrers/sha256:x"), Ok(Route::Referrers { repository: "a", digest: "sha256:x" }));
        assert_eq!(ok("/v2/a/_limpet/pack/x"), Ok(Route::Pack { repository: "a", digest: "x" }));
        assert_eq!(
            ok("/v2/blobs/uploads/manifests/x"),
            Ok(Route::Manifest { repository: "blobs/uploads", reference: "x" })
        );
        for (path, code) in [
            ("/", Code::NotFound),
            ("/v1/", Code::NotFound),
            ("/v2x", Code::NotFound),
            ("/v2/a", Code::NotFound),
            ("/v2/a/other/x", Code::NotFound),
            ("/v2/../x/manifests/y", Code::NameInvalid),
            ("/v2/A/manifests/y", Code::NameInvalid),
            ("/v2//manifests/y", Code::NameInvalid),
            ("/v2/_x/manifests/y", Code::NameInvalid),
            ("/v2/a%2f../manifests/y", Code::NameInvalid),
            ("/v2/a/_limpet/other/x", Code::NotFound),
            ("/v2/_limpet/recipe/x", Code::NotFound),
        ] {
            assert_eq!(ok(path), Err(code), "{path}");
        }
    }
}
