//! Brokers that tell their clients by user name and password, a broker of another make, and two hubs at one broker.
//!
//! In: a hub, a board, Debian's Mosquitto or aMQTT from PyPI, an etcd. Out: the same life of pods everywhere; sentences where the
//! broker lets nobody in.

use limpet_e2e::broker::Broker;
use limpet_e2e::process::{Daemon, run, sh, tail};
use limpet_e2e::world::test;
use limpet_e2e::{Kubectl, Result, World, binaries, until, wait};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
const HUB: &str = "the-hub";
const BOARDS: &str = "all-boards";

fn contains(text: &str, word: &str) -> Result<()> {
    wait::yes(text.contains(word), || format!("{word:?} is not in:\n{text}"))
}

fn put(path: PathBuf, text: &str) -> Result<String> {
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

fn sessions(world: &World, words: &str) -> usize {
    tail(&world.agents[0].log, 1 << 24).matches(words).count()
}

/// A session at the broker, or at the hub itself, after those of `before`.
fn again(world: &World, before: usize) -> Result<()> {
    until("a new session", SOON, || {
        let now = sessions(world, "welcome at the hub");
        wait::yes(now > before, || format!("{before} before, now {now}"))
    })
}

/// A board that knows no hub yet.
fn board(world: &mut World) -> Result<()> {
    let address = limpet_e2e::net::board(&world.slot, 1)?;
    let settings = json!({"log": "debug"});
    let agent = limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?;
    world.agents.push(agent);
    Ok(())
}

/// Names and passwords; the hub's is kept in `hub.password`.
fn flags(world: &World, broker: &Broker) -> Result<Vec<String>> {
    let dir = world.slot.dir();
    let hub = put(dir.join("hub.password"), "eight bells\n")?;
    let boards = put(dir.join("boards.password"), "low water\n")?;
    let mut flags = broker.flags();
    let more = ["--broker-username", HUB, "--broker-password-file", &hub, "--broker-node-username", BOARDS];
    flags.extend(more.map(String::from));
    flags.extend(["--broker-node-password-file".to_string(), boards]);
    Ok(flags)
}

/// A pod, its words and a changed file, by way of whatever is between.
fn lives(world: &World, name: &str) -> Result<()> {
    lives_by(&world.kubectl, name)
}

fn lives_by(kubectl: &Kubectl, name: &str) -> Result<()> {
    let map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"light": value}}).to_string()
    };
    kubectl.apply(&map("green"))?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "configMap": {"name": name}}],
        "containers": [{"name": "c", "image": "hub.limpet/busybox:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "command": ["sh", "-c", "echo a word; exec sleep 10000"]}]}});
    kubectl.apply(&pod.to_string())?;
    kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"))?;
    contains(&kubectl.say(&format!("logs {name}"))?, "a word")?;
    let much = kubectl.say(&format!("exec {name} -- head -c 1000000 /dev/zero"))?;
    wait::yes(much.len() == 1_000_000, || format!("{} bytes came", much.len()))?;
    kubectl.apply(&map("red"))?;
    until("the changed file", SOON, || {
        let seen = kubectl.say(&format!("exec {name} -- cat /v/light"))?;
        wait::yes(seen == "red", || format!("it says {seen:?}"))
    })
}

/// The life of a hub and a board at a broker with user names, from a wrong password to the way back.
fn at_the_broker_and_back(world: &mut World, broker: &mut Broker) -> Result<()> {
    let flags = flags(world, broker)?;
    broker.start()?;
    world.hub.stop()?;
    // A wrong password is told, and nothing else happens.
    put(world.slot.dir().join("hub.password"), "a guess\n")?;
    world.hub.more = flags.clone();
    world.hub.start()?;
    until("the hub's complaint", SOON, || contains(&tail(&world.hub.log, 1 << 20), "does not let this hub in"))?;
    world.hub.stop()?;
    put(world.slot.dir().join("hub.password"), "eight bells\n")?;
    world.hub.start()?;
    board(world)?;
    world.join()?;
    lives(world, "first")?;
    contains(&tail(&world.agents[0].log, 1 << 24), "at the broker")?;

    // Without the flags the hub goes on where it was, and says so.
    let before = sessions(world, "welcome at the hub");
    world.hub.stop()?;
    (world.hub.more, world.hub.listens) = (Vec::new(), false);
    world.hub.start()?;
    contains(&tail(&world.hub.log, 1 << 20), "as at the last start")?;
    again(world, before)?;
    lives(world, "second")?;

    // And back to the hub itself.
    let (before, direct) = (sessions(world, "welcome at the hub"), sessions(world, "a ping every"));
    world.hub.stop()?;
    let listen = format!("{}:8883", world.hub.address);
    world.hub.more = ["--broker", "none", "--mqtt-listen", &listen].map(String::from).to_vec();
    world.hub.start()?;
    again(world, before)?;
    wait::yes(sessions(world, "a ping every") > direct, || "the session is not a direct one".into())?;
    lives(world, "third")?;
    // It stays so.
    let before = sessions(world, "welcome at the hub");
    world.hub.stop()?;
    (world.hub.more, world.hub.listens) = (Vec::new(), true);
    world.hub.start()?;
    again(world, before)
}

#[test]
fn mosquitto_with_user_names_and_passwords() {
    test(0, &json!({}), |world| {
        let mut broker = Broker::set_up(world)?;
        let acl = world.hub.operate_alone(&["broker", "acl", "--hub-username", HUB, "--node-username", BOARDS])?;
        put(broker.dir.join("limpet.acl"), &acl)?;
        let passwords = put(broker.dir.join("passwords"), "the-hub:eight bells\nall-boards:low water\n")?;
        run(Command::new("mosquitto_passwd").args(["-U", &passwords]))?.ok("mosquitto_passwd")?;
        let config = broker.dir.join("mosquitto.conf");
        let text = fs::read_to_string(&config).map_err(|e| e.to_string())?;
        let unnamed: Vec<&str> =
            text.lines().filter(|l| !l.starts_with("require_certificate") && !l.starts_with("use_identity")).collect();
        put(config, &format!("{}\nuser root\npassword_file {passwords}\n", unnamed.join("\n")))?;
        at_the_broker_and_back(world, &mut broker)
    });
}

/// aMQTT: another implementation, in Python (`cargo xtask setup` fetches it).
#[test]
fn a_broker_of_another_make() {
    let tools = binaries::target_dir().join("tools/amqtt");
    if !tools.is_dir() {
        println!("skipped: {} is not there (cargo xtask setup)", tools.display());
        return;
    }
    test(0, &json!({}), |world| {
        let mut broker = Broker::set_up(world)?;
        let hash = |word: &str| -> Result<String> {
            let code = format!("from pwdlib.hashers.argon2 import Argon2Hasher as H; print(H().hash({word:?}))");
            let made = run(Command::new("python3").args(["-c", &code]).env("PYTHONPATH", &tools))?.ok("pwdlib")?;
            Ok(made.trim().to_string())
        };
        let passwords = format!("{HUB}:{}\n{BOARDS}:{}\n", hash("eight bells")?, hash("low water")?);
        let passwords = put(broker.dir.join("passwords"), &passwords)?;
        let at = |name: &str| broker.dir.join(name).display().to_string();
        // The rights that `limpet broker acl` writes for Mosquitto, in this broker's words.
        let config = json!({
            "listeners": {"default": {"type": "tcp", "bind": format!("{}:8883", broker.address), "ssl": true,
                "certfile": at("broker.crt"), "keyfile": at("broker.key"), "cafile": at("boards-ca.crt")}},
            "plugins": {
                "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": passwords},
                "amqtt.plugins.topic_checking.TopicAccessControlListPlugin": {
                    "publish_acl": {HUB: ["n/+/d"], BOARDS: ["n/+/u"]},
                    "acl": {HUB: ["n/+/u"], BOARDS: ["n/+/d"]}}}});
        // JSON is YAML, too.
        let config = put(broker.dir.join("amqtt.yaml"), &config.to_string())?;
        let python = format!("PYTHONPATH={}", tools.display());
        broker.runs(&["env", &python, "python3", "-m", "amqtt.scripts.broker_script", "-c", &config]);
        at_the_broker_and_back(world, &mut broker)
    });
}

