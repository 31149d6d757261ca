//! The HTTPS server: connections in, requests to `dispatch`, a graceful end.
//!
//! In: a listener, TLS settings (a channel, so that a renewed certificate needs no restart), the API's state.
//! Out: answers over HTTP/1.1 (with upgrades) and HTTP/2. Every bound is in `limits`.
//! Never: more connections than the limit; new ones wait in the kernel's queue.

use super::{Api, bootstrap, dispatch, limits, stall::Stalling, tls};
use crate::{auth::Peer, relay};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Serves until the hub stops; then gives open requests `limits::SHUTDOWN_TIME`.
pub async fn serve(api: Arc<Api>, listener: TcpListener, tls: watch::Receiver<Arc<ServerConfig>>) {
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let crowd = Crowd::default();
    tokio::spawn(bootstrap::keep(Arc::clone(&api)));
    tokio::spawn(bootstrap::note_uses(Arc::clone(&api)));
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stopped() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, address)) => {
                let Some(place) = crowd.enter(address.ip()) else { continue };
                let acceptor = TlsAcceptor::from(tls.borrow().clone());
                let api = Arc::clone(&api);
                connections.spawn(async move {
                    connection(api, acceptor, socket, address).await;
                    drop((seat, place));
                });
            }
            // Out of file descriptors, or a connection that died in the queue: let others go on.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits::SHUTDOWN_TIME, all).await.is_err() {
        tracing::info!("some requests did not end in time and are cut off");
    }
}

/// Connections by address, so that one cannot take all seats.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; given back when dropped.
struct Place(Crowd, IpAddr);

impl Crowd {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the address has too many connections already.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= limits::CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

async fn connection(api: Arc<Api>, acceptor: TlsAcceptor, socket: TcpStream, address: SocketAddr) {
    // In boxes, here and below: what a handshake or a request needs is given back after it, a connection lasts.
    let (stream, peer) = match Box::pin(tls::accept(&api.guard.authn, &acceptor, socket, address)).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
    };
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec).unwrap_or_default();
    if protocol == relay::ALPN.as_bytes() {
        if let Some(doors) = api.doors.get() {
            tokio::select! {
                () = doors.for_hubs.serve(stream, &peer.certificate) => {}
                () = api.stopped() => {}
            }
        }
        return;
    }
    if protocol == b"mqtt" {
        // One port for everything: a board's link, where only this one is open.
        if let Some(doors) = api.doors.get() {
            let broker = doors.broker.clone();
            tokio::select! {
                () = broker.attach(Box::new(stream), peer.certificate, address) => {}
                () = api.stopped() => {}
            }
        }
        return;
    }
    let peer: Arc<Peer> = Arc::new(peer);
    let handler = {
        let api = Arc::clone(&api);
        service_fn(move |request| {
            let (api, peer) = (Arc::clone(&api), Arc::clone(&peer));
            // The connection keeps room for this future while it is idle, too.
            async move { Ok::<_, Infallible>(Box::pin(dispatch::answer(api, peer, request)).await) }
        })
    };
    let builder = builder();
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(Stalling::new(stream)), handler));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = api.stopped() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error, "connection ended");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADERS_TIME)
        .max_buf_size(limits::HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(limits::HEADER_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS_MAX)
        .max_send_buf_size(limits::CHUNK_BYTES)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits::KEEP_ALIVE_EVERY)
        .keep_alive_timeout(limits::KEEP_ALIVE_TIME);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_seats() {
        let (crowd, address) = (Crowd::default(), IpAddr::from([192, 0, 2, 1]));
        let mut places: Vec<_> =
            (0..limits::CONNECTIONS_PER_ADDRESS_MAX).filter_map(|_| crowd.enter(address)).collect();
        assert_eq!(places.len(), limits::CONNECTIONS_PER_ADDRESS_MAX);
        assert!(crowd.enter(address).is_none());
        assert!(crowd.enter(IpAddr::from([192, 0, 2, 2])).is_some());
        places.pop();
        assert!(crowd.enter(address).is_some());
        drop(places);
        assert!(crowd.counts().is_empty());
    }
}
