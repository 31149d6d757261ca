//! One pull's conversation with one server: requests with whatever authorization it asks for, redirects included.
//!
//! In: an endpoint, a repository, credentials. Out: manifests and blob bodies.
//! Never: sends this server's authorization anywhere else.

use super::auth::{self, Challenge};
use super::credentials::{Credential, Keyring};
use super::endpoint::{Authority, Endpoint, Registries};
use super::tls::TlsChoice;
use super::transport::{Body, Pool};
use crate::images::limits::{ERROR_BYTES_MAX, REDIRECTS_MAX, TOKEN_BYTES_MAX};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use limpet_oci::limits::MANIFEST_BYTES_MAX;
use limpet_oci::{Digest, manifest};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A hub's registry says by it that it has recipes.
const RECIPES: &str = "limpet-recipes";
const AGENT: &str = concat!("limpet-agent/", env!("CARGO_PKG_VERSION"));

/// Why a request brought nothing.
#[derive(Debug)]
pub enum Failure {
    /// No conversation took place: another server, or another time, may help.
    Unreachable(String),
    /// The server has no such manifest or blob.
    NotFound(String),
    /// The server said no, or nonsense.
    Refused(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Unreachable(why) | Failure::NotFound(why) | Failure::Refused(why) => f.write_str(why),
        }
    }
}

pub struct FetchedManifest {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub content_type: Option<String>,
}

pub struct Session {
    registries: Arc<Registries>,
    endpoint: Endpoint,
    repository: String,
    credential: Option<Credential>,
    authorization: Mutex<Option<String>>,
    /// It has given something.
    has_given: AtomicBool,
    recipes: AtomicBool,
    pool: Pool,
}

/// What to ask for.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    accept: Option<&'a str>,
    /// First byte, and the last when not all that follow are wanted.
    range: Option<(u64, Option<u64>)>,
}

impl Session {
    /// One for each credential that its pod has for this server, in the order in which they are tried; one without any.
    pub fn all(registries: &Arc<Registries>, endpoint: &Endpoint, repository: &str, keyring: &Keyring) -> Vec<Session> {
        let new = |credential| Session::new(registries.clone(), endpoint.clone(), repository, credential);
        match keyring.find(&endpoint.registry, repository) {
            none if none.is_empty() => vec![new(None)],
            some => some.into_iter().map(|credential| new(Some(credential.clone()))).collect(),
        }
    }

    fn new(registries: Arc<Registries>, endpoint: Endpoint, repository: &str, credential: Option<Credential>) -> Session {
        let pool = Pool::new(registries.way());
        Session {
            registries,
            endpoint,
            repository: repository.to_string(),
            credential,
            authorization: Mutex::new(None),
            has_given: AtomicBool::new(false),
            recipes: AtomicBool::new(false),
            pool,
        }
    }

    pub fn host(&self) -> String {
        self.endpoint.authority.to_string()
    }

    /// The credential that this server would be shown.
    pub fn fingerprint(&self) -> Option<String> {
        self.credential.as_ref().map(Credential::fingerprint)
    }

    /// The credential that this server asked for, was shown and was content with.
    pub fn opened_with(&self) -> Option<String> {
        let asked = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.fingerprint().filter(|_| asked && self.has_given.load(Ordering::Relaxed))
    }

    /// The same server, with another credential.
    pub fn is_beside(&self, other: &Session) -> bool {
        self.endpoint.authority == other.endpoint.authority
    }

    /// The digest that `target` (a tag) names now; None when the server does not say.
    pub async fn resolve(&self, target: &str) -> Result<Option<Digest>, Failure> {
        let path = format!("/v2/{}/manifests/{target}", self.repository);
        let ask = Ask { method: Method::HEAD, path: &path, accept: Some(manifest::ACCEPT), range: None };
        let response = self.get(ask).await?;
        let digest = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        let digest = digest.and_then(|d| Digest::parse(d).ok());
        let body = response.into_body();
        self.pool.read(body, 0).await.map_err(Failure::Unreachable)?;
        Ok(digest)
    }

    /// The manifest or index that `target` (a tag or a digest) names, its digest computed here.
    pub async fn manifest(&self, target: &str) -> Result<FetchedManifest, Failure> {
        let path = format!("/v2/{}/manifests/{target}", self.repository);
        let ask = Ask { method: Method::GET, path: &path, accept: Some(manifest::ACCEPT), range: None };
        let response = self.get(ask).await?;
        if response.headers().contains_key(RECIPES) {
            self.recipes.store(true, Ordering::Relaxed);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_string);
        let bytes =
            self.pool.read(response.into_body(), MANIFEST_BYTES_MAX).await.map_err(Failure::Unreachable)?;
        let digest = match Digest::parse(target) {
            Ok(wanted) if wanted.matches(&bytes) => wanted,
            Ok(wanted) => {
                return Err(Failure::Refused(format!("the manifest {wanted} has another content on {}", self.host())));
            }
            Err(_) => Digest::of(&bytes),
        };
        Ok(FetchedManifest { bytes, digest, content_type })
    }

