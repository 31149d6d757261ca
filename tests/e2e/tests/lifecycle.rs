//! A pod's life as kubelet leads it: who starts and stops when, what it is told, what others see of it.
//!
//! In: a world with one board and many pods side by side. Out: statuses, Events and what containers wrote down.

use limpet_e2e::pods::{IMAGE, apply, becomes, condition, container, has_event, merge, ready};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn pod(world: &World, name: &str) -> Result<Value> {
    world.kubectl.json(&format!("get pod {name}"))
}

/// (reason, message) of the pod's Events in the order in which they came.
fn events(world: &World, name: &str) -> Result<Vec<(String, String)>> {
    let words = format!("get events --field-selector involvedObject.name={name}");
    let mut all = world.kubectl.items(&words)?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let order = |e: &Value| {
        (text(&e["firstTimestamp"]), e["metadata"]["resourceVersion"].as_str().map_or(0, |v| v.parse::<u64>().unwrap_or(0)))
    };
    all.sort_by_key(order);
    Ok(all.iter().map(|e| (text(&e["reason"]), text(&e["message"]))).collect())
}

#[test]
fn a_pods_life() {
    let manifests = std::env::temp_dir().join(format!("limpet-e2e-manifests-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&manifests);
    std::fs::create_dir_all(&manifests).unwrap();
    let settings = json!({"restartBackOffSecondsFirst": 1, "restartBackOffSecondsMax": 2, "staticPodDir": manifests});
    test(1, &settings, |world| {
        let shared = world.slot.dir().join("diary");
        std::fs::create_dir_all(&shared).map_err(|e| e.to_string())?;
        let diary = shared.to_string_lossy().into_owned();
        ends_and_beginnings(world, &diary)?;
        restarts(world)?;
        gates(world)?;
        looking_in(world)?;
        new_sizes(world)?;
        figures(world)?;
        scaling(world)?;
        at_the_board(world)?;
        last_words(world)?;
        scaled(world)?;
        of_the_board(world, &manifests)
    });
    let _ = std::fs::remove_dir_all(&manifests);
}

fn volume(diary: &str) -> (Value, Value) {
    (json!([{"name": "d", "hostPath": {"path": diary}}]), json!([{"name": "d", "mountPath": "/d"}]))
}

fn written(diary: &str, file: &str) -> String {
    std::fs::read_to_string(format!("{diary}/{file}")).unwrap_or_default().replace('\n', " ").trim().to_string()
}

/// Order of start and end: init, sidecar, hooks; SIGTERM to all, sidecars last; stopSignal; the grace period.
fn ends_and_beginnings(world: &World, diary: &str) -> Result<()> {
    let (volumes, mounts) = volume(diary);
    let note = |name: &str, more: Value| {
        let line = format!(
            "echo {name}+ >> /d/order; trap 'echo {name}- >> /d/order; exit 0' TERM USR1; while true; do sleep 0.1; done"
        );
        let mut c = container(name, &line, json!({"volumeMounts": mounts}));
        merge(&mut c, more);
        c
    };
    let hook = |word: &str| json!({"exec": {"command": ["sh", "-c", format!("sleep 1; echo {word} >> /d/order")]}});
    let spec = json!({"terminationGracePeriodSeconds": 20, "volumes": volumes, "os": {"name": "linux"},
        "initContainers": [
            container("i", "echo i >> /d/order", json!({"volumeMounts": mounts})),
            note("s1", json!({"restartPolicy": "Always"})),
            note("s2", json!({"restartPolicy": "Always",
                "startupProbe": {"exec": {"command": ["grep", "s2", "/d/order"]}, "periodSeconds": 1, "timeoutSeconds": 20}}))],
        "containers": [
            note("a", json!({"lifecycle": {"postStart": hook("hook"), "preStop": hook("bye"), "stopSignal": "SIGUSR1"}})),
            note("b", json!({}))]});
    apply(world, "order", spec)?;
    let status = ready(world, "order")?["status"].take();
    wait::yes(status["observedGeneration"] == 1 && condition(&status, "Ready")["observedGeneration"] == 1, || {
        status.to_string()
    })?;
    wait::yes(status["containerStatuses"][0]["stopSignal"] == "SIGUSR1", || status.to_string())?;
    has_event(world, "order", "Started", "Container started")?;
    let reasons: Vec<String> = events(world, "order")?.into_iter().map(|(r, _)| r).filter(|r| r != "Pulling").collect();
    wait::yes(reasons.starts_with(&["Scheduled".into(), "Pulled".into(), "Created".into(), "Started".into()]), || {
        format!("{reasons:?}")
    })?;
    world.kubectl.say("delete pod order --timeout=60s")?;
    let order = written(diary, "order");
    wait::yes(order == "i s1+ s2+ a+ hook b+ b- bye a- s2- s1-", || format!("order of start and end: {order}"))?;
    // What does not listen is killed when its time is over.
    apply(
        world,
        "deaf",
        json!({"terminationGracePeriodSeconds": 1, "containers": [
            container("c", "trap '' TERM; while true; do sleep 0.1; done", json!({}))]}),
    )?;
    ready(world, "deaf")?;
    world.kubectl.say("delete pod deaf --timeout=60s")?;
    has_event(world, "deaf", "Killing", "Stopping container c")
}

/// Policies and rules of single containers; probes that restart; a job with a sidecar.
fn restarts(world: &World) -> Result<()> {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({"restartPolicy": "Always", "containers": [
        container("rule", "test -f /tmp/x || exit 42", json!({"restartPolicy": "Never", "restartPolicyRules": rules})),
        container("never", "exit 3", json!({"restartPolicy": "Never"})),
        container("main", "sleep 100000", json!({}))]});
    apply(world, "rules", spec)?;
    let one = |status: &Value, name: &str| {
        let all = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["name"] == name).unwrap_or_default()
    };
    becomes(world, "rules", "restarted by its rule only", |s| {
        one(s, "rule")["restartCount"].as_i64() >= Some(2)
            && one(s, "never")["restartCount"] == 0
            && one(s, "never")["state"]["terminated"]["exitCode"] == 3
            && s["phase"] == "Running"
    })?;
    has_event(world, "rules", "BackOff", "Back-off restarting failed container rule in pod rules_default(")?;
    let live = json!({"livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1,
        "timeoutSeconds": 20, "terminationGracePeriodSeconds": 1}});
    let spec = json!({"terminationGracePeriodSeconds": 3600, "containers": [
        container("c", "trap '' TERM; while true; do sleep 0.1; done", live)]});
    apply(world, "live", spec)?;
    becomes(world, "live", "restarted after the probe's own grace", |s| {
        s["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
            && s["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137
    })?;
    has_event(world, "live", "Unhealthy", "Liveness probe failed: command exited with 1")?;
    has_event(world, "live", "Killing", "Container c failed liveness probe, will be restarted")?;
    let spec = json!({"restartPolicy": "Never", "containers": [container("c", "sleep 1", json!({}))],
        "initContainers": [container("side", "sleep 100000", json!({"restartPolicy": "Always"}))],
        "terminationGracePeriodSeconds": 1});
    apply(world, "job", spec)?;
    becomes(world, "job", "over with its sidecar", |s| {
        s["phase"] == "Succeeded" && condition(s, "Ready")["reason"] == "PodCompleted"
    })?;
    world.kubectl.say("delete pod rules live job --force --grace-period=0").map(|_| ())
}

fn gates(world: &World) -> Result<()> {
    let spec = json!({"readinessGates": [{"conditionType": "example.com/open"}], "terminationGracePeriodSeconds": 0,
        "containers": [container("c", "sleep 100000", json!({}))]});
    apply(world, "gate", spec)?;
    becomes(world, "gate", "held by its gate", |s| {
        condition(s, "ContainersReady")["status"] == "True" && condition(s, "Ready")["reason"] == "ReadinessGatesNotReady"
    })?;
    let conditions = |status: &str| {
        let patch = json!({"status": {"conditions": [{"type": "example.com/open", "status": status}]}});
        world.kubectl.run(&["patch", "pod", "gate", "--subresource=status", "-p", &patch.to_string()])
    };
    conditions("True")?;
    let status = ready(world, "gate")?["status"].take();
    wait::yes(condition(&status, "example.com/open")["status"] == "True", || status.to_string())?;
    conditions("False")?;
    becomes(world, "gate", "shut again", |s| {
        condition(s, "Ready")["message"]
            == "the status of pod readiness gate \"example.com/open\" is not \"True\", but False"
    })?;
    world.kubectl.say("delete pod gate").map(|_| ())
}

/// `kubectl debug`: into a pod, into its container's processes, as a copy, on a node.
fn looking_in(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    apply(
        world,
        "web",
        json!({"terminationGracePeriodSeconds": 0, "containers": [container("main", "exec sleep 123456", json!({}))]}),
    )?;
    ready(world, "web")?;
    let debug = |words: &[&str]| kubectl.run(&[&["debug", "web", "--image", IMAGE, "--quiet"], words].concat());
    debug(&[
        "--container=seer",
        "--target=main",
        "--",
        "sh",
        "-c",
        "tr '\\0' ' ' < /proc/1/cmdline; echo; hostname; sleep 100000",
    ])?;
    let running = |s: &Value, at: usize| s["ephemeralContainerStatuses"][at]["state"]["running"].is_object();
    becomes(world, "web", "looked into", |s| running(s, 0))?;
    until("what the debugger saw", SOON, || {
        let seen = kubectl.say("logs web -c seer")?;
        wait::yes(seen == "sleep 123456 \nweb\n", || seen)
    })?;
    let own = kubectl.run(&["exec", "web", "-c", "seer", "--", "cat", "/proc/1/comm"])?;
    wait::yes(own == "sleep\n", || own)?;
    debug(&["--container=alone", "--", "sh", "-c", "cat /proc/1/comm"])?;
    let status = becomes(world, "web", "the second debugger's end", |s| {
        s["ephemeralContainerStatuses"][1]["state"]["terminated"].is_object()
    })?;
    wait::yes(status["ephemeralContainerStatuses"][1]["state"]["terminated"]["reason"] == "Completed", || {
        status.to_string()
    })?;
    wait::yes(status["containerStatuses"][0]["restartCount"] == 0, || "the container itself was restarted".into())?;
    debug(&["--copy-to=copy", "--share-processes", "--container=seer", "--", "sleep", "100000"])?;
    ready(world, "copy")?;
    let seen = kubectl.run(&["exec", "copy", "-c", "seer", "--", "ps"])?;
    wait::yes(seen.contains("sleep 123456"), || format!("processes of the copy: {seen}"))?;
    kubectl.run(&[
        "debug",
        "node/board-1",
        "--image",
        IMAGE,
        "--quiet",
        "--profile=general",
        "--",
        "sh",
        "-c",
        "ls /host; sleep 100000",
    ])?;
    let on_node = || {
        let all = kubectl.items("get pods")?;
        let text = |p: &Value| p["metadata"]["name"].as_str().unwrap_or_default().to_string();
        all.iter().map(text).find(|n| n.starts_with("node-debugger")).ok_or("no debugger of the node".to_string())
    };
    let name = on_node()?;
    ready(world, &name)?;
    kubectl.run(&["delete", "pod", "web", "copy", &name, "--force", "--grace-period=0"]).map(|_| ())
}

/// In-place resize: the limits of the running container change, and what cannot be waits.
fn new_sizes(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    let sizes = |cpu: &str, memory: &str| {
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
    };
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
        container("c", "sleep 100000", json!({"resources": sizes("100m", "32Mi"),
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "NotRequired"}]}))]});
    apply(world, "size", spec)?;
    ready(world, "size")?;
    let resize = |cpu: &str, memory: &str| {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": sizes(cpu, memory)}]}});
        kubectl.run(&["patch", "pod", "size", "--subresource=resize", "-p", &patch.to_string()])
    };
    resize("200m", "48Mi")?;
    let one = |s: &Value| s["containerStatuses"][0].clone();
    becomes(world, "size", "larger", |s| {
        one(s)["resources"]["limits"] == json!({"cpu": "200m", "memory": "48Mi"})
            && one(s)["restartCount"] == 0
            && condition(s, "PodResizeInProgress").is_null()
            && s["observedGeneration"] == 2
    })?;
    let inside = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    let seen = kubectl.run(&["exec", "size", "--", "sh", "-c", &format!("{inside}; true")])?;
    wait::yes(seen.trim() == (48u64 << 20).to_string(), || format!("memory limit inside: {seen}"))?;
    resize("1000", "48Mi")?;
    becomes(world, "size", "too large for the node", |s| condition(s, "PodResizePending")["reason"] == "Infeasible")?;
    resize("100m", "40Mi")?;
    becomes(world, "size", "smaller", |s| {
        one(s)["resources"]["limits"] == json!({"cpu": "100m", "memory": "40Mi"})
            && condition(s, "PodResizePending").is_null()
    })?;
    let refused = kubectl.output(&[
        "patch",
        "pod",
        "size",
        "--subresource=resize",
        "-p",
        &json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "50m"}}}]}}).to_string(),
    ])?;
    wait::yes(refused.code != 0 && refused.stderr.contains("QOS Class may not change"), || refused.stderr.clone())?;
    kubectl.say("delete pod size").map(|_| ())
}

