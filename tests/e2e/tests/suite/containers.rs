//! Containers: commands, variables, their order, their last words, probes, users.
//!
//! In: a world with one board, where restarts wait a second or two. Out: statuses, logs, what programs see.

use limpet_e2e::pods::{
    apply, becomes, condition, container, delete, has, has_event, hasnt, inside, is, merge, one, ready, sleeper, waits,
};
use limpet_e2e::{Result, World, wait};
use serde_json::{Value, json};

/// An image with an entrypoint and arguments of its own, and what a pod makes of them.
pub fn commands(world: &World) -> Result<()> {
    use limpet_oci::{Platform, builder, builder::Layer, config::Execution};
    let busybox = std::fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let layer = Layer::new().file("bin/busybox", 0o755, &busybox).symlink("bin/echo", "busybox").directory("etc", 0o755);
    let run = Execution {
        entrypoint: vec!["/bin/echo".into(), "entry".into()],
        cmd: vec!["own".into()],
        env: vec!["PATH=/bin".into()],
        ..Execution::default()
    };
    let image = builder::image(&Platform::host(), run, vec![layer]).map_err(|e| e.to_string())?;
    limpet_e2e::images::Target::hub(&world.hub, &world.slot.dir())?.push("says", "1", &image)?;
    let env = json!([{"name": "A", "value": "one"}, {"name": "B", "value": "$(A)-two"}]);
    for (name, more, want) in [
        ("blank", json!({}), "entry own"),
        ("args", json!({"args": ["$(B)", "$$(B)", "$(C)"]}), "entry one-two $(B) $(C)"),
        ("command", json!({"command": ["/bin/echo", "$(A)"]}), "one"),
        ("both", json!({"command": ["/bin/echo"], "args": ["$(B)"]}), "one-two"),
    ] {
        let mut c = json!({"name": "c", "image": "hub.limpet/says:1", "env": env});
        merge(&mut c, more);
        apply(world, name, json!({"restartPolicy": "Never", "containers": [c]}))?;
        becomes(world, name, "over", |s| s["phase"] == "Succeeded")?;
        is(&world.kubectl.say(&format!("logs {name}"))?, want)?;
    }
    delete(world, &["blank", "args", "command", "both"])
}

/// Services as variables; subPathExpr with a bad value that becomes good; a deadline that is set later.
pub fn variables(world: &World) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "foo"},
        "spec": {"ports": [{"port": 8765, "targetPort": 8080}], "selector": {"app": "foo"}}});
    world.kubectl.apply(&service.to_string())?;
    let ip = world.kubectl.json("get service foo")?["spec"]["clusterIP"].as_str().unwrap_or_default().to_string();
    sleeper(world, "client", json!({}), json!({}))?;
    ready(world, "client")?;
    let (url, tcp) = (format!("FOO_PORT=tcp://{ip}:8765"), format!("FOO_PORT_8765_TCP=tcp://{ip}:8765"));
    let (host, address) = (format!("FOO_SERVICE_HOST={ip}"), format!("FOO_PORT_8765_TCP_ADDR={ip}"));
    let text = inside(world, "client", "env")?;
    has(
        &text,
        &[
            "FOO_SERVICE_PORT=8765",
            "FOO_PORT_8765_TCP_PORT=8765",
            "FOO_PORT_8765_TCP_PROTO=tcp",
            &url,
            &tcp,
            &host,
            &address,
        ],
    )?;
    world.kubectl.run(&["patch", "pod", "client", "-p", r#"{"spec": {"activeDeadlineSeconds": 1}}"#])?;
    becomes(world, "client", "over", |s| s["phase"] == "Failed" && s["reason"] == "DeadlineExceeded")?;
    let with = |name: &str, value: &str| {
        let env = json!([{"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['part']"}}}]);
        let fields = json!({"env": env, "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": value}]});
        let c = container("c", "exec sleep 1000000", fields);
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [c]});
        limpet_e2e::pods::manifest(name, spec)
    };
    for (name, note, words) in
        [("absolute", "/tmp", "must not be an absolute path"), ("climbs", "..", "must not contain '..'")]
    {
        let mut pod = with(name, "$(NOTE)");
        pod["metadata"]["annotations"] = json!({"part": note});
        world.kubectl.apply(&pod.to_string())?;
        waits(world, name, "CreateContainerConfigError", words)?;
    }
    world.kubectl.say("annotate pod absolute part=good --overwrite")?;
    ready(world, "absolute")?;
    delete(world, &["client", "absolute", "climbs"])
}

