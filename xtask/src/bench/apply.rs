//! From a pod's creation at the API to its container running, image present.
//!
//! In: a board that has the image. Out: the middle and the ninetieth percentile.
//! A watch in the background stamps what it hears; the clock starts before the POST is sent by a client that is already
//! connected to nothing: its start-up and TLS handshake are part of the figure. Never: a poll interval in the figure.

use super::{Figure, middle};
use limpet_e2e::{Binaries, World, until};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

const IMAGE: &str = "hub.limpet/demo-web:1";

pub fn deployment(name: &str, replicas: usize) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "web", "image": IMAGE, "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}}]}}},
    })
    .to_string()
}

pub fn run(world: &World, _: &Binaries, count: usize) -> Result<Vec<Figure>, String> {
    let access = Access::new(world)?;
    let (sender, heard) = mpsc::channel();
    let mut watch = access.curl(&["--no-buffer", &access.url("/api/v1/namespaces/default/pods?watch=1")]);
    let mut watch = Stop(watch.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start curl: {e}"))?);
    let lines = BufReader::new(watch.0.stdout.take().ok_or("curl has no output")?).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let at = Instant::now();
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let pod = &event["object"];
            let running = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
            if running && sender.send((name, at)).is_err() {
                return;
            }
        }
    });
    let mut times = Vec::new();
    for number in 0..count.max(3) {
        times.push(one(&access, &heard, &format!("timed-{number}"))?);
    }
    // Others may be there, and stay.
    let _ = world.kubectl.say("delete pods -l timed=yes --wait=false");
    until("no pods", Duration::from_secs(60), || {
        let left = world.kubectl.items("get pods -l timed=yes")?;
        if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len())) }
    })?;
    // The first one pays for what is loaded lazily.
    let (p50, p90) = middle(&mut times[1..]);
    let measured = format!("p50 {p50:.0} ms, p90 {p90:.0} ms, client's start included");
    Ok(vec![Figure::new("apply → running, image present", measured, "p50 ≤ 200 ms")])
}

fn one(access: &Access, heard: &mpsc::Receiver<(String, Instant)>, name: &str) -> Result<f64, String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"timed": "yes"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": IMAGE}]},
    });
    let url = access.url("/api/v1/namespaces/default/pods");
    let body = pod.to_string();
    let started = Instant::now();
    let arguments = ["--request", "POST", "--header", "Content-Type: application/json", "--data", &body, &url];
    let out = access.curl(&arguments).output().map_err(|e| format!("cannot start curl: {e}"))?;
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    if answer["kind"] != "Pod" {
        return Err(format!("the hub did not take the pod: {answer}"));
    }
    loop {
        let (who, at) = heard
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| format!("{name} does not run after a minute"))?;
        if who == name {
            return Ok(at.saturating_duration_since(started).as_secs_f64() * 1000.0);
        }
    }
}

struct Stop(Child);
impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// curl with the operator's certificate.
struct Access {
    server: String,
    files: [String; 3],
}

impl Access {
    fn new(world: &World) -> Result<Access, String> {
        let raw = "config view --raw --flatten --minify -o jsonpath=";
        let get = |path: &str| world.kubectl.say(&format!("{raw}{{{path}}}"));
        let server = get(".clusters[0].cluster.server")?;
        let dir = world.slot.dir();
        let mut files = [String::new(), String::new(), String::new()];
        let fields = [
            ".clusters[0].cluster.certificate-authority-data",
            ".users[0].user.client-certificate-data",
            ".users[0].user.client-key-data",
        ];
        for (file, field) in files.iter_mut().zip(fields) {
            let path = dir.join(format!("bench{}.pem", field.rsplit('.').next().unwrap_or_default()));
            let text = get(field)?;
            let pem = limpet_e2e::images::decode_base64(text.trim())?;
            std::fs::write(&path, pem).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            *file = path.to_string_lossy().into_owned();
        }
        Ok(Access { server, files })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.trim())
    }

    fn curl(&self, arguments: &[&str]) -> Command {
        let [ca, cert, key] = &self.files;
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--cacert", ca, "--cert", cert, "--key", key]).args(arguments);
        command
    }
}
