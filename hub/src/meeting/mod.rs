//! Where hub and nodes meet when that is a broker of somebody else's (`limpet hub --broker`).
//!
//! In: flags. Out: this hub's way to the broker, and what devices are told when they join. Decision 0033.
//! Never: trusts the broker with keys or content.

pub mod acl;

use crate::pki::{Pki, Subject};
use limpet_broker::{ExternalOptions, Office};
use limpet_protocol::join::JoinBroker;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

const PORT: u16 = 8883;
/// Made anew for each connection to the broker, so this only bounds how long one connection's is good.
const CERTIFICATE_DAYS: u64 = 398;
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// `limpet hub --broker…`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerSettings {
    /// `mqtts://HOST[:PORT][,HOST[:PORT]…]`
    pub url: String,
    /// `host:port` or `wss://host/path` for devices; empty: as in `url`.
    pub advertise: Vec<String>,
    /// What the broker's certificate comes from. None: the hub's own CA.
    pub ca: Option<PathBuf>,
    /// This hub's certificate for the broker. None: one that the hub makes itself.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub node_username: Option<String>,
    pub node_password_file: Option<PathBuf>,
}

impl BrokerSettings {
    /// The same from whatever directory the hub is started.
    pub(crate) fn with_whole_paths(&self) -> BrokerSettings {
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        BrokerSettings {
            ca: self.ca.as_ref().map(whole),
            certificate: self.certificate.as_ref().map(|(certificate, key)| (whole(certificate), whole(key))),
            password_file: self.password_file.as_ref().map(whole),
            node_password_file: self.node_password_file.as_ref().map(whole),
            ..self.clone()
        }
    }
}

/// Settings that were read and are sound.
pub(crate) struct Meeting {
    addresses: Vec<(String, u16)>,
    advertise: Vec<String>,
    ca_pem: Option<String>,
    certificate_pem: Option<(String, String)>,
    hub: (Option<String>, Option<String>),
    node: (String, String),
}

impl Meeting {
    /// The error is a sentence for whoever wrote the flags.
    pub fn open(settings: &BrokerSettings) -> Result<Meeting, String> {
        let addresses = addresses(&settings.url)?;
        let password = |path: &Option<PathBuf>| path.as_deref().map(read).transpose().map(|p| p.map(|p| p.trim_end().to_owned()));
        let named = addresses.iter().map(|(host, port)| format!("{}:{port}", bracketed(host))).collect();
        let meeting = Meeting {
            advertise: if settings.advertise.is_empty() { named } else { settings.advertise.clone() },
            addresses,
            ca_pem: settings.ca.as_deref().map(read).transpose()?,
            certificate_pem: match &settings.certificate {
                Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                None => None,
            },
            hub: (settings.username.clone(), password(&settings.password_file)?),
            node: (
                settings.node_username.clone().unwrap_or_default(),
                password(&settings.node_password_file)?.unwrap_or_default(),
            ),
        };
        if let Some(pem) = &meeting.ca_pem {
            roots(pem)?;
        }
        if let Some((certificate, key)) = &meeting.certificate_pem {
            client(RootCertStore::empty(), certificate, key)?;
        }
        Ok(meeting)
    }

    /// What a device is told; `hub_ca`: the hub's own CA.
    pub fn for_nodes(&self, hub_ca: &str) -> JoinBroker {
        let (username, password) = self.node.clone();
        let ca_pem = self.ca_pem.clone().unwrap_or_else(|| hub_ca.into());
        JoinBroker { addresses: self.advertise.clone(), ca_pem, username, password }
    }

    pub fn options(self, pki: Arc<RwLock<Pki>>, office: Arc<dyn Office>) -> ExternalOptions {
        let Meeting { addresses, ca_pem, certificate_pem, hub: (username, password), .. } = self;
        let papers = Arc::clone(&pki);
        let tls = move || {
            let pki = pki.read().unwrap_or_else(PoisonError::into_inner);
            let roots = roots(ca_pem.as_deref().unwrap_or(pki.ca_pem()))?;
            if let Some((certificate, key)) = &certificate_pem {
                return client(roots, certificate, key).map(Arc::new);
            }
            let own = pki.issue_client(&Subject::client(acl::HUB_USER, &[]), CERTIFICATE_DAYS, SystemTime::now());
            let own = own.map_err(|e| e.to_string())?;
            client(roots, &own.certificate_pem, &own.key_pem).map(Arc::new)
        };
        let papers = move || {
            papers.read().unwrap_or_else(PoisonError::into_inner).server_papers().map_err(|e| e.to_string())
        };
        ExternalOptions { addresses, tls: Box::new(tls), username, password, papers: Box::new(papers), office }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

fn addresses(url: &str) -> Result<Vec<(String, u16)>, String> {
    let wrong = || format!("{url:?} is not mqtts://HOST[:PORT][,HOST[:PORT]…]; without TLS anybody could join in");
    let list = url.strip_prefix("mqtts://").ok_or_else(wrong)?.trim_end_matches('/');
    let one = |text: &str| {
        let (host, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(PORT), |p| p.parse().ok()).filter(|p| *p > 0)?;
        let sound = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:_".contains(&b));
        sound.then(|| (host.to_string(), port))
    };
    list.split(',').map(|text| one(text).ok_or_else(wrong)).collect()
}

fn read(path: &Path) -> Result<String, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let meta = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(wrong("far too large".into()));
    }
    fs::read_to_string(path).map_err(|e| wrong(e.to_string()))
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| format!("the broker's CA: {e}"))?;
        roots.add(certificate).map_err(|e| format!("the broker's CA: {e}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in the file of the broker's CA".into()) } else { Ok(roots) }
}

fn client(roots: RootCertStore, certificate: &str, key: &str) -> Result<ClientConfig, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("the hub's certificate for the broker: {e}");
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong(&e))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map_err(|e| wrong(&e))?, key)
        .map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_sentence() {
        let list = |all: &[(&str, u16)]| Ok(all.iter().map(|(h, p)| (h.to_string(), *p)).collect::<Vec<_>>());
        assert_eq!(addresses("mqtts://broker.test"), list(&[("broker.test", 8883)]));
        assert_eq!(addresses("mqtts://a:1,[2001:db8::1]:2,b/"), list(&[("a", 1), ("2001:db8::1", 2), ("b", 8883)]));
        let half = ["mqtts://a:x", "mqtts://a:0", "mqtts://u:p@a", "mqtts://a,,b", "mqtts://a b"];
        for wrong in ["mqtt://a", "a:1", "mqtts://"].iter().chain(&half) {
            assert!(addresses(wrong).is_err_and(|why| why.contains("mqtts://HOST")), "{wrong}");
        }
    }
}
