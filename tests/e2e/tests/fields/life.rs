//! How a pod lives: probes of every kind, hooks, restarts by rule, new sizes, ports of the board.
//!
//! In: a world with one board, where restarts wait a second or two. Out: statuses, Events, what containers wrote down.

use limpet_e2e::pods::{
    apply, becomes, condition, container, delete, has, has_event, inside, is, one, ready, rejected, sleeper,
};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What one exchange of `grpc.health.v1.Health/Check` looks like from the server: it keeps the request, and answers with what
/// the file says (1: serving, 2: not).
const GRPC: &str = r#"
head -c 100 > /tmp/asked
printf '\0\0\0\4\0\0\0\0\0'
printf '\0\0\7\0\0\0\0\0\1\0\0\0\0\2\10'; cat /tmp/says
cat > /dev/null"#;
/// An HTTP server that is content with whoever brings the right header.
const HTTP: &str = r#"
ok=
while read -r line; do
    line=$(echo "$line" | tr -d '\r' | tr A-Z a-z)
    [ "$line" = "x-key: open" ] && ok=1
    [ -z "$line" ] && break
done
[ -n "$ok" ] && printf 'HTTP/1.1 200 OK\r\n' || printf 'HTTP/1.1 403 Forbidden\r\n'
printf 'Content-Length: 0\r\nConnection: close\r\n\r\n'"#;