/// Whole objects as variables, before whose names anything may stand that can be printed.
pub fn prefixes(world: &World) -> Result<()> {
    world.kubectl.say("create configmap named --from-literal=KEY=map --from-literal=a.b=dotted")?;
    world.kubectl.say("create secret generic named --from-literal=KEY=secret")?;
    let all = ["", "9_", "-", "p.", "$_-", "#!?:/~ ", "{\"}"];
    let (mut from, mut want) = (Vec::new(), Vec::new());
    for (source, key, value) in [("configMapRef", "m", "map"), ("secretRef", "s", "secret")] {
        for prefix in all {
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}{key}_") };
            from.push(json!({"prefix": prefix, source: {"name": "named"}}));
            want.push(format!("\n{prefix}KEY={}\n", if prefix.is_empty() { "secret" } else { value }));
        }
    }
    let c = json!({"name": "c", "image": limpet_e2e::pods::IMAGE, "command": ["env"], "envFrom": from});
    apply(world, "named", json!({"restartPolicy": "Never", "containers": [c]}))?;
    becomes(world, "named", "over", |s| s["phase"] == "Succeeded")?;
    let text = format!("\n{}", world.kubectl.say("logs named")?);
    has(&text, &want.iter().map(String::as_str).collect::<Vec<_>>())?;
    has(&text, &["\na.b=dotted\n", "\np.m_a.b=dotted\n"])?;
    delete(world, &["named"])
}

/// Init containers: one after the other, before all others; what their failure means.
pub fn init_containers(world: &World) -> Result<()> {
    let init = |lines: &[&str]| -> Vec<Value> {
        lines.iter().enumerate().map(|(n, line)| container(&format!("i{n}"), line, json!({}))).collect()
    };
    for (name, policy, line, phase) in
        [("never", "Never", "true", "Succeeded"), ("always", "Always", "exec sleep 1000000", "Running")]
    {
        apply(
            world,
            name,
            json!({"restartPolicy": policy, "initContainers": init(&["true", "true"]),
                "containers": [container("c", line, json!({}))]}),
        )?;
        let status =
            becomes(world, name, phase, |s| s["phase"] == phase && condition(s, "Initialized")["status"] == "True")?;
        let ended = status["initContainerStatuses"].as_array().into_iter().flatten();
        wait::yes(
            ended.clone().count() == 2 && ended.into_iter().all(|s| s["state"]["terminated"]["exitCode"] == 0),
            || status.to_string(),
        )?;
    }
    apply(
        world,
        "fails",
        json!({"restartPolicy": "Never", "initContainers": init(&["false", "true"]),
            "containers": [container("c", "true", json!({}))]}),
    )?;
    let status = becomes(world, "fails", "failed", |s| s["phase"] == "Failed")?;
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing";
    wait::yes(waiting(&status) && condition(&status, "Initialized")["reason"] == "ContainersNotInitialized", || {
        status.to_string()
    })?;
    wait::yes(status["initContainerStatuses"][1]["state"]["waiting"].is_object(), || status.to_string())?;
    apply(
        world,
        "loops",
        json!({"initContainers": init(&["false", "true"]), "containers": [container("c", "true", json!({}))]}),
    )?;
    let status =
        becomes(world, "loops", "tried again", |s| s["initContainerStatuses"][0]["restartCount"].as_i64() >= Some(2))?;
    wait::yes(status["phase"] == "Pending" && waiting(&status), || status.to_string())?;
    delete(world, &["never", "always", "fails", "loops"])
}