    /// A blob from byte `from` on: the byte where the answer really starts, and its body.
    pub async fn blob(&self, digest: &Digest, from: u64) -> Result<(u64, Body), Failure> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let range = (from > 0).then_some((from, None));
        let ask = Ask { method: Method::GET, path: &path, accept: None, range };
        let response = self.get(ask).await?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => content_start(&response).unwrap_or(u64::MAX),
            _ => 0,
        };
        match start {
            0 => Ok((0, response.into_body())),
            start if start == from => Ok((start, response.into_body())),
            _ => Err(Failure::Refused(format!("{} answered another range than was asked for", self.host()))),
        }
    }

    /// Whether the server has said, with a manifest, that it has recipes of layers.
    pub fn has_recipes(&self) -> bool {
        self.recipes.load(Ordering::Relaxed)
    }

    /// A blob that is small enough for memory, its digest checked.
    pub async fn small_blob(&self, digest: &Digest, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let (_, body) = self.blob(digest, 0).await?;
        let bytes = self.pool.read(body, bytes_max).await.map_err(Failure::Unreachable)?;
        match digest.matches(&bytes) {
            true => Ok(bytes),
            false => Err(Failure::Refused(format!("blob {digest} has another content on {}", self.host()))),
        }
    }

    /// A layer's recipe (`limpet_oci::delta`).
    pub async fn recipe(&self, digest: &Digest, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let path = format!("/v2/{}/_limpet/recipe/{digest}", self.repository);
        let ask = Ask { method: Method::GET, path: &path, accept: None, range: None };
        let response = self.get(ask).await?;
        self.pool.read(response.into_body(), bytes_max).await.map_err(Failure::Unreachable)
    }

    /// A part of a layer's pack.
    pub async fn pack(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body, Failure> {
        let path = format!("/v2/{}/_limpet/pack/{digest}", self.repository);
        let range = Some((offset, Some(offset + length.saturating_sub(1))));
        let response = self.get(Ask { method: Method::GET, path: &path, accept: None, range }).await?;
        match (response.status(), content_start(&response)) {
            (StatusCode::PARTIAL_CONTENT, Some(start)) if start == offset => Ok(response.into_body()),
            _ => Err(Failure::Refused(format!("{} answered another range than was asked for", self.host()))),
        }
    }

    /// To be called with what arrived: waits when that was too fast.
    pub async fn pace(&self, bytes: usize) {
        self.registries.pace.take(bytes).await;
    }

    pub fn give_back(&self, body: Body) {
        self.pool.give_back(body);
    }

    /// Sends, authorizes when asked to, follows redirects; success or a failure with the server's words.
    async fn get(&self, ask: Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut challenged = false;
        loop {
            let response = self.follow(&ask).await?;
            let status = response.status();
            if status.is_success() {
                self.has_given.store(true, Ordering::Relaxed);
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                let challenge = auth::challenge(response.headers());
                let _ = self.pool.read(response.into_body(), ERROR_BYTES_MAX).await;
                self.answer(challenge).await?;
                continue;
            }
            return Err(self.failure(&ask, response).await);
        }
    }

    async fn follow(&self, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut authority = self.endpoint.authority.clone();
        let mut tls = self.endpoint.tls.clone();
        let mut path = ask.path.to_string();
        for _ in 0..=REDIRECTS_MAX {
            let own = authority == self.endpoint.authority;
            let request = self.request(ask, &authority, &path, own)?;
            let sent = self.pool.send(&authority, &tls, request).await;
            let response = sent.map_err(|why| Failure::Unreachable(format!("{authority}: {why}")))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let (next, next_path) = redirect(&authority, &path, &response).map_err(Failure::Refused)?;
            tls = match (next == self.endpoint.authority, next.https) {
                (true, _) => self.endpoint.tls.clone(),
                (false, true) => self.registries.public_tls().map_err(Failure::Refused)?,
                (false, false) => TlsChoice::None,
            };
            (authority, path) = (next, next_path);
        }
        Err(Failure::Refused(format!("{} redirects more than {REDIRECTS_MAX} times", self.host())))
    }

    fn request(
        &self,
        ask: &Ask<'_>,
        authority: &Authority,
        path: &str,
        own: bool,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(path)
            .header(HOST, authority.host_header())
            .header(USER_AGENT, AGENT);
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some((first, last)) = ask.range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization.filter(|_| own) {
            let mut value = HeaderValue::from_str(&authorization)
                .map_err(|_| Failure::Refused("the credential cannot be sent in a header".to_string()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::default()).map_err(|e| Failure::Refused(format!("cannot ask for {path:?}: {e}")))
    }

    async fn answer(&self, challenge: Option<Challenge>) -> Result<(), Failure> {
        let authorization = match (challenge, &self.credential) {
            (Some(Challenge::Basic), Some(credential)) => auth::basic(credential),
            (Some(bearer @ Challenge::Bearer { .. }), credential) => {
                format!("Bearer {}", self.token(&bearer, credential.as_ref()).await?)
            }
            (Some(Challenge::Basic), None) => {
                let host = self.host();
                let why = format!("unauthorized: {host} asks for a user and a password: name a pull secret for it");
                return Err(Failure::Refused(why));
            }
            (None, _) => {
                return Err(Failure::Refused(format!("{} says 401 but not what it asks for", self.host())));
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    async fn token(&self, challenge: &Challenge, credential: Option<&Credential>) -> Result<String, Failure> {
        let ask = auth::token_ask(challenge, &self.endpoint.authority, &self.repository, credential)
            .map_err(Failure::Refused)?;
        let server = ask.authority.clone();
        let tls = match (server.https, server == self.endpoint.authority) {
            (true, true) => self.endpoint.tls.clone(),
            (true, false) => self.registries.public_tls().map_err(Failure::Refused)?,
            (false, _) => TlsChoice::None,
        };
        let method = if ask.form.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(&ask.path_and_query)
            .header(HOST, server.host_header())
            .header(USER_AGENT, AGENT);
        if let Some(authorization) = &ask.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if ask.form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::from(ask.form.unwrap_or_default());
        let request = request.body(body).map_err(|e| Failure::Refused(format!("token server {server}: {e}")))?;
        let unreachable = |why| Failure::Unreachable(format!("token server {server}: {why}"));
        let response = self.pool.send(&server, &tls, request).await.map_err(unreachable)?;
        let status = response.status();
        let body = self.pool.read(response.into_body(), TOKEN_BYTES_MAX).await.map_err(unreachable)?;
        match auth::token(&body) {
            Some(token) if status.is_success() => Ok(token),
            _ if status.is_server_error() => Err(unreachable(status.to_string())),
            _ => Err(Failure::Refused(format!("unauthorized: token server {server} answered {status}"))),
        }
    }

    async fn failure(&self, ask: &Ask<'_>, response: Response<Body>) -> Failure {
        let status = response.status();
        let body = self.pool.read(response.into_body(), ERROR_BYTES_MAX).await.unwrap_or_default();
        let why = format!("{} answered {status} for {}{}", self.host(), ask.path, said(&body));
        match status {
            StatusCode::NOT_FOUND => Failure::NotFound(why),
            StatusCode::TOO_MANY_REQUESTS => Failure::Unreachable(why),
            status if status.is_server_error() => Failure::Unreachable(why),
            _ => Failure::Refused(why),
        }
    }
}

/// The registry's own words (distribution spec, "Error Codes").
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
        message: Option<String>,
    }
    let first = serde_json::from_slice::<Errors>(body).ok().and_then(|e| e.errors.into_iter().next());
    let Some(error) = first else { return String::new() };
    let text = [error.code, error.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    format!(" ({text})")
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect(from: &Authority, path: &str, response: &Response<Body>) -> Result<(Authority, String), String> {
    let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    redirect_to(from, path, location)
}

fn redirect_to(from: &Authority, path: &str, location: &str) -> Result<(Authority, String), String> {
    let bad = || format!("{from} redirects to a bad address");
    let uri: Uri = location.parse().map_err(|_| bad())?;
    let next_path = uri.path_and_query().map_or("/", |p| p.as_str()).to_string();
    let authority = match (uri.scheme_str(), uri.authority()) {
        (None, None) if location.starts_with('/') => from.clone(),
        (None, None) => return Ok((from.clone(), relative(path, location))),
        (Some("https"), Some(a)) if !a.as_str().contains('@') => Authority::parse(true, a.as_str()).ok_or_else(bad)?,
        (Some("http"), Some(_)) if from.https => return Err(format!("{from} redirects to http: refused")),
        (Some("http"), Some(a)) if !a.as_str().contains('@') => Authority::parse(false, a.as_str()).ok_or_else(bad)?,
        _ => return Err(bad()),
    };
    Ok((authority, next_path))
}

fn relative(path: &str, location: &str) -> String {
    let folder = path.split('?').next().unwrap_or(path).rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{location}")
}

fn content_start(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_lose_tls() {
        let https = Authority::parse(true, "reg.example").unwrap();
        let http = Authority::parse(false, "reg.example:5000").unwrap();
        let to = |from: &Authority, location: &str| {
            redirect_to(from, "/v2/a/blobs/x?y", location).map(|(a, p)| format!("{a}{p}")).ok()
        };
        for (from, location, expect) in [
            (&https, "https://cdn.example/x?y=1", Some("https://cdn.example/x?y=1")),
            (&https, "/other", Some("https://reg.example/other")),
            (&https, "http://cdn.example/x", None),
            (&https, "https://u:p@cdn.example/x", None),
            (&https, "ftp://cdn.example/x", None),
            (&https, "", None),
            (&http, "http://cdn.example/x", Some("http://cdn.example/x")),
            (&http, "https://cdn.example", Some("https://cdn.example/")),
        ] {
            assert_eq!(to(from, location).as_deref(), expect, "{location}");
        }
    }

    #[test]
    fn the_servers_words_are_shown_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way"}]}"#;
        assert_eq!(said(body), " (DENIED: no[2J way)");
        assert_eq!(said(b"<html>"), "");
    }
}
