//! A leaf board: the firmware's code over embassy-net on a TAP device, a real hub, kubectl.
//!
//! In: a world with a hub and no other board. Out: what kubectl sees of the leaf, what the leaf's light does.
//! A hub whose clock is months ahead is one under libfaketime.

use limpet_e2e::process::{Daemon, tail};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Hub, Result, World, binaries, net, until, wait};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const SOON: Duration = Duration::from_secs(120);

struct Leaf {
    program: PathBuf,
    words: Vec<String>,
    mark: (&'static str, String),
    log: PathBuf,
    process: Option<Daemon>,
}

impl Leaf {
    fn new(world: &World, token: &str) -> Result<Leaf> {
        let (tap, address) = net::tap(&world.slot, 9)?;
        let flash = world.slot.dir().join("pico.flash");
        let words = [
            ("--tap", tap),
            ("--address", format!("{address}/24")),
            ("--gateway", world.slot.address(1)),
            ("--name", "pico".into()),
            ("--flash", flash.to_string_lossy().into_owned()),
            ("--token", token.into()),
        ];
        let words = words.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect();
        let log = world.slot.dir().join("pico.log");
        Ok(Leaf { program: binaries::leaf()?, words, mark: world.slot.mark(), log, process: None })
    }

    fn power_on(&mut self) -> Result<()> {
        let program = [self.program.as_os_str()];
        let words: Vec<&OsStr> = program.into_iter().chain(self.words.iter().map(OsStr::new)).collect();
        self.process = Some(Daemon::start(&words, &[(self.mark.0, self.mark.1.as_str())], &self.log)?);
        Ok(())
    }

    fn power_cut(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    fn count(&self, words: &str) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().matches(words).count()
    }

    fn says(&mut self, words: &str, times: usize) -> Result<()> {
        until(&format!("the leaf: {words:?}"), SOON, || {
            if let Some(process) = &mut self.process {
                process.check()?;
            }
            let count = self.count(words);
            wait::yes(count >= times, || format!("said {count} times:\n{}", tail(&self.log, 3000)))
        })
    }
}

fn node(world: &World) -> Result<Value> {
    let nodes = world.kubectl.items("get nodes")?;
    nodes.into_iter().find(|n| n["metadata"]["name"] == "pico").ok_or_else(|| "there is no node pico".into())
}

/// Waits until the node's condition has this status and reason.
fn condition(world: &World, kind: &str, status: &str, reason: &str) -> Result<()> {
    until(&format!("{kind} {status} {reason}"), SOON, || {
        let node = node(world)?;
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let good = all.iter().any(|c| c["type"] == kind && c["status"] == status && c["reason"] == reason);
        wait::yes(good, || format!("{all:?}"))
    })
}

fn ready(world: &World) -> Result<()> {
    until("the leaf Ready", SOON, || {
        let node = node(world)?;
        wait::yes(is_ready(&node), || node["status"]["conditions"].to_string())
    })
}

fn configure(world: &World, data: Value) -> Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greenhouse"}, "data": data});
    world.kubectl.apply(&map.to_string()).map(|_| ())
}

