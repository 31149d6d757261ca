//! Loads a hub with a fleet of nodes that exist only in its API, and measures scheduling and scaling.
//!
//! In: the path of the `limpet` binary, seconds of idling, and for a first try a divisor of all numbers. Out: one line a
//! figure: `name<TAB>value`.
//! The nodes' agents are simulated at the API: they set pods to Running and remove deleted ones.
//! Never: a figure that ends before a client sees the result.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use limpet_hub::operate::client::{Client, Connection};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const NODES: usize = 1_000;
const PODS: usize = 5_000;
const SCALE_NODES: usize = 100;
const SCALE_PODS: usize = 1_000;
const CONNECTIONS: usize = 8;
const SCHEDULED: &str = "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} ";
const MERGE: &str = "application/merge-patch+json";
/// Simulated nodes have no connection: after a while the hub takes them for away, as it should.
const BEAR_ABSENCE: &str = "node.kubernetes.io/unreachable";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The hub is ours; when it is gone already there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, dir: &Path) -> Running {
    let words = ["hub", "--api-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0",
        "--advertise-host", "127.0.0.1", "--log", "warn", "--data-dir"];
    Running(Command::new(program).args(words).arg(dir).stdout(Stdio::null()).spawn().expect("the hub starts"))
}

async fn client(dir: &Path) -> Client {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(client) = Client::from_kubeconfig(&dir.join("admin.kubeconfig"))
            && let Ok((200, _)) = client.request("GET", "/readyz", None).await
        {
            return client;
        }
        assert!(Instant::now() < until, "the hub does not become ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(c: &mut Connection, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Value {
    let body = body.map(|b| b.to_string().into_bytes());
    let (code, bytes) = c.request(method, path, kind, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    assert!((200..300).contains(&code) || code == 404 || code == 409, "{method} {path}: {code} {value}");
    value
}

/// Does `n` things over several connections at once.
async fn spread<F, Fut>(client: &Client, n: usize, work: F)
where
    F: Fn(Connection, Vec<usize>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut tasks = Vec::new();
    for lane in 0..CONNECTIONS {
        let connection = client.connect().await.unwrap();
        tasks.push(tokio::spawn(work(connection, (lane..n).step_by(CONNECTIONS).collect())));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn nodes(client: &Client, from: usize, to: usize) {
    spread(client, to - from, |mut c, mine| async move {
        for i in mine {
            let name = format!("n{:04}", from + i);
            let status = json!({"allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
                "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}]});
            let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", i % 10)});
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
            ask(&mut c, "POST", "/api/v1/nodes", "application/json", Some(&node)).await;
            let path = format!("/api/v1/nodes/{name}/status");
            ask(&mut c, "PATCH", &path, MERGE, Some(&json!({"status": status}))).await;
        }
    })
    .await;
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "strategy": {"rollingUpdate": {"maxSurge": "100%"}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "automountServiceAccountToken": false,
            "tolerations": [{"key": BEAR_ABSENCE, "operator": "Exists"}],
            "containers": [{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}}}]}}}})
}

async fn pods(c: &mut Connection, app: &str) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{app}");
    ask(c, "GET", &path, "application/json", None).await["items"].as_array().cloned().unwrap_or_default()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !holds().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From the moment on which the pods may be scheduled to the moment on which the last has its node.
