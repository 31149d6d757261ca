//! One whole hub in this process for all tests: API, store, controllers, scheduler, no node.
//!
//! In: nothing. Out: `Client`s with a connection and a namespace of their own. Never: a request that is repeated in
//! silence; a test that sees another one's objects, if it looks into its own namespace.

use crate::{http::Keeping, support::Watching};
use limpet_hub::{HubOptions, PodRanges, guard::GuardOptions};
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{OnceLock, atomic::{AtomicUsize, Ordering}},
    time::{Duration, Instant},
};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

struct Live {
    dir: PathBuf,
    url: String,
}

fn live() -> &'static Live {
    static LIVE: OnceLock<Live> = OnceLock::new();
    LIVE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
        // Of an earlier run; the first one has none.
        let _ = std::fs::remove_dir_all(&dir);
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let api_listen = TcpListener::bind(any).and_then(|free| free.local_addr()).unwrap();
        let options = HubOptions {
            data_dir: dir.clone(),
            api_listen,
            mqtt_listen: Some(any),
            broker: None,
            registry_listen: any,
            advertise_hosts: vec!["127.0.0.1".into(), "192.0.2.1".into()],
            cluster_name: "conformance".into(),
            scheduler_config: None,
            guard: GuardOptions::default(),
            cluster_cidrs: PodRanges::default(),
            etcd: None,
        };
        std::thread::spawn(move || limpet_hub::run(options).expect("the hub runs until the tests end"));
        let live = Live { dir, url: format!("https://{api_listen}") };
        let ends = Instant::now() + PATIENCE;
        while !live.dir.join("admin.kubeconfig").exists() || std::net::TcpStream::connect(api_listen).is_err() {
            assert!(Instant::now() < ends, "the hub does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        live
    })
}

/// A connection, as the operator, and a namespace that nobody else has.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    connection: Keeping,
    pub namespace: String,
}

impl Client {
    pub fn new(test: &str) -> Client {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("{test}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let live = live();
        let connection = runtime.block_on(Keeping::open(&live.dir, &live.url));
        let mut client = Client { runtime, connection, namespace };
        client.until("the hub is ready", |c| c.raw("GET", "/readyz", &[], Vec::new()).0 == 200);
        let object = json!({"metadata": {"name": client.namespace}});
        client.made("/api/v1/namespaces", object);
        let account = client.at("v1", "serviceaccounts/default");
        client.until("the namespace's account", |c| c.get(&account).0 == 200);
        client
    }

    /// The path of something in the own namespace.
    pub fn at(&self, api_version: &str, rest: &str) -> String {
        path(api_version, Some(&self.namespace), rest)
    }

    pub fn raw(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>, Vec<String>) {
        if !self.runtime.block_on(self.connection.is_open()) {
            let live = live();
            self.connection = self.runtime.block_on(Keeping::open(&live.dir, &live.url));
        }
        let (head, body) = self.runtime.block_on(self.connection.ask(method, path, headers, body)).unwrap();
        let warnings = head.headers.get_all("warning").iter();
        let warnings = warnings.map(|w| String::from_utf8_lossy(w.as_bytes()).into_owned()).collect();
        (head.status.as_u16(), body.to_vec(), warnings)
    }

    pub fn ask(&mut self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let (code, bytes, _) = self.raw(method, path, &[("Content-Type", content_type)], body.to_string().into_bytes());
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub fn get(&mut self, path: &str) -> (u16, Value) {
        let (code, bytes, _) = self.raw("GET", path, &[], Vec::new());
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// What is there for sure.
    pub fn got(&mut self, path: &str) -> Value {
        let (code, value) = self.get(path);
        assert_eq!(code, 200, "{path}: {value}");
        value
    }

    pub fn post(&mut self, path: &str, object: Value) -> (u16, Value) {
        self.ask("POST", path, JSON, &object)
    }

    pub fn made(&mut self, path: &str, object: Value) -> Value {
        let (code, value) = self.post(path, object);
        assert_eq!(code, 201, "{path}: {value}");
        value
    }

    pub fn put(&mut self, path: &str, object: &Value) -> (u16, Value) {
        self.ask("PUT", path, JSON, object)
    }

    /// Reads, changes and replaces until nobody else was faster.
    pub fn changed(&mut self, path: &str, change: impl Fn(&mut Value)) -> Value {
        for _ in 0..100 {
            let mut object = self.got(path);
            change(&mut object);
            let (code, value) = self.put(path, &object);
            if code != 409 {
                assert_eq!(code, 200, "{path}: {value}");
                return value;
            }
        }
        panic!("{path}: somebody else is always faster");
    }

    pub fn patched(&mut self, path: &str, content_type: &str, patch: Value) -> Value {
        let (code, value) = self.ask("PATCH", path, content_type, &patch);
        assert!(code == 200 || code == 201, "{path}: {code} {value}");
        value
    }

    pub fn delete(&mut self, path: &str) -> (u16, Value) {
        self.ask("DELETE", path, JSON, &json!({}))
    }

    pub fn deleted(&mut self, path: &str, options: Value) -> Value {
        let (code, value) = self.ask("DELETE", path, JSON, &options);
        assert!(code == 200 || code == 202, "{path}: {code} {value}");
        value
    }

    /// Looks until what is wanted is there.
    pub fn until(&mut self, what: &str, mut look: impl FnMut(&mut Client) -> bool) {
        let ends = Instant::now() + PATIENCE;
        while !look(self) {
            assert!(Instant::now() < ends, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn gone(&mut self, path: &str) {
        self.until(&format!("{path} is gone"), |c| c.get(path).0 == 404);
    }

    pub fn watch(&self, path: &str) -> Watching {
        let live = live();
        Watching::open(&live.dir, &format!("{}{path}", live.url), JSON)
    }
}

pub fn path(api_version: &str, namespace: Option<&str>, rest: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    match namespace {
        Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{rest}"),
        None => format!("/{root}/{api_version}/{rest}"),
    }
}

/// The names of a list's items.
pub fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

pub fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}
