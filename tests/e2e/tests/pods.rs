//! What a pod can ask for: volumes, environment, users, limits, init containers, probes, host network, names.
//!
//! In: a world with one board and pods of every sort. Out: what their containers see, and Kubernetes' own reasons.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn pod(name: &str, container: &Value, spec: &Value) -> String {
    let mut main = json!({"name": "main", "image": "hub.limpet/busybox:1", "command": ["sleep", "100000"]});
    merge(&mut main, container);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"note": "two\nlines"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [main]},
    });
    merge(&mut pod["spec"], spec);
    pod.to_string()
}

fn merge(target: &mut Value, more: &Value) {
    if let (Some(target), Some(more)) = (target.as_object_mut(), more.as_object()) {
        target.extend(more.clone());
    }
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ()).map_err(|why| {
        let more = world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default();
        format!("{why}\n{more}\n{}", world.kubectl.say(&format!("logs {name}")).unwrap_or_default())
    })
}

/// Runs a shell line in a pod; what it prints, trimmed.
fn inside(world: &World, name: &str, line: &str) -> Result<String> {
    world.kubectl.run(&["exec", name, "--", "sh", "-c", line]).map(|text| text.trim().to_string())
}

fn each(world: &World, name: &str, lines: &[(&str, &str)]) -> Result<()> {
    for (line, want) in lines {
        let got = inside(world, name, line)?;
        wait::yes(got == *want, || format!("{name}: {line}: {got:?} instead of {want:?}"))?;
    }
    Ok(())
}

fn status(world: &World, name: &str) -> Result<Value> {
    world.kubectl.json(&format!("get pod {name}")).map(|mut pod| pod["status"].take())
}

#[test]
fn volumes_and_environment() {
    test(1, &json!({}), |world| {
        let kubectl = &world.kubectl;
        kubectl.say("create configmap c --from-literal=one=1 --from-literal=two=2")?;
        kubectl.say("create secret generic s --from-literal=password=hunter2")?;
        let shared = world.slot.dir().join("shared");
        std::fs::create_dir_all(&shared).map_err(|e| e.to_string())?;
        let container = json!({
            "args": [], "workingDir": "/tmp",
            "env": [
                {"name": "PLAIN", "value": "x"}, {"name": "REF", "value": "$(PLAIN)-$$(PLAIN)-$(NONE)"},
                {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "one"}}},
                {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": true}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "c"}}],
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            "volumeMounts": [
                {"name": "empty", "mountPath": "/empty"}, {"name": "memory", "mountPath": "/memory"},
                {"name": "host", "mountPath": "/host"}, {"name": "map", "mountPath": "/map"},
                {"name": "map", "mountPath": "/single", "subPath": "one"},
                {"name": "secret", "mountPath": "/secret", "readOnly": true}, {"name": "down", "mountPath": "/down"},
                {"name": "all", "mountPath": "/all"}],
        });
        let spec = json!({"volumes": [
            {"name": "empty", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            {"name": "host", "hostPath": {"path": shared, "type": "Directory"}}, {"name": "map", "configMap": {"name": "c"}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "down", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "c", "items": [{"key": "two", "path": "deep/two"}]}},
                {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 3600}}]}}]});
        kubectl.apply(&pod("v", &container, &spec))?;
        ready(world, "v")?;
        let ip = status(world, "v")?["podIP"].as_str().unwrap_or_default().to_string();
        each(world, "v", &[
            ("echo $PLAIN $REF", "x x-$(PLAIN)-$(NONE)"),
            ("echo $FROM_MAP $FROM_SECRET $C_two ${ABSENT-none}", "1 hunter2 2 none"),
            ("echo $POD $NODE $APP $MEM", "v board-1 v 64"),
            ("echo $IP", &ip),
            ("pwd", "/tmp"),
            ("echo $KUBERNETES_SERVICE_PORT", "443"),
            ("cat /map/one /map/two /single", "121"),
            ("cat /secret/password; stat -Lc %a /secret/password", "hunter2400"),
            ("grep mount /proc/mounts; touch /secret/x 2>&1 | grep -c Read-only", "1"),
            ("cat /down/labels /down/cpu", "app=\"v\"500"),
            ("cat /all/deep/two; cut -d. -f2 /all/token | wc -l", "21"),
            ("touch /empty/x && ls /empty", "x"),
            ("grep -c '/memory tmpfs' /proc/mounts", "1"),
            ("echo from-inside > /host/file; cat /host/file", "from-inside"),
            ("ls /var/run/secrets/kubernetes.io/serviceaccount | sort | tr '\\n' ' '", "ca.crt namespace token"),
            ("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "default"),
            ("cat /proc/1/comm", "sleep"),
        ])?;
        let seen = std::fs::read_to_string(shared.join("file")).unwrap_or_default();
        wait::yes(seen == "from-inside\n", || format!("hostPath: {seen:?}"))?;
        changes_arrive(world)
    });
}

