//! One whole hub in this process, for kube-rs: API, store, controllers, no node.
//!
//! In: nothing. Out: an operator's kubeconfig, as text. Never: a hub per test; tests keep to namespaces of their own.

use limpet_hub::{HubOptions, PodRanges, guard::GuardOptions};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The operator's kubeconfig, once the hub listens. Panics with the reason where it does not start: this is for tests.
#[allow(clippy::disallowed_methods)] // a hub in another thread
pub fn kubeconfig() -> &'static str {
    static KUBECONFIG: OnceLock<String> = OnceLock::new();
    KUBECONFIG.get_or_init(|| {
        // Kept until the process ends; the hub writes into it until then.
        let data_dir = tempfile::tempdir().expect("a folder for the hub").keep();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let api_listen = TcpListener::bind(any).and_then(|free| free.local_addr()).expect("a free port");
        let options = HubOptions {
            data_dir: data_dir.clone(),
            api_listen,
            mqtt_listen: Some(any),
            broker: None,
            registry_listen: any,
            advertise_hosts: vec!["127.0.0.1".into()],
            cluster_name: "kube".into(),
            scheduler_config: None,
            guard: GuardOptions::default(),
            cluster_cidrs: PodRanges::default(),
            etcd: None,
        };
        thread::spawn(move || limpet_hub::run(options).expect("the hub runs until the tests end"));
        let file = data_dir.join("admin.kubeconfig");
        let ends = Instant::now() + PATIENCE;
        while !file.exists() || TcpStream::connect(api_listen).is_err() {
            assert!(Instant::now() < ends, "the hub does not start");
            thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(&file).expect("the kubeconfig that the hub wrote")
    })
}
