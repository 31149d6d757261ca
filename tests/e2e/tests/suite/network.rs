//! `[sig-network]` and `[sig-auth]` of the conformance suite, with pods that run.
//!
//! In: a world with one board, servers and clients as pods. Out: who answers under which name, address and port; tokens.

use limpet_e2e::pods::{container, has, inside, ready, sleeper};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn service(world: &World, name: &str, spec: Value) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    world.kubectl.apply(&object.to_string()).map(|_| ())
}

/// Asks until the answer has these words. (Never wget's own -T: Debian 12's busybox crashes on it.)
fn answers(world: &World, line: &str, words: &[&str]) -> Result<()> {
    until(line, SOON, || has(&inside(world, "client", line)?, words))
}

fn address(world: &World, name: &str) -> Result<String> {
    let service = world.kubectl.json(&format!("get service {name}"))?;
    service["spec"]["clusterIP"].as_str().map(str::to_string).ok_or_else(|| service.to_string())
}

/// Endpoints, ports, protocols, types that change, names.
pub fn services(world: &World) -> Result<()> {
    let web =
        |word: &str, port: u16| format!("while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\n{word} %s\\n' $(hostname) | nc -l -p {port}; done");
    let two = format!("{} & {}", web("second", 81), web("first", 80));
    for name in ["web-a", "web-b"] {
        let udp = format!("{two} & while true; do echo udp | nc -u -l -p 80 -w 1; done");
        let mut pod = limpet_e2e::pods::manifest(
            name,
            json!({"hostname": name, "subdomain": "dark", "containers": [container("c", &udp, json!({}))]}),
        );
        pod["metadata"]["labels"] = json!({"app": "web"});
        world.kubectl.apply(&pod.to_string())?;
    }
    sleeper(world, "client", json!({}), json!({}))?;
    let ports = json!([{"name": "one", "port": 8080, "targetPort": 80}, {"name": "two", "port": 8081, "targetPort": 81},
        {"name": "udp", "port": 8080, "targetPort": 80, "protocol": "UDP"}]);
    service(world, "web", json!({"selector": {"app": "web"}, "ports": ports}))?;
    service(world, "dark", json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}))?;
    service(world, "away", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}))?;
    for name in ["web-a", "web-b", "client"] {
        ready(world, name)?;
    }
    until("endpoints", SOON, || {
        let slices = world.kubectl.items("get endpointslices -l kubernetes.io/service-name=web")?;
        let ends: usize = slices.iter().map(|s| s["endpoints"].as_array().map_or(0, Vec::len)).sum();
        let ports: usize = slices.iter().map(|s| s["ports"].as_array().map_or(0, Vec::len)).sum();
        wait::yes(ends == 2 && ports == 3, || json!(slices).to_string())
    })?;
    let ends = world.kubectl.json("get endpoints web")?["subsets"].take();
    let pods: Vec<&Value> = ends[0]["addresses"].as_array().into_iter().flatten().map(|a| &a["targetRef"]["name"]).collect();
    let whole = pods == [&json!("web-a"), &json!("web-b")] && ends[0]["ports"].as_array().map(Vec::len) == Some(3);
    wait::yes(whole && ends.as_array().map(Vec::len) == Some(1), || ends.to_string())?;
    let ip = address(world, "web")?;
    answers(world, &format!("timeout 3 wget -qO- http://{ip}:8080/"), &["first"])?;
    answers(world, "timeout 3 wget -qO- http://web:8081/", &["second"])?;
    // Names: short, with namespace, whole; a headless service's are its pods'; another name's are that one's.
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
        answers(world, &format!("timeout 3 wget -qO- http://{name}:8080/"), &["first"])?;
    }
    answers(world, "nslookup kubernetes.default.svc.cluster.local", &[&address(world, "kubernetes")?])?;
    let pod_ip = |name: &str| -> Result<String> {
        Ok(world.kubectl.json(&format!("get pod {name}"))?["status"]["podIP"].as_str().unwrap_or_default().to_string())
    };
    let (a, b) = (pod_ip("web-a")?, pod_ip("web-b")?);
    answers(world, "nslookup dark.default.svc.cluster.local", &[&a, &b])?;
    answers(world, "nslookup web-a.dark.default.svc.cluster.local", &[&a])?;
    answers(world, "nslookup away.default.svc.cluster.local", &["web.default.svc.cluster.local"])?;
    has(&inside(world, "web-a", "hostname -f; cat /etc/hosts")?, &["web-a.dark.default.svc.cluster.local", &a])?;
    // From one pod to another, straight.
    answers(world, &format!("timeout 3 wget -qO- http://{b}:80/"), &["first"])?;
    // Another type and back.
    for (spec, kind) in [
        (json!({"type": "ClusterIP", "externalName": null, "selector": {"app": "web"}, "ports": [{"port": 80}]}), "ClusterIP"),
        (json!({"type": "NodePort"}), "NodePort"),
        (
            json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local", "ports": null,
                "clusterIP": null, "clusterIPs": null}),
            "ExternalName",
        ),
    ] {
        world.kubectl.run(&["patch", "service", "away", "--type=merge", "-p", &json!({"spec": spec}).to_string()])?;
        let now = world.kubectl.json("get service away")?;
        let bare = now["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty();
        wait::yes(now["spec"]["type"] == kind && bare == (kind == "ExternalName"), || now["spec"].to_string())?;
        match kind {
            "ClusterIP" => answers(world, &format!("timeout 3 wget -qO- http://{}/", address(world, "away")?), &["first"])?,
            "NodePort" => {
                let port = now["spec"]["ports"][0]["nodePort"].as_u64().filter(|p| *p >= 30_000);
                let (port, board) = (port.ok_or_else(|| now["spec"].to_string())?, &world.agents[0].address);
                answers(world, &format!("timeout 3 wget -qO- http://{board}:{port}/"), &["first"])?
            }
            _ => answers(world, "nslookup away.default.svc.cluster.local", &["web.default.svc.cluster.local"])?,
        }
    }
    balance(world, &ip)?;
    by_hand(world, [&a, &b])?;
    many(world)?;
    world.kubectl.say("delete service web dark away")?;
    world.kubectl.say("delete pod web-a web-b client --timeout=60s").map(|_| ())
}

