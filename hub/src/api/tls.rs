//! TLS of the API's door.
//!
//! In: an accepted socket and the hub's TLS settings. Out: an encrypted connection and who is at its other
//! end.
//! Never: waits longer than `limits::HANDSHAKE_TIME`.

use super::limits;
use crate::auth::{Authenticators, Peer, x509};
use jiff::Timestamp;
use std::{io, net::SocketAddr};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub async fn accept(
    authn: &Authenticators,
    acceptor: &TlsAcceptor,
    socket: TcpStream,
    address: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    socket.set_nodelay(true)?;
    let stream = tokio::time::timeout(limits::HANDSHAKE_TIME, acceptor.accept(socket))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))??;
    let certificates = stream.get_ref().1.peer_certificates();
    let leaf = certificates.and_then(|c| c.first()).map(|c| c.to_vec()).unwrap_or_default();
    // A front proxy is let in by TLS, too; its certificate makes it nobody.
    let (certificate, front) = authn.told_apart(leaf, Timestamp::now());
    let user = x509::user(&certificate);
    Ok((stream, Peer { user, certificate, front, address: Some(address) }))
}
