//! Client certificates: common name is the user, organizations are the groups.
//!
//! In: the certificate that rustls verified against the hub's CA. Out: `User`. Never: verifies the chain
//! itself.

use super::user::{AUTHENTICATED, User};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `None` when the certificate has no usable common name.
pub fn user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name, groups, ..User::default() })
}