/// Termination messages: not from the log of what succeeded, from a file also then; by somebody else, elsewhere.
pub fn last_words(world: &World) -> Result<()> {
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let other = json!({"terminationMessagePath": "/dev/other", "securityContext": {"runAsUser": 1000}});
    for (name, line, fields, want) in [
        ("quiet", "echo DONE", fallback.clone(), json!(null)),
        ("file", "printf OK > /dev/termination-log", fallback.clone(), json!("OK")),
        ("log", "printf DONE; exit 1", fallback, json!("DONE")),
        ("other", "printf DONE > /dev/other", other, json!("DONE")),
    ] {
        apply(world, name, json!({"restartPolicy": "Never", "containers": [container("c", line, fields)]}))?;
        let status = becomes(world, name, "over", |s| one(s, "c")["state"]["terminated"].is_object())?;
        let said = one(&status, "c")["state"]["terminated"]["message"].clone();
        wait::yes(said == want, || format!("{name}: {said}"))?;
    }
    // The last 4096 bytes of the file, the last 80 lines of the log, and 12 KiB for a pod whatever its containers say.
    let many = "yes 123456789 | head -n 1000 > /dev/termination-log; printf end >> /dev/termination-log; seq 200; exit 1";
    let say = |name: &str, more: Value| container(name, many, more);
    let to = |path: &str| json!({"terminationMessagePolicy": "FallbackToLogsOnError", "terminationMessagePath": path});
    let all: Vec<Value> =
        (0..5).map(|n| say(&format!("c{n}"), if n == 0 { to("/dev/other") } else { json!({}) })).collect();
    apply(world, "much", json!({"restartPolicy": "Never", "containers": all}))?;
    let status = becomes(world, "much", "over", |s| {
        s["containerStatuses"].as_array().is_some_and(|all| all.iter().all(|c| c["state"]["terminated"].is_object()))
    })?;
    let said = |name: &str| one(&status, name)["state"]["terminated"]["message"].as_str().unwrap_or_default().to_string();
    let lines: String = (121..=200).map(|n| format!("{n}\n")).collect();
    is(&said("c0"), lines.trim_end())?;
    let file = format!("{}end", "123456789\n".repeat(1000));
    is(&said("c1"), &file[file.len() - 4096..][..12 * 1024 / 5])?;
    delete(world, &["quiet", "file", "log", "other", "much"])
}

/// Probes: what is well is left alone; a count that only grows; ready not before its time, or never.
pub fn probes(world: &World) -> Result<()> {
    let web = "mkdir /tmp/w; touch /tmp/w/healthz /tmp/health; exec httpd -f -p 8080 -h /tmp/w";
    let live = |handler: Value, more: Value| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20});
        merge(&mut probe, handler);
        merge(&mut probe, more);
        // It has all the time that it wants to come up.
        let mut up = probe.clone();
        merge(&mut up, json!({"failureThreshold": 90, "initialDelaySeconds": 0}));
        json!({"livenessProbe": probe, "startupProbe": up})
    };
    let cases = [
        ("by-http", json!({"httpGet": {"path": "/healthz", "port": 8080}}), "rm /tmp/w/healthz"),
        ("by-exec", json!({"exec": {"command": ["cat", "/tmp/health"]}}), "rm /tmp/health"),
        ("by-tcp", json!({"tcpSocket": {"port": 8080}}), ""),
    ];
    for (name, handler, _) in &cases {
        let fields = live(handler.clone(), json!({"initialDelaySeconds": 1}));
        apply(world, name, json!({"terminationGracePeriodSeconds": 0, "containers": [container("c", web, fields)]}))?;
    }
    let never = json!({"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}});
    sleeper(world, "never", never, json!({}))?;
    let slow = json!({"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "initialDelaySeconds": 8}});
    sleeper(world, "slow", slow, json!({}))?;
    becomes(world, "slow", "running and not ready", |s| {
        one(s, "c")["state"]["running"].is_object() && one(s, "c")["ready"] == false
    })?;
    let pod = ready(world, "slow")?;
    let second =
        |v: &Value| v.as_str().and_then(|t| t.rsplit(':').next()?.trim_end_matches('Z').parse::<i64>().ok()).unwrap_or(0);
    let (began, came) = (
        &one(&pod["status"], "c")["state"]["running"]["startedAt"],
        &condition(&pod["status"], "Ready")["lastTransitionTime"],
    );
    let waited = (second(came) - second(began)).rem_euclid(60);
    wait::yes(waited >= 7, || format!("ready {waited} s after its start"))?;
    has_event(world, "never", "Unhealthy", "Readiness probe failed")?;
    let status = becomes(world, "never", "never ready", |s| one(s, "c")["ready"] == false)?;
    wait::yes(one(&status, "c")["restartCount"] == 0, || status.to_string())?;
    for (name, _, breaks) in &cases {
        let status = ready(world, name)?["status"].take();
        wait::yes(one(&status, "c")["restartCount"] == 0, || status.to_string())?;
        if !breaks.is_empty() {
            inside(world, name, breaks)?;
            becomes(world, name, "restarted", |s| one(s, "c")["restartCount"] == 1)?;
        }
    }
    let mut seen = 1;
    for wanted in 2..=4 {
        ready(world, "by-exec")?;
        inside(world, "by-exec", "rm /tmp/health")?;
        let status = becomes(world, "by-exec", "restarted again", |s| one(s, "c")["restartCount"].as_i64() >= Some(wanted))?;
        let now = one(&status, "c")["restartCount"].as_i64().unwrap_or(0);
        wait::yes(now == seen + 1, || format!("{now} restarts after {seen}"))?;
        seen = now;
    }
    delete(world, &["by-http", "by-exec", "by-tcp", "never", "slow"])
}

/// /etc/hosts: ours in a pod of its own network, not where the pod brings one.
pub fn hosts_files(world: &World) -> Result<()> {
    let own = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}]});
    world.kubectl.say("create configmap hosts --from-literal=hosts=brought")?;
    let spec = json!({"volumes": [{"name": "v", "configMap": {"name": "hosts"}}], "containers": [
        container("c", "exec sleep 1000000", json!({})), container("d", "exec sleep 1000000", own)]});
    apply(world, "hosts", spec)?;
    ready(world, "hosts")?;
    has(&inside(world, "hosts", "cat /etc/hosts")?, &["# Kubernetes-managed hosts file."])?;
    is(&world.kubectl.run(&["exec", "hosts", "-c", "d", "--", "cat", "/etc/hosts"])?, "brought")?;
    sleeper(world, "on-host", json!({}), json!({"hostNetwork": true}))?;
    ready(world, "on-host")?;
    let board = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    has(&inside(world, "on-host", "cat /etc/hosts")?, &[board.trim()])?;
    delete(world, &["hosts", "on-host"])
}

