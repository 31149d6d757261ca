//! Where the etcd is and how to reach it.
//!
//! In: `etcd://host:port[,host:port…]`, PEM files, a prefix. Out: `EtcdOptions` that can be used, or a sentence.
//! Never: TLS without a CA to check the server with.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Endpoints of one cluster.
const ENDPOINTS_MAX: usize = 16;
const PREFIX_BYTES_MAX: usize = 256;
pub(super) const WRITER_BYTES_MAX: usize = 64;

/// One etcd cluster, of which a hub uses the keys behind `prefix`.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<(String, u16)>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) prefix: String,
    pub(super) writer: String,
}

/// The PEM files for TLS. Without a CA the connection is plain TCP.
#[derive(Clone, Debug, Default)]
pub struct EtcdFiles {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl EtcdOptions {
    /// `writer`: a name that no other process uses at the same time; the same hub uses it again. The error is a sentence.
    pub fn new(url: &str, files: &EtcdFiles, prefix: &str, writer: &str) -> Result<EtcdOptions, String> {
        let hosts = url.strip_prefix("etcd://").ok_or_else(|| format!("{url:?} is not etcd://HOST:PORT[,HOST:PORT…]"))?;
        let endpoints = hosts.trim_end_matches('/').split(',').map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("at most {ENDPOINTS_MAX} endpoints of etcd can be named"));
        }
        let trimmed = prefix.trim_matches('/');
        let bytes_fit = !trimmed.is_empty() && trimmed.len() <= PREFIX_BYTES_MAX;
        if !bytes_fit || trimmed.chars().any(char::is_control) {
            return Err(format!("{prefix:?} cannot be the prefix of the hub's keys; take something like /limpet"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if writer.is_empty() || writer.len() > WRITER_BYTES_MAX || !writer.chars().all(is_name) {
            return Err(format!("{writer:?} cannot be the name of a writer: letters, digits and '-' only"));
        }
        let prefix = format!("/{trimmed}");
        Ok(EtcdOptions { endpoints, tls: tls(files)?, prefix, writer: writer.into() })
    }

    /// For messages to people.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<String> = self.endpoints.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        hosts.join(", ")
    }
}

fn endpoint(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is not HOST:PORT; etcd listens for clients on port 2379, mostly");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_matches(['[', ']']);
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 { Err(wrong()) } else { Ok((host.into(), port)) }
}

fn tls(files: &EtcdFiles) -> Result<Option<Arc<ClientConfig>>, String> {
    let Some(ca) = &files.ca else {
        return match (&files.cert, &files.key) {
            (None, None) => Ok(None),
            _ => Err("a client certificate for etcd needs etcd's CA, too (--etcd-cafile)".into()),
        };
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| broken(ca, &e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| broken(key, &e))?;
            builder.with_client_auth_cert(certificates(cert)?, secret).map_err(|e| broken(cert, &e))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("--etcd-certfile and --etcd-keyfile belong together".into()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn broken(path: &Path, why: &dyn Display) -> String {
    format!("{} cannot be used: {why}", path.display())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| broken(path, &e))?;
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|e| broken(path, &e))?;
    if all.is_empty() { Err(broken(path, &"it holds no certificate")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, prefix: &str, expect: Result<&str, &str>) {
        match (EtcdOptions::new(url, &EtcdFiles::default(), prefix, "hub-1"), expect) {
            (Ok(options), Ok(place)) => assert_eq!(format!("{} {}", options.place(), options.prefix), place),
            (Err(told), Err(word)) => assert!(told.contains(word), "{told}"),
            (got, expect) => panic!("{url} {prefix}: {:?} instead of {expect:?}", got.map(|o| o.place())),
        }
    }

    #[test]
    fn urls_and_prefixes_are_read_or_refused_with_a_sentence() {
        check("etcd://127.0.0.1:2379", "/limpet", Ok("127.0.0.1:2379 /limpet"));
        check("etcd://a:1,b:2/", "limpet/", Ok("a:1, b:2 /limpet"));
        check("etcd://[::1]:2379", "/a/b", Ok("::1:2379 /a/b"));
        for url in ["http://a:1", "etcd://", "etcd://a", "etcd://a:x", "etcd://a:0", "etcd://:1", "etcd://a:1,,b:2"] {
            check(url, "/limpet", Err("not"));
        }
        check("etcd://a:1", "/", Err("prefix"));
        check("etcd://a:1", "a\nb", Err("prefix"));
        let files = EtcdFiles { cert: Some("cert.pem".into()), ..EtcdFiles::default() };
        let told = EtcdOptions::new("etcd://a:1", &files, "/limpet", "w").expect_err("no CA");
        assert!(told.contains("--etcd-cafile"), "{told}");
        let files = EtcdFiles { ca: Some("/nowhere/ca.pem".into()), ..EtcdFiles::default() };
        let told = EtcdOptions::new("etcd://a:1", &files, "/limpet", "w").expect_err("no file");
        assert!(told.contains("/nowhere/ca.pem"), "{told}");
        assert!(EtcdOptions::new("etcd://a:1", &EtcdFiles::default(), "/limpet", "a/b").is_err());
    }
}
