//! A board: network, mount and process namespaces of its own, with the real agent as its first process.
//!
//! In: a binary, a join token. Out: the agent running; power cuts that end everything on the board at one stroke.
//! Never: a container that survives its board.

use crate::process::{self, Daemon, Process, run};
use crate::{Result, Slot, until};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub struct Agent {
    program: PathBuf,
    mark: (&'static str, String),
    pub name: String,
    pub namespace: String,
    pub address: String,
    pub data: PathBuf,
    pub run: PathBuf,
    pub log: PathBuf,
    config: PathBuf,
    token: Option<String>,
    /// Something starts the keeper again when it ends, as systemd does.
    supervised: bool,
    process: Option<Daemon>,
}

impl Agent {
    /// Board `number` (from 1 on) with `settings` beside the test's own in its configuration file.
    pub fn new(
        slot: &Slot,
        program: PathBuf,
        number: usize,
        address: String,
        settings: serde_json::Value,
    ) -> Result<Agent> {
        let name = format!("board-{number}");
        let dir = slot.dir();
        let config = dir.join(format!("{name}.json"));
        let mut content = serde_json::json!({"cgroupParent": slot.cgroup(number), "reconnectSecondsMax": 2});
        if let (Some(all), Some(more)) = (content.as_object_mut(), settings.as_object()) {
            all.extend(more.clone());
        }
        let text = content.to_string();
        fs::write(&config, text).map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        Ok(Agent {
            program,
            mark: slot.mark(),
            data: dir.join(&name),
            run: slot.run_dir().join(&name),
            log: dir.join(format!("{name}.log")),
            namespace: slot.namespace(number),
            name,
            address,
            config,
            token: None,
            supervised: false,
            process: None,
        })
    }

    /// Changes its configuration file; it counts from the next start on.
    pub fn configure(&self, settings: &serde_json::Value) -> Result<()> {
        let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", self.config.display());
        let text = fs::read(&self.config).map_err(|e| wrong(&e))?;
        let mut content: serde_json::Value = serde_json::from_slice(&text).map_err(|e| wrong(&e))?;
        if let (Some(all), Some(more)) = (content.as_object_mut(), settings.as_object()) {
            all.extend(more.clone());
        }
        fs::write(&self.config, content.to_string()).map_err(|e| wrong(&e))
    }

    /// Starts; `token` is needed the first time only.
    pub fn start(&mut self, token: Option<&str>) -> Result<()> {
        self.start_with(token, &[])
    }

    pub fn start_with(&mut self, token: Option<&str>, environment: &[(&str, &str)]) -> Result<()> {
        for dir in [&self.data, &self.run] {
            fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        }
        self.token = token.map(str::to_string);
        let words = self.words();
        let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
        let mark = (self.mark.0, self.mark.1.as_str());
        let all: Vec<(&str, &str)> = environment.iter().copied().chain([mark]).collect();
        self.process = Some(Daemon::start(&words, &all, &self.log)?);
        Ok(())
    }

    /// From the next start on the keeper is not process 1, and whoever is starts it again.
    pub fn supervise(&mut self) {
        self.supervised = true;
    }

    /// The agent is process 1 of the board: when it goes, the kernel ends everything on the board.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        words.extend(["nsenter".into(), format!("--net=/run/netns/{}", self.namespace).into()]);
        let apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        words.extend(apart.map(OsString::from));
        if self.supervised {
            let line = "while true; do \"$@\"; sleep 0.2; done";
            words.extend(["/bin/busybox", "sh", "-c", line, "sh"].map(OsString::from));
        }
        words.push(self.program.clone().into());
        words.extend(["--node-name".into(), self.name.clone().into()]);
        words.extend(["--data-dir".into(), self.data.clone().into()]);
        words.extend(["--run-dir".into(), self.run.clone().into()]);
        words.extend(["--config".into(), self.config.clone().into()]);
        words.extend(self.token.iter().flat_map(|token| ["--join".into(), token.into()]));
        words
    }

    /// An error once the agent has ended, with its last words.
    pub fn check(&mut self) -> Result<()> {
        match &mut self.process {
            Some(process) => process.check(),
            None => Err(format!("{} is off", self.name)),
        }
    }

    /// Ends everything on the board at once; what a reboot clears is cleared, what is on its disk stays.
    pub fn power_cut(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            let inside = process::below(process.pid());
            process.kill();
            let limit = Duration::from_secs(20);
            until("the power cut", limit, || {
                let left: Vec<_> = inside.iter().filter(|p| alive(p)).collect();
                crate::wait::yes(left.is_empty(), || format!("{left:?} still run"))
            })?;
        }
        if self.run.exists() {
            fs::remove_dir_all(&self.run).map_err(|e| format!("cannot clear {}: {e}", self.run.display()))?;
        }
        Ok(())
    }

    /// Everything on the board.
    pub fn processes(&self) -> Vec<Process> {
        self.process.as_ref().map_or_else(Vec::new, |p| process::below(p.pid()))
    }

    /// Processes of this name.
    pub fn named(&self, name: &str) -> Vec<Process> {
        // The kernel keeps 15 bytes of a name.
        let short = &name[..name.len().min(15)];
        self.processes().into_iter().filter(|p| p.name == short).collect()
    }

    /// The agent proper (not its keeper), by its command line.
    pub fn agent_process(&self) -> Result<Process> {
        let is_agent = |p: &Process| {
            let line = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(b"agent")
        };
        self.processes().into_iter().find(is_agent).ok_or_else(|| format!("{} runs no agent", self.name))
    }

    /// The keeper, by its command line.
    pub fn keeper_process(&self) -> Result<Process> {
        let is_keeper = |p: &Process| {
            let line = fs::read(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            p.name.starts_with("limpet-agent") && words.get(1) == Some(&b"--node-name".as_slice())
        };
        self.processes().into_iter().find(is_keeper).ok_or_else(|| format!("{} runs no keeper", self.name))
    }

    /// Runs a program of this machine in the board's network.
    pub fn inside(&self, words: &[&str]) -> Result<process::Output> {
        run(Command::new("nsenter").arg(format!("--net=/run/netns/{}", self.namespace)).args(words))
    }

    pub fn log_tail(&self) -> String {
        process::tail(&self.log, 4000)
    }
}

fn alive(process: &Process) -> bool {
    let text = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let same = fields.get(19).and_then(|f| f.parse().ok()) == Some(process.started);
    same && fields.first() != Some(&"Z")
}
