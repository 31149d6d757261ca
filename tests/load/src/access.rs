//! How to reach an API server and who to be there.
//!
//! In: a kubeconfig, or a URL with files. Out: an address and TLS settings for `connection`.
//! Never: a server whose certificate the given CA did not sign.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use std::{fs, path::Path, sync::Arc};

#[derive(Clone)]
pub struct Access {
    pub host: String,
    pub port: u16,
    pub tls: Arc<ClientConfig>,
    pub token: Option<String>,
    pub http2: bool,
}

impl Access {
    pub fn parts(
        url: &str,
        ca: Option<&Path>,
        token: Option<&str>,
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Access, String> {
        let ca = read(ca.ok_or("--ca is needed")?)?;
        let token = match token.map(|t| (t, t.strip_prefix('@'))) {
            Some((_, Some(file))) => {
                Some(String::from_utf8_lossy(&read(Path::new(file))?).trim().to_owned())
            }
            Some((text, None)) => Some(text.to_owned()),
            None => None,
        };
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        Access::new(url, &ca, client, token)
    }

    pub fn kubeconfig(path: &Path) -> Result<Access, String> {
        let wrong = |why: &str| format!("{}: {why}", path.display());
        let text = fs::read_to_string(path).map_err(|e| wrong(&e.to_string()))?;
        let config: Value = serde_saphyr::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        let named = |list: &str, name: &Value, part: &str| {
            let all = config[list].as_array()?;
            all.iter().find(|entry| &entry["name"] == name).map(|entry| entry[part].clone())
        };
        let context = named("contexts", &config["current-context"], "context").ok_or_else(|| wrong("no current context"))?;
        let cluster = named("clusters", &context["cluster"], "cluster").ok_or_else(|| wrong("no cluster"))?;
        let user = named("users", &context["user"], "user").ok_or_else(|| wrong("no user"))?;
        let pem = |of: &Value, name: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = of[format!("{name}-data")].as_str() {
                return STANDARD.decode(data).map(Some).map_err(|e| wrong(&e.to_string()));
            }
            let file = of[name].as_str();
            file.map(|file| read(&path.parent().unwrap_or(Path::new(".")).join(file))).transpose()
        };
        let ca = pem(&cluster, "certificate-authority")?.ok_or_else(|| wrong("no CA"))?;
        let client = pem(&user, "client-certificate")?.zip(pem(&user, "client-key")?);
        let url = cluster["server"].as_str().ok_or_else(|| wrong("no server"))?;
        Access::new(url, &ca, client, user["token"].as_str().map(Into::into))
    }

    fn new(url: &str, ca: &[u8], client: Option<(Vec<u8>, Vec<u8>)>, token: Option<String>) -> Result<Access, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let host = uri.host().ok_or_else(|| format!("{url} names no host"))?;
        let tls = tls(ca, client).map_err(|e| format!("{url}: {e}"))?;
        Ok(Access {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(443),
            tls: Arc::new(tls),
            token,
            http2: false,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn tls(ca: &[u8], client: Option<(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca) {
        roots.add(ca.map_err(|e| text(&e))?).map_err(|e| text(&e))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| text(&e))?
        .with_root_certificates(roots);
    let Some((cert, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| text(&e))?;
    builder.with_client_auth_cert(chain.map_err(|e| text(&e))?, key).map_err(|e| text(&e))
}
