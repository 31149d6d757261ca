//! What the CLI needs of `DIR/admin.kubeconfig`, which the hub wrote.
//!
//! In: the file. Out: server, CA, client certificate and key.
//! Never: contexts, exec plugins or files beside it: it is our own file, of one shape.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::Path;

pub struct Access {
    /// `host:port`
    pub server: String,
    pub ca_pem: Vec<u8>,
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

pub fn read(data_dir: &Path) -> Result<Access, String> {
    let path = data_dir.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        format!("cannot read {}: {e}; start the hub once with this --data-dir, it makes the file", path.display())
    })?;
    let value = |key: &str| {
        text.lines()
            .find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(':'))
            .map(|v| v.trim().trim_matches('"').to_string())
            .ok_or_else(|| format!("{} has no {key}; remove it and restart the hub", path.display()))
    };
    let decoded = |key: &str| {
        let text = value(key)?;
        STANDARD.decode(text).map_err(|e| format!("{}: {key} is not base64: {e}", path.display()))
    };
    let server = value("server")?;
    let server = server.strip_prefix("https://").unwrap_or(&server).trim_end_matches('/').to_string();
    Ok(Access {
        server,
        ca_pem: decoded("certificate-authority-data")?,
        certificate_pem: decoded("client-certificate-data")?,
        key_pem: decoded("client-key-data")?,
    })
}
