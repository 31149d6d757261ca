//! The agent's side of the keeper: gives fds into its care, gets them back, hears of exits.
//!
//! In: the packet socket on fd 3. Out: `Restored` once, then a stream of `Exit`s. Never: forgets an exit: the keeper
//! tells it again to the next agent until `ack`.

use super::transport::receive_packet;
use super::wire::{KEY_BYTES_MAX, PACKET_BYTES_MAX, Packet};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

pub use super::wire::Exit;

/// Requests that wait for their replies together: far fewer than the keeper holds for somebody who does not read.
const AT_ONCE_MAX: usize = 32;
/// Nothing is ever held under it.
const NO_KEY: &str = "-";

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Nothing to retry: the agent must end, a new keeper starts a new agent.
    #[error("the keeper is gone; this agent must end")]
    Gone,
    /// The caller decides; room comes when containers are removed.
    #[error("the keeper refused: {0}")]
    Refused(String),
    #[error("talking to the keeper: {0}")]
    Io(#[from] std::io::Error),
    #[error("the key `{0}` is empty or longer than {KEY_BYTES_MAX} bytes")]
    Key(String),
}

/// What the keeper held when this agent came.
#[derive(Debug, Default)]
pub struct Restored {
    pub fds: HashMap<String, OwnedFd>,
    /// Ends that no agent has acknowledged.
    pub exits: Vec<Exit>,
    /// Ends that did not fit the keeper's table and are gone.
    pub lost_exits: u64,
    /// How often the keeper has started an agent again.
    pub restarts: u32,
}

/// Handle to the keeper; cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u32,
    gone: bool,
    replies: HashMap<u32, oneshot::Sender<Result<(), KeeperError>>>,
}

impl Keeper {
    /// Greets the keeper, takes what it holds and starts the task that hears it. The channel ends when the keeper is
    /// gone. Must run inside a tokio runtime.
    pub async fn connect(
        socket: OwnedFd,
    ) -> Result<(Keeper, Restored, mpsc::UnboundedReceiver<Exit>), KeeperError> {
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).map_err(io)?;
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map_err(io)?;
        let socket = crate::runtime::sys::watch(socket)?;
        send(&socket, &Packet::Hello, None).await?;
        let mut restored = Restored::default();
        loop {
            let mut bytes = [0u8; PACKET_BYTES_MAX];
            let (len, fd) = receive(&socket, &mut bytes).await?;
            match (Packet::decode(&bytes[..len]), fd) {
                (Some(Packet::Stored { key }), Some(fd)) => {
                    restored.fds.insert(key.to_owned(), fd);
                }
                (Some(Packet::Exited(exit)), _) => restored.exits.push(exit),
                (Some(Packet::Ready { lost, restarts }), _) => {
                    restored.lost_exits = lost;
                    restored.restarts = restarts;
                    break;
                }
                _ => return Err(KeeperError::Refused("it answered the greeting with nonsense".into())),
            }
        }
        let keeper = Keeper { shared: Arc::new(Shared { socket, waiting: Mutex::default() }) };
        let (tell, exits) = mpsc::unbounded_channel();
        tokio::spawn(hear(keeper.shared.clone(), tell));
        Ok((keeper, restored, exits))
    }

    /// Gives a copy of the fd into the keeper's care; replaces an older one of the same key.
    pub async fn put_fd(&self, key: &str, fd: BorrowedFd<'_>) -> Result<(), KeeperError> {
        check_key(key)?;
        let (request, reply) = self.expect_reply()?;
        send(&self.shared.socket, &Packet::Put { request, key }, Some(fd)).await?;
        reply.await.unwrap_or(Err(KeeperError::Gone))
    }

    /// As `put_fd` for those of one container, in one conversation: the keeper wakes once.
    pub async fn put_fds(&self, all: &[(String, &OwnedFd)]) -> Result<(), KeeperError> {
        let mut replies = Vec::with_capacity(all.len());
        for (key, fd) in all {
            check_key(key)?;
            let (request, reply) = self.expect_reply()?;
            send(&self.shared.socket, &Packet::Put { request, key }, Some(fd.as_fd())).await?;
            replies.push(reply);
        }
        answered(replies).await
    }

    /// Tells the keeper to close its copies; no error where it holds none.
    pub async fn drop_fds(&self, keys: impl IntoIterator<Item = String>) -> Result<(), KeeperError> {
        let mut replies = Vec::new();
        for key in keys {
            check_key(&key)?;
            let (request, reply) = self.expect_reply()?;
            send(&self.shared.socket, &Packet::Drop { request, key: &key }, None).await?;
            replies.push(reply);
            if replies.len() == AT_ONCE_MAX {
                answered(std::mem::take(&mut replies)).await?;
            }
        }
        answered(replies).await
    }

    /// The exit is on record: the keeper may forget it.
    pub async fn ack(&self, seq: u64) -> Result<(), KeeperError> {
        send(&self.shared.socket, &Packet::Ack { seq }, None).await
    }

    /// Comes back when all ends that the keeper has collected until now are in the channel: it tells those before it answers.
    pub async fn hear_out(&self) -> Result<(), KeeperError> {
        self.drop_fds([NO_KEY.to_owned()]).await
    }

    fn expect_reply(&self) -> Result<(u32, oneshot::Receiver<Result<(), KeeperError>>), KeeperError> {
        let (tell, reply) = oneshot::channel();
        let mut waiting = lock(&self.shared.waiting);
        if waiting.gone {
            return Err(KeeperError::Gone);
        }
        waiting.next = waiting.next.wrapping_add(1);
        let request = waiting.next;
        waiting.replies.insert(request, tell);
        Ok((request, reply))
    }
}

