//! The queue of events.
//!
//! In: settings with a seed. Out: a report, or the first broken invariant.
//! Phases: trouble (faults and an operator), then peace: convergence, then ten minutes in which nothing is written and
//! nothing but what timers ask for is sent. Time in which nobody wants anything costs nothing.
//! Never: an order that depends on anything but time and the order of scheduling.

use crate::{
    Rng, Sabotage,
    board::{Board, Wish},
    control::By,
    faults::{Net, Way},
    hub::Hub,
    invariants::{self, Memory},
    operator::Operator,
    sabotage,
};
use limpet_agent_core::{Input, Now, pods::ContainerRef};
use limpet_hub_core::{Change, nodes::session::{SessionInput, SessionOutput}};
use limpet_protocol::{Ack, Down, Envelope, Up};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    pub boards: usize,
    /// Simulated time with faults.
    pub trouble_ms: u64,
    /// The time between faults of the whole fleet, in multiples of about four seconds.
    pub fault_every: u64,
    /// With the scheduler, all controllers and workloads.
    pub control: bool,
    /// With quotas, disruption budgets, drains and rollouts through the fleet.
    pub policies: bool,
    /// What the products do wrongly, in tests of the judge.
    pub mistake: Sabotage,
    /// Instead of faults at random a single death.
    pub drill: Option<Drill>,
    /// Objects whose key contains this are printed whenever they change.
    pub follow: Option<String>,
    /// And those at the end.
    pub show: Option<String>,
}

/// Somebody dies at one of the points before and after each of its writes; nothing else goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// Nobody dies: the run only counts the points.
    None,
    Hub(u64),
    /// The agent of the first board is killed.
    Agent(u64),
    /// The first board loses its power.
    Power(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub messages: u64,
    pub bytes: u64,
    pub crashes: u64,
    pub faults: u64,
    pub changes: u64,
    pub containers_started: u64,
    pub journal_records: u64,
    pub hub_writes: u64,
    pub copies_kept_out: u64,
    /// Points at which the hub and the first board could have died.
    pub points: (u64, u64),
    /// Simulated board-milliseconds.
    pub board_ms: u64,
    /// From the end of the faults until every board knows what it should, and the hub that it does.
    pub in_sync_after_ms: u64,
    /// From the end of the faults until everything runs and is known to run.
    pub converged_after_ms: u64,
    /// Order-sensitive hash over all events and the bytes of all messages: equal runs have equal traces.
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
    /// The hub's kernel finds out that a connection's other end is gone.
    Noticed { name: String, connection: u64 },
    DiskGood { board: usize },
    HubDiskGood,
    /// A copy of a card is taken away.
    Unplug { board: usize },
    Decide,
    CarryOut { life: u64, by: By, changes: Vec<Change> },
    Fault,
    Operate,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    order: u64,
    /// In boxes: what moves when one comes or goes is small.
    queue: BTreeMap<(u64, u64), Box<What>>,
    pub(crate) hub: Hub,
    pub(crate) boards: Vec<Board>,
    /// Connections that exist, by board, and the other way round.
    pub(crate) links: BTreeMap<usize, u64>,
    pub(crate) ends: BTreeMap<u64, usize>,
    pub(crate) last_connection: u64,
    pub(crate) ticks: Vec<Option<u64>>,
    pub(crate) hub_tick: Option<u64>,
    pub(crate) decide_at: Option<u64>,
    trouble_until: u64,
    pub(crate) memory: Memory,
    pub(crate) operator: Operator,
    pub(crate) report: Report,
    pub(crate) touched: Vec<usize>,
    pub(crate) net: Net,
    pub(crate) settings: Settings,
}

const QUIET_MS: u64 = 600_000;
/// Every board knows what it should by then.
const SYNC_MS: u64 = 60_000;
/// Reports are asked again after a minute; containers that failed come back after five, and failed pods' owners wait too.
const SETTLE_MS: u64 = 11 * 60_000;
/// The device on record must have been away so long before another one with its card is taken for a repair.
/// The hub notices after up to a minute and a half that it is away, and the other one asks again after a minute at most.
const REPAIR_MS: u64 = 600_000 + 90_000 + 65_000;

