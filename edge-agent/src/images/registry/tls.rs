//! TLS for registries: the public roots of this machine, or the hub's CA with the node's own certificate.
//!
//! In: CA files, PEM of the hub and the node. Out: configurations for rustls.
//! Never: skips the check of a certificate; shows the node's certificate to anybody but the hub.

use super::endpoint::{HubAccess, RegistryOptions};
use crate::images::limits::CA_FILE_BYTES_MAX;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Where systems keep their bundle (Debian, Alpine and OpenWrt; Fedora; SUSE; FreeBSD's place on some boards).
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Clone)]
pub enum TlsChoice {
    /// Plain http.
    None,
    Config(Arc<ClientConfig>),
}

impl std::fmt::Debug for TlsChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, TlsChoice::None) { "None" } else { "Config" })
    }
}

/// The public roots, read when they are first needed: a board that only knows its hub never loads them.
pub struct Public {
    options: RegistryOptions,
    ready: OnceLock<Result<TlsChoice, String>>,
}

impl Public {
    pub fn new(options: &RegistryOptions) -> Public {
        Public { options: options.clone(), ready: OnceLock::new() }
    }

    pub fn get(&self) -> Result<TlsChoice, String> {
        self.ready.get_or_init(|| self.load()).clone()
    }

    fn load(&self) -> Result<TlsChoice, String> {
        let mut roots = RootCertStore::empty();
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let bundle = named.into_iter().chain(BUNDLES.map(PathBuf::from)).find(|p| p.is_file());
        for file in bundle.iter().chain(&self.options.ca_files) {
            add_file(&mut roots, file)?;
        }
        if roots.is_empty() {
            return Err("this machine has no CA certificates to check registries with: install ca-certificates, or \
                        name files with CAs in the agent's configuration"
                .to_string());
        }
        let builder = builder(&self.options)?.with_root_certificates(roots);
        Ok(TlsChoice::Config(Arc::new(http1(builder.with_no_client_auth()))))
    }
}

/// Only the hub's CA counts, and the node says who it is.
pub fn hub(access: &HubAccess, options: &RegistryOptions) -> Result<TlsChoice, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(access.ca_pem.as_bytes())? {
        roots.add(certificate).map_err(|e| format!("the hub's CA: {e}"))?;
    }
    let certified = access.key.certified(&access.certificate_pem)?;
    let config = builder(options)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(TlsChoice::Config(Arc::new(http1(config))))
}

fn builder(
    options: &RegistryOptions,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = match &options.time {
        Some(time) => ClientConfig::builder_with_details(provider, time.clone()),
        None => ClientConfig::builder_with_provider(provider),
    };
    builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())
}

fn http1(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err("there is no certificate in the PEM text".to_string()),
        Err(e) => Err(format!("cannot read certificates: {e}")),
    }
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let mut pem = Vec::new();
    let read = std::fs::File::open(file).and_then(|f| f.take(CA_FILE_BYTES_MAX).read_to_end(&mut pem));
    read.map_err(|e| format!("cannot read the CAs in {}: {e}", file.display()))?;
    // A bundle may hold a certificate that rustls refuses; the others are fine.
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        let _ = roots.add(certificate);
    }
    Ok(())
}
