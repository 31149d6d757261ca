//! The board's own broker: strangers' MQTT clients at a pod's socket, a hub that goes away, messages both ways.
//!
//! In: a world with one board, Debian's mosquitto clients. Out: what the hub's API shows, what clients hear.

use limpet_e2e::process::{Daemon, run, run_with};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::PathBuf, process::Command, time::Duration};

const SOON: Duration = Duration::from_secs(90);

fn pod(name: &str, namespace: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace,
        "annotations": {"limpet.dev/broker": "true"}},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [{
            "name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", "exec sleep 100000"]}]}})
    .to_string()
}

/// The pod's socket, as its containers see it at `/run/limpet/mqtt.sock`.
fn socket(world: &World, name: &str, namespace: &str) -> Result<PathBuf> {
    let uid = world.kubectl.say(&format!("get pod {name} -n {namespace} -o jsonpath={{.metadata.uid}}"))?;
    Ok(world.agents[0].run.join("broker").join(uid).join("mqtt.sock"))
}

fn shown(world: &World, query: &str) -> Result<Vec<Value>> {
    let text = world.kubectl.output(&["get", "--raw", &format!("/limpet/v1/messages/{query}")])?.ok("messages")?;
    text.lines().map(|l| serde_json::from_str(l).map_err(|e| format!("{l}: {e}"))).collect()
}