/// The first refusal when there is one.
async fn answered(replies: Vec<oneshot::Receiver<Result<(), KeeperError>>>) -> Result<(), KeeperError> {
    for reply in replies {
        reply.await.unwrap_or(Err(KeeperError::Gone))?;
    }
    Ok(())
}

async fn hear(shared: Arc<Shared>, tell: mpsc::UnboundedSender<Exit>) {
    let mut bytes = [0u8; PACKET_BYTES_MAX];
    while let Ok((len, _)) = receive(&shared.socket, &mut bytes).await {
        match Packet::decode(&bytes[..len]) {
            // Without a listener the end stays with the keeper, which tells it to the next agent.
            Some(Packet::Exited(exit)) => drop(tell.send(exit)),
            Some(Packet::Done { request }) => answer(&shared, request, Ok(())),
            Some(Packet::Refused { request, why }) => {
                answer(&shared, request, Err(KeeperError::Refused(why.to_owned())));
            }
            _ => {}
        }
    }
    let mut waiting = lock(&shared.waiting);
    waiting.gone = true;
    waiting.replies.clear();
}

fn answer(shared: &Shared, request: u32, result: Result<(), KeeperError>) {
    if let Some(tell) = lock(&shared.waiting).replies.remove(&request) {
        let _ = tell.send(result);
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), KeeperError> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|fd| receive_packet(fd.get_ref(), bytes).map_err(std::io::Error::from)) {
            Ok(Ok((0, _))) => return Err(KeeperError::Gone),
            Ok(Ok(got)) => return Ok(got),
            Ok(Err(err)) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(err)) if err.raw_os_error() == Some(libc::ECONNRESET) => return Err(KeeperError::Gone),
            Ok(Err(err)) => return Err(err.into()),
            Err(_would_block) => {}
        }
    }
}

async fn send(socket: &AsyncFd<OwnedFd>, packet: &Packet<'_>, fd: Option<BorrowedFd<'_>>) -> Result<(), KeeperError> {
    let mut bytes = Vec::with_capacity(64);
    packet.encode(&mut bytes);
    loop {
        let mut ready = socket.writable().await?;
        let sent = ready.try_io(|socket| {
            let raw = [fd.map_or(-1, |fd| fd.as_raw_fd())];
            let rights = [ControlMessage::ScmRights(&raw)];
            let control: &[ControlMessage<'_>] = if fd.is_some() { &rights } else { &[] };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            sendmsg::<()>(socket.get_ref().as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None)
                .map_err(std::io::Error::from)
        });
        match sent {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(err)) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(err)) if matches!(err.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                return Err(KeeperError::Gone);
            }
            Ok(Err(err)) => return Err(err.into()),
            Err(_would_block) => {}
        }
    }
}

fn check_key(key: &str) -> Result<(), KeeperError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KeeperError::Key(key.chars().take(KEY_BYTES_MAX).collect()));
    }
    Ok(())
}

fn io(err: Errno) -> KeeperError {
    KeeperError::Io(err.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
