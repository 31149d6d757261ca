//! What a board costs on the wire: every packet to and from the hub, counted in the board's own network.
//!
//! In: a world with one board. Out: bytes a keep-alive, a month when idle, a changed key of a ConfigMap, a reconnect; the
//! memory of the link alone.
//! Counted are IP packets with their headers (Ethernet's are not: no mobile link has them), of TCP connections with the hub.
//! Never: a figure from arithmetic alone: the month is the measured time, multiplied.

// It waits for what boards do by themselves.
#![allow(clippy::disallowed_methods)]

mod features;
mod memory;

use super::Figure;
use limpet_e2e::{Binaries, World, until, wait};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket, sockopt};
use serde_json::json;
use std::{
    fs::File,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const MONTH_S: f64 = 30.0 * 86_400.0;
/// What a board behind a router uses by itself (the bench's board is in the hub's own network).
const FAR_KEEPALIVE_S: u64 = 340;
const SHORT_KEEPALIVE_S: u64 = 5;
/// More than the time after which what was said is acknowledged.
const PROBE_S: u64 = 65;

/// Counts what passes the board's interface.
struct Capture {
    bytes: Arc<AtomicU64>,
    packets: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Capture {
    /// `hub`: the address whose TCP packets count.
    fn start(namespace: &str, hub: [u8; 4]) -> Result<Capture, String> {
        let (bytes, packets, end) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let capture = Capture { bytes: bytes.clone(), packets: packets.clone(), end: end.clone() };
        let file = File::open(format!("/run/netns/{namespace}")).map_err(|e| e.to_string())?;
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let opened = nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).and_then(|()| {
                let raw = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
                let wait = nix::sys::time::TimeVal::new(0, 200_000);
                nix::sys::socket::setsockopt(&raw, sockopt::ReceiveTimeout, &wait)?;
                Ok(raw)
            });
            let raw = match opened {
                Ok(raw) => {
                    let _ = tell.send(Ok(()));
                    raw
                }
                Err(e) => return drop(tell.send(Err(format!("no capture in the board's network: {e}")))),
            };
            let mut packet = vec![0u8; 65_536];
            while !end.load(Ordering::Relaxed) {
                let Ok(n) = recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()) else { continue };
                if let Some(len) = counts(&packet[..n], hub) {
                    bytes.fetch_add(len, Ordering::Relaxed);
                    packets.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        told.recv().map_err(|e| e.to_string())??;
        Ok(capture)
    }

    fn now(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.packets.load(Ordering::Relaxed))
    }

    /// What passes while nothing has passed for `quiet` afterwards.
    fn settle(&self, quiet: Duration) {
        let mut last = self.now();
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            std::thread::sleep(Duration::from_millis(200));
            if self.now() != last {
                (last, since) = (self.now(), Instant::now());
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// The length of an IPv4 TCP packet to or from the hub.
fn counts(packet: &[u8], hub: [u8; 4]) -> Option<u64> {
    let head = packet.first_chunk::<20>()?;
    let tcp = head[0] >> 4 == 4 && head[9] == 6;
    let ours = head[12..16] == hub || head[16..20] == hub;
    (tcp && ours).then(|| u64::from(u16::from_be_bytes([head[2], head[3]])))
}

/// What the link takes of memory, and nothing else.
pub fn memory(binaries: &Binaries) -> Result<Vec<Figure>, String> {
    let program = crate::dist::board()?;
    memory::run(&World::new(binaries, 1)?, &program)
}

pub fn run(binaries: &Binaries, minutes: u64) -> Result<Vec<Figure>, String> {
    let program = crate::dist::board()?;
    let mut world = World::with(binaries, 1, &json!({"keepaliveSeconds": SHORT_KEEPALIVE_S}))?;
    world.join()?;
    let hub: std::net::Ipv4Addr = world.hub.address.parse().map_err(|_| "the hub's address is not IPv4")?;
    let capture = Capture::start(&world.agents[0].namespace, hub.octets())?;
    let mut figures = vec![told(keepalive(&capture)?)];
    figures.push(told(one_key(&world, &capture)?));
    figures.extend(reconnects(&mut world, &capture)?.into_iter().map(told));
    world.agents[0].power_cut()?;
    world.agents[0].configure(&json!({"keepaliveSeconds": FAR_KEEPALIVE_S}))?;
    world.agents[0].start(None)?;
    world.nodes_ready(Duration::from_secs(90))?;
    figures.extend(features::all(&world, &capture)?);
    figures.extend(memory::run(&world, &program)?.into_iter().map(told));
    if minutes > 0 {
        figures.push(told(idle(&mut world, &capture, minutes)?));
    }
    if limpet_e2e::process::which("mosquitto").is_some() {
        figures.extend(at_a_broker(&mut world)?.into_iter().map(told));
    }
    Ok(figures)
}

/// A sign of life for the hub at Debian's Mosquitto (each third one is answered here), and the kernel's probe between two.
fn at_a_broker(world: &mut World) -> Result<Vec<Figure>, String> {
    world.agents[0].configure(&json!({"keepaliveSeconds": SHORT_KEEPALIVE_S}))?;
    world.agents[0].power_cut()?;
    let broker = limpet_e2e::broker::Broker::take_over(world)?;
    let begun = sessions(world);
    world.agents[0].start(None)?;
    until("a session at the broker", Duration::from_secs(120), || {
        // The hub does not listen any more: a session is one at the broker.
        wait::yes(sessions(world) > begun, || "no session".into())
    })?;
    world.nodes_ready(Duration::from_secs(90))?;
    let at: std::net::Ipv4Addr = broker.address.parse().map_err(|_| "the broker's address is not IPv4")?;
    let capture = Capture::start(&world.agents[0].namespace, at.octets())?;
    let signs = |count: usize| -> Result<[u64; 3], String> {
        capture.settle(Duration::from_secs(SHORT_KEEPALIVE_S - 1));
        let mut signs: Vec<u64> = Vec::new();
        while signs.len() < count {
            let before = capture.now();
            until("a packet", Duration::from_secs(180), || wait::yes(capture.now().1 > before.1, || "none yet".into()))?;
            capture.settle(Duration::from_secs(1));
            signs.push(capture.now().0 - before.0);
        }
        signs.sort_unstable();
        Ok([signs[count / 2], signs[0], signs[count - 1]])
    };
    let [middle, least, most] = signs(12)?;
    let beat = format!("{middle} B (median of 12; {least} to {most}, with the hub's answer)");
    let begun = sessions(world);
    world.agents[0].power_cut()?;
    // Beside it in one run: what such a client is, whose pings the broker answers.
    let idle = broker.idle_client(&world.agents[0].namespace, SHORT_KEEPALIVE_S)?;
    let [peer, least_peer, most_peer] = signs(6)?;
    drop(idle);
    let peer = format!("{peer} B (median of 6; {least_peer} to {most_peer})");
    world.agents[0].configure(&json!({"keepaliveSeconds": 600, "probeSeconds": PROBE_S}))?;
    world.agents[0].start(None)?;
    until("a session at the broker", Duration::from_secs(120), || {
        wait::yes(sessions(world) > begun, || "no session".into())
    })?;
    let [middle, least, most] = signs(3)?;
    let probe = format!("{middle} B (median of 3; {least} to {most})");
    Ok(vec![
        Figure::new("a sign of life at an external broker, and its acknowledgement", beat, "≤ 150 B"),
        Figure::new("the kernel's probe in between", probe, "≤ 150 B"),
        Figure::new("Mosquitto's own client there, a ping and its answer", peer, "beside it"),
    ])
}

/// Who waits for half an hour sees what is there already.
fn told(figure: Figure) -> Figure {
    println!("{}: {}", figure.what, figure.measured);
    figure
}

/// Twelve keep-alives of five seconds: everything else is over by then.
fn keepalive(capture: &Capture) -> Result<Figure, String> {
    capture.settle(Duration::from_secs(SHORT_KEEPALIVE_S - 1));
    let (before, packets) = capture.now();
    std::thread::sleep(Duration::from_secs(12 * SHORT_KEEPALIVE_S));
    let (after, packets_after) = capture.now();
    let times = (packets_after - packets) as f64 / 2.0;
    let each = (after - before) as f64 / times.max(1.0);
    Ok(Figure::new("a keep-alive on the wire, ping and acknowledgement", format!("{each:.0} B ({times:.0} measured)"), "≤ 150 B"))
}

/// A ConfigMap of twenty keys, mounted in a pod; one value changes.
fn one_key(world: &World, capture: &Capture) -> Result<Figure, String> {
    world.push_demo_image()?;
    let value = |n: usize, text: &str| (format!("setting-{n}"), json!(format!("{text} of the setting with number {n}")));
    let data = |changed: usize, text: &str| -> serde_json::Map<String, serde_json::Value> {
        (0..20).map(|n| value(n, if n == changed { text } else { "the usual value" })).collect()
    };
    let map = |text: &str| {
        let data = data(7, text);
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": {
        "containers": [{"name": "c", "image": "hub.limpet/demo-web:1", "volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
        "volumes": [{"name": "s", "configMap": {"name": "settings"}}]}});
    world.kubectl.apply(&map("the usual value").to_string())?;
    world.kubectl.apply(&pod.to_string())?;
    world.kubectl.say("wait --for=condition=Ready pod/reader --timeout=120s")?;
    let mut costs = Vec::new();
    for round in 0..5 {
        // Between two pings, so that none is counted.
        capture.settle(Duration::from_millis(1500));
        let (before, _) = capture.now();
        let (bytes, _) = capture.now();
        let text = format!("another value, {round},");
        world.kubectl.apply(&map(&text).to_string())?;
        until("the change on the wire", Duration::from_secs(20), || {
            wait::yes(capture.now().0 > bytes + 250, || "nothing came".into())
        })?;
        capture.settle(Duration::from_millis(700));
        costs.push((capture.now().0 - before) as f64);
    }
    costs.sort_by(f64::total_cmp);
    let text = format!("{:.0} B (median of 5; {:.0} to {:.0})", costs[2], costs[0], costs[4]);
    Ok(Figure::new("one key of a ConfigMap of 20 changed, acknowledged", text, "≤ 500 B"))
}

fn sessions(world: &World) -> usize {
    limpet_e2e::process::tail(&world.agents[0].log, 1 << 22).matches("welcome at the hub").count()
}

/// The hub's process stays (the TLS session is resumed), and it is a new one (a whole handshake); the set is equal.
fn reconnects(world: &mut World, capture: &Capture) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (what, mark, restart) in [
        ("a reconnect with an equal set, TLS session resumed", "report", false),
        ("a reconnect with an equal set, after a restart of the hub", "report", true),
    ] {
        capture.settle(Duration::from_millis(1500));
        let begun = sessions(world);
        if restart {
            world.hub.stop()?;
            // The board asks for it again about every one and a half seconds: only what the stop said is waited for.
            capture.settle(Duration::from_millis(600));
        }
        let (before, _) = capture.now();
        if restart {
            world.hub.start()?;
        } else {
            // A dead road: the agent notices by itself, and the cut itself costs nothing here.
            limpet_e2e::net::cable(&world.slot, 1, false)?;
            std::thread::sleep(Duration::from_secs(75));
            limpet_e2e::net::cable(&world.slot, 1, true)?;
        }
        until("a new session", Duration::from_secs(90), || {
            wait::yes(sessions(world) > begun, || "no new session".into())
        })?;
        capture.settle(Duration::from_millis(1500));
        figures.push(Figure::new(what, format!("{} B", capture.now().0 - before), mark));
    }
    Ok(figures)
}

fn idle(world: &mut World, capture: &Capture, minutes: u64) -> Result<Figure, String> {
    world.agents[0].power_cut()?;
    world.agents[0].configure(&json!({"keepaliveSeconds": FAR_KEEPALIVE_S}))?;
    let begun = sessions(world);
    world.agents[0].start(None)?;
    until("a session", Duration::from_secs(90), || wait::yes(sessions(world) > begun, || "no session".into()))?;
    capture.settle(Duration::from_secs(20));
    let (before, packets) = capture.now();
    let time = Duration::from_secs(minutes * 60);
    std::thread::sleep(time);
    let (after, packets_after) = capture.now();
    let month = (after - before) as f64 / time.as_secs_f64() * MONTH_S;
    let text = format!(
        "{:.2} MB a month: {} B in {} packets in {minutes} min × {:.0}",
        month / 1e6,
        after - before,
        packets_after - packets,
        MONTH_S / time.as_secs_f64()
    );
    Ok(Figure::new("an idle board on the wire, with TCP and TLS", text, "≤ 1 MB a month"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_tcp_with_the_hub_counts() {
        let mut packet = [0u8; 60];
        (packet[0], packet[3], packet[9]) = (0x45, 52, 6);
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(super::counts(&packet, [192, 0, 2, 1]), Some(52));
        assert_eq!(super::counts(&packet, [192, 0, 2, 2]), None);
        packet[9] = 17;
        assert_eq!(super::counts(&packet, [192, 0, 2, 1]), None);
        assert_eq!(super::counts(&packet[..10], [192, 0, 2, 1]), None);
    }
}
