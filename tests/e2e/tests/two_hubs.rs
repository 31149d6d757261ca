//! Two hubs on one etcd and a board that is connected to one of them: everything works at the other one, and the board outlives
//! its hub.
//!
//! In: etcd, two hubs, a board. Out: what kubectl says at the hub that the board is not connected to; processes on the board.

use limpet_e2e::images::{self, Target};
use limpet_e2e::process::{Daemon, Process, run, sh, which};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Agent, Binaries, Hub, Kubectl, Result, Slot, net, until, wait};
use serde_json::json;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const PODS: &str = "/api/v1/namespaces/default/pods";
const FIGURES: &str = "/apis/metrics.k8s.io/v1beta1";

/// The order of the fields is the order of the end.
struct Pair {
    agent: Agent,
    hubs: [Hub; 2],
    kubectls: [Kubectl; 2],
    _etcd: Daemon,
    etcd_at: String,
    slot: Slot,
}

impl Pair {
    fn new(binaries: &Binaries) -> Result<Pair> {
        let slot = Slot::take()?;
        let (first, second) = (net::bridge(&slot)?, slot.address(2));
        sh("ip", ["address", "add", &format!("{second}/24"), "dev", &slot.bridge()])?;
        let etcd_at = format!("{first}:2379");
        let etcd = etcd(&slot, &first)?;
        let mut hubs = [(&first, "hub"), (&second, "hub-2")].map(|(address, name)| {
            let mut hub = Hub::new(&slot, binaries.hub.clone(), address);
            hub.dir = slot.dir().join(name);
            hub.log = slot.dir().join(format!("{name}.log"));
            hub.more = vec!["--store".into(), format!("etcd://{etcd_at}")];
            hub
        });
        hubs[0].start()?;
        let (from, to) = (hubs[0].dir.clone(), hubs[1].dir.clone());
        sh("mkdir", ["-p", &to.to_string_lossy()])?;
        for name in ["pki", "store.keys"] {
            sh("cp", ["-rp", &from.join(name).to_string_lossy(), &to.to_string_lossy()])?;
        }
        hubs[1].start()?;
        let kubectls = [Kubectl::new(&hubs[0].kubeconfig())?, Kubectl::new(&hubs[1].kubeconfig())?];
        let address = net::board(&slot, 1)?;
        let agent = Agent::new(&slot, binaries.agent.clone(), 1, address, json!({}))?;
        Ok(Pair { agent, hubs, kubectls, _etcd: etcd, etcd_at, slot })
    }

    /// Which hub has the board; `None` while none has.
    fn holder(&self) -> Result<Option<usize>> {
        let endpoint = format!("--endpoints={}", self.etcd_at);
        let key = "/limpet/objects/limpet/links/-/board-1";
        let told = run(Command::new("etcdctl").env("ETCDCTL_API", "3").args([&endpoint, "get", key]))?.ok("etcdctl")?;
        let is = |hub: &Hub| std::fs::read_to_string(hub.dir.join("hub.id")).is_ok_and(|id| told.contains(id.trim()));
        Ok(self.hubs.iter().position(is))
    }

    /// kubectl at the hub that does not have the board.
    fn other(&self) -> Result<&Kubectl> {
        let holder = until("a hub that has the board", SOON, || self.holder()?.ok_or_else(|| "none".into()))?;
        Ok(&self.kubectls[1 - holder])
    }

    fn node_ready(&mut self, at: usize) -> Result<()> {
        let kubectl = &self.kubectls[at];
        until("the board Ready", SOON, || {
            let node = kubectl.json("get node board-1")?;
            wait::yes(is_ready(&node), || node["status"]["conditions"].to_string())
        })
    }

    fn logs(&self) -> String {
        let tail = |path| limpet_e2e::process::tail(path, 3000);
        let (first, second) = (tail(&self.hubs[0].log), tail(&self.hubs[1].log));
        format!("--- hub 1\n{first}--- hub 2\n{second}--- board\n{}", self.agent.log_tail())
    }
}

