//! MQTT in a WebSocket: a board's link where only HTTPS gets out.
//!
//! In: an upgrade from a client with a certificate. Out: its bytes, to the broker and back. Source: MQTT 3.1.1, section 6.
//! Never: serves a client without a certificate; looks into the bytes.

use super::{
    upgrade::{Offer, Pending, Speaks, Transport, negotiate},
    wire::{self, WireReader, WireWriter},
};
use crate::{
    api::{Body, Reply},
    auth::Peer,
};
use bytes::Bytes;
use http::request::Parts;
use limpet_broker::Broker;
use limpet_objects::status::Status;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const SPEAKS: Speaks = Speaks { websocket: &["mqtt"], spdy: &[] };
/// Between the WebSocket and the broker, in each direction.
const BUFFER_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;

pub fn serve(broker: Broker, peer: &Peer, mut parts: Parts) -> Result<Reply, Status> {
    let Some(address) = peer.address.filter(|_| !peer.certificate.is_empty()) else {
        return Err(Status::unauthorized());
    };
    let offer: Offer = negotiate(&mut parts, &SPEAKS)?;
    if offer.transport != Transport::WebSocket {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let (response, pending) = offer.accept();
    tokio::spawn(bridge(broker, peer.certificate.clone(), address, pending));
    Ok(response.map(|()| Body::empty()))
}

async fn bridge(broker: Broker, certificate: Vec<u8>, address: SocketAddr, pending: Pending) {
    let Some(io) = pending.connection().await else { return };
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    let (reader, writer) = wire::Wire::Tunnel(Box::new(wire::socket(io).await)).split();
    let (far_read, far_write) = tokio::io::split(far);
    tokio::select! {
        () = broker.attach(Box::new(near), certificate, address) => {}
        () = inward(reader, far_write) => {}
        () = outward(far_read, writer) => {}
    }
}

async fn inward(mut reader: WireReader, mut to: tokio::io::WriteHalf<DuplexStream>) {
    while let Some(bytes) = reader.read().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn outward(mut from: tokio::io::ReadHalf<DuplexStream>, mut writer: WireWriter) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if writer.write(Bytes::copy_from_slice(&chunk[..n])).await.is_err() {
            return;
        }
    }
}