/// What cannot start, and whose first hook fails: a kubelet's words, before it waits and in between.
pub fn failed_starts(world: &World) -> Result<()> {
    let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["false"]}}}});
    let mut cannot = container("c", "true", json!({}));
    cannot["command"] = json!(["/nothing"]);
    for (name, container, reason, words, last) in [
        ("cannot", cannot, "RunContainerError", "/nothing", "StartError"),
        ("hooked", container("c", "exec sleep 1000000", hook), "PostStartHookError", "command exited with 1", "Error"),
    ] {
        apply(world, name, json!({"terminationGracePeriodSeconds": 1, "containers": [container]}))?;
        let status = becomes(world, name, reason, |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason)?;
        let c = &status["containerStatuses"][0];
        has(&c["state"]["waiting"]["message"].to_string(), &[words])?;
        is(c["lastState"]["terminated"]["reason"].as_str().unwrap_or_default(), last)?;
        waits(world, name, "CrashLoopBackOff", "restarting failed container=c")?;
    }
    delete(world, &["cannot", "hooked"])
}

/// On the board's network probes ask the board's address, where a server may listen alone.
pub fn probes_on_the_boards_network(world: &World) -> Result<()> {
    let probes = json!({
        "env": [{"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
        "readinessProbe": {"tcpSocket": {"port": 8091}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/", "port": 8091}, "periodSeconds": 1, "failureThreshold": 3},
    });
    let line = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www -p $HOST:8091";
    apply(world, "listens", json!({"hostNetwork": true, "containers": [container("c", line, probes)]}))?;
    ready(world, "listens")?;
    let elsewhere = inside(world, "listens", "nc -w 2 127.0.0.1 8091 </dev/null && echo open || echo closed")?;
    is(&elsewhere, "closed")?;
    delete(world, &["listens"])
}

/// Users and groups of a pod and of a container; what they may write.
pub fn users(world: &World) -> Result<()> {
    for (name, fields, spec, want) in [
        ("of-pod", json!({}), json!({"securityContext": {"runAsUser": 1001, "runAsGroup": 2002}}), "1001 2002"),
        (
            "of-container",
            json!({"securityContext": {"runAsUser": 1001, "runAsGroup": 2002}}),
            json!({"securityContext": {"runAsUser": 1, "runAsGroup": 2}}),
            "1001 2002",
        ),
        ("nobody", json!({"securityContext": {"runAsUser": 65534}}), json!({}), "65534 65534"),
    ] {
        sleeper(world, name, fields, spec)?;
        ready(world, name)?;
        is(&inside(world, name, "echo $(id -u) $(id -g)")?, want)?;
    }
    let writes = |read_only: bool| json!({"securityContext": {"readOnlyRootFilesystem": read_only, "privileged": false}});
    for (name, read_only) in [("fixed", true), ("free", false)] {
        sleeper(world, name, writes(read_only), json!({}))?;
        ready(world, name)?;
        let said = inside(world, name, "touch /x 2>&1 && echo made; true")?;
        wait::yes(said.contains("made") != read_only, || format!("{name}: {said}"))?;
        hasnt(&inside(world, name, "ip link add dummy0 type dummy 2>&1 && echo made; true")?, &["made"])?;
    }
    delete(world, &["of-pod", "of-container", "nobody", "fixed", "free"])
}
