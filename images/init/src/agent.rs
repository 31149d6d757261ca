//! `limpet-agent`, started and started again.
//!
//! In: the node's facts. Out: a running agent; every orphan is reaped. What is started here is the agent's keeper, to which its
//! containers belong; the agent itself is the keeper's child, and whether that one stays up is what counts.
//! Never: a token on a command line.

use crate::{log::say, node::Node};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PROGRAM: &str = "/bin/limpet-agent";
/// For whoever stands before the board.
const TOKEN_PLACE: &str = "limpet/node.json on the card's first partition";
/// Made at each start; in memory.
const SETTINGS: &str = "/run/limpet-agent.json";
/// What the agent waits for; in its run directory.
const WAITING: &str = "/run/limpet/waiting";
const WAITING_BYTES_MAX: u64 = 4096;
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

pub struct Agent {
    name: String,
    token: Option<String>,
    keeper: Option<(Pid, Instant)>,
    /// The agent proper, since when.
    agent: Option<(i32, Instant)>,
    ends: u32,
    wait: Duration,
    next: Instant,
    /// What the console said of its waiting.
    said: Option<String>,
}

/// What the agent is set to: the board's lamp, the way to the hub.
#[derive(serde::Serialize)]
struct Settings<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    led: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'a str>,
}

impl Agent {
    /// `led`: a name in /sys/class/leds.
    pub fn new(node: &Node, led: Option<&str>) -> Agent {
        let settings = serde_json::to_vec(&Settings { led, proxy: node.proxy.as_deref() }).unwrap_or_else(|_| b"{}".into());
        if let Err(e) = fs::write(SETTINGS, settings) {
            say!("{SETTINGS}: {e}");
        }
        let (name, token) = (node.name.clone(), node.token.clone());
        Agent { name, token, keeper: None, agent: None, ends: 0, wait: WAIT_MIN, next: Instant::now(), said: None }
    }

    /// Whoever stands before the board reads what it waits for, once.
    fn tell(&mut self) {
        let now = waiting(Path::new(WAITING));
        if now == self.said {
            return;
        }
        match &now {
            // What the network waits for has been said when it began.
            Some(why) if fs::read_to_string(crate::radio::WAITING).is_ok_and(|text| text.contains(why.as_str())) => {}
            Some(why) => say!("{why}"),
            None => say!("this board is connected to its hub"),
        }
        self.said = now;
    }

    /// Reaps, and starts when nothing runs.
    pub fn look_after(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            if self.keeper.is_some_and(|(own, _)| own == pid) {
                self.ended(status);
            }
        }
        if self.keeper.is_none() && Instant::now() >= self.next {
            self.start();
        }
        self.tell();
        let now = self.keeper.and_then(|(keeper, _)| child(keeper, "agent"));
        if now != self.agent.map(|(pid, _)| pid) {
            self.ends += u32::from(self.agent.is_some());
            self.agent = now.map(|pid| (pid, Instant::now()));
        }
    }

    fn ended(&mut self, status: WaitStatus) {
        let lived = self.keeper.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        self.keeper = None;
        self.ends += 1;
        self.wait = if lived > WAIT_MAX { WAIT_MIN } else { (self.wait * 2).min(WAIT_MAX) };
        self.next = Instant::now() + self.wait;
        say!("the agent has ended ({status:?}) after {} s; again in {} s", lived.as_secs(), self.wait.as_secs());
    }

    fn start(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.args(["--node-name", &self.name, "--config", SETTINGS]);
        command.args(["--data-dir", "/var/lib/limpet", "--run-dir", "/run/limpet"]);
        command.env_clear().env("PATH", "/bin").env("LIMPET_LOG", "warn").stdin(Stdio::null());
        if let Some(token) = &self.token {
            command.env("LIMPET_JOIN", token).env("LIMPET_JOIN_PLACE", TOKEN_PLACE);
        }
        match command.spawn() {
            Ok(child) => self.keeper = Some((Pid::from_raw(child.id() as i32), Instant::now())),
            Err(e) => {
                say!("{PROGRAM} does not start: {e}");
                self.ends += 1;
                self.next = Instant::now() + self.wait;
            }
        }
    }

    /// How long the same agent has been up.
    pub fn running_for(&self) -> Duration {
        self.agent.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    pub fn ends(&self) -> u32 {
        self.ends
    }

    /// Before a restart: the agent writes what it knows, everything else ends.
    pub fn stop(&mut self) {
        if let Some((pid, _)) = self.keeper.take() {
            let _ = kill(pid, Signal::SIGTERM);
            let start = Instant::now();
            while start.elapsed() < STOP && matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // Everybody but this process.
        let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(500));
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}

fn waiting(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(WAITING_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_string()).filter(|t| !t.is_empty())
}

/// The child of a process whose first argument is `word`; the kernel lists children by the thread that started them.
fn child(parent: Pid, word: &str) -> Option<i32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten();
    let children: String = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok()).collect();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(word.as_bytes())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waiting");
        assert_eq!(waiting(&path), None);
        fs::write(&path, "for the hub\n").unwrap();
        assert_eq!(waiting(&path).as_deref(), Some("for the hub"));
        fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(waiting(&path).map(|t| t.len()), Some(4096));
        fs::write(&path, " \n").unwrap();
        assert_eq!(waiting(&path), None);
        let text = serde_json::to_string(&Settings { led: Some("ACT"), proxy: None }).unwrap();
        assert_eq!(text, r#"{"led":"ACT"}"#);
    }

    #[test]
    fn the_agent_is_told_from_other_children() {
        let own = Pid::this();
        let mut other = Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(child(own, "agent"), None);
        // A spawn returns when the program is being loaded, which is before its arguments can be read.
        let seen = (0..1000).find_map(|_| child(own, "1000").or_else(|| {
            std::thread::sleep(Duration::from_millis(10));
            None
        }));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(seen, Some(other.id() as i32));
    }
}