fn etcd(slot: &Slot, address: &str) -> Result<Daemon> {
    let (client, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
    let (dir, members) = (slot.dir().join("etcd"), format!("default={peer}"));
    let words: Vec<&OsStr> = vec![
        "etcd".as_ref(),
        "--data-dir".as_ref(),
        dir.as_os_str(),
        "--listen-client-urls".as_ref(),
        client.as_ref(),
        "--advertise-client-urls".as_ref(),
        client.as_ref(),
        "--listen-peer-urls".as_ref(),
        peer.as_ref(),
        "--initial-advertise-peer-urls".as_ref(),
        peer.as_ref(),
        "--initial-cluster".as_ref(),
        members.as_ref(),
    ];
    let mark = slot.mark();
    Daemon::start(&words, &[(mark.0, mark.1.as_str())], &slot.dir().join("etcd.log"))
}

/// With both hubs' addresses in it: the board has to know both before one of them goes.
fn token(pair: &Pair) -> Result<String> {
    until("a token that names both hubs", SOON, || {
        let token = pair.hubs[0].token(&[])?;
        let text = images::decode_base64url(token.split_once('.').map_or("", |(_, rest)| rest))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let both = pair.hubs.iter().all(|hub| text.contains(&format!("{}:", hub.address)));
        wait::yes(both, || text).map(|()| token)
    })
}

fn web() -> String {
    let script = "mkdir -p /www && head -c 700000 /dev/urandom > /www/file && echo hello && echo there && exec httpd -f -p 8080 -h /www";
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"limpet.dev/keep-logs": "64Ki"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]}})
    .to_string()
}

/// Ends when somebody has said something to it.
fn listener(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "hub.limpet/busybox:1", "stdin": true, "stdinOnce": true,
                "command": ["sh", "-c", "read line; echo \"got $line\""]}]}})
    .to_string()
}