/// The node's own pages and `kubectl top`.
fn figures(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    let busy = json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "300m", "memory": "64Mi"}},
        "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 20}});
    apply(
        world,
        "busy",
        json!({"terminationGracePeriodSeconds": 0, "containers": [
        container("spin", "while true; do :; done", busy), container("rest", "sleep 100000", json!({}))]}),
    )?;
    ready(world, "busy")?;
    let raw = |page: &str| kubectl.say(&format!("get --raw /api/v1/nodes/board-1/proxy{page}"));
    let summary: Value = serde_json::from_str(&raw("/stats/summary")?).map_err(|e| e.to_string())?;
    let pod = summary["pods"].as_array().into_iter().flatten().find(|p| p["podRef"]["name"] == "busy").cloned();
    let pod = pod.ok_or_else(|| format!("no pod in {summary}"))?;
    let spin = pod["containers"].as_array().into_iter().flatten().find(|c| c["name"] == "spin").cloned().unwrap_or_default();
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    wait::yes(
        number(&spin["cpu"]["usageNanoCores"]) > 20_000_000 && number(&spin["memory"]["workingSetBytes"]) > 10_000,
        || spin.to_string(),
    )?;
    wait::yes(
        number(&summary["node"]["memory"]["workingSetBytes"]) > 0
            && number(&summary["node"]["fs"]["capacityBytes"]) > 0
            && number(&pod["network"]["rxBytes"]) + number(&pod["network"]["txBytes"]) < 1 << 40
            && pod["network"]["name"] == "eth0",
        || pod.to_string(),
    )?;
    for (page, words) in [
        ("/healthz", "ok"),
        ("/metrics", "kubelet_running_pods "),
        ("/metrics", "kubelet_node_name{node=\"board-1\"} 1"),
        ("/metrics/resource", "container_cpu_usage_seconds_total{container=\"spin\",namespace=\"default\",pod=\"busy\"}"),
        ("/metrics/resource", "node_memory_working_set_bytes "),
        ("/metrics/probes", "prober_probe_total{container=\"spin\",namespace=\"default\",pod=\"busy\",pod_uid="),
        ("/metrics/probes", "probe_type=\"Readiness\",result=\"successful\"} "),
        ("/metrics/cadvisor", "container_memory_working_set_bytes{container=\"rest\",id=\"/"),
        ("/metrics/cadvisor", "container_network_receive_bytes_total{container=\"\",id=\"/"),
        ("/metrics/cadvisor", "container_network_receive_packets_total{container=\"\",id=\"/"),
        ("/metrics/cadvisor", "container_network_transmit_packets_dropped_total{container=\"\",id=\"/"),
        ("/pods", "\"phase\":\"Running\""),
        ("/configz", "KubeletConfiguration"),
        ("/logs/", "<pre>"),
    ] {
        let text = raw(page)?;
        wait::yes(text.contains(words), || format!("{page} has no {words}: {text}"))?;
    }
    took(&raw("/metrics")?)?;
    let bad = kubectl.output(&["get", "--raw", "/api/v1/nodes/board-1/proxy/logs/%2e%2e/%2e%2e/etc/passwd"])?;
    wait::yes(bad.code != 0, || bad.stdout.clone())?;
    let top = kubectl.say("top pod busy --containers --no-headers")?;
    let cpu = |name: &str| {
        let line = top.lines().find(|l| l.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(2)?.strip_suffix('m')?.parse::<u64>().ok()
    };
    wait::yes(cpu("spin").is_some_and(|m| (20..=400).contains(&m)) && cpu("rest").is_some_and(|m| m < 20), || top.clone())?;
    let top = kubectl.say("top node --no-headers")?;
    wait::yes(top.starts_with("board-1 ") && top.contains('%'), || top.clone())?;
    kubectl.say("delete pod busy").map(|_| ())
}

