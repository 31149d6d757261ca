//! `[sig-apps]` and `[sig-scheduling]` of the conformance suite, with pods that run.
//!
//! In: a world with one board; workloads by kubectl. Out: which pods there are, in which order and revision, and what ended how.

use limpet_e2e::pods::{IMAGE, becomes, condition, has_event, inside, is, merge, one, ready, sleeper};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

pub fn workload(kind: &str, name: &str, line: &str, spec: Value) -> Value {
    let labels = json!({"app": name});
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", line]});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
    let mut whole = json!({"template": template});
    if kind != "Job" {
        whole["selector"] = json!({"matchLabels": labels});
    }
    merge(&mut whole, spec);
    let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": whole})
}

fn apply(world: &World, object: &Value) -> Result<()> {
    world.kubectl.apply(&object.to_string()).map(|_| ())
}

fn pods_of(world: &World, app: &str) -> Result<Vec<Value>> {
    world.kubectl.items(&format!("get pods -l app={app} --sort-by=.metadata.name"))
}

/// Waits until the object (`kind/name`) is as wanted.
fn settled(world: &World, object: &str, what: &str, want: impl Fn(&Value) -> bool) -> Result<Value> {
    until(&format!("{object}: {what}"), SOON, || {
        let now = world.kubectl.json(&format!("get {object}"))?;
        let seen =
            now["status"]["observedGeneration"].is_null() || now["status"]["observedGeneration"] == now["metadata"]["generation"];
        if seen && want(&now) { Ok(now) } else { Err(now["status"].to_string()) }
    })
}

fn patch(world: &World, object: &str, patch: &Value) -> Result<()> {
    world.kubectl.run(&["patch", object, "--type=merge", "-p", &patch.to_string()]).map(|_| ())
}

