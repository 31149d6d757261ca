//! The one place where the hub's parts are put together.
//!
//! In: `HubOptions`. Out: a running hub; `run` returns after SIGTERM or SIGINT, when everything acknowledged is on
//! disk.
//! Never: a decision of its own.

use crate::{
    addresses::{self, Addresses},
    api::{self, Api},
    enroll::Enroll,
    guard::{Guard, GuardOptions},
    kept::KeptLogs,
    mdns,
    messages::Messages,
    meeting::{BrokerSettings, Meeting},
    pki::{Pki, PkiError, Subject},
    relay::{self, Door, Road},
    run::{
        self, Applier, Controllers, Figures, Lead, Listener, Nodes, Peers, Scheduling, Signer, Streams, World,
        nodes::{Links, NodeGate, Offline, Presence},
    },
    share,
    webhook::tls::Own,
};
use limpet_broker::{Broker, BrokerOptions, Gate, Office};
use limpet_hub_core::{
    control,
    schedule::{Config, Scheduler},
};
use limpet_store::{EtcdFiles, Store, StoreError};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use tokio::{net::{TcpListener, TcpSocket}, signal::unix, sync::watch};

/// Where the hub keeps its files and listens.
#[derive(Clone, Debug)]
pub struct HubOptions {
    pub data_dir: PathBuf,
    pub api_listen: SocketAddr,
    /// None: devices do not connect to this hub, but to `broker`.
    pub mqtt_listen: Option<SocketAddr>,
    pub registry_listen: SocketAddr,
    /// Names and addresses under which nodes and operators reach this hub. Empty: this machine's own.
    pub advertise_hosts: Vec<String>,
    pub cluster_name: String,
    /// A KubeSchedulerConfiguration, YAML or JSON. None: kube-scheduler's defaults.
    pub scheduler_config: Option<PathBuf>,
    /// Audit log and the like.
    pub guard: GuardOptions,
    /// Where nodes get their ranges of pod addresses from.
    pub cluster_cidrs: limpet_hub_core::nodes::ipam::Ranges,
    /// The etcd that several hubs share. None: redb in the data directory.
    pub etcd: Option<EtcdSettings>,
    /// A broker of somebody else's at which hub and nodes meet.
    pub broker: Option<BrokerSettings>,
}

/// As kube-apiserver's flags of the same names.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// `etcd://host:port[,host:port…]`
    pub url: String,
    pub files: EtcdFiles,
    pub prefix: String,
    /// The leader lets etcd forget what is older than this. Zero: somebody else does.
    pub compaction: Duration,
}

/// Why the hub does not run. The operator mends what the sentence tells.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("cannot listen for {what} on {address}: {source}; is another hub running, or is the port taken?")]
    Listen { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("{}: {why}", .path.display())]
    SchedulerConfig { path: PathBuf, why: String },
    /// A file that a flag names, and what is wrong with it.
    #[error("{0}")]
    Guard(String),
    #[error("--store: {0}")]
    Etcd(String),
    #[error("--broker: {0}")]
    Broker(String),
    #[error(
        "{0} is in use by another process; is a hub running with the same --data-dir? Each hub needs a directory of its own"
    )]
    InUse(PathBuf),
    #[error(
        "the CA in {0} is not the one of the cluster in etcd; a further hub needs pki/ and store.keys of the first one in its \
         data directory before its first start"
    )]
    OtherCa(PathBuf),
    #[error("cannot make the objects that every cluster has: {0}")]
    Bootstrap(String),
}

/// Connections that the kernel keeps until they are accepted (it has a bound of its own): after a restart a whole fleet comes
/// at once, and who finds no place asks again only seconds later.
const WAITING_MAX: u32 = 16_384;
/// How often the hub looks whether its certificate must be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(12 * 3600);
/// How long the end waits for the last events of the audit log.
const RECORDS_TIME: Duration = Duration::from_secs(5);
/// What is spoken at the API's port.
const PROTOCOLS: [&str; 4] = ["h2", "http/1.1", "mqtt", relay::ALPN];
/// It is good for as long as the process that holds its key, and the record that names it.
const OWN_DAYS: u64 = 3650;
/// One MQTT message: an envelope and its topic.
const MESSAGE_BYTES_MAX: usize = limpet_protocol::limits::ENVELOPE_BYTES_MAX + 1024;

