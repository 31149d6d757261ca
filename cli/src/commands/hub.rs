//! `limpet hub`: runs the hub in the foreground.
//!
//! In: where to keep files and to listen. Out: the log on stderr. Never: detaches; that is the service manager's work.

use super::Outcome;
use crate::logging;
use limpet_hub::HubOptions;
use std::{net::SocketAddr, path::PathBuf};

/// Run a hub: Kubernetes API, controllers, MQTT for the boards, image registry.
///
/// The first start makes the certificates and DIR/admin.kubeconfig. SIGTERM or Ctrl-C ends it; nothing that was
/// acknowledged is lost, not even by kill -9.
#[derive(clap::Args)]
pub struct Args {
    /// Where the hub keeps its state; made when missing
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR")]
    data_dir: PathBuf,
    /// Where the Kubernetes API listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    api_listen: SocketAddr,
    /// Where boards connect (MQTT over TLS)
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8883")]
    mqtt_listen: SocketAddr,
    /// Where the image registry listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:5000")]
    registry_listen: SocketAddr,
    /// Name or address under which boards and operators reach this hub; may be repeated, the best first
    /// [default: this machine's addresses]
    #[arg(long, value_name = "NAME")]
    advertise_host: Vec<String>,
    /// Name of the cluster in kubeconfig files
    #[arg(long, value_name = "NAME", default_value = "limpet")]
    cluster_name: String,
    /// What to log, as tracing's filter: error, warn, info, debug, or limpet_hub=debug,info
    #[arg(long, value_name = "FILTER", default_value = "info", env = "LIMPET_LOG")]
    log: String,
}

pub fn run(args: Args) -> Outcome {
    logging::start(&args.log)?;
    let options = HubOptions {
        data_dir: args.data_dir,
        api_listen: args.api_listen,
        mqtt_listen: args.mqtt_listen,
        registry_listen: args.registry_listen,
        advertise_hosts: args.advertise_host,
        cluster_name: args.cluster_name,
    };
    limpet_hub::run(options).map_err(|e| e.to_string())
}
