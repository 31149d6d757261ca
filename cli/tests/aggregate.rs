//! Another API server behind the hub: discovery, requests with the user's name, its absence, and autoscaling by its figures.
//!
//! In: the real hub and kubectl, a server of metrics on loopback. Out: what people see. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const LONG: Duration = Duration::from_secs(180);
const GROUP: &str = "/apis/external.metrics.k8s.io/v1beta1";

struct Hub {
    child: Child,
    dir: tempfile::TempDir,
}

impl Hub {
    fn start() -> Hub {
        let dir = tempfile::tempdir().unwrap();
        let ports = ["--api-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
        let child = command.arg("hub").arg("--data-dir").arg(dir.path()).args(ports).spawn().unwrap();
        let hub = Hub { child, dir };
        until("the hub is ready", || hub.kubectl(&["get", "--raw", "/readyz"], "").0 == "ok");
        hub
    }

    /// What kubectl prints, and its complaints.
    fn kubectl(&self, args: &[&str], input: &str) -> (String, String) {
        let program = std::env::var_os("LIMPET_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(self.dir.path().join("admin.kubeconfig"))
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended without reading: its output says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let out = child.wait_with_output().unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (text(out.stdout), text(out.stderr))
    }

    fn apply(&self, object: Value) {
        let (out, err) = self.kubectl(&["apply", "-f", "-"], &object.to_string());
        assert!(err.is_empty(), "{out}{err}");
    }

    fn json(&self, what: &[&str]) -> Value {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what);
        serde_json::from_str(&self.kubectl(&args, "").0).unwrap_or_default()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server of external metrics that believes nobody but the hub.
struct Adapter {
    port: u16,
    /// PEM.
    certificate: String,
    away: AtomicBool,
    figure: AtomicI64,
    /// `X-Remote-User` and path of each request.
    asked: Mutex<Vec<(String, String)>>,
}

impl Adapter {
    /// `front`: PEM of the authority of those who may name users.
    fn start(front: &str) -> Arc<Adapter> {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["adapter.default.svc".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(front.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let hub = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(hub)
            .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (sender, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let adapter = Arc::new(Adapter {
                    port: listener.local_addr().unwrap().port(),
                    certificate: own.pem(),
                    away: false.into(),
                    figure: 9.into(),
                    asked: Mutex::default(),
                });
                sender.send(Arc::clone(&adapter)).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    if adapter.away.load(Ordering::Relaxed) {
                        continue;
                    }
                    let (acceptor, adapter) = (acceptor.clone(), Arc::clone(&adapter));
                    tokio::spawn(async move { adapter.serve(acceptor, socket).await });
                }
            });
        });
        started.recv().unwrap()
    }

    async fn serve(&self, acceptor: tokio_rustls::TlsAcceptor, socket: TcpStream) -> std::io::Result<()> {
        let mut stream = acceptor.accept(socket).await?;
        let mut read = Vec::new();
        while !read.windows(4).any(|part| part == b"\r\n\r\n") {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                size => read.extend_from_slice(&piece[..size]),
            }
        }
        let head = String::from_utf8_lossy(&read).into_owned();
        let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        assert_eq!(header("authorization"), "", "the caller's credentials stay with the hub");
        self.asked.lock().unwrap().push((header("x-remote-user"), path.clone()));
        let answer = match path.split('?').next().unwrap_or_default() {
            GROUP => json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
                "resources": [{"name": "queue_length", "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList",
                    "verbs": ["get"]}]}),
            path if path.ends_with("/namespaces/default/queue_length") => {
                let value = self.figure.load(Ordering::Relaxed).to_string();
                json!({"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
                    "items": [{"metricName": "queue_length", "timestamp": "2026-11-26T00:00:00Z", "value": value}]})
            }
            _ => json!({}),
        }
        .to_string();
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    }
}

fn available(hub: &Hub) -> Value {
    hub.json(&["apiservice", "v1beta1.external.metrics.k8s.io"])["status"]["conditions"][0].clone()
}

fn service(port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "adapter", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}})
}

fn api_service(port: u16, bundle: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "caBundle": BASE64_STANDARD.encode(bundle),
            "service": {"namespace": "default", "name": "adapter", "port": port}}})
}

