//! A broker that is not ours: hub and nodes meet there, and what they say is sealed.
//!
//! In: where it is, this hub's key, who the nodes are, whether this hub leads. Out: the same `FromNode`s and the same
//! `Broker::send` as with connections of our own; each session of a node is one connection.
//! Never: trusts the broker with more than transport: who may publish there as whom changes nothing.

mod carry;
mod client;
mod desk;
mod refused;

pub use refused::Refused;

use crate::{Broker, connection::Setting};
use std::{sync::Arc, sync::Weak, time::Duration};
use tokio::sync::watch;

/// Wait between attempts to reach the broker: doubling from the first to the last.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_LAST: Duration = Duration::from_secs(30);

/// Who nodes are, where no TLS of ours says it.
pub trait Office: Send + Sync + 'static {
    /// Whether there is such a node. Asked for packets of strangers, so it has to be quick.
    fn knows(&self, node: &str) -> bool;
    /// All nodes that have joined.
    fn nodes(&self) -> Vec<String>;
    /// Whether the holder of this key, proven for this session, is the node; otherwise a sentence for it and for the log.
    fn admit(&self, node: &str, key: &limpet_sealed::Point, hardware: &str) -> Result<(), String>;
    /// Answers a node that asks for a new certificate (JSON both ways, `limpet-protocol::join`).
    fn renew(&self, node: &str, ask: &[u8]) -> Vec<u8>;
}

/// PKCS#8 of the hub's key, and DER of its certificate.
pub type Papers = (Vec<u8>, Vec<u8>);

/// The broker and this hub's way in.
pub struct ExternalOptions {
    /// Host and port, in order of preference.
    pub addresses: Vec<(String, u16)>,
    /// Made anew for each attempt: certificates end.
    pub tls: Box<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>,
    pub username: Option<String>,
    pub password: Option<String>,
    /// Asked once a connection to the broker, so that a renewed certificate comes in.
    pub papers: Box<dyn Fn() -> Result<Papers, String> + Send + Sync>,
    pub office: Arc<dyn Office>,
}

impl Broker {
    /// Meets nodes at an external broker, too, while `active` says that this hub is the one to do so.
    pub fn meet_at(&self, options: ExternalOptions, active: watch::Receiver<bool>) {
        if let Some(setting) = self.shared.setting.get().and_then(Weak::upgrade) {
            tokio::spawn(run(options, setting, active));
        }
    }

    /// Tells the nodes at a broker where this hub does not meet them any more. Those that cannot be told find out by themselves,
    /// since their signs of life are not answered.
    pub fn leave(&self, options: ExternalOptions) {
        let Some(setting) = self.shared.setting.get().and_then(Weak::upgrade) else { return };
        tokio::spawn(async move {
            for at in &options.addresses {
                match client::leave(at, &options, &setting).await {
                    Ok(()) => {
                        tracing::info!("the boards at the broker {}:{} were told that the hub has left it", at.0, at.1);
                        return;
                    }
                    Err(why) => tracing::info!("the broker {}:{}, where the hub was before: {why}", at.0, at.1),
                }
            }
        });
    }

    /// Packets by way of external brokers that were refused, by reason.
    pub fn refused(&self) -> &Refused {
        &self.shared.refused
    }
}

async fn run(options: ExternalOptions, setting: Arc<Setting>, mut active: watch::Receiver<bool>) {
    let (mut wait, mut turn) = (WAIT_FIRST, 0);
    let mut silent = false;
    while active.wait_for(|a| *a).await.is_ok() && !setting.inbox.is_closed() {
        let at = &options.addresses[turn % options.addresses.len().max(1)];
        turn += 1;
        let ended = tokio::select! {
            ended = client::visit(at, &options, &setting) => ended,
            _ = active.wait_for(|a| !*a) => continue,
        };
        let (host, port) = at;
        match ended {
            client::Ended::Met(why) => {
                tracing::warn!("the broker {host}:{port} is gone, and with it all nodes: {why}");
                (wait, silent) = (WAIT_FIRST, false);
            }
            // One line an outage and not one a second.
            client::Ended::NotMet(why) if !silent => {
                tracing::warn!("the broker {host}:{port} does not let this hub in: {why}; trying on");
                silent = true;
            }
            client::Ended::NotMet(why) => tracing::debug!("the broker {host}:{port}: {why}"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_LAST);
    }
}
