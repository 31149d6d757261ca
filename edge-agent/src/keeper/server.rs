#![allow(unsafe_code)] // waitpid's status
//! The keeper's loop: one thread, one poll, fixed bounds.
//!
//! In: SIGCHLD/SIGTERM/SIGINT/SIGHUP through a signalfd, packets of the agent. Out: a running agent, replies, exits.
//! Never: blocks on the agent (its socket is non-blocking, what does not fit waits), panics on what the agent says,
//! or drops an fd or an exit without telling so.

use super::program::Programs;
use super::transport::{mono_ms, receive_packet, send_packet, wall_ms};
use super::wire::{EXITS_MAX, Exit, FDS_MAX, PACKET_BYTES_MAX, Packet};
use super::spawn::{describe, raise_fd_limit, start_agent};
use super::{EXIT_CONFIG, EXIT_UPDATE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const BACKOFF_MS_MIN: u64 = 200;
const BACKOFF_MS_MAX: u64 = 10_000;
/// An agent that lived so long starts again without a wait.
const SOUND_MS: u64 = 30_000;
/// How long a stopping agent may take before it is killed.
const STOP_MS: u64 = 15_000;
/// Replies that wait for room in the agent's socket; beyond this the agent is not reading and is cut off.
const REPLIES_MAX: usize = 256;
/// After so long without anything to do its code is given back: not between the packets of one conversation.
const QUIET_MS: u16 = 3_000;

/// As kubelet's.
const OOM_SCORE: &str = "-999";

/// Runs the keeper until it is told to stop; returns the code to exit with.
///
/// `exe` is started as `exe agent args…` with the packet socket on fd 3; or a program below `data` that came over the air.
pub fn run(exe: &Path, args: &[OsString], data: Option<&Path>) -> i32 {
    // Keeper and agent are not what the kernel ends when memory runs out: without them nobody starts anything again.
    // Containers get scores of their own. In a container without CAP_SYS_RESOURCE it stays as it is.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    match Keeper::new(Programs::new(exe, data)).and_then(|mut keeper| keeper.serve(args)) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("keeper: {err}: cannot run; containers carry on without a keeper");
            1
        }
    }
}

struct Agent {
    pid: Pid,
    socket: OwnedFd,
    started_ms: u64,
    /// It runs a fetched program.
    fetched: bool,
    /// When it must have proved itself.
    trial_until_ms: Option<u64>,
    /// Next stored fd to hand over; `None` before `Hello` and when all are told.
    hand_over: Option<usize>,
    ready_due: bool,
    greeted: bool,
    /// It closed its end: its death follows.
    closed: bool,
    replies: VecDeque<Reply>,
}

enum Reply {
    Done(u32),
    Refused(u32, &'static str),
}

struct Keeper {
    programs: Programs,
    signals: SignalFd,
    fds: Vec<(Box<str>, OwnedFd)>,
    exits: VecDeque<(Exit, bool)>,
    next_seq: u64,
    lost: u64,
    restarts: u32,
    agent: Option<Agent>,
    spawn_at_ms: Option<u64>,
    backoff_ms: u64,
    /// Set once a stop was asked for: when the agent is killed if it has not ended.
    stopping: Option<u64>,
    restart_now: bool,
    /// It did something since its code was given back.
    awake: bool,
    buffer: Vec<u8>,
}

impl Keeper {
    fn new(programs: Programs) -> nix::Result<Keeper> {
        nix::sys::prctl::set_child_subreaper(true)?;
        raise_fd_limit();
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Keeper {
            programs,
            signals,
            fds: Vec::new(),
            exits: VecDeque::new(),
            next_seq: 1,
            lost: 0,
            restarts: 0,
            agent: None,
            spawn_at_ms: Some(0),
            backoff_ms: BACKOFF_MS_MIN,
            stopping: None,
            restart_now: false,
            awake: true,
            buffer: Vec::with_capacity(PACKET_BYTES_MAX),
        })
    }

    fn serve(&mut self, args: &[OsString]) -> nix::Result<i32> {
        loop {
            let now = mono_ms();
            if self.agent.is_none() && self.stopping.is_none() && self.spawn_at_ms.is_some_and(|at| at <= now) {
                self.spawn(args);
            }
            self.enforce_stop(now);
            self.enforce_trial(now);
            self.wait(now)?;
            if let Some(code) = self.signals()? {
                return Ok(code);
            }
            self.talk();
        }
    }

    fn spawn(&mut self, args: &[OsString]) {
        self.spawn_at_ms = None;
        let chosen = self.programs.next();
        match start_agent(&chosen.path, args) {
            Ok((pid, socket)) => {
                self.agent = Some(Agent {
                    pid,
                    socket,
                    started_ms: mono_ms(),
                    fetched: chosen.fetched,
                    trial_until_ms: chosen.trial_ms.map(|ms| mono_ms() + ms),
                    hand_over: None,
                    ready_due: false,
                    greeted: false,
                    closed: false,
                    replies: VecDeque::new(),
                });
                for (_, sent) in &mut self.exits {
                    *sent = false;
                }
            }
            Err(err) if chosen.fetched => {
                self.programs.unusable(format!("it does not start: {err}"));
                self.spawn_at_ms = Some(0);
            }
            Err(err) => {
                eprintln!("keeper: cannot start the agent: {err}; trying again in {} ms", self.backoff_ms);
                self.back_off();
            }
        }
    }

