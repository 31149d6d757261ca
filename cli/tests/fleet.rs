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
}

impl Hub {
    fn start(scheduler: Option<&str>) -> Hub {
        let dir = tempfile::tempdir().unwrap();
        let mut command = limpet(&["hub"], dir.path());
        command.args(PORTS);
        if let Some(text) = scheduler {
            let file = dir.path().join("scheduler.yaml");
            std::fs::write(&file, text).unwrap();
            command.arg("--scheduler-config").arg(file);
        }
        let hub = Hub { child: command.stderr(Stdio::inherit()).spawn().unwrap(), dir };
        hub.until("ready", |h| h.kubectl(&["get", "--raw", "/readyz"], "").0 == "ok");
        hub
    }

    /// What kubectl prints, and its complaints.
    fn kubectl(&self, args: &[&str], input: &str) -> (String, String) {
        let program = std::env::var_os("LIMPET_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let config = self.dir.path().join("admin.kubeconfig");
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(config)
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
