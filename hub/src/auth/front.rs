//! Users that a front proxy names in headers.
//!
//! In: the proxy's certificate, the headers. Out: the user whom it vouches for.
//! Source: the Kubernetes page "Authenticating", "Authenticating Proxy". Never: believes headers of somebody whose certificate
//! is not of the proxies' own authority, or whose name is not on the list.

use super::{
    Peer,
    user::{AUTHENTICATED, User},
    x509,
};
use crate::{api::query, webhook::tls};
use http::HeaderMap;
use jiff::Timestamp;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

const VALUES_MAX: usize = 64;

/// `--requestheader-*`.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    pub client_ca_file: PathBuf,
    /// Common names; empty: any that the authority signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

pub struct Front {
    options: FrontOptions,
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// The hub's own authority; until it is known nobody is of it.
    own: OnceLock<Arc<dyn ClientCertVerifier>>,
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots: RootCertStore = tls::roots(pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|why| why.to_string())
}

fn signed(verifier: &Arc<dyn ClientCertVerifier>, certificate: &[u8], now: Timestamp) -> bool {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or(0)));
    let der = CertificateDer::from(certificate);
    !certificate.is_empty() && verifier.verify_client_cert(&der, &[], now).is_ok()
}

impl Front {
    pub fn open(options: &FrontOptions) -> Result<Front, String> {
        let wrong = |why: String| format!("--requestheader-client-ca-file {}: {why}", options.client_ca_file.display());
        let pem = std::fs::read(&options.client_ca_file).map_err(|why| wrong(why.to_string()))?;
        let verifier = verifier(&pem).map_err(wrong)?;
        if options.username_headers.is_empty() {
            return Err("--requestheader-username-headers must name a header".into());
        }
        Ok(Front { options: options.clone(), pem, verifier, own: OnceLock::new() })
    }

    pub fn own_authority(&self, pem: &str) -> Result<(), String> {
        // Set once; a second time would be a mistake in `hub.rs` and changes nothing.
        let _ = self.own.set(verifier(pem.as_bytes())?);
        Ok(())
    }

    /// Whether a certificate is of the hub's own authority.
    pub fn is_own(&self, certificate: &[u8], now: Timestamp) -> bool {
        self.own.get().is_some_and(|own| signed(own, certificate, now))
    }

    pub fn authorities(&self) -> &[u8] {
        &self.pem
    }

    /// `None`: no proxy of ours speaks, or it names nobody.
    pub fn user(&self, peer: &Peer, headers: &HeaderMap, now: Timestamp) -> Option<User> {
        let first = |names: &[String]| {
            let value = names.iter().find_map(|name| headers.get(name.as_str())?.to_str().ok());
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let name = first(&self.options.username_headers)?;
        if !self.vouches(&peer.front, now) {
            return None;
        }
        let mut user = User { name, uid: first(&self.options.uid_headers).unwrap_or_default(), ..User::default() };
        for name in &self.options.group_headers {
            let values = headers.get_all(name.as_str()).iter().filter_map(|value| value.to_str().ok());
            user.groups.extend(values.take(VALUES_MAX).map(str::to_owned));
        }
        for prefix in &self.options.extra_headers_prefix {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers.iter().take(VALUES_MAX) {
                if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&prefix), value.to_str())
                    && let Some(key) = query::decode(key, false)
                {
                    user.extra.entry(key).or_default().push(value.to_owned());
                }
            }
        }
        if !user.in_group(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Some(user)
    }

    fn vouches(&self, certificate: &[u8], now: Timestamp) -> bool {
        if !signed(&self.verifier, certificate, now) {
            return false;
        }
        let names = &self.options.allowed_names;
        names.is_empty() || x509::user(certificate).is_some_and(|proxy| names.contains(&proxy.name))
    }
}