/// Runs one simulation.
pub fn run(settings: &Settings) -> Result<Report, String> {
    let mut world = World::new(settings);
    let fail = |e: String, at: u64| {
        let minutes = settings.trouble_ms / 60_000;
        let Settings { seed, boards, fault_every, control, policies, drill, .. } = settings;
        let drill = drill.map_or(String::new(), |d| format!(" drill {d:?}"));
        let control = u8::from(*control) + u8::from(*policies);
        let words = format!("--seed {seed} --nodes {boards} --minutes {minutes} --every {fault_every} --control {control}");
        format!("{words}{drill}, at {at} ms: {e}")
    };
    let outcome = world.live();
    world.show();
    outcome.map_err(|e| fail(e, world.now))?;
    Ok(world.report())
}

impl World {
    fn new(settings: &Settings) -> World {
        let boards: Vec<Board> = (0..settings.boards).map(Board::new).collect();
        let mut world = World {
            rng: Rng::new(settings.seed),
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            hub: Hub::new(settings.boards, (settings.control, settings.policies), settings.mistake),
            links: BTreeMap::new(),
            ends: BTreeMap::new(),
            last_connection: 0,
            ticks: vec![None; boards.len()],
            boards,
            hub_tick: None,
            decide_at: None,
            trouble_until: settings.trouble_ms,
            memory: Memory::new(settings.boards),
            operator: Operator::new(settings.boards, settings.policies, settings.fault_every),
            report: Report::default(),
            touched: Vec::new(),
            net: Net::default(),
            settings: Settings { fault_every: settings.fault_every.max(1), ..settings.clone() },
        };
        world.hub.follow.clone_from(&settings.follow);
        match settings.drill {
            Some(Drill::Hub(at)) => world.hub.dies_at = Some(at),
            Some(Drill::Agent(at) | Drill::Power(at)) => world.boards[0].dies_at = Some(at),
            Some(Drill::None) | None => {}
        }
        for board in 0..settings.boards {
            world.boards[board].mistake = settings.mistake;
            world.boards[board].runtime.mistake = settings.mistake;
            world.after(1, What::Start { board });
        }
        world.after(5, What::Operate);
        if settings.drill.is_none() {
            world.after(2_000, What::Fault);
        }
        world
    }

    fn live(&mut self) -> Result<(), String> {
        self.advance(self.settings.trouble_ms)?;
        self.make_peace();
        self.converge()?;
        self.quiet()
    }

    fn show(&self) {
        let Some(part) = &self.settings.show else { return };
        for (key, object) in self.hub.api.objects.iter().filter(|(k, _)| k.to_string().contains(part)) {
            println!("{key}: {object}");
        }
        for board in &self.boards {
            println!("{}: {:#?}", board.name, board.agent.as_ref().map(|a| &a.pods));
        }
    }

    pub(crate) fn clock(&self, board: usize) -> Now {
        self.boards[board].clock(self.now)
    }