/// What the usual dashboard of kubelets asks for besides: each operation once in its histogram, pods by the time of their start.
fn took(page: &str) -> Result<()> {
    let value = |sample: &str| -> Result<f64> {
        let line = page.lines().find_map(|l| l.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).ok_or_else(|| format!("no {sample} in {page}"))
    };
    let of = |name: &str, more: &str| {
        value(&format!("kubelet_runtime_operations_{name}{{operation_type=\"start_container\"{more}}}"))
    };
    let (all, timed) = (of("total", "")?, of("duration_seconds_count", "")?);
    let (sum, last) = (of("duration_seconds_sum", "")?, of("duration_seconds_bucket", ",le=\"+Inf\"")?);
    wait::yes(all > 0.0 && all == timed && timed == last && sum > 0.0, || format!("{all} {timed} {last} {sum}"))?;
    let below = |bound: &str| value(&format!("kubelet_pod_start_duration_seconds_bucket{{le=\"{bound}\"}}"));
    let (hour, pods) = (below("3600")?, value("kubelet_pod_start_duration_seconds_count")?);
    wait::yes(hour > 0.0 && hour == pods && pods <= all, || format!("{hour} of {pods} pods within an hour"))?;
    let rounds = value("kubelet_pod_worker_duration_seconds_count{operation_type=\"sync\"}")?;
    let volumes = |state: &str| {
        let kind = "plugin_name=\"kubernetes.io/projected\"";
        value(&format!("volume_manager_total_volumes{{{kind},state=\"{state}_state_of_world\"}}"))
    };
    let (wanted, there) = (volumes("desired")?, volumes("actual")?);
    let left = value("kubelet_certificate_manager_client_ttl_seconds")?;
    let year = 366.0 * 86_400.0;
    wait::yes(rounds > pods && there > 0.0 && there <= wanted && left > 0.0 && left <= year, || {
        format!("{rounds} rounds, {there} of {wanted} volumes, {left} seconds")
    })
}

