//! Hub and boards meet at a broker that neither trusts: Debian's Mosquitto.
//!
//! In: two boards, a hub, a broker in a network of its own, a spy with all rights there. Out: the same life of pods as on a
//! direct
//! link; no word of it at the broker; no effect of what the spy makes up.

use limpet_e2e::broker::Broker;
use limpet_e2e::process::{run, tail};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const SECRET: &str = "the-tide-comes-in-at-seven";

fn contains(text: &str, word: &str) -> Result<()> {
    wait::yes(text.contains(word), || format!("{word:?} is not in:\n{text}"))
}

fn log_of(world: &World, board: usize) -> String {
    tail(&world.agents[board].log, 1 << 24)
}

fn logged(world: &World, board: usize, word: &str) -> Result<()> {
    until("the board's log", SOON, || contains(&log_of(world, board), word))
}

fn sessions(world: &World, board: usize) -> usize {
    log_of(world, board).matches("welcome at the hub").count()
}

/// Sessions that began after those of `before`.
fn again(world: &World, before: &[usize]) -> Result<()> {
    until("new sessions", SOON, || {
        let now: Vec<usize> = (0..before.len()).map(|n| sessions(world, n)).collect();
        wait::yes(now.iter().zip(before).all(|(n, b)| n > b), || format!("{before:?} before, now {now:?}\n{}", world.logs()))
    })
}

/// A world whose boards join by way of the broker.
fn met(body: impl FnOnce(&mut World, &mut Broker) -> Result<()>) {
    test(0, &json!({}), |world| {
        let mut broker = Broker::take_over(world)?;
        for number in 1..=2 {
            let address = limpet_e2e::net::board(&world.slot, number)?;
            let settings = json!({"log": "debug"});
            let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), number, address, settings)?;
            world.agents.push(agent);
        }
        body(world, &mut broker)
    });
}

fn tide(board: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": board, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1",
            "command": ["sh", "-c", "echo a-word-of-the-log; exec sleep 10000"],
            "env": [{"name": "TIDE", "valueFrom": {"secretKeyRef": {"name": "tide", "key": "hour"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "harbour"}}]}})
}

fn harbour(world: &World, light: &str) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "harbour"}, "data": {
        "light": light, "large": "wave ".repeat(120_000)}});
    // Too large for the annotation that `apply` keeps.
    let file = world.slot.dir().join("harbour.json");
    std::fs::write(&file, map.to_string()).map_err(|e| e.to_string())?;
    let known = world.kubectl.say("get configmap harbour").is_ok();
    let verb = if known { "replace" } else { "create" };
    world.kubectl.say(&format!("{verb} -f {}", file.display())).map(|_| ())
}

fn shows(world: &World, pod: &str, light: &str) -> Result<()> {
    until("the light in the pod", SOON, || {
        let seen = world.kubectl.say(&format!("exec {pod} -- cat /v/light"))?;
        wait::yes(seen.trim() == light, || format!("{seen:?} instead of {light:?}"))
    })
}

fn set_out(world: &mut World) -> Result<()> {
    world.join()?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tide"}, "stringData": {"hour": SECRET}});
    world.kubectl.apply(&secret.to_string())?;
    harbour(world, "green")?;
    for n in 1..=2 {
        world.kubectl.apply(&tide(&format!("board-{n}"), &format!("boat-{n}")).to_string())?;
    }
    world.kubectl.say("wait --for=condition=Ready pod/boat-1 pod/boat-2 --timeout=120s").map(|_| ())
}