/// Without affinity one client gets every server. (With it, it gets one: `node_ports.rs`.)
fn balance(world: &World, ip: &str) -> Result<()> {
    let line = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\n%s\\n' $(hostname) | nc -l -p 90; done";
    for name in ["aff-a", "aff-b"] {
        let mut pod = limpet_e2e::pods::manifest(name, json!({"containers": [container("c", line, json!({}))]}));
        pod["metadata"]["labels"] = json!({"app": "aff"});
        world.kubectl.apply(&pod.to_string())?;
    }
    for name in ["aff-a", "aff-b"] {
        ready(world, name)?;
    }
    service(world, "aff", json!({"selector": {"app": "aff"}, "ports": [{"port": 90}]}))?;
    let own = address(world, "aff")?;
    wait::yes(own != ip, || "two services have one address".to_string())?;
    let ask = format!("i=0; while [ $i -lt 20 ]; do timeout 3 wget -qO- http://{own}:90/ && i=$((i+1)); done | sort | uniq");
    answers(world, &ask, &["aff-a", "aff-b"])?;
    world.kubectl.say("delete service aff")?;
    world.kubectl.say("delete pod aff-a aff-b --timeout=60s").map(|_| ())
}

/// A Service without a selector, with slices that somebody else writes: two ports of one pod, then one of each of two.
fn by_hand(world: &World, pods: [&str; 2]) -> Result<()> {
    service(world, "hand", json!({"ports": [{"name": "one", "port": 80}, {"name": "two", "port": 81}]}))?;
    let ip = address(world, "hand")?;
    let slice = |name: &str, pod: &str, port: u16| {
        let labels = json!({"kubernetes.io/service-name": "hand", "endpointslice.kubernetes.io/managed-by": "somebody"});
        let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("hand-{name}"), "labels": labels},
            "endpoints": [{"addresses": [pod], "conditions": {"ready": true}}],
            "ports": [{"name": name, "port": port, "protocol": "TCP"}]});
        world.kubectl.apply(&object.to_string())
    };
    for (second, port, words) in [(0, 81, ["first web-a", "second web-a"]), (1, 80, ["first web-a", "first web-b"])] {
        slice("one", pods[0], 80)?;
        slice("two", pods[second], port)?;
        answers(world, &format!("timeout 3 wget -qO- http://{ip}:80/"), &[words[0]])?;
        answers(world, &format!("timeout 3 wget -qO- http://{ip}:81/"), &[words[1]])?;
    }
    world.kubectl.say("delete service hand")?;
    world.kubectl.say("delete endpointslice hand-one hand-two").map(|_| ())
}

