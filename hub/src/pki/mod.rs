//! The hub's keys and certificates: one CA, the server's, the operator's, the nodes', and the token signing key.
//!
//! In: a folder and the names under which the hub is reached. Out: certificates, TLS settings, `admin.kubeconfig`.
//! Files are written under a temporary name, mode 0600, and renamed. Never: the key of a node or a user who sent a CSR.

mod csr;
mod files;
mod issue;
mod kubeconfig;
mod sessions;
mod tls;
pub mod update;

pub use kubeconfig::cluster_info;
pub use csr::CsrAsk;
pub use issue::{Issued, Subject};
pub(crate) use issue::set_life;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sessions::Sessions;
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Life of the CA. A device that comes back after years must still be able to trust the hub.
const CA_DAYS: u64 = 365 * 30;
/// Life of the hub's own certificate and the operator's; both are renewed at start and daily when a month is left.
const SERVER_DAYS: u64 = 398;
/// Life of a node's certificate. The agent renews at two thirds.
pub const NODE_DAYS: u64 = 365;
const ADMIN_DAYS: u64 = 3650;
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Nobody retries: the operator mends the file or the name that the sentence tells.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not what it should be ({what}); restore it from a backup, or remove it to have it made anew")]
    Broken { path: PathBuf, what: String },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    #[error("TLS settings are not usable: {0}")]
    Tls(String),
}

/// The opened PKI of one hub.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
    server_pem: String,
    server_key_pem: String,
    token_key_der: Vec<u8>,
    update_key: String,
    /// PEM of the authority of front proxies, where there is one.
    front_pem: Vec<u8>,
    /// Sessions of boards, where a hub runs.
    sessions: Option<Arc<Sessions>>,
}

