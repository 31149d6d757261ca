//! `limpet hub`.
//!
//! In: where to listen and where to keep things. Out: a running hub until SIGTERM or Ctrl-C.
//! Never: anything but reading the command line and starting the library.

use limpet_hub::hub::HubOptions;
use std::{net::SocketAddr, path::PathBuf};

#[derive(clap::Args)]
#[command(after_help = "The first start makes the keys and DIR/admin.kubeconfig:\n  \
                        export KUBECONFIG=DIR/admin.kubeconfig; kubectl get nodes\n\n\
                        Set LIMPET_LOG=debug for more words.")]
pub struct Args {
    /// Where everything is kept: objects, keys, images, admin.kubeconfig
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Kubernetes API (HTTPS)
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    api_listen: SocketAddr,
    /// MQTT over TLS, for agents
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8883")]
    mqtt_listen: SocketAddr,
    /// Image registry (HTTPS)
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:5000")]
    registry_listen: SocketAddr,
    /// Name or address under which boards and kubectl reach this hub; repeat for more, the first is preferred
    #[arg(long = "advertise-host", value_name = "NAME")]
    advertise_hosts: Vec<String>,
    /// Name of the cluster in kubeconfig
    #[arg(long, value_name = "NAME", default_value = "limpet")]
    cluster_name: String,
}

pub fn run(args: Args) -> Result<(), String> {
    let filter = std::env::var("LIMPET_LOG").unwrap_or_else(|_| "info".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|e| format!("LIMPET_LOG={filter}: {e}; write for example info or debug"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = HubOptions {
        data_dir: args.data_dir,
        api_listen: args.api_listen,
        mqtt_listen: args.mqtt_listen,
        registry_listen: args.registry_listen,
        advertise_hosts: args.advertise_hosts,
        cluster_name: args.cluster_name,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(limpet_hub::hub::run(options)).map_err(|e| e.to_string())
}
