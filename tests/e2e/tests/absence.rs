//! A board that is away for longer than its pods may be: another pod starts elsewhere, and one of the two stays on return.
//!
//! In: worlds of two boards. Out: which pods run where, in the API and as processes. Never: a clock; conditions are waited for.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, process, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// The broker waits for one and a half keep-alives, the hub for forty seconds more.
const LONG: Duration = Duration::from_secs(240);

fn deployment(reconcile: &str) -> String {
    let annotations = json!({"limpet.dev/lost-after": "5s", "limpet.dev/replace": "true", "limpet.dev/reconcile": reconcile});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "till"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "till"}},
            "template": {"metadata": {"labels": {"app": "till"}, "annotations": annotations}, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", "exec sleep 100000"]}]}}},
    })
    .to_string()
}

struct One {
    name: String,
    node: String,
    ready: bool,
    lost: bool,
}

fn pods(world: &World) -> Result<Vec<One>> {
    let text = |p: &Value, at: &str| p.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pods = world.kubectl.items("get pods -l app=till")?;
    Ok(pods
        .iter()
        .map(|p| One {
            name: text(p, "/metadata/name"),
            node: text(p, "/spec/nodeName"),
            ready: limpet_e2e::world::is_ready(p),
            lost: p["metadata"]["annotations"]["limpet.dev/lost-since"].is_string(),
        })
        .collect())
}

/// Cuts the board of the only pod off until another pod runs, joins it again, and tells whether the first pod stayed.
fn original_stays(world: &mut World, reconcile: &str) -> Result<bool> {
    world.kubectl.apply(&deployment(reconcile))?;
    world.kubectl.say("wait --for=condition=Available deployment/till --timeout=120s")?;
    let first = pods(world)?.pop().ok_or("no pod")?;
    let number: usize = first.node.trim_start_matches("board-").parse().map_err(|_| first.node.clone())?;
    let (there, elsewhere) = (number - 1, 2 - number);

    net::cable(&world.slot, number, false)?;
    until("a replacement", LONG, || {
        let pods = pods(world)?;
        let lost = pods.iter().any(|p| p.name == first.name && p.lost);
        let other = pods.iter().any(|p| p.name != first.name && p.ready && p.node != first.node);
        wait::yes(lost && other, || world.kubectl.say("get pods,nodes -o wide").unwrap_or_default())
    })?;
    let running = |world: &World, at: usize| world.agents[at].named("sleep").len();
    // A pod is ready from its shell's start on; the shell becomes what is looked for.
    until("the board that is away to carry on, the other one to have started", LONG, || {
        let (away, other) = (running(world, there), running(world, elsewhere));
        wait::yes(away == 1 && other == 1, || format!("{away} and {other} processes"))
    })?;

    net::cable(&world.slot, number, true)?;
    until("one of the two", LONG, || {
        let pods = pods(world)?;
        let one = pods.len() == 1 && pods[0].ready && !pods[0].lost;
        wait::yes(one, || world.kubectl.say("get pods,nodes -o wide").unwrap_or_default())
    })?;
    let stays = pods(world)?.iter().any(|p| p.name == first.name);
    let (keeps, leaves) = if stays { (there, elsewhere) } else { (elsewhere, there) };
    until("the other one's process to end", LONG, || {
        let ended = running(world, keeps) == 1 && running(world, leaves) == 0;
        wait::yes(ended, || format!("{} and {} processes", running(world, keeps), running(world, leaves)))
    })?;
    until("Events that say so", LONG, || {
        let events = world.kubectl.say("get events")?;
        wait::yes(events.contains("Lost") && events.contains("Reconciled"), || events)
    })?;
    Ok(stays)
}

#[test]
fn the_original_stays_where_nothing_else_is_said() {
    test(2, &json!({"keepaliveSeconds": 5}), |world| {
        let stays = original_stays(world, "keep-original")?;
        wait::yes(stays, || "the replacement stayed".to_string())
    });
}

#[test]
fn the_replacement_stays_where_that_is_wanted() {
    test(2, &json!({"keepaliveSeconds": 5}), |world| {
        let stays = original_stays(world, "keep-replacement")?;
        wait::yes(!stays, || "the original stayed".to_string())
    });
}

fn revision(world: &World) -> Result<u64> {
    let text = world.kubectl.say("get --raw /api/v1/nodes?limit=1")?;
    let list: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    let text = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    text.parse().map_err(|_| format!("no revision: {text:?}"))
}

/// Its connection is torn down again and again, sooner than it counts as away: it carries on, and the hub writes nothing.
#[test]
fn a_board_that_flaps_is_no_storm_of_writes() {
    test(1, &json!({"keepaliveSeconds": 5}), |world| {
        world.kubectl.apply(&deployment("keep-original"))?;
        world.kubectl.say("wait --for=condition=Available deployment/till --timeout=120s")?;
        let sessions = |world: &World| {
            let log = std::fs::read_to_string(&world.hub.log).unwrap_or_default();
            log.lines().filter(|l| l.contains("node session opened")).count()
        };
        let before = revision(world)?;
        for _ in 0..15 {
            let opened = sessions(world);
            // Its exit code tells of sockets that are no TCP; what counts is that the session is a new one.
            let tear = ["netns", "exec", &world.agents[0].namespace, "ss", "-K", "dst", &world.hub.address];
            let torn = process::run(std::process::Command::new("ip").args(tear))?;
            wait::yes(!torn.stderr.contains("exec of"), || format!("nothing to tear with: {}", torn.stderr))?;
            until("another session", LONG, || wait::yes(sessions(world) > opened, || format!("{opened} sessions")))?;
        }
        let after = revision(world)?;
        // A lease may have been due, and a report that was on its way is said again.
        wait::yes(after - before <= 5, || format!("{} writes for 15 torn connections", after - before))?;
        let nodes = world.kubectl.say("get nodes")?;
        let events = world.kubectl.say("get events")?;
        wait::yes(nodes.contains(" Ready ") && !events.contains("NodeNotReady"), || format!("{nodes}{events}"))
    });
}
