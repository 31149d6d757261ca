//! The flags of an external broker.
//!
//! In: words of the command line, and what the last start of this data directory said. Out: `BrokerSettings`.
//! Never: a password on the command line, where everybody reads it.

use limpet_hub::BrokerSettings;
use std::path::{Path, PathBuf};

/// Instead of an address: the broker inside the hub.
const NONE: &str = "none";

#[derive(clap::Args)]
#[command(next_help_heading = "External broker (docs/guides/external-broker.md)")]
pub struct BrokerFlags {
    /// Meet the boards at this MQTT broker instead of listening for them: mqtts://HOST:PORT[,HOST:PORT…]
    ///
    /// What goes by way of it is sealed: the broker can neither read nor forge it. A later start without this flag goes on
    /// at the same broker; `--broker none` ends that.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Where boards reach the broker, when they know it under another name: HOST:PORT or wss://HOST/PATH; may be repeated
    #[arg(long, value_name = "ADDRESS", requires = "broker")]
    broker_advertise: Vec<String>,
    /// CA of the broker's certificate [default: the hub's own]
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_cafile: Option<PathBuf>,
    /// This hub's certificate for the broker [default: one of the hub's own CA, for system:limpet-hub]
    #[arg(long, value_name = "FILE", requires = "broker", requires = "broker_keyfile")]
    broker_certfile: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "broker_certfile")]
    broker_keyfile: Option<PathBuf>,
    /// This hub's user name, where the broker does not take it from certificates
    #[arg(long, value_name = "NAME", requires = "broker")]
    broker_username: Option<String>,
    /// File with the password of that user
    #[arg(long, value_name = "FILE", requires = "broker_username")]
    broker_password_file: Option<PathBuf>,
    /// User name of all boards, where the broker does not take it from certificates
    #[arg(long, value_name = "NAME", requires = "broker")]
    broker_node_username: Option<String>,
    /// File with the password of that user; boards get it when they join
    #[arg(long, value_name = "FILE", requires = "broker_node_username")]
    broker_node_password_file: Option<PathBuf>,
}

impl BrokerFlags {
    /// Boards that know only the broker would wait in vain for a hub that was started without its flags.
    pub fn settings(self, data_dir: &Path) -> Option<BrokerSettings> {
        let Some(url) = self.broker else {
            let known = limpet_hub::remembered_broker(data_dir)?;
            tracing::info!(
                "hub and boards meet at {} as at the last start; `--broker none` lets boards connect to this hub instead",
                known.url
            );
            return Some(known);
        };
        if url == NONE {
            return None;
        }
        Some(BrokerSettings {
            url,
            advertise: self.broker_advertise,
            ca: self.broker_cafile,
            certificate: self.broker_certfile.zip(self.broker_keyfile),
            username: self.broker_username,
            password_file: self.broker_password_file,
            node_username: self.broker_node_username,
            node_password_file: self.broker_node_password_file,
        })
    }
}
