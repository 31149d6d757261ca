//! Moves bytes from containers to their logs and to whoever is attached.
//!
//! In: the reading ends of a container's pipes, or its terminal. Out: the log file, copies, a sign of the end.
//! One task hears all streams (`reader`), so that one buffer is enough. On their way bytes lie in a spool, so that an agent that
//! is killed loses none.
//! Never: waits for somebody who is attached: who is too slow is cut off.

use super::{
    Limits,
    reader::{Heard, Reader, Source},
    spool::{self, Spool},
    write::{Rest, Writer},
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::HashMap,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
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
    home: Arc<Home>,
    reader: Arc<Reader>,
    /// Who hears that a kept log has grown.
    grown: Option<mpsc::UnboundedSender<Grown>>,
}

#[derive(Default)]
struct Home {
    running: Mutex<HashMap<Arc<str>, Arc<Pump>>>,
    /// Where spools are; without it, what was read and not written yet goes with the agent.
    spools: Option<Box<Path>>,
}

impl Home {
    fn forget(&self, id: &str) {
        lock(&self.running).remove(id);
        if let Some(dir) = &self.spools {
            spool::remove(dir, id);
        }
    }
}

/// A kept log that has grown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// The container's, for `heard`.
    pub id: String,
    pub uid: String,
    pub container: String,
}

impl Grown {
    /// By the path that `logs::file` gave.
    fn of(id: &str, path: &Path) -> Grown {
        let name = |at: usize| path.ancestors().nth(at).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Grown { id: id.into(), uid: name(3).into(), container: name(1).into() }
    }
}

/// Whose bytes these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// A container that was started just now.
    Now,
    /// A container of the agent before this one.
    Again,
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
    spool: Option<Spool>,
    open: usize,
    attached: Vec<(mpsc::Sender<(u8, Bytes)>, Arc<AtomicBool>)>,
    version: u64,
    /// Says once that the log has grown, until that was heard.
    say_grown: Option<Box<(mpsc::UnboundedSender<Grown>, Grown)>>,
    grown_said: bool,
}

/// A live view of a container.
pub struct Attached {
    /// Lane (1 stdout, 2 stderr) and bytes; ends with the container or when this side is too slow.
    pub output: mpsc::Receiver<(u8, Bytes)>,
    /// It was this side that was too slow.
    pub cut_off: Arc<AtomicBool>,
    /// The container's stdin or terminal, when it has one.
    pub input: Option<Arc<AsyncFd<OwnedFd>>>,
    pub tty: Option<Arc<AsyncFd<OwnedFd>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// `spools`: a directory that outlives the agent, not the board.
    pub fn new(spools: PathBuf) -> Logs {
        let home = Home { running: Mutex::default(), spools: Some(spools.into()) };
        Logs { home: Arc::new(home), reader: Arc::default(), grown: None }
    }

    /// Whoever wants to know which kept logs grow; each is named once until `heard`.
    pub fn say_grown(&mut self, to: mpsc::UnboundedSender<Grown>) {
        self.grown = Some(to);
    }

    pub fn heard(&self, id: &str) {
        if let Some(pump) = self.get(id) {
            lock(&pump.state).grown_said = false;
        }
    }

    /// Begins to read a container. Must run inside the runtime.
    pub fn start(&self, id: &str, path: &Path, limits: Limits, sources: Sources, begin: Begin) {
        let fd = |fd: Option<OwnedFd>| fd.and_then(|fd| crate::runtime::sys::watch(fd).ok()).map(Arc::new);
        let tty = fd(sources.tty);
        let streams: Vec<(u8, Source)> = match &tty {
            Some(tty) => vec![(1, Source::Terminal(tty.clone()))],
            None => [(1, sources.stdout), (2, sources.stderr)]
                .into_iter()
                .filter_map(|(lane, fd)| Some((lane, Source::Pipe(fd?))))
                .collect(),
        };
        // An adopted container whose pipes went with its keeper: there is nothing to read, and nothing to wait for.
        if streams.is_empty() {
            return;
        }
        let mut writer = Writer::open(path, limits);
        let mut spool = self.spool(id, begin);
        if let Some(spool) = &mut spool {
            if begin == Begin::Again {
                writer.back_to(spool.place());
            }
            let _ = spool.kept(0, 0, writer.place());
        }
        let state = State {
            writer,
            spool,
            open: streams.len(),
            attached: Vec::new(),
            version: 0,
            say_grown: self.grown.clone().filter(|_| limits.kept).map(|to| Box::new((to, Grown::of(id, path)))),
            grown_said: false,
        };
        let stdin = Mutex::new(fd(sources.stdin).or_else(|| tty.clone()));
        let pump = Arc::new(Pump { state: Mutex::new(state), news: Notify::new(), stdin, tty });
        let id: Arc<str> = id.into();
        lock(&self.home.running).insert(id.clone(), pump.clone());
        for (lane, source) in streams {
            let stream = Stream { lane, rest: Rest::default() };
            let mut ear = Ear { pump: pump.clone(), home: self.home.clone(), id: id.clone(), source, stream };
            // What the agent before this one had taken from the pipe and not written.
            ear.stream.spooled(&pump);
            if let Err(e) = self.reader.add(ear) {
                log::error!("logs: {id} is not heard: {e}");
            }
        }
    }

