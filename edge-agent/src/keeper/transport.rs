#![allow(unsafe_code)] // fds arrive as plain numbers
//! One packet out, one packet in, and the two clocks: what the keeper's loop needs of the kernel.
//!
//! In: sockets. Out: bytes and fds. Never: blocks.

use super::wire::Packet;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends one packet; `Ok(false)` when there is no room now.
pub fn send_packet(
    socket: &OwnedFd,
    packet: &Packet<'_>,
    fd: Option<&OwnedFd>,
    buffer: &mut Vec<u8>,
) -> Result<bool, &'static str> {
    packet.encode(buffer);
    let raw = [fd.map_or(-1, AsRawFd::as_raw_fd)];
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if fd.is_some() { &rights } else { &[] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(buffer)], control, flags, None) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ETOOMANYREFS) => Ok(false),
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(false), // the agent is dying: SIGCHLD follows
        Err(_) => Err("cannot write to the agent's socket"),
    }
}

/// One packet and the fd that came with it. More than one fd, or a cut packet, is a protocol error.
pub fn receive_packet(socket: &OwnedFd, bytes: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!([libc::c_int; 2]);
    let mut iov = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let mut fd = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raws) = part {
            for raw in raws {
                // SAFETY: the kernel installed this fd for us in this very call; nobody else owns it.
                fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fd))
}

pub fn mono_ms() -> u64 {
    clock(libc::CLOCK_MONOTONIC) as u64
}

pub fn wall_ms() -> i64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills a live local; it cannot fail for these clocks.
    unsafe { libc::clock_gettime(id, &mut time) };
    #[allow(clippy::unnecessary_cast)] // 32-bit on some targets
    let ms = time.tv_sec as i64 * 1000 + time.tv_nsec as i64 / 1_000_000;
    ms
}
