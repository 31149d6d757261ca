//! One HTTPS request to the hub with the operator's certificate.
//!
//! In: method, path and a JSON body. Out: status and JSON, or that nobody listens.
//! Never: follows redirects, retries, or reads more than a bound.

use crate::kubeconfig::Access;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub enum Failure {
    /// Nothing listens there: the hub does not run.
    NotRunning,
    Other(String),
}

/// The hub's answer; an error status becomes its message.
pub fn request(access: &Access, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let other = |what: &str, e: &dyn std::fmt::Display| Failure::Other(format!("{what} {}: {e}", access.server));
    let tls = tls(access).map_err(Failure::Other)?;
    let address = access.server.to_socket_addrs().map_err(|e| other("cannot resolve", &e))?.next();
    let address = address.ok_or_else(|| other("cannot resolve", &"no address"))?;
    let socket = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => Failure::NotRunning,
        _ => other("cannot connect to", &e),
    })?;
    let timeouts = socket.set_read_timeout(Some(PATIENCE)).and(socket.set_write_timeout(Some(PATIENCE)));
    timeouts.map_err(|e| other("cannot talk to", &e))?;
    let host = access.server.rsplit_once(':').map_or(access.server.as_str(), |(h, _)| h);
    let host = host.trim_matches(['[', ']']).to_string();
    let name = ServerName::try_from(host).map_err(|e| other("not a host name:", &e))?;
    let connection = ClientConnection::new(Arc::new(tls), name).map_err(|e| other("TLS with", &e))?;
    let mut stream = StreamOwned::new(connection, socket);
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        access.server,
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()))
        .map_err(|e| other("cannot send to", &e))?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(other("no answer from", &e)),
        _ => {}
    }
    parse(&answer).map_err(|e| other("cannot read the answer of", &e))?.map_err(Failure::Other)
}

fn tls(access: &Access) -> Result<ClientConfig, String> {
    let text = |e: &dyn std::fmt::Display| format!("admin.kubeconfig is not usable: {e}");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&access.ca_pem).map_err(|e| text(&e))?).map_err(|e| text(&e))?;
    let certificate = CertificateDer::from_pem_slice(&access.certificate_pem).map_err(|e| text(&e))?;
    let key = PrivateKeyDer::from_pem_slice(&access.key_pem).map_err(|e| text(&e))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| text(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|e| text(&e))
}

/// Splits a whole HTTP/1.1 answer; the inner error is the hub's own message.
fn parse(answer: &[u8]) -> Result<Result<Value, String>, String> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("it has no header")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("it has no status")?;
    let raw = &answer[end + 4..];
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunk(raw).ok_or("its chunks are broken")?,
        false => raw.to_vec(),
    };
    let value: Value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body).map_err(|e| format!("not JSON: {e}"))?,
    };
    match status {
        200..300 => Ok(Ok(value)),
        _ => {
            let message = value["message"].as_str().unwrap_or("no reason given");
            Ok(Err(format!("the hub refused ({status}): {message}")))
        }
    }
}

fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = raw.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&raw[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        raw = &raw[line + 2..];
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(raw.get(..size)?);
        raw = raw.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let plain = b"HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(plain), Ok(Ok(serde_json::json!({"a": 1}))));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Ok(Ok(serde_json::json!({"a": 1}))));
        let refused = b"HTTP/1.1 403 Forbidden\r\n\r\n{\"message\":\"no\"}";
        assert_eq!(parse(refused), Ok(Err("the hub refused (403): no".into())));
        for broken in [&b""[..], b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"] {
            assert!(parse(broken).is_err());
        }
    }
}