/// A hundred Services at once have their endpoints in the time that the suite gives one.
fn many(world: &World) -> Result<()> {
    let one = |n: usize| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("many-{n}"),
        "labels": {"many": "yes"}}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let all: Vec<Value> = (0..100).map(one).collect();
    world.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())?;
    until("a hundred endpoints", Duration::from_secs(20), || {
        let all = world.kubectl.items("get endpoints -l many=yes")?;
        let whole = all.iter().filter(|e| e["subsets"][0]["addresses"].as_array().map(Vec::len) == Some(2)).count();
        wait::yes(whole == 100, || format!("{whole} of {}", all.len()))
    })?;
    world.kubectl.say("delete service -l many=yes").map(|_| ())
}

/// Tokens: there, not there, and whether the API knows it.
pub fn accounts(world: &World) -> Result<()> {
    world.kubectl.say("create serviceaccount mounts")?;
    world.kubectl.apply(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bare"},
        "automountServiceAccountToken": false})
        .to_string(),
    )?;
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let table = [
        ("mounts", json!(null), true),
        ("mounts", json!(true), true),
        ("mounts", json!(false), false),
        ("bare", json!(null), false),
        ("bare", json!(true), true),
        ("bare", json!(false), false),
    ];
    for (number, (account, pod, _)) in table.iter().enumerate() {
        let mut spec = json!({"serviceAccountName": account});
        if !pod.is_null() {
            spec["automountServiceAccountToken"] = pod.clone();
        }
        sleeper(world, &format!("token-{number}"), json!({}), spec)?;
    }
    for (number, (account, pod, there)) in table.iter().enumerate() {
        let name = format!("token-{number}");
        ready(world, &name)?;
        let found = inside(world, &name, &format!("test -s {dir}/token && cat {dir}/namespace || echo none"))?;
        wait::yes((found.trim() == "default") == *there, || format!("{account} {pod}: {found}"))?;
    }
    let token = inside(world, "token-0", &format!("cat {dir}/token"))?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {"name": "r"},
        "spec": {"token": token.trim()}});
    let words = ["create", "-f", "-", "-o", "json"];
    let answer: Value =
        serde_json::from_str(&world.kubectl.with_input(&words, &review.to_string())?.ok("review")?).map_err(|e| e.to_string())?;
    wait::yes(answer["status"]["user"]["username"] == "system:serviceaccount:default:mounts", || answer.to_string())?;
    let pod = &answer["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    wait::yes(*pod == json!(["token-0"]), || answer.to_string())?;
    let keys = world.kubectl.say("get --raw /openid/v1/jwks")?;
    let about = world.kubectl.say("get --raw /.well-known/openid-configuration")?;
    has(&format!("{keys}{about}"), &["\"keys\"", "issuer", "jwks_uri"])?;
    world.kubectl.say("delete pod --all --timeout=60s").map(|_| ())
}