/// An autoscaler sees what its pods use.
fn scaling(world: &World) -> Result<()> {
    let spin = container(
        "c",
        "while true; do :; done",
        json!({"resources": {"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}}}),
    );
    let labels = json!({"app": "hot"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hot"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [spin]}}}});
    world.kubectl.apply(&deployment.to_string())?;
    world.kubectl.say("autoscale deployment hot --min=1 --max=2 --cpu-percent=50").map(|_| ())
}

fn scaled(world: &World) -> Result<()> {
    until("the autoscaler", Duration::from_secs(240), || {
        let hpa = world.kubectl.json("get hpa hot")?;
        wait::yes(
            hpa["status"]["desiredReplicas"] == 2
                && hpa["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"].as_i64() > Some(50),
            || hpa["status"].to_string(),
        )
    })?;
    world.kubectl.say("delete deployment,hpa hot").map(|_| ())
}

/// `limpet-agent ps|logs|exec|images|doctor` on the device, without the hub.
fn at_the_board(world: &World) -> Result<()> {
    apply(
        world,
        "here",
        json!({"terminationGracePeriodSeconds": 0, "containers": [
        container("c", "echo one; echo two; sleep 100000", json!({}))]}),
    )?;
    ready(world, "here")?;
    let board = &world.agents[0];
    let pid = board.agent_process()?.pid.to_string();
    let on_board = |words: &[&str]| {
        let (data, run) = (board.data.to_string_lossy(), board.run.to_string_lossy());
        let program = world.binaries.agent.to_string_lossy();
        let enter = ["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--", &program, "--data-dir", &data, "--run-dir", &run];
        limpet_e2e::process::run(std::process::Command::new("nsenter").args(enter).args(words))
    };
    let text = |words: &[&str]| on_board(words)?.ok(&words.join(" "));
    let ps = text(&["ps"])?;
    wait::yes(ps.contains("here") && ps.contains("running (pid"), || ps.clone())?;
    let log = text(&["logs", "here", "--tail", "1"])?;
    wait::yes(log == "two\n", || log.clone())?;
    let said = on_board(&["exec", "here/c", "--", "sh", "-c", "hostname; exit 7"])?;
    wait::yes(said.code == 7 && said.stdout == "here\n", || format!("{said:?}"))?;
    let images = text(&["images"])?;
    wait::yes(images.contains("hub.limpet/busybox:1") && images.contains("MiB"), || images.clone())?;
    let report = on_board(&["doctor", "--json"])?;
    let report: Value = serde_json::from_str(&report.stdout).map_err(|e| format!("{e}: {}", report.stdout))?;
    let all = report["findings"].as_array().cloned().unwrap_or_default();
    let mut areas: Vec<String> =
        all.iter().map(|f| f["area"].as_str().unwrap_or_default().to_string()).filter(|a| a != "board").collect();
    areas.dedup();
    wait::yes(areas == ["kernel", "control groups", "clock", "disk", "network", "hub", "certificates"], || {
        format!("{areas:?}")
    })?;
    let good = |area: &str| all.iter().any(|f| f["area"] == area && f["verdict"] == "ok");
    wait::yes(good("hub") && good("certificates") && good("network"), || report.to_string())?;
    wait::yes(all.iter().all(|f| f["verdict"] == "ok" || f["remedy"].as_str().is_some_and(|r| !r.is_empty())), || {
        report.to_string()
    })?;
    world.kubectl.say("delete pod here").map(|_| ())
}

/// Static pods: a file on the board runs, the API shows its mirror, and only the file ends it.
fn of_the_board(world: &World, dir: &std::path::Path) -> Result<()> {
    let kubectl = &world.kubectl;
    let asked = world.slot.dir().join("asked");
    std::fs::create_dir_all(&asked).map_err(|e| e.to_string())?;
    let volume = asked.to_string_lossy();
    let manifest = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: own\n  labels: {{app: own}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
             volumes: [{{name: d, hostPath: {{path: {volume}}}}}]\n  \
             containers:\n  - name: c\n    image: {IMAGE}\n    volumeMounts: [{{name: d, mountPath: /d}}]\n    \
             command: [sh, -c, \"trap 'echo > /d/{word}; exit 0' TERM; echo {word}; sleep 100000 & wait\"]\n"
        )
    };
    let write = |word: &str| std::fs::write(dir.join("own.yaml"), manifest(word)).map_err(|e| e.to_string());
    write("first")?;
    ready(world, "own-board-1")?;
    let seen = pod(world, "own-board-1")?;
    let meta = &seen["metadata"];
    wait::yes(
        meta["annotations"]["kubernetes.io/config.source"] == "file"
            && meta["ownerReferences"][0]["kind"] == "Node"
            && seen["spec"]["nodeName"] == "board-1",
        || seen.to_string(),
    )?;
    // It is ready from its shell's start on; what the shell says and starts comes later.
    let before = until("the first words", SOON, || {
        let (said, sleeps) = (kubectl.say("logs own-board-1")?, world.named("sleep"));
        wait::yes(said == "first\n" && !sleeps.is_empty(), || format!("{said:?} {sleeps:?}"))?;
        Ok(sleeps)
    })?;
    kubectl.say("delete pod own-board-1 --wait=false")?;
    until("the mirror's return", SOON, || {
        let now = pod(world, "own-board-1")?;
        wait::yes(now["metadata"]["uid"] != meta["uid"] && now["status"]["phase"] == "Running", || now.to_string())
    })?;
    wait::yes(world.named("sleep") == before, || "deleting the mirror touched the pod".to_string())?;
    write("second")?;
    until("the changed pod", SOON, || {
        let said = kubectl.say("logs own-board-1")?;
        wait::yes(said == "second\n", || said)
    })?;
    // Changed while no agent looks: the next one finds a pod that nobody knows, which is asked to end all the same.
    let agent = world.agents[0].agent_process()?.pid.to_string();
    limpet_e2e::process::sh("kill", ["-STOP", &agent])?;
    write("third")?;
    limpet_e2e::process::sh("kill", ["-9", &agent])?;
    until("the pod that was changed in the dark", SOON, || {
        let said = kubectl.say("logs own-board-1")?;
        wait::yes(said == "third\n", || said)
    })?;
    wait::yes(asked.join("second").exists(), || "the pod that nobody knows was killed without a word".to_string())?;
    std::fs::remove_file(dir.join("own.yaml")).map_err(|e| e.to_string())?;
    until("the end of the pod without a file", SOON, || {
        let left = kubectl.items("get pods -l app=own")?.len();
        wait::yes(left == 0 && world.named("sleep").is_empty(), || format!("{left} pods"))
    })
}

/// Termination messages: from the file, from the log, also after the agent itself was replaced.
fn last_words(world: &World) -> Result<()> {
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let spec = |line: &str| {
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [container("c", line, fallback.clone())]})
    };
    apply(world, "loud", spec("echo from the log; exit 1"))?;
    // It ends when it is told, however long that takes.
    let dir = world.slot.dir().join("late");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut late = spec("until test -e /told/now; do sleep 0.1; done; echo much later; exit 1");
    let told = json!({"volumes": [{"name": "told", "hostPath": {"path": dir}}]});
    merge(&mut late, told);
    late["containers"][0]["volumeMounts"] = json!([{"name": "told", "mountPath": "/told"}]);
    apply(world, "late", late)?;
    let said = |s: &Value, words: &str| s["containerStatuses"][0]["state"]["terminated"]["message"] == words;
    becomes(world, "loud", "last words", |s| said(s, "from the log\n"))?;
    becomes(world, "late", "running", |s| s["phase"] == "Running")?;
    let line = "test -f /s/x || { touch /s/x; exit 1; }; sleep 100000";
    let stay = json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "s", "emptyDir": {}}],
        "containers": [container("c", line, json!({"volumeMounts": [{"name": "s", "mountPath": "/s"}]}))]});
    apply(world, "stay", stay)?;
    let restarted = |s: &Value| {
        s["containerStatuses"][0]["restartCount"].as_i64() >= Some(1) && s["containerStatuses"][0]["ready"] == true
    };
    let before = becomes(world, "stay", "restarted once", restarted)?;
    let shut = json!({"readinessProbe": {"exec": {"command": ["test", "-e", "/open"]}, "timeoutSeconds": 20}});
    let shut = json!({"terminationGracePeriodSeconds": 0, "containers": [container("c", "sleep 100000", shut)]});
    apply(world, "shut", shut)?;
    let unready = becomes(world, "shut", "started, and not ready", |s| s["containerStatuses"][0]["started"] == true)?;
    let agent = world.agents[0].agent_process()?;
    let pid = agent.pid.to_string();
    // Its last words are in the pipe while nobody is there to read them.
    limpet_e2e::process::sh("kill", ["-9", &pid])?;
    std::fs::write(dir.join("now"), []).map_err(|e| e.to_string())?;
    until("the next agent", SOON, || {
        let now = world.agents[0].agent_process()?;
        wait::yes(now.pid != agent.pid, || format!("{} is the old one", now.pid))
    })?;
    becomes(world, "late", "last words after the agent was replaced", |s| said(s, "much later\n"))?;
    // Whoever watches: the same container since the same time, with the same count.
    let after = pod(world, "stay")?["status"].take();
    wait::yes(after == before, || format!("{before}\n{after}"))?;
    let after = pod(world, "shut")?["status"].take();
    wait::yes(after == unready, || format!("{unready}\n{after}"))?;
    world.kubectl.say("delete pod loud late stay shut").map(|_| ())
}
