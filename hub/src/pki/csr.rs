//! A certificate request as it is read: who it is for, and the key.
//!
//! In: PKCS#10 in PEM, from anybody. Out: the subject and names that it asks for, its signature checked.
//! Never: trusts an extension; the signer decides what a certificate is good for.

use super::{PkiError, issue::Subject};
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{certification_request::X509CertificationRequest, oid_registry::OID_X509_ORGANIZATION_NAME, prelude::FromDer};

const BYTES_MAX: usize = 16 * 1024;
const NAMES_MAX: usize = 64;

/// A request whose signature is right.
pub struct CsrAsk {
    pub subject: Subject,
    pub(super) request: CertificateSigningRequestParams,
}

impl CsrAsk {
    pub fn read(pem: &str) -> Result<CsrAsk, PkiError> {
        if pem.len() > BYTES_MAX {
            return Err(PkiError::Request("longer than 16 KiB".into()));
        }
        let wrong = |e: &dyn std::fmt::Display| PkiError::Request(e.to_string());
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| wrong(&e))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| wrong(&e))?;
        let groups = parsed.certification_request_info.subject.iter_by_oid(&OID_X509_ORGANIZATION_NAME).count();
        if groups > 1 {
            return Err(PkiError::Request("it names more than one organization; one is what this hub can sign".into()));
        }
        let request = CertificateSigningRequestParams::from_der(&der).map_err(|e| wrong(&e))?;
        let name = &request.params.distinguished_name;
        let text = |type_: DnType| name.get(&type_).and_then(plain).map(str::to_owned);
        let mut names = Vec::new();
        for san in &request.params.subject_alt_names {
            match san {
                SanType::DnsName(dns) => names.push(dns.as_str().to_owned()),
                SanType::IpAddress(ip) => names.push(ip.to_string()),
                _ => return Err(PkiError::Request("email and URI subjectAltNames are not allowed".into())),
            }
        }
        if names.len() > NAMES_MAX {
            return Err(PkiError::Request(format!("more than {NAMES_MAX} subjectAltNames")));
        }
        let common_name = text(DnType::CommonName).filter(|n| !n.is_empty());
        let subject = Subject {
            common_name: common_name.ok_or_else(|| PkiError::Request("it has no common name".into()))?,
            organizations: text(DnType::OrganizationName).into_iter().collect(),
            names,
        };
        Ok(CsrAsk { subject, request })
    }
}

fn plain(value: &DnValue) -> Option<&str> {
    match value {
        DnValue::Utf8String(text) => Some(text),
        DnValue::PrintableString(text) => Some(text.as_str()),
        DnValue::Ia5String(text) => Some(text.as_str()),
        _ => None,
    }
}