/// Runs a hub until SIGTERM or SIGINT. Makes its own runtime.
pub fn run(options: HubOptions) -> Result<(), HubError> {
    room_for_boards();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_stack_size(1024 * 1024)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|source| HubError::Io { what: "start the runtime", source })?;
    runtime.block_on(serve(options))
}

/// Each board is an open file. Usual limits are for programs that use `select`, which this one does not: up to what the
/// administrator allows.
fn room_for_boards() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(now, allowed)| {
        if now < allowed { setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is, and with it the number of boards");
    }
}

/// The listeners, bound before anything else, so that a second hub fails early and ports may be 0.
struct Doors {
    api: TcpListener,
    mqtt: Option<TcpListener>,
    registry: TcpListener,
    ports: (u16, Option<u16>, u16),
}

async fn serve(options: HubOptions) -> Result<(), HubError> {
    let mut terminate = Terminate::new()?;
    let scheduler = scheduler_config(options.scheduler_config.as_deref())?;
    let guard = Guard::open(&options.guard).map_err(HubError::Guard)?;
    let shared = share::open(&options).await?;
    let store = match &shared {
        Some(shared) => shared.store.clone(),
        None => Store::open(&options.data_dir, store_options(&options.data_dir))?,
    };
    let doors = Doors::open(&options).await?;
    let (stop, stopping) = watch::channel(false);
    let hub = Hub::assemble(&options, (scheduler, guard), store.clone(), shared.as_ref(), doors, stopping).await?;
    let only = Some(options.api_listen.ip()).filter(|ip| !ip.is_unspecified());
    mdns::start(mdns::local_names(&options.advertise_hosts), only);
    tracing::info!(api = %hub.url, data_dir = %options.data_dir.display(), "the hub is ready");
    terminate.wait().await;
    tracing::info!("the hub is stopping");
    stop.send_replace(true);
    hub.end().await;
    store.close().await?;
    tracing::info!("the hub has stopped");
    Ok(())
}

fn scheduler_config(path: Option<&Path>) -> Result<Config, HubError> {
    let Some(path) = path else { return Ok(Config::default()) };
    let wrong = |why: String| HubError::SchedulerConfig { path: path.into(), why };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|e| wrong(format!("is not YAML: {e}")))?;
    Config::parse(&value).map_err(wrong)
}

pub(crate) fn store_options(data_dir: &Path) -> limpet_store::Options {
    limpet_store::Options {
        // Who gets the file, or a backup of it, does not get the Secrets.
        sealed: vec!["/secrets"],
        keys: Some(data_dir.join("store.keys")),
        // Heartbeats and Events do not wait for the disk, and do not wear it.
        relaxed: vec!["coordination.k8s.io/leases", "/events"],
        ..limpet_store::Options::default()
    }
}

struct Terminate(unix::Signal, unix::Signal);

