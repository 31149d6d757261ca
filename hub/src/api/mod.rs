//! The Kubernetes API server.
//!
//! In: HTTPS requests, and the hub's own parts through `internal::Client`. Out: objects, lists, watches,
//! failures. The way of a request: server → dispatch (auth, route) → verbs → write → store.
//! Never: knows what a controller wants; never answers with something that is not durable.

pub mod server;
mod stall;

pub mod aggregate;

mod dispatch;
pub mod negotiate;
pub mod query;
mod records;
pub mod route;
pub mod selection;

pub(crate) mod proxy;
pub mod subresources;
mod verbs;
pub mod write;

mod health;
pub mod reviews;
mod usage;

pub mod bootstrap;
pub mod internal;
pub mod kinds;

pub mod body;
mod decode;
mod encodings;
pub mod limits;
pub mod metrics;
pub mod object;
mod raw;
mod protobuf;
pub mod reply;
pub mod target;
pub mod tls;

pub use body::{Body, Reply};
pub(crate) use decode::any as parse_body;
pub use internal::Client;
pub use target::Target;

use crate::{
    admission::{Hooks, Kept},
    auth::{Authorizer, jwt::Signer, tokens::Tokens},
    enroll::Enroll,
    guard::Guard,
    kept::KeptLogs,
    messages::Messages,
    run::{Nodes, Streams, Usage},
};
use jiff::Timestamp;
use limpet_hub_core::ObjectStore;
use limpet_objects::resource::Registry;
use limpet_store::Store;
use std::{
    net::IpAddr,
    sync::{Arc, OnceLock, RwLock},
};
use tokio::sync::{Mutex, MutexGuard, watch};

/// The typed cache of all objects, shared by authorization, controllers and scheduler. Whoever makes it feeds
/// it.
pub type View = Arc<RwLock<ObjectStore>>;

/// The issuer of ServiceAccount tokens, as upstream's default.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Doors to other parts of the hub.
#[derive(Clone)]
pub struct Doors {
    /// What other hubs ask.
    pub(crate) for_hubs: Arc<crate::relay::Door>,
    pub streams: Streams,
    pub usage: Usage,
    pub enroll: Arc<Enroll>,
    /// What the scheduler and the controllers know, for `limpet why`.
    pub view: View,
    pub scheduler: Arc<limpet_hub_core::schedule::Config>,
    /// Logs of boards that are away.
    pub(crate) kept: Arc<KeptLogs>,
    /// What workloads on boards say, and the way to them.
    pub(crate) messages: Arc<Messages>,
    pub(crate) nodes: Arc<Nodes>,
    /// MQTT through the API's port: by ALPN, or in a WebSocket.
    pub broker: limpet_broker::Broker,
}

/// The keeper of ServiceAccount tokens; `key` is PKCS#8 DER of a P-256 key.
pub fn tokens(store: &Store, key: &[u8]) -> Result<Tokens, String> {
    Ok(Tokens::new(Signer::new(key)?, ISSUER.into(), store.clone()))
}

/// What the API server is told at its start.
pub struct ApiParts {
    pub store: Store,
    pub view: View,
    pub tokens: Tokens,
    /// Where the API is reached from pods: the `kubernetes` Service's endpoints.
    pub endpoints: Vec<(IpAddr, u16)>,
    pub cluster_name: String,
    /// What the operator configured of who may do what, who did what, and who waits.
    pub guard: Guard,
    /// Becomes true when the hub stops: watches end.
    pub stopping: watch::Receiver<bool>,
}

