#![allow(unsafe_code)] // fds arrive as plain numbers
//! Starts `limpet-agent rt` and speaks with it: one request, one reply, fds beside them.
//!
//! In: a `rt::Request` and the fds for the container. Out: the reply, and a pty's master when there is one.
//! Never: waits without end (`CALL_TIMEOUT`), starts more than `HELPERS_MAX` at once, or hands the helper an fd that
//! it did not name.

use super::rt::{Reply, Request};
use super::spec::{ContainerSpec, ExecSpec};
use super::{RuntimeError, SPEC_BYTES_MAX, Streams, detached, sys};
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const HELPERS_MAX: usize = 4;
/// A start on a slow card under load; a helper that takes longer is killed.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Helper {
    program: PathBuf,
    /// Read-only mount of our own program: what runs in a container's namespaces cannot be written to from there.
    _mount: Option<OwnedFd>,
    permits: Arc<Semaphore>,
}

/// The right to have a helper at work. Kept until it has answered, or the bound is none.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A successful reply.
pub struct Answer {
    pub pid: i32,
    pub fds: Vec<OwnedFd>,
}

impl Helper {
    pub fn new(program: Option<PathBuf>) -> Helper {
        let own = program.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let (program, mount) = match detached::read_only(&own) {
            Ok(mount) => (PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())), Some(mount)),
            Err(err) => {
                log::warn!("runtime: no read-only mount of the agent's program ({err}); Linux 5.12 has it");
                (own, None)
            }
        };
        Helper { program, _mount: mount, permits: Arc::new(Semaphore::new(HELPERS_MAX)) }
    }

    /// Whoever goes away while waiting for it has begun nothing.
    pub async fn turn(&self) -> Turn {
        Turn { _permit: Arc::clone(&self.permits).acquire_owned().await.ok() }
    }

    #[cfg(test)]
    pub fn at_work(&self) -> usize {
        HELPERS_MAX - self.permits.available_permits()
    }

    pub async fn call(&self, request: &Request, fds: &[&OwnedFd]) -> Result<Answer, RuntimeError> {
        self.call_in(self.turn().await, std::future::ready(Ok(())), request, fds).await
    }

    /// The helper begins to start at once, and hears the request when `first` has succeeded.
    pub async fn call_after(
        &self,
        first: impl Future<Output = Result<(), RuntimeError>>,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<Answer, RuntimeError> {
        self.call_in(self.turn().await, first, request, fds).await
    }

    /// As `call_after`, by who has its turn already.
    pub async fn call_in(
        &self,
        _turn: Turn,
        first: impl Future<Output = Result<(), RuntimeError>>,
        request: &Request,
        fds: &[&OwnedFd],
    ) -> Result<Answer, RuntimeError> {
        let failed = |what: &'static str| move |err: std::io::Error| RuntimeError::io(what, err);
        let body = serde_json::to_vec(request).map_err(|err| RuntimeError::Invalid(err.to_string()))?;
        if body.len() > SPEC_BYTES_MAX {
            return Err(RuntimeError::Invalid(format!("the spec is larger than {SPEC_BYTES_MAX} bytes")));
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
            .map_err(|err| RuntimeError::io("make the helper's socket", err))?;
        let mut command = tokio::process::Command::new(&self.program);
        // No directory is asked for: std would fork for that, with a copy of this process's page tables.
        command.arg0("limpet-agent").arg("rt").env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let mut child = command.spawn().map_err(failed("start the runtime's helper"))?;
        drop(command);
        set_nonblocking(&ours).map_err(failed("the helper's socket"))?;
        let socket = sys::watch(ours).map_err(failed("the helper's socket"))?;
        if let Err(err) = first.await {
            // Without a request it ends by itself.
            drop(socket);
            let _ = child.wait().await;
            return Err(err);
        }
        let talk = async {
            send(&socket, &body, fds).await?;
            receive(&socket).await
        };
        let (reply, fds) = match tokio::time::timeout(CALL_TIMEOUT, talk).await {
            Ok(Ok(got)) => got,
            Ok(Err(err)) => {
                let status = child.wait().await.map(|s| s.to_string()).unwrap_or_default();
                return Err(RuntimeError::Create(format!("the runtime's helper broke off ({err}; {status})")));
            }
            Err(_) => {
                let _ = child.kill().await;
                let limit = CALL_TIMEOUT.as_secs();
                return Err(RuntimeError::Create(format!("the runtime's helper took longer than {limit} s")));
            }
        };
        if matches!(reply, Reply::Done { .. }) {
            // Its children come to the keeper when it ends; that needs no waiting here.
            tokio::spawn(async move { child.wait().await });
        } else {
            // It may be in the container's group, which the caller wants to remove.
            let _ = child.wait().await;
        }
        match reply {
            Reply::Done { pid, .. } => Ok(Answer { pid, fds }),
            Reply::NotCreated(why) => Err(RuntimeError::Create(why)),
            Reply::NotStarted(why) => Err(RuntimeError::Start(why)),
            Reply::Invalid(why) => Err(RuntimeError::Invalid(why)),
        }
    }
}

async fn send(socket: &AsyncFd<OwnedFd>, body: &[u8], fds: &[&OwnedFd]) -> std::io::Result<()> {
    let mut frame = (body.len() as u32).to_ne_bytes().to_vec();
    frame.extend_from_slice(body);
    let raws: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let mut sent = 0;
    while sent < frame.len() {
        let mut ready = socket.writable().await?;
        let step = ready.try_io(|socket| {
            let rights = [ControlMessage::ScmRights(&raws)];
            let control: &[ControlMessage<'_>] = if sent == 0 && !raws.is_empty() { &rights } else { &[] };
            let iov = [IoSlice::new(&frame[sent..])];
            Ok(sendmsg::<()>(socket.get_ref().as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        match step {
            Ok(Ok(n)) => sent += n,
            Ok(Err(err)) => return Err(err),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> std::io::Result<(Reply, Vec<OwnedFd>)> {
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut ready = socket.readable().await?;
        let step = ready.try_io(|socket| receive_some(socket.get_ref(), &mut bytes, &mut fds));
        match step {
            Ok(Ok(0)) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return Err(err),
            Err(_would_block) => continue,
        }
        if let Some(body) = whole_frame(&bytes)? {
            return Ok((serde_json::from_slice(body)?, fds));
        }
    }
}

/// The body of a frame when it is all there.
pub fn whole_frame(bytes: &[u8]) -> std::io::Result<Option<&[u8]>> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_ne_bytes(*head) as usize;
    if len > SPEC_BYTES_MAX {
        return Err(std::io::Error::other("the frame is larger than a spec can be"));
    }
    Ok(bytes.get(4..4 + len))
}

/// Appends what the socket has; 0 at its end.
pub fn receive_some(socket: &OwnedFd, bytes: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> std::io::Result<usize> {
    let mut chunk = [0u8; 16 * 1024];
    let mut control = nix::cmsg_space!([libc::c_int; 8]);
    let mut iov = [IoSliceMut::new(&mut chunk)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raws) = part {
            // SAFETY: the kernel installed these fds for us in this very call; nobody else owns them.
            fds.extend(raws.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    let len = message.bytes;
    bytes.extend_from_slice(&chunk[..len]);
    Ok(len)
}

/// Both sides of a container's stdio.
#[derive(Default)]
pub struct Pipes {
    /// The agent's ends.
    pub streams: Streams,
    theirs: Vec<OwnedFd>,
}

impl Pipes {
    /// FIFOs that the container opens for both directions: it never sees a missing reader, and its output waits in
    /// the kernel while no agent reads.
    pub fn for_container(run_dir: &Path, spec: &ContainerSpec) -> std::io::Result<Pipes> {
        let mut pipes = Pipes::default();
        if spec.tty {
            return Ok(pipes);
        }
        if spec.stdin {
            pipes.add_stdin(spec.host_uid())?;
        }
        for end in ["out", "err"] {
            let path = fifo(run_dir, &spec.id, end);
            let _ = std::fs::remove_file(&path);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
            std::os::unix::fs::chown(&path, Some(spec.host_uid()), None)?;
            let reader = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
            pipes.theirs.push(open(&path, OFlag::O_RDWR)?);
            let place = if end == "out" { &mut pipes.streams.stdout } else { &mut pipes.streams.stderr };
            *place = Some(reader);
        }
        Ok(pipes)
    }

    /// The reading ends of a container whose keeper died with them: it holds both directions of its FIFOs itself, so that
    /// nothing of what it wrote meanwhile is lost.
    pub fn again(run_dir: &Path, id: &str) -> Streams {
        let reader = |end: &str| open(&fifo(run_dir, id, end), OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok();
        Streams { stdout: reader("out"), stderr: reader("err"), ..Streams::default() }
    }

    /// `first_id`: of the pod's own users.
    pub fn for_exec(spec: &ExecSpec, first_id: Option<u32>) -> std::io::Result<Pipes> {
        let mut pipes = Pipes::default();
        if spec.tty {
            return Ok(pipes);
        }
        let uid = spec.user.as_ref().map_or(0, |user| user.uid) + first_id.unwrap_or(0);
        if spec.stdin {
            pipes.add_stdin(uid)?;
        }
        for end in ["out", "err"] {
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            set_nonblocking(&reader)?;
            std::os::unix::fs::fchown(&writer, Some(uid), None)?;
            pipes.theirs.push(writer);
            let place = if end == "out" { &mut pipes.streams.stdout } else { &mut pipes.streams.stderr };
            *place = Some(reader);
        }
        Ok(pipes)
    }

    fn add_stdin(&mut self, uid: u32) -> std::io::Result<()> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&writer)?;
        std::os::unix::fs::fchown(&reader, Some(uid), None)?;
        self.theirs.push(reader);
        self.streams.stdin = Some(writer);
        Ok(())
    }

    /// Stdin when there is one, then stdout, then stderr.
    pub fn theirs(&self) -> Vec<&OwnedFd> {
        self.theirs.iter().collect()
    }

    /// What the keeper shall hold, by key.
    pub fn keys(&self, id: &str) -> Vec<(String, &OwnedFd)> {
        let streams = &self.streams;
        [("in", &streams.stdin), ("out", &streams.stdout), ("err", &streams.stderr)]
            .into_iter()
            .filter_map(|(end, fd)| Some((format!("{id}/{end}"), fd.as_ref()?)))
            .collect()
    }
}

pub fn fifo(run_dir: &Path, id: &str, end: &str) -> PathBuf {
    run_dir.join("fifos").join(format!("{id}.{end}"))
}

fn open(path: &Path, flags: OFlag) -> std::io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?)
}

pub fn set_nonblocking(fd: &OwnedFd) -> std::io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
