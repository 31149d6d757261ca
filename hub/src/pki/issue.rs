//! Making certificates.
//!
//! In: a subject, a life in days, and either nothing or a request. Out: PEM.
//! Never: takes a name, a usage or an extension from a request; only its public key counts.

use super::{PkiError, csr::CsrAsk};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Devices' clocks are often behind: certificates are good from a day before they were made.
const BACKDATE: Duration = Duration::from_secs(86_400);

/// Who a certificate is for, in Kubernetes' reading: common name = user, organizations = groups.
#[derive(Clone, Debug)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and IP addresses; empty for a client.
    pub names: Vec<String>,
}

impl Subject {
    pub fn client(common_name: &str, organizations: &[&str]) -> Subject {
        Subject {
            common_name: common_name.into(),
            organizations: organizations.iter().map(|o| o.to_string()).collect(),
            names: Vec::new(),
        }
    }

    /// `CN=system:node:<name>, O=system:nodes`.
    pub fn node(name: &str) -> Subject {
        Subject::client(&format!("system:node:{name}"), &["system:nodes"])
    }

    pub(super) fn server(names: Vec<String>) -> Subject {
        Subject { common_name: "limpet-hub".into(), organizations: Vec::new(), names }
    }
}

/// A certificate with its key, both PEM.
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

pub(crate) fn set_life(params: &mut CertificateParams, days: u64, now: SystemTime) {
    let at = |t: SystemTime| {
        let seconds = t.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        time::OffsetDateTime::from_unix_timestamp(seconds as i64)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = at(now.checked_sub(BACKDATE).unwrap_or(UNIX_EPOCH));
    params.not_after = at(now + Duration::from_secs(days * 86_400));
}

fn params(subject: &Subject, days: u64, now: SystemTime) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(subject.names.clone())?;
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    for organization in &subject.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject.names.is_empty() {
        true => vec![ExtendedKeyUsagePurpose::ClientAuth],
        false => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(|e| PkiError::Request(format!("no randomness: {e}")))?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, days, now);
    Ok(params)
}

pub(super) fn with_new_key(
    issuer: &Issuer<'_, KeyPair>,
    subject: &Subject,
    days: u64,
    now: SystemTime,
) -> Result<Issued, PkiError> {
    let key = KeyPair::generate()?;
    let certificate = params(subject, days, now)?.signed_by(&key, issuer)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

pub(super) fn from_request(
    issuer: &Issuer<'_, KeyPair>,
    csr_pem: &str,
    subject: &Subject,
    days: u64,
    now: SystemTime,
) -> Result<String, PkiError> {
    if csr_pem.len() > 16 * 1024 {
        return Err(PkiError::Request("longer than 16 KiB".into()));
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|e| PkiError::Request(e.to_string()))?;
    Ok(params(subject, days, now)?.signed_by(&request.public_key, issuer)?.pem())
}

pub(super) fn from_ask(
    issuer: &Issuer<'_, KeyPair>,
    ask: &CsrAsk,
    server: bool,
    life: Duration,
    now: SystemTime,
) -> Result<String, PkiError> {
    let mut params = params(&ask.subject, 1, now)?;
    params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    params.extended_key_usages = match server {
        true => vec![ExtendedKeyUsagePurpose::ServerAuth],
        false => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    let end = (now + life).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(end as i64)
        .map_err(|_| PkiError::Request("its life ends beyond all time".into()))?;
    Ok(params.signed_by(&ask.request.public_key, issuer)?.pem())
}

/// Whether a stored certificate was issued by this CA, holds until `until` and carries every wanted name.
pub(super) fn still_good(
    pem: &str,
    ca: &CertificateDer<'_>,
    names: &[String],
    until: SystemTime,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let (Ok((_, cert)), Ok((_, ca))) =
        (X509Certificate::from_der(&der), X509Certificate::from_der(ca))
    else {
        return false;
    };
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    cert.verify_signature(Some(ca.public_key())).is_ok()
        && cert.validity().not_after.timestamp() > until
        && names.iter().all(|name| has_name(&cert, name))
}

fn has_name(cert: &X509Certificate<'_>, wanted: &str) -> bool {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    let ip = match CertificateParams::new(vec![wanted.to_string()]).map(|p| p.subject_alt_names) {
        Ok(sans) => sans.into_iter().find_map(|s| match s {
            SanType::IpAddress(std::net::IpAddr::V4(v4)) => Some(v4.octets().to_vec()),
            SanType::IpAddress(std::net::IpAddr::V6(v6)) => Some(v6.octets().to_vec()),
            _ => None,
        }),
        Err(_) => None,
    };
    names.value.general_names.iter().any(|n| match (n, &ip) {
        (GeneralName::IPAddress(bytes), Some(ip)) => bytes == ip,
        (GeneralName::DNSName(name), None) => *name == wanted,
        _ => false,
    })
}