/// State that all requests share.
pub struct Api {
    pub store: Store,
    pub tokens: Tokens,
    pub authorizer: Authorizer,
    pub(crate) kinds: kinds::Kinds,
    /// Groups that other servers answer.
    pub aggregate: aggregate::Aggregate,
    /// Policies and webhooks of admission.
    pub(crate) hooks: Hooks,
    pub metrics: metrics::Metrics,
    encodings: encodings::Encodings,
    pub guard: Guard,
    pub endpoints: Vec<(IpAddr, u16)>,
    pub cluster_name: String,
    /// Exec, logs and the like; set once when the links to nodes are up.
    pub doors: OnceLock<Doors>,
    /// Figures of the hub's other parts, as Prometheus text; set once.
    figures: OnceLock<Box<dyn Fn() -> String + Send + Sync>>,
    stopping: watch::Receiver<bool>,
    /// Stands in drafts where the revision goes; random, so that no object can hold it.
    marker: String,
    /// Held while a Service gets its addresses, until it is stored.
    addresses: Mutex<()>,
    /// Held while a quota is charged, until the object is stored; what is used of quotas.
    quota: Mutex<Kept>,
    ready: std::sync::atomic::AtomicBool,
}

impl limpet_hub_core::control::accounttoken::TokenSigner for Api {
    fn sign(&self, claims: &serde_json::Value) -> Option<String> {
        limpet_hub_core::control::accounttoken::TokenSigner::sign(&self.tokens, claims)
    }
}

impl Api {
    pub fn new(parts: ApiParts) -> Arc<Api> {
        let api = Arc::new(Api {
            store: parts.store,
            tokens: parts.tokens,
            authorizer: Authorizer::new(parts.view, Arc::clone(&parts.guard.authz)),
            kinds: kinds::Kinds::default(),
            aggregate: aggregate::Aggregate::default(),
            hooks: Hooks::default(),
            metrics: metrics::Metrics::default(),
            encodings: encodings::Encodings::default(),
            guard: parts.guard,
            endpoints: parts.endpoints,
            cluster_name: parts.cluster_name,
            doors: OnceLock::new(),
            figures: OnceLock::new(),
            stopping: parts.stopping,
            marker: format!("@{}@", random_hex(16)),
            addresses: Mutex::new(()),
            quota: Mutex::default(),
            ready: false.into(),
        });
        api.kinds.set_api(&api);
        api.kinds.refresh(&api.store);
        api
    }

    /// The links to nodes and the enrolment office; set once at start.
    pub fn set_doors(&self, doors: Doors) {
        // A second time would be a mistake in `hub.rs` and changes nothing.
        let _ = self.doors.set(doors);
    }

    /// Adds to `/metrics`; set once at start.
    pub fn set_figures(&self, figures: impl Fn() -> String + Send + Sync + 'static) {
        let _ = self.figures.set(Box::new(figures));
    }

    /// What `set_figures` says now.
    pub(crate) fn figures(&self) -> String {
        let mut text = self.guard.figures();
        text.push_str(&self.figures.get().map(|figures| figures()).unwrap_or_default());
        text
    }

    pub(crate) async fn address_lock(&self) -> MutexGuard<'_, ()> {
        self.addresses.lock().await
    }

    pub(crate) async fn names_lock(&self) -> MutexGuard<'_, ()> {
        self.kinds.lock().await
    }

    pub(crate) async fn quota_lock(&self) -> MutexGuard<'_, Kept> {
        self.quota.lock().await
    }

    /// Every resource that is served now. A request looks once and keeps what it saw.
    pub fn kinds(&self) -> Arc<Registry> {
        self.kinds.now(&self.store)
    }

    pub fn set_ready(&self) {
        self.ready.store(true, std::sync::atomic::Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(std::sync::atomic::Ordering::Acquire)
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Becomes true when the hub stops.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Ends when the hub stops.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error means that the sender is gone, which is the same.
        let _ = stopping.wait_for(|s| *s).await;
    }
}

/// Lower-case hex of random bytes.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0u8; bytes];
    fill_random(&mut buffer);
    crate::pki::hex(&buffer)
}

/// Fills from the kernel; it only fails where there is no kernel.
pub(crate) fn fill_random(buffer: &mut [u8]) {
    let _ = getrandom::fill(buffer);
}

/// A UUID, version 4.
pub(crate) fn new_uid() -> String {
    let mut b = [0u8; 16];
    fill_random(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = crate::pki::hex(&b);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The five letters behind a generated name.
pub(crate) fn new_suffix() -> String {
    let mut b = [0u8; 5];
    fill_random(&mut b);
    limpet_objects::names::suffix(b)
}