#[test]
fn pods_live_by_way_of_a_broker_that_sees_nothing() {
    met(|world, broker| {
        let recording = broker.record()?;
        set_out(world)?;
        for n in 1..=2 {
            let boat = format!("boat-{n}");
            contains(&world.kubectl.run(&["exec", &boat, "--", "sh", "-c", "echo $TIDE"])?, SECRET)?;
            contains(&world.kubectl.say(&format!("logs boat-{n}"))?, "a-word-of-the-log")?;
            let size = world.kubectl.say(&format!("exec boat-{n} -- wc -c /v/large"))?;
            contains(&size, "600000").map_err(|e| format!("a message of many parts: {e}"))?;
        }
        // More than a window of parts, in both directions.
        let much = world.kubectl.say("exec boat-1 -- head -c 3000000 /dev/zero")?;
        wait::yes(much.len() == 3_000_000, || format!("{} bytes came", much.len()))?;
        harbour(world, "red")?;
        shows(world, "boat-1", "red")?;
        shows(world, "boat-2", "red")?;

        // The broker dies, things change meanwhile, it comes back.
        let before = [sessions(world, 0), sessions(world, 1)];
        broker.kill();
        harbour(world, "white")?;
        world.kubectl.say("delete pod boat-2 --wait=false")?;
        broker.start()?;
        let second = broker.record()?;
        again(world, &before)?;
        world.nodes_ready(SOON)?;
        shows(world, "boat-1", "white")?;
        until("the end of the pod", SOON, || {
            let left = world.kubectl.items("get pods")?;
            wait::yes(left.len() == 1, || format!("{} pods", left.len()))
        })?;
        // The same with the hub.
        let before = [sessions(world, 0), sessions(world, 1)];
        world.hub.kill();
        world.hub.start()?;
        again(world, &before)?;
        harbour(world, "blue")?;
        shows(world, "boat-1", "blue")?;

        let packets: Vec<(String, Vec<u8>)> = recording.packets().into_iter().chain(second.packets()).collect();
        let bytes: usize = packets.iter().map(|(_, p)| p.len()).sum();
        wait::yes(packets.len() > 100 && bytes > 600_000, || format!("{} packets, {bytes} bytes recorded", packets.len()))?;
        let words = [SECRET, "dGhlLXRpZGUtY29tZXMtaW4tYXQtc2V2ZW4", "harbour", "boat-1", "a-word-of-the-log", "wave wave"];
        for word in words {
            let found = packets.iter().position(|(_, p)| p.windows(word.len()).any(|w| w == word.as_bytes()));
            wait::yes(found.is_none(), || format!("{word:?} stands in packet {found:?}"))?;
        }
        Ok(())
    });
}

