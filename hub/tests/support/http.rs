//! A client that keeps its connection, for tests of many requests.
//!
//! In: a cluster. Out: answers with head and body. Never: follows, retries, or hides a broken connection.
#![allow(dead_code, clippy::unwrap_used)]

use bytes::Bytes;
use http::{Request, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// An answer that takes longer than this on any machine is one that does not come.
const ANSWER_TIME: Duration = Duration::from_secs(60);

pub struct Keeping {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Keeping {
    /// As the operator; `dir` is the cluster's folder, `url` its address.
    pub async fn open(dir: &Path, url: &str) -> Keeping {
        let (tls, host) = connect(dir, url, "http/1.1").await;
        let (sender, connection) = handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Keeping { sender, host }
    }

    /// The head and the whole body; the error is a connection that broke.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<(Parts, Bytes), String> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|e| format!("not a request: {e}"))?;
        let answer = async {
            let (parts, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>((parts, body))
        };
        let answer = tokio::time::timeout(ANSWER_TIME, answer).await.map_err(|_| "no answer".to_owned())?;
        answer.map_err(|e| format!("the connection broke: {e}"))
    }

    /// Whether the connection takes another request; the server may close it after an early answer.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

/// A TLS connection of the operator's, with one protocol, and the host it leads to.
pub async fn connect(dir: &Path, url: &str, protocol: &str) -> (TlsStream<TcpStream>, String) {
    let host = url.trim_start_matches("https://").to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("pki/ca.crt")).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(dir.join("pki/admin.crt")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("pki/admin.key")).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tcp = TcpStream::connect(&host).await.unwrap();
    (tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap(), host)
}
