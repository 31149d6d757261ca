//! Tools that others made, against the real API: the official Python client, an operator on kopf, Helm 4.
//!
//! In: `target/tools/python` and `target/tools/helm`, which `cargo xtask setup` fetches. Without them a test says
//! so and is skipped. Out: what the tool did is looked at through the API.
//! Never: a node: what a kubelet would write, the test writes.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use support::Cluster;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn tool(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools").join(name);
    if !path.exists() {
        eprintln!("skipped: no {}; `cargo xtask setup` fetches it", path.display());
        return None;
    }
    path.canonicalize().ok()
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)
}

fn python(c: &Cluster, packages: &Path) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("KUBECONFIG", &c.kubeconfig).env("HOME", c.dir.path());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn good(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}\n{err}", output.status);
    out.into_owned()
}

/// Looks until what is wanted is there.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < ends, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_python_client_is_at_home() {
    let Some(packages) = tool("python") else { return };
    let c = Cluster::start();
    let said = good(&python(&c, &packages).arg(here("informers.py")).output().unwrap());
    assert!(said.contains("all well"), "{said}");
}

/// Ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_operator_on_kopf_runs() {
    let Some(packages) = tool("python") else { return };
    let c = Cluster::start();
    let log = std::fs::File::create(c.dir.path().join("kopf.log")).unwrap();
    let mut command = python(&c, &packages);
    command.args(["-m", "kopf", "run", "--standalone", "-n", "default"]).arg(here("operator.py"));
    let _running = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let ask = |text: &str| json!({"metadata": {"name": "q", "labels": {"ask": "1"}}, "data": {"question": text}});
    c.json("POST", MAPS, ask("what"));
    let said = || std::fs::read_to_string(c.dir.path().join("kopf.log")).unwrap_or_default();
    let answer = || c.get(&format!("{MAPS}/answer-q")).1["data"]["answer"].clone();
    until(&format!("an answer: {}", said()), || answer() == "WHAT");
    let (_, made) = c.get(&format!("{MAPS}/answer-q"));
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "q");
    until("the operator's own notes", || {
        let (_, asked) = c.get(&format!("{MAPS}/q"));
        asked["metadata"]["annotations"]["kopf.zalando.org/last-handled-configuration"].is_string()
            && asked["metadata"]["finalizers"][0] == "example.com/kopf"
    });
    let patch = json!({"data": {"question": "why"}}).to_string();
    c.raw("PATCH", &format!("{MAPS}/q"), &[("Content-Type", "application/merge-patch+json")], patch.as_bytes());
    until("the other answer", || answer() == "WHY");
    c.raw("DELETE", &format!("{MAPS}/q"), &[], b"");
    until("both gone", || c.get(&format!("{MAPS}/answer-q")).0 == 404 && c.get(&format!("{MAPS}/q")).0 == 404);
}

fn helm(c: &Cluster, program: &Path, words: &[&str]) -> Output {
    let home = c.dir.path();
    let mut command = Command::new(program);
    command.args(words).env("KUBECONFIG", &c.kubeconfig).env("HOME", home).env("HELM_CACHE_HOME", home);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn helm_installs_upgrades_rolls_back_tests_and_removes() {
    let Some(program) = tool("helm") else { return };
    let c = Cluster::start();
    let chart = here("chart");
    let chart = chart.to_str().unwrap();
    let run = |words: &[&str]| good(&helm(&c, &program, words));
    let path = |rest: &str| format!("/apis/apps/v1/namespaces/default/deployments/{rest}");
    let replicas = || c.get(&path("sea-web")).1["spec"]["replicas"].clone();

    run(&["install", "sea", chart, "--wait=hookOnly", "--set", "replicas=2"]);
    assert_eq!(replicas(), 2);
    assert_eq!(c.get(&format!("{MAPS}/sea-before")).1["data"]["revision"], "1");
    assert_eq!(c.get("/apis/policy/v1/namespaces/default/poddisruptionbudgets/sea-web").0, 200);
    // The chart's definition comes first, so that its object is one of a kind that is known; the default is the definition's.
    let (tide, definition) = ("/apis/sea.example.org/v1/namespaces/default/tides/sea-tide", "tides.sea.example.org");
    let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition}");
    let height = || c.get(tide).1["spec"].clone();
    assert_eq!((c.get(&definition).0, height()), (200, json!({"height": 3, "unit": "m"})));
    let twice = helm(&c, &program, &["install", "sea", chart, "--wait=hookOnly"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("still in use"), "{twice:?}");

    run(&["upgrade", "sea", chart, "--wait=hookOnly", "--set", "replicas=5,greeting=ahoy,height=5"]);
    assert_eq!(height(), json!({"height": 5, "unit": "m"}));
    assert_eq!((replicas(), c.get(&format!("{MAPS}/sea-words")).1["data"]["greeting"].clone()), (json!(5), json!("ahoy")));
    assert_eq!(c.get(&format!("{MAPS}/sea-before")).1["data"]["revision"], "2");
    // Helm applies on the server's side: it owns what is in the chart.
    let managers = c.get(&path("sea-web")).1["metadata"]["managedFields"].clone();
    assert!(managers.as_array().unwrap().iter().any(|m| m["operation"] == "Apply"), "{managers}");

    let bad = helm(&c, &program, &["upgrade", "sea", chart, "--wait=hookOnly", "--set", "height=-1"]);
    let words = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(!bad.status.success() && words.contains("spec.height in body should be greater than or equal to 0"), "{words}");
    run(&["rollback", "sea", "1", "--wait=hookOnly"]);
    assert_eq!((replicas(), c.get(&format!("{MAPS}/sea-words")).1["data"]["greeting"].clone()), (json!(2), json!("hello")));
    let history: Value = serde_json::from_str(&run(&["history", "sea", "-o", "json"])).unwrap();
    assert_eq!((history.as_array().unwrap().len(), height()["height"].clone()), (4, json!(3)));

    // The test's pod ends well as soon as it is there: the kubelet's word, given by us.
    let pod = "/api/v1/namespaces/default/pods/sea-ask";
    std::thread::scope(|scope| {
        let testing = scope.spawn(|| helm(&c, &program, &["test", "sea", "--timeout", "2m"]));
        until("the test's pod", || c.get(pod).0 == 200);
        let status = json!({"status": {"phase": "Succeeded"}}).to_string();
        let form = [("Content-Type", "application/merge-patch+json")];
        assert_eq!(c.raw("PATCH", &format!("{pod}/status"), &form, status.as_bytes()).0, 200);
        assert!(good(&testing.join().unwrap()).contains("Phase:          Succeeded"));
    });

    run(&["uninstall", "sea", "--wait=hookOnly"]);
    assert_eq!((c.get(&path("sea-web")).0, c.get(&format!("{MAPS}/sea-words")).0), (404, 404));
    assert_eq!(run(&["list", "-q"]).trim(), "");
    // Definitions in crds/ outlive their chart, as Helm promises: other objects of theirs would go with them.
    assert_eq!((c.get(tide).0, c.get(&definition).0), (404, 200));
}