fn patch_status(world: &World, pod: &str, patch: &Value) -> Result<()> {
    world.kubectl.run(&["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch.to_string()]).map(|_| ())
}

const FOREVER: &str = "exec sleep 1000000";
/// Ready while /tmp/ready is there.
fn gate(object: &mut Value) {
    object["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1});
}

/// Rolling and recreating Deployments, rollover, history; pods of ReplicaSets answer.
pub fn deployments(world: &World) -> Result<()> {
    for (name, strategy) in [("roll", "RollingUpdate"), ("anew", "Recreate")] {
        let spec = json!({"replicas": 2, "revisionHistoryLimit": 1, "strategy": {"type": strategy}});
        apply(world, &workload("Deployment", name, "echo one; exec sleep 1000000", spec))?;
    }
    for name in ["roll", "anew"] {
        world.kubectl.say(&format!("rollout status deployment/{name} --timeout=90s"))?;
        let first = pods_of(world, name)?;
        // A new template before the one before it has settled: the last one wins.
        for version in ["two", "three"] {
            world.kubectl.say(&format!("set env deployment/{name} VERSION={version}"))?;
        }
        world.kubectl.say(&format!("rollout status deployment/{name} --timeout=90s"))?;
        let now = until(&format!("{name}: only new pods"), SOON, || {
            let now = pods_of(world, name)?;
            let new = |p: &Value| p["spec"]["containers"][0]["env"][0]["value"] == "three";
            if now.len() == 2 && now.iter().all(new) { Ok(now) } else { Err(json!(now).to_string()) }
        })?;
        if name == "anew" {
            // No new pod was made before the last old one had gone.
            let began = |p: &Value| p["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_string();
            wait::yes(now.iter().all(|n| first.iter().all(|f| began(n) >= began(f))), || json!(now).to_string())?;
        }
        until(&format!("{name}: one old ReplicaSet is kept"), SOON, || {
            let sets = world.kubectl.items(&format!("get replicasets -l app={name}"))?;
            wait::yes(sets.len() == 2, || format!("{} ReplicaSets", sets.len()))
        })?;
    }
    world.kubectl.say("delete deployment roll anew --timeout=60s").map(|_| ())
}

/// Order, halt, canary, rollback, burst, names that stay.
pub fn stateful_sets(world: &World) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ss"},
        "spec": {"clusterIP": "None", "selector": {"app": "ss"}, "ports": [{"port": 80}]}});
    apply(world, &service)?;
    let mut set =
        workload("StatefulSet", "ss", "touch /tmp/ready; exec sleep 1000000", json!({"replicas": 2, "serviceName": "ss"}));
    gate(&mut set);
    apply(world, &set)?;
    settled(world, "statefulset/ss", "two ready", |s| s["status"]["readyReplicas"] == 2)?;
    in_order(world, "ss-0", "ss-1")?;
    // Halted: while the first is unwell no third is made, and once it is well, later than that.
    inside(world, "ss-0", "rm /tmp/ready")?;
    becomes(world, "ss-0", "not ready", |s| condition(s, "Ready")["status"] == "False")?;
    patch(world, "statefulset/ss", &json!({"spec": {"replicas": 3}}))?;
    settled(world, "statefulset/ss", "seen", |s| s["status"]["readyReplicas"] == 1)?;
    wait::yes(pods_of(world, "ss")?.len() == 2, || "a third pod beside one that is not ready".to_string())?;
    inside(world, "ss-0", "touch /tmp/ready")?;
    settled(world, "statefulset/ss", "three ready", |s| s["status"]["readyReplicas"] == 3)?;
    in_order(world, "ss-0", "ss-2")?;
    is(&inside(world, "ss-2", "hostname")?, "ss-2")?;
    // A canary, the rest, and back.
    let revision = |name: &str| -> Result<String> {
        let pod = world.kubectl.json(&format!("get pod {name}"))?;
        Ok(pod["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap_or_default().to_string())
    };
    let (old, uid) = (revision("ss-0")?, world.kubectl.json("get pod ss-0")?["metadata"]["uid"].clone());
    patch(world, "statefulset/ss", &json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}))?;
    world.kubectl.say("set env statefulset/ss VERSION=two")?;
    let updated = |count: u64| move |s: &Value| s["status"]["updatedReplicas"] == count && s["status"]["readyReplicas"] == 3;
    settled(world, "statefulset/ss", "a canary", updated(1))?;
    let new = revision("ss-2")?;
    wait::yes(new != old && revision("ss-0")? == old && revision("ss-1")? == old, || format!("{old} {new}"))?;
    patch(world, "statefulset/ss", &json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}))?;
    settled(world, "statefulset/ss", "updated", updated(3))?;
    wait::yes(revision("ss-0")? == new, || "ss-0 has the old revision".to_string())?;
    world.kubectl.say("rollout undo statefulset/ss")?;
    settled(world, "statefulset/ss", "back", |s| {
        s["status"]["currentRevision"] == old && s["status"]["readyReplicas"] == 3 && s["status"]["updatedReplicas"] == 3
    })?;
    let back = world.kubectl.json("get pod ss-0")?;
    wait::yes(revision("ss-0")? == old && back["metadata"]["uid"] != uid, || back.to_string())?;
    // Down in the other order; a pod that is deleted comes back by its name.
    patch(world, "statefulset/ss", &json!({"spec": {"replicas": 1}}))?;
    until("only the first", SOON, || {
        let left = pods_of(world, "ss")?;
        wait::yes(left.len() == 1 && left[0]["metadata"]["name"] == "ss-0", || json!(left).to_string())
    })?;
    world.kubectl.say("delete pod ss-0 --timeout=60s")?;
    settled(world, "statefulset/ss", "ready again", |s| s["status"]["readyReplicas"] == 1)?;
    // All at once, also when none gets ready.
    let mut burst =
        workload("StatefulSet", "burst", FOREVER, json!({"replicas": 3, "serviceName": "ss", "podManagementPolicy": "Parallel"}));
    gate(&mut burst);
    apply(world, &burst)?;
    until("three at once", SOON, || {
        let made = pods_of(world, "burst")?;
        let running = made.iter().filter(|p| p["status"]["phase"] == "Running").count();
        wait::yes(running == 3, || json!(made).to_string())
    })?;
    world.kubectl.say("delete statefulset ss burst --timeout=60s").map(|_| ())
}

