//! A board at the end of a narrow and long road: streams that carry all they can, and state that is not held up by them.
//!
//! In: 1 Mbit/s and 300 ms there and back, 50 connections through kubectl port-forward. Out: how much of the road's time a
//! change needs, told by what the road has carried meanwhile and not by a clock: a busy machine makes nothing worse.

use limpet_e2e::narrow::{Road, Way};
use limpet_e2e::world::test;
use limpet_e2e::process::tail;
use limpet_e2e::{World, until, wait};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const BYTES_PER_SECOND: u64 = 125_000;
const CONNECTIONS: usize = 50;

/// Nothing may be worse than this: the road's second.
const SECOND: f64 = 1.0;

fn map(round: usize) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "common"},
        "data": {"round": round.to_string(), "rest": "the usual value"}})
    .to_string()
}

fn pod() -> String {
    // One port gives without end, the other one gives back what it gets.
    let script = "mkdir /www; dd if=/dev/zero of=/www/much bs=1M count=24 2>/dev/null; \
        httpd -p 8080 -h /www; exec nc -ll -p 9000 -e /bin/cat";
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "common", "mountPath": "/common"}]}],
        "volumes": [{"name": "common", "configMap": {"name": "common"}}]}})
    .to_string()
}

/// What the container's file says.
fn round(world: &World) -> Option<usize> {
    let process = world.named("nc").into_iter().next()?;
    let text = std::fs::read_to_string(format!("/proc/{}/root/common/round", process.pid)).ok()?;
    text.trim().parse().ok()
}

fn sessions(world: &World) -> usize {
    tail(&world.agents[0].log, 1 << 22).matches("welcome at the hub").count()
}

/// Half of them take all that they get, half of them send all that they may; how many bytes came out.
fn load(take: u16, echo: u16, got: &Arc<AtomicU64>) {
    for n in 0..CONNECTIONS {
        let port = if n % 2 == 0 { take } else { echo };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /much HTTP/1.0\r\n\r\n");
        } else if let Ok(mut other) = stream.try_clone() {
            std::thread::spawn(move || while other.write_all(&[7; 8192]).is_ok() {});
        }
        let got = Arc::clone(got);
        std::thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                got.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
    }
}

#[test]
fn state_is_not_held_up_by_fifty_port_forwards() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(&map(0))?;
        world.kubectl.apply(&pod())?;
        world.kubectl.say("wait --for=condition=Ready pod/busy --timeout=120s")?;
        let way = Way { bytes_per_second: BYTES_PER_SECOND, delay: Duration::from_millis(150), queue_bytes: 64 * 1024 };
        let road = Road::open(&world.slot, 1, way, way)?;
        // The connection of before went by another road.
        let begun = sessions(world);
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        until("a session by the new road", SOON, || wait::yes(sessions(world) > begun, || "none".into()))?;
        until("the pod", SOON, || wait::yes(round(world) == Some(0), || "it does not run".into()))?;
        world.kubectl.say("wait --for=condition=Ready pod/busy --timeout=120s")?;
        // What a command has written when it ends comes whole, however long that takes.
        let all = world.kubectl.output(&["exec", "busy", "--", "head", "-c", "400000", "/dev/zero"])?;
        wait::yes(all.code == 0 && all.stdout.len() == 400_000, || format!("{} bytes, code {}", all.stdout.len(), all.code))?;
        let log = |name: &str| world.slot.dir().join(name);
        let (_take, take) = world.kubectl.forward("pod/busy", 8080, &log("take.log"))?;
        let (_echo, echo) = world.kubectl.forward("pod/busy", 9000, &log("echo.log"))?;
        let got = Arc::<AtomicU64>::default();
        load(take, echo, &got);
        // Everything is under way when the road has been full for some seconds.
        until("a full road", SOON, || {
            let (down, up) = road.carried();
            wait::yes(down.min(up) > 5 * BYTES_PER_SECOND, || format!("{down} bytes down, {up} up"))
        })?;
        let mut took = Vec::new();
        for n in 1..=9 {
            world.kubectl.apply(&map(n))?;
            let before = road.carried().0;
            until("the change on the board", SOON, || {
                wait::yes(round(world) == Some(n), || format!("round {:?} instead of {n}", round(world)))
            })?;
            took.push((road.carried().0 - before) as f64 / BYTES_PER_SECOND as f64);
        }
        let (_, up) = road.carried();
        let delivered = got.load(Ordering::Relaxed);
        println!("a change on a full road: {took:.2?} s of the road's time; {delivered} of {up} bytes up were the streams'");
        took.sort_by(f64::total_cmp);
        wait::yes(took[took.len() / 2] < SECOND, || format!("state waits for streams: {took:.2?} s of the road's time"))?;
        wait::yes(delivered * 2 > up, || format!("the streams got {delivered} bytes of {up}"))
    });
}
