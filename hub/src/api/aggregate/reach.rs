//! The way to another server, and the proof that it is the hub that comes.
//!
//! In: an APIService's Service. Out: an encrypted stream to it. A Service of pods is reached through the link to the node of
//! one of them; an ExternalName from the hub's own network. The hub's certificate is of an authority of its own, which
//! `kube-system/extension-apiserver-authentication` names.
//! Never: sends anything to a server that `caBundle` does not vouch for, unless the object says that nobody need.

use super::Remote;
use crate::{
    api::{Api, proxy},
    streaming,
    webhook::tls::{self, Own},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// The hub's own certificate for other servers.
pub struct Identity {
    pub own: Own,
    /// PEM of the authority that signed it.
    pub ca_pem: String,
    /// PEM of the authority of the cluster's clients.
    pub client_ca_pem: String,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Stream = Box<dyn Io>;

pub async fn connect(api: &Api, remote: &Remote) -> Result<Stream, String> {
    let plain = dial(api, remote).await?;
    let own = api.aggregate.identity().map(|i| &i.own);
    if remote.insecure {
        let stream = proxy::trust_anyone(plain, own).await.map_err(|e| e.to_string())?;
        return Ok(Box::new(stream));
    }
    let pem = BASE64_STANDARD.decode(&remote.ca_bundle).map_err(|e| format!("caBundle: {e}"))?;
    let roots = tls::roots(&pem).map_err(|e| format!("caBundle: {e}"))?;
    if roots.is_empty() {
        return Err("x509: certificate signed by unknown authority (caBundle is empty, and this hub trusts nobody else)".into());
    }
    let name = ServerName::try_from(format!("{}.{}.svc", remote.service, remote.namespace)).map_err(|e| e.to_string())?;
    let stream = tls::connector(roots, own)?.connect(name, plain).await.map_err(|e| e.to_string())?;
    Ok(Box::new(stream))
}

async fn dial(api: &Api, remote: &Remote) -> Result<Stream, String> {
    if let Some(host) = external_name(api, remote) {
        let stream = TcpStream::connect((host.as_str(), remote.port)).await;
        return Ok(Box::new(stream.map_err(|e| format!("dial tcp {host}:{}: {e}", remote.port))?));
    }
    let route = proxy::service_route(api, &remote.namespace, &remote.service, remote.port).map_err(|s| s.message)?;
    let streams = crate::api::subresources::streams(api).map_err(|s| s.message)?;
    let stream = streaming::dial(&route.place, route.port, &streams).await.map_err(|e| e.to_string())?;
    Ok(Box::new(stream))
}

/// Where a Service without pods of its own leads.
fn external_name(api: &Api, remote: &Remote) -> Option<String> {
    let service = service(api, remote)?;
    let name = service["spec"]["externalName"].as_str().filter(|_| service["spec"]["type"] == "ExternalName")?;
    Some(name.trim_end_matches('.').to_owned())
}

pub fn service(api: &Api, remote: &Remote) -> Option<Value> {
    let record = api.store.get(&limpet_store::Key::new("/services", &remote.namespace, &remote.service))?;
    serde_json::from_slice(&record.bytes).ok()
}
