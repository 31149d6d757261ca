//! What each kind of stream does.
//!
//! In: an accepted `StreamOpen` with its target. Out: bytes both ways, then `End` with an exit code or a sentence.
//! Never: runs anything that the stream did not ask for; a pod's port is reached inside the pod's own network.

use super::flow::{Closed, Incoming, StreamIn, StreamIo, StreamOut};
use crate::{
    device::Clock,
    logs::{self, Logs, ReadOptions},
    runtime::{self, ExecSpec, Leash, Runtime},
    views::{self, LogFiles, Page, Samples, Subject},
};
use bytes::Bytes;
use limpet_protocol::{StreamKind, StreamOpen};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    sync::{Notify, mpsc, watch},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 8 * 1024;
/// What a command has left in its pipes when it ends is sent, however slowly it is taken; so long is waited for what its children
/// still say, and so much of that is taken (as much as a pipe can hold).
const LATE: Duration = Duration::from_millis(500);
const LATE_STEP: Duration = Duration::from_millis(10);
const LATE_BYTES_MAX: usize = 1 << 20;

/// What all streams may use.
#[derive(Clone)]
pub struct Context {
    pub runtime: Runtime,
    pub logs: Logs,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub clock: Clock,
    pub samples: Arc<Samples>,
}

/// What is meant, as the pods' machine knows it now.
#[derive(Debug, Default)]
pub struct Target {
    pub uid: String,
    /// The container's name and the attempt that is meant (`previous` is worked out already).
    pub container: String,
    pub attempt: u32,
    pub container_id: String,
    pub running: bool,
    pub stdin_once: bool,
    pub host_network: bool,
    /// Answer to `NodeGet`.
    pub page: Option<NodePage>,
}

/// One of the node's own pages.
#[derive(Debug)]
pub enum NodePage {
    Bytes(Vec<u8>),
    /// Made from counters when the stream runs.
    View(Page, Box<Subject>),
    Files(LogFiles),
    /// What journalctl says when it is started with these words.
    Journal(Vec<String>),
}

pub async fn serve(context: Context, open: StreamOpen, target: Result<Target, String>, io: StreamIo) {
    let target = match target {
        Ok(target) => target,
        Err(why) => return io.out.end(None, &why).await,
    };
    let out = io.out.clone();
    let ended = match open.kind {
        StreamKind::Logs { .. } => serve_logs(&context, &open.kind, &target, &io.out).await,
        StreamKind::Exec { command, stdin, tty, .. } => exec(&context, command, stdin, tty, &target, io).await,
        StreamKind::Attach { stdin, .. } => attach(&context, stdin, &target, io).await,
        StreamKind::PortForward { port } => forward(&context, port, &target, io).await,
        StreamKind::NodeGet { .. } => node_get(&context, target.page, &io.out).await,
    };
    match ended {
        Ok(code) => out.end(code, "").await,
        Err(why) => out.end(None, &why).await,
    }
}

fn closed(_: Closed) -> String {
    "the session ended".into()
}

async fn node_get(context: &Context, page: Option<NodePage>, out: &StreamOut) -> Result<Option<i32>, String> {
    let body = match page {
        Some(NodePage::Bytes(body)) => body,
        Some(NodePage::View(page, subject)) => {
            views::render(page, *subject, context.runtime.cgroups().clone(), &context.samples).await?
        }
        Some(NodePage::Files(mut files)) => {
            out.opened().await.map_err(closed)?;
            loop {
                let piece = files.next();
                if piece.is_empty() {
                    return Ok(None);
                }
                out.data(1, &piece).await.map_err(closed)?;
            }
        }
        Some(NodePage::Journal(words)) => return journal(&words, out).await,
        None => return Err("the node has no such page".into()),
    };
    out.opened().await.map_err(closed)?;
    out.data(1, &body).await.map_err(closed)?;
    Ok(None)
}

/// Ends with the reader, too: what nobody reads any more is not looked up.
async fn journal(words: &[String], out: &StreamOut) -> Result<Option<i32>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", views::query::JOURNALCTL);
    let mut process = tokio::process::Command::new(views::query::JOURNALCTL)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut from = process.stdout.take().ok_or("journalctl has no output")?;
    out.opened().await.map_err(closed)?;
    let mut piece = vec![0; 16 * 1024];
    loop {
        match from.read(&mut piece).await.map_err(failed)? {
            0 => return Ok(None),
            got => out.data(1, &piece[..got]).await.map_err(closed)?,
        }
    }
}