async fn through_the_api(client: &Client, count: usize) -> f64 {
    let mut c = client.connect().await.unwrap();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let begin = Instant::now();
    ask(&mut c, "POST", path, "application/json", Some(&deployment("many", count))).await;
    until("all pods are decided", async || decided(client).await >= count).await;
    let named = |p: &Value| p["spec"]["nodeName"].is_string();
    until("all pods have a node", async || pods(&mut c, "many").await.iter().filter(|p| named(p)).count() == count).await;
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Decisions that found a node, as the hub's metrics count them: listing 5,000 pods again and again would be the load.
async fn decided(client: &Client) -> usize {
    let (_, text) = client.request("GET", "/metrics", None).await.unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix(SCHEDULED));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Pretends to be the agents of all nodes for one Deployment.
async fn kubelet(client: Client, app: &'static str) {
    loop {
        let mut c = client.connect().await.unwrap();
        let all = pods(&mut c, app).await;
        let todo: Vec<Value> = all
            .into_iter()
            .filter(|p| {
                let going = p["metadata"]["deletionTimestamp"].is_string();
                p["spec"]["nodeName"].is_string() && (going || p["status"]["phase"] == "Pending")
            })
            .collect();
        if todo.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let todo = std::sync::Arc::new(todo);
        spread(&client, todo.len(), |mut c, mine| {
            let todo = std::sync::Arc::clone(&todo);
            async move {
                for i in mine {
                    let pod = &todo[i];
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    let path = format!("/api/v1/namespaces/default/pods/{name}");
                    if pod["metadata"]["deletionTimestamp"].is_string() {
                        let now = json!({"gracePeriodSeconds": 0});
                        ask(&mut c, "DELETE", &path, "application/json", Some(&now)).await;
                        continue;
                    }
                    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
                    for type_ in ["Initialized", "ContainersReady", "Ready"] {
                        conditions.push(json!({"type": type_, "status": "True", "lastTransitionTime": "2026-11-23T10:00:00Z"}));
                    }
                    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}});
                    ask(&mut c, "PATCH", &format!("{path}/status"), MERGE, Some(&status)).await;
                }
            }
        })
        .await;
    }
}

async fn scale(c: &mut Connection, replicas: usize) {
    let patch = json!({"spec": {"replicas": replicas}});
    ask(c, "PATCH", "/apis/apps/v1/namespaces/default/deployments/scale", MERGE, Some(&patch)).await;
}

/// Seconds for 0 -> 1,000 ready -> 0 left.
async fn up_and_down(client: &Client, count: usize) -> f64 {
    let mut c = client.connect().await.unwrap();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    ask(&mut c, "POST", path, "application/json", Some(&deployment("scale", 0))).await;
    let agents = tokio::spawn(kubelet(client.clone(), "scale"));
    let begin = Instant::now();
    scale(&mut c, count).await;
    until("all are ready", async || {
        let d = ask(&mut c, "GET", &format!("{path}/scale"), "application/json", None).await;
        d["status"]["readyReplicas"] == count
    })
    .await;
    scale(&mut c, 0).await;
    until("all are gone", async || pods(&mut c, "scale").await.is_empty()).await;
    let took = begin.elapsed().as_secs_f64();
    agents.abort();
    took
}

fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest: Vec<&str> = text.rsplit_once(')').map(|r| r.1.split_whitespace().collect()).unwrap_or_default();
    let ticks = |at: usize| rest.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::main]
async fn main() {
    let argument = |n| std::env::args().nth(n);
    let program = argument(1).expect("say where the limpet binary is");
    let idle = Duration::from_secs(argument(2).and_then(|s| s.parse().ok()).unwrap_or(60));
    let divisor = argument(3).and_then(|s| s.parse().ok()).unwrap_or(1).max(1);
    {
        let dir = tempfile::tempdir().unwrap();
        let hub = start(&program, dir.path());
        let client = client(dir.path()).await;
        nodes(&client, 0, SCALE_NODES / divisor).await;
        let before = cpu_seconds(hub.0.id());
        println!("scale\t{:.2}", up_and_down(&client, SCALE_PODS / divisor).await);
        println!("scale, cpu\t{:.2}", cpu_seconds(hub.0.id()) - before);
        drop(hub);
    }
    let dir = tempfile::tempdir().unwrap();
    let hub = start(&program, dir.path());
    let client = client(dir.path()).await;
    nodes(&client, 0, NODES / divisor).await;
    let (before, count) = (cpu_seconds(hub.0.id()), PODS / divisor);
    println!("schedule\t{:.0}", through_the_api(&client, count).await);
    let cpu_ms = (cpu_seconds(hub.0.id()) - before) * 1000.0 / count as f64;
    println!("schedule, cpu\t{cpu_ms:.2}");
    // Every node is marked as away once; idle is what comes after.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = cpu_seconds(hub.0.id());
    tokio::time::sleep(idle).await;
    println!("idle\t{:.2}", (cpu_seconds(hub.0.id()) - before) / idle.as_secs_f64() * 100.0);
}