fn figure(world: &World, reason: &str) -> Result<u64> {
    let text = world.kubectl.say("get --raw /metrics")?;
    let name = format!("limpet_sealed_packets_refused_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&name)).and_then(|v| v.trim().parse().ok());
    value.ok_or_else(|| format!("no {name}in the hub's figures"))
}

#[test]
fn what_a_spy_with_all_rights_makes_up_changes_nothing() {
    met(|world, broker| {
        let recording = broker.record()?;
        set_out(world)?;
        // A pod that was there once is not brought back by what was said then.
        world.kubectl.say("delete pod boat-2")?;
        harbour(world, "red")?;
        shows(world, "boat-1", "red")?;
        let before = [sessions(world, 0), sessions(world, 1)];
        let version = |pod: &str| Ok::<_, String>(world.kubectl.json(&format!("get pod {pod}"))?["status"].to_string());
        let status = version("boat-1")?;

        let packets = recording.packets();
        let small: Vec<&(String, Vec<u8>)> = packets.iter().filter(|(_, p)| p.len() < 4000).collect();
        let (first, last) = small.split_at(small.len().min(40));
        let some: Vec<_> = first.iter().chain(last.iter().rev().take(40)).collect();
        wait::yes(some.len() == 80, || format!("{} packets recorded", some.len()))?;
        let other = |topic: &str| match topic.contains("board-1") {
            true => topic.replace("board-1", "board-2"),
            false => topic.replace("board-2", "board-1"),
        };
        let back = |topic: &str| match topic.strip_suffix("/u") {
            Some(stem) => format!("{stem}/d"),
            None => format!("{}/u", &topic[..topic.len() - 2]),
        };
        for (n, (topic, packet)) in some.iter().rev().enumerate() {
            // Again and in another order; to the other board; back to where it came from; changed.
            broker.publish(topic, packet)?;
            if n % 4 == 0 {
                broker.publish(&other(topic), packet)?;
                broker.publish(&back(topic), packet)?;
                let mut changed = packet.clone();
                let at = n % changed.len();
                changed[at] ^= 1;
                broker.publish(topic, &changed)?;
            }
        }
        for board in 1..=2 {
            for direction in ["u", "d"] {
                let topic = format!("n/system:node:board-{board}/{direction}");
                // The newest genuine packet with a number that is still to come, and too large a one.
                let newest = packets.iter().rev().find(|(t, p)| *t == topic && p.first() == Some(&0x13));
                let (_, newest) = newest.ok_or("no sealed packet")?;
                let mut next = newest.clone();
                next[7] = next[7].wrapping_add(1);
                for packet in [&next[..], &[7; 60_000], b"\x12", &[0x11; 200]] {
                    broker.publish(&topic, packet)?;
                }
            }
        }

        for reason in ["repeated", "forged"] {
            wait::yes(figure(world, reason)? > 0, || format!("no packet was refused as {reason}"))?;
            for board in ["board-1", "board-2"] {
                let hub = tail(&world.hub.log, 1 << 24);
                let lines = hub.lines().filter(|l| l.contains("was refused") && l.contains(board) && l.contains(reason)).count();
                wait::yes(lines == 1, || format!("the hub says {lines} times that packets for {board} are {reason}"))?;
            }
            for board in 0..2 {
                let lines = log_of(world, board).lines().filter(|l| l.contains("was refused") && l.contains(reason)).count();
                wait::yes(lines == 1, || format!("board {board} says {lines} times that packets are {reason}"))?;
            }
        }
        let now = [sessions(world, 0), sessions(world, 1)];
        wait::yes(now == before, || format!("sessions: {before:?} before, {now:?} after"))?;
        let pods = world.kubectl.items("get pods")?;
        wait::yes(pods.len() == 1, || format!("{} pods", pods.len()))?;
        wait::yes(version("boat-1")? == status, || "the pod's status has changed".into())?;
        // Everything still goes on in the same sessions.
        harbour(world, "blue")?;
        shows(world, "boat-1", "blue")?;
        let now = [sessions(world, 0), sessions(world, 1)];
        wait::yes(now == before, || format!("sessions: {before:?} before, {now:?} at the end"))
    });
}

#[test]
fn the_acl_keeps_boards_apart_and_a_removed_one_out() {
    met(|world, broker| {
        world.join()?;
        let data = world.agents[0].data.clone();
        let own = "n/system:node:board-1/d";
        // Mosquitto takes every subscription, and then delivers what the ACL lets through.
        let mut listens = vec!["mosquitto_sub", "-W", "8", "-F", "%t"];
        let others = ["n/system:node:board-2/d", "n/system:node:board-2/u", "n/system:node:board-1/u"];
        for filter in ["#", "n/+/d", "n/+/u", "n/#"].into_iter().chain(others) {
            listens.extend(["-t", filter]);
        }
        let heard = std::thread::scope(|threads| {
            let listening = threads.spawn(|| broker.as_board(&data, &listens));
            while !listening.is_finished() {
                for topic in [own, "n/system:node:board-2/d", "n/system:node:board-2/u", "n/system:node:board-1/u", "other"] {
                    broker.publish(topic, b"for the ACL")?;
                }
            }
            listening.join().map_err(|_| "the listener ended badly".to_string())?
        })?;
        let topics: std::collections::BTreeSet<&str> = heard.stdout.lines().collect();
        wait::yes(topics.into_iter().eq([own]), || format!("{heard:?}"))?;
        // What it publishes elsewhere arrives nowhere.
        let recording = broker.record()?;
        for topic in ["n/system:node:board-2/u", "n/system:node:board-2/d", own, "x", "n/system:limpet-hub/d"] {
            broker.as_board(&data, &["mosquitto_pub", "-t", topic, "-m", "made by board-1"])?;
        }
        broker.as_board(&data, &["mosquitto_pub", "-t", "n/system:node:board-1/u", "-m", "its own"])?;
        until("the board's own packet", SOON, || {
            wait::yes(recording.packets().iter().any(|(_, p)| p == b"its own"), || "not there".into())
        })?;
        let strays = recording.packets().into_iter().filter(|(_, p)| p == b"made by board-1").count();
        wait::yes(strays == 0, || format!("{strays} packets got through"))?;
        // Without a certificate there is no connection.
        let mut nobody = Command::new("mosquitto_sub");
        let ca = broker.dir.join("broker-ca.crt");
        nobody.args(["-h", &broker.address, "-p", "8883", "-W", "3", "-t", "#", "--cafile"]).arg(ca);
        wait::yes(run(&mut nobody)?.code != 0, || "a client without a certificate was let in".into())?;

        // The hub cannot be reached but by the broker: the certificate is renewed all the same.
        world.agents[1].power_cut()?;
        let file = world.agents[1].data.join("identity/identity.json");
        let text = std::fs::read(&file).map_err(|e| e.to_string())?;
        let mut answer: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        let old = answer["certificate_pem"].clone();
        answer["api"] = json!([format!("{}:1", world.hub.address)]);
        // Whoever lacks the key of a version that is wanted renews at once.
        answer["update_key"] = json!("");
        world.kubectl.say("annotate node board-2 limpet.dev/agent-version=99.0.0")?;
        std::fs::write(&file, answer.to_string()).map_err(|e| e.to_string())?;
        world.agents[1].start(None)?;
        // The log may tell of an earlier renewal, too: what is kept on the board counts.
        until("the new certificate", SOON, || {
            let text = std::fs::read(&file).map_err(|e| e.to_string())?;
            let answer: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            wait::yes(answer["certificate_pem"] != old, || "the same certificate".into())
        })?;
        contains(&log_of(world, 1), "asking by way of the broker")?;

        // A removed board: the hub says so, and does not listen to it any more.
        let begun = sessions(world, 0);
        world.hub.operate(&["node", "remove", "board-1"])?;
        logged(world, 0, "the hub ends the session: the node was deleted")?;
        until("the end of the node", SOON, || {
            let left = world.kubectl.items("get nodes")?;
            wait::yes(left.len() == 1, || format!("{} nodes", left.len()))
        })?;
        let is_greeting = |(topic, packet): &(String, Vec<u8>)| topic.ends_with("board-1/u") && packet.first() == Some(&0x11);
        let greets = || recording.packets().iter().filter(|packet| is_greeting(packet)).count();
        let so_far = greets();
        until("more greetings", SOON, || wait::yes(greets() > so_far + 2, || format!("{} greetings", greets())))?;
        wait::yes(sessions(world, 0) == begun, || "a removed board got a session".into())?;
        let nodes = world.kubectl.items("get nodes")?;
        wait::yes(nodes.len() == 1, || format!("{} nodes", nodes.len()))
    });
}

/// Boards that joined before find the broker by themselves, and a board that vanishes is missed.
#[test]
fn boards_of_a_direct_link_follow_the_hub_to_the_broker() {
    test(1, &json!({"log": "debug", "keepaliveSeconds": 5}), |world| {
        let before = [sessions(world, 0)];
        let _broker = Broker::take_over(world)?;
        again(world, &before)?;
        logged(world, 0, "at the broker")?;
        world.nodes_ready(SOON)?;
        world.agents[0].power_cut()?;
        world.kubectl.say("wait --for=condition=Ready=Unknown node/board-1 --timeout=120s").map(|_| ())
    });
}
