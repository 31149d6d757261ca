//! TLS settings of the hub's three doors.
//!
//! In: the opened PKI. Out: `rustls::ServerConfig`s, TLS 1.2 and 1.3 with ring.
//! Never: a cipher or version that Kubernetes' own defaults refuse.

use super::{Pki, PkiError};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier},
};
use std::sync::Arc;

/// Sessions of a hub that does not remember them over restarts.
const RESUMABLE_MAX: usize = 256;

impl Pki {
    /// For the API and the registry: a client certificate is welcome but not required (tokens exist).
    pub fn https_config(&self, alpn: &[&str]) -> Result<ServerConfig, PkiError> {
        self.config(false, alpn, &[])
    }

    /// For the API: certificates of front proxies are let in, too; who takes the connection tells them apart.
    pub fn api_config(&self, alpn: &[&str]) -> Result<ServerConfig, PkiError> {
        self.config(false, alpn, &self.front_pem)
    }

    /// For MQTT: without a client certificate of this CA there is no connection.
    pub fn mqtt_config(&self) -> Result<ServerConfig, PkiError> {
        let mut config = self.config(true, &["mqtt"], &[])?;
        // A board on a bad link connects often: a resumed handshake is a third of a whole one. Kept here and not in tickets,
        // which would carry the board's certificate to and fro.
        config.session_storage = match &self.sessions {
            Some(sessions) => Arc::clone(sessions) as Arc<dyn StoresServerSessions>,
            None => ServerSessionMemoryCache::new(RESUMABLE_MAX),
        };
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn config(&self, required: bool, alpn: &[&str], more: &[u8]) -> Result<ServerConfig, PkiError> {
        let wrong = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der.clone()).map_err(|e| wrong(&e))?;
        for authority in CertificateDer::pem_slice_iter(more) {
            roots.add(authority.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if !required {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build().map_err(|e| wrong(&e))?;
        let leaf = CertificateDer::from_pem_slice(self.server_pem.as_bytes()).map_err(|e| wrong(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key_pem.as_bytes()).map_err(|e| wrong(&e))?;
        // The CA travels with the leaf: a joining device knows only its hash.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf, self.ca_der.clone()], key)
            .map_err(|e| wrong(&e))?;
        // MQTT clients that offer no ALPN are served too: rustls only compares when both sides name protocols.
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config.max_fragment_size = None;
        Ok(config)
    }
}
