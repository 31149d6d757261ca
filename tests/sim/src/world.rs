//! The queue of events and the faults.
//!
//! In: settings with a seed. Out: a report, or the first broken invariant.
//! Phases: trouble (faults and an operator), then peace: convergence within a minute, then ten minutes in which nothing
//! is written and nothing but what timers ask for is sent.
//! Never: an order that depends on anything but time and the order of scheduling.

use crate::{
    Rng,
    board::{Board, Wish},
    faults::{self, Net, Way},
    hub::{self, Hub},
    invariants::{self, Memory},
    operator::Operator,
};
use limpet_agent_core::{Input, Now, pods::ContainerRef};
use limpet_hub_core::{
    Change,
    nodes::session::{SessionInput, SessionOutput},
};
use limpet_protocol::{Envelope, Up};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    pub boards: usize,
    /// Simulated time with faults.
    pub trouble_ms: u64,
    /// The time between faults, in multiples of about four seconds.
    pub fault_every: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub messages: u64,
    pub bytes: u64,
    pub crashes: u64,
    pub containers_started: u64,
    pub journal_records: u64,
    /// Simulated board-milliseconds.
    pub board_ms: u64,
    /// From the end of the faults to convergence.
    pub converged_after_ms: u64,
    /// Order-sensitive sum over all events: equal runs have equal traces.
    pub trace: u64,
}

pub(crate) enum What {
    Connect { board: usize },
    ToHub { board: usize, connection: u64, bytes: Vec<u8> },
    ToBoard { board: usize, connection: u64, bytes: Vec<u8> },
    Cut { board: usize, connection: u64 },
    Outcome { board: usize, life: u64, input: Input },
    End { board: usize, boot: u64, at: ContainerRef, code: i32 },
    BoardTick { board: usize },
    HubTick,
    Written { node: String, life: u64, ticket: u64, changes: Vec<Change> },
    Start { board: usize },
    HubStart,
    /// A connection of which one direction was dead is given up.
    Break { board: usize, connection: u64 },
    DiskGood { board: usize },
    Fault,
    Operate,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    pub(crate) hub: Hub,
    pub(crate) boards: Vec<Board>,
    /// Connections that exist, by board.
    pub(crate) links: BTreeMap<usize, u64>,
    last_connection: u64,
    ticks: Vec<Option<u64>>,
    pub(crate) hub_tick: Option<u64>,
    trouble_until: u64,
    memory: Memory,
    operator: Operator,
    pub(crate) report: Report,
    touched: Vec<usize>,
    pub(crate) net: Net,
    pub(crate) fault_every: u64,
}

const PEACE_MS: u64 = 60_000;
const QUIET_MS: u64 = 600_000;
/// Reports are asked again after a minute and crash-looping containers come back after five.
const SETTLE_MS: u64 = 6 * 60_000;

/// Runs one simulation.
pub fn run(settings: &Settings) -> Result<Report, String> {
    let mut world = World::new(settings);
    let fail = |e: String, at: u64| {
        let minutes = settings.trouble_ms / 60_000;
        let Settings { seed, boards, fault_every, .. } = settings;
        format!("seed {seed} boards {boards} minutes {minutes} every {fault_every}, at {at} ms: {e}")
    };
    world.advance(settings.trouble_ms).map_err(|(e, at)| fail(e, at))?;
    let end = settings.trouble_ms + PEACE_MS + SETTLE_MS;
    let mut last = String::new();
    while world.now < end {
        let next = world.now + 500;
        world.advance(next).map_err(|(e, at)| fail(e, at))?;
        match invariants::converged(&world.hub, &world.boards) {
            Ok(()) => {
                last.clear();
                break;
            }
            Err(e) => last = e,
        }
    }
    if !last.is_empty() {
        return Err(fail(format!("does not converge: {last}"), world.now));
    }
    world.report.converged_after_ms = world.now - settings.trouble_ms;
    world.quiet().map_err(|e| fail(e, world.now))?;
    let mut report = world.report.clone();
    report.containers_started = world.boards.iter().map(|b| b.started).sum();
    report.journal_records = world.boards.iter().map(Board::written).sum();
    report.board_ms = world.now * settings.boards as u64;
    Ok(report)
}