/// The later pod was made once the earlier one was ready.
fn in_order(world: &World, earlier: &str, later: &str) -> Result<()> {
    let status = world.kubectl.json(&format!("get pod {earlier}"))?["status"].take();
    let ready = condition(&status, "Ready")["lastTransitionTime"].as_str().unwrap_or_default().to_string();
    let made = world.kubectl.json(&format!("get pod {later}"))?["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    wait::yes(!ready.is_empty() && made >= ready, || format!("{later} was made at {made}, {earlier} was ready at {ready}"))
}

/// On every node that is chosen, and on no other; replaced when deleted and when the template changes.
pub fn daemon_sets(world: &World) -> Result<()> {
    let mut set = workload("DaemonSet", "ds", FOREVER, json!({}));
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"color": "blue"});
    apply(world, &set)?;
    let scheduled = |count: u64| {
        move |s: &Value| s["status"]["desiredNumberScheduled"] == count && s["status"]["currentNumberScheduled"] == count
    };
    settled(world, "daemonset/ds", "nowhere", scheduled(0))?;
    world.kubectl.say("label node board-1 color=blue")?;
    let everywhere = |s: &Value| s["status"]["numberAvailable"] == 1 && s["status"]["updatedNumberScheduled"] == 1;
    settled(world, "daemonset/ds", "on the blue one", everywhere)?;
    let name = |world: &World| -> Result<String> {
        let pods = pods_of(world, "ds")?;
        let alive = pods.iter().find(|p| p["metadata"]["deletionTimestamp"].is_null());
        Ok(alive.and_then(|p| p["metadata"]["name"].as_str()).unwrap_or_default().to_string())
    };
    let first = name(world)?;
    world.kubectl.say(&format!("delete pod {first} --timeout=60s"))?;
    settled(world, "daemonset/ds", "again", everywhere)?;
    let second = name(world)?;
    wait::yes(second != first && !second.is_empty(), || second.clone())?;
    // One that failed is taken away and made again.
    patch_status(world, &second, &json!({"status": {"phase": "Failed"}}))?;
    until("a new one", SOON, || name(world).and_then(|now| wait::yes(now != second && !now.is_empty(), || now.clone())))?;
    settled(world, "daemonset/ds", "once more", everywhere)?;
    world.kubectl.say("set env daemonset/ds VERSION=two")?;
    world.kubectl.say("rollout status daemonset/ds --timeout=90s")?;
    let third = world.kubectl.json(&format!("get pod {}", name(world)?))?;
    wait::yes(third["spec"]["containers"][0]["env"][0]["value"] == "two", || third["spec"].to_string())?;
    world.kubectl.say("label node board-1 color=green --overwrite")?;
    settled(world, "daemonset/ds", "nowhere again", scheduled(0))?;
    until("no pod", SOON, || pods_of(world, "ds").and_then(|left| wait::yes(left.is_empty(), || json!(left).to_string())))?;
    world.kubectl.say("delete daemonset ds --timeout=60s").map(|_| ())
}

