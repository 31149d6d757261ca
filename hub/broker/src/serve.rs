//! Accepting connections.
//!
//! In: a listener. Out: one task a connection, and the hub's inbox.
//! Never: lets strangers use more than a fixed number of places or more than a fixed time.

use crate::{Broker, FromNode, Gate, connection, limits};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

/// How the broker is set up.
pub struct BrokerOptions {
    /// Must require client certificates of the hub's CA.
    pub tls: Arc<rustls::ServerConfig>,
    /// One message, in bytes.
    pub message_bytes_max: usize,
}

/// Starts to serve; the tasks end with the process or when the receiver is dropped. Without a listener nodes come by other doors
/// (`Broker::attach`, `Broker::meet_at`).
pub fn serve(
    listener: Option<TcpListener>,
    options: BrokerOptions,
    gate: Arc<dyn Gate>,
) -> (Broker, mpsc::Receiver<FromNode>) {
    let (inbox, receiver) = mpsc::channel(limits::INBOX_MESSAGES);
    let broker = Broker::new(options.tls);
    let setting = connection::Setting {
        broker: broker.clone(),
        gate,
        inbox,
        strangers: Arc::new(Semaphore::new(limits::UNAUTHENTICATED_MAX)),
        all: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
        message_bytes_max: options.message_bytes_max,
    };
    let setting = Arc::new(setting);
    let _ = broker.shared.setting.set(Arc::downgrade(&setting));
    match listener {
        Some(listener) => drop(tokio::spawn(accept(listener, setting))),
        None => drop(tokio::spawn(hold(setting))),
    }
    (broker, receiver)
}

/// What other doors need is there until the hub is not.
async fn hold(setting: Arc<connection::Setting>) {
    setting.inbox.closed().await;
}

async fn accept(listener: TcpListener, setting: Arc<connection::Setting>) {
    loop {
        let (Ok(stranger), Ok(place)) =
            (setting.strangers.clone().acquire_owned().await, setting.all.clone().acquire_owned().await)
        else {
            return;
        };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let setting = setting.clone();
                tokio::spawn(async move {
                    connection::run(socket, peer, &setting, stranger).await;
                    drop(place);
                });
            }
            Err(e) => {
                // Out of file descriptors or memory: others must be able to end meanwhile.
                tracing::warn!("MQTT: cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        if setting.inbox.is_closed() {
            return;
        }
    }
}