impl World {
    fn new(settings: &Settings) -> World {
        let boards: Vec<Board> = (0..settings.boards).map(Board::new).collect();
        let mut world = World {
            rng: Rng::new(settings.seed),
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            hub: Hub::new(settings.boards),
            links: BTreeMap::new(),
            last_connection: 0,
            ticks: vec![None; boards.len()],
            boards,
            hub_tick: None,
            trouble_until: settings.trouble_ms,
            memory: Memory::new(settings.boards),
            operator: Operator::new(settings.boards),
            report: Report::default(),
            touched: Vec::new(),
            net: Net::default(),
            fault_every: settings.fault_every.max(1),
        };
        for board in 0..settings.boards {
            world.after(1, What::Start { board });
        }
        world.after(5, What::Operate);
        world.after(2_000, What::Fault);
        world
    }

    fn clock(&self, board: usize) -> Now {
        self.boards[board].clock(self.now)
    }

    pub(crate) fn after(&mut self, ms: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now + ms, self.order), what);
    }

    pub(crate) fn trouble(&self) -> bool {
        self.now < self.trouble_until
    }

    /// Faults that last end with the trouble at the latest.
    pub(crate) fn trouble_left(&self) -> u64 {
        self.trouble_until.saturating_sub(self.now)
    }

    fn advance(&mut self, until: u64) -> Result<(), (String, u64)> {
        while let Some(((at, _), _)) = self.queue.first_key_value() {
            if *at > until {
                break;
            }
            let Some(((at, order), what)) = self.queue.pop_first() else { break };
            self.now = self.now.max(at);
            self.report.events += 1;
            self.report.trace = self.report.trace.rotate_left(5) ^ (at.wrapping_mul(31) + order + what.letter());
            self.hub.clock_ms = self.now;
            self.step(what);
            self.flush_hub();
            invariants::hub_is_patient(&self.hub).map_err(|e| (e, self.now))?;
            for board in std::mem::take(&mut self.touched) {
                self.pump(board);
                self.memory.check(&self.boards, board).map_err(|e| (e, self.now))?;
                if self.report.events.is_multiple_of(64) {
                    invariants::durable(&self.boards[board]).map_err(|e| (e, self.now))?;
                }
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// After convergence: ten minutes without a write anywhere, and still converged.
    fn quiet(&mut self) -> Result<(), String> {
        // What was still on the way when the faults ended arrives first.
        let settled = self.now + 10_000;
        self.advance(settled).map_err(|(e, _)| e)?;
        let writes = |w: &World| (w.hub.revision, w.boards.iter().map(Board::written).sum::<u64>());
        let before = (writes(self), self.report.messages);
        let until = self.now + QUIET_MS;
        self.advance(until).map_err(|(e, _)| e)?;
        if writes(self) != before.0 {
            return Err(format!("writes although nothing happens: {:?} became {:?}", before.0, writes(self)));
        }
        if self.report.messages != before.1 {
            return Err(format!("{} messages although nothing happens", self.report.messages - before.1));
        }
        invariants::converged(&self.hub, &self.boards).map_err(|e| format!("does not stay converged: {e}"))
    }

    fn step(&mut self, what: What) {
        match what {
            What::Connect { board } => self.connect(board),
            What::ToHub { board, connection, bytes } => self.to_hub(board, connection, &bytes),
            What::ToBoard { board, connection, bytes } => {
                if self.boards[board].connection == Some(connection) {
                    let now = self.clock(board);
                    self.boards[board].receive(now, &bytes);
                    self.touched.push(board);
                }
            }
            What::Cut { board, connection } => self.cut(board, connection),
            What::Outcome { board, life, input } => {
                if self.boards[board].life == life {
                    let now = self.clock(board);
                    self.boards[board].input(now, input);
                    self.touched.push(board);
                }
            }
            What::End { board, boot, at, code } => {
                let now = self.clock(board);
                if self.boards[board].boot == boot
                    && let Some(news) = self.boards[board].end(now, &at, code)
                {
                    self.boards[board].input(now, news);
                    self.touched.push(board);
                }
            }
            What::BoardTick { board } => {
                self.ticks[board] = None;
                let now = self.clock(board);
                self.boards[board].tick(now);
                self.touched.push(board);
            }
            What::HubTick => {
                self.hub_tick = None;
                for name in self.hub.due() {
                    self.hub.give(&name, hub::now(self.now), SessionInput::Tick);
                }
            }
            What::Written { node, life, ticket, changes } => {
                if self.hub.life == life {
                    // Power fails just before or just after the store has it.
                    let dies = self.trouble() && self.rng.one_in(500);
                    if dies && self.rng.one_in(2) {
                        return self.crash_hub();
                    }
                    self.hub.apply(changes);
                    if dies {
                        return self.crash_hub();
                    }
                    self.hub.give(&node, hub::now(self.now), SessionInput::Durable { ticket });
                }
            }
            What::Start { board } => {
                if self.boards[board].agent.is_none() {
                    if self.trouble() {
                        self.boards[board].versions = faults::some_version(&mut self.rng);
                    }
                    let now = self.clock(board);
                    self.boards[board].start(now);
                    self.touched.push(board);
                    let wait = self.rng.between(10, 3_000);
                    self.after(wait, What::Connect { board });
                }
            }
            What::HubStart => {
                if self.trouble() {
                    self.hub.versions = faults::some_version(&mut self.rng);
                }
                self.hub.start();
            }
            What::Break { board, connection } => {
                if self.links.get(&board) == Some(&connection) {
                    self.cut_now(board);
                }
            }
            What::DiskGood { board } => {
                self.boards[board].disk_bad = false;
                self.touched.push(board);
            }
            What::Fault => self.fault(),
            What::Operate => {
                if self.trouble() {
                    let wait = self.rng.between(50, 6_000) * self.fault_every;
                    self.after(wait, What::Operate);
                    if self.hub.up {
                        self.operator.act(&mut self.hub, &mut self.rng);
                    }
                }
            }
        }
    }

    fn connect(&mut self, board: usize) {
        if self.boards[board].agent.is_none() || self.boards[board].connection.is_some() {
            return;
        }
        if !self.hub.up || (self.boards[board].cut_off && self.trouble()) {
            let wait = self.rng.between(500, 5_000);
            self.after(wait, What::Connect { board });
            return;
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        self.links.insert(board, connection);
        self.boards[board].connected(connection);
        let name = self.boards[board].name.clone();
        self.hub.give(&name, hub::now(self.now), SessionInput::Connected { connection });
        self.touched.push(board);
        // A conversation that does not get going is given up, as the agent's link does.
        self.after(30_000, What::Cut { board, connection });
    }

    fn to_hub(&mut self, board: usize, connection: u64, bytes: &[u8]) {
        if !self.hub.up || self.links.get(&board) != Some(&connection) {
            return;
        }
        let Ok(envelope) = Envelope::<Up>::decode(bytes) else { return };
        let name = self.boards[board].name.clone();
        self.hub.give(&name, hub::now(self.now), SessionInput::Message { connection, envelope });
    }

    /// The timer of a new connection, or a real cut (`cut_now` clears `welcomed`).
    fn cut(&mut self, board: usize, connection: u64) {
        let welcomed = self.boards[board].agent.as_ref().is_some_and(|a| a.sync.welcomed());
        if self.boards[board].connection == Some(connection) && !welcomed {
            self.cut_now(board);
        }
    }

    pub(crate) fn cut_now(&mut self, board: usize) {
        let Some(connection) = self.links.remove(&board) else { return };
        self.boards[board].disconnected();
        self.touched.push(board);
        let name = self.boards[board].name.clone();
        if self.hub.up {
            self.hub.give(&name, hub::now(self.now), SessionInput::Disconnected { connection });
        }
        let wait = self.rng.between(100, 5_000);
        self.after(wait, What::Connect { board });
    }

    fn pump(&mut self, board: usize) {
        let mut crash_in = (self.trouble() && self.rng.one_in(400)).then(|| self.rng.between(0, 4));
        let now = self.clock(board);
        let wishes = self.boards[board].pump(now, &mut self.rng, &mut crash_in);
        let (life, boot) = (self.boards[board].life, self.boards[board].boot);
        for wish in wishes {
            match wish {
                Wish::Send(bytes) => {
                    if let Some(connection) = self.boards[board].connection {
                        let make = |bytes| What::ToHub { board, connection, bytes };
                        self.travel(board, Way::Up, bytes, make);
                    }
                }
                Wish::Later(ms, input) => self.after(ms, What::Outcome { board, life, input }),
                Wish::End(ms, at, code) => self.after(ms, What::End { board, boot, at, code }),
            }
        }
        if self.boards[board].agent.is_none() {
            self.died(board);
            return;
        }
        self.boards[board].compact_if_long();
        if let Some(at) = self.boards[board].wake_at()
            && self.ticks[board].is_none_or(|t| at < t)
        {
            self.ticks[board] = Some(at);
            self.after(at.saturating_sub(self.now).max(1), What::BoardTick { board });
        }
    }

    /// The keeper starts a dead agent again.
    pub(crate) fn died(&mut self, board: usize) {
        self.report.crashes += 1;
        self.links.remove(&board);
        self.ticks[board] = None;
        let wait = self.rng.between(300, 2_000);
        self.after(wait, What::Start { board });
    }

    fn flush_hub(&mut self) {
        for (node, output) in std::mem::take(&mut self.hub.out) {
            let board = node.strip_prefix("board-").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            match output {
                SessionOutput::Send { connection, version, envelope, .. } => {
                    let make = |bytes| What::ToBoard { board, connection, bytes };
                    self.travel(board, Way::Down, envelope.encode(version), make);
                }
                SessionOutput::Write { ticket, changes } => {
                    let life = self.hub.life;
                    let wait = self.rng.between(1, 60);
                    self.after(wait, What::Written { node, life, ticket, changes });
                }
                SessionOutput::Token(wanted) => {
                    let (generation, body) = (self.hub.revision, self.hub.next_token());
                    self.hub.give(&node, hub::now(self.now), SessionInput::Token { key: wanted.key, generation, body });
                }
                SessionOutput::Close { .. } => self.cut_now(board),
                SessionOutput::Stream(_)
                | SessionOutput::Opened { .. }
                | SessionOutput::Closed { .. }
                | SessionOutput::Notice { .. } => {}
            }
        }
        if !self.hub.out.is_empty() {
            self.flush_hub();
        }
        if let Some(at) = self.hub.wake_at() {
            let ms = at.max(self.now + 1);
            if self.hub_tick.is_none_or(|t| ms < t) {
                self.hub_tick = Some(ms);
                self.after(ms - self.now, What::HubTick);
            }
        }
    }
}

impl What {
    fn letter(&self) -> u64 {
        match self {
            What::Connect { .. } => 1,
            What::ToHub { .. } => 2,
            What::ToBoard { .. } => 3,
            What::Cut { .. } => 4,
            What::Outcome { .. } => 5,
            What::End { .. } => 6,
            What::BoardTick { .. } => 7,
            What::HubTick => 8,
            What::Written { .. } => 9,
            What::Start { .. } => 10,
            What::HubStart => 11,
            What::Fault => 12,
            What::Operate => 13,
            What::Break { .. } => 14,
            What::DiskGood { .. } => 15,
        }
    }
}