/// Indexes, local restarts, policies for failures and successes, suspension, adoption.
pub fn jobs(world: &World) -> Result<()> {
    let job = |name: &str, line: &str, restart: &str, spec: Value| {
        let mut job = workload("Job", name, line, spec);
        job["spec"]["template"]["spec"]["restartPolicy"] = json!(restart);
        job["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        apply(world, &job)
    };
    let indexed = |more: Value| {
        let mut spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 6});
        merge(&mut spec, more);
        spec
    };
    job("indexed", "hostname; echo index $JOB_COMPLETION_INDEX", "Never", indexed(json!({})))?;
    job("locally", "[ -e /v/tried ] || { touch /v/tried; exit 1; }", "OnFailure", json!({"completions": 2, "parallelism": 2}))?;
    let odd = "[ $((JOB_COMPLETION_INDEX % 2)) = 0 ]";
    job("each", odd, "Never", indexed(json!({"completions": 4, "parallelism": 4, "backoffLimitPerIndex": 1})))?;
    job("stops", "[ $JOB_COMPLETION_INDEX = 2 ] && exec sleep 1000000; exit 1", "Never",
        indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1})))?;
    let index = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]});
    job("marks", "[ $JOB_COMPLETION_INDEX != 1 ] || exit 42", "Never",
        indexed(json!({"backoffLimitPerIndex": 1, "podFailurePolicy": index})))?;
    let first = "[ $JOB_COMPLETION_INDEX = 0 ] || exec sleep 1000000";
    for (name, line, rule) in [("one", first, json!({"succeededIndexes": "0"})), ("some", first, json!({"succeededCount": 1})),
        ("all", "true", json!({"succeededIndexes": "0-2"}))] {
        job(name, line, "Never", indexed(json!({"successPolicy": {"rules": [rule]}})))?;
    }
    evicted(world)?;
    let rules = |action: &str| json!({"backoffLimit": 3,
        "podFailurePolicy": {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}});
    job("fails", "exit 42", "Never", rules("FailJob"))?;
    job("waits", FOREVER, "Never", json!({"suspend": true}))?;
    let ended = |name: &str, kind: &str, reason: &str| {
        settled(world, &format!("job/{name}"), kind, |job| {
            let found = condition(&job["status"], kind);
            found["status"] == "True" && (reason.is_empty() || found["reason"] == reason)
        })
    };
    let all = ended("indexed", "Complete", "")?;
    wait::yes(all["status"]["completedIndexes"] == "0-2" && all["status"]["succeeded"] == 3, || all["status"].to_string())?;
    for pod in pods_of(world, "indexed")? {
        let index =
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap_or_default().to_string();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        is(&world.kubectl.say(&format!("logs {name}"))?, &format!("indexed-{index}\nindex {index}"))?;
    }
    ended("locally", "Complete", "")?;
    let counts: Vec<Value> = pods_of(world, "locally")?.iter().map(|p| one(&p["status"], "c")["restartCount"].clone()).collect();
    wait::yes(counts == [json!(1), json!(1)], || format!("{counts:?}"))?;
    for (name, completed) in [("one", "0"), ("some", "0"), ("all", "0-2")] {
        ended(name, "SuccessCriteriaMet", "SuccessPolicy")?;
        let job = ended(name, "Complete", "SuccessPolicy")?;
        wait::yes(job["status"]["completedIndexes"] == completed, || job["status"].to_string())?;
    }
    for (name, reason, failed, pods, completed) in [("marks", "FailedIndexes", "1", 1, json!("0,2")),
        ("stops", "MaxFailedIndexesExceeded", "0,1", 3, json!("")), ("each", "FailedIndexes", "1,3", 4, json!("0,2"))] {
        let status = ended(name, "Failed", reason)?["status"].take();
        // (The pod of the third index counts, too, where it ended by being stopped.)
        let indexes = status["failedIndexes"] == failed || name == "stops" && status["failedIndexes"] == "0-2";
        let right = indexes && status["failed"] == pods;
        wait::yes(right && status.get("completedIndexes").unwrap_or(&json!("")) == &completed, || status.to_string())?;
    }
    let fails = ended("fails", "Failed", "PodFailurePolicy")?;
    wait::yes(fails["status"]["failed"] == 1, || fails["status"].to_string())?;
    // Suspended: no pod; then one, which is released with its label and adopted again.
    ended("waits", "Suspended", "")?;
    wait::yes(pods_of(world, "waits")?.is_empty(), || "a suspended job has pods".to_string())?;
    patch(world, "job/waits", &json!({"spec": {"suspend": false}}))?;
    let pod = until("the pod", SOON, || pods_of(world, "waits")?.pop().ok_or_else(|| "none".to_string()))?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
    ready(world, &name)?;
    // Older by whole seconds than the one that comes in its place: of two the younger one goes.
    std::thread::sleep(Duration::from_secs(2));
    let owner = |want: bool| {
        until(&format!("{name}: owned {want}"), SOON, || {
            let pod = world.kubectl.json(&format!("get pod {name}"))?;
            wait::yes(pod["metadata"]["ownerReferences"].is_array() == want, || pod["metadata"].to_string())
        })
    };
    let uid = world.kubectl.json("get job waits")?["metadata"]["uid"].as_str().unwrap_or_default().to_string();
    for (label, owned) in [("batch.kubernetes.io/controller-uid-", false), ("", true)] {
        let put = format!("batch.kubernetes.io/controller-uid={uid}");
        world.kubectl.say(&format!("label pod {name} {}", if label.is_empty() { put.as_str() } else { label }))?;
        owner(owned)?;
    }
    world.kubectl.say("delete job indexed locally each stops marks one some all evicted fails waits --timeout=60s")?;
    until("no pods of jobs", SOON, || {
        let left = world.kubectl.items("get pods -l batch.kubernetes.io/job-name")?;
        wait::yes(left.is_empty(), || json!(left).to_string())
    })
}

