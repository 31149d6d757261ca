//! A small HTTPS client for the hub of this machine.
//!
//! In: `admin.kubeconfig`. Out: one request, one answer. Bounds: ten seconds, a few megabytes.
//! Never: trusts another CA than the one in the kubeconfig.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpStream;

const TIME: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One connection a request; good enough for commands and tests.
#[derive(Clone)]
pub struct Client {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Client {
    pub fn from_kubeconfig(path: &Path) -> Result<Client, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let config: Value =
            serde_saphyr::from_str(&text).map_err(|e| format!("{} is not YAML: {e}", path.display()))?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let pem = |value: &Value| -> Option<Vec<u8>> { STANDARD.decode(value.as_str()?).ok() };
        let broken = || format!("{} lacks a server, a CA or a client certificate", path.display());
        let uri: http::Uri = cluster["server"].as_str().and_then(|s| s.parse().ok()).ok_or_else(broken)?;
        let ca = pem(&cluster["certificate-authority-data"]).ok_or_else(broken)?;
        let cert = pem(&user["client-certificate-data"]).ok_or_else(broken)?;
        let key = pem(&user["client-key-data"]).ok_or_else(broken)?;
        let tls = tls(&ca, &cert, &key).map_err(|e| format!("{}: {e}", path.display()))?;
        let host = uri.host().ok_or_else(broken)?.trim_matches(['[', ']']).to_string();
        Ok(Client { host, port: uri.port_u16().unwrap_or(443), tls: Arc::new(tls) })
    }

    /// The same credentials at another port of the same host.
    pub fn at_port(&self, port: u16) -> Client {
        Client { port, ..self.clone() }
    }

    /// Status code and body of one exchange.
    pub async fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<(u16, Bytes), String> {
        match tokio::time::timeout(TIME, self.exchange(method, path, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer from {}:{} within {} s", self.host, self.port, TIME.as_secs())),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<(u16, Bytes), String> {
        self.connect().await?.request(method, path, "application/json", body).await
    }

    /// Each line of an answer as it comes, for as long as it takes. Another status than 200: that, and its body.
    pub async fn lines(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<Option<(u16, Bytes)>, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{}:{}: {e}", self.host, self.port);
        let mut connection = self.connect().await?;
        let request = connection.compose("GET", path, "application/json", None)?;
        let answer = connection.sender.send_request(request).await.map_err(|e| wrong(&e))?;
        let code = answer.status().as_u16();
        let mut body = answer.into_body();
        if code != 200 {
            let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| wrong(&e))?;
            return Ok(Some((code, bytes.to_bytes())));
        }
        let mut waiting = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|e| wrong(&e))?.into_data() else { continue };
            waiting.extend_from_slice(&data);
            let Some(end) = waiting.iter().rposition(|b| *b == b'\n') else {
                if waiting.len() > ANSWER_BYTES_MAX {
                    return Err(wrong(&"a line without end"));
                }
                continue;
            };
            let rest = waiting.split_off(end + 1);
            for line in waiting.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                if !take(&String::from_utf8_lossy(line)) {
                    return Ok(None);
                }
            }
            waiting = rest;
        }
        Ok(None)
    }

    /// A connection for many requests, one after the other.
    pub async fn connect(&self) -> Result<Connection, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{}:{}: {e}", self.host, self.port);
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| wrong(&e))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| wrong(&e))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, socket).await.map_err(|e| wrong(&e))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| wrong(&e))?;
        let task = tokio::spawn(async move {
            // What goes wrong here is seen by whoever sends.
            let _ = connection.await;
        });
        Ok(Connection { host: format!("{}:{}", self.host, self.port), sender, task })
    }
}

/// An open connection; it closes when it is dropped.
pub struct Connection {
    host: String,
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Status code and body of one exchange.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(u16, Bytes), String> {
        let host = self.host.clone();
        let wrong = |e: &dyn std::fmt::Display| format!("{host}: {e}");
        let request = self.compose(method, path, content_type, body)?;
        // The answer before may have been read a moment earlier than the connection noticed.
        self.sender.ready().await.map_err(|e| wrong(&e))?;
        let answer = self.sender.send_request(request).await.map_err(|e| wrong(&e))?;
        let code = answer.status().as_u16();
        let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| wrong(&e))?;
        Ok((code, bytes.to_bytes()))
    }
}

impl Connection {
    fn compose(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, String> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.host)
            .header(http::header::USER_AGENT, "limpet")
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| format!("{}: {e}", self.host))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tls(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca) {
        roots.add(ca.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| e.to_string())?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map_err(|e| e.to_string())?, key)
        .map_err(|e| e.to_string())
}