#[test]
fn a_thousand_messages_wait_for_the_hub_and_come_in_order() {
    test(1, &json!({}), |world| {
        world.kubectl.say("create namespace other")?;
        for (name, namespace) in [("sensor", "default"), ("panel", "default"), ("stranger", "other")] {
            world.kubectl.apply(&pod(name, namespace))?;
            world.kubectl.say(&format!("wait -n {namespace} --for=condition=Ready pod/{name} --timeout=60s"))?;
        }
        let inside = world.kubectl.say("exec sensor -- ls -l /run/limpet")?;
        wait::yes(inside.contains("srw-rw-rw-") && inside.contains("mqtt.sock"), || inside.clone())?;
        // On the pod's own loopback any client works: CONNECT goes in, CONNACK (20 02 00 00) comes back.
        let connect = r"(printf '\020\015\000\004MQTT\004\002\000\000\000\001c'; sleep 1) | nc 127.0.0.1 1883 | od -An -tx1";
        let answer = world.kubectl.output(&["exec", "sensor", "--", "sh", "-c", connect])?.ok("nc")?;
        wait::yes(answer.contains("20 02 00 00"), || answer.clone())?;

        let (sensor, panel, stranger) =
            (socket(world, "sensor", "default")?, socket(world, "panel", "default")?, socket(world, "stranger", "other")?);
        let dir = world.slot.dir();
        let subscribe = |socket: &PathBuf, log: &str| -> Result<(Daemon, PathBuf)> {
            let log = dir.join(log);
            let words = ["mosquitto_sub".as_ref(), "--unix".as_ref(), socket.as_os_str(), "-q".as_ref(), "1".as_ref(),
                "-v".as_ref(), "-t".as_ref(), OsStr::new("#")];
            Ok((Daemon::start(&words, &[], &log)?, log))
        };
        let (_near, near_log) = subscribe(&panel, "near.log")?;
        let (_far, far_log) = subscribe(&stranger, "far.log")?;
        let publish = |topic: &str, lines: &str| -> Result<()> {
            let mut command = Command::new("mosquitto_pub");
            command.arg("--unix").arg(&sensor).args(["-q", "1", "-t", topic, "-l"]);
            run_with(&mut command, lines.as_bytes())?.ok("mosquitto_pub").map(|_| ())
        };
        publish("up/first", "hello\n")?;
        until("the hub to show it", SOON, || {
            let all = shown(world, "default?topic=up/first")?;
            let good = all.len() == 1 && all[0]["payload"] == "hello" && all[0]["pod"] == "sensor" && all[0]["node"] == "board-1";
            wait::yes(good, || format!("{all:?}"))
        })?;

        world.hub.kill();
        let lines: String = (1..=1000).map(|n| format!("{n}\n")).collect();
        publish("up/count", &lines)?;
        publish("local/count", "not for the hub\n")?;
        // They outlive the agent and a power cut of the board.
        until("the messages on the disk", SOON, || {
            let bytes = std::fs::metadata(world.agents[0].data.join("messages")).map_or(0, |m| m.len());
            wait::yes(bytes > 30_000, || format!("{bytes} bytes"))
        })?;
        let heard = |log: &PathBuf, wanted: &str| {
            until("clients to hear", SOON, || {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                wait::yes(text.contains(wanted), || limpet_e2e::process::tail(log, 300))
            })
        };
        heard(&near_log, "up/count 1000")?;
        heard(&near_log, "local/count not for the hub")?;
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        world.hub.start()?;
        until("all of them at the hub", SOON, || {
            let all = shown(world, "default?topic=up/count")?;
            wait::yes(all.len() >= 1000, || format!("{} messages", all.len()))
        })?;
        let all = shown(world, "default?topic=up/count")?;
        let payloads: Vec<&str> = all.iter().filter_map(|m| m["payload"].as_str()).collect();
        let wanted: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
        wait::yes(payloads == wanted, || format!("{} messages, out of order or twice", payloads.len()))?;
        wait::yes(shown(world, "other")?.is_empty(), || "messages of another namespace".to_string())?;
        until("the file gone", SOON, || {
            wait::yes(!world.agents[0].data.join("messages").exists(), || "the file is still there".to_string())
        })?;

        // Down to the boards, while somebody watches.
        let uid = |name: &str, namespace: &str| socket(world, name, namespace);
        until("the sockets", SOON, || wait::yes(uid("panel", "default")?.exists(), || "no socket".to_string()))?;
        let (_near, near_log) = subscribe(&panel, "near2.log")?;
        let watch_log = world.slot.dir().join("watch.log");
        let kubeconfig = world.hub.kubeconfig();
        let watch = [world.kubectl.program.as_os_str(), "--kubeconfig".as_ref(), kubeconfig.as_os_str(), "get".as_ref(),
            "--raw".as_ref(), "/limpet/v1/messages/default?watch=true&topic=up/%2B".as_ref()];
        let _watch = Daemon::start(&watch, &[], &watch_log)?;
        until("a message on the watch", SOON, || {
            publish("up/live", "now\n")?;
            let text = std::fs::read_to_string(&watch_log).unwrap_or_default();
            wait::yes(text.contains("up/live"), || text)
        })?;
        until("a message from the hub", SOON, || {
            let body = world.slot.dir().join("body");
            std::fs::write(&body, "on").map_err(|e| e.to_string())?;
            let path = "/limpet/v1/messages/default?topic=down/lamp";
            let said = world.kubectl.output(&["create", "--raw", path, "-f", &body.display().to_string()])?.ok("create --raw")?;
            wait::yes(said.contains("board-1"), || said.clone())?;
            let text = std::fs::read_to_string(&near_log).unwrap_or_default();
            wait::yes(text.contains("down/lamp on"), || format!("{said} {text}"))
        })?;
        let text = std::fs::read_to_string(&far_log).unwrap_or_default();
        wait::yes(!text.contains("up/") && !text.contains("down/"), || text)?;
        // The same by the operator's command.
        let last = world.hub.operate(&["messages", "show", "--topic", "up/count", "--tail", "2", "--node", "board-1"])?;
        let ends = |line: &str, payload: &str| line.ends_with(&format!("board-1/sensor  up/count  {payload}"));
        let lines: Vec<&str> = last.lines().collect();
        wait::yes(lines.len() == 2 && ends(lines[0], "999") && ends(lines[1], "1000"), || last.clone())?;
        let sent = world.hub.operate(&["messages", "send", "down/sign", "closed at six", "--retain"])?;
        wait::yes(sent.trim() == "sent to board-1", || sent.clone())?;
        heard(&near_log, "down/sign closed at six")?;
        let nobody = world.hub.operate(&["messages", "send", "down/sign", "x", "-n", "kube-system"]).err().unwrap_or_default();
        wait::yes(nobody.contains("no board has a pod in namespace kube-system"), || nobody.clone())?;
        let wrong = world.hub.operate(&["messages", "send", "up/sign", "x"]).err().unwrap_or_default();
        wait::yes(wrong.contains("it begins with `down/`"), || wrong.clone())?;
        // A client with a session hears with QoS 2 what was said while it was not there.
        let as_ear = |until: &[&str]| {
            let mut ear = Command::new("mosquitto_sub");
            ear.arg("--unix").arg(&panel).args(["-c", "-i", "ear", "-q", "2", "-t", "local/tide"]).args(until);
            run(&mut ear).map(|out| out.stdout)
        };
        as_ear(&["-E"])?;
        let mut mouth = Command::new("mosquitto_pub");
        mouth.arg("--unix").arg(&sensor).args(["-q", "2", "-t", "local/tide", "-l"]);
        run_with(&mut mouth, b"high\nlow\n")?.ok("mosquitto_pub")?;
        let words = as_ear(&["-C", "2", "-W", "60"])?;
        wait::yes(words == "high\nlow\n", || format!("{words:?}"))?;
        // Nobody without the right reads them.
        let mut who = Command::new(&world.kubectl.program);
        who.arg("--kubeconfig").arg(&kubeconfig).args(["--as=somebody", "get", "--raw", "/limpet/v1/messages/default"]);
        let refused = run(&mut who)?;
        wait::yes(refused.stderr.contains("forbidden") || refused.stderr.contains("Forbidden"), || refused.stderr)
    });
}

