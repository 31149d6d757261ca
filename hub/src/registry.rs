//! The hub's image registry on its own port.
//!
//! In: the listener and TLS settings. Out: the OCI distribution API, served by `limpet-registry`.
//! Never: decides who may push; that is said here in one place.

use crate::{enroll::Enroll, hub::HubOptions};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};

pub(crate) fn start(
    _options: &HubOptions,
    listener: TcpListener,
    _tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    _enroll: Arc<Enroll>,
) {
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
}