/// gRPC, HTTP with headers, TCP; thresholds; a sidecar's own probe.
pub fn probes(world: &World) -> Result<()> {
    let serve = |port: u16, script: &str| json!(["nc", "-ll", "-p", port.to_string(), "-e", "sh", "-c", script]);
    let soon =
        |kind: &str, handler: Value| json!({kind: handler, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1});
    let grpc = |kind: &str, port: u16| {
        let mut c = json!({"command": ["sh", "-c", "printf '\\1' > /tmp/says; exec \"$@\"", "sh"], "args": serve(5000, GRPC)});
        c[kind] = soon("grpc", json!({"port": port, "service": "shop"}));
        if kind == "livenessProbe" {
            // On a busy machine nobody listens yet when the first one comes.
            c[kind]["failureThreshold"] = json!(5);
        }
        json!({"containers": [container("c", "", c)]})
    };
    apply(world, "grpc", grpc("readinessProbe", 5000))?;
    apply(world, "lives", grpc("livenessProbe", 5000))?;
    apply(world, "dies", grpc("livenessProbe", 5999))?;
    ready(world, "grpc")?;
    becomes(world, "dies", "restarted", |s| one(s, "c")["restartCount"].as_i64() >= Some(1))?;
    let status = ready(world, "lives")?["status"].take();
    wait::yes(one(&status, "c")["restartCount"] == 0, || status.to_string())?;
    has(&inside(world, "grpc", "strings /tmp/asked")?, &["PRI * HTTP/2.0", "/grpc.health.v1.Health/Check"])?;
    inside(world, "grpc", "printf '\\2' > /tmp/says")?;
    has_event(world, "grpc", "Unhealthy", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")?;
    becomes(world, "grpc", "not ready", |s| condition(s, "Ready")["status"] == "False")?;
    inside(world, "grpc", "printf '\\1' > /tmp/says")?;
    ready(world, "grpc")?;
    let get =
        |key: &str| json!({"path": "/", "port": "web", "scheme": "HTTP", "httpHeaders": [{"name": "X-Key", "value": key}]});
    let web = |name: &str, key: &str| {
        container(
            name,
            "",
            json!({"command": serve(5001, HTTP), "ports": [{"name": "web", "containerPort": 5001}],
            "readinessProbe": soon("httpGet", get(key))}),
        )
    };
    apply(world, "good-key", json!({"containers": [web("c", "open")]}))?;
    apply(world, "bad-key", json!({"containers": [web("c", "shut")]}))?;
    ready(world, "good-key")?;
    has_event(world, "bad-key", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 403")?;
    // A port that nobody listens on: the start is never over, and the container goes after three failures, not one.
    let deaf = json!({"startupProbe": {"tcpSocket": {"port": 5002}, "periodSeconds": 1, "failureThreshold": 3,
        "initialDelaySeconds": 1}});
    sleeper(world, "deaf", deaf, json!({}))?;
    becomes(world, "deaf", "restarted", |s| {
        one(s, "c")["restartCount"].as_i64() >= Some(1) && one(s, "c")["started"] == false
    })?;
    has_event(world, "deaf", "Unhealthy", "Startup probe failed: dial tcp")?;
    has_event(world, "deaf", "Killing", "Container c failed startup probe, will be restarted")?;
    // As many tries as the threshold says, then the end.
    let dir = diary(world)?;
    let tries = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}],
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 3,
        "timeoutSeconds": 10, "exec": {"command": ["sh", "-c", "echo try >> /d/tries; false"]}}});
    let c = container("c", "echo start >> /d/tries; exec sleep 1000000", tries);
    apply(world, "tries", json!({"volumes": [{"name": "d", "hostPath": {"path": dir}}], "containers": [c]}))?;
    until("the second start", Duration::from_secs(90), || {
        let text = written(&dir, "tries");
        wait::yes(text.matches("start").count() >= 2, || text.clone())
    })?;
    has(&written(&dir, "tries"), &["start try try try start"])?;
    // A pod is as ready as its sidecar.
    let side = container(
        "side",
        "exec sleep 1000000",
        json!({"restartPolicy": "Always",
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/open"]}, "periodSeconds": 1}}),
    );
    sleeper(world, "beside", json!({}), json!({"initContainers": [side]}))?;
    becomes(world, "beside", "held by its sidecar", |s| {
        one(s, "c")["ready"] == true && condition(s, "Ready")["status"] == "False"
    })?;
    world.kubectl.run(&["exec", "beside", "-c", "side", "--", "touch", "/tmp/open"])?;
    ready(world, "beside")?;
    delete(world, &["grpc", "lives", "dies", "good-key", "bad-key", "deaf", "tries", "beside"])
}

fn diary(world: &World) -> Result<PathBuf> {
    let dir = world.slot.dir().join("diary");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    Ok(dir)
}

fn written(dir: &std::path::Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_default().replace('\n', " ").trim().to_string()
}

/// Hooks that sleep: the order of what containers write shows that they do. Hooks that ask a server. A hook that fails ends its
/// container.
pub fn hooks(world: &World) -> Result<()> {
    let dir = diary(world)?;
    let volumes = json!([{"name": "d", "hostPath": {"path": dir}}]);
    let mounts = json!([{"name": "d", "mountPath": "/d"}]);
    let with = |name: &str, line: &str, lifecycle: Value| {
        container(name, line, json!({"volumeMounts": mounts, "lifecycle": lifecycle}))
    };
    let idle = "while true; do sleep 0.1; done";
    let first = with(
        "a",
        &format!("trap 'echo a- >> /d/order; exit 0' TERM; echo a >> /d/order; sleep 1; echo a+ >> /d/order; {idle}"),
        json!({"postStart": {"sleep": {"seconds": 3}}, "preStop": {"sleep": {"seconds": 4}}}),
    );
    // Without a's hooks, b would write its words before a's second, and a would be the first to go.
    let second =
        with("b", &format!("trap 'sleep 1; echo b- >> /d/order; exit 0' TERM; echo b >> /d/order; {idle}"), json!({}));
    apply(world, "hooks", json!({"terminationGracePeriodSeconds": 30, "volumes": volumes, "containers": [first, second]}))?;
    ready(world, "hooks")?;
    delete(world, &["hooks"])?;
    is(&written(&dir, "order"), "a a+ b b- a-")?;
    // Who answers lives longer than who asks, and notes what it is asked for.
    let note = "read -r get path rest; [ -n \"$path\" ] && echo $path >> /d/asked; \
                printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'";
    let serve = json!(["nc", "-ll", "-p", "5004", "-e", "sh", "-c", note]);
    let answers = container("web", "", json!({"command": serve, "volumeMounts": mounts, "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 5004}, "periodSeconds": 1, "failureThreshold": 30}}));
    let get = |path: &str| json!({"httpGet": {"path": path, "port": 5004}});
    let asks = with("c", "exec sleep 1000000", json!({"postStart": get("/hello"), "preStop": get("/bye")}));
    apply(world, "asks", json!({"volumes": volumes, "initContainers": [answers], "containers": [asks]}))?;
    ready(world, "asks")?;
    is(&written(&dir, "asked"), "/hello")?;
    delete(world, &["asks"])?;
    is(&written(&dir, "asked"), "/hello /bye")?;
    let web = json!({"postStart": {"httpGet": {"path": "/", "port": 5003, "host": "127.0.0.1"}}});
    apply(world, "fails", json!({"volumes": volumes, "containers": [with("c", idle, web)]}))?;
    has_event(world, "fails", "FailedPostStartHook", "PostStartHook failed")?;
    // What a hook says may be a secret.
    let says = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo password; exit 3"]}}});
    apply(world, "says", json!({"volumes": volumes, "containers": [with("c", idle, says)]}))?;
    has_event(world, "says", "FailedPostStartHook", "PostStartHook failed: command exited with 3")?;
    becomes(world, "fails", "restarted", |s| one(s, "c")["restartCount"].as_i64() >= Some(1))?;
    delete(world, &["fails", "says"])
}

/// `RestartAllContainers`: everything begins again, init containers first. `OnFailure`: until it succeeds.
pub fn restarts(world: &World) -> Result<()> {
    let dir = diary(world)?;
    let volumes = json!([{"name": "d", "hostPath": {"path": dir}}]);
    let mounts = json!([{"name": "d", "mountPath": "/d"}]);
    let note = |name: &str, line: &str, more: Value| {
        let mut c = container(name, &format!("echo {name} >> /d/rounds; {line}"), json!({"volumeMounts": mounts}));
        limpet_e2e::pods::merge(&mut c, more);
        c
    };
    let rule = json!({"restartPolicy": "Never",
        "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]});
    let spec = json!({"restartPolicy": "Never", "volumes": volumes.clone(), "initContainers": [note("i", "true", json!({}))],
        "containers": [note("m", "sleep 1; test -e /d/seen || { touch /d/seen; exit 88; }; exec sleep 1000000", rule),
            container("o", "exec sleep 1000000", json!({}))]});
    apply(world, "rounds", spec)?;
    becomes(world, "rounds", "in its second round", |s| {
        ["m", "o"].iter().all(|name| one(s, name)["restartCount"] == 1 && one(s, name)["state"]["running"].is_object())
    })?;
    is(&written(&dir, "rounds"), "i m i m")?;
    let line = "test -e /d/tried || { touch /d/tried; exit 1; }";
    let c = container("c", line, json!({"volumeMounts": mounts}));
    let spec = json!({"restartPolicy": "OnFailure", "volumes": volumes, "containers": [c]});
    apply(world, "tries", spec)?;
    let status = becomes(world, "tries", "over", |s| s["phase"] == "Succeeded")?;
    wait::yes(one(&status, "c")["restartCount"] == 1, || status.to_string())?;
    delete(world, &["rounds", "tries"])
}

/// `resizePolicy: RestartContainer`: the new size comes with a new container.
pub fn sizes(world: &World) -> Result<()> {
    let sizes = |memory: &str| json!({"requests": {"memory": memory}, "limits": {"memory": memory}});
    let fields = json!({"resources": sizes("32Mi"),
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
    sleeper(world, "size", fields, json!({}))?;
    ready(world, "size")?;
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": sizes("48Mi")}]}});
    world.kubectl.run(&["patch", "pod", "size", "--subresource=resize", "-p", &patch.to_string()])?;
    becomes(world, "size", "restarted with its new size", |s| {
        one(s, "c")["restartCount"] == 1
            && one(s, "c")["resources"]["limits"]["memory"] == "48Mi"
            && one(s, "c")["ready"] == true
    })?;
    let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    is(&inside(world, "size", limit)?, &(48u64 << 20).to_string())?;
    delete(world, &["size"])
}

/// `spec.resources` of a pod that runs: a container without limits has the pod's, before and after; what does not fit waits.
pub fn sizes_of_the_whole(world: &World) -> Result<()> {
    const LIMIT: &str = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    let own = json!({"resources": {"limits": {"memory": "16Mi"}},
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
    let spec = json!({"resources": {"limits": {"cpu": "400m", "memory": "48Mi"}},
        "containers": [container("c", "exec sleep 1000000", json!({})), container("own", "exec sleep 1000000", own)]});
    apply(world, "whole", spec)?;
    let pod = ready(world, "whole")?;
    wait::yes(pod["spec"]["resources"]["requests"] == json!({"cpu": "400m", "memory": "16Mi"}), || pod["spec"].to_string())?;
    wait::yes(pod["status"]["qosClass"] == "Burstable", || pod["status"].to_string())?;
    let limits = |of_c: u64| -> Result<()> {
        is(&inside(world, "whole", LIMIT)?, &(of_c << 20).to_string())?;
        let own = world.kubectl.run(&["exec", "whole", "-c", "own", "--", "sh", "-c", LIMIT])?;
        is(own.trim(), &(16u64 << 20).to_string())
    };
    limits(48)?;
    let patch = |resources: &Value| {
        let patch = json!({"spec": {"resources": resources}}).to_string();
        world.kubectl.output(&["patch", "pod", "whole", "--subresource=resize", "-p", &patch])
    };
    for (cpu, memory) in [("600m", 64), ("300m", 40)] {
        let size = json!({"cpu": cpu, "memory": format!("{memory}Mi")});
        patch(&json!({"limits": size, "requests": {"cpu": "100m"}}))?.ok("resize")?;
        let done = |s: &Value| s["resources"]["limits"] == size && condition(s, "PodResizeInProgress").is_null();
        becomes(world, "whole", "resized", done)?;
        limits(memory)?;
    }
    let status = world.kubectl.json("get pod whole")?["status"].take();
    wait::yes(status["allocatedResources"]["cpu"] == "100m", || status.to_string())?;
    wait::yes(["c", "own"].iter().all(|name| one(&status, name)["restartCount"] == 0), || status.to_string())?;
    has_event(world, "whole", "ResizeCompleted", "Pod resize completed: ")?;
    for (resources, words) in [
        (json!({"requests": {"memory": "8Mi"}}), "must be greater than or equal to aggregate container requests of 16Mi"),
        (json!({"limits": {"memory": "12Mi"}}), "must be less than or equal to pod limits of 12Mi"),
        (json!({"limits": {"memory": null}}), "resource limits cannot be removed"),
        (json!({"limits": {"example.com/x": "1"}}), "supported values: \"cpu\", \"hugepages-\", \"memory\""),
    ] {
        has(&patch(&resources)?.stderr, &[words])?;
    }
    // More than the board has; then as much as it has, once another pod has gone.
    let node = world.kubectl.json("get node board-1")?;
    let text = node["status"]["allocatable"]["memory"].as_str().unwrap_or_default().to_string();
    let kib: u64 = text.strip_suffix("Ki").and_then(|n| n.parse().ok()).ok_or(text)?;
    let memory = |kib: u64| json!({"limits": {"memory": format!("{kib}Ki")}, "requests": {"memory": format!("{kib}Ki")}});
    sleeper(world, "large", json!({"resources": {"requests": {"memory": format!("{}Ki", kib / 10 * 6)}}}), json!({}))?;
    ready(world, "large")?;
    patch(&memory(kib * 2))?.ok("resize")?;
    becomes(world, "whole", "too large", |s| condition(s, "PodResizePending")["reason"] == "Infeasible")?;
    patch(&memory(kib / 10 * 6))?.ok("resize")?;
    let status = becomes(world, "whole", "waiting", |s| condition(s, "PodResizePending")["reason"] == "Deferred")?;
    wait::yes(status["resources"]["limits"]["memory"] == "40Mi", || status.to_string())?;
    limits(40)?;
    delete(world, &["large"])?;
    let wanted = memory(kib / 10 * 6)["limits"]["memory"].take();
    becomes(world, "whole", "resized at last", |s| {
        condition(s, "PodResizePending").is_null() && s["resources"]["limits"]["memory"] == wanted
    })?;
    delete(world, &["whole"])
}

/// hostPort: the board's port leads to the pod, and only one pod has it.
pub fn ports(world: &World) -> Result<()> {
    let with = |protocol: &str| {
        json!({"ports": [{"containerPort": 5004, "hostPort": 18_080, "protocol": protocol}],
        "command": ["sh", "-c", "echo here > /tmp/index.html; exec httpd -f -p 5004 -h /tmp"]})
    };
    sleeper(world, "port", with("TCP"), json!({"nodeName": "board-1"}))?;
    ready(world, "port")?;
    let url = format!("http://{}:18080/index.html", world.agents[0].address);
    until("the board's port", Duration::from_secs(30), || {
        let got = limpet_e2e::process::run(std::process::Command::new("curl").args([
            "-s",
            "--noproxy",
            "*",
            "--max-time",
            "5",
            &url,
        ]))?;
        is(&got.stdout, "here")
    })?;
    let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    sleeper(world, "taken", with("TCP"), json!({"nodeName": "board-1"}))?;
    rejected(world, "taken", "NodePorts", words)?;
    sleeper(world, "udp", with("UDP"), json!({"nodeName": "board-1"}))?;
    ready(world, "udp")?;
    sleeper(world, "by-scheduler", with("TCP"), json!({}))?;
    has_event(world, "by-scheduler", "FailedScheduling", "didn't have free ports for the requested pod ports")?;
    delete(world, &["port", "taken", "udp", "by-scheduler"])
}
