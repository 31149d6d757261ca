//! Debian's Mosquitto in a network of its own, set up by `limpet broker setup`, and somebody there with all rights.
//!
//! In: a world whose hub runs. Out: the broker, killed and started at will; the hub meets its boards there. The spy reads all
//! that
//! goes by, and publishes what it likes.
//! Never: rights for the spy beyond this broker: its certificate opens nothing at the hub.

use crate::process::{Daemon, run};
use crate::{Result, World, net, until, wait};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Its place among the namespaces of the boards.
const NUMBER: usize = 9;
const SPY: &str = "spy";

pub struct Broker {
    pub address: String,
    pub dir: PathBuf,
    namespace: String,
    mark: (&'static str, String),
    /// Its command line, to be run in its namespace.
    program: Vec<String>,
    process: Option<Daemon>,
}

impl Broker {
    /// What `limpet broker setup` writes; nothing runs yet.
    pub fn set_up(world: &World) -> Result<Broker> {
        let address = net::board(&world.slot, NUMBER)?;
        let dir = world.slot.dir().join("broker");
        world.hub.operate(&["broker", "setup", "--host", &address, "--out", &dir.to_string_lossy()])?;
        let program = ["mosquitto", "-c", &dir.join("mosquitto.conf").to_string_lossy()].map(str::to_string).to_vec();
        let (namespace, mark) = (world.slot.namespace(NUMBER), world.slot.mark());
        Ok(Broker { address, dir, namespace, mark, program, process: None })
    }

    /// The flags with which a hub meets its boards here.
    pub fn flags(&self) -> Vec<String> {
        let url = format!("mqtts://{}:8883", self.address);
        ["--broker", &url, "--broker-cafile", &self.dir.join("broker-ca.crt").to_string_lossy()].map(str::to_string).to_vec()
    }

    /// Starts another program than Mosquitto.
    pub fn runs(&mut self, program: &[&str]) {
        self.program = program.iter().map(|word| word.to_string()).collect();
    }

    /// Sets it up and starts it; the hub is started again, and meets its boards there from now on.
    pub fn take_over(world: &mut World) -> Result<Broker> {
        let mut broker = Broker::set_up(world)?;
        let append = |name: &str, text: &str| {
            let path = broker.dir.join(name);
            let old = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            fs::write(&path, old + text).map_err(|e| format!("{}: {e}", path.display()))
        };
        append("mosquitto.conf", "user root\n")?;
        append("limpet.acl", &format!("\nuser {SPY}\ntopic readwrite #\ntopic read $SYS/#\n"))?;
        broker.certify(&world.hub.dir.join("pki"))?;
        broker.start()?;
        world.hub.stop()?;
        world.hub.more = broker.flags();
        world.hub.start()?;
        Ok(broker)
    }

    /// A certificate of the CA that the broker knows boards by.
    fn certify(&self, pki: &Path) -> Result<()> {
        let at = |name: &str| self.dir.join(name);
        let mut ask = Command::new("openssl");
        ask.args(["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &format!("/CN={SPY}"), "-keyout"]);
        run(ask.arg(at("spy.key")).arg("-out").arg(at("spy.csr")))?.ok("openssl req")?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "2", "-set_serial", "77", "-in"]).arg(at("spy.csr"));
        sign.arg("-CA").arg(pki.join("ca.crt")).arg("-CAkey").arg(pki.join("ca.key")).arg("-out").arg(at("spy.crt"));
        run(&mut sign)?.ok("openssl x509").map(|_| ())
    }

