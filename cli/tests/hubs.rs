//! Two hubs on one etcd, the real binaries: work is shared, kill -9 of the leader loses and doubles nothing.
//!
//! In: etcd, kubectl. Out: what users of either hub see. Never: waits for time to pass; always for a condition.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../hub/store/tests/support/etcd.rs"]
mod etcd;

use etcd::EtcdServer;
use limpet_hub::operate::client::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(120);
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const PORTS: [&str; 6] =
    ["--api-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];

struct Hub {
    child: Child,
    client: Client,
    dir: PathBuf,
}

fn command(dir: &Path, etcd: &EtcdServer) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
    let store = etcd.url();
    command.arg("hub").args(PORTS).args(["--store", &store]).arg("--data-dir").arg(dir).env_remove("LIMPET_LOG");
    command
}

impl Hub {
    fn start(dir: &Path, etcd: &EtcdServer) -> Hub {
        let kubeconfig = dir.join("admin.kubeconfig");
        let _ = std::fs::remove_file(&kubeconfig);
        let mut child = command(dir, etcd).stderr(Stdio::inherit()).spawn().unwrap();
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < LONG, "the hub does not become ready");
            assert!(child.try_wait().unwrap().is_none(), "the hub ended");
            if let Ok(client) = Client::from_kubeconfig(&kubeconfig)
                && matches!(ask(&client, "GET", "/readyz", None), Ok((200, _)))
            {
                return Hub { child, client, dir: dir.into() };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn identity(&self) -> String {
        std::fs::read_to_string(self.dir.join("hub.id")).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        until("an answer", || match ask(&self.client, "GET", path, None) {
            Ok((200, value)) => Some(value),
            _ => None,
        })
    }

    fn post(&self, path: &str, object: Value) -> Value {
        let (code, value) = ask(&self.client, "POST", path, Some(object)).unwrap();
        assert_eq!(code, 201, "{value}");
        value
    }

    fn leader(&self) -> String {
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/limpet-hub";
        self.get(path)["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    fn pods(&self) -> usize {
        self.get("/api/v1/namespaces/default/pods")["items"].as_array().unwrap().len()
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.dir.join("admin.kubeconfig"));
        command.arg("--cache-dir").arg(self.dir.join("cache")).args(args);
        command
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(client: &Client, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = body.map(|b| b.to_string().into_bytes());
    let (code, bytes) = runtime.block_on(client.request(method, path, body))?;
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begin.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn services(hub: &Hub, name: &str) -> Vec<Value> {
    let service = |i: usize| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{name}-{i}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
    };
    (0..25).map(|i| hub.post("/api/v1/namespaces/default/services", service(i))).collect()
}

/// What a further hub gets from the first one.
fn share_keys(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("pki")).unwrap();
    std::fs::copy(from.join("store.keys"), to.join("store.keys")).unwrap();
    for entry in std::fs::read_dir(from.join("pki")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join("pki").join(path.file_name().unwrap())).unwrap();
    }
}

fn two(dir: &Path) -> Option<(EtcdServer, Hub, Hub)> {
    let etcd = EtcdServer::start(&dir.join("etcd"), &[])?;
    let a = Hub::start(&dir.join("a"), &etcd);
    share_keys(&dir.join("a"), &dir.join("b"));
    let b = Hub::start(&dir.join("b"), &etcd);
    Some((etcd, a, b))
}

#[test]
fn what_is_written_to_one_hub_is_read_and_watched_at_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let Some((etcd, a, b)) = two(dir.path()) else { return };
    let watching = ["get", "configmaps", "--watch-only", "-o", "name"];
    let mut watch = b.kubectl(&watching).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // The watch is there when it has shown something.
    let mut seen = BTreeSet::new();
    let mut made = 0;
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    until("the watch shows a ConfigMap", || {
        a.post(CONFIGMAPS, config_map(&format!("early-{made}")));
        made += 1;
        seen.extend(told.try_iter());
        (!seen.is_empty()).then_some(())
    });
    for i in 0..30 {
        let object = a.post(CONFIGMAPS, config_map(&format!("c-{i}")));
        let read = b.get(&format!("{CONFIGMAPS}/c-{i}"));
        assert_eq!(read, object, "b shows what a has acknowledged");
    }
    until("the watch at b shows all", || {
        seen.extend(told.try_iter());
        (0..30).all(|i| seen.contains(&format!("configmap/c-{i}"))).then_some(())
    });
    watch.kill().unwrap();
    watch.wait().unwrap();
    drop(told);
    reader.join().unwrap();
    // Both give addresses at the same time, and never one twice.
    let services: Vec<Value> = std::thread::scope(|scope| {
        let (from_a, from_b) = (scope.spawn(|| services(&a, "a")), scope.spawn(|| services(&b, "b")));
        from_a.join().unwrap().into_iter().chain(from_b.join().unwrap()).collect()
    });
    let addresses: BTreeSet<&str> = services.iter().map(|s| s["spec"]["clusterIP"].as_str().unwrap()).collect();
    let ports: BTreeSet<i64> = services.iter().map(|s| s["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (50, 50));
    // A hub of another cluster, and a second process on one directory, are refused in a sentence.
    let told = command(&dir.path().join("stranger"), &etcd).output().unwrap();
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && text.contains("store.keys"), "{text}");
    let told = command(&a.dir, &etcd).output().unwrap();
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && text.contains("in use"), "{text}");
    // A copy of everything is a file for a hub alone.
    let file = dir.path().join("all.tar");
    let snapshot = Command::new(env!("CARGO_BIN_EXE_limpet"))
        .args(["hub", "snapshot"])
        .arg(&file)
        .arg("--data-dir")
        .arg(&b.dir)
        .output()
        .unwrap();
    assert!(snapshot.status.success(), "{}", String::from_utf8_lossy(&snapshot.stderr));
}

