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
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const PROGRAM: &str = "/bin/limpet-agent";
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
}

impl Agent {
    pub fn new(node: &Node) -> Agent {
        let (name, token) = (node.name.clone(), node.token.clone());
        Agent { name, token, keeper: None, agent: None, ends: 0, wait: WAIT_MIN, next: Instant::now() }
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
        command.args(["--node-name", &self.name, "--data-dir", "/var/lib/limpet", "--run-dir", "/run/limpet"]);
        command.env_clear().env("PATH", "/bin").env("LIMPET_LOG", "warn").stdin(Stdio::null());
        if let Some(token) = &self.token {
            command.env("LIMPET_JOIN", token);
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