/// Secrets and labels reach their files without a restart.
fn changes_arrive(world: &World) -> Result<()> {
    let before = world.named("sleep");
    world.kubectl.say(r#"patch secret s -p {"stringData":{"password":"changed"}}"#)?;
    world.kubectl.say("label pod v color=blue")?;
    until("the changes", SOON, || {
        let text = inside(world, "v", "cat /secret/password /down/labels")?;
        wait::yes(text.starts_with("changed") && text.contains("color=\"blue\""), || text)
    })?;
    wait::yes(world.named("sleep") == before, || "the container was restarted".to_string())
}

#[test]
fn users_limits_and_ends() {
    test(1, &json!({}), |world| {
        let kubectl = &world.kubectl;
        let never = json!({"restartPolicy": "Never"});
        let secure = json!({"securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
        let group = json!({"securityContext": {"fsGroup": 3456, "supplementalGroups": [4567]}});
        kubectl.apply(&pod("user", &secure, &group))?;
        ready(world, "user")?;
        each(world, "user", &[
            ("id -u; id -g", "1234\n2345"),
            ("id -G | tr ' ' '\\n' | sort | tr '\\n' ' '", "2345 3456 4567"),
            ("touch /x 2>&1 | grep -c Read-only", "1"),
            ("grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t\\n'", "CapEff:0000000000000000NoNewPrivs:1"),
            ("grep -c 'Seccomp:.*2' /proc/self/status", "1"),
        ])?;
        let hungry = json!({"command": ["sh", "-c", "tail /dev/zero"], "resources": {"limits": {"memory": "16Mi"}}});
        kubectl.apply(&pod("hungry", &hungry, &never))?;
        ends(world, "hungry", "OOMKilled", 137)?;
        let failing = json!({"command": ["sh", "-c", "echo because > /dev/termination-log; exit 3"]});
        kubectl.apply(&pod("failing", &failing, &never))?;
        ends(world, "failing", "Error", 3)?;
        let state = status(world, "failing")?["containerStatuses"][0]["state"]["terminated"]["message"].clone();
        wait::yes(state == "because\n", || format!("termination message: {state}"))?;
        kubectl.apply(&pod("done", &json!({"command": ["true"]}), &never))?;
        ends(world, "done", "Completed", 0)?;
        kubectl.apply(&pod("looping", &json!({"command": ["false"]}), &json!({})))?;
        waits(world, "looping", "CrashLoopBackOff")?;
        kubectl.apply(&pod("nothing", &json!({"command": ["/nothing"]}), &never))?;
        until("the failed start", SOON, || {
            let state = status(world, "nothing")?["containerStatuses"][0]["state"].clone();
            let reason = state["terminated"]["reason"].as_str().unwrap_or_default().to_string();
            wait::yes(["StartError", "ContainerCannotRun"].contains(&reason.as_str()), || state.to_string())
        })?;
        let absent = json!({"envFrom": [{"configMapRef": {"name": "absent"}}]});
        kubectl.apply(&pod("config", &absent, &json!({})))?;
        waits(world, "config", "CreateContainerConfigError")?;
        kubectl.say("create configmap absent --from-literal=a=b")?;
        ready(world, "config")?;
        let deadline = json!({"activeDeadlineSeconds": 2});
        kubectl.apply(&pod("deadline", &json!({}), &deadline))?;
        until("the deadline", SOON, || {
            let status = status(world, "deadline")?;
            wait::yes(status["reason"] == "DeadlineExceeded" && status["phase"] == "Failed", || status.to_string())
        })
    });
}

fn ends(world: &World, name: &str, reason: &str, code: i64) -> Result<()> {
    until("the end", SOON, || {
        let status = status(world, name)?;
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        wait::yes(ended["reason"] == reason && ended["exitCode"] == code, || format!("{name}: {status}"))
    })
}

fn waits(world: &World, name: &str, reason: &str) -> Result<()> {
    until("the reason", SOON, || {
        let status = status(world, name)?;
        wait::yes(status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason, || format!("{name}: {status}"))
    })
}

#[test]
fn several_containers_probes_and_names() {
    test(1, &json!({}), |world| {
        let kubectl = &world.kubectl;
        let mount = json!([{"name": "w", "mountPath": "/w"}]);
        let web = json!({
            "command": ["httpd", "-f", "-p", "8080", "-h", "/w"], "volumeMounts": mount,
            "ports": [{"name": "http", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 30},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
            "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo started > /w/post"]}}},
        });
        let image = "hub.limpet/busybox:1";
        let spec = json!({
            "volumes": [{"name": "w", "emptyDir": {}}], "shareProcessNamespace": false,
            "initContainers": [
                {"name": "first", "image": image, "command": ["sh", "-c", "echo one > /w/index.html"], "volumeMounts": mount},
                {"name": "side", "image": image, "command": ["sh", "-c", "echo side; sleep 100000"], "restartPolicy": "Always"},
                {"name": "second", "image": image, "command": ["sh", "-c", "cat /w/index.html && echo yes > /w/ready"],
                    "volumeMounts": mount}]});
        kubectl.apply(&pod("web", &web, &spec))?;
        kubectl.say("expose pod web --port=80 --target-port=http")?;
        ready(world, "web")?;
        kubectl.apply(&pod("client", &json!({}), &json!({})))?;
        ready(world, "client")?;
        each(world, "web", &[("cat /w/post", "started"), ("wget -qO- http://127.0.0.1:8080/index.html", "one")])?;
        for url in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
            until("the Service by name", SOON, || {
                // Not wget's own -T: Debian 12's busybox crashes on it.
                let got = inside(world, "client", &format!("timeout 3 wget -qO- http://{url}/index.html"))?;
                wait::yes(got == "one", || format!("{url}: {got}"))
            })?;
        }
        // Not ready: out of the endpoints, still running; ready again: back.
        let endpoints = || {
            let list = kubectl.json("get endpointslices -l kubernetes.io/service-name=web")?;
            Result::Ok(list["items"][0]["endpoints"][0]["conditions"]["ready"].clone())
        };
        inside(world, "web", "rm /w/ready")?;
        until("not ready", SOON, || endpoints().and_then(|r| wait::yes(r == false, || r.to_string())))?;
        inside(world, "web", "echo yes > /w/ready")?;
        until("ready again", SOON, || endpoints().and_then(|r| wait::yes(r == true, || r.to_string())))?;
        let status = status(world, "web")?;
        let init = status["initContainerStatuses"].as_array().map_or(0, Vec::len);
        wait::yes(init == 3 && status["containerStatuses"][0]["restartCount"] == 0, || status.to_string())?;
        kubectl.apply(&pod("host", &json!({}), &json!({"hostNetwork": true})))?;
        ready(world, "host")?;
        let address = world.agents[0].address.clone();
        each(world, "host", &[(&format!("ip -4 addr show eth0 | grep -c {address}"), "1")])?;
        kubectl.say("delete pod web client host --force --grace-period=0").map(|_| ())
    });
}