fn rotate(hub: &Hub) -> Result<String, String> {
    let done = Command::new(env!("CARGO_BIN_EXE_limpet")).args(["hub", "rotate-key", "--data-dir"]).arg(&hub.dir).output();
    let done = done.unwrap();
    let (told, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(told.into_owned()) } else { Err(error.into_owned()) }
}

/// Lines of the key file that hold a key.
fn keys(hub: &Hub) -> Vec<String> {
    let text = std::fs::read_to_string(hub.dir.join("store.keys")).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn both_hubs_get_a_new_key_for_secrets_and_none_that_is_away_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let Some((etcd, a, mut b)) = two(dir.path()) else { return };
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"word": format!("plain-{name}")}})
    };
    for i in 0..120 {
        a.post(SECRETS, secret(&format!("s-{i}")));
    }
    let before = keys(&a);
    assert_eq!(keys(&b), before);
    let in_etcd = |name: &str| etcd.etcdctl(&["get", "--hex", &format!("/limpet/objects/core/secrets/default/{name}")]);
    let sealed = in_etcd("s-0");
    // Others write meanwhile, at both hubs.
    let writer = |hub: &Hub, mark: &'static str| {
        let client = hub.client.clone();
        std::thread::spawn(move || {
            for i in 0..40 {
                let (code, told) = ask(&client, "POST", SECRETS, Some(secret(&format!("{mark}-{i}")))).unwrap();
                assert_eq!(code, 201, "{told}");
            }
        })
    };
    let writers = [writer(&a, "a"), writer(&b, "b")];
    let told = until("the keys are changed", || rotate(&b).ok());
    writers.into_iter().for_each(|w| w.join().unwrap());
    assert!(told.contains("sealed"), "{told}");
    let after = keys(&a);
    assert_eq!((after.len(), &after), (1, &keys(&b)), "one key, the same at both");
    assert_ne!(after, before);
    assert_ne!(in_etcd("s-0"), sealed);
    for hub in [&a, &b] {
        let all = hub.get(SECRETS)["items"].as_array().unwrap().len();
        assert_eq!(all, 200);
        for name in ["s-0", "s-119", "a-39", "b-39"] {
            let value = hub.get(&format!("{SECRETS}/{name}"));
            assert_eq!(value["metadata"]["name"], name);
        }
    }
    // A third directory with the old key cannot read what is there, and says so.
    let stale = dir.path().join("stale");
    share_keys(&a.dir, &stale);
    std::fs::write(stale.join("store.keys"), before.join("\n")).unwrap();
    let told = command(&stale, &etcd).output().unwrap();
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && text.contains("store.keys"), "{text}");
    // A hub that is away would be locked out.
    b.kill();
    let identity = b.identity();
    let told = until("the hub that is away is named", || rotate(&a).err());
    assert!(told.contains(&identity), "{told}");
    assert_eq!(keys(&a), after);
    let again = Hub::start(&b.dir.clone(), &etcd);
    assert_eq!(again.get(SECRETS)["items"].as_array().unwrap().len(), 200);
    until("the key is changed again", || rotate(&again).ok());
    assert_eq!(keys(&a), keys(&again));
    assert_ne!(keys(&a), after);
}

#[test]
fn the_leader_is_killed_in_the_middle_of_work_and_the_other_hub_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some((mut etcd, a, b)) = two(dir.path()) else { return };
    let hubs = [a, b];
    let identity = until("a leader", || Some(hubs[0].leader()).filter(|l| !l.is_empty()));
    let [a, b] = hubs;
    let (mut leader, other) = if a.identity() == identity { (a, b) } else { (b, a) };
    assert_eq!(leader.identity(), identity);
    let container = json!([{"name": "c", "image": "i"}]);
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 60, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": container}}}});
    other.post("/apis/apps/v1/namespaces/default/deployments", web);
    // In the middle: some pods are there, mostly not all.
    until("the leader makes pods", || (other.pods() > 0).then_some(()));
    let client = leader.client.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        for i in 0.. {
            match ask(&client, "POST", CONFIGMAPS, Some(config_map(&format!("w-{i}")))) {
                Ok((201, object)) => tell.send(object).unwrap(),
                _ => return i,
            }
        }
        0
    });
    let mut acknowledged: Vec<Value> = told.iter().take(20).collect();
    leader.kill();
    let failed = writer.join().unwrap();
    acknowledged.extend(told.iter());
    assert_eq!(acknowledged.len(), failed);
    for object in &acknowledged {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert_eq!(&other.get(&format!("{CONFIGMAPS}/{name}")), object);
    }
    // etcd is killed, too, before the other one leads.
    etcd.kill();
    etcd.again();
    until("the other hub leads", || (other.leader() == other.identity()).then_some(()));
    until("all pods are there", || (other.pods() == 60).then_some(()));
    let (code, _) = ask(
        &other.client,
        "PUT",
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
        Some(json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 65}})),
    )
    .unwrap();
    assert_eq!(code, 200);
    until("five more", || (other.pods() == 65).then_some(()));
    assert_eq!(other.get("/apis/apps/v1/namespaces/default/replicasets")["items"].as_array().unwrap().len(), 1);
    // The one that was killed comes back as the second, and knows everything.
    let again = Hub::start(&leader.dir.clone(), &etcd);
    assert_eq!(again.pods(), 65);
    assert_eq!(again.leader(), other.identity());
    // One that ends in peace gives the lease back.
    let stopped = Command::new("kill").args(["-TERM", &other.child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    until("the lead moves on", || (again.leader() == again.identity()).then_some(()));
    assert_eq!(again.pods(), 65, "none twice");
}