async fn serve_logs(
    context: &Context,
    kind: &StreamKind,
    target: &Target,
    out: &StreamOut,
) -> Result<Option<i32>, String> {
    let StreamKind::Logs { follow, previous, timestamps, since_seconds, since_ms, tail_lines, limit_bytes, .. } =
        kind
    else {
        return Ok(None);
    };
    let number = |n: &Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let ago = number(since_seconds).map(|s| context.clock.wall_ms().saturating_sub(s.saturating_mul(1000)));
    let options = ReadOptions {
        follow: *follow && !previous,
        timestamps: *timestamps,
        since_ms: ago.or(number(since_ms)),
        tail_lines: number(tail_lines),
        limit_bytes: number(limit_bytes),
    };
    let path = logs::file(&context.data_dir, &target.uid, &target.container, target.attempt);
    out.opened().await.map_err(closed)?;
    let (tell, mut hear) = mpsc::channel::<Vec<u8>>(2);
    let reading = async move {
        // The sender ends with the reader, and with it the other half.
        logs::read(&path, &target.container_id, &context.logs, &options, &tell).await
    };
    let sending = async move {
        while let Some(chunk) = hear.recv().await {
            if out.data(1, &chunk).await.is_err() {
                break;
            }
        }
    };
    let (result, ()) = tokio::join!(reading, sending);
    result.map(|()| None)
}

async fn exec(
    context: &Context,
    command: Vec<String>,
    stdin: bool,
    tty: bool,
    target: &Target,
    io: StreamIo,
) -> Result<Option<i32>, String> {
    let container_id = target.container_id.clone();
    let env = if tty { vec!["TERM=xterm".to_string()] } else { Vec::new() };
    let spec = ExecSpec { container_id, args: command, env, tty, stdin, ..ExecSpec::default() };
    let mut started = context.runtime.exec(&spec).await.map_err(|e| e.to_string())?;
    // A client that goes away takes its command with it.
    let mut leash = Leash::new(started.pid);
    let streams = std::mem::take(&mut started.streams);
    io.out.opened().await.map_err(closed)?;
    let fd = |fd: Option<OwnedFd>| fd.and_then(|fd| crate::runtime::sys::watch(fd).ok()).map(Arc::new);
    let tty = fd(streams.tty);
    let input = tty.clone().or(fd(streams.stdin));
    let (tell_over, over) = watch::channel(false);
    let copies = async {
        match &tty {
            Some(tty) => copy_out(tty, 1, &io.out, over).await,
            None => {
                let (out, err) = (fd(streams.stdout), fd(streams.stderr));
                let one = async {
                    if let Some(out) = out {
                        copy_out(&out, 1, &io.out, over.clone()).await;
                    }
                };
                let two = async {
                    if let Some(err) = err {
                        copy_out(&err, 2, &io.out, over.clone()).await;
                    }
                };
                tokio::join!(one, two);
            }
        }
    };
    let mut copies = std::pin::pin!(copies);
    let feeding = feed(io.input, input, tty.clone(), || {});
    let mut feeding = std::pin::pin!(feeding);
    let (mut fed, mut copied) = (false, false);
    let code = loop {
        tokio::select! {
            code = &mut started.exit => break code.unwrap_or(255),
            () = &mut copies, if !copied => copied = true,
            () = &mut feeding, if !fed => fed = true,
        }
    };
    leash.let_go();
    // Children may keep the pipes open; what is there now comes across, not what they may still say.
    tell_over.send_replace(true);
    if !copied {
        copies.await;
    }
    Ok(Some(code))
}

async fn attach(context: &Context, stdin: bool, target: &Target, io: StreamIo) -> Result<Option<i32>, String> {
    let name = &target.container;
    let mut attached = context
        .logs
        .attach(&target.container_id)
        .ok_or_else(|| format!("container {name} is not running: nothing to attach to"))?;
    io.out.opened().await.map_err(closed)?;
    let input = attached.input.take().filter(|_| stdin);
    let had_input = input.is_some();
    let ended = Notify::new();
    let feeding = feed(io.input, input, attached.tty.clone(), || ended.notify_one());
    let mut feeding = std::pin::pin!(feeding);
    let mut fed = false;
    // As containerd has it: the end of what is typed is the program's end of input with `stdinOnce` and without a terminal;
    // otherwise it ends the attaching, and the container hears nothing of it.
    let once = target.stdin_once && attached.tty.is_none();
    let mut end = EndOfInput { context, id: &target.container_id, is_owed: had_input && once };
    loop {
        tokio::select! {
            chunk = attached.output.recv() => match chunk {
                Some((lane, bytes)) => send_chunk(&io.out, lane, &bytes).await?,
                None if attached.cut_off.load(Ordering::Relaxed) => break Err(format!(
                    "container {name} says more than was taken, and does not wait: the rest is in its log (kubectl logs)"
                )),
                None => break Ok(None),
            },
            () = &mut feeding, if !fed => fed = true,
            () = ended.notified(), if had_input => match once {
                true => end.now(),
                false => break Ok(None),
            },
        }
    }
}

/// With `stdinOnce` whoever was attached first takes the container's input with them, however they go.
struct EndOfInput<'a> {
    context: &'a Context,
    id: &'a str,
    is_owed: bool,
}

impl EndOfInput<'_> {
    /// This agent's end of the pipe, and the one that the keeper has for the next agent.
    fn now(&mut self) {
        if !std::mem::take(&mut self.is_owed) {
            return;
        }
        self.context.logs.close_stdin(self.id);
        // Where the agent itself ends, its keeper has the pipe for the next one.
        let Ok(here) = tokio::runtime::Handle::try_current() else { return };
        let (runtime, id) = (self.context.runtime.clone(), self.id.to_owned());
        here.spawn(async move {
            if let Err(err) = runtime.close_stdin(&id).await {
                log::warn!("container {id}: its input stays open: {err}");
            }
        });
    }
}

