//! A TCP valve between a board and a server: counts what passes, and breaks connections at a byte.
//!
//! In: an address to listen at, a server. Out: connections handed on; how many bytes came back through it.
//! Never: a change of a byte.

use crate::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Clone, Default)]
pub struct Valve {
    /// Bytes from the server, of all connections.
    passed: Arc<AtomicU64>,
    /// Connections yet to be broken, each after so many bytes of its own from the server.
    cuts: Arc<Mutex<Vec<u64>>>,
    /// Milliseconds to wait after each piece.
    pause_ms: Arc<AtomicU64>,
    /// Of the valve that was opened; what its connections hold has none.
    door: Option<Arc<Door>>,
}

/// Listens until the valve's last owner lets go: another test gets the address after this one.
struct Door {
    address: String,
    shut: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let woken = TcpStream::connect(&self.address).is_ok();
        if let Some(thread) = self.listening.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

impl Valve {
    /// Threads of connections end with them.
    pub fn open(listen: &str, server: &str) -> Result<Valve> {
        let mut valve = Valve::default();
        let listener = TcpListener::bind(listen).map_err(|e| format!("the valve at {listen}: {e}"))?;
        let (own, server, shut) = (valve.clone(), server.to_string(), Arc::new(AtomicBool::new(false)));
        let closed = shut.clone();
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let (own, server) = (own.clone(), server.clone());
                std::thread::spawn(move || drop(own.connect(client, &server)));
            }
        });
        valve.door = Some(Arc::new(Door { address: listen.into(), shut, listening: Some(thread) }));
        Ok(valve)
    }

    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// The next connections that bring so many bytes are broken there.
    pub fn cut_after(&self, bytes: &[u64]) {
        *self.cuts() = bytes.to_vec();
    }

    pub fn cuts_left(&self) -> usize {
        self.cuts().len()
    }

    pub fn slow(&self, pause: Duration) {
        self.pause_ms.store(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn cuts(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, client: TcpStream, server: &str) -> std::io::Result<()> {
        let server = TcpStream::connect(server)?;
        let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up_from, &mut up_to);
            let _ = up_to.shutdown(Shutdown::Write);
        });
        let done = self.back(&server, &client);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        done
    }

    #[allow(clippy::disallowed_methods)] // the slow road itself
    fn back(&self, mut server: &TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
        let (mut own, mut piece) = (0u64, [0; 16 * 1024]);
        loop {
            let got = server.read(&mut piece)?;
            if got == 0 {
                return Ok(());
            }
            let cut = self.cuts().first().copied().filter(|at| own + got as u64 >= *at);
            let good = cut.map_or(got, |at| usize::try_from(at.saturating_sub(own)).unwrap_or(got).min(got));
            client.write_all(&piece[..good])?;
            own += good as u64;
            self.passed.fetch_add(good as u64, Ordering::Relaxed);
            if cut.is_some() {
                self.cuts().remove(0);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(self.pause_ms.load(Ordering::Relaxed)));
        }
    }
}