/// A pod that is evicted does not count as failed where the policy says so: it is made again, although no failure is allowed.
fn evicted(world: &World) -> Result<()> {
    let shared = world.slot.dir().join("evicted");
    std::fs::create_dir_all(&shared).map_err(|e| e.to_string())?;
    let line = "[ -e /shared/$JOB_COMPLETION_INDEX ] || { touch /shared/$JOB_COMPLETION_INDEX; exec sleep 1000000; }";
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}}]);
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", line],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
    let template = json!({"metadata": {"labels": {"app": "evicted"}}, "spec": {"restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0, "containers": [container],
        "volumes": [{"name": "shared", "hostPath": {"path": shared}}]}});
    apply(world, &workload("Job", "evicted", line, json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "backoffLimit": 0, "podFailurePolicy": {"rules": rules}, "template": template})))?;
    until("both marks", SOON, || {
        let marks = std::fs::read_dir(&shared).map(|all| all.count()).unwrap_or(0);
        wait::yes(marks == 2, || format!("{marks} marks"))
    })?;
    for pod in pods_of(world, "evicted")? {
        evict(world, pod["metadata"]["name"].as_str().unwrap_or_default())?.ok("eviction")?;
    }
    let job = settled(world, "job/evicted", "complete", |job| condition(&job["status"], "Complete")["status"] == "True")?;
    wait::yes(job["status"]["succeeded"] == 2 && job["status"].get("failed").is_none_or(|f| f == 0), || job["status"].to_string())
}

/// A taint that has pods go: each after as long as it tolerates it; not those that still had time when the taint went.
fn tainted(world: &World) -> Result<()> {
    for (name, seconds) in [("brief", 3), ("patient", 15)] {
        let tolerates = json!([{"key": "gone", "effect": "NoExecute", "operator": "Exists", "tolerationSeconds": seconds}]);
        sleeper(world, name, json!({}), json!({"tolerations": tolerates}))?;
        ready(world, name)?;
    }
    let began = std::time::Instant::now();
    world.kubectl.say("taint node board-1 gone=now:NoExecute")?;
    until("the brief one to go", SOON, || {
        let left = world.kubectl.say("get pods brief --ignore-not-found")?;
        wait::yes(left.is_empty(), || left.clone())
    })?;
    let (waited, kind) = (began.elapsed(), "--ignore-not-found -o jsonpath={.metadata.deletionTimestamp}{.status.phase}");
    world.kubectl.say("taint node board-1 gone-")?;
    let left = world.kubectl.say(&format!("get pod patient {kind}"))?;
    wait::yes(waited > Duration::from_secs(2) && left == "Running", || format!("brief went after {waited:?}; patient: {left}"))?;
    std::thread::sleep(Duration::from_secs(17).saturating_sub(began.elapsed()));
    let left = world.kubectl.say(&format!("get pod patient {kind}"))?;
    wait::yes(left == "Running", || format!("patient: {left}"))
}