/// Every stream by way of a hub that does not have the board; `turn` is in the names of pods.
fn streams(pair: &Pair, kubectl: &Kubectl, turn: &str) -> Result<()> {
    let said = kubectl.say("logs web -c main")?;
    wait::yes(said == "hello\nthere\n", || format!("logs: {said:?}"))?;
    let said = kubectl.run(&["exec", "web", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    wait::yes(said.as_ref().is_err_and(|why| why.contains("exit code 7: out\nerr")), || format!("exec: {said:?}"))?;
    // More than the credit of a lane, both ways at once.
    let much: String = (0..120_000).map(|n| format!("{n:07}\n")).collect();
    let back = kubectl.with_input(&["exec", "-i", "web", "-c", "main", "--", "cat"], &much)?.ok("exec cat")?;
    wait::yes(back == much, || format!("{} of {} bytes came back", back.len(), much.len()))?;
    let log = pair.slot.dir().join("forward.log");
    let (forward, port) = kubectl.forward("pod/web", 8080, &log)?;
    let url = format!("http://127.0.0.1:{port}/file");
    let fetched = Command::new("curl").args(["-sS", "--noproxy", "*", "--max-time", "60", &url]).output();
    let fetched = fetched.map_err(|e| e.to_string())?.stdout.len();
    wait::yes(fetched == 700_000, || format!("{fetched} bytes through port-forward"))?;
    forward.kill();
    let name = format!("listener-{turn}");
    kubectl.apply(&listener(&name))?;
    kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"))?;
    let attached = kubectl.with_input(&["attach", "-i", &name], "word\n");
    wait::yes(attached.as_ref().is_ok_and(|o| o.stdout.contains("got word")), || format!("attach: {attached:?}"))?;
    let missing = kubectl.run(&["get", "--raw", &format!("{PODS}/web:8080/proxy/nothing")]);
    wait::yes(missing.as_ref().is_err_and(|why| why.contains("NotFound")), || format!("proxy: {missing:?}"))?;
    let summary = kubectl.run(&["get", "--raw", "/api/v1/nodes/board-1/proxy/stats/summary"])?;
    wait::yes(summary.contains("\"web\""), || format!("stats: {summary}"))?;
    for path in ["nodes/board-1", "namespaces/default/pods/web"] {
        let figures = kubectl.run(&["get", "--raw", &format!("{FIGURES}/{path}")])?;
        wait::yes(figures.contains("\"memory\""), || format!("{path}: {figures}"))?;
    }
    Ok(())
}

/// Processes of the pod's containers.
fn inside(agent: &Agent) -> Result<Vec<Process>> {
    let all = agent.named("httpd");
    wait::yes(!all.is_empty(), || "no httpd on the board".into()).map(|()| all)
}

fn life(pair: &mut Pair) -> Result<()> {
    // Each hub has one of two images; boards ask both registries.
    Target::hub(&pair.hubs[0], &pair.slot.dir())?.push("busybox", "1", &images::busybox()?)?;
    Target::hub(&pair.hubs[1], &pair.slot.dir())?.push("busybox-2", "1", &images::busybox()?)?;
    let token = token(pair)?;
    pair.agent.start(Some(&token))?;
    pair.node_ready(0)?;
    pair.kubectls[1].apply(&web())?;
    pair.kubectls[0].say("wait --for=condition=Ready pod/web --timeout=120s")?;
    pair.kubectls[0].say("run second --image=hub.limpet/busybox-2:1 --restart=Never -- true")?;
    pair.kubectls[0].say("wait --for=jsonpath={.status.phase}=Succeeded pod/second --timeout=120s")?;
    streams(pair, pair.other()?, "before")?;

    // The board goes: the hub that did not have it shows what the other one has kept.
    let other = usize::from(pair.holder()? == Some(0));
    until("the kept lines", SOON, || {
        let kept = pair.hubs[1 - other].dir.join("logs");
        let found = Command::new("grep").args(["-rl", "there"]).arg(&kept).output().map_err(|e| e.to_string())?;
        wait::yes(!found.stdout.is_empty(), || "nothing is kept".into())
    })?;
    net::cable(&pair.slot, 1, false)?;
    until("kept logs at the other hub", SOON, || {
        let out = pair.kubectls[other].output(&["logs", "web", "-c", "main"])?;
        let told = out.stdout == "hello\nthere\n" && out.stderr.contains("Warning: node board-1 is away");
        wait::yes(told, || format!("{out:?}"))
    })?;
    net::cable(&pair.slot, 1, true)?;
    pair.node_ready(0)?;

    // Its hub is killed: the board goes to the other one and nothing on it notices.
    let before = inside(&pair.agent)?;
    let holder = until("a hub that has the board", SOON, || pair.holder()?.ok_or_else(|| "none".into()))?;
    let follower = format!("follow-{holder}.log");
    let mut follow = pair.kubectls[1 - holder].start(&["logs", "-f", "web", "-c", "main"], &pair.slot.dir().join(follower))?;
    until("the followed log", SOON, || {
        let text = limpet_e2e::process::tail(&follow.log, 1000);
        wait::yes(text.contains("there"), || text)
    })?;
    pair.hubs[holder].kill();
    until("the board at the other hub", SOON, || {
        let at = pair.holder()?;
        wait::yes(at == Some(1 - holder), || format!("{at:?}"))
    })?;
    until("the follower's end", SOON, || {
        wait::yes(follow.check().is_err(), || "kubectl logs -f hangs at a hub that is gone".into())
    })?;
    pair.node_ready(1 - holder)?;
    let kubectl = &pair.kubectls[1 - holder];
    until("logs at the hub that is left", SOON, || {
        let said = kubectl.say("logs web -c main")?;
        wait::yes(said == "hello\nthere\n", || said)
    })?;
    let pod = kubectl.json("get pod web")?;
    let restarts: Vec<u64> = pod["status"]["containerStatuses"].as_array().into_iter().flatten()
        .filter_map(|c| c["restartCount"].as_u64()).collect();
    wait::yes(restarts == [0] && is_ready(&pod), || pod["status"].to_string())?;
    let after = inside(&pair.agent)?;
    wait::yes(after == before, || format!("{before:?} became {after:?}"))?;

    // It comes back as the one that does not have the board.
    pair.hubs[holder].start()?;
    streams(pair, &pair.kubectls[holder], "after")
}

#[test]
fn what_the_board_does_is_seen_at_both_hubs_and_outlives_one() {
    let no_etcd = || which("etcd").is_none().then(|| "needs etcd: run `cargo xtask setup`".to_string());
    if let Some(why) = limpet_e2e::missing().or_else(no_etcd) {
        println!("skipped: {why}");
        return;
    }
    let mut pair = Binaries::build("dev").and_then(|binaries| Pair::new(&binaries)).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = life(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}
