//! Streams over a link that is cut: each of them ends, with a word, and nothing of them is left when the board is back.
//!
//! In: one board, kubectl many times at once, a cable that is pulled. Out: what each kubectl says, the hub's count of streams.

use limpet_e2e::process::{Daemon, tail};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, net, until, wait};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const FOLLOWERS: usize = 12;
const SHELLS: usize = 6;
const CONNECTIONS: usize = 12;

fn pod() -> String {
    let script = "nc -ll -p 9000 -e /bin/cat & while true; do echo line; sleep 0.2; done";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy"}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]}]}})
    .to_string()
}

/// Open streams, as the hub counts them for its metrics.
fn open(world: &World) -> Result<u64> {
    let text = world.kubectl.say("get --raw /metrics")?;
    let line = text.lines().find_map(|l| l.strip_prefix("limpet_streams_open "));
    line.and_then(|n| n.trim().parse::<f64>().ok()).map(|n| n as u64).ok_or_else(|| "no count of streams".into())
}

fn ended(daemons: &mut [(String, Daemon)]) -> Result<()> {
    let alive = |(what, daemon): &mut (String, Daemon)| daemon.check().is_ok().then(|| what.clone());
    let alive: Vec<String> = daemons.iter_mut().filter_map(alive).collect();
    wait::yes(alive.is_empty(), || format!("still there: {alive:?}"))
}

#[test]
fn a_cut_ends_every_stream_and_leaves_none_behind() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(&pod())?;
        world.kubectl.say("wait --for=condition=Ready pod/busy --timeout=90s")?;
        let log = |name: &str| world.slot.dir().join(name);
        let mut daemons = Vec::new();
        for n in 0..FOLLOWERS {
            let name = format!("follow-{n}");
            daemons.push((name.clone(), world.kubectl.start(&["logs", "-f", "busy"], &log(&name))?));
        }
        for n in 0..SHELLS {
            let name = format!("shell-{n}");
            let words = ["exec", "busy", "--", "sh", "-c", "echo line; exec tail -f /dev/null"];
            daemons.push((name.clone(), world.kubectl.start(&words, &log(&name))?));
        }
        daemons.push(("attach".into(), world.kubectl.start(&["attach", "busy"], &log("attach"))?));
        let (_forward, port) = world.kubectl.forward("pod/busy", 9000, &log("forward"))?;
        let mut sockets = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
            socket.set_read_timeout(Some(SOON)).map_err(|e| e.to_string())?;
            let mut echo = [0; 4];
            socket.write_all(b"here").and_then(|()| socket.read_exact(&mut echo)).map_err(|e| format!("echo: {e}"))?;
            sockets.push(socket);
        }
        until("all of them at work", SOON, || {
            let silent = daemons.iter().find(|(name, _)| !tail(&log(name), 4000).contains("line"));
            wait::yes(silent.is_none(), || format!("{:?} says nothing", silent.map(|(name, _)| name)))
        })?;
        let all = (FOLLOWERS + SHELLS + 1 + CONNECTIONS) as u64;
        let at_work = open(world)?;
        wait::yes(at_work >= all, || format!("{at_work} streams of {all}"))?;

        net::cable(&world.slot, 1, false)?;
        until("the end of every kubectl", SOON, || ended(&mut daemons))?;
        for socket in &mut sockets {
            // What it carried is over: an end or an error, not silence.
            let mut rest = Vec::new();
            if let Err(e) = socket.read_to_end(&mut rest) {
                let silent = matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                wait::yes(!silent, || "a forwarded connection hangs".into())?;
            }
        }
        let words = tail(&log("shell-0"), 4000);
        wait::yes(words.contains("error") || words.contains("Error"), || format!("exec ended without a word: {words:?}"))?;
        until("no stream at the hub", SOON, || {
            let left = open(world)?;
            wait::yes(left == 0, || format!("{left} streams"))
        })?;
        net::cable(&world.slot, 1, true)?;
        until("the next one", SOON, || {
            let again = world.kubectl.run(&["exec", "busy", "--", "echo", "again"])?;
            wait::yes(again.contains("again"), || again.clone())
        })
    });
}