/// Two hubs on one etcd meet their boards at one broker: the leader does, and when it is killed the other one.
#[test]
fn two_hubs_at_one_broker() {
    if limpet_e2e::process::which("etcd").is_none() {
        println!("skipped: etcd is not installed (cargo xtask setup)");
        return;
    }
    test(0, &json!({}), |world| {
        let mut broker = Broker::take_over(world)?;
        let dir = world.slot.dir();
        let own = world.hub.address.clone();
        let at = |port: u16| format!("{own}:{port}");
        let (client, peer) = (format!("http://{}", at(2379)), format!("http://{}", at(2380)));
        let (data, cluster) = (format!("--data-dir={}", dir.join("etcd").display()), format!("--initial-cluster=default={peer}"));
        let flag = |name: &str, url: &str| format!("--{name}={url}");
        let words = [
            "etcd".to_string(),
            data,
            cluster,
            flag("listen-client-urls", &client),
            flag("advertise-client-urls", &client),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
        ];
        let words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        let mark = world.slot.mark();
        let _etcd = Daemon::start(&words, &[(mark.0, mark.1.as_str())], &dir.join("etcd.log"))?;
        until("etcd", SOON, || sh("curl", ["--silent", "--fail", &format!("{client}/health")]).map(|_| ()))?;
        let store = client.replace("http://", "etcd://");
        world.hub.stop()?;
        // The keys stay, the objects are in etcd from now on.
        fs::remove_file(world.hub.dir.join("store.redb")).map_err(|e| e.to_string())?;
        world.hub.more.extend(["--store".to_string(), store.clone()]);
        world.hub.start()?;
        board(world)?;
        world.join()?;
        lives(world, "first")?;

        let second = dir.join("second-hub");
        fs::create_dir_all(&second).map_err(|e| e.to_string())?;
        sh("cp", ["-a", &world.hub.dir.join("pki").to_string_lossy(), &world.hub.dir.join("store.keys").to_string_lossy(),
            &second.to_string_lossy()])?;
        let program = world.binaries.hub.display().to_string();
        let (data, api, registry) = (second.display().to_string(), at(7443), at(7000));
        let mut words = vec![program, "hub".into(), "--data-dir".into(), data, "--api-listen".into(), api];
        words.extend(["--registry-listen".into(), registry, "--advertise-host".into(), world.hub.address.clone()]);
        words.extend(["--store".into(), store]);
        words.extend(broker.flags());
        let words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        let log = dir.join("second-hub.log");
        let _second = Daemon::start(&words, &[(mark.0, mark.1.as_str())], &log)?;
        until("the second hub", SOON, || contains(&tail(&log, 1 << 20), "the hub is ready"))?;
        let kubectl = Kubectl::new(&second.join("admin.kubeconfig"))?;
        kubectl.say("wait --for=condition=Ready node/board-1 --timeout=60s")?;
        wait::yes(!tail(&log, 1 << 20).contains("hub and nodes meet at the broker"), || "both hubs meet the boards".into())?;

        let before = sessions(world, "welcome at the hub");
        world.hub.kill();
        again(world, before).map_err(|e| format!("{e}\n{}", tail(&log, 4000)))?;
        lives_by(&kubectl, "second")?;
        // The pod of before is there, and was not started again.
        let restarts = kubectl.say("get pod first -o jsonpath={.status.containerStatuses[0].restartCount}")?;
        wait::yes(restarts == "0", || format!("{restarts} restarts"))?;
        // The broker goes, too, and comes back.
        let before = sessions(world, "welcome at the hub");
        broker.kill();
        broker.start()?;
        again(world, before)?;
        kubectl.say("wait --for=condition=Ready node/board-1 --timeout=60s").map(|_| ())
    });
}