    fn back_off(&mut self) {
        self.spawn_at_ms = Some(mono_ms() + self.backoff_ms);
        self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_MS_MAX);
    }

    fn enforce_stop(&mut self, now: u64) {
        let (Some(deadline), Some(agent)) = (self.stopping, &self.agent) else { return };
        if deadline <= now {
            eprintln!("keeper: the agent did not stop within {STOP_MS} ms and is killed");
            let _ = kill(agent.pid, Signal::SIGKILL);
            self.stopping = Some(u64::MAX);
        }
    }

    /// A new program that nobody has agreed with makes room for the old one.
    fn enforce_trial(&mut self, now: u64) {
        let Some(agent) = self.agent.as_mut().filter(|a| a.trial_until_ms.is_some_and(|at| at <= now)) else { return };
        agent.trial_until_ms = None;
        if self.programs.is_overdue() {
            eprintln!("keeper: the new program has not proved itself in time and is ended; containers are untouched");
            // It may be past hearing a polite word; containers and journal stand a kill.
            let _ = kill(agent.pid, Signal::SIGKILL);
            self.restart_now = true;
        }
    }

    /// Sleeps until a signal, a packet, room for what waits, or the next timer.
    fn wait(&mut self, now: u64) -> nix::Result<()> {
        let timer = match (&self.agent, self.stopping) {
            (Some(_), Some(u64::MAX)) => None,
            (Some(agent), deadline) => deadline.or(agent.trial_until_ms),
            (None, _) => self.spawn_at_ms,
        };
        let timeout = match timer {
            None if self.awake => PollTimeout::from(QUIET_MS),
            None => PollTimeout::NONE,
            Some(at) => PollTimeout::try_from(at.saturating_sub(now).min(60_000) as i32).unwrap_or(PollTimeout::ZERO),
        };
        let mut fds = Vec::with_capacity(2);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        if let Some(agent) = self.agent.as_ref().filter(|agent| !agent.closed) {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, self.has_output(agent));
            fds.push(PollFd::new(agent.socket.as_fd(), events));
        }
        let heard = poll(&mut fds, timeout);
        self.awake = match heard {
            Ok(0) if timer.is_none() => {
                crate::device::memory::release();
                false
            }
            Ok(_) | Err(Errno::EINTR) => true,
            Err(err) => return Err(err),
        };
        Ok(())
    }

    fn has_output(&self, agent: &Agent) -> bool {
        agent.greeted
            && (agent.hand_over.is_some()
                || agent.ready_due
                || !agent.replies.is_empty()
                || self.exits.iter().any(|(_, sent)| !sent))
    }

    fn signals(&mut self) -> nix::Result<Option<i32>> {
        while let Some(info) = self.signals.read_signal()? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => {
                    if let Some(code) = self.reap() {
                        return Ok(Some(code));
                    }
                }
                Ok(Signal::SIGHUP) => {
                    self.restart_now = true;
                    self.signal_agent(Signal::SIGTERM);
                }
                Ok(_) => {
                    self.stopping = Some(self.stopping.unwrap_or_else(|| mono_ms() + STOP_MS));
                    self.signal_agent(Signal::SIGTERM);
                    if self.agent.is_none() {
                        return Ok(Some(0));
                    }
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }

    fn signal_agent(&self, signal: Signal) {
        if let Some(agent) = &self.agent {
            let _ = kill(agent.pid, signal);
        }
    }

    /// Collects every dead child; returns the code to exit with when the agent's death ends the keeper too.
    fn reap(&mut self) -> Option<i32> {
        let mut code = None;
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one c_int to a live local.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return code;
            }
            if self.agent.as_ref().is_some_and(|agent| agent.pid.as_raw() == pid) {
                code = self.agent_died(status);
            } else {
                self.note_exit(pid, status);
            }
        }
    }

    fn agent_died(&mut self, status: i32) -> Option<i32> {
        let agent = self.agent.take()?;
        if self.stopping.is_some() {
            return Some(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 });
        }
        let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        // What a fetched program says of the configuration may be its own fault.
        if code == Some(EXIT_CONFIG) && !agent.fetched {
            return Some(EXIT_CONFIG);
        }
        let lived_ms = mono_ms().saturating_sub(agent.started_ms);
        if code == Some(EXIT_UPDATE) {
            eprintln!("keeper: the agent makes room for another program, containers are untouched");
            self.spawn_at_ms = Some(0);
            return None;
        }
        self.programs.ended(lived_ms < SOUND_MS && agent.fetched);
        self.restarts = self.restarts.saturating_add(1);
        if std::mem::take(&mut self.restart_now) {
            self.spawn_at_ms = Some(0);
            return None;
        }
        if lived_ms >= SOUND_MS {
            self.backoff_ms = BACKOFF_MS_MIN;
        }
        eprintln!(
            "keeper: the agent ended ({}); it starts again in {} ms, containers are untouched",
            describe(status),
            self.backoff_ms
        );
        self.back_off();
        None
    }

    fn note_exit(&mut self, pid: i32, status: i32) {
        if self.exits.len() == EXITS_MAX {
            self.exits.pop_front();
            self.lost += 1;
            eprintln!("keeper: more than {EXITS_MAX} exits wait for the agent; the oldest is lost");
        }
        let exit = Exit { seq: self.next_seq, pid, status, at_ms: wall_ms() };
        self.next_seq += 1;
        self.exits.push_back((exit, false));
    }

    /// Takes what the agent sent and sends what fits.
    fn talk(&mut self) {
        while self.agent.is_some() {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    self.cut_off(why);
                    return;
                }
            }
        }
        if let Err(why) = self.send() {
            self.cut_off(why);
        }
    }

    /// A broken conversation cannot be mended: the agent starts anew and is handed everything.
    fn cut_off(&mut self, why: &str) {
        if let Some(agent) = &self.agent {
            if !why.is_empty() {
                eprintln!("keeper: {why}; the agent is killed and starts again");
            }
            let _ = kill(agent.pid, Signal::SIGKILL);
        }
    }

    /// One packet; `Ok(false)` when there is none now.
    fn receive(&mut self) -> Result<bool, &'static str> {
        let Some(agent) = self.agent.as_mut().filter(|agent| !agent.closed) else { return Ok(false) };
        let mut bytes = [0u8; PACKET_BYTES_MAX];
        let (len, fd) = match receive_packet(&agent.socket, &mut bytes) {
            Ok(got) => got,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(Errno::ECONNRESET) => (0, None),
            Err(_) => return Err("the agent's socket broke"),
        };
        if len == 0 {
            agent.closed = true; // SIGCHLD tells the rest
            return Ok(false);
        }
        let Some(packet) = Packet::decode(&bytes[..len]) else { return Err("the agent sent a packet that is none") };
        match packet {
            Packet::Hello => self.greet(),
            Packet::Ack { seq } => self.exits.retain(|(exit, _)| exit.seq != seq),
            Packet::Put { request, key } => {
                let reply = match fd {
                    None => Reply::Refused(request, "no fd came with the request"),
                    Some(fd) => self.store(request, key, fd),
                };
                self.reply(reply)?;
            }
            Packet::Drop { request, key } => {
                self.fds.retain(|(held, _)| &**held != key);
                self.shrink();
                self.reply(Reply::Done(request))?;
            }
            _ => return Err("the agent sent a packet that only the keeper sends"),
        }
        Ok(true)
    }

    fn greet(&mut self) {
        for (_, sent) in &mut self.exits {
            *sent = false;
        }
        if let Some(agent) = &mut self.agent {
            agent.greeted = true;
            agent.hand_over = Some(0);
            agent.ready_due = true;
        }
    }

    fn store(&mut self, request: u32, key: &str, fd: OwnedFd) -> Reply {
        if let Some((_, held)) = self.fds.iter_mut().find(|(held, _)| &**held == key) {
            *held = fd;
            return Reply::Done(request);
        }
        if self.fds.len() >= FDS_MAX {
            return Reply::Refused(request, "the keeper holds as many fds as it can");
        }
        self.fds.push((key.into(), fd));
        Reply::Done(request)
    }

    fn shrink(&mut self) {
        if self.fds.capacity() > 64 && self.fds.len() < self.fds.capacity() / 4 {
            self.fds.shrink_to_fit();
        }
    }

    fn reply(&mut self, reply: Reply) -> Result<(), &'static str> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        if agent.replies.len() >= REPLIES_MAX {
            return Err("the agent does not read its replies");
        }
        agent.replies.push_back(reply);
        Ok(())
    }

    fn send(&mut self) -> Result<(), &'static str> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        if !agent.greeted || agent.closed {
            return Ok(());
        }
        let socket = &agent.socket;
        let buffer = &mut self.buffer;
        while let Some(index) = agent.hand_over {
            let Some((key, fd)) = self.fds.get(index) else {
                agent.hand_over = None;
                break;
            };
            if !send_packet(socket, &Packet::Stored { key }, Some(fd), buffer)? {
                return Ok(());
            }
            agent.hand_over = Some(index + 1);
        }
        for (exit, sent) in self.exits.iter_mut().filter(|(_, sent)| !sent) {
            if !send_packet(socket, &Packet::Exited(*exit), None, buffer)? {
                return Ok(());
            }
            *sent = true;
        }
        if agent.ready_due {
            let ready = Packet::Ready { lost: self.lost, restarts: self.restarts };
            if !send_packet(socket, &ready, None, buffer)? {
                return Ok(());
            }
            agent.ready_due = false;
        }
        while let Some(reply) = agent.replies.front() {
            let packet = match reply {
                Reply::Done(request) => Packet::Done { request: *request },
                Reply::Refused(request, why) => Packet::Refused { request: *request, why },
            };
            if !send_packet(socket, &packet, None, buffer)? {
                return Ok(());
            }
            agent.replies.pop_front();
        }
        Ok(())
    }
}
