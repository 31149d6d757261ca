//! A real API server on loopback for tests, and kubectl in front of it.
//!
//! In: nothing. Out: `Cluster`: its URL, an operator's kubeconfig, raw requests. Its files go with it.
//! Never: a node, a controller or a scheduler; what those would write, tests write themselves.
#![allow(dead_code, clippy::unwrap_used)]

use limpet_hub::{
    api::{self, Api, ApiParts, Client},
    guard::{Guard, GuardOptions},
    pki::{Pki, Subject},
    run::World,
};
use limpet_store::{Options, Store};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::SystemTime,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

pub struct Cluster {
    pub api: Arc<Api>,
    pub client: Client,
    pub url: String,
    pub dir: tempfile::TempDir,
    pub kubeconfig: PathBuf,
    pub runtime: Runtime,
    pub pki: Pki,
    stop: watch::Sender<bool>,
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::with(Options::default())
    }

    pub fn with(options: Options) -> Cluster {
        Cluster::guarded(options, |_| GuardOptions::default())
    }

    /// With flags of audit and the like; `guard` may put files into the cluster's folder.
    pub fn guarded(options: Options, guard: impl FnOnce(&Path) -> GuardOptions) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let now = SystemTime::now();
        let mut pki = Pki::open(&dir.path().join("pki"), &[], now).unwrap();
        let store = Store::open(dir.path(), options).unwrap();
        let (stop, stopping) = watch::channel(false);
        let guard = guard(dir.path());
        let front = guard.authn.front.as_ref().map(|front| std::fs::read(&front.client_ca_file).unwrap());
        front.iter().for_each(|pem| pki.trust_front(pem));
        let (api, url) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (world, feed) = World::load(&store);
            tokio::spawn(feed.run(Vec::new()));
            let api = Api::new(ApiParts {
                store: store.clone(),
                view: world.view(),
                tokens: api::tokens(&store, pki.token_key_der()).unwrap(),
                endpoints: vec![("192.0.2.1".parse().unwrap(), address.port())],
                cluster_name: "test".into(),
                guard: Guard::open(&guard).unwrap(),
                stopping,
            });
            api.guard.authn.own_authority(pki.ca_pem()).unwrap();
            api::bootstrap::ensure(&api).await.unwrap();
            for namespace in ["default", "kube-system"] {
                account(&Client::new(Arc::clone(&api)), namespace).await;
            }
            let tls = Arc::new(pki.api_config(&["h2", "http/1.1"]).unwrap());
            // The sender may go: this certificate lives longer than any test.
            let (_, tls) = watch::channel(tls);
            api.set_ready();
            tokio::spawn(api::server::serve(Arc::clone(&api), listener, tls));
            (api, format!("https://{address}"))
        });
        let kubeconfig = dir.path().join("admin.kubeconfig");
        pki.write_admin_kubeconfig(&kubeconfig, "test", &url, now).unwrap();
        let client = Client::new(Arc::clone(&api));
        Cluster { api, client, url, dir, kubeconfig, runtime, pki, stop }
    }

    /// As SIGTERM does in the hub.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A kubeconfig for another user.
    pub fn kubeconfig_of(&self, name: &str, groups: &[&str]) -> PathBuf {
        let issued = self.pki.issue_client(&Subject::client(name, groups), 1, SystemTime::now()).unwrap();
        let path = self.dir.path().join(format!("{}.kubeconfig", name.replace(':', "-")));
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {
                "server": self.url, "certificate-authority-data": encode(self.pki.ca_pem())}}],
            "users": [{"name": "u", "user": {"client-certificate-data": encode(&issued.certificate_pem),
                "client-key-data": encode(&issued.key_pem)}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// kubectl as the operator: its output, whatever it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_as(&self.kubeconfig, arguments, "")
    }

    pub fn kubectl_in(&self, arguments: &[&str], input: &str) -> Output {
        self.kubectl_as(&self.kubeconfig, arguments, input)
    }

    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Output {
        // Another version of kubectl: LIMPET_KUBECTL=/path/to/kubectl.
        let program = std::env::var_os("LIMPET_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is needed for these tests");
        // It may have ended without reading: its output says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Output {
            good: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// One request as the operator, without kubectl's manners.
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Vec<u8>) {
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--data-binary", "@-"]);
        command.arg("--cacert").arg(self.dir.path().join("pki/ca.crt"));
        command.arg("--cert").arg(self.dir.path().join("pki/admin.crt"));
        command.arg("--key").arg(self.dir.path().join("pki/admin.key"));
        for (name, value) in headers {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        command.arg(format!("{}{path}", self.url)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("curl is needed for these tests");
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap();
        let at = output.stdout.iter().rposition(|b| *b == b'\n').unwrap();
        let code = std::str::from_utf8(&output.stdout[at + 1..]).unwrap().parse().unwrap();
        (code, output.stdout[..at].to_vec())
    }

    /// Opens a watch as the operator.
    pub fn watch(&self, path: &str, accept: &str) -> Watching {
        Watching::open(self.dir.path(), &format!("{}{path}", self.url), accept)
    }

    pub fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (code, bytes) =
            self.raw(method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes());
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let (code, bytes) = self.raw("GET", path, &[], b"");
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

/// An open watch: its events, one line each. Ends with the value.
pub struct Watching {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Watching {
    /// `dir` is the hub's folder.
    pub fn open(dir: &Path, url: &str, accept: &str) -> Watching {
        let mut command = Command::new("curl");
        command.args(["-sSN", "-H", &format!("Accept: {accept}")]);
        command.arg("--cacert").arg(dir.join("pki/ca.crt"));
        command.arg("--cert").arg(dir.join("pki/admin.crt"));
        command.arg("--key").arg(dir.join("pki/admin.key"));
        let mut child = command.arg(url).stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        Watching { child, lines }
    }

    /// The next event as (type, object); waits for it.
    pub fn next(&mut self) -> (String, Value) {
        let line = self.lines.next().expect("the watch ended").unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    }

    /// Whether nothing more comes; waits for the end.
    pub fn ended(&mut self) -> bool {
        self.lines.next().is_none()
    }

    /// The type and the object's name of the next event.
    pub fn next_name(&mut self) -> (String, String) {
        let (kind, object) = self.next();
        (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// What the ServiceAccount controller would make.
pub async fn account(client: &Client, namespace: &str) {
    let object = json!({"metadata": {"name": "default"}});
    client.create("test", "/serviceaccounts", namespace, object).await.unwrap();
}

#[derive(Debug)]
pub struct Output {
    pub good: bool,
    pub out: String,
    pub err: String,
}

impl Output {
    /// Output of a command that must work.
    pub fn ok(self) -> String {
        assert!(self.good, "kubectl failed: {}\n{}", self.err, self.out);
        self.out
    }

    /// Words of a command that must fail.
    pub fn fails(self) -> String {
        assert!(!self.good, "kubectl did not fail: {}", self.out);
        self.err
    }
}