    pub(crate) fn after(&mut self, ms: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now + ms, self.order), Box::new(what));
    }

    pub(crate) fn trouble(&self) -> bool {
        self.now < self.trouble_until
    }

    /// Whether things go wrong at random.
    pub(crate) fn rough(&self) -> bool {
        self.trouble() && self.settings.drill.is_none()
    }

    /// Faults that last end with the trouble at the latest.
    pub(crate) fn trouble_left(&self) -> u64 {
        self.trouble_until.saturating_sub(self.now)
    }

    fn advance(&mut self, until: u64) -> Result<(), String> {
        while let Some(entry) = self.queue.first_entry() {
            let (at, order) = *entry.key();
            if at > until {
                break;
            }
            let what = entry.remove();
            self.now = self.now.max(at);
            self.report.events += 1;
            self.report.trace = self.report.trace.rotate_left(5) ^ (at.wrapping_mul(31) + order + what.letter());
            self.hub.set_clock(self.now);
            self.step(*what);
            self.follow_up()?;
        }
        self.now = self.now.max(until);
        self.hub.set_clock(self.now);
        Ok(())
    }

    /// What follows at once from what happened, and whether all of it may be.
    fn follow_up(&mut self) -> Result<(), String> {
        self.flush_hub();
        while let Some(board) = self.touched.pop() {
            self.pump(board);
            self.memory.check(&mut self.boards, board)?;
            for uid in std::mem::take(&mut self.boards[board].runtime.began) {
                self.hub.promises.began(&self.boards, board, &uid)?;
            }
        }
        self.hub.broken.take().map_or(Ok(()), Err)
    }

    /// Until desired = actual, everywhere.
    fn converge(&mut self) -> Result<(), String> {
        let repair = if self.boards.iter().any(|b| b.copied) { REPAIR_MS } else { 0 };
        let end = self.trouble_until + SETTLE_MS + repair;
        let mut synced = false;
        loop {
            let left = self.now - self.trouble_until;
            if !synced {
                match invariants::in_sync(&self.hub, &self.boards) {
                    Ok(()) => (synced, self.report.in_sync_after_ms) = (true, left),
                    Err(e) if left > SYNC_MS + repair => return Err(format!("is not in sync a minute after the faults: {e}")),
                    Err(_) => {}
                }
            }
            match invariants::converged(&self.hub, &self.boards) {
                Ok(()) if synced => {
                    self.report.converged_after_ms = left;
                    return Ok(());
                }
                Err(e) if self.now >= end => return Err(format!("does not converge: {e}")),
                _ => self.advance(self.now + 1000)?,
            }
        }
    }

    /// After convergence: ten minutes without a write anywhere, and still converged.
    fn quiet(&mut self) -> Result<(), String> {
        // What was still on the way when the faults ended arrives first.
        self.advance(self.now + 10_000)?;
        let writes = |w: &World| (w.hub.writes, w.boards.iter().map(|b| b.journal.written()).sum::<u64>());
        let before = (writes(self), self.report.messages);
        let until = self.now + QUIET_MS;
        self.advance(until)?;
        if writes(self) != before.0 {
            return Err(format!("writes although nothing happens: {:?} became {:?}", before.0, writes(self)));
        }
        if self.report.messages != before.1 {
            return Err(format!("{} messages although nothing happens", self.report.messages - before.1));
        }
        invariants::converged(&self.hub, &self.boards).map_err(|e| format!("does not stay converged: {e}"))
    }

    fn report(self) -> Report {
        Report {
            containers_started: self.boards.iter().map(|b| b.runtime.started).sum(),
            journal_records: self.boards.iter().map(|b| b.journal.written()).sum(),
            board_ms: self.now * self.settings.boards as u64,
            hub_writes: self.hub.writes,
            copies_kept_out: self.hub.kept_out,
            points: (self.hub.points, self.boards[0].points),
            ..self.report
        }
    }

    fn pump(&mut self, board: usize) {
        if self.boards[board].agent.is_none() {
            return;
        }
        if self.rough() && self.rng.one_in(400) {
            let soon = self.rng.between(0, 8);
            self.boards[board].dies_at = Some(self.boards[board].points + soon);
        }
        let now = self.clock(board);
        let wishes = self.boards[board].pump(now, &mut self.rng);
        let (life, boot) = (self.boards[board].life, self.boards[board].boot);
        for wish in wishes {
            match wish {
                Wish::Send(bytes) => {
                    if let Some(connection) = self.links.get(&board).copied() {
                        let make = |bytes| What::ToHub { board, connection, bytes };
                        self.travel(board, Way::Up, bytes, make);
                    }
                }
                Wish::Later(ms, input) => self.after(ms, What::Outcome { board, life, input }),
                Wish::End(ms, at, code) => self.after(ms, What::End { board, boot, at, code }),
            }
        }
        if self.boards[board].agent.is_none() {
            let power = matches!(self.settings.drill, Some(Drill::Power(_))) || (self.rough() && self.rng.one_in(3));
            if power {
                self.boards[board].reboot(&mut self.rng);
            }
            self.died(board, power);
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

    fn flush_hub(&mut self) {
        if !self.hub.up {
            return;
        }
        self.hub.settle();
        for (node, output) in std::mem::take(&mut self.hub.out) {
            match output {
                SessionOutput::Send { connection, version, mut envelope, .. } => {
                    if self.settings.mistake == Sabotage::ForeignSecret {
                        sabotage::with_foreign_secret(&mut envelope.message);
                    }
                    let copied = self.boards.iter().any(|b| b.copied && b.name == node);
                    if let Err(e) = self.hub.wire.down(&self.hub.api, &node, copied, &envelope.message) {
                        self.hub.broken.get_or_insert(e);
                    }
                    self.answer_for_the_board(&node, connection, &envelope);
                    if let Some(board) = self.ends.get(&connection).copied() {
                        let make = |bytes| What::ToBoard { board, connection, bytes };
                        self.travel(board, Way::Down, envelope.encode(version), make);
                    }
                }
                SessionOutput::Write { ticket, changes } => {
                    let life = self.hub.life;
                    let last = self.hub.written_until.get(&node).copied().unwrap_or(0);
                    let at = (self.now + self.rng.between(1, 60)).max(last);
                    self.hub.written_until.insert(node.clone(), at);
                    if self.settings.mistake == Sabotage::ConfirmsEarly {
                        self.hub.give(&node, SessionInput::Durable { ticket });
                    }
                    self.after(at - self.now, What::Written { node, life, ticket, changes });
                }
                SessionOutput::Token(wanted) => {
                    let (generation, body) = (self.hub.api.revision, self.hub.next_token());
                    let input = SessionInput::Token { key: wanted.key, generation, body };
                    self.hub.give(&node, input);
                }
                SessionOutput::Close { connection, .. } => {
                    if let Some(board) = self.ends.get(&connection).copied() {
                        self.cut_now(board);
                    }
                }
                SessionOutput::Notice { reason: "ReportRefused", message } => {
                    self.hub.broken.get_or_insert(format!("a report of {node} was refused: {message}"));
                }
                SessionOutput::Stream(_)
                | SessionOutput::Log(_)
                | SessionOutput::Message(_)
                | SessionOutput::Opened { .. }
                | SessionOutput::Closed { .. }
                | SessionOutput::Notice { .. } => {}
            }
        }
        if !self.hub.out.is_empty() || !self.hub.api.changed.is_empty() {
            return self.flush_hub();
        }
        self.plan_wakes();
    }

    /// A hub that takes for granted that boards have what they were sent.
    fn answer_for_the_board(&mut self, node: &str, connection: u64, envelope: &Envelope<Down>) {
        if self.settings.mistake != Sabotage::AnswersForBoards {
            return;
        }
        let seq = match &envelope.message {
            Down::Step(step) => step.seq,
            Down::Change(change) => change.seq,
            _ => return,
        };
        let envelope = Envelope { session: envelope.session, message: Up::Ack(Ack { seq }) };
        self.hub.give(node, SessionInput::Message { connection, envelope });
    }

    fn plan_wakes(&mut self) {
        if let Some(at) = self.hub.wake_at() {
            let at = at.max(self.now + 1);
            if self.hub_tick.is_none_or(|t| at < t) {
                self.hub_tick = Some(at);
                self.after(at - self.now, What::HubTick);
            }
        }
        let timer = self.hub.control_at().map(|at| at.max(self.now + 1));
        let stirred = self.hub.control.is_stirred().then_some(self.now + 5);
        if let Some(at) = timer.into_iter().chain(stirred).min()
            && self.decide_at.is_none_or(|t| at < t)
        {
            self.decide_at = Some(at);
            self.after(at - self.now, What::Decide);
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
            What::Noticed { .. } => 16,
            What::HubDiskGood => 17,
            What::Unplug { .. } => 18,
            What::Decide => 19,
            What::CarryOut { .. } => 20,
        }
    }
}
