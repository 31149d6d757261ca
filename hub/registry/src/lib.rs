//! The image registry inside the hub: the OCI distribution spec 1.1, push and pull.
//!
//! In: HTTP requests, who sends them, and a callback that says what they may do. Out: HTTP responses; files under one directory.
//! Never: listens, knows about TLS or passwords, or shows a repository that the callback does not allow.

mod error;
mod limits;
mod reply;
mod route;
mod storage;
mod verbs;

pub use reply::ReplyBody;
pub use storage::Swept;

use bytes::Bytes;
use error::{Code, RegistryError};
use http::{Request, Response};
use hyper::body::Body;
use std::path::Path;
use std::sync::Arc;
use storage::Storage;

/// Who asks; from a client certificate or a bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pull,
    Push,
    Delete,
    /// List all repositories; the repository's name is empty.
    Catalog,
}

/// Whether somebody (None: anonymous) may do something to a repository.
pub type Allow = Arc<dyn Fn(Option<&Identity>, Action, &str) -> bool + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    storage: Arc<Storage>,
    allow: Allow,
    /// Recipes are made one at a time: each is a whole layer's work. Waiting for it holds no thread.
    making: Arc<tokio::sync::Mutex<()>>,
}

/// One request's context.
struct Asked {
    registry: Registry,
    identity: Option<Identity>,
}

impl Registry {
    /// Opens or makes `<data_dir>/registry`. Uploads of an earlier run are gone: their clients start again.
    pub fn open(data_dir: &Path, allow: Allow) -> std::io::Result<Registry> {
        let storage = Arc::new(Storage::open(&data_dir.join("registry"))?);
        Ok(Registry { storage, allow, making: Arc::default() })
    }

    /// Answers one request. Errors are answers, too.
    pub async fn handle<B>(&self, request: Request<B>, identity: Option<Identity>) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let asked = Asked { registry: self.clone(), identity };
        let line = format!("{} {}", request.method(), request.uri().path());
        let response = verbs::answer(&asked, request).await.unwrap_or_else(|error| {
            if error.code == Code::Unknown {
                tracing::error!(request = line, "registry: {}", error.message);
            }
            reply::error(&error)
        });
        let user = asked.identity.as_ref().map_or("anonymous", |i| i.user.as_str());
        tracing::debug!(request = line, user, status = response.status().as_u16(), "registry");
        response
    }

    /// Removes blobs that no repository has any more, and uploads that nobody continues.
    pub async fn sweep(&self) -> std::io::Result<Swept> {
        let storage = self.storage.clone();
        tokio::task::spawn_blocking(move || storage.sweep()).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
    }
}

impl Asked {
    fn may(&self, action: Action, repository: &str) -> Result<(), RegistryError> {
        if (self.registry.allow)(self.identity.as_ref(), action, repository) {
            return Ok(());
        }
        Err(match &self.identity {
            None => RegistryError::new(Code::Unauthorized, "authentication required"),
            Some(identity) => RegistryError::new(
                Code::Denied,
                format!("{} may not {} {repository:?}", identity.user, format!("{action:?}").to_lowercase()),
            ),
        })
    }

    /// Runs file work off the event loop.
    async fn storage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let storage = self.registry.storage.clone();
        tokio::task::spawn_blocking(move || work(&storage))
            .await
            .unwrap_or_else(|_| Err(RegistryError::new(Code::Unknown, "the work was given up")))
    }
}

#[cfg(test)]
mod tests;