impl Drop for EndOfInput<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

async fn send_chunk(out: &StreamOut, lane: u8, bytes: &Bytes) -> Result<(), String> {
    out.data(lane, bytes).await.map_err(closed)
}

/// Reads until the end and sends it on; once the process is `over`, what there is.
async fn copy_out(fd: &AsyncFd<OwnedFd>, lane: u8, out: &StreamOut, mut over: watch::Receiver<bool>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut patience, mut late_bytes) = (LATE, 0);
    while late_bytes <= LATE_BYTES_MAX {
        let mut ready = tokio::select! {
            biased;
            Ok(ready) = fd.readable() => ready,
            () = late(&mut over, &mut patience) => break,
        };
        match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut buffer)?)) {
            Ok(Ok(0)) => break,
            Ok(Ok(n)) => {
                if out.data(lane, &buffer[..n]).await.is_err() {
                    return;
                }
                late_bytes += if *over.borrow() { n } else { 0 };
            }
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    let _ = out.eof(lane).await;
}

/// Returns when the process is over and its patience with silence is, too.
async fn late(over: &mut watch::Receiver<bool>, patience: &mut Duration) {
    if over.wait_for(|over| *over).await.is_err() {
        return;
    }
    while !patience.is_zero() {
        *patience = patience.saturating_sub(LATE_STEP);
        tokio::time::sleep(LATE_STEP).await;
    }
}

/// Writes lane 0 into the process and sets the terminal's size from lane 4. `ended`: lane 0 is over.
async fn feed(
    mut input: StreamIn,
    to: Option<Arc<AsyncFd<OwnedFd>>>,
    tty: Option<Arc<AsyncFd<OwnedFd>>>,
    ended: impl Fn(),
) {
    let mut to = to;
    while let Some(incoming) = input.next().await {
        match incoming {
            Incoming::Data { lane: 0, bytes } => {
                if let Some(fd) = &to
                    && write_all(fd, &bytes).await.is_err()
                {
                    to = None;
                }
            }
            Incoming::Data { lane: 4, bytes } => {
                if let (Some(tty), Some((columns, rows))) = (&tty, size_of(&bytes)) {
                    let _ = runtime::resize(tty.get_ref(), columns, rows);
                }
            }
            // Without a terminal, closing the pipe is how a program learns that its input has ended.
            Incoming::Eof { lane: 0 } => {
                to = None;
                ended();
            }
            _ => {}
        }
    }
}

fn size_of(json: &[u8]) -> Option<(u16, u16)> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let number = |key: &str| value.get(key).and_then(|n| n.as_u64()).and_then(|n| u16::try_from(n).ok());
    Some((number("Width")?, number("Height")?))
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
            Ok(Ok(n)) => bytes = &bytes[n..],
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

async fn forward(context: &Context, port: u16, target: &Target, io: StreamIo) -> Result<Option<i32>, String> {
    let pin = (!target.host_network).then(|| runtime::rt::sandbox::pin(&context.run_dir, &target.uid, "net"));
    let tcp = connect_inside(pin.as_deref(), port).await.map_err(|e| {
        format!("failed to connect to localhost:{port} inside the pod's network namespace: {e}")
    })?;
    io.out.opened().await.map_err(closed)?;
    let (mut read, mut write) = tcp.into_split();
    let (out, mut input) = (io.out, io.input);
    let up = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(n) => out.data(0, &buffer[..n]).await.map_err(closed)?,
                Err(e) => break Err(e.to_string()),
            }
        }
    };
    let down = async {
        while let Some(incoming) = input.next().await {
            match incoming {
                Incoming::Data { lane: 0, bytes } => write.write_all(&bytes).await.map_err(|e| e.to_string())?,
                Incoming::Eof { .. } => write.shutdown().await.map_err(|e| e.to_string())?,
                Incoming::Data { .. } => {}
            }
        }
        Ok::<(), String>(())
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    // The pod's half decides: when it has said all, the connection is over.
    tokio::select! {
        result = &mut up => result?,
        result = &mut down => {
            result?;
            (&mut up).await?;
        }
    }
    Ok(None)
}

/// A connection to a loopback port of another network namespace. Only a short-lived thread of its own changes its
/// namespace; the socket belongs to where it was made.
async fn connect_inside(pin: Option<&Path>, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    // What listens at the one may not at the other (`localhost` of many a program is ::1 alone); IPv4 first, as containerd does.
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let Some(pin) = pin.map(Path::to_path_buf) else {
        return tokio::net::TcpStream::connect(&addresses[..]).await;
    };
    let (tell, hear) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
        let connect = || {
            let namespace = std::fs::File::open(pin)?;
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let [first, second] = addresses;
            let to = |address| std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
            to(first).or_else(|why| to(second).map_err(|_| why))
        };
        let _ = tell.send(connect());
    })?;
    let stream = hear.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}
