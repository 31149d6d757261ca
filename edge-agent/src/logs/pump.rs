//! Moves bytes from containers to their logs and to whoever is attached.
//!
//! In: the reading ends of a container's pipes, or its terminal. Out: the log file, copies, a sign of the end.
//! One task a stream; all of them share one buffer, because only one reads at a time.
//! Never: waits for somebody who is attached: who is too slow is cut off.

use super::{Limits, write::{Rest, Writer}};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::HashMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, mpsc},
};

const BUFFER_BYTES: usize = 16 * 1024;
/// Chunks that an attached reader may be behind.
const BEHIND_MAX: usize = 64;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where a container's bytes come from and go to.
#[derive(Debug, Default)]
pub struct Sources {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub tty: Option<OwnedFd>,
}

/// All containers that are read now, by container id.
#[derive(Clone, Default)]
pub struct Logs {
    running: Arc<Mutex<HashMap<String, Arc<Pump>>>>,
}

struct Pump {
    state: Mutex<State>,
    /// New lines, a rotation, or the end.
    news: Notify,
    stdin: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    tty: Option<Arc<AsyncFd<OwnedFd>>>,
}

struct State {
    writer: Writer,
    open: usize,
    attached: Vec<mpsc::Sender<(u8, Bytes)>>,
    version: u64,
}

/// A live view of a container.
pub struct Attached {
    /// Lane (1 stdout, 2 stderr) and bytes; ends with the container or when this side is too slow.
    pub output: mpsc::Receiver<(u8, Bytes)>,
    /// The container's stdin or terminal, when it has one.
    pub input: Option<Arc<AsyncFd<OwnedFd>>>,
    pub tty: Option<Arc<AsyncFd<OwnedFd>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// Begins to read a container. Must run inside the runtime.
    pub fn start(&self, id: &str, path: &Path, limits: Limits, sources: Sources) {
        let fd = |fd: Option<OwnedFd>| fd.and_then(|fd| crate::runtime::sys::watch(fd).ok()).map(Arc::new);
        let tty = fd(sources.tty);
        let streams: Vec<(u8, Arc<AsyncFd<OwnedFd>>)> = match &tty {
            Some(tty) => vec![(1, tty.clone())],
            None => [(1, fd(sources.stdout)), (2, fd(sources.stderr))]
                .into_iter()
                .filter_map(|(lane, fd)| Some((lane, fd?)))
                .collect(),
        };
        // An adopted container whose pipes went with its keeper: there is nothing to read, and nothing to wait for.
        if streams.is_empty() {
            return;
        }
        let state = State {
            writer: Writer::open(path, limits),
            open: streams.len(),
            attached: Vec::new(),
            version: 0,
        };
        let stdin = Mutex::new(fd(sources.stdin).or_else(|| tty.clone()));
        let pump = Arc::new(Pump { state: Mutex::new(state), news: Notify::new(), stdin, tty });
        lock(&self.running).insert(id.to_string(), pump.clone());
        for (lane, fd) in streams {
            let (pump, logs, id) = (pump.clone(), self.clone(), id.to_string());
            tokio::spawn(async move {
                copy(&pump, lane, &fd).await;
                let last = {
                    let mut state = lock(&pump.state);
                    state.open -= 1;
                    state.version += 1;
                    if state.open == 0 {
                        state.attached.clear();
                    }
                    state.open == 0
                };
                if last {
                    lock(&logs.running).remove(&id);
                    lock(&pump.stdin).take();
                }
                pump.news.notify_waiters();
            });
        }
    }

    fn get(&self, id: &str) -> Option<Arc<Pump>> {
        lock(&self.running).get(id).cloned()
    }

    /// Whether the container's output may still grow.
    pub fn is_open(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// Counts with every chunk that was written.
    pub fn version(&self, id: &str) -> u64 {
        self.get(id).map_or(u64::MAX, |p| lock(&p.state).version)
    }

    /// Returns when more than `version` was written, or the container's output has ended.
    pub async fn changed(&self, id: &str, version: u64) {
        let Some(pump) = self.get(id) else { return };
        loop {
            let news = pump.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            let over = {
                let state = lock(&pump.state);
                state.version != version || state.open == 0
            };
            if over {
                return;
            }
            news.await;
        }
    }

    /// Waits until all output of an ended container is in its log, or for so long.
    pub async fn drain(&self, id: &str, limit: std::time::Duration) {
        let wait = async {
            while self.is_open(id) {
                let version = self.version(id);
                self.changed(id, version).await;
            }
        };
        let _ = tokio::time::timeout(limit, wait).await;
    }

    /// The container is gone: whatever still holds its pipes is not read any more.
    pub fn forget(&self, id: &str) {
        lock(&self.running).remove(id);
    }

    pub fn attach(&self, id: &str) -> Option<Attached> {
        let pump = self.get(id)?;
        let (tell, output) = mpsc::channel(BEHIND_MAX);
        lock(&pump.state).attached.push(tell);
        let input = lock(&pump.stdin).clone();
        Some(Attached { output, input, tty: pump.tty.clone() })
    }

    /// `stdinOnce`: the first who was attached is gone.
    pub fn close_stdin(&self, id: &str) {
        if let Some(pump) = self.get(id) {
            lock(&pump.stdin).take();
        }
    }
}

async fn copy(pump: &Pump, lane: u8, fd: &AsyncFd<OwnedFd>) {
    let stream = if lane == 1 { "stdout" } else { "stderr" };
    let mut rest = Rest::default();
    loop {
        let Ok(mut ready) = fd.readable().await else { break };
        let step = ready.try_io(|fd| {
            BUFFER.with(|buffer| {
                let mut buffer = buffer.borrow_mut();
                buffer.resize(BUFFER_BYTES, 0);
                let n = read_fd(fd.get_ref(), &mut buffer)?;
                if n > 0 {
                    take_in(pump, lane, stream, &mut rest, &buffer[..n]);
                }
                Ok(n)
            })
        });
        match step {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => pump.news.notify_waiters(),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // A terminal's master says EIO when the last process has closed it.
            Ok(Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    lock(&pump.state).writer.finish(stream, wall_ns(), &mut rest);
}

fn take_in(pump: &Pump, lane: u8, stream: &str, rest: &mut Rest, chunk: &[u8]) {
    let mut state = lock(&pump.state);
    state.writer.chunk(stream, wall_ns(), rest, chunk);
    state.version += 1;
    if !state.attached.is_empty() {
        let bytes = Bytes::copy_from_slice(chunk);
        state.attached.retain(|to| to.try_send((lane, bytes.clone())).is_ok());
    }
}

fn read_fd(fd: &OwnedFd, buffer: &mut [u8]) -> std::io::Result<usize> {
    Ok(nix::unistd::read(fd, buffer)?)
}

fn wall_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}
