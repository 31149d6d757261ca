//! Names and namespaces: host names, resolvers, Service links; what is the pod's own and what is the board's.
//!
//! In: a world with one board. Out: what programs in pods are told and see.

use limpet_e2e::pods::{apply, container, delete, has, hasnt, inside, is, ready, sleeper};
use limpet_e2e::{Result, World, wait};
use serde_json::json;

/// hostAliases, dnsConfig, Service links.
pub fn names(world: &World) -> Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "till"},
        "spec": {"ports": [{"port": 81}], "selector": {"app": "till"}}});
    world.kubectl.apply(&service.to_string())?;
    let spec = json!({
        "hostAliases": [{"ip": "192.0.2.5", "hostnames": ["db", "db.shop"]}],
        "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["shop.test"], "options": [{"name": "ndots", "value": "2"}]},
        "dnsPolicy": "None", "hostname": "till", "subdomain": "shops"});
    sleeper(world, "named", json!({}), spec)?;
    sleeper(world, "unlinked", json!({}), json!({"enableServiceLinks": false}))?;
    ready(world, "named")?;
    ready(world, "unlinked")?;
    let text = inside(world, "named", "cat /etc/hosts /etc/resolv.conf; hostname; env")?;
    has(&text, &["192.0.2.5\tdb\tdb.shop", "till.shops.default.svc.cluster.local", "nameserver 192.0.2.53\n"])?;
    has(&text, &["search shop.test\n", "options ndots:2\n", "\ntill\n", "TILL_SERVICE_PORT=81"])?;
    let text = inside(world, "unlinked", "env")?;
    wait::yes(!text.contains("TILL_SERVICE_PORT"), || text.clone())?;
    has(&text, &["KUBERNETES_SERVICE_HOST="])?;
    // The name that the kernel knows: in full, another one altogether, or the board's.
    let full = json!({"hostname": "till", "subdomain": "shops", "setHostnameAsFQDN": true});
    sleeper(world, "full", json!({}), full)?;
    sleeper(world, "other", json!({}), json!({"hostnameOverride": "mine.example.test"}))?;
    sleeper(world, "board", json!({}), json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}))?;
    for (name, want) in [("full", "till.shops.default.svc.cluster.local"), ("other", "mine.example.test")] {
        ready(world, name)?;
        is(&inside(world, name, "hostname")?, want)?;
    }
    ready(world, "board")?;
    has(&inside(world, "board", "cat /etc/resolv.conf")?, &["search default.svc.cluster.local svc.cluster.local"])?;
    sleeper(world, "plain", json!({}), json!({"dnsPolicy": "Default"}))?;
    ready(world, "plain")?;
    hasnt(&inside(world, "plain", "cat /etc/resolv.conf")?, &["cluster.local"])?;
    delete(world, &["named", "unlinked", "full", "other", "board", "plain"])
}

/// hostPID, hostIPC, hostNetwork: the board's own; without them the pod's.
pub fn namespaces(world: &World) -> Result<()> {
    sleeper(world, "host", json!({}), json!({"hostPID": true, "hostIPC": true, "hostNetwork": true}))?;
    sleeper(world, "own", json!({}), json!({}))?;
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
    has(&inside(world, "host", "ps")?, &["limpet-agent"])?;
    // Two containers that see each other's processes, and two that do not.
    for (name, share) in [("together", true), ("apart", false)] {
        let containers =
            json!([container("c", "exec sleep 1000001", json!({})), container("d", "exec sleep 1000002", json!({}))]);
        apply(world, name, json!({"shareProcessNamespace": share, "containers": containers}))?;
        ready(world, name)?;
        let seen = world.kubectl.run(&["exec", name, "-c", "c", "--", "ps"])?;
        wait::yes(seen.contains("sleep 1000002") == share && seen.contains("sleep 1000001"), || format!("{name}: {seen}"))?;
    }
    delete(world, &["host", "own", "together", "apart"])
}