    pub fn start(&mut self) -> Result<()> {
        let net = format!("--net=/run/netns/{}", self.namespace);
        let inside: [&OsStr; 2] = ["nsenter".as_ref(), net.as_ref()];
        let words: Vec<&OsStr> = inside.into_iter().chain(self.program.iter().map(OsStr::new)).collect();
        let mut process = Daemon::start(&words, &[(self.mark.0, self.mark.1.as_str())], &self.dir.join("broker.log"))?;
        let at = format!("{}:8883", self.address);
        until("the broker", Duration::from_secs(20), || {
            if let Err(why) = process.check() {
                return Ok(Err(why));
            }
            std::net::TcpStream::connect(&at).map(|_| Ok(())).map_err(|e| e.to_string())
        })??;
        self.process = Some(process);
        Ok(())
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Words for Mosquitto's clients: `certificate` and `key` are files.
    fn words(&self, certificate: &Path, key: &Path) -> Vec<String> {
        let file = |path: &Path| path.display().to_string();
        let ca = file(&self.dir.join("broker-ca.crt"));
        let words = ["-h", &self.address, "-p", "8883", "--cafile", &ca, "--cert", &file(certificate), "--key", &file(key)];
        words.map(str::to_string).to_vec()
    }

    fn spy_words(&self) -> Vec<String> {
        self.words(&self.dir.join("spy.crt"), &self.dir.join("spy.key"))
    }

    /// Everything that goes by, as lines of topic and payload in hexadecimal, until the recording is dropped.
    pub fn record(&self) -> Result<Recording> {
        let log = self.dir.join("recording");
        let words = self.spy_words();
        let mut all = ["stdbuf", "-oL", "mosquitto_sub"].map(str::to_string).to_vec();
        all.extend(words);
        all.extend(["-t", "#", "-t", "$SYS/broker/uptime", "-F", "%t %x"].map(str::to_string));
        let all: Vec<&OsStr> = all.iter().map(OsStr::new).collect();
        let process = Daemon::start(&all, &[(self.mark.0, self.mark.1.as_str())], &log)?;
        // The broker's own figures come at once: then the subscription is there.
        until("the recording", Duration::from_secs(30), || {
            wait::yes(fs::metadata(&log).is_ok_and(|m| m.len() > 0), || "nothing recorded yet".into())
        })?;
        Ok(Recording { log, _process: process })
    }

    /// Mosquitto's own client in a board's network, which hears nothing and pings every so many seconds.
    pub fn idle_client(&self, namespace: &str, keepalive_s: u64) -> Result<Daemon> {
        let net = format!("--net=/run/netns/{namespace}");
        let keepalive = keepalive_s.to_string();
        let words = ["nsenter", &net, "mosquitto_sub", "-t", "nothing/of/ours", "-k", &keepalive];
        let mut words = words.map(str::to_string).to_vec();
        words.extend(self.spy_words());
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        Daemon::start(&words, &[(self.mark.0, self.mark.1.as_str())], &self.dir.join("idle.log"))
    }

    /// As the spy.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> Result<()> {
        let file = self.dir.join("payload");
        fs::write(&file, payload).map_err(|e| e.to_string())?;
        let mut command = Command::new("mosquitto_pub");
        command.args(self.spy_words()).args(["-t", topic, "-f"]).arg(&file);
        run(&mut command)?.ok("mosquitto_pub").map(|_| ())
    }

    /// As a board, whose data directory this is: what a client says and its exit code, when it hears nothing for three seconds.
    pub fn as_board(&self, data: &Path, words: &[&str]) -> Result<crate::process::Output> {
        let identity = data.join("identity");
        let answer = fs::read(identity.join("identity.json")).map_err(|e| e.to_string())?;
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|e| e.to_string())?;
        let certificate = self.dir.join("board.crt");
        fs::write(&certificate, answer["certificate_pem"].as_str().unwrap_or_default()).map_err(|e| e.to_string())?;
        let mut command = Command::new(words[0]);
        run(command.args(self.words(&certificate, &identity.join("node.key"))).args(&words[1..]))
    }
}

pub struct Recording {
    log: PathBuf,
    _process: Daemon,
}

impl Recording {
    /// Topic and payload, in order.
    pub fn packets(&self) -> Vec<(String, Vec<u8>)> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let bytes = |hex: &str| -> Option<Vec<u8>> {
            (0..hex.len() / 2).map(|n| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()).collect()
        };
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.filter_map(|(topic, hex)| Some((topic.to_string(), bytes(hex)?))).filter(|(t, _)| t.starts_with("n/")).collect()
    }
}
