//! Which key a node joined with.
//!
//! In: requests and certificates. Out: the SHA-256 of their public key (SubjectPublicKeyInfo), lower-case hex.
//! Never: compares anything but keys; serials and dates change with each renewal.

use crate::pki::hex;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
};

/// What the hub keeps of a node that joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub node: String,
    pub key_sha256: String,
    pub instance: String,
    pub description: String,
    pub joined_ms: u64,
    /// Id of the token that opened the door.
    pub token: String,
    #[serde(default)]
    pub pool: Option<String>,
    /// The piece of hardware that holds this identity; empty until it has said so.
    #[serde(default)]
    pub hardware: String,
    /// Another piece of hardware that uses the same key: a copied card.
    #[serde(default)]
    pub copy: Option<Copy>,
}

/// A device with somebody else's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    pub hardware: String,
    pub address: String,
    pub seen_ms: u64,
}

/// A key's hash as people compare it: the first 64 bits, in groups of four digits.
pub fn fingerprint(key_sha256: &str) -> String {
    let digits: Vec<char> = key_sha256.chars().take(16).collect();
    digits.chunks(4).map(|c| c.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

pub fn key_sha256_of_certificate(der: &[u8]) -> Result<String, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    Ok(hex(&Sha256::digest(certificate.public_key().raw)))
}

pub(super) fn key_sha256_of_point(point: &limpet_sealed::Point) -> String {
    hex(&Sha256::digest(limpet_sealed::spki(point)))
}

/// As `key_sha256_of_request`, when whoever made the request has the key's private half.
pub(super) fn key_sha256_of_signed_request(pem: &str) -> Result<String, String> {
    let key = key_sha256_of_request(pem)?;
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
    request.verify_signature().map_err(|_| "its signature was not made with its own key".to_string())?;
    Ok(key)
}

pub(super) fn key_sha256_of_request(pem: &str) -> Result<String, String> {
    if pem.len() > 16 * 1024 {
        return Err("longer than 16 KiB".into());
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
    Ok(hex(&Sha256::digest(request.certification_request_info.subject_pki.raw)))
}
