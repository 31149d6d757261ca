//! `limpet hub`: runs the hub in the foreground; its subcommands look after the hub's data.
//!
//! In: where to keep files and to listen. Out: the log on stderr; snapshots. Never: detaches; that is the service manager's work.

mod broker;
mod guard;

use super::{Dir, Outcome};
use crate::logging;
use clap::Subcommand;
use limpet_hub::{EtcdFiles, EtcdSettings, HubOptions, PodRanges, operate};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

const MQTT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8883);

/// Run a hub: Kubernetes API, controllers, MQTT for the boards, image registry.
///
/// The first start makes the certificates and DIR/admin.kubeconfig. SIGTERM or Ctrl-C ends it; nothing that was
/// acknowledged is lost, not even by kill -9.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Box<Serve>,
}

#[derive(Subcommand)]
enum Command {
    /// Write everything but the registry's images to one file, also while the hub runs
    ///
    /// The file holds the cluster's keys: keep it where only operators read it.
    Snapshot {
        /// The file to write; replaced when it is there
        file: PathBuf,
        #[command(flatten)]
        dir: Dir,
    },
    /// Make a data directory from a snapshot; then start `limpet hub` on it
    Restore {
        /// A file that `limpet hub snapshot` wrote
        file: PathBuf,
        #[command(flatten)]
        dir: Dir,
    },
    /// Seal Secrets on disk with a new key, also while the hub runs
    RotateKey {
        #[command(flatten)]
        dir: Dir,
    },
}

#[derive(clap::Args)]
struct Serve {
    /// Where the hub keeps its state; made when missing
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the Kubernetes API listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    api_listen: SocketAddr,
    /// Where boards connect (MQTT over TLS) [default: 0.0.0.0:8883; with --broker: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt_listen: Option<SocketAddr>,
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
    /// How to schedule: a file with a KubeSchedulerConfiguration (profiles, weights, strategies)
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    #[command(flatten)]
    broker: Box<broker::BrokerFlags>,
    #[command(flatten)]
    guard: Box<guard::Flags>,
    /// Where boards get their ranges of pod addresses from: one IPv4 range, one IPv6 range or both
    /// [default: 10.42.0.0/16, then 10.128.0.0/9]
    #[arg(long, value_name = "CIDR[,CIDR]")]
    cluster_cidr: Option<String>,
    /// Size of a board's IPv4 range
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    node_cidr_mask_size_ipv4: u8,
    /// Size of a board's IPv6 range
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    node_cidr_mask_size_ipv6: u8,
    /// Keep the objects in an etcd that several hubs share, instead of DIR: etcd://HOST:PORT[,HOST:PORT…]
    ///
    /// A further hub needs pki/ and store.keys of the first one in its own DIR before its first start.
    #[arg(long, value_name = "URL", env = "LIMPET_STORE")]
    store: Option<String>,
    /// CA of etcd's certificate; without it the connection is not encrypted
    #[arg(long, value_name = "FILE", requires = "store")]
    etcd_cafile: Option<PathBuf>,
    /// This hub's certificate for etcd
    #[arg(long, value_name = "FILE", requires = "store")]
    etcd_certfile: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "store")]
    etcd_keyfile: Option<PathBuf>,
    /// The keys in etcd begin with this
    #[arg(long, value_name = "PREFIX", default_value = "/limpet")]
    etcd_prefix: String,
    /// Let etcd forget what is older than this many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    etcd_compaction_interval: u64,
    /// What to log, as tracing's filter: error, warn, info, debug, or limpet_hub=debug,info
    #[arg(long, value_name = "FILTER", default_value = "info", env = "LIMPET_LOG")]
    log: String,
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        None => serve(*args.serve),
        Some(Command::Snapshot { file, dir }) => {
            let revision = operate::snapshot::snapshot(&dir.data_dir, &file).map_err(|e| e.to_string())?;
            println!("{}: the cluster at revision {revision}; it holds the cluster's keys", file.display());
            Ok(())
        }
        Some(Command::Restore { file, dir }) => {
            let revision = operate::snapshot::restore(&dir.data_dir, &file).map_err(|e| e.to_string())?;
            println!("restored; revisions go on from {revision}. Start it: limpet hub --data-dir {}", dir.data_dir.display());
            Ok(())
        }
        Some(Command::RotateKey { dir }) => {
            let records = operate::rotate_key(&dir.data_dir).map_err(|e| e.to_string())?;
            println!("a new key is in use; {records} Secrets were sealed again");
            Ok(())
        }
    }
}

fn serve(args: Serve) -> Outcome {
    let data_dir = args.data_dir.ok_or("limpet hub needs --data-dir DIR: where the hub keeps its state")?;
    logging::start(&args.log)?;
    let cluster_cidrs = match &args.cluster_cidr {
        None => PodRanges::default(),
        Some(text) => PodRanges::parse(text, args.node_cidr_mask_size_ipv4, args.node_cidr_mask_size_ipv6)
            .map_err(|why| format!("--cluster-cidr: {why}"))?,
    };
    let files = EtcdFiles { ca: args.etcd_cafile, cert: args.etcd_certfile, key: args.etcd_keyfile };
    let compaction = Duration::from_secs(args.etcd_compaction_interval);
    let etcd = args.store.map(|url| EtcdSettings { url, files, prefix: args.etcd_prefix, compaction });
    let broker = args.broker.settings(&data_dir);
    let options = HubOptions {
        data_dir,
        api_listen: args.api_listen,
        mqtt_listen: args.mqtt_listen.or_else(|| broker.is_none().then_some(MQTT_LISTEN)),
        broker,
        registry_listen: args.registry_listen,
        advertise_hosts: args.advertise_host,
        cluster_name: args.cluster_name,
        scheduler_config: args.scheduler_config,
        guard: args.guard.options()?,
        cluster_cidrs,
        etcd,
    };
    limpet_hub::run(options).map_err(|e| e.to_string())
}