#[test]
fn another_server_answers_a_group_and_autoscalers_follow_its_figures() {
    let hub = Hub::start();
    until("the hub tells other servers how to know it", || {
        !hub.json(&["configmap", "-n", "kube-system", "extension-apiserver-authentication"])["data"].is_null()
    });
    let known = hub.json(&["configmap", "-n", "kube-system", "extension-apiserver-authentication"])["data"].clone();
    assert_eq!(known["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    let adapter = Adapter::start(known["requestheader-client-ca-file"].as_str().unwrap());
    // Its own groups are listed, too.
    until("local groups", || hub.kubectl(&["get", "apiservice", "v1.apps", "v1."], "").0.matches("Local").count() == 2);
    hub.apply(api_service(adapter.port, &adapter.certificate));
    until("no Service", || available(&hub)["reason"] == "ServiceNotFound");
    assert_eq!(available(&hub)["message"], "service/adapter in \"default\" is not present");
    let (_, err) = hub.kubectl(&["get", "--raw", GROUP], "");
    assert!(err.contains("unable to handle the request") || err.contains("service unavailable"), "{err}");
    hub.apply(service(adapter.port));
    until("available", || available(&hub)["reason"] == "Passed");
    let row = hub.kubectl(&["get", "apiservice", "v1beta1.external.metrics.k8s.io", "--no-headers"], "").0;
    assert!(row.contains("default/adapter") && row.contains("True"), "{row}");
    // Whoever asks is named; what is said in headers is not believed.
    let figures: Value =
        serde_json::from_str(&hub.kubectl(&["get", "--raw", &format!("{GROUP}/namespaces/default/queue_length")], "").0).unwrap();
    assert_eq!(figures["items"][0]["value"], "9");
    let last = adapter.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.0, "kubernetes-admin");
    let (out, _) = hub.kubectl(&["api-resources", "--api-group", "external.metrics.k8s.io", "--no-headers"], "");
    assert!(out.contains("queue_length") && out.contains("ExternalMetricValueList"), "{out}");
    let (out, _) = hub.kubectl(&["auth", "can-i", "get", "queue_length.external.metrics.k8s.io", "--as", "nobody"], "");
    assert_eq!(out.trim(), "no");
    let path = format!("{GROUP}/namespaces/default/queue_length");
    let (_, err) = hub.kubectl(&["get", "--raw", &path, "--as", "nobody"], "");
    assert!(err.contains("forbidden"), "{err}");
    // Nine in the queue, three for each.
    let labels = json!({"app": "worker"});
    hub.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "worker", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "example.org/none:1"}]}}}}));
    hub.apply(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "worker", "namespace": "default"}, "spec": {"minReplicas": 1, "maxReplicas": 10,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue_length"},
                "target": {"type": "AverageValue", "averageValue": "3"}}}]}}));
    until("three replicas", || hub.json(&["deployment", "worker"])["spec"]["replicas"] == 3);
    let hpa = hub.json(&["hpa", "worker"]);
    assert_eq!(hpa["status"]["currentMetrics"][0]["type"], "External", "{hpa}");
    // Gone: discovery of everything else goes on.
    adapter.away.store(true, Ordering::Relaxed);
    until("not available", || available(&hub)["reason"] == "FailedDiscoveryCheck");
    let (_, err) = hub.kubectl(&["get", "--raw", GROUP], "");
    assert!(!err.is_empty());
    let (out, _) = hub.kubectl(&["get", "deployments", "--no-headers"], "");
    assert!(out.contains("worker"), "{out}");
    // A certificate that nobody vouches for is not believed.
    adapter.away.store(false, Ordering::Relaxed);
    until("available again", || available(&hub)["reason"] == "Passed");
    let other = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    hub.apply(api_service(adapter.port, &other.pem()));
    until("not believed", || available(&hub)["reason"] == "FailedDiscoveryCheck");
    let message = available(&hub)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("invalid peer certificate"), "{message}");
    hub.kubectl(&["delete", "apiservice", "v1beta1.external.metrics.k8s.io"], "");
    until("forgotten", || hub.kubectl(&["get", "--raw", GROUP], "").1.contains("could not find the requested resource"));
}