fn evict(world: &World, name: &str) -> Result<limpet_e2e::process::Output> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    world.kubectl.with_input(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())
}

/// Where pods may be, who is not let in, who has to go.
pub fn placement(world: &World) -> Result<()> {
    let node = world.kubectl.json("get node board-1")?;
    let cpu = node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_string();
    let milli = cpu.strip_suffix('m').map_or_else(|| cpu.parse::<u64>().unwrap_or(0) * 1000, |m| m.parse().unwrap_or(0));
    let ask = |share: u64| json!({"resources": {"requests": {"cpu": format!("{}m", milli * share / 100)}}});
    sleeper(world, "too-large", ask(150), json!({}))?;
    has_event(world, "too-large", "FailedScheduling", "Insufficient cpu")?;
    sleeper(world, "elsewhere", json!({}), json!({"nodeSelector": {"label": "nonempty"}}))?;
    has_event(world, "elsewhere", "FailedScheduling", "didn't match Pod's node affinity/selector")?;
    world.kubectl.say("label node board-1 label=nonempty")?;
    ready(world, "elsewhere")?;
    let port = |ip: &str, protocol: &str| json!({"ports": [{"containerPort": 80,
        "hostPort": 54321, "hostIP": ip, "protocol": protocol}]});
    for (name, ip, protocol) in [("port-a", "127.0.0.1", "TCP"), ("port-b", "127.0.0.2", "TCP"), ("port-c", "127.0.0.2", "UDP")] {
        sleeper(world, name, port(ip, protocol), json!({}))?;
        ready(world, name)?;
    }
    sleeper(world, "port-d", port("0.0.0.0", "TCP"), json!({}))?;
    has_event(world, "port-d", "FailedScheduling", "didn't have free ports")?;
    // The more important one gets the place of the less important one; so does a critical one.
    let class =
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000});
    apply(world, &class)?;
    sleeper(world, "low", ask(60), json!({}))?;
    ready(world, "low")?;
    let finalizers = |list: Value| patch(world, "pod/low", &json!({"metadata": {"finalizers": list}}));
    finalizers(json!(["example.com/stays"]))?;
    sleeper(world, "high", ask(60), json!({"priorityClassName": "high"}))?;
    becomes(world, "low", "made to go, and told why", |s| {
        let told = condition(s, "DisruptionTarget");
        told["reason"] == "PreemptionByScheduler" && told["status"] == "True"
    })?;
    finalizers(json!([]))?;
    ready(world, "high")?;
    until("the less important one to be gone", SOON, || {
        let left = world.kubectl.say("get pods low --ignore-not-found")?;
        wait::yes(left.is_empty(), || left.clone())
    })?;
    let mut critical = limpet_e2e::pods::manifest(
        "critical",
        json!({"priorityClassName": "system-cluster-critical",
        "containers": [limpet_e2e::pods::container("c", FOREVER, ask(60))]}),
    );
    critical["metadata"]["namespace"] = json!("kube-system");
    apply(world, &critical)?;
    world.kubectl.say("wait --for=condition=Ready pod/critical -n kube-system --timeout=90s")?;
    // A budget for disruptions holds an eviction back until it allows it.
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "elsewhere"}}}});
    apply(world, &budget)?;
    settled(world, "poddisruptionbudget/b", "counted", |b| b["status"]["currentHealthy"] == 1)?;
    let held = evict(world, "elsewhere")?;
    wait::yes(held.code != 0 && held.stderr.contains("disruption budget"), || format!("{held:?}"))?;
    patch(world, "poddisruptionbudget/b", &json!({"spec": {"minAvailable": 0}}))?;
    until("the eviction", SOON, || evict(world, "elsewhere")?.ok("eviction").map(|_| ()))?;
    tainted(world)?;
    world.kubectl.say("delete pod critical -n kube-system --ignore-not-found --timeout=60s")?;
    world.kubectl.say("delete pod --all --timeout=60s").map(|_| ())
}
