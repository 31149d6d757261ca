//! Fields of a pod that other tests do not touch: what they say is what its programs see.
//!
//! In: a world with one board. Out: files, namespaces and mounts as containers see them.

use limpet_e2e::process::sh;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const FOREVER: &str = "exec sleep 1000000";

fn apply(world: &World, name: &str, container: Value, spec: Value) -> Result<()> {
    let mut c = json!({"name": "c", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", FOREVER]});
    let mut whole = json!({"terminationGracePeriodSeconds": 1});
    for (target, more) in [(&mut c, container), (&mut whole, spec)] {
        if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
            target.extend(more);
        }
    }
    whole["containers"] = json!([c]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole});
    world.kubectl.apply(&pod.to_string()).map(|_| ())
}

fn ready(world: &World, name: &str) -> Result<Value> {
    until(&format!("{name} ready"), SOON, || {
        let pod = world.kubectl.json(&format!("get pod {name}"))?;
        wait::yes(limpet_e2e::world::is_ready(&pod), || pod["status"].to_string())?;
        Ok(pod)
    })
}

/// What a line of shell in the pod's container says.
fn inside(world: &World, name: &str, line: &str) -> Result<String> {
    world.kubectl.run(&["exec", name, "--", "sh", "-c", line])
}

fn has(text: &str, words: &[&str]) -> Result<()> {
    wait::yes(words.iter().all(|word| text.contains(word)), || format!("{words:?} are not all in:\n{text}"))
}

#[test]
fn fields_do_what_they_say() {
    test(1, &json!({}), |world| {
        names(world)?;
        namespaces(world)?;
        mounts(world)
    });
}

/// hostAliases, dnsConfig, Service links.
fn names(world: &World) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "till"},
        "spec": {"ports": [{"port": 81}], "selector": {"app": "till"}}});
    world.kubectl.apply(&service.to_string())?;
    let spec = json!({
        "hostAliases": [{"ip": "192.0.2.5", "hostnames": ["db", "db.shop"]}],
        "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["shop.test"], "options": [{"name": "ndots", "value": "2"}]},
        "dnsPolicy": "None", "hostname": "till", "subdomain": "shops"});
    apply(world, "named", json!({}), spec)?;
    apply(world, "unlinked", json!({}), json!({"enableServiceLinks": false}))?;
    ready(world, "named")?;
    ready(world, "unlinked")?;
    let text = inside(world, "named", "cat /etc/hosts /etc/resolv.conf; hostname; env")?;
    has(&text, &["192.0.2.5\tdb\tdb.shop", "till.shops.default.svc.cluster.local", "nameserver 192.0.2.53\n"])?;
    has(&text, &["search shop.test\n", "options ndots:2\n", "\ntill\n", "TILL_SERVICE_PORT=81"])?;
    let text = inside(world, "unlinked", "env")?;
    wait::yes(!text.contains("TILL_SERVICE_PORT"), || text.clone())?;
    has(&text, &["KUBERNETES_SERVICE_HOST="])
}

/// hostPID, hostIPC, hostNetwork: the board's own; without them the pod's.
fn namespaces(world: &World) -> Result<()> {
    apply(world, "host", json!({}), json!({"hostPID": true, "hostIPC": true, "hostNetwork": true}))?;
    apply(world, "own", json!({}), json!({}))?;
    ready(world, "host")?;
    ready(world, "own")?;
    let of = |name: &str| inside(world, name, "for n in pid ipc net uts mnt; do readlink /proc/self/ns/$n; done");
    let agent = world.agents[0].agent_process()?;
    let board = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", agent.pid);
        std::fs::read_link(&path).map(|p| p.to_string_lossy().into_owned()).map_err(|e| format!("{path}: {e}"))
    };
    let (host, own) = (of("host")?, of("own")?);
    for kind in ["pid", "ipc", "net", "uts"] {
        let name = board(kind)?;
        wait::yes(host.contains(&name) && !own.contains(&name), || format!("{kind} {name}; host {host}; own {own}"))?;
    }
    let mounts = board("mnt")?;
    wait::yes(!host.contains(&mounts) && !own.contains(&mounts), || format!("mounts {mounts} are shared"))?;
    has(&inside(world, "host", "ps")?, &["limpet-agent"])
}

/// recursiveReadOnly: what the board has mounted below a volume. (How mounts travel is the runtime's own test.)
fn mounts(world: &World) -> Result<()> {
    let dir = world.slot.dir().join("tree");
    std::fs::create_dir_all(dir.join("below")).map_err(|e| e.to_string())?;
    let (board, below) = (world.agents[0].agent_process()?.pid.to_string(), dir.join("below"));
    sh("nsenter", ["-m", "-t", &board, "--", "mount", "-t", "tmpfs", "below", &below.to_string_lossy()])?;
    let volumes = json!([{"name": "v", "hostPath": {"path": dir}}]);
    let mount = |more: Value| {
        let mut mount = json!({"name": "v", "mountPath": "/v"});
        if let (Some(mount), Value::Object(more)) = (mount.as_object_mut(), more) {
            mount.extend(more);
        }
        json!({"volumeMounts": [mount]})
    };
    for (name, more, writable) in [
        ("deep", json!({"readOnly": true, "recursiveReadOnly": "Enabled"}), false),
        ("flat", json!({"readOnly": true, "recursiveReadOnly": "Disabled"}), true),
    ] {
        apply(world, name, mount(more), json!({"volumes": volumes}))?;
        let pod = ready(world, name)?;
        let said = &pod["status"]["containerStatuses"][0]["volumeMounts"];
        let shown = said.as_array().into_iter().flatten().find(|m| m["name"] == "v").cloned().unwrap_or_default();
        let want = if writable { "Disabled" } else { "Enabled" };
        wait::yes(shown["recursiveReadOnly"] == want, || format!("{name}: {said}"))?;
        let text = inside(world, name, "touch /v/x 2>/dev/null && echo top; touch /v/below/x 2>/dev/null && echo below; true")?;
        wait::yes(!text.contains("top") && text.contains("below") == writable, || format!("{name}: {text}"))?;
    }
    Ok(())
}