fn life(world: &mut World, leaf: &mut Leaf) -> Result<()> {
    leaf.power_on()?;
    ready(world)?;
    until("label, taint and room", SOON, || {
        let node = node(world)?;
        let taints = node["spec"]["taints"].to_string();
        let good = node["metadata"]["labels"]["limpet.dev/leaf"] == "true"
            && taints.contains(r#""effect":"NoSchedule","key":"limpet.dev/leaf""#)
            && node["status"]["allocatable"]["pods"] == "0"
            && node["status"]["nodeInfo"]["operatingSystem"] == "none";
        wait::yes(good, || format!("{} {taints}", node["metadata"]["labels"]))
    })?;
    condition(world, "Configured", "False", "NotAnnotated")?;

    configure(world, json!({"led": "on"}))?;
    world.kubectl.say("annotate node pico limpet.dev/leaf-config=default/greenhouse")?;
    leaf.says("led on", 1)?;
    condition(world, "Configured", "True", "Applied")?;
    configure(world, json!({"led": "purple"}))?;
    condition(world, "Configured", "False", "Refused")?;
    configure(world, json!({"led": "blink", "fault": "0x76 is silent", "telemetrySeconds": "1"}))?;
    leaf.says("led blink", 1)?;
    condition(world, "SensorFault", "True", "Told")?;

    let metrics = world.kubectl.say("get --raw /api/v1/nodes/pico/proxy/metrics")?;
    wait::yes(metrics.contains("limpet_leaf_led 1\n"), || metrics.clone())?;
    let none = world.kubectl.output(&["get", "--raw", "/api/v1/nodes/pico/proxy/stats/summary"])?;
    wait::yes(none.code != 0 && none.stderr.contains("/metrics"), || format!("{none:?}"))?;
    until("telemetry at the hub", SOON, || {
        let text = world.kubectl.say("get --raw /limpet/v1/messages/default?topic=up/telemetry")?;
        let lines: Vec<&str> = text.lines().collect();
        wait::yes(lines.len() >= 2 && text.contains("uptime_seconds") && text.contains(r#""node":"pico""#), || text.clone())
    })?;

    // More than the board has room for: it says so, and stays.
    configure(world, json!({"led": "on", "text": "x".repeat(5000)}))?;
    condition(world, "Configured", "False", "NotThere")?;
    ready(world)?;
    configure(world, json!({"led": "blink"}))?;
    condition(world, "Configured", "True", "Applied")?;

    // Without a hub the last configuration is followed from flash.
    let before = leaf.count("led blink");
    leaf.power_cut();
    world.hub.kill();
    leaf.power_on()?;
    leaf.says("led blink", before + 1)?;
    let joined = leaf.count("state Ready");
    // Another hub at the same address, with keys of its own, is not its hub.
    let mut stranger = Hub::new(&world.slot, world.binaries.hub.clone(), &world.hub.address);
    stranger.dir = world.slot.dir().join("stranger");
    stranger.start()?;
    leaf.says("not the one that this board knows", 1)?;
    stranger.kill();
    wait::yes(leaf.count("state Ready") == joined, || "it talked to a stranger".to_string())?;
    world.hub.start()?;
    leaf.says("state Ready", joined + 1)?;
    condition(world, "Configured", "True", "Applied")?;

    // A removed node hears why, and is not let in again.
    world.kubectl.say("delete node pico")?;
    leaf.says("does not let this board in", 1)
}

#[test]
fn a_leaf_joins_follows_its_config_and_keeps_it_without_a_hub() {
    if let Some(why) = limpet_e2e::missing() {
        println!("skipped: {why}");
        return;
    }
    let done = Binaries::build("dev").and_then(|binaries| {
        let mut world = World::new(&binaries, 0)?;
        let token = world.hub.token(&["--node", "pico"])?;
        let mut leaf = Leaf::new(&world, &token)?;
        life(&mut world, &mut leaf).map_err(|why| format!("{why}\n--- leaf\n{}\n{}", tail(&leaf.log, 4000), world.logs()))
    });
    if let Err(why) = done {
        panic!("{why}");
    }
}

/// Certificates live for a year.
fn renewals(world: &mut World, leaf: &mut Leaf, library: &str) -> Result<()> {
    leaf.power_on()?;
    leaf.says("state Ready", 1)?;
    // Two thirds are over: it hears the time, and renews before the next connection.
    world.hub.kill();
    world.hub.ahead(library, "300d");
    world.hub.start()?;
    leaf.says("state Ready", 2)?;
    world.hub.kill();
    world.hub.start()?;
    leaf.says("the certificate is renewed", 1)?;
    leaf.says("state Ready", 3)?;
    // Longer off than any certificate lives. Its own clock has stood still meanwhile.
    leaf.power_cut();
    world.hub.kill();
    world.hub.ahead(library, "800d");
    world.hub.start()?;
    leaf.power_on()?;
    leaf.says("the certificate is renewed", 2)?;
    leaf.says("state Ready", 4)
}

#[test]
fn a_leafs_certificate_is_renewed_in_time_and_after_it_has_ended() {
    let library = limpet_e2e::hub::faketime();
    let why = limpet_e2e::missing().or_else(|| library.is_none().then(|| "needs libfaketime: run `cargo xtask setup`".into()));
    if let Some(why) = why {
        println!("skipped: {why}");
        return;
    }
    let done = Binaries::build("dev").and_then(|binaries| {
        let mut world = World::new(&binaries, 0)?;
        let token = world.hub.token(&["--node", "pico"])?;
        let mut leaf = Leaf::new(&world, &token)?;
        let outcome = renewals(&mut world, &mut leaf, library.unwrap_or_default());
        outcome.map_err(|why| format!("{why}\n--- leaf\n{}\n{}", tail(&leaf.log, 4000), world.logs()))
    });
    done.unwrap_or_else(|why| panic!("{why}"));
}

/// Answers every question with one address (RFC 1035); how often.
fn name_server(at: &str, address: Ipv4Addr) -> Result<Arc<AtomicUsize>> {
    let socket = UdpSocket::bind((at, 53)).map_err(|e| format!("{at}:53: {e}"))?;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let Some(question) = packet.get(12..length) else { continue };
            count.fetch_add(1, Ordering::Relaxed);
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(question);
            // The name of the question; an address of the Internet; good for no time at all.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend(address.octets());
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(asked)
}

fn by_name(world: &mut World) -> Result<()> {
    let address = world.hub.address.clone();
    let asked = name_server(&address, address.parse().map_err(|e| format!("{address}: {e}"))?)?;
    // A hub with a name besides its address, and a token that knows only the name.
    world.hub.stop()?;
    world.hub.more = vec!["--advertise-host".into(), "hub.example".into()];
    world.hub.start()?;
    let token = world.hub.token(&["--node", "pico"])?;
    let (head, body) = token.split_once('.').ok_or("a token without a dot")?;
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|e| e.to_string())?;
    let mut named: Value = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    named["hubs"] = json!(["hub.example:6443"]);
    let token = format!("{head}.{}", URL_SAFE_NO_PAD.encode(named.to_string()));
    let mut leaf = Leaf::new(world, &token)?;
    leaf.words.extend(["--dns".to_string(), address]);
    let told = |why: String, leaf: &Leaf, world: &World| format!("{why}\n--- leaf\n{}\n{}", tail(&leaf.log, 4000), world.logs());
    leaf.power_on()?;
    leaf.says("state Ready", 1).map_err(|why| told(why, &leaf, world))?;
    let joined = asked.load(Ordering::Relaxed);
    wait::yes(joined > 0, || "it joined without asking for the hub's name".to_string())?;
    // The next way to the hub is the one with the name.
    world.hub.kill();
    world.hub.start()?;
    leaf.says("state Ready", 2).map_err(|why| told(why, &leaf, world))?;
    let again = asked.load(Ordering::Relaxed);
    wait::yes(again > joined, || format!("it never asked for the name again:\n{}", tail(&leaf.log, 4000)))
}

#[test]
fn a_leaf_finds_its_hub_by_name() {
    if let Some(why) = limpet_e2e::missing() {
        println!("skipped: {why}");
        return;
    }
    let done = Binaries::build("dev").and_then(|binaries| by_name(&mut World::new(&binaries, 0)?));
    done.unwrap_or_else(|why| panic!("{why}"));
}
