//! Tokens of other issuers: OpenID Connect.
//!
//! In: a bearer token, hostile; the operator's issuers. Out: the user that the token is for. An issuer's keys are fetched
//! when they are first needed and again when a token names a key that is not known.
//! Never: asks an issuer that the token does not come from, or more often than `FETCHES` and `FETCH_EVERY` allow.

mod claims;
pub mod config;
pub mod keys;

use super::user::User;
use crate::webhook::{client::Client, client::Credentials, tls};
use config::{Jwt, Rules};
use jiff::Timestamp;
use keys::{Keys, Parts};
use serde_json::Value;
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};
use tokio_rustls::TlsConnector;

const CALL_TIME: Duration = Duration::from_secs(10);
/// Fetches in a row, and the time after which there may be one more.
const FETCHES: u32 = 5;
const FETCH_EVERY: Duration = Duration::from_secs(10);

/// One issuer that is believed.
pub struct Issuer {
    url: String,
    discovery: String,
    tls: TlsConnector,
    rules: Rules,
    keys: RwLock<Arc<Keys>>,
    fetches: Mutex<Fetches>,
    /// How often keys came, so that those who waited need not fetch again.
    fetched: AtomicU64,
}

struct Fetches {
    left: u32,
    last: Instant,
}

impl Issuer {
    /// The error begins with the field of the configuration.
    pub fn new(jwt: &Jwt) -> Result<Issuer, String> {
        let rules = jwt.rules()?;
        let roots = match jwt.issuer.certificate_authority.as_deref().filter(|pem| !pem.is_empty()) {
            Some(pem) => tls::roots(pem.as_bytes()),
            None => tls::system_roots(),
        };
        let roots = roots.map_err(|why| format!("issuer.certificateAuthority: {why}"))?;
        let own = || format!("{}/.well-known/openid-configuration", jwt.issuer.url.trim_end_matches('/'));
        Ok(Issuer {
            url: jwt.issuer.url.clone(),
            discovery: jwt.issuer.discovery_url.clone().unwrap_or_else(own),
            tls: tls::connector(roots, None)?,
            rules,
            keys: RwLock::default(),
            fetches: Mutex::new(Fetches { left: FETCHES, last: Instant::now() }),
            fetched: AtomicU64::new(0),
        })
    }

    pub fn only(&mut self, algorithms: Vec<keys::Algorithm>) {
        self.rules.algorithms = algorithms;
    }

    pub fn is_of(&self, parts: &Parts<'_>) -> bool {
        parts.claims["iss"] == self.url.as_str()
    }

    /// The token's user.
    pub async fn user(&self, parts: &Parts<'_>, now: Timestamp) -> Result<User, String> {
        if !parts.is_of(&self.rules.algorithms) {
            return Err("oidc: malformed jwt: the algorithm is not allowed".into());
        }
        self.verify(parts).await?;
        claims::user(&parts.claims, &self.rules, now.as_second())
    }

    async fn verify(&self, parts: &Parts<'_>) -> Result<(), String> {
        let before = self.fetched.load(Ordering::Acquire);
        let known = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        if known.signed(parts) {
            return Ok(());
        }
        // Somebody's forgery with a known key does not send us to the issuer.
        if known.knows(parts) {
            return Err("failed to verify signature: failed to verify id token signature".into());
        }
        let fresh = self.fresh(before).await?;
        match fresh.signed(parts) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }

    /// The issuer's keys of now; one at a time asks for them.
    async fn fresh(&self, before: u64) -> Result<Arc<Keys>, String> {
        let mut fetches = self.fetches.lock().await;
        if self.fetched.load(Ordering::Acquire) > before {
            return Ok(Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner)));
        }
        let more = fetches.last.elapsed().as_secs() / FETCH_EVERY.as_secs();
        fetches.left = u32::try_from(more).unwrap_or(FETCHES).saturating_add(fetches.left).min(FETCHES);
        fetches.left = fetches.left.checked_sub(1).ok_or("the issuer was asked for its keys a moment ago")?;
        fetches.last = Instant::now();
        let document = self.get(&self.discovery).await?;
        if document["issuer"] != self.url.as_str() {
            return Err(format!("{}: it is the document of issuer {}", self.discovery, document["issuer"]));
        }
        let place = document["jwks_uri"].as_str().filter(|url| url.starts_with("https://"));
        let place = place.ok_or_else(|| format!("{}: no jwks_uri with scheme https", self.discovery))?;
        let keys = Arc::new(Keys::parse(&self.get(place).await?));
        if keys.is_empty() {
            return Err(format!("{place}: no key that can be used"));
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        self.fetched.fetch_add(1, Ordering::Release);
        Ok(keys)
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let client = Client::new(url, self.tls.clone(), None, Credentials::None)?;
        let bytes = client.get(CALL_TIME).await.map_err(|why| why.to_string())?;
        serde_json::from_slice(&bytes).map_err(|why| format!("{url}: no JSON: {why}"))
    }
}
