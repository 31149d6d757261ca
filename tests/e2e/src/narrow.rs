//! A narrow and long road between a board and the hub, in user space: not every kernel can make one.
//!
//! In: a slot, a board, bytes a second, a delay. Out: the board reaches the hub only by this road, for as long as it lives;
//! how many bytes it has carried. Two TUN devices, and threads that carry packets from one to the other, as a modem with a
//! queue does: what does not fit the queue is lost. Never: a route or a device that outlives it.

use crate::{Result, Slot, process::sh};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    mem::size_of,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// What a direction of the road is like.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub bytes_per_second: u64,
    pub delay: Duration,
    /// Bytes that wait to be carried; more are lost.
    pub queue_bytes: u64,
}

/// The road; it ends when dropped.
pub struct Road {
    down: Arc<AtomicU64>,
    up: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

/// As the kernel's `struct ifreq` for `TUNSETIFF`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const IFF_TUN: i16 = 1;
const IFF_NO_PI: i16 = 0x1000;
const PACKET_BYTES_MAX: usize = 2048;

#[allow(unsafe_code)]
mod ioctl {
    use super::{Request, size_of};
    nix::ioctl_write_ptr_bad!(set_interface, nix::request_code_write!(b'T', 202, size_of::<i32>()), Request);
}

/// A TUN device in the network of the calling thread.
#[allow(unsafe_code)]
fn device(name: &str) -> Result<File> {
    let failed = |e: &dyn std::fmt::Display| format!("no TUN device {name}: {e}");
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(|e| failed(&e))?;
    let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    let bytes = name.as_bytes();
    request.name.get_mut(..bytes.len()).ok_or_else(|| failed(&"the name is too long"))?.copy_from_slice(bytes);
    // SAFETY: the request is as the kernel wants it and lives until the call returns.
    unsafe { ioctl::set_interface(file.as_raw_fd(), &raw const request) }.map_err(|e| failed(&e))?;
    Ok(file)
}

fn device_in(namespace: &str, name: &str) -> Result<File> {
    let (path, name) = (format!("/run/netns/{namespace}"), name.to_owned());
    // A thread of its own: it stays in that network.
    let made = std::thread::spawn(move || {
        let network = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| format!("{path}: {e}"))?;
        device(&name)
    });
    made.join().map_err(|_| "the thread that makes a device failed".to_string())?
}

impl Road {
    /// From now on the board reaches the hub's address by this road alone.
    pub fn open(slot: &Slot, node: usize, down: Way, up: Way) -> Result<Road> {
        let namespace = slot.namespace(node);
        let (outer, inner) = (format!("lm{}r{node}", slot.number), "narrow0");
        let (hub_side, board_side) = (slot.address(250), slot.address(251));
        let (hub, board) = (device(&outer)?, device_in(&namespace, inner)?);
        sh("ip", ["address", "add", &format!("{hub_side}/32"), "peer", &format!("{board_side}/32"), "dev", &outer])?;
        sh("ip", ["link", "set", &outer, "up"])?;
        let inside = |words: &[&str]| sh("ip", ["-netns", &namespace].iter().chain(words).copied());
        inside(&["address", "add", &format!("{board_side}/32"), "dev", inner])?;
        inside(&["link", "set", inner, "up"])?;
        inside(&["route", "add", &format!("{}/32", slot.address(1)), "dev", inner, "src", &board_side])?;
        let road = Road { down: Arc::default(), up: Arc::default(), end: Arc::default() };
        let again = |file: &File| file.try_clone().map_err(|e| e.to_string());
        carry(again(&hub)?, again(&board)?, down, &road.down, &road.end);
        carry(board, hub, up, &road.up, &road.end);
        Ok(road)
    }

    /// Bytes carried to the board and from it so far.
    pub fn carried(&self) -> (u64, u64) {
        (self.down.load(Ordering::Relaxed), self.up.load(Ordering::Relaxed))
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// One direction: packets leave at the road's pace, and arrive later.
#[allow(clippy::disallowed_methods)] // a road's delay is a sleep
fn carry(mut from: File, mut to: File, way: Way, carried: &Arc<AtomicU64>, end: &Arc<AtomicBool>) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (end, count) = (Arc::clone(end), Arc::clone(carried));
    std::thread::spawn(move || {
        let mut packet = [0; PACKET_BYTES_MAX];
        let mut free_at = Instant::now();
        // The device ends with its namespace or with the process; until then a read waits.
        while let Ok(n) = from.read(&mut packet) {
            if end.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            let waits = free_at.saturating_duration_since(now).as_secs_f64() * way.bytes_per_second as f64;
            if waits as u64 + n as u64 > way.queue_bytes {
                continue;
            }
            free_at = free_at.max(now) + Duration::from_secs_f64(n as f64 / way.bytes_per_second as f64);
            if send.send((free_at + way.delay, packet[..n].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((at, packet)) = receive.recv() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&packet).is_ok() {
                count.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
        }
    });
}
