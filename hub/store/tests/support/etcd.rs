//! An etcd for one test.
//!
//! In: the installed `etcd` and `etcdctl`. Out: a running member at an address of this process, which can be killed, stopped and
//! spoilt. Never: outlives its test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, dead_code)]

use std::{
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// A running etcd of one member.
pub struct EtcdServer {
    child: Child,
    pub port: u16,
    args: Vec<String>,
}

/// A loopback address that no other process has: nobody takes a port there, not even while what listens is away. Connections to
/// other loopback addresses come from 127.0.0.1. A process has 22 bits.
pub fn address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 64, middle, low)
}

/// This one and the next are nobody's yet.
pub fn two_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(2379);
    NEXT.fetch_add(2, Ordering::Relaxed)
}

impl EtcdServer {
    pub fn start(dir: &Path, more: &[&str]) -> Option<EtcdServer> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: etcd is not installed (cargo xtask setup)");
            return None;
        }
        let port = two_ports();
        let mut args = vec![format!("--data-dir={}", dir.display())];
        args.extend(more.iter().map(|a| (*a).to_owned()));
        let child = run(&args, port).expect("etcd starts");
        Some(EtcdServer { child, port, args })
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        format!("etcd://{}:{}", address(), self.port)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it from doing anything, and lets it go on.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        let ends = Instant::now() + Duration::from_secs(60);
        // A thread that is on a processor answers once more before it hears of the signal.
        while name == "-STOP" && !self.stands_still() {
            assert!(Instant::now() < ends, "etcd does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stands_still(&self) -> bool {
        let state = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.flatten().map(state).all(stopped)
    }

    /// After `kill`: the same etcd again.
    pub fn again(&mut self) {
        let ends = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(child) = run(&self.args, self.port) {
                self.child = child;
                return;
            }
            assert!(Instant::now() < ends, "etcd does not start again");
        }
    }

    pub fn etcdctl(&self, args: &[&str]) -> String {
        let endpoint = format!("--endpoints={}:{}", address(), self.port);
        let done = Command::new("etcdctl").env("ETCDCTL_API", "3").arg(endpoint).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

/// Waits until it answers; `None` when it ended instead.
fn run(args: &[String], port: u16) -> Option<Child> {
    let own = address();
    let (client, between) = (format!("http://{own}:{port}"), format!("http://{own}:{}", port + 1));
    let mut child = Command::new("etcd")
        .args(["--name", "t", "--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &between, "--initial-advertise-peer-urls", &between])
        .arg(format!("--initial-cluster=t={between}"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ends = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect((own, port)).is_err() {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(Instant::now() < ends, "etcd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    if child.try_wait().unwrap().is_some() {
        return None;
    }
    Some(child)
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