/// The hub moves away without a word while the broker stays: boards find out, since their signs of life are not answered.
#[test]
fn boards_notice_that_the_hub_has_left_the_broker() {
    test(1, &json!({"log": "debug", "keepaliveSeconds": 5}), |world| {
        let before = sessions(world, "welcome at the hub");
        let _broker = Broker::take_over(world)?;
        again(world, before)?;
        until("the session at the broker", SOON, || contains(&tail(&world.agents[0].log, 1 << 24), "at the broker"))?;
        world.nodes_ready(SOON)?;
        // Answers keep a quiet session alive: more signs of life than a board sends into the void.
        let begun = sessions(world, "welcome at the hub");
        std::thread::sleep(Duration::from_secs(5 * 9));
        wait::yes(sessions(world, "welcome at the hub") == begun, || "a quiet session ended".into())?;
        world.hub.kill();
        // Nothing tells the hub where it was before.
        let file = world.hub.dir.join("hub.json");
        let text = fs::read_to_string(&file).map_err(|e| e.to_string())?;
        let mut kept: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        kept["broker"] = json!(null);
        put(file, &kept.to_string())?;
        world.hub.more.clear();
        world.hub.start()?;
        until("the board's word", SOON, || contains(&tail(&world.agents[0].log, 1 << 24), "the hub has not said a word"))?;
        until("a session at the hub", Duration::from_secs(300), || {
            let log = tail(&world.agents[0].log, 1 << 24);
            let end = log.rfind("has not said a word").unwrap_or(0);
            contains(&log[end..], "welcome at the hub")
        })?;
        world.nodes_ready(SOON)
    });
}
