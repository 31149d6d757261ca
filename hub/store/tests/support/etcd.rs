//! An etcd for one test.
//!
//! In: the installed `etcd` and `etcdctl`. Out: a running member on free ports, which can be killed, stopped and spoilt.
//! Never: outlives its test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, dead_code)]

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running etcd of one member.
pub struct EtcdServer {
    child: Child,
    pub port: u16,
    peer: u16,
    args: Vec<String>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl EtcdServer {
    pub fn start(dir: &Path, more: &[&str]) -> Option<EtcdServer> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: etcd is not installed (cargo xtask setup)");
            return None;
        }
        // Somebody else may take a free port first.
        for _ in 0..20 {
            let (port, peer) = (free_port(), free_port());
            let mut args = vec![format!("--data-dir={}", dir.display())];
            args.extend(more.iter().map(|a| (*a).to_owned()));
            if let Some(child) = run(&args, port, peer) {
                return Some(EtcdServer { child, port, peer, args });
            }
        }
        panic!("etcd does not start");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it from doing anything, and lets it go on.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// After `kill`: the same etcd again.
    pub fn again(&mut self) {
        let ends = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(child) = run(&self.args, self.port, self.peer) {
                self.child = child;
                return;
            }
            assert!(Instant::now() < ends, "etcd does not start again");
        }
    }

    pub fn etcdctl(&self, args: &[&str]) -> String {
        let endpoint = format!("--endpoints=127.0.0.1:{}", self.port);
        let done = Command::new("etcdctl").env("ETCDCTL_API", "3").arg(endpoint).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

/// Waits until it answers; `None` when it ended instead.
fn run(args: &[String], port: u16, peer: u16) -> Option<Child> {
    let (client, between) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
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
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
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
