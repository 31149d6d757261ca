//! Pools, rollouts and questions on a running hub, as people use them: with kubectl and `limpet why`.
//!
//! In: the real binaries. Out: what they print. Boards are only Node objects here. Never: waits for time to pass.

#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(120);
const PORTS: [&str; 6] =
    ["--api-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];

struct Hub {
    child: Child,
    dir: tempfile::TempDir,
    more: Vec<String>,
}

impl Hub {
    fn start(scheduler: Option<&str>) -> Hub {
        let dir = tempfile::tempdir().unwrap();
        let mut more = Vec::new();
        if let Some(text) = scheduler {
            let file = dir.path().join("scheduler.yaml");
            std::fs::write(&file, text).unwrap();
            more = vec!["--scheduler-config".to_owned(), file.to_str().unwrap().to_owned()];
        }
        let hub = Hub { child: spawn(dir.path(), &more), dir, more };
        hub.until("ready", |h| h.kubectl(&["get", "--raw", "/readyz"], "").0 == "ok");
        hub
    }

    /// kill -9, and a new one in the same directory.
    fn killed_and_started(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.dir.path(), &self.more);
        self.until("ready again", |h| h.kubectl(&["get", "--raw", "/readyz"], "").0 == "ok");
    }

    /// What kubectl prints, and its complaints.
    fn kubectl(&self, args: &[&str], input: &str) -> (String, String) {
        let program = std::env::var_os("LIMPET_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let config = self.dir.path().join("admin.kubeconfig");
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(config)
            // What servers of other tests could do at the same port is kept in the home directory.
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

    fn apply(&self, text: &str) {
        let (out, err) = self.kubectl(&["apply", "-f", "-"], text);
        assert!(err.is_empty(), "{out}{err}");
    }

    fn get(&self, what: &[&str]) -> String {
        let mut args = vec!["get"];
        args.extend(what);
        let (out, err) = self.kubectl(&args, "");
        assert!(err.is_empty(), "{what:?}: {err}");
        out
    }

    fn why(&self, what: &str) -> String {
        let out = limpet(&["why", what], self.dir.path()).output().unwrap();
        stdout(&out)
    }

    fn until(&self, what: &str, holds: impl Fn(&Hub) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < LONG, "never: {what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, more: &[String]) -> Child {
    limpet(&["hub"], dir).args(PORTS).args(more).stderr(Stdio::inherit()).spawn().unwrap()
}

fn limpet(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
    command.args(args).arg("--data-dir").arg(dir).env_remove("LIMPET_LOG").env_remove("KUBECONFIG");
    command
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn node(name: &str, role: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{role: {role}, kubernetes.io/hostname: {name}}}\n---\n"
    )
}

const POOL: &str = "
apiVersion: limpet.dev/v1
kind: NodePool
metadata: {name: tills}
spec:
  selector: {matchLabels: {role: till}}
  labels: {net: metered}
  offline: {lostAfter: 15m, replace: true, reconcile: keep-original}
";

fn rollout(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: limpet.dev/v1\nkind: FleetRollout\nmetadata: {{name: {name}}}\nspec:\n  target: {{kind: ConfigMap, \
         selector: {{matchLabels: {{app: till}}}}}}\n  change: {{data: {{price: \"2\"}}}}\n{rest}\n"
    )
}

#[test]
fn pools_and_rollouts_are_kubernetes_objects() {
    let hub = Hub::start(None);
    hub.apply(&(node("n1", "till") + &node("n2", "till") + &node("n3", "sign") + POOL));
    hub.until("the pool counts", |h| h.get(&["nodepool", "tills", "-o", "jsonpath={.status.nodes}"]) == "2");
    let table = hub.get(&["nodepools"]);
    assert!(table.starts_with("NAME    NODES   READY   OFFLINE   LOST AFTER   AGE\ntills   2       0"), "{table}");
    hub.until("nodes are dressed", |h| h.get(&["nodes", "-l", "net=metered,limpet.dev/pool=tills", "-o", "name"])
        == "node/n1\nnode/n2\n");
    for i in 0..4 {
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{i}, labels: {{app: till, shop: s{}}}}}\ndata: \
             {{price: \"1\"}}\n",
            i / 2
        );
        hub.apply(&map);
    }
    hub.apply(&rollout("prices", "  paused: true\n  waves: [{name: first, percent: 25, soak: 1s}]"));
    hub.until("it is seen", |h| h.get(&["fleetrollout", "prices"]).contains("Paused"));
    assert!(hub.why("fleetrollout/prices").contains("Paused: paused; 0 of 4 are updated"));
    let (out, err) = hub.kubectl(&["patch", "fr", "prices", "--type=merge", "-p", "{\"spec\":{\"paused\":false}}"], "");
    assert!(out.contains("patched"), "{err}");
    let (out, err) = hub.kubectl(&["wait", "fleetrollout/prices", "--for=condition=Complete", "--timeout=120s"], "");
    assert!(out.contains("condition met"), "{err}");
    assert_eq!(hub.get(&["cm", "-l", "app=till", "-o", "jsonpath={.items[*].data.price}"]), "2 2 2 2");
    let table = hub.get(&["fr", "-o", "wide"]);
    assert!(table.contains("ConfigMap/app=till") && table.contains("4/4"), "{table}");
    let explained = hub.kubectl(&["explain", "fleetrollout.spec.budget.groupBy"], "").0;
    assert!(explained.contains("A label whose value makes a group"), "{explained}");
    let described = hub.kubectl(&["describe", "fr", "prices"], "").0;
    assert!(described.contains("all 4 are updated and healthy") && described.contains("Price:"), "{described}");
    assert!(hub.why("node/n1").contains("it belongs to pool tills"));
    let (_, err) = hub.kubectl(&["apply", "-f", "-"], &rollout("bad", "  waves: [{soak: soon}]"));
    assert!(err.contains("spec.waves[0].soak: Invalid value: \"soon\": must be a span of time"), "{err}");
    let (_, err) = hub.kubectl(&["apply", "-f", "-"], &rollout("bad", "  wavs: []"));
    assert!(err.contains("unknown field \"spec.wavs\""), "{err}");
    let (_, err) = hub.kubectl(&["patch", "fr", "prices", "--type=merge", "-p", "{\"spec\":{\"change\":{\"data\":null}}}"], "");
    assert!(err.contains("make another FleetRollout"), "{err}");
}

#[test]
fn a_pod_that_waits_says_why_and_profiles_come_from_a_file() {
    let hub = Hub::start(Some(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: \
         default-scheduler\n- schedulerName: packs\n  pluginConfig:\n  - name: NodeResourcesFit\n    args: \
         {scoringStrategy: {type: MostAllocated}}\n",
    ));
    hub.apply(&node("n1", "till"));
    for (name, scheduler) in [("usual", "default-scheduler"), ("packed", "packs"), ("foreign", "another")] {
        hub.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  schedulerName: {scheduler}\n  \
             tolerations: [{{operator: Exists}}]\n  nodeSelector: \
             {{disk: ssd}}\n  containers: [{{name: c, image: \"i:1\"}}]\n"
        ));
    }
    let condition = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
    for name in ["usual", "packed"] {
        hub.until("it says why", |h| {
            h.get(&["pod", name, "-o", condition])
                .starts_with("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
        });
    }
    assert_eq!(hub.get(&["pod", "foreign", "-o", condition]), "");
    let why = hub.why("pod/usual");
    assert!(why.contains("none of the 1 will take it") && why.contains("node n1: node(s) didn't match"), "{why}");
    assert!(hub.why("pod/foreign").contains("waits for a scheduler called \"another\""));
    let events = hub.get(&["events", "--field-selector", "reason=FailedScheduling"]);
    assert!(events.contains("pod/usual") && !events.contains("pod/foreign"), "{events}");
    let metrics = hub.get(&["--raw", "/metrics"]);
    assert!(metrics.contains("scheduler_pending_pods{queue=\"unschedulable\"} 2"));
    let none = limpet(&["why", "pod/nobody"], hub.dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("not found"), "{none:?}");
}

#[test]
fn a_wrong_scheduler_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.yaml");
    std::fs::write(&file, "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{plugins: \
        {filter: {disabled: [{name: NodePort}]}}}]\n").unwrap();
    let out = limpet(&["hub"], dir.path()).args(PORTS).arg("--scheduler-config").arg(&file).output().unwrap();
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && words.contains("s.yaml") && words.contains("no plugin \"NodePort\""), "{words}");
}

fn config_map(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: till{labels}}}}}\ndata: {{price: \"1\"}}\n---\n")
}

/// The hub is killed while the first wave soaks: the soak goes on from when it began, and no wave is left out.
#[test]
fn a_hub_that_is_killed_in_the_middle_of_a_wave_goes_on_there() {
    let mut hub = Hub::start(None);
    let maps: String = (0..3).map(|i| config_map(&format!("c{i}"), "")).collect();
    hub.apply(&(config_map("first", ", ring: canary") + &maps));
    let waves = "  waves: [{name: canary, selector: {matchLabels: {ring: canary}}, soak: 8s}]\n  budget: {maxUnavailable: 3}";
    hub.apply(&rollout("prices", waves));
    let status = |h: &Hub, field: &str| h.get(&["fr", "prices", "-o", &format!("jsonpath={{.status.{field}}}")]);
    hub.until("the canary soaks", |h| status(h, "phase") == "Soaking");
    let (reached, started) = (status(&hub, "waveReachedAt"), status(&hub, "startedAt"));
    hub.killed_and_started();
    let now = status(&hub, "waveReachedAt");
    // On a machine that takes so long for a start that the soak is over, it is not there any more.
    assert!(now == reached || now.is_empty(), "{now}, before it was killed {reached}");
    let prices = |h: &Hub| h.get(&["cm", "-l", "app=till", "-o", "jsonpath={.items[*].data.price}"]);
    hub.until("it is complete", |h| status(h, "phase") == "Complete");
    assert_eq!((prices(&hub), status(&hub, "startedAt")), ("2 2 2 2".to_owned(), started));
    let done: jiff::Timestamp = status(&hub, "completedAt").parse().unwrap();
    let begun: jiff::Timestamp = status(&hub, "startedAt").parse().unwrap();
    assert!(done.as_second() - begun.as_second() >= 8, "the canary soaked all of its time");
}

#[test]
fn impossible_rollouts_and_pools_are_refused_by_name() {
    let hub = Hub::start(None);
    let many = "{}, ".repeat(10_000);
    for (rest, words) in [
        ("  waves: [{percent: -5}]".to_owned(), "spec.waves[0].percent: Invalid value: -5: must be 1 to 100"),
        (format!("  waves: [{many}]"), "spec.waves: Invalid value: 10000: at most 100 waves"),
        ("  windows: [{start: \"02:00\", end: \"02:00\"}]".to_owned(), "spec.windows[0].end"),
        (
            "  windows: [{start: \"02:00\", end: \"03:00\", timeZone: Mars/Base}]".to_owned(),
            "spec.windows[0].timeZone: Invalid value: \"Mars/Base\": is not a time zone that is known",
        ),
        ("  budget: {maxUnavailable: 0}".to_owned(), "spec.budget.maxUnavailable: Invalid value: 0: must be 1 or more"),
        ("  success: {deadline: soon}".to_owned(), "spec.success.deadline: Invalid value: \"soon\": must be a span of time"),
    ] {
        let (out, err) = hub.kubectl(&["create", "-f", "-"], &rollout("bad", &rest));
        assert!(err.contains(words) && out.is_empty(), "{words}: {}", &err[..err.len().min(1000)]);
    }
    let pool = POOL.replace("net: metered", "role: sign");
    let (_, err) = hub.kubectl(&["create", "-f", "-"], &pool);
    assert!(err.contains("spec.labels[role]: Forbidden: is what the pool selects its boards by"), "{err}");
    let (_, err) = hub.kubectl(&["create", "-f", "-"], &POOL.replace("15m", "banana"));
    assert!(err.contains("spec.offline.lostAfter: Invalid value: \"banana\""), "{err}");

    hub.apply(&node("n1", "till"));
    let (out, err) = hub.kubectl(&["annotate", "node", "n1", "limpet.dev/lost-after=banana"], "");
    assert!(out.contains("annotated"), "{err}");
    let warning = "Warning: metadata.annotations[limpet.dev/lost-after]: \"banana\" cannot be read and counts as never";
    assert!(err.contains(warning), "{err}");
    assert!(hub.why("node/n1").contains("\"banana\" cannot be read"));
    let (_, err) = hub.kubectl(&["label", "node", "n1", "a=b"], "");
    assert!(!err.contains("banana"), "said once: {err}");
}

/// What people do with any kind: apply on the server's side, edit, describe with Events, ask why.
#[test]
fn the_kinds_of_the_fleet_are_handled_like_any_other() {
    let hub = Hub::start(None);
    hub.apply(&node("n1", "till"));
    let (out, err) = hub.kubectl(&["apply", "--server-side", "-f", "-"], POOL);
    assert!(out.contains("nodepool.limpet.dev/tills serverside-applied"), "{err}");
    let (_, err) = hub.kubectl(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &POOL.replace("15m", "20m"));
    assert!(err.contains("conflict") && err.contains(".spec.offline.lostAfter"), "{err}");
    hub.until("the node joined", |h| h.kubectl(&["describe", "node", "n1"], "").0.contains("Node belongs to pool tills"));
    let (out, err) = edit(&hub, "nodepool", "tills", "s/15m/25m/");
    assert!(out.contains("edited"), "{err}");
    assert!(hub.get(&["pool"]).contains("25m"));
    assert!(hub.why("nodepool/tills").contains("pods of boards that are away for 25m are replaced elsewhere"));

    hub.apply(&config_map("c0", ""));
    hub.apply(&rollout("prices", "  waves: [{name: canary, selector: {matchLabels: {ring: canry}}}]"));
    hub.until("it says so", |h| h.get(&["fr", "prices", "-o", "wide"]).contains("selects none of them"));
    let described = hub.kubectl(&["describe", "fleetrollout", "prices"], "").0;
    let events = described.split("Events:").nth(1).unwrap_or_default();
    assert!(events.contains("Waiting") && events.contains("correct its selector"), "{described}");
    let (out, _) = hub.kubectl(&["events", "--for", "fleetrollout/prices"], "");
    assert!(out.contains("FleetRollout/prices"), "{out}");
    let (out, err) = edit(&hub, "fleetrollout", "prices", "s/canry/canary/");
    assert!(out.contains("edited"), "{err}");
    hub.kubectl(&["label", "cm", "c0", "ring=canary"], "");
    let (out, err) = hub.kubectl(&["wait", "fr/prices", "--for=jsonpath={.status.phase}=Complete", "--timeout=60s"], "");
    assert!(out.contains("condition met"), "{err}");
    for (subject, words) in [
        ("service/kubernetes", "somebody else keeps its endpoints"),
        ("namespace/default", "it is in use"),
        ("ns/default", "it is in use"),
    ] {
        assert!(hub.why(subject).contains(words), "{}", hub.why(subject));
    }
}

fn edit(hub: &Hub, kind: &str, name: &str, script: &str) -> (String, String) {
    let program = std::env::var_os("LIMPET_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(hub.dir.path().join("admin.kubeconfig"));
    command.arg("--cache-dir").arg(hub.dir.path().join("cache")).args(["edit", kind, name]);
    let out = command.env("EDITOR", format!("sed -i {script}")).env_remove("KUBE_EDITOR").output().unwrap();
    (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}
