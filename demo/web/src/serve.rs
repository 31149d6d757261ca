//! The server: accepts, answers, counts, and ends in an orderly way.
//!
//! In: connections, SIGTERM. Out: pages; the message file is read anew for every request, so a changed ConfigMap shows at once.
//! Never: more than `CONNECTIONS_MAX` threads, or a connection that stays for ever.

use crate::http;
use crate::page::{self, Facts};
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

struct Server {
    pod: String,
    node: String,
    message_file: String,
    started: Instant,
    requests: AtomicU64,
    connections: AtomicUsize,
}

pub fn run() -> io::Result<()> {
    // As process 1 nothing ends us but a signal that somebody waits for; blocked before there are threads.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let port = variable("PORT", "8080");
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    let server = Arc::new(Server {
        pod: variable("POD_NAME", &variable("HOSTNAME", "unknown")),
        node: variable("NODE_NAME", "unknown"),
        message_file: variable("MESSAGE_FILE", "/etc/demo/message"),
        started: Instant::now(),
        requests: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
    });
    println!("demo-web: listening on port {port}, pod {}, node {}", server.pod, server.node);
    let accepting = server.clone();
    std::thread::spawn(move || accept(&listener, &accepting));
    let signal = signals.wait()?;
    println!("demo-web: {signal}: goodbye after {} requests", server.requests.load(Ordering::Relaxed));
    Ok(())
}

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| otherwise.to_string())
}

fn accept(listener: &TcpListener, server: &Arc<Server>) {
    for stream in listener.incoming().flatten() {
        if server.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            server.connections.fetch_sub(1, Ordering::Relaxed);
            let _ = http::write(&stream, "503 Service Unavailable", "text/plain", "busy\n");
            continue;
        }
        let server = server.clone();
        std::thread::spawn(move || {
            if let Err(e) = server.answer(&stream) {
                eprintln!("demo-web: {e}");
            }
            server.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl Server {
    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(request) = http::read(stream)? else { return Ok(()) };
        let path = request.path.split('?').next().unwrap_or_default();
        let (status, kind, body) = match path {
            "/healthz" | "/readyz" => return http::write(stream, "200 OK", "text/plain", "ok\n"),
            "/" if request.wants_text => ("200 OK", "text/plain", page::text(&self.facts())),
            "/" => ("200 OK", "text/html", page::html(&self.facts())),
            "/message" => ("200 OK", "text/plain", self.message()),
            _ => ("404 Not Found", "text/plain", "not found\n".to_string()),
        };
        let peer = stream.peer_addr().map_or_else(|_| "?".to_string(), |p| p.ip().to_string());
        println!("{peer} {} {path} {status}", request.method);
        http::write(stream, status, kind, &body)
    }

    fn facts(&self) -> Facts {
        Facts {
            pod: self.pod.clone(),
            node: self.node.clone(),
            message: self.message(),
            requests: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
            uptime_s: self.started.elapsed().as_secs(),
        }
    }

    fn message(&self) -> String {
        let read = std::fs::read_to_string(&self.message_file);
        read.map_or_else(|e| format!("no message: {}: {e}", self.message_file), |text| text.trim_end().to_string())
    }
}
