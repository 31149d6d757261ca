//! The operator's kubeconfig.
//!
//! In: cluster name, server URL, CA and client certificate. Out: YAML text with everything embedded.
//! Never: a reference to another file, so that the file can be copied to another machine as it is.

use super::Issued;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Where the hub is and its CA, without a user: what everybody may know.
pub fn cluster_info(server: &str, ca_pem: &str) -> String {
    let (ca, server) = (STANDARD.encode(ca_pem), serde_json::Value::String(server.into()));
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  \
         name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    )
}

pub(super) fn render(cluster: &str, server: &str, ca_pem: &str, admin: &Issued) -> String {
    let (ca, cert, key) = (
        STANDARD.encode(ca_pem),
        STANDARD.encode(&admin.certificate_pem),
        STANDARD.encode(&admin.key_pem),
    );
    let text = |s: &str| serde_json::Value::String(s.into()).to_string();
    let (cluster, server, user) = (text(cluster), text(server), text(&format!("{cluster}-admin")));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    \
         client-key-data: {key}\ncontexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    \
         user: {user}\ncurrent-context: {cluster}\n"
    )
}
