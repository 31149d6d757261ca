//! A hub: the real binary on the bridge's address.
//!
//! In: a binary, a directory. Out: readiness, tokens, kubeconfig; stopped, killed and started again at will.
//! Never: another way to it than people have.

use crate::process::{Daemon, run};
use crate::{Result, Slot, until};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The first of these that is there.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

pub struct Hub {
    program: PathBuf,
    mark: (&'static str, String),
    pub address: String,
    pub dir: PathBuf,
    pub log: PathBuf,
    /// Further words of its command line. With `--broker` among them no MQTT listener is asked for.
    pub more: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
    /// The hub listens for boards, unless it meets them elsewhere.
    pub listens: bool,
    process: Option<Daemon>,
}

impl Hub {
    pub fn new(slot: &Slot, program: PathBuf, address: &str) -> Hub {
        let dir = slot.dir().join("hub");
        let log = slot.dir().join("hub.log");
        let (more, environment) = (Vec::new(), Vec::new());
        let (mark, address) = (slot.mark(), address.to_string());
        Hub { program, mark, address, dir, log, more, environment, listens: true, process: None }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Starts and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let listen = |port: u16| format!("{}:{port}", self.address);
        let (api, mqtt, registry) = (listen(6443), listen(8883), listen(5000));
        let mut words: Vec<&OsStr> = vec![
            self.program.as_os_str(),
            "hub".as_ref(),
            "--data-dir".as_ref(),
            self.dir.as_os_str(),
            "--api-listen".as_ref(),
            api.as_ref(),
            "--registry-listen".as_ref(),
            registry.as_ref(),
            "--advertise-host".as_ref(),
            self.address.as_ref(),
        ];
        if self.listens && !self.more.iter().any(|word| word == "--broker") {
            words.extend(["--mqtt-listen".as_ref(), OsStr::new(&mqtt)]);
        }
        words.extend(self.more.iter().map(OsStr::new));
        let own = [(self.mark.0, self.mark.1.as_str())];
        let further = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<(&str, &str)> = own.into_iter().chain(further).collect();
        let mut process = Daemon::start(&words, &environment, &self.log)?;
        let ready = until("the hub", Duration::from_secs(60), || {
            // Once it has ended, waiting is pointless: that is an answer, too.
            if let Err(why) = process.check() {
                return Ok(Err(why));
            }
            self.ready().map(Ok)
        });
        ready??;
        self.process = Some(process);
        Ok(())
    }

    fn ready(&self) -> Result<()> {
        let url = format!("https://{}:6443/readyz", self.address);
        let out = run(Command::new("curl").args(["--silent", "--show-error", "--insecure", "--max-time", "5", &url]))?;
        match out.stdout.trim() {
            "ok" => Ok(()),
            other => Err(format!("/readyz says {other:?} {}", out.stderr.trim())),
        }
    }

    /// Its clock from its next start on: so much later than this machine's (`300d`, `50m`). Durations go on as they are.
    pub fn ahead(&mut self, library: &str, by: &str) {
        let of = |name: &str, value: String| (name.to_string(), value);
        self.environment = vec![
            of("LD_PRELOAD", library.into()),
            of("FAKETIME", format!("+{by}")),
            of("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            of("DONT_FAKE_MONOTONIC", "1".into()),
        ];
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(-1, Daemon::pid)
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM; its exit code.
    pub fn stop(&mut self) -> Result<i32> {
        match self.process.take() {
            Some(process) => process.stop(Duration::from_secs(20)),
            None => Ok(0),
        }
    }

    /// `limpet WORDS --data-dir …`: what it prints.
    pub fn operate(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--data-dir").arg(&self.dir);
        run(&mut command)?.ok(&format!("limpet {}", words.join(" ")))
    }

    /// `limpet WORDS`, of commands that need no hub.
    pub fn operate_alone(&self, words: &[&str]) -> Result<String> {
        run(Command::new(&self.program).args(words))?.ok(&format!("limpet {}", words.join(" ")))
    }

    /// A join token.
    pub fn token(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["token", "create", "--data-dir"]).arg(&self.dir).args(words);
        run(&mut command)?.ok("limpet token create").map(|t| t.trim().to_string())
    }
}

/// The library that makes a hub's clock another (`cargo xtask setup` installs it).
pub fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).is_file())
}
