//! Runs one probe or hook: exec, HTTP, TCP, gRPC, sleep.
//!
//! In: a check with its port resolved, the pod's address. Out: good or not, and what it said (bounded).
//! Never: decides what a result means; follows redirects to other hosts; looks at certificates (as kubelet).

mod grpc;
mod http;

use crate::{
    device::Clock,
    runtime::{ExecSpec, Leash, Runtime},
};
use limpet_agent_core::pods::Check;
use std::{os::fd::OwnedFd, time::Duration};

const OUTPUT_BYTES_MAX: usize = 10 * 1024;

pub struct Prober {
    pub runtime: Runtime,
    pub clock: Clock,
}

/// Why a probe or hook is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    /// It was not made at all: it says nothing of the container.
    pub unmade: bool,
    /// Of a command that failed.
    pub code: Option<i32>,
}

impl Failure {
    /// Without what a program said: that may be a secret, and is not for everybody who reads Events.
    pub fn discreet(self) -> String {
        self.code.map_or(self.why, |code| format!("command exited with {code}"))
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure { why, unmade: false, code: None }
    }
}

fn unmade(why: String) -> Failure {
    Failure { why, unmade: true, code: None }
}

/// `Ok` carries the output.
pub type Outcome = Result<String, Failure>;

impl Prober {
    /// `ip`: the pod's address, or a loopback address with the host's network.
    pub async fn run(&self, check: &Check, container_id: &str, ip: &str, timeout: Duration) -> Outcome {
        match check {
            Check::Exec(command) => self.exec(command, container_id, timeout).await,
            Check::Http { host, port, path, https, headers } => {
                let to = http::To { host: host.as_deref().unwrap_or(ip).into(), port: *port, path: path.clone(), https: *https };
                Ok(http::get(&self.clock, to, headers, timeout).await?)
            }
            Check::Tcp { host, port } => {
                let host = host.as_deref().unwrap_or(ip);
                let connect = tokio::net::TcpStream::connect((host, *port));
                match tokio::time::timeout(timeout, connect).await {
                    Ok(Ok(_)) => Ok(String::new()),
                    Ok(Err(e)) => Err(format!("dial tcp {host}:{port}: connect: {}", plain(&e)).into()),
                    Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout").into()),
                }
            }
            Check::Sleep { seconds } => {
                tokio::time::sleep(Duration::from_secs(u64::from(*seconds)).min(timeout)).await;
                Ok(String::new())
            }
            Check::Grpc { port, service } => {
                let target = target(ip, *port);
                match tokio::time::timeout(timeout, grpc::check(&target, service)).await {
                    Ok(outcome) => Ok(outcome?),
                    Err(_) => {
                        let limit = timeout.as_secs();
                        Err(format!("timeout: failed to connect service \"{target}\" within {limit}s").into())
                    }
                }
            }
            Check::Broken(why) => Err(unmade(why.clone())),
        }
    }

    async fn exec(&self, command: &[String], container_id: &str, timeout: Duration) -> Outcome {
        let spec = ExecSpec { container_id: container_id.into(), args: command.to_vec(), ..ExecSpec::default() };
        let run = async {
            let mut started = self.runtime.exec(&spec).await.map_err(|e| e.to_string())?;
            let mut leash = Leash::new(started.pid);
            let streams = std::mem::take(&mut started.streams);
            let read = async {
                let mut output = Vec::new();
                for fd in [streams.stdout, streams.stderr].into_iter().flatten() {
                    collect(fd, &mut output).await;
                }
                output
            };
            let mut read = std::pin::pin!(read);
            let mut exit = started.exit;
            let (code, output) = tokio::select! {
                code = &mut exit => {
                    // Children may keep the pipes open; the command itself is over.
                    let rest = tokio::time::timeout(Duration::from_millis(100), &mut read).await;
                    (code, rest.unwrap_or_default())
                }
                output = &mut read => (exit.await, output),
            };
            leash.let_go();
            let text = String::from_utf8_lossy(&output).trim_end().to_string();
            Ok::<_, String>((code.unwrap_or(255), text))
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(Ok((0, output))) => Ok(output),
            Ok(Ok((code, output))) if output.is_empty() => Err(format!("command exited with {code}").into()),
            Ok(Ok((code, output))) => Err(Failure { code: Some(code), ..output.into() }),
            Ok(Err(why)) => Err(unmade(why)),
            Err(_) => {
                let words = command.join(" ");
                Err(format!("command timed out: \"{words}\" timed out after {}s", timeout.as_secs()).into())
            }
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn target(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The system's words in lower case, as Go prints them.
fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

async fn collect(fd: OwnedFd, output: &mut Vec<u8>) {
    let Ok(fd) = crate::runtime::sys::watch(fd) else { return };
    let mut buffer = [0; 1024];
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut buffer)?)) {
            Ok(Ok(0)) => return,
            Ok(Ok(n)) => {
                let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
                output.extend_from_slice(&buffer[..n.min(room)]);
            }
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}