    fn spool(&self, id: &str, begin: Begin) -> Option<Spool> {
        let dir = self.home.spools.as_deref()?;
        let spool = match begin {
            Begin::Now => Spool::begin(dir, id),
            Begin::Again => Spool::resume(dir, id),
        };
        spool.map_err(|e| log::warn!("logs: no spool in {} for {id}: {e}", dir.display())).ok()
    }

    fn get(&self, id: &str) -> Option<Arc<Pump>> {
        lock(&self.home.running).get(id).cloned()
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
        self.home.forget(id);
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.reader.places()
    }

    pub fn attach(&self, id: &str) -> Option<Attached> {
        let pump = self.get(id)?;
        let (tell, output) = mpsc::channel(BEHIND_MAX);
        let cut_off = Arc::new(AtomicBool::new(false));
        lock(&pump.state).attached.push((tell, cut_off.clone()));
        let input = lock(&pump.stdin).clone();
        Some(Attached { output, cut_off, input, tty: pump.tty.clone() })
    }

    /// `stdinOnce`: the first who was attached is gone.
    pub fn close_stdin(&self, id: &str) {
        if let Some(pump) = self.get(id) {
            lock(&pump.stdin).take();
        }
    }
}

/// One stream of a container, heard until its end.
pub struct Ear {
    pump: Arc<Pump>,
    home: Arc<Home>,
    id: Arc<str>,
    source: Source,
    stream: Stream,
}

impl Ear {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.source.fd()
    }

    /// One step.
    pub fn hear(&mut self) -> Heard {
        match self.stream.take_in(&self.pump, self.source.fd()) {
            Ok(0) => Heard::End,
            Ok(_) => {
                self.pump.news.notify_waiters();
                Heard::Some
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Heard::Some,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                self.stream.silent(&self.pump);
                Heard::Nothing
            }
            // A terminal's master says EIO when the last process has closed it.
            Err(_) => Heard::End,
        }
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        let last = {
            let mut state = lock(&self.pump.state);
            state.writer.finish(self.stream.name(), wall_ns(), &mut self.stream.rest);
            state.open -= 1;
            state.version += 1;
            if state.open == 0 {
                state.attached.clear();
            }
            state.open == 0
        };
        if last {
            self.home.forget(&self.id);
            lock(&self.pump.stdin).take();
        }
        self.pump.news.notify_waiters();
    }
}

/// One of a container's two streams.
struct Stream {
    lane: u8,
    rest: Rest,
}

impl Stream {
    fn name(&self) -> &'static str {
        if self.lane == 1 { "stdout" } else { "stderr" }
    }

    fn at(&self) -> usize {
        usize::from(self.lane != 1)
    }

    /// One step: bytes from the pipe to the log. 0: the stream is over.
    fn take_in(&mut self, pump: &Pump, fd: BorrowedFd<'_>) -> std::io::Result<usize> {
        let spooled = lock(&pump.state).spool.as_mut().map(|spool| spool.take_in(self.at(), fd, BUFFER_BYTES));
        match spooled {
            Some(Ok(n)) => {
                self.spooled(pump);
                return Ok(n);
            }
            Some(Err(e)) if matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
                log::warn!("logs: no room for a spool; lines can be lost if the agent is killed: {e}");
                lock(&pump.state).spool = None;
            }
            Some(Err(e)) => return Err(e),
            None => {}
        }
        BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            buffer.resize(BUFFER_BYTES, 0);
            let n = read_fd(fd, &mut buffer)?;
            if n > 0 {
                self.write(&mut lock(&pump.state), &buffer[..n]);
            }
            Ok(n)
        })
    }

    /// Everything that is in the spool goes to the log.
    fn spooled(&mut self, pump: &Pump) {
        BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            buffer.resize(BUFFER_BYTES, 0);
            let mut state = lock(&pump.state);
            loop {
                let next = state.spool.as_mut().map(|spool| spool.next(self.at(), &mut buffer));
                let Some(Ok(n @ 1..)) = next else { break };
                self.write(&mut state, &buffer[..n]);
                let place = state.writer.place();
                let kept = state.spool.as_mut().map(|spool| spool.kept(self.at(), self.rest.len(), place));
                if let Some(Err(e)) = kept {
                    log::warn!("logs: the spool cannot be marked: {e}");
                    state.spool = None;
                }
            }
        });
    }

    fn silent(&self, pump: &Pump) {
        if let Some(spool) = &mut lock(&pump.state).spool
            && let Err(e) = spool.rest(self.at())
        {
            log::debug!("logs: a spool keeps its room: {e}");
        }
    }

    fn write(&mut self, state: &mut State, chunk: &[u8]) {
        state.writer.chunk(self.name(), wall_ns(), &mut self.rest, chunk);
        state.version += 1;
        if let Some((to, whose)) = state.say_grown.as_deref().filter(|_| !state.grown_said) {
            state.grown_said = to.send(whose.clone()).is_ok();
        }
        if !state.attached.is_empty() {
            let bytes = Bytes::copy_from_slice(chunk);
            state.attached.retain(|(to, cut_off)| {
                let sent = to.try_send((self.lane, bytes.clone()));
                cut_off.fetch_or(matches!(sent, Err(TrySendError::Full(_))), Ordering::Relaxed);
                sent.is_ok()
            });
        }
    }
}

fn read_fd(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> std::io::Result<usize> {
    Ok(nix::unistd::read(fd, buffer)?)
}

fn wall_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}