impl Terminate {
    fn new() -> Result<Terminate, HubError> {
        let io = |source| HubError::Io { what: "listen for signals", source };
        Ok(Terminate(
            unix::signal(unix::SignalKind::terminate()).map_err(io)?,
            unix::signal(unix::SignalKind::interrupt()).map_err(io)?,
        ))
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

impl Doors {
    async fn open(options: &HubOptions) -> Result<Doors, HubError> {
        let (api, api_port) = bind("the API", options.api_listen).await?;
        let (mqtt, mqtt_port) = match options.mqtt_listen {
            Some(address) => bind("MQTT", address).await.map(|(listener, port)| (Some(listener), Some(port)))?,
            None => (None, None),
        };
        let (registry, registry_port) = bind("the image registry", options.registry_listen).await?;
        Ok(Doors { api, mqtt, registry, ports: (api_port, mqtt_port, registry_port) })
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpListener, u16), HubError> {
    let listen = |source| HubError::Listen { what, address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(listen)?;
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(address).map_err(listen)?;
    let listener = socket.listen(WAITING_MAX).map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    Ok((listener, port))
}

/// What must be ended in order.
struct Hub {
    url: String,
    serving: tokio::task::JoinHandle<()>,
    api: Arc<Api>,
    lead: Lead,
    identity: String,
    store: Store,
    client: Arc<dyn run::Api>,
}

impl Hub {
    async fn assemble(
        options: &HubOptions,
        (scheduler, guard): (Config, Guard),
        store: Store,
        shared: Option<&share::Shared>,
        doors: Doors,
        stopping: watch::Receiver<bool>,
    ) -> Result<Hub, HubError> {
        let addresses = Addresses::find(options);
        let meeting = options.broker.as_ref().map(Meeting::open).transpose().map_err(HubError::Broker)?;
        let mut endpoints = addresses.endpoints(doors.ports, &options.cluster_name);
        let mut pki = open_pki(options, &addresses, doors.ports.0)?;
        let left = addresses::remembered_broker(&options.data_dir).filter(|old| {
            options.broker.as_ref().is_none_or(|new| new.url != old.url)
        });
        addresses::remember(&options.data_dir, &endpoints, options.broker.as_ref())
            .map_err(|source| HubError::Io { what: "write hub.json", source })?;
        let ca_pem = pki.ca_pem().to_string();
        endpoints.broker = meeting.as_ref().map(|m| m.for_nodes(&ca_pem));
        if shared.is_some() {
            share::check_ca(&store, &pki.ca_sha256(), &options.data_dir).await?;
        }
        let identity = shared.map_or("", |s| s.identity.as_str()).to_owned();
        let lead = if shared.is_some() { Lead::among() } else { Lead::alone() };
        let own = own_papers(&pki)?;
        let peers = Peers::new(store.clone(), &identity, endpoints.clone(), &own.certificate);
        let road = Road::new(Arc::clone(&peers), &own.papers, &ca_pem).map_err(HubError::Guard)?;
        let tokens = api::tokens(&store, pki.token_key_der()).map_err(HubError::Bootstrap)?;
        if let Some(pem) = guard.authn.front_pem() {
            pki.trust_front(pem);
        }
        guard.authn.own_authority(&ca_pem).map_err(HubError::Guard)?;
        let https = Arc::new(pki.api_config(&PROTOCOLS)?);
        let registry_tls = Arc::new(pki.https_config(&["http/1.1"])?);
        if doors.mqtt.is_some() {
            pki.remember_sessions(options.data_dir.join("tls-sessions"))?;
        }
        let mqtt_tls = Arc::new(pki.mqtt_config()?);
        let pki = Arc::new(RwLock::new(pki));
        let enroll = Arc::new(Enroll::new(store.clone(), Arc::clone(&pki), endpoints));

        let (world, feed) = World::load(&store);
        let (streams, to_nodes) = Streams::new();
        streams.set_road(Arc::new(road));
        let api = Api::new(api::ApiParts {
            store: store.clone(),
            view: world.view(),
            tokens,
            endpoints: addresses.api_endpoints(doors.ports.0),
            cluster_name: options.cluster_name.clone(),
            guard,
            stopping,
        });
        api.aggregate.set_identity(other_servers(&pki)?);
        let client: Arc<dyn run::Api> = Arc::new(api::Client::new(Arc::clone(&api)));
        let applier = Arc::new(Applier::new(Arc::clone(&client), store.clone(), Arc::clone(&world)));
        let leader: Arc<dyn run::Api> = Arc::new(api::Client::of_leader(Arc::clone(&api), lead.clone()));
        let of_leader = Applier::of_leader(leader, store.clone(), Arc::clone(&world), lead.clone());
        let of_leader = Arc::new(of_leader);
        let asked = Arc::new(scheduler.clone());
        let usage = run::Usage::start(streams.clone(), Arc::clone(&world));
        let info = crate::pki::cluster_info(&addresses.public_url(doors.ports.0), &ca_pem);
        let settings = control::Settings {
            ca_pem,
            cluster_info: info,
            tokens: Arc::clone(&api) as Arc<dyn control::accounttoken::TokenSigner>,
            metrics: Arc::new(run::Measures::start(usage.clone(), &api)),
            clock: Arc::new(run::Clock),
        };
        let signer = Signer::new(Arc::clone(&pki), Arc::clone(&of_leader), api.authorizer.clone());
        let runners = Runners::new((&applier, &of_leader), Arc::clone(&peers), &settings, signer, scheduler);
        tokio::spawn(feed.run_led(runners.listeners(), lead.clone()));
        api::bootstrap::ensure(&api).await.map_err(|e| HubError::Bootstrap(e.to_string()))?;

        let presence = Arc::new(Presence::new());
        let kept = Arc::new(KeptLogs::open(&options.data_dir));
        let messages = Arc::new(Messages::open(&options.data_dir));
        let gate = NodeGate::new(Arc::clone(&enroll), Arc::clone(&runners.nodes), Arc::clone(&presence));
        let gate = Arc::new(gate);
        let broker_options = BrokerOptions { tls: mqtt_tls, message_bytes_max: MESSAGE_BYTES_MAX };
        let (broker, from_nodes) = limpet_broker::serve(doors.mqtt, broker_options, Arc::clone(&gate) as Arc<dyn Gate>);
        // A broker that is left without its files is left without a word.
        if let Some(left) = left.and_then(|old| Meeting::open(&old).ok()) {
            broker.leave(left.options(Arc::clone(&pki), Arc::clone(&gate) as Arc<dyn Office>));
        }
        if let Some(meeting) = meeting {
            broker.meet_at(meeting.options(Arc::clone(&pki), gate), lead.active());
        }
        runners.start(Links {
            broker: broker.clone(),
            from_nodes,
            streams: streams.clone(),
            to_nodes,
            applier: Arc::clone(&applier),
            offline: Arc::clone(&runners.offline),
            enroll: Arc::clone(&enroll),
            presence,
            kept: Arc::clone(&kept),
            messages: Arc::clone(&messages),
            ranges: options.cluster_cidrs.clone(),
        });
        let figures = Figures {
            broker: broker.clone(),
            streams: streams.clone(),
            controllers: Arc::clone(&runners.controllers),
            scheduling: Arc::clone(&runners.scheduling),
        };
        api.set_figures(move || figures.text());
        let for_hubs = Door::new(Arc::clone(&peers), streams.clone(), usage.clone(), Arc::clone(&kept));
        api.set_doors(api::Doors {
            for_hubs: Arc::new(for_hubs),
            streams,
            usage,
            enroll: Arc::clone(&enroll),
            view: world.view(),
            scheduler: asked,
            kept,
            messages,
            nodes: Arc::clone(&runners.nodes),
            broker: broker.clone(),
        });
        tokio::spawn(run::events::sweep(store.clone(), Arc::clone(of_leader.api()), lead.clone()));
        if let Some(settings) = &options.etcd {
            tokio::spawn(Arc::clone(&peers).run(runners.offline.clone()));
            tokio::spawn(lead.clone().run(store.clone(), Arc::clone(&client), identity.clone()));
            tokio::spawn(share::compact(store.clone(), lead.clone(), settings.compaction));
        }
        let (https_sender, https_receiver) = watch::channel(https);
        let (registry_sender, registry_receiver) = watch::channel(registry_tls);
        crate::registry::start(&options.data_dir, doors.registry, registry_receiver, Arc::clone(&api), enroll)?;
        tokio::spawn(renew(pki, broker, https_sender, registry_sender));
        api.set_ready();
        let serving = tokio::spawn(api::server::serve(Arc::clone(&api), doors.api, https_receiver));
        let url = addresses.local_url(doors.ports.0);
        Ok(Hub { url, serving, api, lead, identity, store, client })
    }

    async fn end(self) {
        self.lead.resign(&self.store, &*self.client, &self.identity).await;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the API server did not end well");
        }
        if tokio::time::timeout(RECORDS_TIME, self.api.guard.end()).await.is_err() {
            tracing::error!("some of the last events of the audit log could not be delivered");
        }
    }
}

/// Everything that acts on what is in the view.
struct Runners {
    controllers: Arc<Controllers>,
    scheduling: Arc<Scheduling>,
    offline: Arc<Offline>,
    nodes: Arc<Nodes>,
    signer: Arc<Signer>,
}

impl Runners {
    fn new(
        (applier, of_leader): (&Arc<Applier>, &Arc<Applier>),
        peers: Arc<Peers>,
        settings: &control::Settings,
        signer: Arc<Signer>,
        scheduler: Config,
    ) -> Runners {
        let controllers = Controllers::new(control::all(settings), Arc::clone(of_leader));
        Runners {
            scheduling: Scheduling::new(Scheduler::new(scheduler), Arc::clone(of_leader), vec![controllers.clone()]),
            controllers,
            offline: Offline::new(Arc::clone(applier), Arc::clone(of_leader), peers),
            nodes: Nodes::new(),
            signer,
        }
    }

    fn listeners(&self) -> Vec<Arc<dyn Listener>> {
        vec![
            self.controllers.clone(),
            self.scheduling.clone(),
            self.offline.clone(),
            self.nodes.clone(),
            self.signer.clone(),
        ]
    }

    fn start(&self, links: Links) {
        self.nodes.start(links);
        self.controllers.start();
        self.signer.start();
        self.scheduling.start();
        self.offline.start();
    }
}

/// With what a hub asks others; made anew at each start and kept nowhere.
struct OwnPapers {
    papers: Own,
    /// DER.
    certificate: Vec<u8>,
}

fn own_papers(pki: &Pki) -> Result<OwnPapers, HubError> {
    let issued = pki.issue_client(&Subject::client("system:limpet:hub", &[]), OWN_DAYS, SystemTime::now())?;
    let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes());
    let certificate = der.map_err(|why| PkiError::Tls(why.to_string()))?.to_vec();
    let papers = Own { chain: issued.certificate_pem.into_bytes(), key: issued.key_pem.into_bytes() };
    Ok(OwnPapers { papers, certificate })
}

/// How the hub shows API servers behind it who it is.
fn other_servers(pki: &RwLock<Pki>) -> Result<api::aggregate::Identity, HubError> {
    let pki = pki.read().unwrap_or_else(PoisonError::into_inner);
    let (issued, ca_pem) = pki.front_proxy(SystemTime::now())?;
    let own = Own { chain: issued.certificate_pem.into_bytes(), key: issued.key_pem.into_bytes() };
    Ok(api::aggregate::Identity { own, ca_pem, client_ca_pem: pki.ca_pem().to_owned() })
}

fn open_pki(options: &HubOptions, addresses: &Addresses, api_port: u16) -> Result<Pki, HubError> {
    let now = SystemTime::now();
    let pki = Pki::open(&options.data_dir.join("pki"), &addresses.names(), now)?;
    let kubeconfig = options.data_dir.join("admin.kubeconfig");
    pki.write_admin_kubeconfig(&kubeconfig, &options.cluster_name, &addresses.local_url(api_port), now)?;
    Ok(pki)
}

/// Looks twice a day whether the hub's certificate ends soon; new connections get the new one.
async fn renew(
    pki: Arc<RwLock<Pki>>,
    broker: Broker,
    https: watch::Sender<Arc<rustls::ServerConfig>>,
    registry: watch::Sender<Arc<rustls::ServerConfig>>,
) {
    loop {
        tokio::time::sleep(RENEWAL_LOOK).await;
        let mut pki = pki.write().unwrap_or_else(PoisonError::into_inner);
        let renewed = pki.refresh_server(SystemTime::now()).and_then(|fresh| {
            if fresh {
                https.send_replace(Arc::new(pki.api_config(&PROTOCOLS)?));
                registry.send_replace(Arc::new(pki.https_config(&["http/1.1"])?));
                broker.set_tls(Arc::new(pki.mqtt_config()?));
            }
            Ok(fresh)
        });
        match renewed {
            Ok(true) => tracing::info!("the hub's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the hub's certificate could not be renewed"),
        }
    }
}