impl Pki {
    /// Opens the PKI in `dir`, making what is missing. `names` are host names and IP addresses of the hub.
    pub fn open(dir: &Path, names: &[String], now: SystemTime) -> Result<Pki, PkiError> {
        files::make_private_dir(dir)?;
        let (ca_pem, issuer) = open_ca(dir, "ca", "limpet-ca", now)?;
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|e| PkiError::Broken { path: dir.join("ca.crt"), what: e.to_string() })?;
        let mut pki = Pki {
            dir: dir.to_path_buf(),
            ca_pem,
            ca_der,
            issuer,
            names: server_names(names),
            server_pem: String::new(),
            server_key_pem: String::new(),
            token_key_der: open_token_key(dir)?,
            update_key: update::open(dir)?,
            front_pem: Vec::new(),
            sessions: None,
        };
        pki.refresh_server(now)?;
        Ok(pki)
    }

    /// Lets front proxies through the API's TLS; they are nobody else.
    pub fn trust_front(&mut self, pem: &[u8]) {
        self.front_pem = pem.to_vec();
    }

    /// From now on sessions of boards are remembered over restarts, in a file. Only the hub that listens for them does so.
    pub fn remember_sessions(&mut self, file: PathBuf) -> Result<(), PkiError> {
        self.sessions = Some(Sessions::open(&self.dir, file, &self.ca_sha256())?);
        Ok(())
    }

    /// The CA certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Lower-case hex of SHA-256 over the CA's DER: the pin in join tokens.
    pub fn ca_sha256(&self) -> String {
        hex(&Sha256::digest(&self.ca_der))
    }

    /// Hex of the Ed25519 key with which releases of the agent are signed.
    pub fn update_key(&self) -> &str {
        &self.update_key
    }

    /// PKCS#8 DER of the ES256 key that signs ServiceAccount tokens.
    pub fn token_key_der(&self) -> &[u8] {
        &self.token_key_der
    }

    /// Makes the hub's own certificate when it is missing, ends within a month, or lacks one of today's names.
    /// Returns whether it is new.
    pub fn refresh_server(&mut self, now: SystemTime) -> Result<bool, PkiError> {
        let (cert_path, key_path) = (self.dir.join("server.crt"), self.dir.join("server.key"));
        if let (Some(cert), Some(key)) = (files::read(&cert_path)?, files::read(&key_path)?)
            && issue::still_good(&cert, &self.ca_der, &self.names, now + RENEW_BEFORE)
        {
            let fresh = self.server_pem != cert;
            (self.server_pem, self.server_key_pem) = (cert, key);
            return Ok(fresh);
        }
        let subject = Subject::server(self.names.clone());
        let issued = issue::with_new_key(&self.issuer, &subject, SERVER_DAYS, now)?;
        files::write_private(&key_path, issued.key_pem.as_bytes())?;
        files::write_private(&cert_path, issued.certificate_pem.as_bytes())?;
        (self.server_pem, self.server_key_pem) = (issued.certificate_pem, issued.key_pem);
        Ok(true)
    }

    /// A client certificate for the holder of the key in a PKCS#10 request; nothing else of the request is used.
    pub fn sign_request(
        &self,
        csr_pem: &str,
        subject: &Subject,
        days: u64,
        now: SystemTime,
    ) -> Result<String, PkiError> {
        issue::from_request(&self.issuer, csr_pem, subject, days, now)
    }

    /// A certificate for an approved CertificateSigningRequest; the signer has checked what it asks for.
    pub fn sign_csr(
        &self,
        ask: &CsrAsk,
        server: bool,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, PkiError> {
        issue::from_ask(&self.issuer, ask, server, life, now)
    }

    /// PKCS#8 of the hub's own key and DER of its certificate.
    pub fn server_papers(&self) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
        let broken = |e: &dyn std::fmt::Display| PkiError::Broken { path: self.dir.join("server.key"), what: e.to_string() };
        let key = KeyPair::from_pem(&self.server_key_pem).map_err(|e| broken(&e))?;
        let certificate = CertificateDer::from_pem_slice(self.server_pem.as_bytes()).map_err(|e| broken(&e))?;
        Ok((key.serialize_der(), certificate.to_vec()))
    }

    /// A client certificate with a new key, for the operator's kubeconfig and for tests.
    pub fn issue_client(&self, subject: &Subject, days: u64, now: SystemTime) -> Result<Issued, PkiError> {
        issue::with_new_key(&self.issuer, subject, days, now)
    }

    /// The hub's certificate for other API servers, and the authority that signed it: one of its own, so that no client of the
    /// cluster can pass for the hub. Made when it is missing or ends within a month.
    pub fn front_proxy(&self, now: SystemTime) -> Result<(Issued, String), PkiError> {
        let (ca_pem, issuer) = open_ca(&self.dir, "front-proxy-ca", "limpet-front-proxy-ca", now)?;
        let ca_path = self.dir.join("front-proxy-ca.crt");
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|e| PkiError::Broken { path: ca_path, what: e.to_string() })?;
        let (cert_path, key_path) = (self.dir.join("front-proxy-client.crt"), self.dir.join("front-proxy-client.key"));
        if let (Some(cert), Some(key)) = (files::read(&cert_path)?, files::read(&key_path)?)
            && issue::still_good(&cert, &ca_der, &[], now + RENEW_BEFORE)
        {
            return Ok((Issued { certificate_pem: cert, key_pem: key }, ca_pem));
        }
        let issued = issue::with_new_key(&issuer, &Subject::client("front-proxy-client", &[]), ADMIN_DAYS, now)?;
        files::write_private(&key_path, issued.key_pem.as_bytes())?;
        files::write_private(&cert_path, issued.certificate_pem.as_bytes())?;
        Ok((issued, ca_pem))
    }

    /// Writes `admin.kubeconfig` when it is missing or no longer usable. `server` is a URL such as `https://hub:6443`.
    pub fn write_admin_kubeconfig(
        &self,
        path: &Path,
        cluster: &str,
        server: &str,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let (cert_path, key_path) = (self.dir.join("admin.crt"), self.dir.join("admin.key"));
        let kept = match (files::read(&cert_path)?, files::read(&key_path)?) {
            (Some(c), Some(k)) if issue::still_good(&c, &self.ca_der, &[], now + RENEW_BEFORE) => {
                Some(Issued { certificate_pem: c, key_pem: k })
            }
            _ => None,
        };
        let issued = match kept {
            Some(kept) => kept,
            None => {
                let subject = Subject::client("kubernetes-admin", &["system:masters"]);
                let issued = self.issue_client(&subject, ADMIN_DAYS, now)?;
                files::write_private(&key_path, issued.key_pem.as_bytes())?;
                files::write_private(&cert_path, issued.certificate_pem.as_bytes())?;
                issued
            }
        };
        let text = kubeconfig::render(cluster, server, &self.ca_pem, &issued);
        if files::read(path)?.as_deref() != Some(text.as_str()) {
            files::write_private(path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// The authority in `FILE.crt` and `FILE.key`; a new one is called `name`.
fn open_ca(
    dir: &Path,
    file: &str,
    name: &str,
    now: SystemTime,
) -> Result<(String, Issuer<'static, KeyPair>), PkiError> {
    let (cert_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    let broken = |path: &Path, e: rcgen::Error| PkiError::Broken {
        path: path.to_path_buf(),
        what: e.to_string(),
    };
    match (files::read(&cert_path)?, files::read(&key_path)?) {
        (Some(pem), Some(key)) => {
            let key = KeyPair::from_pem(&key).map_err(|e| broken(&key_path, e))?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| broken(&cert_path, e))?;
            Ok((pem, issuer))
        }
        (Some(_), None) => Err(PkiError::Broken {
            path: key_path,
            what: format!("{file}.crt is there but its key is missing"),
        }),
        // A key without a certificate is a first start that was cut short: nothing was signed with it yet.
        (None, _) => {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
                KeyUsagePurpose::DigitalSignature,
            ];
            issue::set_life(&mut params, CA_DAYS, now);
            let pem = params.self_signed(&key)?.pem();
            files::write_private(&key_path, key.serialize_pem().as_bytes())?;
            files::write_private(&cert_path, pem.as_bytes())?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key)?;
            Ok((pem, issuer))
        }
    }
}

fn open_token_key(dir: &Path) -> Result<Vec<u8>, PkiError> {
    let path = dir.join("sa.key");
    let pem = match files::read(&path)? {
        Some(pem) => pem,
        None => {
            let pem = KeyPair::generate()?.serialize_pem();
            files::write_private(&path, pem.as_bytes())?;
            pem
        }
    };
    let key = KeyPair::from_pem(&pem)
        .map_err(|e| PkiError::Broken { path, what: e.to_string() })?;
    Ok(key.serialize_der())
}

/// The names that every hub's certificate has, besides those that the operator tells.
fn server_names(advertised: &[String]) -> Vec<String> {
    let fixed = [
        "localhost",
        "127.0.0.1",
        "::1",
        "hub.limpet",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.96.0.1",
    ];
    let mut names: Vec<String> = fixed.into_iter().map(String::from).collect();
    names.extend(advertised.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        for n in [b >> 4, b & 15] {
            s.push(char::from_digit(n.into(), 16).unwrap_or('0'));
        }
        s
    })
}

#[cfg(test)]
mod tests;