/// The card broke and was written anew: the same node, with the same pod, counts messages and lines of logs from the beginning.
#[test]
fn a_board_with_a_new_card_is_heard() {
    test(1, &json!({}), |world| {
        let mut pod: Value = serde_json::from_str(&pod("sensor", "default")).map_err(|e| e.to_string())?;
        pod["metadata"]["annotations"]["limpet.dev/keep-logs"] = "64Ki".into();
        pod["spec"]["nodeName"] = "board-1".into();
        let script = "cat /etc/words; exec sleep 100000";
        pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "w", "mountPath": "/etc/words", "subPath": "words"}]);
        pod["spec"]["volumes"] = json!([{"name": "w", "configMap": {"name": "w"}}]);
        let meta = json!({"name": "w"});
        let words = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"words": text}});
        world.kubectl.apply(&words("first\nsecond\nthird\n").to_string())?;
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/sensor --timeout=60s")?;
        let publish = |world: &World, topic: &str, lines: &str| -> Result<()> {
            let mut command = Command::new("mosquitto_pub");
            command.arg("--unix").arg(socket(world, "sensor", "default")?).args(["-q", "1", "-t", topic, "-l"]);
            run_with(&mut command, lines.as_bytes())?.ok("mosquitto_pub").map(|_| ())
        };
        publish(world, "up/old", "1\n2\n3\n4\n5\n")?;
        let count = |world: &World, topic: &str, wanted: usize| {
            until("the messages", SOON, || {
                let all = shown(world, &format!("default?topic={topic}"))?;
                wait::yes(all.len() == wanted, || format!("{all:?}"))
            })
        };
        count(world, "up/old", 5)?;
        let kept = |world: &World, line: &str| {
            let dir = world.hub.dir.join("logs");
            until("the line at the hub", SOON, || {
                let found = run(Command::new("grep").args(["-rhs", line]).arg(&dir))?.stdout;
                wait::yes(found.contains(line), || limpet_e2e::process::tail(&world.agents[0].log, 500))
            })
        };
        kept(world, "third")?;

        world.agents[0].power_cut()?;
        std::fs::remove_dir_all(&world.agents[0].data).map_err(|e| e.to_string())?;
        world.kubectl.apply(&words("anew\n").to_string())?;
        let token = world.hub.token(&["--node", "board-1"])?;
        world.agents[0].start(Some(&token))?;
        until("the pod's process", SOON, || wait::yes(!world.named("sleep").is_empty(), || "not yet".into()))?;
        until("the socket", SOON, || publish(world, "up/new", "6\n"))?;
        count(world, "up/new", 1)?;
        kept(world, "anew")
    });
}
