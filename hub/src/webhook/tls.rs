//! Whom the hub believes when it calls somebody.
//!
//! In: PEM of authorities, perhaps a certificate of our own. Out: a TLS connector.
//! Never: trusts without an authority; there is no way to switch the check off.

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Where distributions keep the authorities of the system.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A certificate chain and its key, PEM both.
pub struct Own {
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

/// The authorities of some PEM text; the error tells what is wrong with it.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|why| why.to_string())?;
        roots.add(certificate).map_err(|why| why.to_string())?;
    }
    Ok(roots)
}

/// The authorities that this machine trusts.
pub fn system_roots() -> Result<RootCertStore, String> {
    let pem = SYSTEM.iter().find_map(|path| std::fs::read(path).ok());
    let pem = pem.ok_or("this machine has no file of trusted authorities (/etc/ssl/certs): name a CA")?;
    let mut roots = RootCertStore::empty();
    // One that cannot be read does not take the others away.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    Ok(roots)
}

pub fn connector(roots: RootCertStore, own: Option<&Own>) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?
        .with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(with_own(builder, own)?)))
}

/// With a certificate of our own, where there is one.
pub fn with_own(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    own: Option<&Own>,
) -> Result<ClientConfig, String> {
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&own.chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| format!("the client's certificate: {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(&own.key).map_err(|why| format!("the client's key: {why}"))?;
    builder.with_client_auth_cert(chain, key).map_err(|why| why.to_string())
}
