//! Who is at the other end: read from the certificate that TLS has verified.
//!
//! In: DER of the leaf. Out: common name, organizations, serial, fingerprint.
//! Never: trusts anything that the client says about itself outside of the certificate.

use x509_parser::prelude::{FromDer, X509Certificate};

/// The verified peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// Big-endian bytes of the serial number.
    pub serial: Vec<u8>,
    /// DER of the leaf certificate.
    pub certificate: Vec<u8>,
    /// Where it connects from.
    pub address: Option<std::net::SocketAddr>,
}

/// Decides whether a verified peer may connect, and which node it is.
pub trait Gate: Send + Sync + 'static {
    /// The node's name, or a sentence for the log.
    fn admit(&self, peer: &PeerIdentity, client_id: &str) -> Result<String, String>;
}

impl PeerIdentity {
    /// A certificate without exactly one common name names nobody.
    pub fn from_der(der: &[u8]) -> Result<PeerIdentity, String> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| format!("unreadable certificate: {e}"))?;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().map(str::to_string);
        let mut names = cert.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err("the certificate does not have exactly one common name".into());
        };
        let common_name = text(name).map_err(|e| format!("unreadable common name: {e}"))?;
        let organizations = cert.subject().iter_organization().filter_map(|o| text(o).ok()).collect();
        Ok(PeerIdentity {
            common_name,
            organizations,
            serial: cert.raw_serial().to_vec(),
            certificate: der.to_vec(),
            address: None,
        })
    }
}
